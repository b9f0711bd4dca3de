"""Shape-aware shrinking: from a failing case to the smallest that fails the same way.

A generic shrinker minimises bytes; this one knows what a kernel engineer finds simple: few rows,
a round width, no optional tensors, contiguous memory, plain values. It proposes cases in that
order and keeps each one that still fails. It judges nothing itself: the caller says what "fails
the same way" means.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from fuzz.case import Case, Launch, Recipe, TensorCase, contiguous_strides
from fuzz.space.resize import merged, resized, tightened, without_dim
from fuzz.spec import FlagValue, TargetSpec

Fails = Callable[[Case], bool]

SIMPLE_SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 16, 17, 33, 64, 65, 128, 129, 257)
"""Sizes worth trying before any search: tiny ones, powers of 2 and their successors."""

RESIDUE = 48
"""Search steps keep the size's residue modulo 48 = 16 * 3: faults often sit on a divisibility."""

LONGEST_STEP = 16
"""The longest step down that is looked for: vectors are 16 bytes, and periods are short."""

PLAIN_EPS = 1e-5

PLAIN_RECIPES = (Recipe("integers"), Recipe("normal"))
"""The simplest first: values whose sums are exact, then values that are easy to picture."""

MAX_STEPS = 64
"""Column blocks of a case, over all its programs, up to which smaller blocks are tried: beyond
that a case takes seconds in the interpreter."""


def shrink(
    case: Case, spec: TargetSpec, fails: Fails, *, max_calls: int = 150, seconds: float = 20.0
) -> Case:
    """The smallest case found for which ``fails`` holds; ``case`` itself must fail.

    Stops at a fixpoint, after ``max_calls`` calls of ``fails``, or after ``seconds``. Dimensions
    that the spec fixes stay as they are. An invalid case is already as small as it is drawn and
    comes back as it is.
    """
    if case.refusal is not None:
        return case
    search = _Search(case, spec, fails, max_calls, seconds)
    before = None
    while not search.spent and search.case != before:
        before = search.case
        for simplify in _PASSES:
            simplify(search)
    return search.case


class _Search:
    """The smallest failing case so far. Never asks about the same case twice."""

    def __init__(
        self, case: Case, spec: TargetSpec, fails: Fails, max_calls: int, seconds: float
    ) -> None:
        self.case = case
        self.spec = spec
        self._fails, self._left = fails, max_calls
        self._deadline = time.monotonic() + seconds
        self._known: dict[str, bool] = {case.case_id: True}
        self._fixed = {name for name, _ in spec.space.fixed}
        self._dimensions = _dimensions(case)

    @property
    def spent(self) -> bool:
        """Whether calls or time have run out."""
        return self._left <= 0 or time.monotonic() >= self._deadline

    def is_free(self, *dimensions: str) -> bool:
        """Whether the spec fixes none of these dimensions."""
        return self._fixed.isdisjoint(dimensions)

    def take(self, candidate: Case) -> bool:
        """Go on from this case if it fails too."""
        if not self._fails_too(candidate):
            return False
        self.case = candidate
        return True

    def take_first(self, candidates: Iterable[Case]) -> bool:
        """Go on from the first of these cases that fails too."""
        return any(self.take(candidate) for candidate in candidates)

    def _fails_too(self, case: Case) -> bool:
        if case.case_id not in self._known:
            if self.spent or not self._is_allowed(case):
                return False
            self._left -= 1
            self._known[case.case_id] = self._fails(case)
        return self._known[case.case_id]

    def _is_allowed(self, case: Case) -> bool:
        now = _dimensions(case)
        return len(case.shape) >= self.spec.space.min_rank and all(
            now.get(name) == self._dimensions.get(name) for name in self._fixed
        )


def _dimensions(case: Case) -> dict[str, FlagValue]:
    """What a spec may fix, as far as shrinking changes it."""
    recipe = case.tensor_or_fail("x").values
    return {
        "n_cols": case.n_cols,
        "n_rows": case.n_rows,
        "rank": len(case.shape),
        "normalized_ndim": case.normalized_ndim,
        "eps": case.eps,
        "family": recipe.family if recipe is not None else None,
        "block": case.launch.block,
        "num_warps": case.launch.num_warps,
        "fp_fusion": case.launch.fp_fusion,
        "config": case.launch.config,
        **case.flags,
    }


