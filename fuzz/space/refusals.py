"""Invalid cases: what targets declare to refuse, each made from a valid case by one change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from fuzz.case import Case, TensorCase, contiguous_strides
from fuzz.spec import TargetSpec

Spoil = Callable[[Case], Case | None]
"""Makes a valid case invalid; None where this case offers no way to."""


def n_cols_zero(case: Case) -> Case | None:
    """The last normalized dim is 0, for every tensor alike."""
    shape = (*case.shape[:-1], 0)
    rank = len(shape)

    def emptied(tensor: TensorCase) -> TensorCase:
        if tensor.shape == case.shape:
            return _shaped(tensor, shape)
        if tensor.shape == case.normalized:
            return _shaped(tensor, shape[rank - case.normalized_ndim :])
        return tensor

    return replace(case, shape=shape, tensors=tuple(emptied(t) for t in case.tensors))


def x_zero_dim(case: Case) -> Case | None:
    """x has no dims at all."""
    return _with(case, "x", lambda t: _shaped(t, ()))


def x_float64(case: Case) -> Case | None:
    """x is float64, and so is every output that must have its dtype."""
    return _x_of(case, "float64")


def x_int64(case: Case) -> Case | None:
    """x is int64, and so is every output that must have its dtype."""
    return _x_of(case, "int64")


def x_complex64(case: Case) -> Case | None:
    """x is complex64, and so is every output that must have its dtype."""
    return _x_of(case, "complex64")


def x_column_stride(case: Case) -> Case | None:
    """Every second column of a wider x."""
    if case.n_cols < 2 or case.n_rows == 0:
        return None
    strides = tuple(2 * s for s in contiguous_strides(case.shape))
    return _with(case, "x", lambda t: replace(t, strides=strides))


def weight_shape(case: Case) -> Case | None:
    """weight has one column too many."""
    return _with(case, "weight", _wider)


def bias_shape(case: Case) -> Case | None:
    """bias has one column too many."""
    return _with(case, "bias", _wider)


def input_bias_shape(case: Case) -> Case | None:
    """input_bias has one column too many."""
    return _with(case, "input_bias", _wider)


def z_shape(case: Case) -> Case | None:
    """z has one column too many."""
    return _with(case, "z", _wider)


def residual_shape(case: Case) -> Case | None:
    """residual has one column too many."""
    return _with(case, "residual", _wider)


def out_shape(case: Case) -> Case | None:
    """out has one column too many."""
    return _with(case, "out", _wider)


def normalized_shape_mismatch(case: Case) -> Case | None:
    """x has one column more than the normalized shape says; all else goes with that shape."""
    return _with(case, "x", _wider)


def weight_int64(case: Case) -> Case | None:
    """weight is int64."""
    return _with(case, "weight", lambda t: replace(t, dtype="int64"))


def out_dtype(case: Case) -> Case | None:
    """out has another float dtype than x."""
    dtype = "float16" if case.dtype == "float32" else "float32"
    return _with(case, "out", lambda t: replace(t, dtype=dtype))


def out_expanded(case: Case) -> Case | None:
    """All rows of out are the same memory."""
    if case.n_rows < 2:
        return None
    strides = (*[0] * len(case.leading), *contiguous_strides(case.normalized))
    return _with(case, "out", lambda t: replace(t, strides=strides))


def group_size_not_divisor(case: Case) -> Case | None:
    """The groups do not fill the row."""
    size = next(n for n in range(2, case.n_cols + 2) if case.n_cols % n)
    return replace(case, flags={**case.flags, "group_size": size})


def group_size_zero(case: Case) -> Case | None:
    """Groups of no columns."""
    return replace(case, flags={**case.flags, "group_size": 0})


def eps_negative(case: Case) -> Case | None:
    """eps is below 0."""
    return replace(case, eps=-1e-5)


REFUSALS: dict[str, Spoil] = {
    spoil.__name__: spoil
    for spoil in (
        n_cols_zero,
        x_zero_dim,
        x_float64,
        x_int64,
        x_complex64,
        x_column_stride,
        weight_shape,
        bias_shape,
        input_bias_shape,
        z_shape,
        residual_shape,
        out_shape,
        normalized_shape_mismatch,
        weight_int64,
        out_dtype,
        out_expanded,
        group_size_not_divisor,
        group_size_zero,
        eps_negative,
    )
}
"""Classes of invalid cases by the name that a target declares."""

# What a user has fixed is fixed in invalid cases too.
_CHANGES: dict[str, tuple[str, ...]] = {
    "n_cols_zero": ("n_cols",),
    "x_zero_dim": ("rank", "n_rows", "n_cols"),
    "x_float64": ("dtype",),
    "x_int64": ("dtype",),
    "x_complex64": ("dtype",),
    "x_column_stride": ("layout",),
    "out_expanded": ("layout",),
    "normalized_shape_mismatch": ("n_cols",),
    "group_size_not_divisor": ("group_size",),
    "group_size_zero": ("group_size",),
    "eps_negative": ("eps",),
}


def declared_refusals(spec: TargetSpec) -> tuple[str, ...]:
    """The classes of invalid cases drawn for a target, those left out that change a fixed dim.

    Raises: ValueError for a declared refusal that is not known here.
    """
    for refusal in spec.refuses:
        if refusal.name not in REFUSALS:
            raise ValueError(
                f"refusal={refusal.name!r}, must be one of {', '.join(REFUSALS)} [{spec.name}]"
            )
    fixed = dict(spec.space.fixed)
    names = [r.name for r in spec.refuses if not fixed.keys() & set(_CHANGES.get(r.name, ()))]
    if "refusal" in fixed:
        names = [name for name in names if name == fixed["refusal"]]
    return tuple(names)


def _with(case: Case, name: str, change: Callable[[TensorCase], TensorCase]) -> Case | None:
    """The case with one tensor changed, None where it is absent or shares another's memory."""
    tensor = case.tensor(name)
    if tensor is None or any(name in (t.alias_of, t.name) and t.alias_of for t in case.tensors):
        return None
    return case.replace_tensor(change(tensor))


def _x_of(case: Case, dtype: str) -> Case | None:
    before = case.dtype
    spoiled = _with(case, "x", lambda t: replace(t, dtype=dtype))
    if spoiled is None:
        return None
    tensors = (
        replace(t, dtype=dtype) if t.values is None and t.dtype == before else t
        for t in spoiled.tensors
    )
    return replace(spoiled, tensors=tuple(tensors))


def _wider(tensor: TensorCase) -> TensorCase:
    return _shaped(tensor, (*tensor.shape[:-1], tensor.shape[-1] + 1))


def _shaped(tensor: TensorCase, shape: tuple[int, ...]) -> TensorCase:
    return replace(tensor, shape=shape, strides=contiguous_strides(shape), offset=0)
