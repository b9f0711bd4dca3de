"""Changed lines are those of the work tree, whatever happened to the file and whatever its name."""

from __future__ import annotations

import pytest

from fuzz.gating.changes import Changes, changed_lines
from fuzz.jobs.setup import UsageError
from tests.fuzz.gating.repositories import Repository, make_repository, no_machine_settings

TEN = "".join(f"line_{n} = {n}\n" for n in range(1, 11))


@pytest.fixture(autouse=True)
def _plain_git(monkeypatch) -> None:
    no_machine_settings(monkeypatch)


@pytest.fixture
def repo(tmp_path) -> Repository:
    repository = make_repository(tmp_path / "repo")
    repository.commit(kernel=TEN, other=TEN.replace("line", "other"))
    repository.git("tag", "base")
    return repository


def edited(*, change: tuple[int, ...] = (), drop: tuple[int, ...] = (), add_after: int = -1) -> str:
    """Ten lines with some of them changed or dropped, and two added."""
    lines = ["new_1 = 1", "new_2 = 2"] if add_after == 0 else []
    for n, line in enumerate(TEN.splitlines(), start=1):
        if n not in drop:
            lines.append(f"{line} + 1" if n in change else line)
        if n == add_after:
            lines += ["new_1 = 1", "new_2 = 2"]
    return "".join(f"{line}\n" for line in lines)


def lines_of(repo: Repository, file: str = "kernel.py") -> tuple[tuple[int, int], ...]:
    return changed_lines("base", repo.path).of(file)


def test_changes_are_none_where_nothing_changed(repo):
    (repo.path / "kernel.py").touch()
    assert changed_lines("base", repo.path) == Changes({}, {})


@pytest.mark.parametrize("how", ["work tree", "staged", "committed"])
def test_changes_of_the_work_tree_count_committed_or_not(repo, how):
    repo.write("kernel.py", edited(change=(2, 5, 6)))
    if how == "staged":
        repo.git("add", "kernel.py")
    elif how == "committed":
        repo.commit()
    assert changed_lines("base", repo.path) == Changes({"kernel.py": ((2, 2), (5, 6))}, {})


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (edited(add_after=4), ((5, 6),)),
        (edited(add_after=0), ((1, 2),)),
        (edited(add_after=10), ((11, 12),)),
        # Of a deletion: the lines on both sides.
        (edited(drop=(4, 5)), ((3, 4),)),
        (edited(drop=(1, 2)), ((1, 1),)),
        (edited(drop=(9, 10)), ((8, 9),)),
        (edited(drop=(2,), change=(4, 7)), ((1, 3), (6, 6))),
        (TEN.removesuffix("\n"), ((10, 10),)),
    ],
)
def test_changes_are_numbered_as_head_is(repo, text, lines):
    repo.write("kernel.py", text)
    assert lines_of(repo) == lines


def test_changes_leave_out_a_file_that_is_gone(repo):
    (repo.path / "kernel.py").unlink()
    assert changed_lines("base", repo.path) == Changes({}, {})


def test_changes_of_a_renamed_file_are_known_by_both_names(repo):
    (repo.path / "deep").mkdir()
    repo.git("mv", "kernel.py", "deep/renamed.py")
    repo.git("mv", "other.py", "as it was.py")
    repo.write("deep/renamed.py", edited(change=(3,)))
    changes = changed_lines("base", repo.path)
    assert changes.of("deep/renamed.py") == changes.of("kernel.py") == ((3, 3),)
    assert changes.of("as it was.py") == changes.of("other.py") == ()
    assert changes.renamed == {"deep/renamed.py": "kernel.py", "as it was.py": "other.py"}


def test_changes_of_a_file_in_the_place_of_a_renamed_one_are_its_own(repo):
    repo.git("mv", "kernel.py", "renamed.py")
    repo.write("kernel.py", "back = 1\n")
    changes = changed_lines("base", repo.path)
    assert changes.of("kernel.py") == ((1, 1),)
    assert changes.of("renamed.py") == ()


def test_changes_hold_new_files_from_end_to_end_unless_ignored(repo):
    repo.write(".gitignore", "ignored.py\n")
    repo.write("ignored.py", TEN)
    repo.write("deep/untracked.py", TEN)
    repo.write("untracked_to_the_end.py", TEN + "last = 11")
    repo.write("empty.py", "")
    repo.write("data.txt", TEN)
    repo.write("staged.py", TEN)
    repo.git("add", "staged.py")
    repo.write("to_be_added.py", TEN)
    repo.git("add", "--intent-to-add", "to_be_added.py")
    (repo.path / "nowhere.py").symlink_to("missing")
    (repo.path / "folder.py").symlink_to("deep")
    assert changed_lines("base", repo.path).lines == {
        "deep/untracked.py": ((1, 10),),
        "untracked_to_the_end.py": ((1, 11),),
        "staged.py": ((1, 10),),
        "to_be_added.py": ((1, 10),),
    }


