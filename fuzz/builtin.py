"""The built-in targets: adapters and specs of this project's kernels, and of two references.

Kernels are imported when a target is asked for, so that one that cannot be imported costs that
target alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fuzz.case import Launch
from fuzz.spec import (
    ArgSpec,
    DefaultLaunch,
    FlagSpec,
    LaunchSpace,
    OutputSpec,
    Refusal,
    ShapeKind,
    Space,
    TargetSpec,
)
from oracle.arithmetic import Arithmetic, Depth

if TYPE_CHECKING:
    from torch import Tensor

    from ln_kernels import LaunchConfig

Tensors = dict[str, "Tensor | None"]
Call = Callable[[Tensors, dict[str, Any], Launch], dict[str, "Tensor"]]
"""What runs a target: tensors by argument name (None: absent), scalars by name (eps, the flags and
``normalized_shape``) and the launch; it returns the observed tensors by output name."""

Built = tuple[TargetSpec, Call]


class Unsupported(Exception):
    """A target says that it cannot run this case here: the case is skipped, with the reason."""


BLOCKS = (32, 128, 1024, 4096, 8192)
"""Small blocks make rows of many blocks cheap; the wrappers' own are 512 to 32768."""

NUM_WARPS = (1, 4, 8)

WHOLE_ROW_BLOCKS = tuple(2**k for k in range(18))
"""Up to the first that holds the widest row that is drawn."""

WHOLE_ROW_WARPS = (16, 32)
"""Fewer would spill on the widest rows and compile for seconds; the defaults have fewer."""

_OURS = Arithmetic(uniform=True, depth=Depth(parts=8))
"""What this project's kernels promise: every product that a reduction adds is rounded by itself,
and a block is walked in 8 tiles at most."""

_SPACE = Space(max_rank=6)
"""Five leading dims are one more than a kernel walks by itself."""

_X = ArgSpec("x", strided=True)
_WEIGHT = ArgSpec("weight", shape="cols", optional=True)
_BIAS = ArgSpec("bias", shape="cols", optional=True)
_INPUT_BIAS = ArgSpec("input_bias", shape="cols")
_RESIDUAL = ArgSpec("residual", strided=True)
_Z = ArgSpec("z", optional=True, strided=True)
_Y = OutputSpec("y", given_as="out")

_REFUSES = (
    Refusal("x_float64", "TypeError", "x.dtype"),
    Refusal("x_int64", "TypeError", "x.dtype"),
    Refusal("x_complex64", "TypeError", "x.dtype"),
    Refusal("x_zero_dim", "ValueError", "x.ndim"),
    Refusal("n_cols_zero", "ValueError", "n_cols"),
    Refusal("x_column_stride", "ValueError", "x.stride"),
    Refusal("out_shape", "ValueError", "out.shape"),
    Refusal("out_dtype", "TypeError", "out.dtype"),
    Refusal("out_expanded", "ValueError", "out.stride"),
    Refusal("eps_negative", "ValueError", "eps"),
)


def _out(*may_alias: str) -> ArgSpec:
    return ArgSpec(
        "out", role="out", dtypes=("x",), optional=True, strided=True, may_alias=may_alias
    )


def _statistics(shape: ShapeKind) -> tuple[OutputSpec, OutputSpec]:
    return OutputSpec("mean", shape, "float32"), OutputSpec("rstd", shape, "float32")


def _wrong(weight: str = "weight", bias: str = "bias") -> tuple[Refusal, ...]:
    """The refusals of a weight or bias that does not fit, by the kernel's own names for them."""
    return (
        Refusal("weight_shape", "ValueError", f"{weight}.shape"),
        Refusal("weight_int64", "TypeError", f"{weight}.dtype"),
        Refusal("bias_shape", "ValueError", f"{bias}.shape"),
    )


def _defaults(
    heuristic: Callable[[int, int], LaunchConfig],
) -> tuple[DefaultLaunch, ...]:
    """A wrapper's heuristic as a table. It decides by the next power of two of the width."""
    table: list[DefaultLaunch] = []
    for itemsize in (2, 4):
        rows: list[DefaultLaunch] = []
        for power in range(18):
            launch = heuristic(2**power, itemsize)
            row = DefaultLaunch(2**power, itemsize, launch.block, launch.num_warps)
            if rows and (rows[-1].block, rows[-1].num_warps) == (row.block, row.num_warps):
                rows.pop()
            rows.append(row)
        table += rows
    return tuple(table)


