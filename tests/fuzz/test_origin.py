"""A kernel process of a work tree has nothing under test from another work tree."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fuzz.inputs import make_values
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.relations import expand
from tests.fuzz.fake_backend import case_of, spec_of
from tests.fuzz.importing_backend import BACKEND

Trees = tuple[Path, Path]

PACKAGE = {
    "pyproject.toml": """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "originated"
version = "1.0"
[tool.setuptools]
packages = ["originated", "originated.inner"]
package-dir = {{"originated" = "{place}"}}
""",
    "{place}/__init__.py": "from originated.inner import kernels\n",
    "{place}/inner/__init__.py": "",
    "{place}/inner/kernels.py": "",
}


def write(folder: Path, place: str) -> None:
    """A repository with the package ``originated``, whose sources lie at ``place``."""
    for name, text in PACKAGE.items():
        path = folder / name.format(place=place)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(place=place), encoding="utf-8")


@pytest.fixture
def trees(tmp_path: Path) -> Trees:
    """Head's checkout and base's work tree, with equal files."""
    head, base = tmp_path / "head", tmp_path / "base"
    for folder in (head, base):
        write(folder, "src/originated")
    return head, base


@contextmanager
def base_process(trees: Trees, below: str = ".") -> Iterator[KernelProcess]:
    head, base = trees
    with KernelProcess("cpu", backend=BACKEND, folder=base / below, foreign=head) as kernel:
        yield kernel


def origin(kernel: KernelProcess, name: str) -> Path:
    """Where the kernel process has a module from."""
    (spec,) = kernel.specs(name)
    assert kernel.fingerprint(name, Path()).digest == spec.name
    return Path(spec.name)


def test_origin_of_a_package_on_the_path_is_the_work_tree(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, base = trees
    # What an editable install of a src layout puts there.
    monkeypatch.syspath_prepend(head / "src")
    (base / "src/base_alone.py").touch()
    with base_process(trees) as kernel:
        assert origin(kernel, "originated") == base / "src/originated/__init__.py"
        assert origin(kernel, "originated.inner.kernels").is_relative_to(base)
        assert origin(kernel, "base_alone") == base / "src/base_alone.py"


def editable_wheel(project: Path, out: Path) -> None:
    """What `pip install --editable` puts into an environment, unpacked."""
    program = "import sys; from setuptools import build_meta as b; b.build_editable(sys.argv[1])"
    command = [sys.executable, "-c", program, str(out)]
    subprocess.run(command, cwd=project, check=True, capture_output=True)
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out)


def test_origin_of_an_editable_install_is_the_work_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trees = head, base = tmp_path / "head", tmp_path / "base"
    for folder in trees:
        # No folder on the path has the package's name: setuptools installs a finder.
        write(folder, "lib")
    environment = tmp_path / "environment"
    environment.mkdir()
    editable_wheel(head, environment)
    assert any("finder" in path.read_text() for path in environment.glob("*.pth"))
    (head / "lib/inner/head_alone.py").touch()
    # Run by Python as it starts, like the files of an environment.
    startup = tmp_path / "startup"
    startup.mkdir()
    (startup / "sitecustomize.py").write_text(
        f"import site, sys\nsite.addsitedir({str(environment)!r})\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(startup))
    with KernelProcess("cpu", backend=BACKEND, folder=head) as kernel:
        assert origin(kernel, "originated") == head / "lib/__init__.py"
    with base_process(trees) as kernel:
        assert origin(kernel, "originated") == base / "lib/__init__.py"
        assert origin(kernel, "originated.inner.kernels") == base / "lib/inner/kernels.py"
        with pytest.raises(KernelProcessError, match=r"originated\.inner\.head_alone") as caught:
            kernel.specs("originated.inner.head_alone")
    assert caught.value.user


def test_origin_of_what_head_alone_has_is_nowhere(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, base = trees
    monkeypatch.syspath_prepend(head / "src")
    (head / "src/head_alone.py").touch()
    with base_process(trees) as kernel, pytest.raises(KernelProcessError) as caught:
        kernel.specs("head_alone")
    assert str(caught.value) == f"No module named 'head_alone' in {base}"
    assert caught.value.user


@pytest.mark.parametrize("ask", [KernelProcess.specs, lambda k, n: k.fingerprint(n, Path())])
def test_origin_elsewhere_is_an_error_of_the_user(
    trees: Trees, ask: Callable[[KernelProcess, str], object]
) -> None:
    head, base = trees
    file = head / "src/originated/inner/kernels.py"
    with base_process(trees) as kernel, pytest.raises(KernelProcessError) as caught:
        ask(kernel, str(file))
    words = f"target={str(file)!r}: module kernels is imported from {file}, not from the base's"
    assert str(caught.value).startswith(f"{words} work tree {base}: ")
    assert caught.value.user


def test_origin_elsewhere_is_seen_by_a_process_that_was_not_asked_before(trees: Trees) -> None:
    target = str(trees[0] / "src/originated/inner/kernels.py")
    case = case_of(target, relations=())
    with base_process(trees) as kernel:
        ticket = kernel.submit(spec_of(target), case, expand(case), make_values(case))
        problem = kernel.collect(ticket).problem
    assert problem is not None
    assert "module kernels is imported from" in problem.message


def test_origin_may_be_an_environment_inside_the_repository(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = trees[0] / ".venv/lib/python3/site-packages"
    installed.mkdir(parents=True)
    (installed / "installed_there.py").touch()
    monkeypatch.syspath_prepend(installed)
    with base_process(trees) as kernel:
        assert origin(kernel, "installed_there") == installed / "installed_there.py"


def test_origin_may_be_a_work_tree_inside_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, base = tmp_path / "head", tmp_path / "head/.work/base"
    for folder in (head, base):
        write(folder, "src/originated")
    monkeypatch.syspath_prepend(head / "src")
    with base_process((head, base)) as kernel:
        assert origin(kernel, "originated") == base / "src/originated/__init__.py"


def test_origin_is_found_from_a_folder_below_the_top(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, base = trees
    monkeypatch.syspath_prepend(head / "src")
    (base / "below").mkdir()
    (base / "below/beside.py").touch()
    # As git marks the top of a work tree.
    (base / ".git").touch()
    with base_process(trees, "below") as kernel:
        assert kernel.names() == (str(base / "below"),)
        assert origin(kernel, "originated") == base / "src/originated/__init__.py"
        assert origin(kernel, "beside") == base / "below/beside.py"


def test_origin_is_anywhere_where_no_other_work_tree_is_named(
    trees: Trees, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, base = trees
    monkeypatch.syspath_prepend(head / "src")
    with KernelProcess("cpu", backend=BACKEND, folder=base) as kernel:
        assert origin(kernel, "originated") == head / "src/originated/__init__.py"
