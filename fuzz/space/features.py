"""The classes that a case falls in, those that must be reachable, and how often each is drawn.

A class is a text ``dimension=value``. It is read off the case, not off the choices that led to
it, so that what is counted is what a kernel sees.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator

from fuzz.case import ITEMSIZE, Case, Launch, TensorCase
from fuzz.relations import RELATIONS
from fuzz.space.budget import Budget
from fuzz.space.layouts import contiguous_dims, layout_classes
from fuzz.space.recipes import EPS, PLANTS, RATIOS, recipes_of
from fuzz.space.refusals import declared_refusals
from fuzz.space.widths import MAX_BORDER, WIDE, block_of, default_launch, is_prime
from fuzz.spec import ArgSpec, LaunchSpace, TargetSpec

_ROW_CLASSES = ((0, 0), (1, 1), (2, 4), (5, 16), (17, 64), (65, 512), (513, 65535))
_MANY_ROWS = ">65535"

# Bytes to which a base address must be aligned for wide loads.
_ALIGNMENT = 16


def features(case: Case, spec: TargetSpec) -> frozenset[str]:
    """The classes of one case; an invalid one is of its refusal's class alone."""
    if case.refusal is not None:
        return frozenset({f"refusal={case.refusal}"})
    found = {
        f"rank={len(case.shape)}",
        f"normalized_ndim={case.normalized_ndim}",
        f"rows={_row_class(case.n_rows)}",
        f"dtype={case.dtype}",
        f"eps={case.eps:g}",
    }
    if case.n_rows > 1 and 1 in case.leading:
        found.add("leading=a dim of size 1")
    found.update(f"n_cols={name}" for name in width_classes(case.n_cols))
    found.update(f"relation={name}" for name in case.relations)
    found.update(_launch_features(case, spec))
    found.update(_flag_features(case, spec))
    for arg in spec.args:
        found.update(_tensor_features(case, arg))
    return frozenset(found)


def coverage(cases: Iterable[Case], spec: TargetSpec) -> Counter[str]:
    """How many of the cases fall in each class."""
    return Counter(name for case in cases for name in features(case, spec))


def declared_features(spec: TargetSpec, budget: Budget) -> frozenset[str]:
    """The classes that the strategies promise to reach; nothing but eps may be fixed."""
    declared = set(_declared_shapes(spec, budget))
    declared.update(_declared_launches(spec, budget))
    declared.update(_declared_flags(spec, budget))
    declared.update(f"relation={name}" for name in RELATIONS)
    declared.update(f"refusal={name}" for name in declared_refusals(spec))
    for arg in spec.args:
        declared.update(_declared_tensor(spec, arg))
    return frozenset(declared)


# --- shapes and widths -----------------------------------------------------------------------


def _row_class(n_rows: int) -> str:
    for low, high in _ROW_CLASSES:
        if low <= n_rows <= high:
            return str(low) if low == high else f"{low}-{high}"
    return _MANY_ROWS


def width_classes(width: int) -> set[str]:
    """What is particular about a number of columns."""
    classes = set()
    if width <= 16:
        classes.add("1-16")
    else:
        nearest = 1 << (width.bit_length() - 1)
        if width == nearest:
            classes.add("power of 2")
        if width in (nearest + 1, 2 * nearest - 1):
            classes.add("power of 2 +-1")
        if width % 16 == 0:
            classes.add("multiple of 16")
        if width % 16 in (1, 15):
            classes.add("multiple of 16 +-1")
        if is_prime(width):
            classes.add("prime")
    if width > WIDE:
        classes.add(f">{WIDE}")
    return classes or {"other"}


def _declared_shapes(spec: TargetSpec, budget: Budget) -> Iterator[str]:
    space = spec.space
    for rank in range(space.min_rank, space.max_rank + 1):
        yield f"rank={rank}"
    for dims in range(1, min(space.max_normalized_dims, space.max_rank) + 1):
        yield f"normalized_ndim={dims}"
    x = spec.arg("x")
    yield from (f"dtype={dtype}" for dtype in (() if x is None else x.dtypes))
    own_eps = space.fix("eps")
    allowed = [eps for eps in EPS.values if eps >= space.min_eps] if own_eps is None else [own_eps]
    yield from (f"eps={eps:g}" for eps in allowed)
    max_cols = min(space.max_cols, budget.max_cols)
    for name, least in (
        ("1-16", 1),
        ("power of 2", 32),
        ("power of 2 +-1", 33),
        ("multiple of 16", 48),
        ("multiple of 16 +-1", 49),
        ("prime", 53),
        ("other", 54),
        (f">{WIDE}", WIDE + 1),
    ):
        if max_cols >= least:
            yield f"n_cols={name}"
    if space.max_rank < 2:
        yield "rows=1"
        return
    yield from (f"rows={_row_class(n)}" for n in (1, 2, 5, 17, 65) if n <= budget.max_programs)
    if space.empty_batch:
        yield "rows=0"
    if budget.max_programs > 65535:
        yield f"rows={_MANY_ROWS}"
    if space.max_rank > 2:
        yield "leading=a dim of size 1"