# --- passes: each makes one kind of thing plain, as far as the case still fails ------------------


def _everything(search: _Search) -> None:
    """One row of plain values in contiguous memory, at once: often nothing but the width matters.

    No values are planted, and flags, launch, eps and seed are plain too.
    """
    case, spec = search.case, search.spec
    tensors = tuple(_apart(t) for t in case.tensors if not _is_optional(t, spec))
    if search.is_free("family"):
        tensors = tuple(_with_recipe(t, PLAIN_RECIPES[0]) for t in tensors)
    flags = {f.name: _choices(f.name, spec)[0] for f in spec.flags if search.is_free(f.name)}
    case = replace(
        case,
        tensors=tensors,
        relations=(),
        flags={**case.flags, **flags},
        eps=_plain_eps(search),
        launch=_plain_launch(search),
        seed=0,
    )
    if len(case.leading) > 1 and search.is_free("rank"):
        case = merged(case, spec)
    if case.n_rows > 1 and search.is_free("n_rows"):
        case = resized(case, spec, (1,) * len(case.leading), case.normalized)
    search.take(case)


def _relations(search: _Search) -> None:
    if search.take(replace(search.case, relations=())):
        return
    for name in search.case.relations:
        kept = tuple(r for r in search.case.relations if r != name)
        search.take(replace(search.case, relations=kept))


def _rows(search: _Search) -> None:
    if len(search.case.leading) > 1:
        search.take(merged(search.case, search.spec))
    for dim in range(len(search.case.leading)):

        def with_size(size: int, dim: int = dim) -> Case:
            case = search.case
            leading = (*case.leading[:dim], size, *case.leading[dim + 1 :])
            return resized(case, search.spec, leading, case.normalized)

        _smallest(search, search.case.leading[dim], with_size)
    for dim in reversed(range(len(search.case.leading))):
        if search.case.leading[dim] == 1 and len(search.case.leading) > 1:
            search.take(without_dim(search.case, search.spec, dim))


def _normalized_dims(search: _Search) -> None:
    case = search.case
    flat = resized(case, search.spec, case.leading, (case.n_cols,))
    if case.normalized_ndim == 1 or search.take(flat):
        return
    for dim in range(case.normalized_ndim):

        def with_size(size: int, dim: int = dim) -> Case:
            now = search.case
            dims = (*now.normalized[:dim], size, *now.normalized[dim + 1 :])
            return resized(now, search.spec, now.leading, dims)

        _smallest(search, case.normalized[dim], with_size)


def _optional_tensors(search: _Search) -> None:
    for tensor in search.case.tensors:
        shared = any(t.alias_of == tensor.name for t in search.case.tensors)
        if _is_optional(tensor, search.spec) and not shared:
            kept = tuple(t for t in search.case.tensors if t.name != tensor.name)
            search.take(replace(search.case, tensors=kept))


def _layouts(search: _Search) -> None:
    case = search.case
    if search.take(replace(case, tensors=tuple(_apart(t) for t in case.tensors))):
        return
    for name in [t.name for t in case.tensors]:
        tensor = search.case.tensor_or_fail(name)
        if tensor.alias_of is not None:
            tensor = replace(tensor, alias_of=None)
            if not search.take(search.case.replace_tensor(tensor)):
                continue
        plain = contiguous_strides(tensor.shape)
        tight, loose = (tightened(tensor, search.case, search.spec, gap=n) for n in (0, 1))
        search.take_first(
            _with_layout(search.case, name, strides, offset)
            for strides, offset in (
                (plain, 0),
                (plain, tensor.offset),
                (tight, 0),
                (loose, 0),
                (tensor.strides, 0),
                (tight, tensor.offset),
                (loose, tensor.offset),
            )
        )


def _flags(search: _Search) -> None:
    for flag in search.spec.flags:
        choices = _choices(flag.name, search.spec)
        present = search.case.flags.get(flag.name)
        simpler = choices[: choices.index(present)] if present in choices else choices[:1]
        search.take_first(
            replace(search.case, flags={**search.case.flags, flag.name: choice})
            for choice in simpler
        )


