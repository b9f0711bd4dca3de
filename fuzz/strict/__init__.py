"""The parts of the strict interpreter: what takes the place of Triton's own."""
