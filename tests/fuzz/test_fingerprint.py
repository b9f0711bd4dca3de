"""A fingerprint changes with what a target uses, and with nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.fingerprint import Fingerprint, fingerprint, is_under_test
from fuzz.process.kernel_process import KernelProcess, KernelProcessError
from fuzz.targets import builtin_names, load
from oracle import formats
from tests.conftest import HAS_CUDA

ROOT = Path(__file__).resolve().parents[2]

KERNELS = '''
"""Kernels of an engineer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import triton
import triton.language as tl
from fingerprinted import settings, unused_module
from fingerprinted.device import half
from fingerprinted.device import mean_of as average
from fuzz.targets import target

if TYPE_CHECKING:
    from fingerprinted.types_alone import Anything

DTYPES = ("float32",)
"""What it takes."""
UNUSED = 1


@triton.autotune(configs=[triton.Config({"BLOCK": 64}, num_warps=1)], key=["n"])
@triton.heuristics({"EVEN": lambda args: args["n"] % settings.STEP == 0})
@triton.jit
def kernel(x_ptr, y_ptr, n, BLOCK: tl.constexpr, EVEN: tl.constexpr):
    # Loads all.
    x = tl.load(x_ptr + tl.arange(0, BLOCK))
    tl.store(y_ptr + tl.arange(0, BLOCK), x - average(x, n))


@target(autotuned=(kernel,), dtypes=DTYPES, eps=1e-5)
def norm(x: Anything):
    """Layer norm."""
    from fingerprinted.late import prepare

    y = prepare(x)
    kernel[(1,)](x, y, x.shape[-1] * half(2))
    return y


def unused():
    return UNUSED


if __name__ == "__main__":
    print(unused())
'''

DEVICE = '''
import triton
import triton.language as tl
from triton.language.extra import libdevice as device_math

SCALE = tl.constexpr(1.0)


@triton.jit
def mean_of(x, n):
    """The mean."""
    return scaled(tl.sum(x)) / n


@triton.jit
def scaled(x):
    return device_math.exp(x) * SCALE


@triton.constexpr_function
def half(n):
    return n // 2


@triton.jit
def unused(x):
    return x + 1