def _blocked() -> LaunchSpace:
    from ln_kernels import default_launch

    return LaunchSpace(
        blocks=BLOCKS,
        num_warps=NUM_WARPS,
        fp_fusion=(True, False),
        defaults=_defaults(default_launch),
    )


def _config(launch: Launch) -> LaunchConfig | None:
    """The pinned launch, or the wrapper's own where the case pins none."""
    from ln_kernels import LaunchConfig

    if launch.block is None or launch.num_warps is None:
        return None
    fp_fusion = True if launch.fp_fusion is None else launch.fp_fusion
    return LaunchConfig(launch.block, launch.num_warps, fp_fusion)


def _layer_norm() -> Built:
    from ln_kernels import layer_norm

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y = layer_norm(
            _required(tensors, "x"),
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            out=tensors["out"],
            launch=_config(launch),
        )
        return {"y": y}

    spec = TargetSpec(
        name="layer_norm",
        args=(_X, _WEIGHT, _BIAS, _out("x")),
        outputs=(_Y,),
        arithmetic=_OURS,
        space=_SPACE,
        launch=_blocked(),
        refuses=(*_REFUSES, *_wrong()),
        description="Layer norm over the last dim, in column blocks",
    )
    return spec, call


def _native_layer_norm() -> Built:
    from ln_kernels import native_layer_norm

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y, mean, rstd = native_layer_norm(
            _required(tensors, "x"),
            scalars["normalized_shape"],
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            out=tensors["out"],
            launch=_config(launch),
        )
        return {"y": y, "mean": mean, "rstd": rstd}

    spec = TargetSpec(
        name="native_layer_norm",
        args=(_X, _WEIGHT, _BIAS, _out("x")),
        outputs=(_Y, *_statistics("rows_keepdim")),
        arithmetic=replace(_OURS, reused=("mean", "rstd")),
        launch=_blocked(),
        space=replace(_SPACE, max_normalized_dims=3),
        refuses=(
            # The shape that is to be normalized is looked at first.
            *(r for r in _REFUSES if r.name != "x_zero_dim"),
            Refusal("x_zero_dim", "ValueError", "normalized_shape"),
            Refusal("normalized_shape_mismatch", "ValueError", "normalized_shape"),
            *_wrong(),
        ),
        description="Layer norm over the last dims jointly, with its mean and rstd",
    )
    return spec, call


def _layer_norm_residual() -> Built:
    from ln_kernels import layer_norm_residual

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        result = layer_norm_residual(
            _required(tensors, "x"),
            tensors["input_bias"],
            _required(tensors, "residual"),
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            out=tensors["out"],
            sum_out=tensors["sum_out"],
            return_sum=scalars["return_sum"],
            launch=_config(launch),
        )
        if isinstance(result, tuple):
            return {"y": result[0], "sum": result[1]}
        return {"y": result}

    spec = TargetSpec(
        name="layer_norm_residual",
        args=(
            _X,
            ArgSpec("input_bias", shape="cols", optional=True),
            _RESIDUAL,
            _WEIGHT,
            _BIAS,
            _out("x", "residual"),
            ArgSpec(
                "sum_out",
                role="out",
                dtypes=("x", "float32"),
                optional=True,
                strided=True,
                may_alias=("x", "residual"),
            ),
        ),
        outputs=(_Y, OutputSpec("sum", given_as="sum_out")),
        # The sum is rounded as it is stored, the statistics read it before: it is not reused.
        arithmetic=_OURS,
        space=_SPACE,
        flags=(FlagSpec("return_sum", (True, False)),),
        launch=_blocked(),
        refuses=(
            *_REFUSES,
            *_wrong(),
            Refusal("input_bias_shape", "ValueError", "input_bias.shape"),
            Refusal("residual_shape", "ValueError", "residual.shape"),
        ),
        description="Layer norm of (x + input_bias) + residual, with the sum",
    )
    return spec, call


