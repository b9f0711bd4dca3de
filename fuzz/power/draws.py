"""The cases that each judge gets: the campaign's own, the fixed list, uniform draws."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from fuzz.case import ITEMSIZE, Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.jobs.plan import BATCH, Plan, draw_limits
from fuzz.relations import RELATIONS
from fuzz.space.budget import USUAL_SHARE, Budget
from fuzz.space.choices import Chooser
from fuzz.space.layouts import shape_of
from fuzz.space.widths import block_of, default_launch, divisors
from fuzz.spec import FlagValue, TargetSpec
from fuzz.strategies import draw_cases

FIXED_WIDTHS = (128, 256, 512, 1024, 2048, 4096)
FIXED_ROWS = 16
"""Many programs, few enough for the interpreter."""

MAX_ROWS = 16
"""Of a uniform draw."""

EPS = 1e-5
"""torch's default."""

RANDN = Recipe("normal")


def campaign_cases(spec: TargetSpec, device: str, *, seed: int, count: int) -> Iterator[Case]:
    """The cases of ``ln-fuzz run --seed SEED`` for one target, in its order."""
    budget, frames = draw_limits(device, seed)
    plan = Plan((spec,), seed=seed, cases=count, batch=BATCH[device])
    while (batch := plan.next()) is not None:
        yield from draw_cases(
            spec, seed=batch.seed, count=batch.count, budget=budget, frames=frames
        )


def fixed_list(spec: TargetSpec, device: str, *, seed: int, count: int) -> Iterator[Case]:
    """The list that most tests of kernels have: powers of 2, contiguous, randn, each dtype.

    Every tensor that the kernel takes is given, every flag has its default.
    """
    flags = {flag.name: _default(flag.choices) for flag in spec.flags}
    inputs = tuple(arg.name for arg in spec.args if arg.role in ("in", "inout"))
    widest = min(spec.space.max_cols, _widest(spec, max(FIXED_WIDTHS)))
    cases = (
        _plain_case(spec, FIXED_ROWS, n_cols, dtype, flags, inputs, seed)
        for n_cols in FIXED_WIDTHS
        if n_cols <= widest and n_cols % _group_size(flags, n_cols) == 0
        for dtype in _dtypes(spec)
    )
    yield from (case for case, _ in zip(cases, range(count), strict=False))


def uniform_cases(spec: TargetSpec, device: str, *, seed: int, count: int) -> Iterator[Case]:
    """Uniformly drawn rows, columns, dtypes and flags of contiguous, normal tensors.

    As large as the campaign's usual cases, with its number of metamorphic relations.
    """
    budget, _ = draw_limits(device, seed)
    for number in range(count):
        text = f"uniform/{spec.name}/{seed}/{number}"
        chooser = Chooser(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "big"))
        yield _uniform_case(spec, budget, chooser)


CASES = {"campaign": campaign_cases, "fixed": fixed_list, "uniform": uniform_cases}
"""Sources of cases by name. ``count`` is the most they give."""


def _uniform_case(spec: TargetSpec, budget: Budget, chooser: Chooser) -> Case:
    dtype = chooser.any_of(_dtypes(spec))
    n_rows = chooser.between(1, MAX_ROWS)
    flags: dict[str, FlagValue] = {f.name: chooser.any_of(f.choices) for f in spec.flags}
    fixed_group = flags.get("group_size")
    step = fixed_group if isinstance(fixed_group, int) else 1
    most = min(
        spec.space.max_cols,
        budget.max_cols,
        budget.max_elements // USUAL_SHARE // n_rows,
        _widest(spec, budget.max_steps // n_rows),
    )
    n_cols = step * chooser.between(1, max(most // step, 1))
    if flags.get("group_size", 0) is None:
        sizes = [d for d in divisors(n_cols) if n_rows * (n_cols // d) <= budget.max_programs]
        flags["group_size"] = chooser.any_of((None, *sizes))
    given = tuple(a.name for a in spec.args if not a.optional or chooser.chance(0.5))
    relations = tuple(RELATIONS)
    if not budget.all_relations:
        others = [name for name in RELATIONS if name != "poisoned"]
        relations = ("poisoned", chooser.any_of(others))
    seed = chooser.below(1 << 32)
    return _plain_case(spec, n_rows, n_cols, dtype, flags, given, seed, relations)


def _plain_case(
    spec: TargetSpec,
    n_rows: int,
    n_cols: int,
    dtype: str,
    flags: dict[str, FlagValue],
    given: tuple[str, ...],
    seed: int,
    relations: tuple[str, ...] = (),
) -> Case:
    """Contiguous tensors of two dims, of one dtype where the target allows it; normal values."""
    rank = min(max(spec.space.min_rank, 2), spec.space.max_rank)
    rows = (*[1] * (rank - 2), n_rows) if rank > 1 else ()
    shape = (*rows, n_cols)
    width = _group_size(flags, n_cols)
    tensors = []
    for arg in spec.args:
        if arg.name not in given:
            continue
        own = shape_of(arg.shape, shape, 1, n_cols // width)
        allowed = [dtype if d == "x" else d for d in arg.dtypes]
        tensors.append(
            TensorCase(
                arg.name,
                dtype if dtype in allowed else allowed[0],
                own,
                contiguous_strides(own),
                values=None if arg.role == "out" else RANDN,
            )
        )
    eps = spec.space.fix("eps")
    return Case(
        target=spec.name,
        shape=shape,
        normalized_ndim=1,
        tensors=tuple(tensors),
        flags=flags,
        eps=max(EPS, spec.space.min_eps) if not isinstance(eps, int | float) else float(eps),
        launch=_usual_launch(spec, width, dtype),
        seed=seed,
        relations=relations,
    )


def _usual_launch(spec: TargetSpec, width: int, dtype: str) -> Launch:
    """The wrapper's own launch; where it has none, the smallest block that holds the row."""
    space = spec.launch
    fusion = space.fp_fusion[0] if space.fp_fusion else None
    row = default_launch(space, width, ITEMSIZE[dtype])
    if row is not None:
        return Launch(row.block, row.num_warps, fusion)
    num_warps = space.num_warps[0] if space.num_warps else None
    if space.configs:
        configs = range(len(space.configs))
        blocks = {i: block_of(Launch(config=i), space) for i in configs}
        return Launch(fp_fusion=fusion, config=min(configs, key=lambda i: _fit(blocks[i], width)))
    block = min(space.blocks, key=lambda b: _fit(b, width)) if space.blocks else None
    return Launch(block, num_warps, fusion)


def _fit(block: int | None, width: int) -> tuple[bool, int]:
    """Sorts blocks: those that hold the row first, the smallest of them, else the largest."""
    if block is None:
        return True, 0
    return (False, block) if block >= width else (True, -block)


def _widest(spec: TargetSpec, steps: int) -> int:
    """The widest row that the largest block walks in so many steps, or in one where it must."""
    space = spec.launch
    blocks = [*space.blocks, *(row.block for row in space.defaults)]
    for index in range(len(space.configs)):
        blocks.append(block_of(Launch(config=index), space) or 0)
    if not any(blocks):
        return spec.space.max_cols
    return max(blocks) * (1 if space.whole_row else steps)


def _dtypes(spec: TargetSpec) -> tuple[str, ...]:
    x = spec.arg("x")
    assert x is not None, "every target has x"
    return x.dtypes


def _default(choices: tuple[FlagValue, ...]) -> FlagValue:
    return None if None in choices else choices[0]


def _group_size(flags: dict[str, FlagValue], n_cols: int) -> int:
    size = flags.get("group_size")
    return size if isinstance(size, int) else n_cols
