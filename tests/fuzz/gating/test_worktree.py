"""A commit is found or refused with the way out, and its work tree leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from fuzz.gating import worktree
from fuzz.gating.git import ask, git
from fuzz.gating.worktree import commit, head, root, work_tree
from fuzz.jobs.setup import UsageError
from tests.fuzz.gating.repositories import Repository, clone, make_repository, no_machine_settings


@pytest.fixture(autouse=True)
def _plain_git(monkeypatch, tmp_path) -> None:
    no_machine_settings(monkeypatch)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))


@pytest.fixture
def repo(tmp_path) -> Repository:
    repository = make_repository(tmp_path / "repo")
    repository.commit(kernel="old = 1\n")
    repository.git("tag", "base")
    repository.commit(kernel="new = 2\n")
    return repository


def left_over(repo: Repository, tmp_path: Path) -> list[str]:
    """Work trees beside the user's own, and files in the temporary folder."""
    trees = re.findall("^worktree (.*)", repo.git("worktree", "list", "--porcelain"), re.M)
    return [*trees[1:], *(path.name for path in (tmp_path / "temporary").iterdir())]


# --- names ----------------------------------------------------------------------------------------


def test_root_is_the_top_of_the_work_tree_from_any_folder(repo, tmp_path):
    (repo.path / "deep/down").mkdir(parents=True)
    (tmp_path / "link").symlink_to(repo.path / "deep")
    assert root(repo.path / "deep/down") == repo.path
    assert root(tmp_path / "link/down") == repo.path


@pytest.mark.parametrize("inside", [".", "missing"])
def test_root_refuses_a_folder_outside_any_repository(tmp_path, inside):
    with pytest.raises(UsageError, match=r"folder='.*', must be in the work tree of a git repo"):
        root(tmp_path / inside)


def test_root_refuses_the_folder_of_git_itself(repo):
    with pytest.raises(UsageError, match="must be in the work tree"):
        root(repo.path / ".git")


def test_git_that_is_not_installed_is_named(repo, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="needs git, which is not on the PATH"):
        root(repo.path)


def test_variables_of_a_hook_do_not_redirect_git(repo, tmp_path, monkeypatch):
    other = make_repository(tmp_path / "other")
    other.commit(kernel="else = 3\n")
    expected = repo.git("rev-parse", "base")
    for name, value in {
        "GIT_DIR": str(other.path / ".git"),
        "GIT_WORK_TREE": str(other.path),
        "GIT_INDEX_FILE": str(other.path / ".git/index"),
        "GIT_OBJECT_DIRECTORY": str(other.path / ".git/objects"),
    }.items():
        monkeypatch.setenv(name, value)
    assert root(repo.path) == repo.path
    assert commit("base", repo.path).sha == expected
    with work_tree(expected, repo.path) as tree:
        assert (tree / "kernel.py").read_text() == "old = 1\n"


def test_configuration_by_variables_is_kept(repo, monkeypatch):
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "a.key")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "given")
    assert ask(repo.path, "config", "a.key").out == b"given\n"


@pytest.mark.parametrize("ref", ["base", "main~1", "refs/tags/base"])
def test_commit_resolves_whatever_git_calls_a_commit(repo, ref):
    found = commit(ref, repo.path)
    assert (found.ref, found.sha) == (ref, repo.git("rev-parse", "base"))
    assert not found.dirty
    assert commit(found.sha[:8], repo.path).sha == found.sha


def test_commit_of_an_annotated_tag_is_what_it_tags(repo):
    repo.git("tag", "--annotate", "--message", "x", "release", "base")
    assert commit("release", repo.path).sha == repo.git("rev-parse", "base")


@pytest.mark.parametrize("ref", ["", "  ", "-main", "--all", "a\0b"])
def test_commit_refuses_what_can_be_no_name(repo, ref):
    with pytest.raises(UsageError) as error:
        commit(ref, repo.path)
    assert str(error.value) == (f"base={ref!r}, must be a branch, tag or commit of this repository")