def _triton_layer_norm() -> Built:
    from ln_kernels import triton_layer_norm, whole_row_launch

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y = triton_layer_norm(
            _required(tensors, "x"),
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            out=tensors["out"],
            launch=_config(launch),
        )
        return {"y": y}

    spec = TargetSpec(
        name="triton_layer_norm",
        args=(_X, _WEIGHT, _BIAS, _out("x")),
        outputs=(_Y,),
        arithmetic=_OURS,
        space=_SPACE,
        launch=LaunchSpace(
            blocks=WHOLE_ROW_BLOCKS,
            num_warps=WHOLE_ROW_WARPS,
            fp_fusion=(True, False),
            whole_row=True,
            defaults=_defaults(whole_row_launch),
        ),
        refuses=(*_REFUSES, *_wrong()),
        description="Layer norm with the whole row in one block",
    )
    return spec, call


def _layernorm_fn() -> Built:
    from ln_kernels import layer_norm_forward

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        # layernorm_fn is this without the statistics, which are worth observing.
        y, mean, rstd = layer_norm_forward(
            _required(tensors, "x"),
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            z=tensors["z"],
            out=tensors["out"],
            group_size=scalars["group_size"],
            norm_before_gate=scalars["norm_before_gate"],
            is_rms_norm=scalars["is_rms_norm"],
            launch=_config(launch),
        )
        outputs = {"y": y, "rstd": rstd}
        return outputs if mean is None else {**outputs, "mean": mean}

    spec = TargetSpec(
        name="layernorm_fn",
        args=(_X, _WEIGHT, _BIAS, _Z, _out("x", "z")),
        outputs=(_Y, *_statistics("groups")),
        arithmetic=replace(_OURS, reused=("mean", "rstd")),
        space=_SPACE,
        flags=(
            FlagSpec("group_size", (None,)),
            FlagSpec("norm_before_gate", (True, False)),
            FlagSpec("is_rms_norm", (False, True)),
        ),
        launch=_blocked(),
        refuses=_grouped_refuses(),
        description="Gated layer norm or RMS norm of groups of columns, with mean and rstd",
    )
    return spec, call


def _rmsnorm_fn() -> Built:
    from ln_kernels import rmsnorm_fn

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y = rmsnorm_fn(
            _required(tensors, "x"),
            tensors["weight"],
            tensors["bias"],
            tensors["z"],
            scalars["eps"],
            scalars["group_size"],
            scalars["norm_before_gate"],
            out=tensors["out"],
            launch=_config(launch),
        )
        return {"y": y}

    spec = TargetSpec(
        name="rmsnorm_fn",
        args=(_X, _WEIGHT, _BIAS, _Z, _out("x", "z")),
        outputs=(_Y,),
        arithmetic=_OURS,
        space=_SPACE,
        flags=(
            FlagSpec("group_size", (None,)),
            FlagSpec("norm_before_gate", (True, False)),
            FlagSpec("is_rms_norm", (True,)),
        ),
        launch=_blocked(),
        refuses=_grouped_refuses(),
        description="Gated RMS norm of groups of columns",
    )
    return spec, call


def _grouped_refuses() -> tuple[Refusal, ...]:
    return (
        *_REFUSES,
        *_wrong(),
        Refusal("z_shape", "ValueError", "z.shape"),
        Refusal("group_size_not_divisor", "ValueError", "group_size"),
        Refusal("group_size_zero", "ValueError", "group_size"),
    )


def _fused_bias_layer_norm() -> Built:
    from ln_kernels import fused_bias_layer_norm

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y = fused_bias_layer_norm(
            _required(tensors, "x"),
            _required(tensors, "input_bias"),
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
            out=tensors["out"],
            launch=_config(launch),
        )
        return {"y": y}

    spec = TargetSpec(
        name="fused_bias_layer_norm",
        args=(_X, _INPUT_BIAS, _WEIGHT, _BIAS, _out("x")),
        outputs=(_Y,),
        arithmetic=_OURS,
        space=_SPACE,
        launch=_blocked(),
        refuses=(
            *_REFUSES,
            *_wrong(weight="gamma", bias="beta"),
            Refusal("input_bias_shape", "ValueError", "bias.shape"),
        ),
        description="Bias addition and layer norm in one launch",
    )
    return spec, call


