"""Valid cases of one target within one budget, choice by choice."""

from __future__ import annotations

from dataclasses import replace

from fuzz.case import Case, TensorCase, contiguous_strides
from fuzz.relations import RELATIONS
from fuzz.space.budget import USUAL_SHARE, Budget
from fuzz.space.choices import Chooser, Table
from fuzz.space.layouts import (
    DEEP,
    contiguous_dims,
    draw_layout,
    draw_leading,
    draw_normalized,
    shape_of,
)
from fuzz.space.recipes import EPS, fixed_recipes, plant, recipes_of
from fuzz.space.widths import Width, WidthPlan
from fuzz.spec import ArgSpec, FlagValue, TargetSpec

_RANKS = {1: 7, 2: 31, 3: 29, 4: 17, 5: 10, 6: 6}
_NORMALIZED_DIMS = {1: 4, 2: 3, 3: 3}
_RARE = 1

_ROWS = Table((10, (1, 1)), (42, (2, 4)), (34, (5, 16)), (11, (17, 64)), (3, (65, 512)))
# CUDA caps all but the first dimension of a grid at 65535. Some are lost to leading dims.
MANY_ROWS = (66_000, 70_000)
_MANY_ROWS_SHARE = 0.004
# Of the shapes that have so many leading dims: none of them of one element.
_DEEP_SHARE = 0.8
_EMPTY_SHARE = 0.04
_EMPTY_ROWS = 6

_OPTIONAL_SHARE = 0.65
_ALIAS_SHARE = 0.4
_DTYPES = Table((50, "x"), (25, "float32"), (25, "any"))

_MORE_RELATIONS = Table((25, 0), (50, 1), (25, 2))
_NEED_ROWS = ("row_alone", "permuted", "drowned")