'''

LATE = """
import torch


def prepare(x):
    return torch.empty_like(x)


def unused(x):
    return x
"""

FILES = {
    "kernels.py": KERNELS,
    "fingerprinted/__init__.py": "",
    "fingerprinted/device.py": DEVICE,
    "fingerprinted/late.py": LATE,
    "fingerprinted/settings.py": "STEP = 16\nOTHER = 3\n",
    "fingerprinted/unused_module.py": "VALUE = 1\n",
    "fingerprinted/types_alone.py": "Anything = int\n",
}


class Repository:
    """Files in a folder, imported anew for each fingerprint."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text), encoding="utf-8")

    def change(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{old!r} is {text.count(old)} times in {name}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    def fingerprint(self, target: str = "kernels.py") -> Fingerprint:
        self.forget()
        return fingerprint(load(str(self.folder / target)), self.folder)

    def forget(self) -> None:
        for name, module in list(sys.modules.items()):
            if (getattr(module, "__file__", None) or "").startswith(str(self.folder)):
                del sys.modules[name]


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Repository]:
    # A compiled file stays in use where another source has the same second and size.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    found = Repository(tmp_path)
    yield found
    found.forget()


@pytest.fixture
def repository(empty: Repository) -> Repository:
    empty.write(FILES)
    return empty


def places(found: Fingerprint) -> set[str]:
    return {part.place for part in found.parts}


def changed(before: Fingerprint, now: Fingerprint) -> set[str]:
    """The places of parts that one alone has, or that differ."""
    old, new = ({part.place: part.digest for part in each.parts} for each in (before, now))
    return {place for place in old.keys() | new.keys() if old.get(place) != new.get(place)}


def test_fingerprint_has_all_that_a_target_uses(repository: Repository) -> None:
    found = repository.fingerprint()
    assert places(found) == {
        "fingerprinted/device.py:SCALE",
        "fingerprinted/device.py:half",
        "fingerprinted/device.py:mean_of",
        "fingerprinted/device.py:scaled",
        "fingerprinted/late.py:prepare",
        "fingerprinted/settings.py:STEP",
        "kernels.py:DTYPES",
        "kernels.py:kernel",
        "kernels.py:norm",
    }
    kernels = {part.place for part in found.parts if part.kernel}
    assert kernels == {
        "fingerprinted/device.py:mean_of",
        "fingerprinted/device.py:scaled",
        "kernels.py:kernel",
    }


def test_fingerprint_parts_say_where_they_are(repository: Repository) -> None:
    parts = {part.name: part for part in repository.fingerprint().parts}
    lines = KERNELS.splitlines()
    kernel = parts["kernels:kernel"]
    assert lines[kernel.first_line - 1].startswith("@triton.autotune")
    assert "average(x, n)" in lines[kernel.last_line - 1]
    assert parts["fingerprinted.device:mean_of"].file == "fingerprinted/device.py"


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("kernels.py", "# Loads all.", "# Loads\n    # everything."),
        ("kernels.py", '"""Layer norm."""', '"""Layer norm, and more words."""'),
        ("kernels.py", '"""Kernels of an engineer."""\n', ""),
        ("kernels.py", '"""What it takes."""\n', ""),
        ("kernels.py", "x - average(x, n))", "(\n        x\n        - average(x, n)))"),
        ("kernels.py", 'DTYPES = ("float32",)', "DTYPES = (\n    'float32',)"),
        ("kernels.py", "UNUSED = 1", "UNUSED = 2"),
        ("kernels.py", "return UNUSED", "return 0"),
        ("kernels.py", "print(unused())", "print(1)"),
        ("kernels.py", "settings, unused_module", "settings"),
        ("fingerprinted/device.py", '"""The mean."""', '"""A mean."""'),
        ("fingerprinted/device.py", "return x + 1", "return x + 2"),
        ("fingerprinted/late.py", "    return x\n", "    return x + 1\n"),
        ("fingerprinted/settings.py", "OTHER = 3", "OTHER = 4"),
        ("fingerprinted/unused_module.py", "1", "2"),
        ("fingerprinted/types_alone.py", "int", "float"),
    ],
)
def test_fingerprint_stays_where_nothing_that_runs_changes(
    repository: Repository, file: str, old: str, new: str
) -> None:
    before = repository.fingerprint()
    repository.change(file, old, new)
    now = repository.fingerprint()
    assert changed(before, now) == set()
    assert now.digest == before.digest


@pytest.mark.parametrize(
    ("file", "old", "new", "expected"),
    [
        ("kernels.py", "x - average", "x + average", {"kernels.py:kernel"}),
        ("kernels.py", "num_warps=1", "num_warps=2", {"kernels.py:kernel"}),
        ("kernels.py", 'args["n"] %', 'args["n"] * 2 %', {"kernels.py:kernel"}),
        ("kernels.py", '("float32",)', '("float16",)', {"kernels.py:DTYPES"}),
        ("kernels.py", "eps=1e-5", "eps=1e-6", {"kernels.py:norm"}),
        ("kernels.py", "    y = prepare(x)\n", "    y = prepare(x * 1)\n", {"kernels.py:norm"}),
        ("fingerprinted/device.py", "/ n", "* n", {"fingerprinted/device.py:mean_of"}),
        ("fingerprinted/device.py", "exp(x) *", "exp(x) +", {"fingerprinted/device.py:scaled"}),
        ("fingerprinted/device.py", "n // 2", "n // 3", {"fingerprinted/device.py:half"}),
        ("fingerprinted/device.py", "(1.0)", "(2.0)", {"fingerprinted/device.py:SCALE"}),
        # A variable of another name counts: that it is harmless cannot be told in general.
        (
            "fingerprinted/late.py",
            "prepare(x):\n    return torch.empty_like(x)",
            "prepare(rows):\n    return torch.empty_like(rows)",
            {"fingerprinted/late.py:prepare"},
        ),
        ("fingerprinted/settings.py", "STEP = 16", "STEP = 8", {"fingerprinted/settings.py:STEP"}),
        # The name is the same, what it stands for is another.
        (
            "fingerprinted/device.py",
            "from triton.language.extra import libdevice as device_math",
            "import triton.language.math as device_math",
            {"fingerprinted/device.py:scaled"},
        ),
        (
            "kernels.py",
            "device import mean_of as",
            "device import scaled as",
            {"fingerprinted/device.py:mean_of"},
        ),
        (
            "kernels.py",
            "import prepare\n",
            "import unused as prepare\n",
            {"kernels.py:norm", "fingerprinted/late.py:prepare", "fingerprinted/late.py:unused"},
        ),
        # What importing does concerns all that is imported.
        (
            "fingerprinted/settings.py",
            "OTHER = 3",
            "OTHER = 3\nprint('set up')",
            {"fingerprinted/settings.py:<module>"},
        ),
        (
            "fingerprinted/unused_module.py",
            "VALUE = 1",
            "import triton\ntriton.knobs.any_knob = 1",
            {"fingerprinted/unused_module.py:<module>"},
        ),
    ],
)
def test_fingerprint_changes_with_what_is_used(
    repository: Repository, file: str, old: str, new: str, expected: set[str]
) -> None:
    before = repository.fingerprint()
    repository.change(file, old, new)
    now = repository.fingerprint()
    assert changed(before, now) == expected
    assert now.digest != before.digest


def test_fingerprint_of_a_package_has_what_importing_it_does(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_SETTING", "0")
    before = repository.fingerprint()
    repository.write({"fingerprinted/__init__.py": "import os\nos.environ['A_SETTING'] = '1'\n"})
    assert changed(before, repository.fingerprint()) == {"fingerprinted/__init__.py:<module>"}


# --- names that are hard to follow ----------------------------------------------------------------

HEAD = """
import importlib
import sys

import torch
from fuzz.targets import target
"""

OPERATIONS = """
FACTOR = 2


def double(x):
    return x * FACTOR


def triple(x):
    return x * 3
"""

TARGET = """
@target(eps=1e-5)
def norm(x):
    return {}
"""


def write_target(repository: Repository, top: str, expression: str) -> None:
    files = {"operations.py": OPERATIONS, "packed/__init__.py": "", "packed/inner.py": OPERATIONS}
    repository.write({**files, "kernels.py": f"{HEAD}{top}{TARGET}"})
    repository.change("kernels.py", "{}", expression)


@pytest.mark.parametrize(
    ("top", "expression"),
    [
        ("import operations\n", "operations.double(x)"),
        ("from operations import double\n", "double(x)"),
        ("from operations import double as twice\n", "twice(x)"),
        ("from operations import *\n", "double(x)"),
        ("try:\n    import operations\nexcept ImportError:\n    pass\n", "operations.double(x)"),
        ("import operations\ntwice = operations.double\n", "twice(x)"),
        ("import operations\nTABLE = {'twice': operations.double}\n", "TABLE['twice'](x)"),
        ("", "__import__('operations').double(x)"),
        ("", "importlib.import_module('operations').double(x)"),
        ("import operations\n", "[f(x) for f in (operations.double,)][0]"),
        ("import operations\n", "(lambda y, f=operations.double: f(y))(x)"),
    ],
)
def test_fingerprint_follows_a_name_in_every_spelling(
    empty: Repository, top: str, expression: str
) -> None:
    write_target(empty, top, expression)
    before = empty.fingerprint()
    assert {"operations.py:double", "operations.py:FACTOR"} <= places(before)
    empty.change("operations.py", "FACTOR = 2", "FACTOR = 4")
    assert empty.fingerprint().digest != before.digest


@pytest.mark.parametrize(
    ("top", "expression"),
    [
        ("import operations\n", "operations.double(x)"),
        ("from operations import *\n", "double(x)"),
        ("import operations\n", "x.triple(operations.__name__)"),
        # One's own variable is no module.
        ("import operations\n", "[operations for operations in (x,)][0]"),
    ],
)
def test_fingerprint_leaves_out_what_is_beside_it(
    empty: Repository, top: str, expression: str
) -> None:
    write_target(empty, top, expression)
    assert "operations.py:triple" not in places(empty.fingerprint())


@pytest.mark.parametrize(
    ("top", "expression"),
    [
        ("import operations\n", "getattr(operations, 'dou' + 'ble')(x)"),
        ("import operations\nfrom functools import reduce\n", "reduce(getattr, [operations])"),
        ("import operations\n", "exec('operations.double(x)')"),
        ("import operations\n", "eval('operations').double(x)"),
        ("import operations\n", "globals()['operations'].double(x)"),
        ("import operations\n", "sys.modules['operations'].double(x)"),
        ("import operations\n", "torch.ops.mine.double(x)"),
        ("import operations\n", "importlib.import_module('opera' + 'tions').double(x)"),
        ("import operations\n", "operations.nobody_knows(x)"),
    ],
)
def test_fingerprint_takes_whole_files_where_a_name_cannot_be_followed(
    empty: Repository, top: str, expression: str
) -> None:
    write_target(empty, top, expression)
    before = empty.fingerprint()
    assert "operations.py" in places(before)
    empty.change("operations.py", "x * 3", "x * 5")
    expected = {"operations.py", "operations.py:triple"}
    assert changed(before, empty.fingerprint()) == expected


@pytest.mark.parametrize("top", ["import packed.inner\n", "import packed.inner as inner\n"])
def test_fingerprint_follows_modules_of_packages(empty: Repository, top: str) -> None:
    write_target(empty, top, f"{top.split()[-1]}.double(x)")
    found = places(empty.fingerprint())
    assert found == {"kernels.py:norm", "packed/inner.py:double", "packed/inner.py:FACTOR"}
    empty.write({"packed/__init__.py": "import os\nos.environ.copy()\n"})
    assert places(empty.fingerprint()) - found == {"packed/__init__.py:<module>"}


def test_fingerprint_takes_whole_what_is_imported_for_its_operators(empty: Repository) -> None:
    write_target(empty, "import packed.inner\n", "torch.ops.mine.double(x)")
    assert "packed/inner.py:triple" in places(empty.fingerprint())


def test_fingerprint_ignores_torch_own_operators(empty: Repository) -> None:
    write_target(empty, "import operations\n", "torch.ops.aten.relu(x)")
    assert "operations.py" not in places(empty.fingerprint())


def test_fingerprint_takes_the_neighbours_of_a_package_that_imports_by_name(
    empty: Repository,
) -> None:
    empty.write(
        {
            "chosen/__init__.py": "",
            "chosen/one.py": "def run(x):\n    return x\n",
            "chosen/choice.py": """
                import importlib

                def choose(name):
                    return importlib.import_module(f"chosen.{name}")
                """,
        }
    )
    write_target(empty, "from chosen.choice import choose\n", "choose('one').run(x)")
    assert {"chosen/one.py", "chosen/choice.py"} <= places(empty.fingerprint())


def test_fingerprint_finds_what_a_registry_was_filled_with(empty: Repository) -> None:
    empty.write(
        {
            "registry.py": """
                class Registry:
                    def __init__(self):
                        self.known = {}

                    def add(self, function):
                        self.known[function.__name__] = function
                        return function

                KNOWN = Registry()
                """,
            "entries.py": """
                from registry import KNOWN

                @KNOWN.add
                def entered(x):
                    return x

                def beside(x):
                    return x
                """,
        }
    )
    write_target(empty, "import entries\nfrom registry import KNOWN\n", "KNOWN.known['entered'](x)")
    found = places(empty.fingerprint())
    assert {"registry.py:Registry", "registry.py:KNOWN", "entries.py:entered"} <= found
    assert "entries.py:beside" not in found


def test_fingerprint_finds_what_a_closure_holds(empty: Repository) -> None:
    empty.write(
        {
            "kernels.py": """
                import functools

                import factory
                from fuzz.targets import target
                from operations import double, triple

                norm = target(eps=1e-5)(factory.make(functools.partial(double)))
                other = target(eps=1e-5)(factory.make(triple))
                """,
            "factory.py": """
                def make(function):
                    def norm(x):
                        return function(x)

                    return norm
                """,
            "operations.py": OPERATIONS,
        }
    )
    found = places(empty.fingerprint("kernels.py:norm"))
    expected = {
        "kernels.py:norm",
        "factory.py:make",
        "operations.py:double",
        "operations.py:FACTOR",
    }
    assert found == expected


def test_fingerprint_finds_what_no_source_names(empty: Repository) -> None:
    empty.write(
        {
            "kernels.py": "import made\nnorm = made.take()\n",
            "made.py": """
                from fuzz.targets import target
                from operations import double

                WAITING = []

                def make(function):
                    def norm(x):
                        return function(x)

                    return norm

                def fill():
                    WAITING.append(target(eps=1e-5)(make(double)))

                DONE = fill()

                def take():
                    return WAITING.pop()
                """,
            "operations.py": OPERATIONS,
        }
    )
    assert {"made.py:make", "operations.py:double"} <= places(empty.fingerprint())


def test_fingerprint_knows_kernels_by_what_they_are(empty: Repository) -> None:
    empty.write(
        {
            "devices.py": """
                import functools

                import triton

                compiled = functools.partial(triton.jit, do_not_specialize=["n"])

                @triton.heuristics({})
                @compiled
                def aliased(x_ptr, n):
                    pass

                def nested(n):
                    @triton.jit
                    def inside(x_ptr):
                        pass

                    return inside

                def plain(n):
                    return n
                """
        }
    )
    write_target(
        empty, "import devices\n", "[devices.aliased, devices.nested(1), devices.plain(x)]"
    )
    kernels = {part.place for part in empty.fingerprint().parts if part.kernel}
    assert kernels == {"devices.py:aliased", "devices.py:nested"}


def test_fingerprint_follows_classes_with_their_bases(empty: Repository) -> None:
    empty.write(
        {
            "modules.py": """
                import operations

                class Base:
                    factor = operations.FACTOR

                    def forward(self, x):
                        return x * self.factor

                class Norm(Base):
                    pass

                class Beside:
                    pass
                """
        }
    )
    write_target(empty, "import modules\n", "modules.Norm().forward(x)")
    found = places(empty.fingerprint())
    assert {"modules.py:Norm", "modules.py:Base", "operations.py:FACTOR"} <= found
    assert "modules.py:Beside" not in found


def test_fingerprint_counts_every_statement_that_gives_a_name_its_value(empty: Repository) -> None:
    write_target(empty, "SHIFT = 1\nSHIFT += 1\n", "x + SHIFT")
    before = empty.fingerprint()
    empty.change("kernels.py", "SHIFT += 1", "SHIFT += 2")
    assert changed(before, empty.fingerprint()) == {"kernels.py:SHIFT"}


def test_fingerprint_survives_imports_in_a_circle(empty: Repository) -> None:
    empty.write(
        {
            "around/__init__.py": "from . import first, second\nfrom .first import one\n",
            "around/first.py": "from around import second\ndef one(x): return second.two(x)\n",
            "around/second.py": """
                import around

                def two(x):
                    return around.one(x) if x is None else x
                """,
        }
    )
    write_target(empty, "import around\n", "around.one(x)")
    expected = {"kernels.py:norm", "around/first.py:one", "around/second.py:two"}
    assert places(empty.fingerprint()) == expected


def test_fingerprint_survives_names_in_a_circle(empty: Repository) -> None:
    empty.write(
        {
            "one.py": "try:\n    from two import f\nexcept ImportError:\n    def f(x): return x\n",
            "two.py": "from one import f\nfrom one import *\n",
            "three.py": "from four import *\ndef g(x): return h(x)\n",
            "four.py": "from three import *\ndef h(x): return x\n",
        }
    )
    write_target(empty, "import one\nimport three\n", "one.f(three.g(x))")
    found = places(empty.fingerprint())
    assert found == {"kernels.py:norm", "one.py:f", "three.py:g", "four.py:h"}


def test_fingerprint_names_a_file_that_cannot_be_parsed(empty: Repository) -> None:
    write_target(empty, "", "x")
    empty.change("kernels.py", "    return x\n", "    import broken\n    return x\n")
    empty.write({"broken.py": "x = 1\ndef f(:\n"})
    with pytest.raises(ValueError, match=r"broken\.py:2: invalid syntax"):
        empty.fingerprint()


def test_fingerprint_leaves_out_what_is_installed(
    empty: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = empty.folder / ".venv/lib/python3/site-packages"
    empty.write({str(installed.relative_to(empty.folder) / "installed_one.py"): OPERATIONS})
    monkeypatch.syspath_prepend(installed)
    write_target(empty, "import installed_one\n", "installed_one.double(x)")
    assert places(empty.fingerprint()) == {"kernels.py:norm"}


def test_is_under_test_leaves_out_this_program() -> None:
    assert is_under_test(ROOT / "ln_kernels/rows.py", ROOT)
    assert is_under_test(ROOT / "fuzz/builtin.py", ROOT)
    assert not is_under_test(ROOT / "fuzz/spec.py", ROOT)
    assert not is_under_test(Path(formats.__file__), ROOT)
    assert not is_under_test(ROOT / "ln_kernels/rows.py", ROOT / "fuzz")


# --- this project's own targets -------------------------------------------------------------------

OURS = tuple(name for name in builtin_names() if not name.startswith("torch."))


def digests() -> dict[str, str]:
    return {name: fingerprint(load(name), ROOT).digest for name in builtin_names()}


@pytest.mark.parametrize("name", OURS)
def test_fingerprint_of_a_built_in_target_has_its_kernels(name: str) -> None:
    kernels = [part for part in fingerprint(load(name), ROOT).parts if part.kernel]
    assert len([part for part in kernels if part.name.endswith("_kernel")]) == 1
    assert "ln_kernels.blocks:mean_of" in {part.name for part in kernels}
    assert {part.file.split("/")[0] for part in kernels} == {"ln_kernels"}


@pytest.mark.skipif(HAS_CUDA, reason="kernels are compiled ones already")
def test_fingerprint_is_the_same_for_compiled_kernels() -> None:
    program = (
        "import json, ln_kernels.blocks as blocks\n"
        "from tests.fuzz.test_fingerprint import digests\n"
        "print(json.dumps([type(blocks.mean_of).__name__, digests()]))"
    )
    environment = {**os.environ, "TRITON_INTERPRET": "0"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, check=True
    )
    kind, compiled = json.loads(run.stdout)
    assert kind == "JITFunction"
    assert compiled == digests()


def test_fingerprint_of_one_target_changes_with_its_own_kernel(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "ln_kernels", tmp_path / "ln_kernels")
    (tmp_path / "fuzz").mkdir()
    shutil.copy(ROOT / "fuzz/builtin.py", tmp_path / "fuzz")
    # The rest of the program does not come from the folder.
    (tmp_path / "fuzz/targets.py").write_text("raise RuntimeError('not to be imported')")
    repository = Repository(tmp_path)
    repository.change(
        "ln_kernels/whole_row.py",
        "mean_of(tl.sum(total, axis=1), n_cols)",
        "tl.sum(total, axis=1) / n_cols",
    )
    before = digests()
    with KernelProcess("cpu", folder=tmp_path, foreign=ROOT) as kernel:
        now = {name: kernel.fingerprint(name, tmp_path).digest for name in kernel.names()}
        with pytest.raises(KernelProcessError, match="must be one of layer_norm, ") as caught:
            kernel.fingerprint("nobody_s", tmp_path)
    assert caught.value.user
    assert {name for name in OURS if now[name] != before[name]} == {"triton_layer_norm"}
    assert {name for name in before if now[name] != before[name]} == {"triton_layer_norm"}
