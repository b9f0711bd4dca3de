"""Git asked: nothing of the user's redirects it, and it changes nothing of the user's."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fuzz.jobs.setup import UsageError

PYTHON_SOURCES = "*.py"
"""Which files git is asked about, in all folders: kernels are written in no others."""

_REDIRECTING = frozenset(
    {
        # What git sets for its hooks and aliases: they name another repository, work tree or index
        # than the folder does.
        *("GIT_DIR", "GIT_WORK_TREE", "GIT_IMPLICIT_WORK_TREE", "GIT_COMMON_DIR"),
        *("GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_INTERNAL_SUPER_PREFIX"),
        *("GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_QUARANTINE_PATH"),
        *("GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_NO_REPLACE_OBJECTS", "GIT_REPLACE_REF_BASE"),
        # What changes how it writes a difference or reads a path.
        *("GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_ATTR_SOURCE"),
        *("GIT_LITERAL_PATHSPECS", "GIT_GLOB_PATHSPECS", "GIT_NOGLOB_PATHSPECS"),
        "GIT_ICASE_PATHSPECS",
        # It chooses the language even where LC_ALL is set.
        "LANGUAGE",
    }
)
"""Variables that git must not inherit. Those that configure it stay: CI trusts a folder by them."""

_SET = {
    # A question may not rewrite the user's index, not even to refresh it.
    "GIT_OPTIONAL_LOCKS": "0",
    # A partial clone fetches what it lacks; nobody is there to type a password.
    "GIT_TERMINAL_PROMPT": "0",
    "LC_ALL": "C",
}

_OPTIONS = (
    *("-c", f"core.hooksPath={os.devnull}"),
    # May name a program too.
    *("-c", "core.fsmonitor=false"),
)


@dataclass(frozen=True)
class Answer:
    """How git ended, what it printed, and what it said of an error, in one line."""

    code: int
    out: bytes
    error: str


def ask(folder: Path, *arguments: str) -> Answer:
    """Run git in a folder.

    Raises: UsageError where git is not installed or cannot be run.
    """
    environment = {k: v for k, v in os.environ.items() if k not in _REDIRECTING} | _SET
    try:
        child = subprocess.Popen(
            ["git", *_OPTIONS, "-C", os.fspath(folder), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            # A terminal sends Ctrl-C to all of the group; what git is at is ended here, in order.
            process_group=0,
        )
    except FileNotFoundError as error:
        raise UsageError("base: needs git, which is not on the PATH") from error
    except OSError as error:
        raise UsageError(f"base: git cannot be run: {error.strerror}") from error
    with child:
        try:
            out, said = child.communicate()
        except BaseException:
            # Asked to end, not killed: it removes its own lock files.
            child.terminate()
            child.wait()
            raise
    words = " ".join(said.decode(errors="replace").split())
    return Answer(child.returncode, out, words.removeprefix("fatal: ").removeprefix("error: "))


def git(folder: Path, *arguments: str) -> bytes:
    """What git prints.

    Raises: UsageError with git's own words where it fails.
    """
    answer = ask(folder, *arguments)
    if answer.code != 0:
        raise UsageError(f"base: git {arguments[0]} failed in {folder}: {answer.error}")
    return answer.out