# --- references: correct implementations that are not ours, to show that nothing is alarmed at ----


def _reference(
    name: str, depth: Depth, description: str, *, reused: tuple[str, ...] = ()
) -> TargetSpec:
    return TargetSpec(
        name=name,
        args=(
            _X,
            # On a GPU torch's kernel wants all dtypes equal.
            ArgSpec("weight", shape="cols", dtypes=("x",), optional=True),
            ArgSpec("bias", shape="cols", dtypes=("x",), optional=True),
        ),
        outputs=(OutputSpec("y"), *_statistics("rows_keepdim")),
        arithmetic=Arithmetic(variance="welford", depth=depth, reused=reused),
        space=Space(max_normalized_dims=3),
        # torch's CPU kernels are no reference in half precision, and this is where they would run.
        devices=("cuda",),
        default=False,
        description=description,
    )


def _torch_native_layer_norm() -> Built:
    import torch

    # 128 threads share a row, or one warp where it has fewer than 512 columns, 16 a thread; seven
    # steps join the threads and a few more the vectors.
    depth = Depth(kind="linear", divisor=128, extra=16 + 16)
    description = "torch's own kernel, eager"
    spec = _reference("torch.native_layer_norm", depth, description, reused=("mean", "rstd"))
    return spec, _native_call(torch.native_layer_norm)


def _torch_compile() -> Built:
    import torch
    from torch._dynamo import config

    # A campaign has more shapes than the usual limits of 8 and 256; beyond them torch.compile
    # would run eager in silence.
    config.recompile_limit = 1 << 16
    config.accumulated_recompile_limit = 1 << 16
    config.fail_on_recompile_limit_hit = True

    compiled_calls = 0

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        from torch._inductor.compile_fx import compile_fx

        inner: Any = compile_fx(graph, inputs)

        def counted(*args: Any) -> Any:
            nonlocal compiled_calls
            compiled_calls += 1
            return inner(*args)

        return counted

    compiled = torch.compile(torch.native_layer_norm, backend=backend)

    def function(*args: Any) -> Any:
        before = compiled_calls
        result = compiled(*args)
        if compiled_calls == before:
            raise Unsupported("torch.compile ran this case eager")
        return result

    # Nothing is reused: the mean that Inductor returns may differ in its last bits from the one
    # that its y was computed from. Inductor gives a row 16 threads at least, and 1024 at most.
    depth = Depth(kind="linear", divisor=16, extra=16)
    spec = _reference("torch.compile", depth, "torch.compile of torch.native_layer_norm")
    return spec, _native_call(function)


def _native_call(function: Callable[..., Any]) -> Call:
    """The adapter of anything with the signature of torch.native_layer_norm."""

    def call(tensors: Tensors, scalars: dict[str, Any], launch: Launch) -> dict[str, Tensor]:
        y, mean, rstd = function(
            tensors["x"],
            scalars["normalized_shape"],
            tensors["weight"],
            tensors["bias"],
            scalars["eps"],
        )
        return {"y": y, "mean": mean, "rstd": rstd}

    return call


def _required(tensors: Tensors, name: str) -> Tensor:
    tensor = tensors[name]
    assert tensor is not None, f"every case has {name}"
    return tensor


def take_cpu_tensors() -> None:
    """Have this project's wrappers take CPU tensors, as they do under the interpreter.

    For compiling without a GPU, where such tensors stand for the GPU's. Concerns what is imported.
    """
    rows = sys.modules.get("ln_kernels.rows")
    if rows is not None:
        vars(rows)["_INTERPRETED"] = True


TARGETS: dict[str, Callable[[], Built]] = {
    "layer_norm": _layer_norm,
    "native_layer_norm": _native_layer_norm,
    "layer_norm_residual": _layer_norm_residual,
    "triton_layer_norm": _triton_layer_norm,
    "layernorm_fn": _layernorm_fn,
    "rmsnorm_fn": _rmsnorm_fn,
    "fused_bias_layer_norm": _fused_bias_layer_norm,
    "torch.native_layer_norm": _torch_native_layer_norm,
    "torch.compile": _torch_compile,
}
"""Builders of the built-in targets, by name, in the order in which they are listed."""
