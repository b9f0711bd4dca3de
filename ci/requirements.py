"""Print the requirements of this project that the running interpreter does not meet, one a line.

Usage: python ci/requirements.py run|dev [NAME ...]

`run` is what the program needs, `dev` adds what its tests need; names restrict the answer to them.
Standard library and pip alone, because it runs before anything is installed. Only the packages that
the project names are looked at, not what they need in turn: a GPU image may run well with packages
that pip would call inconsistent, and has no network to mend them from.
"""

import importlib.metadata
import sys
import tomllib
from pathlib import Path

try:
    from packaging.requirements import Requirement
except ModuleNotFoundError:
    from pip._vendor.packaging.requirements import Requirement

PYPROJECT = Path(__file__).resolve().parent.parent / "pyproject.toml"


def declared(group: str) -> list[Requirement]:
    """What pyproject.toml asks for on this platform, the build's own needs included."""
    tables = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))
    project = tables["project"]
    lines = tables["build-system"]["requires"] + project["dependencies"]
    if group == "dev":
        lines = lines + project["optional-dependencies"]["dev"]
    requirements = [Requirement(line) for line in lines]
    return [r for r in requirements if r.marker is None or r.marker.evaluate()]


def is_met(requirement: Requirement) -> bool:
    """Whether an installed version satisfies the requirement."""
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    # A machine's own torch may be a nightly or a vendor build: 2.12.0a0+nv is a 2.12.
    return requirement.specifier.contains(version, prereleases=True)


def main(group: str, *names: str) -> None:
    """Print what is missing."""
    for requirement in declared(group):
        if (not names or requirement.name in names) and not is_met(requirement):
            print(f"{requirement.name}{requirement.specifier}")


if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in ("run", "dev"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
