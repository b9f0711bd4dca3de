"""Specs, cases and simulated observations: a NumPy layer norm in place of a kernel."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fuzz.case import Case, Launch, Plant, Recipe, TensorCase, contiguous_strides
from fuzz.checks import judge
from fuzz.inputs import make_values, run_values
from fuzz.judging.owed import dtype_of, due_outputs, shape_of
from fuzz.relations import Run, expand, has_rows
from fuzz.spec import (
    ArgSpec,
    FlagSpec,
    FlagValue,
    LaunchSpace,
    OutputSpec,
    Refusal,
    Space,
    TargetSpec,
)
from fuzz.verdict import POISON_BYTE, Array, Bits, Observation, Verdict
from oracle.arithmetic import Arithmetic
from oracle.formats import FORMATS, decode, encode

F32 = npt.NDArray[np.float32]
Fault = Callable[[Run, Observation], Observation]
"""Takes the correct observation of a run and returns a faulty one."""

BLOCKS = (128, 256, 512, 1024, 2048, 4096, 8192)
ALL_RELATIONS = ("repeat", "poisoned", "contiguous", "row_alone", "permuted", "drowned")

_X = ArgSpec("x", strided=True)
_WEIGHT = ArgSpec("weight", shape="cols", optional=True)
_BIAS = ArgSpec("bias", shape="cols", optional=True)
_Y = OutputSpec("y", given_as="out")


def _out(*may_alias: str) -> ArgSpec:
    return ArgSpec(
        "out", role="out", dtypes=("x",), optional=True, strided=True, may_alias=may_alias
    )


LAYER_NORM = TargetSpec(
    "layer_norm",
    args=(_X, _WEIGHT, _BIAS, _out("x")),
    outputs=(_Y,),
    arithmetic=Arithmetic(uniform=True),
    launch=LaunchSpace(blocks=BLOCKS, num_warps=(1, 4, 8), fp_fusion=(True, False)),
    refuses=(
        Refusal("n_cols_zero", "ValueError", "n_cols"),
        Refusal("x_integer", "TypeError", "x"),
    ),
)

WHOLE_ROW = replace(
    LAYER_NORM,
    name="whole_row",
    launch=replace(LAYER_NORM.launch, blocks=tuple(2**k for k in range(18)), whole_row=True),
)

NATIVE = TargetSpec(
    "native_layer_norm",
    args=(_X, _WEIGHT, _BIAS),
    outputs=(
        OutputSpec("y"),
        OutputSpec("mean", "rows_keepdim", "float32"),
        OutputSpec("rstd", "rows_keepdim", "float32"),
    ),
    arithmetic=Arithmetic(uniform=True, reused=("mean", "rstd")),
    launch=LAYER_NORM.launch,
    space=Space(max_normalized_dims=3),
)

RESIDUAL = TargetSpec(
    "layer_norm_residual",
    args=(
        _X,
        ArgSpec("input_bias", shape="cols", dtypes=("x",), optional=True),
        ArgSpec("residual", dtypes=("x",), strided=True),
        _WEIGHT,
        _BIAS,
        _out("x", "residual"),
        ArgSpec("sum_out", role="out", dtypes=("x",), optional=True, strided=True),
    ),
    outputs=(_Y, OutputSpec("sum", given_as="sum_out")),
    arithmetic=Arithmetic(
        uniform=True,
        roundings=(("sum", "x"),),
        mean_reads="stored",
        variance_reads="stored",
        output_reads="stored",
        reused=("sum",),
    ),
    flags=(FlagSpec("return_sum", (True, False)),),
    launch=LAYER_NORM.launch,
)

GATED = TargetSpec(
    "layernorm_fn",
    args=(
        _X,
        _WEIGHT,
        _BIAS,
        ArgSpec("z", dtypes=("x",), optional=True, strided=True),
        _out("x", "z"),
    ),
    outputs=(
        _Y,
        OutputSpec("mean", "groups", "float32"),
        OutputSpec("rstd", "groups", "float32"),
    ),
    arithmetic=Arithmetic(uniform=True, reused=("mean", "rstd")),
    flags=(
        FlagSpec("group_size", (None,)),
        FlagSpec("norm_before_gate", (True, False)),
        FlagSpec("is_rms_norm", (False, True)),
        FlagSpec("weight_offset", (0.0, 1.0)),
    ),
    launch=LAYER_NORM.launch,
)

SPECS = {s.name: s for s in (LAYER_NORM, WHOLE_ROW, NATIVE, RESIDUAL, GATED)}


def make_case(
    spec: TargetSpec,
    shape: tuple[int, ...],
    *,
    dtype: str = "float32",
    normalized_ndim: int = 1,
    absent: tuple[str, ...] = (),
    strides: Mapping[str, tuple[int, ...]] | None = None,
    offsets: Mapping[str, int] | None = None,
    dtypes: Mapping[str, str] | None = None,
    values: Mapping[str, Recipe] | None = None,
    aliases: Mapping[str, str] | None = None,
    flags: Mapping[str, FlagValue] | None = None,
    eps: float = 1e-5,
    block: int | None = None,
    seed: int = 1,
    relations: tuple[str, ...] = (),
) -> Case:
    """A case with every argument of the target but the ``absent`` ones, contiguous unless said."""
    strides, offsets, dtypes = strides or {}, offsets or {}, dtypes or {}
    values, aliases = values or {}, aliases or {}
    normalized = shape[len(shape) - normalized_ndim :]
    tensors = []
    for arg in spec.args:
        if arg.name in absent:
            continue
        own = normalized if arg.shape == "cols" else shape
        layout = aliases.get(arg.name, arg.name)
        tensors.append(
            TensorCase(
                arg.name,
                dtypes.get(layout, dtype),
                own,
                strides.get(layout, contiguous_strides(own)),
                offsets.get(layout, 0),
                None if arg.role == "out" else values.get(arg.name, Recipe("normal", mean=0.5)),
                aliases.get(arg.name),
            )
        )
    width = math.prod(normalized)
    if block is None and spec.launch.blocks:
        blocks = spec.launch.blocks
        block = next((b for b in blocks if b >= width), blocks[-1])
    constants = {f.name: f.choices[0] for f in spec.flags}
    return Case(
        spec.name,
        shape,
        normalized_ndim,
        tuple(tensors),
        constants | dict(flags or {}),
        eps,
        Launch(block=block, num_warps=4, fp_fusion=True),
        seed,
        relations,
    )


def layer_norm(case: Case, values: dict[str, Bits]) -> dict[str, F32]:
    """Everything a correct kernel may return, computed in fp32; rows by columns or by groups."""

    def read(name: str) -> F32 | None:
        tensor = case.tensor(name)
        if tensor is None:
            return None
        shape = (case.n_rows, case.n_cols) if has_rows(tensor, case) else (case.n_cols,)
        return decode(values[name], tensor.dtype).astype(np.float32).reshape(shape)

    x, residual, z = read("x"), read("residual"), read("z")
    input_bias, weight, bias = read("input_bias"), read("weight"), read("bias")
    assert x is not None
    total = x if input_bias is None else x + input_bias
    if residual is not None:
        stored = encode((total + residual).astype(np.float64), case.dtype)
        total = decode(stored, case.dtype).astype(np.float32)
    made = {"sum": total}
    one = np.float32(1)
    gate = None if z is None else z * (one / (one + np.exp(-z)))
    before = bool(case.flags.get("norm_before_gate", True))
    if gate is not None and not before:
        total = total * gate
    s = total.reshape(case.n_rows, case.n_groups, case.group_size)
    if case.flags.get("is_rms_norm"):
        centred = s
    else:
        mean = s.mean(axis=-1, keepdims=True)
        made["mean"] = mean[..., 0]
        centred = s - mean
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    rstd = one / np.sqrt(variance + np.float32(case.eps))
    made["rstd"] = rstd[..., 0]
    y = (centred * rstd).reshape(case.n_rows, case.n_cols)
    if weight is not None:
        y = y * (weight + np.float32(case.flags.get("weight_offset") or 0.0))
    if bias is not None:
        y = y + bias
    if gate is not None and before:
        y = y * gate
    made["y"] = y
    return made


def simulate(spec: TargetSpec, run: Run, base: Case, values: dict[str, Bits]) -> Observation:
    """What a correct kernel does in one run."""
    case = run.case
    with np.errstate(all="ignore"):
        made = layer_norm(case, run_values(run, base, values))
    outputs = {}
    for output in due_outputs(spec, case):
        rows, dtype = made[output.name], dtype_of(output, case)
        flat = rows.T if output.shape == "groups" else rows
        bits = encode(np.ascontiguousarray(flat).astype(np.float64), dtype)
        shape = shape_of(output, case)
        outputs[output.name] = Array(dtype, shape, bits.reshape(shape))
    return Observation(run.name, "ok", outputs, key=("kernel", "specialisation"))


def observe(
    spec: TargetSpec, case: Case, fault: Fault | None = None
) -> tuple[tuple[Run, ...], dict[str, Bits], tuple[Observation, ...]]:
    """Runs, values and observations of a case."""
    runs, values = expand(case), make_values(case)
    seen = [simulate(spec, run, case, values) for run in runs]
    if fault is not None:
        seen = [fault(run, one) for run, one in zip(runs, seen, strict=True)]
    return runs, values, tuple(seen)


def judge_case(
    spec: TargetSpec, case: Case, fault: Fault | None = None, *, interpreted: bool = True
) -> Verdict:
    """The verdict on a case whose kernel has this fault, or none."""
    runs, values, observations = observe(spec, case, fault)
    return judge(spec, case, runs, values, observations, interpreted=interpreted)


def edited(seen: Observation, name: str, change: Callable[[npt.NDArray[Any]], None]) -> Observation:
    """The observation with one output's bits changed in place by ``change``."""
    array = seen.outputs[name]
    bits = array.bits.copy()
    change(bits)
    return replace(seen, outputs={**seen.outputs, name: replace(array, bits=bits)})


def poison_of(run: Run, dtype: str) -> int:
    """The bit pattern of an element that was never written in that run."""
    width = FORMATS[dtype].bits.itemsize
    return int.from_bytes(bytes([POISON_BYTE[run.poison]]) * width, "little")


def planted(index: int, value: str) -> Recipe:
    """Normal values with one plant."""
    return Recipe("normal", mean=0.5, plants=(Plant(index, value),))