@pytest.mark.parametrize("ref", ["nowhere", "^main", "main..base", "main^{tree}"])
def test_commit_refuses_what_names_no_commit(repo, ref):
    with pytest.raises(UsageError) as error:
        commit(ref, repo.path)
    # Nothing of fetching: there is no remote.
    assert str(error.value) == (
        f"base={ref!r} is not known, must be a branch, tag or commit of this repository"
    )


@pytest.mark.parametrize("ref", ["origin/main", "main"])
def test_commit_in_a_shallow_clone_says_how_to_fetch_it(repo, tmp_path, ref):
    repo.git("switch", "--quiet", "--create", "topic")
    repo.commit(kernel="newer = 3\n")
    shallow = clone(repo, tmp_path / "shallow", "--depth=1", "--branch=topic")
    with pytest.raises(UsageError, match="a shallow clone") as error:
        commit(ref, shallow.path)
    message = str(error.value)
    assert message.startswith(f"base='{ref}' is not known, must be a branch, tag or commit")
    assert "`fetch-depth: 0`" in message
    # The advice works as it is printed.
    command = re.search("`git (fetch [^`]*)`", message)
    assert command is not None
    shallow.git(*command[1].split())
    assert commit("origin/main", shallow.path).sha == repo.git("rev-parse", "main")
    # No more than it takes.
    assert shallow.git("rev-list", "--count", "origin/main") == "1"
    assert ("and base='origin/main'" in message) == (ref == "main")


@pytest.mark.parametrize("ref", ["HEAD~1", "{base}", "{short}"])
def test_commit_in_a_shallow_clone_says_how_to_fetch_what_has_no_name(repo, tmp_path, ref):
    base = repo.git("rev-parse", "base")
    ref = ref.format(base=base, short=base[:8])
    shallow = clone(repo, tmp_path / "shallow", "--depth=1")
    with pytest.raises(UsageError, match="a shallow clone") as error:
        commit(ref, shallow.path)
    command = re.search("`git (fetch [^`]*)`", str(error.value))
    assert command is not None
    shallow.git(*command[1].split())
    assert commit(ref, shallow.path).sha == base


def test_commit_of_a_branch_that_is_at_the_remote_only_names_it(repo, tmp_path):
    repo.git("branch", "release", "base")
    full = clone(repo, tmp_path / "full")
    with pytest.raises(UsageError, match=r"did you mean base='origin/release'\?"):
        commit("release", full.path)


def test_commit_in_a_full_clone_does_not_make_it_shallow(repo, tmp_path):
    full = clone(repo, tmp_path / "full")
    with pytest.raises(UsageError, match="if it was not fetched: `git fetch origin later:"):
        commit("origin/later", full.path)


# --- the state of head ----------------------------------------------------------------------------


def test_head_is_clean_after_a_commit(repo):
    repo.write("report.xml", "untracked, but no source")
    repo.write(".gitignore", "ignored.py\n.gitignore\n")
    repo.write("ignored.py", "")
    found = head(repo.path)
    assert (found.ref, found.sha, found.dirty) == ("HEAD", repo.git("rev-parse", "main"), False)


@pytest.mark.parametrize("how", ["changed", "staged", "deleted", "untracked"])
def test_head_is_dirty_with_a_change_that_is_not_committed(repo, how):
    if how == "deleted":
        (repo.path / "kernel.py").unlink()
    else:
        repo.write("deep/kernel.py" if how == "untracked" else "kernel.py", "changed = 1\n")
    if how == "staged":
        repo.git("add", "kernel.py")
    (repo.path / "elsewhere").mkdir()
    assert head(repo.path / "elsewhere").dirty


def test_head_without_a_commit_is_refused(tmp_path):
    with pytest.raises(UsageError, match="has no commit"):
        head(make_repository(tmp_path / "empty").path)


