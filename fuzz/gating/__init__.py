"""The parts of the gate: what a change affects, where it stands in the sources, what came of it."""