def _values(search: _Search) -> None:
    tensors = search.case.tensors
    search.take_first(
        replace(search.case, tensors=tuple(_with_recipe(t, recipe, plants=True) for t in tensors))
        for recipe in PLAIN_RECIPES
    )
    for name in [t.name for t in tensors]:
        tensor = search.case.tensor_or_fail(name)
        search.take_first(
            search.case.replace_tensor(_with_recipe(tensor, recipe, plants=True))
            for recipe in _plainer(tensor.values)
        )


def _plants(search: _Search) -> None:
    tensors = search.case.tensors
    bare = tuple(_with_recipe(t, t.values) if t.values is not None else t for t in tensors)
    if search.take(replace(search.case, tensors=bare)):
        return
    for tensor in tensors:
        for plant in () if tensor.values is None else tensor.values.plants:
            now = search.case.tensor_or_fail(tensor.name)
            assert now.values is not None
            kept = tuple(p for p in now.values.plants if p != plant)
            values = replace(now.values, plants=kept)
            search.take(search.case.replace_tensor(replace(now, values=values)))


def _dtypes(search: _Search) -> None:
    """Every tensor in the dtype of x."""
    for name in [t.name for t in search.case.tensors]:
        tensor, arg = search.case.tensor_or_fail(name), search.spec.arg(name)
        shared = any(name in (t.name, t.alias_of) and t.alias_of for t in search.case.tensors)
        dtype = search.case.dtype
        if arg is not None and not shared and ("x" in arg.dtypes or dtype in arg.dtypes):
            search.take(search.case.replace_tensor(replace(tensor, dtype=dtype)))


def _scalars(search: _Search) -> None:
    search.take(replace(search.case, eps=_plain_eps(search)))
    search.take(replace(search.case, seed=0))
    search.take(replace(search.case, launch=_plain_launch(search)))


def _groups(search: _Search) -> None:
    """Fewer groups of the same size."""
    size = search.case.group_size
    if search.case.flags.get("group_size") is None or search.case.normalized_ndim > 1:
        return

    def with_groups(n_groups: int) -> Case:
        return resized(search.case, search.spec, search.case.leading, (n_groups * size,))

    _smallest(search, search.case.n_groups, with_groups)


def _width(search: _Search) -> None:
    """Fewer columns, in as many groups."""
    if search.case.normalized_ndim > 1 or not _width_is_free(search):
        return
    block = search.case.launch.block
    borders = (block - 1, block, block + 1, 2 * block, 2 * block + 1) if block else ()
    _smallest(search, search.case.group_size, lambda n: _with_width(search, n), borders)


def _blocks(search: _Search) -> None:
    """A smaller block; where that is not enough, with the width scaled along: borders move."""
    case, block = search.case, search.case.launch.block
    if block is None:
        return
    for smaller in sorted(b for b in search.spec.launch.blocks if b < block):
        launch = replace(case.launch, block=smaller)
        if _fits(case, smaller, search) and search.take(replace(case, launch=launch)):
            return
    if search.spec.launch.whole_row or case.normalized_ndim > 1 or not _width_is_free(search):
        return
    blocks = case.group_size // block
    for smaller in sorted(b for b in search.spec.launch.blocks if b < block):
        scaled = _with_width(search, case.group_size - (block - smaller) * blocks)
        launch = replace(case.launch, block=smaller)
        if _fits(scaled, smaller, search) and search.take(replace(scaled, launch=launch)):
            return


_PASSES = (
    _everything,
    # What makes each later question cheaper comes first.
    _relations,
    _rows,
    _blocks,
    _optional_tensors,
    _normalized_dims,
    _layouts,
    _flags,
    _values,
    _plants,
    _dtypes,
    _scalars,
    _groups,
    _width,
    _blocks,
)


# --- what is plain -------------------------------------------------------------------------------


def _is_optional(tensor: TensorCase, spec: TargetSpec) -> bool:
    arg = spec.arg(tensor.name)
    return arg is not None and arg.optional


def _apart(tensor: TensorCase) -> TensorCase:
    """The tensor in contiguous memory of its own."""
    return replace(tensor, strides=contiguous_strides(tensor.shape), offset=0, alias_of=None)


def _with_layout(case: Case, name: str, strides: tuple[int, ...], offset: int) -> Case:
    """The case with the layout of one tensor changed, and that of those which share its memory."""
    return replace(
        case,
        tensors=tuple(
            replace(t, strides=strides, offset=offset) if name in (t.name, t.alias_of) else t
            for t in case.tensors
        ),
    )