def test_head_does_not_rewrite_the_index(repo):
    # Git would note the new time of a file that did not change.
    os.utime(repo.path / "kernel.py", (1, 1))
    index = (repo.path / ".git/index").read_bytes()
    assert not head(repo.path).dirty
    assert (repo.path / ".git/index").read_bytes() == index


# --- work trees -----------------------------------------------------------------------------------


def test_work_tree_holds_the_commit_and_is_gone_after(repo, tmp_path):
    repo.write("kernel.py", "staged = 4\n")
    repo.git("add", "kernel.py")
    repo.write("kernel.py", "not = 'staged'\n")
    before = repo.state()
    base = commit("base", repo.path)
    with work_tree(base.sha, repo.path) as tree:
        assert (tree / "kernel.py").read_text() == "old = 1\n"
        assert head(tree).sha == base.sha
        assert root(tree) == tree
        # As Python does, and a test that takes rights away.
        (tree / "__pycache__").mkdir()
        (tree / "__pycache__/kernel.pyc").write_bytes(b"")
        (tree / "__pycache__").chmod(stat.S_IRUSR)
        assert repo.state() == before
    assert not tree.exists()
    assert left_over(repo, tmp_path) == []
    assert repo.state() == before


def test_work_tree_is_gone_after_an_exception(repo, tmp_path):
    with pytest.raises(ZeroDivisionError), work_tree("base", repo.path) as tree:
        assert tree.exists()
        _ = 1 / 0
    assert left_over(repo, tmp_path) == []


