"""Target files: specs from signatures, loading, and messages where that cannot be."""

import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fuzz import builtin
from fuzz.case import Launch
from fuzz.declaration import UNKNOWN_LAUNCH
from fuzz.spec import ArgSpec, FlagSpec, OutputSpec, Refusal, TargetSpec
from fuzz.targets import Target, TargetError, builtin_names, load, load_all, target
from oracle.arithmetic import Arithmetic

HEAD = "import torch\nfrom fuzz.targets import target\n"


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a target file, return its path."""

    def write_file(body: str, name: str = "kernels.py") -> str:
        path = tmp_path / name
        path.write_text(HEAD + textwrap.dedent(body), encoding="utf-8")
        return path.as_posix()

    return write_file


def args_of(spec: TargetSpec) -> dict[str, ArgSpec]:
    return {a.name: a for a in spec.args}


def test_target_spec_comes_from_the_signature() -> None:
    @target(dtypes=("float32", "bfloat16"), blocks=(1024, 4096), num_warps=(4, 8))
    def mine(x, weight, bias=None, *, eps, block, num_warps):  # type: ignore[no-untyped-def]
        """Layer norm, my own.

        More words.
        """
        return x

    spec = mine.spec
    assert spec.name == "mine"
    assert spec.description == "Layer norm, my own."
    assert spec.args == (
        ArgSpec("x", dtypes=("float32", "bfloat16")),
        ArgSpec("weight", shape="cols", dtypes=("x",)),
        ArgSpec("bias", shape="cols", dtypes=("x",), optional=True),
    )
    assert spec.outputs == (OutputSpec("y"),)
    assert spec.launch.blocks == (1024, 4096)
    assert spec.launch.num_warps == (4, 8)
    assert spec.launch.fp_fusion == (True,)
    assert spec.arithmetic == Arithmetic()
    assert spec.space.max_normalized_dims == 1
    assert not spec.space.empty_batch
    assert spec.flags == ()
    assert spec.default


def test_target_spec_covers_the_whole_vocabulary() -> None:
    refusal = Refusal("n_cols_zero", "ValueError", "n_cols")

    @target(
        name="all",
        returns=("y", "mean", "rstd", "sum"),
        mixed=True,
        strided=True,
        empty_batch=True,
        ranks=(2, 3),
        max_cols=512,
        refuses=(refusal,),
        devices=("cuda",),
        blocks=(64,),
        fp_fusion=(True, False),
        weight_offset=(1.0, 0.5),
        owns_storage=("z",),
        reads_after_atomics=True,
        repeatable=False,
    )
    def everything(  # type: ignore[no-untyped-def]
        x,
        residual,
        z,
        weight,
        bias,
        input_bias,
        out=None,
        sum_out=None,
        *,
        eps,
        normalized_shape,
        group_size,
        norm_before_gate,
        is_rms_norm,
        weight_offset,
        block,
        fp_fusion,
        debug=False,
    ):
        return x

    spec = everything.spec
    args = args_of(spec)
    assert spec.name == "all"
    assert {n for n, a in args.items() if a.shape == "cols"} == {"weight", "bias", "input_bias"}
    assert {n for n, a in args.items() if a.role == "out"} == {"out", "sum_out"}
    assert {n for n, a in args.items() if a.optional} == {"out", "sum_out"}
    assert {n for n, a in args.items() if a.strided} == {"x", "residual", "z", "out", "sum_out"}
    assert {n for n, a in args.items() if a.dtypes != ("x",)} == {"x", "weight", "bias"}
    assert "debug" not in args
    assert spec.outputs == (
        OutputSpec("y", given_as="out"),
        OutputSpec("mean", "groups", "float32"),
        OutputSpec("rstd", "groups", "float32"),
        OutputSpec("sum", given_as="sum_out"),
    )
    assert spec.flags == (
        FlagSpec("group_size", (None,)),
        FlagSpec("norm_before_gate", (True, False)),
        FlagSpec("is_rms_norm", (False, True)),
        FlagSpec("weight_offset", (1.0, 0.5)),
    )
    assert (spec.space.min_rank, spec.space.max_rank, spec.space.max_cols) == (2, 3, 512)
    assert spec.space.max_normalized_dims == 3
    assert spec.space.empty_batch
    assert spec.refuses == (refusal,)
    assert spec.devices == ("cuda",)
    assert spec.launch.fp_fusion == (True, False)
    assert {n for n, a in args.items() if a.owns_storage} == {"z"}
    assert spec.reads_after_atomics
    assert not spec.repeatable


def test_target_statistics_of_ungrouped_kernels_have_a_row_each() -> None:
    @target(returns=("y", "rstd", OutputSpec("mean", "rows_keepdim", "float32")))
    def mine(x, eps):  # type: ignore[no-untyped-def]
        return x

    shapes = [(o.name, o.shape) for o in mine.spec.outputs]
    assert shapes == [("y", "full"), ("rstd", "rows"), ("mean", "rows_keepdim")]


def test_target_constants_of_the_formula_are_fixed() -> None:
    @target(eps=1e-6, is_rms_norm=True, weight_offset=1.0)
    def gemma(x, weight):  # type: ignore[no-untyped-def]
        return x

    assert gemma.spec.flags == (
        FlagSpec("is_rms_norm", (True,)),
        FlagSpec("weight_offset", (1.0,)),
    )
    assert gemma.spec.space.fix("eps") == 1e-6
    narrowed = gemma.spec.fixed({"n_cols": 7})
    assert dict(narrowed.space.fixed) == {"eps": 1e-6, "n_cols": 7}


def test_target_of_unknown_launch_has_a_bound_by_width() -> None:
    @target()
    def mine(x, eps):  # type: ignore[no-untyped-def]
        return x

    assert mine.spec.arithmetic == UNKNOWN_LAUNCH
    assert mine.spec.launch.blocks == ()


def test_target_whole_row_has_a_block_for_every_width() -> None:
    @target(whole_row=True)
    def mine(x, eps, block):  # type: ignore[no-untyped-def]
        return x

    assert mine.spec.launch.whole_row
    assert max(mine.spec.launch.blocks) >= mine.spec.space.max_cols


@pytest.mark.parametrize(
    ("options", "signature", "message"),
    [
        ({}, "x, gamma, eps", "argument 'gamma' is not known, must be one of x, residual"),
        ({}, "weight, eps", "argument 'x' is missing"),
        ({}, "x, eps, *rest", r"argument \*rest: each argument must be named"),
        ({}, "x, /, eps", "argument x: must be accepted by keyword"),
        ({}, "x", "eps is no argument: give the kernel's own"),
        ({"eps": 1e-5}, "x, eps", "eps is an argument, so the option eps= must go"),
        ({}, "x, eps, block", "block is an argument: give the blocks"),
        ({"blocks": (64,)}, "x, eps", r"blocks=\(64,\), but block is no argument"),
        ({"num_warps": (4,)}, "x, eps", r"num_warps=\(4,\), but num_warps is no argument"),
        ({}, "x, eps, config", "config is an argument: give the dicts"),
        ({"returns": ("y", "std")}, "x, eps", "returns has 'std', must be of y, mean, rstd, sum"),
        ({"returns": "y"}, "x, eps", "returns='y', must be a sequence"),
        ({"returns": ()}, "x, eps", "must name at least one output"),
        ({"dtypes": ("float64",)}, "x, eps", "dtypes has 'float64', must be of float32"),
        ({"dtypes": ()}, "x, eps", "must be a sequence of at least one"),
        ({"rms": True}, "x, eps", "option 'rms' is not known, nor a flag"),
        ({"is_rms_norm": (True, False)}, "x, eps", "must be one value: it is no argument"),
        ({"autotuned": (len,)}, "x, eps", "autotuned has len, must be kernels under"),
    ],
)
def test_target_refuses_what_it_cannot_read(
    options: dict[str, Any], signature: str, message: str
) -> None:
    scope: dict[str, Any] = {}
    exec(f"def mine({signature}): return x", scope)
    with pytest.raises(TargetError, match=message) as caught:
        target(**options)(scope["mine"])
    assert str(caught.value).endswith("[mine]")


def call(made: Target, launch: Launch | None = None, **tensors: torch.Tensor) -> dict[str, Any]:
    absent = {a.name: None for a in made.spec.args}
    scalars = {"eps": 1e-5, "normalized_shape": (4,), "is_rms_norm": True}
    return dict(made.call({**absent, **tensors}, scalars, launch or Launch()))


def test_target_call_passes_what_the_function_names() -> None:
    seen: dict[str, Any] = {}

    @target(blocks=(64,), fp_fusion=(True,), returns=("y", "mean"))
    def mine(x, weight=None, *, eps, is_rms_norm, normalized_shape, block, num_warps, fp_fusion):  # type: ignore[no-untyped-def]
        seen.update(locals())
        return x, None

    x = torch.ones(2, 4)
    assert call(mine, Launch(64, 8, False), x=x) == {"y": x}
    wanted = {"x": x, "weight": None, "eps": 1e-5, "is_rms_norm": True, "normalized_shape": (4,)}
    launch = {"block": 64, "num_warps": 8, "fp_fusion": False}
    assert {n: seen[n] for n in (*wanted, *launch)} == wanted | launch


def test_target_call_gives_the_chosen_config_as_a_dict() -> None:
    seen = []

    @target(configs=({"BLOCK": 64, "num_warps": 2}, {"BLOCK": 128, "num_warps": 4}))
    def mine(x, eps, config):  # type: ignore[no-untyped-def]
        seen.append(config)
        return x

    assert mine.spec.launch.configs[1] == (("BLOCK", 128), ("num_warps", 4))
    call(mine, Launch(config=1), x=torch.ones(2))
    assert seen == [{"BLOCK": 128, "num_warps": 4}]


def test_target_that_fills_what_it_is_given_needs_no_return() -> None:
    @target()
    def mine(x, out, eps):  # type: ignore[no-untyped-def]
        out.copy_(x)

    out = torch.zeros(3)
    assert call(mine, x=torch.ones(3), out=out)["y"] is out


@pytest.mark.parametrize(
    ("result", "message"),
    [((1, 2), r"2 values returned, must be 1 \(y\)"), (None, "None returned, must be a tensor")],
)
def test_target_call_refuses_another_number_of_results(result: Any, message: str) -> None:
    @target()
    def mine(x, eps):  # type: ignore[no-untyped-def]
        return result

    with pytest.raises(TypeError, match=message):
        call(mine, x=torch.ones(2))


# --- loading -------------------------------------------------------------------------------------

ONE = """
    @target()
    def mine(x, eps):
        return x * 2