def _with_recipe(tensor: TensorCase, recipe: Recipe, *, plants: bool = False) -> TensorCase:
    """The tensor with values of another recipe, and with its plants or without."""
    if tensor.values is None:
        return tensor
    kept = tensor.values.plants if plants else ()
    return replace(tensor, values=replace(recipe, plants=kept))


def _plainer(recipe: Recipe | None) -> list[Recipe]:
    """Recipes that are simpler than this one, the simplest first."""
    if recipe is None:
        return []
    own = (
        Recipe("normal", mean=recipe.mean),
        Recipe("normal", mean=recipe.mean, spread=recipe.spread),
        Recipe(recipe.family),
        Recipe(recipe.family, mean=recipe.mean),
    )
    plainer: list[Recipe] = []
    for candidate in (*PLAIN_RECIPES, *own):
        if candidate == replace(recipe, plants=()):
            break
        plainer.append(candidate)
    return plainer


def _choices(name: str, spec: TargetSpec) -> tuple[FlagValue, ...]:
    """A flag's choices, the simplest first. A group size is drawn freely unless it is fixed."""
    flag = spec.flag(name)
    assert flag is not None
    return (None,) if name == "group_size" and None in flag.choices else flag.choices


def _plain_eps(search: _Search) -> float:
    free = search.is_free("eps")
    return max(PLAIN_EPS, search.spec.space.min_eps) if free else search.case.eps


def _plain_launch(search: _Search) -> Launch:
    """The launch with the first of each choice that is no size; an autotuner's first config."""
    launch, space = search.case.launch, search.spec.launch
    first: dict[str, Any] = {
        "num_warps": space.num_warps[0],
        "fp_fusion": space.fp_fusion[0],
        "config": 0,
    }
    plain = {
        name: value
        for name, value in first.items()
        if getattr(launch, name) is not None and search.is_free(name)
    }
    return replace(launch, **plain)


# --- sizes ---------------------------------------------------------------------------------------


def _width_is_free(search: _Search) -> bool:
    """Whether groups may have another size: not where it is a constant of the target."""
    flag = search.spec.flag("group_size")
    return flag is None or None in flag.choices


def _with_width(search: _Search, width: int) -> Case:
    """The same number of groups, each ``width`` wide.

    The block of a kernel that holds a whole row goes with it, where it is no larger than need be.
    """
    case, blocks = search.case, search.spec.launch.blocks
    launch = case.launch
    if search.spec.launch.whole_row and search.is_free("block"):
        fitting = [b for b in sorted(blocks) if b >= case.group_size]
        if fitting and launch.block == fitting[0]:
            launch = replace(launch, block=min(b for b in blocks if b >= width))
    n_groups = case.n_groups
    if case.flags.get("group_size") is not None:
        case = replace(case, flags={**case.flags, "group_size": width})
    case = replace(case, launch=launch)
    return resized(case, search.spec, case.leading, (n_groups * width,))


def _fits(case: Case, block: int, search: _Search) -> bool:
    """Whether a block of this size holds what it must, and walks the rows in bearable time."""
    steps = math.ceil(case.group_size / block)
    if search.spec.launch.whole_row:
        return steps <= 1
    return case.programs * steps <= MAX_STEPS


def _smallest(
    search: _Search, size: int, with_size: Callable[[int], Case], borders: tuple[int, ...] = ()
) -> None:
    """The smallest size that fails: simple ones, a search that keeps residues, then steps down."""
    low = 0
    for simple in sorted({s for s in (*SIMPLE_SIZES, *borders) if 0 < s < size}):
        if search.take(with_size(simple)):
            size = simple
            break
        # A border just below the size says nothing of the sizes in between.
        low = low if simple in borders else simple
    while size - low > RESIDUE:
        middle = (low + size) // 2
        middle += (size - middle) % RESIDUE
        if middle >= size:
            break
        if search.take(with_size(middle)):
            size = middle
        else:
            low = middle
    _step_down(search, size, with_size)


def _step_down(search: _Search, size: int, with_size: Callable[[int], Case]) -> None:
    """Short steps first; a step that helps is taken for as long as it does."""
    step = 1
    while step <= LONGEST_STEP and step < size:
        lower = size
        while lower > step and search.take(with_size(lower - step)):
            lower -= step
        step = step + 1 if lower == size else 1
        size = lower