def test_work_tree_runs_no_hook(repo, tmp_path):
    for name in ("post-checkout", "reference-transaction", "post-index-change"):
        hook = repo.write(f".git/hooks/{name}", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
        hook.chmod(0o755)
    monitor = repo.write(".git/monitor", f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    monitor.chmod(0o755)
    repo.git("config", "core.fsmonitor", str(monitor))
    (tmp_path / "ran").unlink(missing_ok=True)
    with work_tree("base", repo.path):
        head(repo.path)
    assert not (tmp_path / "ran").exists()


def test_work_trees_at_once_do_not_disturb_each_other(repo, tmp_path):
    failed: list[BaseException] = []

    def use(ref: str, text: str) -> None:
        try:
            for _ in range(4):
                with work_tree(ref, repo.path) as tree:
                    assert (tree / "kernel.py").read_text() == text
        except BaseException as error:
            failed.append(error)

    users = [
        threading.Thread(target=use, args=arguments)
        for arguments in [("base", "old = 1\n"), ("main", "new = 2\n")] * 4
    ]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert failed == []
    assert left_over(repo, tmp_path) == []


def test_work_tree_works_from_another_work_tree_and_below_a_linked_folder(
    repo, tmp_path, monkeypatch
):
    repo.git("worktree", "add", "--quiet", str(tmp_path / "second"), "base")
    (tmp_path / "linked").symlink_to(tmp_path / "temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "linked"))
    with work_tree("main", tmp_path / "second") as tree:
        assert (tree / "kernel.py").read_text() == "new = 2\n"
    assert left_over(repo, tmp_path) == [str(tmp_path / "second")]


def test_work_tree_that_cannot_be_entered_leaves_nothing(repo, tmp_path):
    # Where the rights are missing it fails at the same place; root has them all.
    repo.write(".git/worktrees", "in the way")
    with pytest.raises(UsageError, match="git worktree failed"), work_tree("base", repo.path):
        pytest.fail("it was entered")
    assert left_over(repo, tmp_path) == []


def test_work_tree_in_a_folder_that_cannot_be_written_is_refused(repo, tmp_path):
    (repo.path / ".git/ln-fuzz.lock").mkdir()
    with (
        pytest.raises(UsageError, match="cannot be written") as error,
        work_tree("base", repo.path),
    ):
        pytest.fail("it was entered")
    assert left_over(repo, tmp_path) == []
    # The garbage collector had no part in it.
    assert error.value.__traceback__ is not None


def test_work_tree_without_a_temporary_folder_is_refused(repo, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="no temporary folder"), work_tree("base", repo.path):
        pytest.fail("it was entered")


def test_work_tree_whose_checkout_fails_leaves_nothing(repo, tmp_path):
    # As where git-lfs is asked for and is not installed.
    repo.write(".gitattributes", "*.bin filter=large\n")
    repo.write("data.bin", "x")
    sha = repo.commit()
    repo.git("config", "filter.large.smudge", "a-program-that-is-not-there")
    repo.git("config", "filter.large.required", "true")
    with pytest.raises(UsageError, match="filter"), work_tree(sha, repo.path):
        pytest.fail("it was entered")
    assert left_over(repo, tmp_path) == []


_HOLD = """
import sys, time
from pathlib import Path
from fuzz.gating.worktree import work_tree
with work_tree("base", Path(sys.argv[1])) as tree:
    print(tree, flush=True)
    time.sleep(60)
"""


def holder(repo: Repository, tmp_path: Path) -> tuple[subprocess.Popen[str], Path]:
    """A process with a work tree, and the tree."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLD, str(repo.path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
        cwd=Path(worktree.__file__).parents[2],
    )
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_work_tree_is_gone_after_ctrl_c(repo, tmp_path):
    process, tree = holder(repo, tmp_path)
    with process:
        assert tree.exists()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) != 0
    assert left_over(repo, tmp_path) == []


@pytest.mark.parametrize("action", ["add", "remove"])
def test_work_tree_is_gone_after_ctrl_c_while_git_is_at_it(repo, tmp_path, monkeypatch, action):
    asked = []

    def interrupted(folder: Path, *arguments: str) -> bytes:
        asked.append(arguments[:2])
        if arguments[:2] == ("worktree", action):
            signal.raise_signal(signal.SIGINT)
        return git(folder, *arguments)

    monkeypatch.setattr(worktree, "git", interrupted)
    with pytest.raises(KeyboardInterrupt), work_tree("base", repo.path):
        asked.append(("entered", ""))
    assert ("worktree", action) in asked
    assert (("entered", "") in asked) == (action == "remove")
    assert left_over(repo, tmp_path) == []


def test_git_that_is_interrupted_ends_in_order(repo, tmp_path):
    repo.git(
        "config",
        "alias.wait",
        f"!echo $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; exec sleep 30",
    )

    def interrupt() -> None:
        deadline = time.monotonic() + 20
        while not (tmp_path / "pid").exists():
            if time.monotonic() > deadline:
                return
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        ask(repo.path, "wait")
    thread.join()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_work_tree_of_a_killed_gate_goes_with_the_next_one_alone(repo, tmp_path):
    users = tmp_path / "temporary/ln-fuzz-base-mine/sources"
    repo.git("worktree", "add", "--quiet", str(users), "base")
    gone = tmp_path / "drive-that-is-not-mounted"
    repo.git("worktree", "add", "--quiet", "--detach", str(gone), "base")
    gone.rename(tmp_path / "elsewhere")
    killed, dead = holder(repo, tmp_path)
    living, alive = holder(repo, tmp_path)
    with killed, living:
        killed.kill()
        killed.wait()
        assert dead.exists()
        with work_tree("base", repo.path):
            assert not dead.parent.exists()
            assert (alive / "kernel.py").exists()
        known = left_over(repo, tmp_path)
        assert str(dead) not in known
        assert {str(alive), str(users), str(gone)} < set(known)
        living.send_signal(signal.SIGINT)
    assert left_over(repo, tmp_path) == [str(gone), str(users), "ln-fuzz-base-mine"]


def test_work_tree_whose_folder_was_cleared_away_is_forgotten(repo, tmp_path):
    killed, dead = holder(repo, tmp_path)
    with killed:
        killed.kill()
    dead.parent.rename(tmp_path / "cleared")
    with work_tree("base", repo.path):
        pass
    assert left_over(repo, tmp_path) == []