"""
TWO = (
    ONE
    + """
    @target(name="a label")
    def other(x, eps):
        return x * 3
"""
)


def test_load_finds_the_only_target_of_a_file(write: Callable[..., str]) -> None:
    path = write(ONE)
    found = load(path)
    assert found.spec.name == f"{path}:mine"
    assert load(found.spec.name).spec == found.spec
    assert call(found, x=torch.ones(2))["y"].tolist() == [2.0, 2.0]


def test_load_takes_one_target_by_name_and_all_without(write: Callable[..., str]) -> None:
    path = write(TWO)
    assert [t.spec.name for t in load_all(path)] == [f"{path}:mine", f"{path}:other"]
    assert call(load(f"{path}:other"), x=torch.ones(1))["y"].item() == 3.0
    with pytest.raises(TargetError, match=r"holds 2 targets, must be one of .*:mine, .*:other"):
        load(path)


def test_load_lets_a_file_import_its_neighbours(write: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a_neighbour_of_kernels.py").write_text("FACTOR = 5\n", encoding="utf-8")
    path = write(
        """
        from a_neighbour_of_kernels import FACTOR

        @target()
        def mine(x, eps):
            return x * FACTOR
        """
    )
    assert call(load(path), x=torch.ones(1))["y"].item() == 5.0


def test_load_imports_a_file_once(write: Callable[..., str], tmp_path: Path) -> None:
    path = write(ONE + f"\n    open({str(tmp_path / 'count')!r}, 'a').write('x')\n")
    load(path)
    load(f"{path}:mine")
    assert (tmp_path / "count").read_text(encoding="utf-8") == "x"


def test_load_names_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(TargetError, match=r"nowhere\.py', must be a file: it does not exist"):
        load(str(tmp_path / "nowhere.py"))


def test_load_shows_the_users_own_traceback(write: Callable[..., str]) -> None:
    path = write("import a_module_that_is_not_there")
    with pytest.raises(TargetError) as caught:
        load(path)
    text = str(caught.value)
    assert "cannot be imported" in text
    assert "import a_module_that_is_not_there" in text
    assert text.endswith("ModuleNotFoundError: No module named 'a_module_that_is_not_there'")


def test_load_survives_a_file_that_exits(write: Callable[..., str]) -> None:
    with pytest.raises(TargetError, match="SystemExit: 3"):
        load(write("raise SystemExit(3)"))


def test_load_tells_a_wrong_signature_without_a_traceback(write: Callable[..., str]) -> None:
    path = write("@target()\ndef mine(x, gamma, eps): return x")
    with pytest.raises(TargetError, match=r"kernels.py': argument 'gamma' is not known") as caught:
        load(path)
    assert "Traceback" not in str(caught.value)


def test_load_tries_a_mended_file_again(write: Callable[..., str]) -> None:
    with pytest.raises(TargetError):
        load(write("oops"))
    assert load(write(ONE)).spec.name.endswith(":mine")


def test_load_names_a_file_without_targets(write: Callable[..., str]) -> None:
    with pytest.raises(TargetError, match="has no function decorated with"):
        load(write("def mine(x): return x"))


def test_load_names_the_targets_a_file_has(write: Callable[..., str]) -> None:
    with pytest.raises(TargetError, match="nothing is no target of the file, must be one of mine"):
        load(write(ONE) + ":nothing")


def test_load_lists_the_built_in_targets() -> None:
    assert "layer_norm" in builtin_names()
    with pytest.raises(TargetError, match=r"target='layernorm', must be one of layer_norm, .*\.py"):
        load("layernorm")


def test_load_tells_why_a_built_in_target_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> builtin.Built:
        raise ImportError("no such kernel")

    monkeypatch.setitem(builtin.TARGETS, "broken", broken)
    with pytest.raises(TargetError, match=r"(?s)'broken' cannot be imported.*no such kernel"):
        load("broken")


def test_target_names_an_argument_that_cannot_own_its_storage() -> None:
    with pytest.raises(TargetError, match="owns_storage has 'z', must be a tensor argument: x"):

        @target(owns_storage=("z",))
        def mine(x):  # type: ignore[no-untyped-def]
            return x