# --- launches and flags ----------------------------------------------------------------------


def _width_of(case: Case) -> int:
    """Columns that one program reduces over."""
    return case.group_size


def _launch_features(case: Case, spec: TargetSpec) -> Iterator[str]:
    launch, space = case.launch, spec.launch
    if launch.config is not None:
        yield f"config={launch.config}"
    if launch.fp_fusion is not None:
        yield f"fp_fusion={launch.fp_fusion}"
    if launch.num_warps is not None:
        yield f"num_warps={launch.num_warps}"
    if launch.block is not None:
        row = default_launch(space, _width_of(case), ITEMSIZE[case.dtype])
        usual = row is not None and (row.block, row.num_warps) == (launch.block, launch.num_warps)
        yield "launch=default" if usual else "launch=pinned"
        if launch.block in space.blocks:
            yield f"block={launch.block}"
    block = block_of(launch, space)
    for times, step in _borders():
        if block is not None and _width_of(case) == times * block + step:
            yield _border_name(times, step)


def _borders() -> Iterator[tuple[int, int]]:
    return ((times, step) for times in range(1, MAX_BORDER + 1) for step in (-1, 0, 1))


def _border_name(times: int, step: int) -> str:
    return f"border={times}*block{step:+d}"


def _declared_launches(spec: TargetSpec, budget: Budget) -> Iterator[str]:
    space = spec.launch
    max_cols = min(spec.space.max_cols, budget.max_cols)
    yield from (f"config={index}" for index in range(len(space.configs)))
    yield from (f"fp_fusion={choice}" for choice in space.fp_fusion)
    if not space.configs and (space.blocks or not space.defaults):
        yield from (f"num_warps={warps}" for warps in space.num_warps)
    if space.defaults and not space.configs:
        yield "launch=default"
        for row in space.defaults:
            if default_launch(space, min(row.max_cols, max_cols), row.itemsize) == row:
                yield f"num_warps={row.num_warps}"
    if space.blocks and not space.configs:
        yield "launch=pinned"
        blocks = sorted(space.blocks)
        for index, block in enumerate(blocks):
            # A whole row takes one of the two smallest blocks that hold it.
            if not space.whole_row or index < 2 or blocks[index - 2] < max_cols:
                yield f"block={block}"
    for times, step in _borders():
        if any(0 < times * block + step <= max_cols for block in _bordered(space, times, step)):
            yield _border_name(times, step)


def _bordered(space: LaunchSpace, times: int, step: int) -> Iterator[int]:
    """The blocks that a row of ``times * block + step`` columns can be launched with."""
    if space.configs:
        for index in range(len(space.configs)):
            block = block_of(Launch(config=index), space)
            if block is not None:
                yield block
        return
    if not space.whole_row or (times, step) in ((1, -1), (1, 0)):
        yield from space.blocks
    for row in space.defaults:
        usual = default_launch(space, times * row.block + step, row.itemsize)
        if usual is not None and usual.block == row.block:
            yield row.block


def _flag_features(case: Case, spec: TargetSpec) -> Iterator[str]:
    for name, value in case.flags.items():
        if name != "group_size":
            yield f"{name}={value}"
            continue
        yield from (f"group_size={text}" for text in _group_classes(case, spec))


def _group_classes(case: Case, spec: TargetSpec) -> set[str]:
    size = case.flags["group_size"]
    if size is None:
        return {"None"}
    width = case.group_size
    classes = set()
    if width == 1:
        classes.add("1")
    if width == case.n_cols:
        classes.add("n_cols")
    else:
        if is_prime(width):
            classes.add("prime")
        if width > 1 and width & (width - 1) == 0:
            classes.add("power of 2")
    block = block_of(case.launch, spec.launch)
    if block is not None and width > block:
        classes.add("larger than block")
    return classes or {"other"}