class CasePlan:
    """Draws the valid cases of one target within one budget."""

    def __init__(self, spec: TargetSpec, budget: Budget, *, plants: bool = True) -> None:
        self._spec = spec
        self._budget = budget
        self._plants = plants
        self._fixed = dict(spec.space.fixed)
        self._widths = WidthPlan(spec, budget)
        self._dims = self._allowed_dims()
        # Outputs last: what they may share memory with must be there.
        self._in_order = sorted(spec.args, key=lambda arg: arg.role == "out")
        self._recipes = {arg.name: recipes_of(arg) for arg in spec.args}
        if "family" in self._fixed:
            self._recipes["x"] = fixed_recipes(str(self._fixed["family"]))
        self._eps = self._allowed_eps()
        x = spec.arg("x")
        assert x is not None
        self._dtypes = x.dtypes
        if "dtype" in self._fixed:
            self._dtypes = (str(self._fixed["dtype"]),)

    def _allowed_dims(self) -> Table[tuple[int, int]]:
        """(normalized_ndim, rank) pairs."""
        space, fixed = self._spec.space, self._fixed
        return Table(
            *(
                (_NORMALIZED_DIMS.get(dims, _RARE) * _RANKS.get(rank, _RARE), (dims, rank))
                for dims in range(1, space.max_normalized_dims + 1)
                for rank in range(max(space.min_rank, dims), space.max_rank + 1)
                if fixed.get("normalized_ndim", dims) == dims
                and fixed.get("rank", rank) == rank
                and (rank > dims or fixed.get("n_rows", 1) == 1)
            )
        )

    def _allowed_eps(self) -> Table[float]:
        fixed, least = self._fixed.get("eps"), self._spec.space.min_eps
        if fixed is not None:
            return Table((1, float(fixed)))
        allowed = [entry for entry in EPS.entries if entry[1] >= least]
        return Table(*allowed) if allowed else Table((1, least))

    def draw(self, chooser: Chooser, *, many_rows: bool = False) -> Case:
        """One case; of more rows than CUDA's other grid dimensions hold, if the budget has them."""
        dtype = chooser.any_of(self._dtypes)
        normalized_ndim, rank = chooser.draw(self._dims)
        leading, width = self._draw_rows(
            chooser, dtype, rank - normalized_ndim, 1.0 if many_rows else _MANY_ROWS_SHARE
        )
        shape = leading + draw_normalized(chooser, normalized_ndim, width.n_cols)
        case = Case(
            target=self._spec.name,
            shape=shape,
            normalized_ndim=normalized_ndim,
            tensors=self._draw_tensors(chooser, shape, normalized_ndim, width, dtype),
            flags=self._draw_flags(chooser, width),
            eps=chooser.draw(self._eps),
            launch=width.launch,
            seed=chooser.below(1 << 32),
        )
        return replace(case, relations=self._draw_relations(chooser, case))

    def redraw_values(self, chooser: Chooser, case: Case) -> Case:
        """The same case with values, eps, seed and relations drawn anew."""
        tensors = []
        for tensor in case.tensors:
            if tensor.values is not None:
                recipe = chooser.draw(self._recipes[tensor.name]).draw(chooser)
                tensor = replace(tensor, values=recipe)
            tensors.append(tensor)
        drawn = tuple(tensors)
        case = replace(
            case,
            tensors=plant(chooser, drawn, case.n_cols) if self._plants else drawn,
            eps=chooser.draw(self._eps),
            seed=chooser.below(1 << 32),
        )
        return replace(case, relations=self._draw_relations(chooser, case))

    # --- shapes ----------------------------------------------------------------------------------

    def _draw_rows(
        self, chooser: Chooser, dtype: str, n_dims: int, many_rows_share: float
    ) -> tuple[tuple[int, ...], Width]:
        """The leading dims, and the rows' width."""
        budget, fixed = self._budget, self._fixed
        if "n_rows" in fixed:
            n_rows = fixed["n_rows"]
            assert isinstance(n_rows, int)
            width = self._widths.draw(chooser, dtype, rows=n_rows)
            if n_rows == 0:
                return _emptied(chooser, n_dims), width
            return draw_leading(chooser, n_dims, n_rows, exactly=True), width
        if n_dims == 0:
            return (), self._widths.draw(chooser, dtype)
        if (
            budget.max_programs >= MANY_ROWS[1]
            and not {"n_cols", "group_size"} & fixed.keys()
            and chooser.chance(many_rows_share)
        ):
            n_rows = chooser.between(*MANY_ROWS)
            width = self._widths.draw(chooser, dtype, rows=n_rows)
            return draw_leading(chooser, n_dims, n_rows), width
        width = self._widths.draw(chooser, dtype)
        if self._spec.space.empty_batch and chooser.chance(_EMPTY_SHARE):
            return _emptied(chooser, n_dims), width
        usual = budget.max_elements // USUAL_SHARE
        elements = budget.max_elements if chooser.below(USUAL_SHARE) == 0 else usual
        most = max(
            min(
                elements // width.n_cols,
                budget.max_programs // width.n_groups,
                budget.max_steps // width.steps,
            ),
            1,
        )
        if n_dims >= DEEP and most >= 2**n_dims and chooser.chance(_DEEP_SHARE):
            return (2,) * n_dims, width
        low, high = chooser.draw(_ROWS)
        n_rows = chooser.between(min(low, most), min(high, most))
        return draw_leading(chooser, n_dims, n_rows), width

    # --- tensors ---------------------------------------------------------------------------------

    def _draw_tensors(
        self,
        chooser: Chooser,
        shape: tuple[int, ...],
        normalized_ndim: int,
        width: Width,
        x_dtype: str,
    ) -> tuple[TensorCase, ...]:
        drawn: dict[str, TensorCase] = {}
        plain = self._fixed.get("layout") == "contiguous"
        for arg in self._in_order:
            if arg.optional and not chooser.chance(_OPTIONAL_SHARE):
                continue
            dtype = x_dtype if arg.name == "x" else _draw_dtype(chooser, arg, x_dtype)
            own_shape = shape_of(arg.shape, shape, normalized_ndim, width.n_groups)
            shared = _draw_alias(chooser, arg, dtype, own_shape, drawn)
            if shared is not None:
                drawn[arg.name] = replace(shared, name=arg.name, values=None, alias_of=shared.name)
                continue
            strides, offset = draw_layout(
                chooser,
                own_shape,
                contiguous_dims(arg.shape, normalized_ndim),
                strided=arg.strided and not plain,
                may_expand=arg.role == "in",
            )
            recipe = None
            if arg.role in ("in", "inout"):
                recipe = chooser.draw(self._recipes[arg.name]).draw(chooser)
            drawn[arg.name] = TensorCase(
                arg.name, dtype, own_shape, strides, 0 if plain else offset, recipe
            )
        tensors = tuple(drawn[arg.name] for arg in self._spec.args if arg.name in drawn)
        return plant(chooser, tensors, width.n_cols) if self._plants else tensors

    # --- the rest --------------------------------------------------------------------------------

    def _draw_flags(self, chooser: Chooser, width: Width) -> dict[str, FlagValue]:
        flags: dict[str, FlagValue] = {}
        for flag in self._spec.flags:
            if flag.name == "group_size":
                flags[flag.name] = width.group_size
            elif flag.name in self._fixed:
                flags[flag.name] = self._fixed[flag.name]
            else:
                flags[flag.name] = chooser.any_of(flag.choices)
        return flags

    def _draw_relations(self, chooser: Chooser, case: Case) -> tuple[str, ...]:
        if "relation" in self._fixed:
            return tuple(dict.fromkeys(("poisoned", str(self._fixed["relation"]))))
        able = [name for name in RELATIONS if _applies(name, case)]
        if self._budget.all_relations:
            return tuple(able)
        able.remove("poisoned")
        # It always applies, and finds least: where others do, they come first.
        if len(able) > 1 and chooser.chance(0.5):
            able.remove("repeat")
        more = chooser.shuffled(able)[: chooser.draw(_MORE_RELATIONS)]
        return ("poisoned", *more)


def _draw_alias(
    chooser: Chooser,
    arg: ArgSpec,
    dtype: str,
    shape: tuple[int, ...],
    drawn: dict[str, TensorCase],
) -> TensorCase | None:
    """The tensor whose memory this output shares, or None."""
    if not arg.may_alias or not chooser.chance(_ALIAS_SHARE):
        return None
    taken = {t.alias_of for t in drawn.values()}
    able = [
        t
        for t in (drawn.get(name) for name in arg.may_alias)
        if t is not None
        and t.name not in taken
        and (t.dtype, t.shape) == (dtype, shape)
        and 0 not in t.strides
    ]
    return chooser.any_of(able) if able else None


def _applies(relation: str, case: Case) -> bool:
    """Whether the relation gives a run: asked of each case, so without building the run."""
    if relation in _NEED_ROWS:
        return case.n_rows > 1
    if relation == "contiguous":
        return any(t.offset or t.strides != contiguous_strides(t.shape) for t in case.tensors)
    return True


def _emptied(chooser: Chooser, n_dims: int) -> tuple[int, ...]:
    dims = list(draw_leading(chooser, n_dims, _EMPTY_ROWS))
    dims[chooser.below(n_dims)] = 0
    return tuple(dims)


def _draw_dtype(chooser: Chooser, arg: ArgSpec, x_dtype: str) -> str:
    allowed = [x_dtype if dtype == "x" else dtype for dtype in arg.dtypes]
    if len(allowed) == 1:
        return allowed[0]
    choice = chooser.draw(_DTYPES)
    choice = x_dtype if choice == "x" else choice
    return choice if choice in allowed else chooser.any_of(allowed)
