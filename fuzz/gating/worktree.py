"""Commits of the user's repository, and one of them as a folder of its own.

The folder is a detached work tree of git: the user's checkout, index and branches stay as they are,
and no hook runs. It holds what is committed: submodules stay empty folders, files under git LFS are
fetched where git-lfs is set up and are its pointer files elsewhere, and whatever was generated
beside the sources is not there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

from fuzz.gating.git import PYTHON_SOURCES, ask, git
from fuzz.gating.outcome import Commit
from fuzz.jobs.setup import UsageError
from fuzz.process.interrupts import counting_interrupts

_RULE = "must be a branch, tag or commit of this repository"

_PREFIX = "ln-fuzz-base-"
"""Begins the name of the temporary folder around a work tree, by which one that a killed gate left
is known."""

_TREE = "sources"
_OWNED = "owned.lock"
"""In the temporary folder. Locked as long as its gate lives, however that ends."""

_TURNS = "ln-fuzz.lock"
"""In the repository's own folder. Locked while work trees are entered or removed: git can fail
where another git does the same at that moment."""


def root(folder: Path) -> Path:
    """Top of the work tree that a folder is in, with symbolic links resolved.

    Raises: UsageError where it is in none, or git cannot be asked.
    """
    answer = ask(folder, "rev-parse", "--show-toplevel")
    if answer.code != 0:
        raise UsageError(
            f"base: folder={str(folder)!r}, must be in the work tree of a git repository "
            f"({answer.error})"
        )
    return _path(answer.out)


def commit(ref: str, folder: Path) -> Commit:
    """The commit that a branch, tag, id or any other name of git's means.

    Raises: UsageError that says how to fetch it where that may be what is missing.
    """
    top = root(folder)
    # Without the first rule git would take it for an option.
    if not ref.strip() or ref.startswith("-") or "\0" in ref:
        raise UsageError(f"base={ref!r}, {_RULE}")
    sha = _sha(ref, top)
    if sha is None:
        raise UsageError(f"base={ref!r} is not known, {_RULE}{_how_to_get(ref, top)}")
    return Commit(ref, sha)


def common_commit(ref: str, folder: Path) -> Commit:
    """The last commit that the checked-out one shares with another, where git knows of one.

    What the other branch has got since is no change of this one. In a shallow clone, whose history
    is cut off, it is the other commit itself.
    Raises: UsageError as :func:`commit` does.
    """
    named = commit(ref, folder)
    answer = ask(root(folder), "merge-base", named.sha, "HEAD")
    sha = answer.out.decode(errors="replace").strip()
    return Commit(ref, sha if answer.code == 0 and sha else named.sha)


def head(folder: Path) -> Commit:
    """The commit that is checked out, and whether the work tree differs from it.

    Any change of a tracked file counts, staged or not. Of files that are neither tracked nor
    ignored only Python sources do: a kernel may be among them, and a gate's own reports are not.
    Raises: UsageError where there is no commit.
    """
    top = root(folder)
    sha = _sha("HEAD", top)
    if sha is None:
        raise UsageError(f"base: the repository {top} has no commit, must have one to compare with")
    changed = git(
        top,
        *("status", "--porcelain=v1", "-z", "--untracked-files=no"),
        "--ignore-submodules=untracked",
    )
    return Commit("HEAD", sha, dirty=bool(changed or untracked(top)))


def untracked(top: Path) -> tuple[str, ...]:
    """Python sources that are neither tracked nor ignored, named from the top.

    Raises: UsageError.
    """
    listed = git(top, "ls-files", "--others", "--exclude-standard", "-z", "--", PYTHON_SOURCES)
    return tuple(sorted(os.fsdecode(name) for name in listed.split(b"\0") if name))


@contextlib.contextmanager
def work_tree(sha: str, repo: Path) -> Iterator[Path]:
    """A commit's sources in a temporary folder, which is gone at the end, however that comes.

    Several at once do not disturb each other. One that a killed gate left is removed on the way.
    Raises: UsageError where git cannot make it.
    """
    with contextlib.ExitStack() as at_the_end:
        with _uninterrupted():
            try:
                tree = _enter(sha, repo, at_the_end)
            except OSError as error:
                raise UsageError(f"base: no temporary folder for {sha}: {error}") from error
        git(tree, "reset", "--hard", "--quiet", "--no-recurse-submodules")
        yield tree


# --- names ----------------------------------------------------------------------------------------


def _path(line: bytes) -> Path:
    return Path(os.fsdecode(line.removesuffix(b"\n")))


def _sha(ref: str, top: Path) -> str | None:
    answer = ask(top, "rev-parse", "--verify", "--quiet", f"{ref}^{{commit}}")
    sha = answer.out.decode(errors="replace").strip()
    # Of "^main" git makes "everything but this commit".
    return sha if answer.code == 0 and re.fullmatch("[0-9a-f]+", sha) else None


def _how_to_get(ref: str, top: Path) -> str:
    """The end of an error message: what to do about a name that git does not know."""
    remotes = os.fsdecode(git(top, "remote")).split()
    for remote in remotes:
        if _sha(f"{remote}/{ref}", top) is not None:
            return f"; did you mean base='{remote}/{ref}'?"
    if not remotes:
        return ""
    shallow = git(top, "rev-parse", "--is-shallow-repository").strip() == b"true"
    fetch = "git fetch --depth=1" if shallow else "git fetch"
    remote, _, branch = ref.partition("/")
    # Neither has a name at the remote: an id that is cut short, an expression such as HEAD~2.
    if re.fullmatch("[0-9a-f]{7,39}", ref) or re.search(r"[~^:@{*?\[\\\s]", ref):
        how = "`git fetch --unshallow`" if shallow else ""
    elif re.fullmatch("[0-9a-f]{40}|[0-9a-f]{64}", ref):
        how = f"`{fetch} {remotes[0]} {ref}`"
    elif remote in remotes:
        how = f"`{fetch} {remote} {branch}:refs/remotes/{ref}`"
    else:
        there = f"{remotes[0]}/{ref}"
        how = f"`{fetch} {remotes[0]} {ref}:refs/remotes/{there}` and base={there!r}"
    if not how:
        return ""
    if shallow:
        return (
            f"; this is a shallow clone, so fetch it: {how}, or in GitHub Actions "
            "`fetch-depth: 0` of actions/checkout"
        )
    return f"; if it was not fetched: {how}"


# --- one work tree --------------------------------------------------------------------------------


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ctrl-C and SIGTERM take effect at the end only: nothing is left half done."""
    with counting_interrupts() as seen:
        yield
    if seen.count:
        signal.raise_signal(signal.SIGINT)