@pytest.mark.parametrize(
    "name", ["with space.py", "gemäß.py", 'quo"te.py', "tab\tin.py", "back\\slash.py", " b/a.py"]
)
def test_changes_name_files_as_they_are_named(repo, name):
    repo.write(name, TEN)
    moved, again = (name.replace(".py", f" {word}.py") for word in ("moved", "again"))
    repo.write(moved, edited(add_after=0))
    repo.commit()
    repo.git("tag", "--force", "base")
    repo.write(name, edited(change=(4,)))
    repo.git("mv", moved, again)
    changes = changed_lines("base", repo.path)
    assert changes.lines == {name: ((4, 4),)}
    assert changes.renamed == {again: moved}


def test_changes_are_not_misled_by_what_the_lines_hold(repo):
    tricky = (
        "-- a/x\n++ b/other.py\n@@ -1 +1 @@\ndiff --git a/x b/x\nrename to x\n\x0c@@ -7 +7 @@\r\n"
    )
    repo.write("kernel.py", TEN + tricky)
    repo.commit()
    repo.git("tag", "--force", "base")
    repo.write("kernel.py", TEN + tricky.replace("x", "y") + "end = 1\n")
    assert changed_lines("base", repo.path).lines == {"kernel.py": ((11, 11), (14, 15), (17, 17))}
    repo.write("kernel.py", edited(change=(2, 9)).replace("line_2", "++ b/other.py\r@@ -7 +7 @@"))
    repo.git("tag", "--force", "base", "base~1")
    assert changed_lines("base", repo.path).lines == {"kernel.py": ((2, 2), (9, 9))}


def test_changes_are_not_misled_by_a_deletion_that_looks_like_a_name(repo):
    tricky = "-- a/x\n"
    repo.commit(kernel=tricky + TEN + tricky)
    repo.git("tag", "--force", "base")
    repo.write("kernel.py", TEN)
    assert changed_lines("base", repo.path).lines == {"kernel.py": ((1, 1), (10, 11))}


@pytest.mark.parametrize(
    "setting",
    [
        "diff.noprefix=true",
        "diff.mnemonicPrefix=true",
        "color.ui=always",
        "diff.external=false",
        "diff.interHunkContext=9",
        "diff.context=9",
        "core.quotePath=false",
        "diff.python.textconv=false",
        "diff.python.command=false",
    ],
)
def test_changes_do_not_depend_on_settings(repo, setting, monkeypatch):
    repo.git("config", *setting.split("="))
    repo.write(".gitattributes", "*.py diff=python\n")
    repo.write("kernel.py", edited(change=(2, 4)))
    repo.write("gemäß.py", "new = 1\n")
    repo.git("add", "gemäß.py")
    monkeypatch.setenv("GIT_DIFF_OPTS", "--unified=9")
    monkeypatch.setenv("GIT_EXTERNAL_DIFF", "false")
    monkeypatch.setenv("GIT_LITERAL_PATHSPECS", "1")
    assert changed_lines("base", repo.path).lines == {
        "kernel.py": ((2, 2), (4, 4)),
        "gemäß.py": ((1, 1),),
    }


def test_changes_seen_from_a_folder_below_are_all(repo):
    repo.write("deep/new.py", "new = 1\n")
    repo.write("kernel.py", edited(change=(2,)))
    assert changed_lines("base", repo.path / "deep") == changed_lines("base", repo.path)
    assert set(changed_lines("base", repo.path).lines) == {"deep/new.py", "kernel.py"}


def test_changes_do_not_rewrite_the_index(repo):
    repo.write("kernel.py", edited(change=(2,)))
    before = repo.state()
    (repo.path / "other.py").touch()
    changed_lines("base", repo.path)
    assert (repo.path / ".git/index").read_bytes().hex() == before[0]


def test_changes_to_an_unknown_commit_are_refused_in_the_words_of_git(repo):
    with pytest.raises(UsageError, match=r"git diff-index failed .* 'nowhere'"):
        changed_lines("nowhere", repo.path)


@pytest.mark.parametrize(
    ("first", "last", "line"),
    [(1, 1, None), (1, 2, 2), (3, 9, 3), (4, 7, None), (4, 8, 8), (9, 12, None)],
)
def test_first_changed_line_lies_in_the_stretch(first, last, line):
    assert Changes({"kernel.py": ((2, 3), (8, 8))}).first("kernel.py", first, last) == line
    assert Changes({"kernel.py": ((2, 3), (8, 8))}).first("other.py", first, last) is None
