"""Whether a contract owes anything for a case, and how another contract's target is asked it.

Head and base may have come apart: a case of one may lie outside of what the other promises, or ask
for what the other does not take.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fuzz.case import Case, TensorCase
from fuzz.space.layouts import shape_of
from fuzz.spec import ArgSpec, FlagValue, TargetSpec

IMPLIED: dict[str, FlagValue] = {
    "group_size": None,
    "norm_before_gate": True,
    "is_rms_norm": False,
    "weight_offset": 0.0,
    "return_sum": True,
}
"""What a target does that has no flag of this name."""


def covers(spec: TargetSpec, case: Case) -> bool:
    """Whether a case could be drawn for a target of this spec."""
    return not beyond(spec, case)


def beyond(spec: TargetSpec, case: Case) -> str:
    """What of a case no case of this spec can have, in words; empty where it could be one."""
    return next(_beyond(spec, case), "")


def asked(spec: TargetSpec, case: Case) -> Case | str:
    """The case as a target of this spec is asked it: the same test, but for flags that only one of
    two targets has. Why there is none, where the call would do something else."""
    given = {tensor.name for tensor in case.tensors}
    for arg in spec.args:
        if not arg.optional and arg.name not in given:
            return f"it needs {arg.name}"
    taken = {arg.name for arg in spec.args}
    for tensor in case.tensors:
        if tensor.name not in taken:
            return f"it takes no {tensor.name}"
    named = {flag.name for flag in spec.flags}
    for name, value in case.flags.items():
        if name not in named and (name not in IMPLIED or IMPLIED[name] != value):
            return f"it has no {name}={value}"
    flags: dict[str, FlagValue] = {}
    for flag in spec.flags:
        if flag.name in case.flags:
            flags[flag.name] = case.flags[flag.name]
        elif flag.name in IMPLIED:
            flags[flag.name] = IMPLIED[flag.name]
        else:
            return f"it needs {flag.name}"
    if case.launch.config is not None and case.launch.config >= len(spec.launch.configs):
        return f"it has no launch.config={case.launch.config}"
    return case if flags == case.flags else replace(case, flags=flags)


def same_calls(base: TargetSpec, head: TargetSpec) -> bool:
    """Whether every case of base's contract can be asked of head."""
    return (
        {arg.name for arg in base.args} <= {arg.name for arg in head.args}
        and {a.name for a in head.args if not a.optional} <= {arg.name for arg in base.args}
        and {flag.name for flag in base.flags} == {flag.name for flag in head.flags}
        and base.launch.configs == head.launch.configs[: len(base.launch.configs)]
    )


def same_launch(base: TargetSpec, head: TargetSpec, case: Case) -> bool:
    """Whether both targets launch the case alike: a configuration goes by its index alone."""
    index = case.launch.config
    if index is None:
        return True
    return base.launch.configs[index : index + 1] == head.launch.configs[index : index + 1]


def _beyond(spec: TargetSpec, case: Case) -> Iterator[str]:
    taken = asked(spec, case)
    if isinstance(taken, str):
        yield taken
        return
    if case.refusal is not None:
        # What is wrong with such a case is in no space; it is owed a refusal or nothing.
        if all(refusal.name != case.refusal for refusal in spec.refuses):
            yield f"it need not refuse {case.refusal}"
        return
    yield from _beyond_shapes(spec, case)
    args = {arg.name: arg for arg in spec.args}
    for tensor in case.tensors:
        yield from _beyond_arg(args[tensor.name], tensor, case)
    for flag in spec.flags:
        value = taken.flags[flag.name]
        # Group sizes are drawn as divisors of the width, whatever the choices, but for a constant.
        is_drawn = flag.name == "group_size" and (len(flag.choices) > 1 or flag.choices[0] is None)
        if not is_drawn and value not in flag.choices:
            yield f"{flag.name}={value}"
    yield from _beyond_launches(spec, case)
    yield from _beyond_fixes(spec, taken)


def _beyond_shapes(spec: TargetSpec, case: Case) -> Iterator[str]:
    space, rank = spec.space, len(case.shape)
    if rank < space.min_rank:
        yield f"x.ndim={rank}, at least {space.min_rank}"
    if rank > space.max_rank:
        yield f"x.ndim={rank}, at most {space.max_rank}"
    if case.normalized_ndim > space.max_normalized_dims:
        yield f"{case.normalized_ndim} normalized dims, at most {space.max_normalized_dims}"
    if case.n_cols > space.max_cols:
        yield f"n_cols={case.n_cols}, at most {space.max_cols}"
    if case.n_rows == 0 and not space.empty_batch:
        yield "n_rows=0"
    if case.eps < space.min_eps:
        yield f"eps={case.eps:g}, at least {space.min_eps:g}"


def _beyond_arg(arg: ArgSpec, tensor: TensorCase, case: Case) -> Iterator[str]:
    name = tensor.name
    if tensor.shape != shape_of(arg.shape, case.shape, case.normalized_ndim, case.n_groups):
        yield f"{name} of shape {list(tensor.shape)}"
    if tensor.alias_of is not None:
        if tensor.alias_of not in arg.may_alias:
            yield f"{name} in the memory of {tensor.alias_of}"
        return
    if tensor.dtype not in {case.dtype if dtype == "x" else dtype for dtype in arg.dtypes}:
        yield f"{name} of dtype {tensor.dtype}"
    if not arg.strided and not _is_contiguous(tensor):
        yield f"{name} with gaps between its rows"


def _is_contiguous(tensor: TensorCase) -> bool:
    """Whether it is read as one run. Nothing is read through the stride of a dim of size 1."""
    if tensor.n_elements == 0:
        return True
    step = 1
    for size, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if size > 1 and stride != step:
            return False
        step *= size
    return True


def _beyond_launches(spec: TargetSpec, case: Case) -> Iterator[str]:
    space, launch = spec.launch, case.launch
    if launch.fp_fusion is not None and space.fp_fusion and launch.fp_fusion not in space.fp_fusion:
        yield f"fp_fusion={launch.fp_fusion}"
    if launch.config is not None:
        return
    if (launch.block, launch.num_warps) in {(row.block, row.num_warps) for row in space.defaults}:
        return
    if launch.block is not None and launch.block not in space.blocks:
        yield f"block={launch.block}"
    if launch.num_warps is not None and launch.num_warps not in space.num_warps:
        yield f"num_warps={launch.num_warps}"
    if launch.block is not None and space.whole_row and launch.block < case.group_size:
        yield f"block={launch.block} on rows of {case.group_size}"


def _beyond_fixes(spec: TargetSpec, case: Case) -> Iterator[str]:
    """What a target holds at one value: the eps of a kernel that takes none, above all."""
    has: dict[str, FlagValue] = {
        "n_cols": case.n_cols,
        "n_rows": case.n_rows,
        "rank": len(case.shape),
        "normalized_ndim": case.normalized_ndim,
        "dtype": case.dtype,
        "eps": case.eps,
        "block": case.launch.block,
        "num_warps": case.launch.num_warps,
        "fp_fusion": case.launch.fp_fusion,
        "config": case.launch.config,
        **case.flags,
    }
    for name, value in spec.space.fixed:
        if name in has and has[name] != value:
            yield f"{name}={has[name]}, only {value}"