def _enter(sha: str, repo: Path, at_the_end: contextlib.ExitStack) -> Path:
    """Enter a work tree that is still empty, and what will remove it."""
    around = tempfile.TemporaryDirectory(prefix=_PREFIX)
    at_the_end.callback(around.cleanup)
    # As git will name it.
    tree = Path(around.name).resolve() / _TREE
    owned = at_the_end.enter_context((tree.parent / _OWNED).open("w"))
    fcntl.flock(owned, fcntl.LOCK_EX)
    with _in_turn(repo):
        _sweep(repo)
        at_the_end.callback(_leave, repo, tree, around)
        git(repo, "worktree", "add", "--quiet", "--detach", "--no-checkout", str(tree), sha)
    return tree


def _leave(repo: Path, tree: Path, around: tempfile.TemporaryDirectory[str]) -> None:
    """Remove a work tree, and git's knowledge of it."""
    with _uninterrupted(), _in_turn(repo):
        around.cleanup()
        _forget(repo, tree)


def _forget(repo: Path, tree: Path) -> None:
    if tree in _known(repo):
        # The second --force: also where git was ended while it made it.
        git(repo, "worktree", "remove", "--force", "--force", str(tree))


def _known(repo: Path) -> tuple[Path, ...]:
    """The repository's work trees."""
    lines = git(repo, "worktree", "list", "--porcelain").split(b"\n")
    return tuple(_path(line[9:]) for line in lines if line.startswith(b"worktree "))


def _sweep(repo: Path) -> None:
    """Remove what killed gates left; not ``git worktree prune``, which forgets the user's too."""
    for tree in _known(repo):
        around = tree.parent
        if not around.name.startswith(_PREFIX) or tree.name != _TREE:
            continue
        try:
            with (around / _OWNED).open() as owned:
                fcntl.flock(owned, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(around)
        except FileNotFoundError:
            # A tree without its lock is none of ours.
            if tree.exists():
                continue
        except (BlockingIOError, PermissionError):
            # Of a gate that lives, or of another user.
            continue
        _forget(repo, tree)


@contextlib.contextmanager
def _in_turn(repo: Path) -> Iterator[None]:
    """One gate at a time."""
    common = repo / _path(git(repo, "rev-parse", "--git-common-dir"))
    try:
        turns = (common / _TURNS).open("w")
    except OSError as error:
        raise UsageError(
            f"base: {common} cannot be written ({error.strerror}), must be to make a work tree"
        ) from error
    with turns:
        fcntl.flock(turns, fcntl.LOCK_EX)
        yield