def _declared_flags(spec: TargetSpec, budget: Budget) -> Iterator[str]:
    space = spec.launch
    for flag in spec.flags:
        if flag.name != "group_size":
            yield from (f"{flag.name}={choice}" for choice in flag.choices)
            continue
        if len(flag.choices) == 1 and flag.choices[0] is not None:
            continue
        for name in ("None", "1", "n_cols", "prime", "power of 2", "other"):
            yield f"group_size={name}"
        blocks = [block for block in space.blocks if not space.whole_row]
        if any(block < min(spec.space.max_cols, budget.max_cols) for block in blocks):
            yield "group_size=larger than block"


# --- tensors ---------------------------------------------------------------------------------


def _tensor_features(case: Case, arg: ArgSpec) -> Iterator[str]:
    name, tensor = arg.name, case.tensor(arg.name)
    if tensor is None:
        yield f"{name}=absent"
        return
    if arg.optional:
        yield f"{name}=given"
    if len(arg.dtypes) > 1:
        yield f"{name}.dtype={tensor.dtype}"
        if tensor.dtype != case.dtype:
            yield f"{name}.dtype=other than x"
    if tensor.alias_of is not None:
        yield f"{name}=alias of {tensor.alias_of}"
        return
    if arg.strided:
        n_contiguous = contiguous_dims(arg.shape, case.normalized_ndim)
        classes = layout_classes(tensor, n_contiguous)
        yield from (f"{name}.layout={text}" for text in classes)
    yield f"{name}.base={_base_class(tensor)}"
    if tensor.values is not None:
        yield f"{name}.family={tensor.values.family}"
        yield from _value_features(case, tensor)


def _base_class(tensor: TensorCase) -> str:
    if tensor.offset == 0:
        return "start"
    misaligned = tensor.offset * tensor.itemsize % _ALIGNMENT
    return "misaligned" if misaligned else "aligned offset"


def _value_features(case: Case, tensor: TensorCase) -> Iterator[str]:
    recipe = tensor.values
    assert recipe is not None
    if recipe.family == "normal" and recipe.mean and recipe.spread:
        ratio = abs(recipe.mean) / recipe.spread
        for known in RATIOS:
            if math.isclose(ratio, known, rel_tol=1e-6):
                yield f"{tensor.name}.mean/std={known:g}"
    if recipe.plants:
        yield f"{tensor.name}=planted"
    for plant in recipe.plants:
        column = plant.index % case.n_cols
        place = {0: "first", case.n_cols - 1: "last"}.get(column, "inner")
        yield f"plant={plant.value}"
        yield f"plant.column={place}"


def _declared_tensor(spec: TargetSpec, arg: ArgSpec) -> Iterator[str]:
    name = arg.name
    if arg.optional:
        yield f"{name}=absent"
        yield f"{name}=given"
    if len(arg.dtypes) > 1:
        x = spec.arg("x")
        own = () if x is None or "x" not in arg.dtypes else x.dtypes
        dtypes = {*own, *arg.dtypes} - {"x"}
        yield from (f"{name}.dtype={dtype}" for dtype in dtypes)
        if name != "x":
            yield f"{name}.dtype=other than x"
    yield from (f"{name}=alias of {other}" for other in arg.may_alias)
    yield from (f"{name}.base={text}" for text in ("start", "misaligned", "aligned offset"))
    if arg.strided:
        yield from (f"{name}.layout={text}" for text in _declared_layouts(spec, arg))
    if arg.role in ("in", "inout"):
        for recipes in recipes_of(arg).values:
            yield f"{name}.family={recipes.family}"
            yield from (f"{name}.mean/std={ratio:g}" for ratio in recipes.ratios)
        yield f"{name}=planted"
        yield from (f"plant={text}" for text in PLANTS)
        yield from (f"plant.column={text}" for text in ("first", "last", "inner"))


def _declared_layouts(spec: TargetSpec, arg: ArgSpec) -> Iterator[str]:
    yield "contiguous"
    if arg.shape in ("full", "rows_keepdim", "cols"):
        yield "column_stride"
    n_leading = spec.space.max_rank - 1 if arg.shape in ("full", "rows", "rows_keepdim") else 0
    if n_leading > 0:
        yield from ("row_gap", "row_stride_odd")
        if arg.shape == "full":
            # Gaps are made for rows of several columns; one column and a gap are none of 16.
            yield "row_stride_16"
        if arg.role == "in":
            yield "expanded"
    if n_leading > 1:
        yield from ("permuted", "outer_gap")
