"""A case: everything that decides one test, as data.

A case is frozen, JSON-only and self-contained: no arrays, callables or clocks. The same case gives
the same bits in every tensor on every machine. ``case_id`` hashes its canonical JSON, so a case
is named by its content.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import operator
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cattrs
from cattrs.v import format_exception

from fuzz.spec import FlagValue

FORMAT = 1
"""Version of the stored form. A reader refuses any other by name."""

ITEMSIZE: dict[str, int] = {
    "float32": 4,
    "bfloat16": 2,
    "float16": 2,
    # Only invalid cases hold these: targets must refuse them.
    "float64": 8,
    "int64": 8,
    "complex64": 8,
}

JUDGED = ("float32", "bfloat16", "float16")
"""The dtypes of valid cases: those that an fp64 oracle can judge."""


class CaseError(ValueError):
    """A stored case that cannot be read; the message names the field and the rule."""


@dataclass(frozen=True)
class Plant:
    """``value`` (nan, inf, -inf or a float) set by hand at flat logical index ``index``."""

    index: int
    value: str


@dataclass(frozen=True)
class Recipe:
    """How the values of a tensor are made: ``mean + spread * family``, then the plants.

    ``family`` names a generator of :mod:`fuzz.inputs`; the values depend on the case's seed, the
    tensor's name and shape, never on its layout.
    """

    family: str
    mean: float = 0.0
    spread: float = 1.0
    plants: tuple[Plant, ...] = ()


@dataclass(frozen=True)
class TensorCase:
    """One tensor: dtype, shape, strides and storage offset in elements, and its values.

    The storage begins on a 512-byte boundary, so ``offset`` sets the alignment of the base
    address too. A stride of 0 is an expanded dim. ``values`` is None for pure outputs.
    ``alias_of`` names the tensor whose memory this one is (out=x); layout and dtype are then its.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0
    values: Recipe | None = None
    alias_of: str | None = None

    @property
    def itemsize(self) -> int:
        """Bytes of one element."""
        return ITEMSIZE[self.dtype]

    @functools.cached_property
    def n_elements(self) -> int:
        """Number of logical elements."""
        return math.prod(self.shape)

    @functools.cached_property
    def span(self) -> int:
        """Elements from the storage's start to one past the last element (0 if empty)."""
        if self.n_elements == 0:
            return 0
        reach = sum((n - 1) * s for n, s in zip(self.shape, self.strides, strict=True))
        return self.offset + reach + 1


@dataclass(frozen=True)
class Launch:
    """The pinned launch: block size, warps, FP fusion; or the index of an autotuner's config."""

    block: int | None = None
    num_warps: int | None = None
    fp_fusion: bool | None = None
    config: int | None = None


@dataclass(frozen=True)
class Case:
    """One test of one target.

    ``shape`` is the full shape of x, its last ``normalized_ndim`` dims are normalized.
    ``refusal`` names the declared refusal that an invalid case must meet; None for a valid one.
    """

    target: str
    shape: tuple[int, ...]
    normalized_ndim: int
    tensors: tuple[TensorCase, ...]
    flags: dict[str, FlagValue]
    eps: float
    launch: Launch
    seed: int
    relations: tuple[str, ...] = ()
    refusal: str | None = None
    format: int = FORMAT

    @functools.cached_property
    def leading(self) -> tuple[int, ...]:
        """The dims that are not normalized."""
        return self.shape[: len(self.shape) - self.normalized_ndim]

    @functools.cached_property
    def normalized(self) -> tuple[int, ...]:
        """The normalized dims."""
        return self.shape[len(self.shape) - self.normalized_ndim :]

    @functools.cached_property
    def n_rows(self) -> int:
        """Number of rows: the product of the leading dims."""
        return math.prod(self.leading)

    @functools.cached_property
    def n_cols(self) -> int:
        """Width of a row: the product of the normalized dims."""
        return math.prod(self.normalized)

    @functools.cached_property
    def group_size(self) -> int:
        """Columns that share one mean and rstd: the flag ``group_size``, else n_cols."""
        size = self.flags.get("group_size")
        return self.n_cols if size is None else int(size)

    @functools.cached_property
    def n_groups(self) -> int:
        """Groups a row is divided into."""
        return self.n_cols // self.group_size if self.group_size > 0 else 0

    @property
    def programs(self) -> int:
        """(row, group) pairs: the unit of the interpreter's budget."""
        return self.n_rows * max(self.n_groups, 1)

    @functools.cached_property
    def dtype(self) -> str:
        """The dtype of x."""
        return self.tensor_or_fail("x").dtype

    def tensor(self, name: str) -> TensorCase | None:
        """The tensor of that name, or None where it is absent."""
        return next((t for t in self.tensors if t.name == name), None)

    def tensor_or_fail(self, name: str) -> TensorCase:
        """The tensor of that name.

        Raises: KeyError when the case has none.
        """
        found = self.tensor(name)
        if found is None:
            raise KeyError(f"the case has no tensor {name!r}")
        return found

    def replace_tensor(self, tensor: TensorCase) -> Case:
        """The same case with one tensor exchanged."""
        tensors = tuple(tensor if t.name == tensor.name else t for t in self.tensors)
        return dataclasses.replace(self, tensors=tensors)

    @functools.cached_property
    def case_id(self) -> str:
        """Content address: 12 hex digits of the canonical JSON's SHA-256."""
        return hashlib.sha256(canonical_json(self).encode()).hexdigest()[:12]


class _Wrong(TypeError):
    """A value of the wrong kind; the text goes behind the path of the field."""


def _exact(kind: type, name: str) -> Callable[[Any, Any], Any]:
    """Reads one kind of JSON value. cattrs would convert: "45" to (4, 5), 2.7 to 2, "12" to 12."""

    def read(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise _Wrong(f"={value!r}, must be {name}")
        return value

    return read


def _is_finite(value: Any) -> bool:
    # Not math.isfinite: JSON has integers that no float holds.
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _number(value: Any, _: Any) -> float:
    if not _is_finite(value):
        raise _Wrong(f"={value!r}, must be a finite number")
    return float(value)


def _flags(value: Any, _: Any) -> dict[str, FlagValue]:
    if not isinstance(value, dict):
        raise _Wrong(f"={value!r}, must be an object")
    for name, item in value.items():
        if not (item is None or isinstance(item, bool | str) or _is_finite(item)):
            rule = "must be a boolean, a finite number, a string or null"
            raise _Wrong(f"[{name!r}]={item!r}, {rule}")
    return dict(value)


def _of_type(
    accepted: tuple[type, ...], name: str, read: Callable[[Any, Any], Any]
) -> Callable[[Any, Any], Any]:
    def checked(value: Any, kind: Any) -> Any:
        if not isinstance(value, accepted):
            raise _Wrong(f"={value!r}, must be {name}")
        return read(value, kind)

    return checked


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _exact(int, "an integer"))
    converter.register_structure_hook(str, _exact(str, "a string"))
    converter.register_structure_hook(bool, _exact(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    # 0 and 0.0 are one number and must have one spelling.
    converter.register_unstructure_hook(float, float)
    # The readers of inner kinds come first: those of the outer ones settle on them.
    numbers, words = tuple[int, ...], tuple[str, ...]
    plants, tensors = tuple[Plant, ...], tuple[TensorCase, ...]
    for kind in (numbers, words, Plant, plants, Recipe, TensorCase, tensors, Launch):
        is_list = kind in (numbers, words, plants, tensors)
        accepted, name = ((list, tuple), "a list") if is_list else ((dict,), "an object")
        read = _of_type(accepted, name, converter.get_structure_hook(kind))
        converter.register_structure_hook_func(functools.partial(operator.eq, kind), read)
    flags = dict[str, FlagValue]
    converter.register_structure_hook_func(lambda kind: kind == flags, _flags)
    return converter


_converter = _make_converter()


def canonical_json(case: Case) -> str:
    """The one spelling of a case: sorted keys, no blanks, no NaN."""
    return json.dumps(to_json(case), sort_keys=True, separators=(",", ":"), allow_nan=False)


def to_json(case: Case) -> dict[str, Any]:
    """A case as plain JSON values."""
    result: dict[str, Any] = _converter.unstructure(case)
    return result


def from_json(data: object) -> Case:
    """Read a case.

    Raises: CaseError naming the field, its value and the rule: not an object, another format
    version, a missing or unknown field, a value of the wrong kind, or one that contradicts others.
    """
    if not isinstance(data, dict):
        raise CaseError(f"case={type(data).__name__}, must be a JSON object")
    version = data.get("format")
    if type(version) is not int or version != FORMAT:
        raise CaseError(f"case.format={version!r}, this version reads format {FORMAT}")
    try:
        case = _converter.structure(data, Case)
    except (cattrs.BaseValidationError, TypeError, ValueError, KeyError) as error:
        reasons = cattrs.transform_error(error, path="case", format_exception=_reason)
        raise CaseError("; ".join(_path_first(reason) for reason in reasons)) from error
    validate(case)
    return case


def _reason(error: BaseException, kind: type | None) -> str:
    return str(error) if isinstance(error, _Wrong) else format_exception(error, kind)


def _path_first(reason: str) -> str:
    """``what is wrong @ path`` turned into ``path: what is wrong``."""
    what, _, path = reason.rpartition(" @ ")
    return f"{path}{what}" if what[0] in "=[" else f"{path}: {what}"


def validate(case: Case) -> None:
    """Refuse a case that contradicts itself: nothing behind this point looks again.

    An invalid case (one with a ``refusal``) may have shapes that do not fit together, groups that
    do not fill a row and outputs that overlap: those are what the target must refuse.
    Raises: CaseError naming the field, its value and the rule.
    """
    _check_numbers(case)
    names = [tensor.name for tensor in case.tensors]
    _require("x" in names, "tensors", names, "must have x")
    _require(len(set(names)) == len(names), "tensors", names, "must have different names")
    for number, tensor in enumerate(case.tensors):
        _check_tensor(tensor, f"tensors[{number}]", case)
    if case.refusal is None:
        _check_valid(case)


def _require(holds: bool, field: str, value: object, rule: str) -> None:
    if not holds:
        raise CaseError(f"case.{field}={value!r}, {rule}")


def _check_numbers(case: Case) -> None:
    _require(len(case.shape) >= 1, "shape", list(case.shape), "must have at least one dim")
    _require(min(case.shape) >= 0, "shape", list(case.shape), "must have sizes >= 0")
    rank = len(case.shape)
    fits = 1 <= case.normalized_ndim <= rank
    _require(fits, "normalized_ndim", case.normalized_ndim, f"must be in 1 ... {rank}")
    _require(math.isfinite(case.eps), "eps", case.eps, "must be finite")
    _require(case.seed >= 0, "seed", case.seed, "must be >= 0")
    size = case.flags.get("group_size")
    counts = size is None or type(size) is int
    _require(counts, "flags['group_size']", size, "must be an integer or null")
    for name, least in (("block", 1), ("num_warps", 1), ("config", 0)):
        value = getattr(case.launch, name)
        _require(value is None or value >= least, f"launch.{name}", value, f"must be >= {least}")


def _check_tensor(tensor: TensorCase, field: str, case: Case) -> None:
    shape, strides, recipe = list(tensor.shape), list(tensor.strides), tensor.values
    known = ", ".join(ITEMSIZE)
    _require(tensor.dtype in ITEMSIZE, f"{field}.dtype", tensor.dtype, f"must be one of {known}")
    _require(all(n >= 0 for n in shape), f"{field}.shape", shape, "must have sizes >= 0")
    one_each = len(strides) == len(shape)
    _require(one_each, f"{field}.strides", strides, f"must have one for each dim of shape {shape}")
    _require(all(s >= 0 for s in strides), f"{field}.strides", strides, "must be >= 0")
    _require(tensor.offset >= 0, f"{field}.offset", tensor.offset, "must be >= 0")
    if tensor.alias_of is not None:
        base = case.tensor(tensor.alias_of)
        exists = base is not None and base is not tensor and base.alias_of is None
        rule = "must name another tensor, which is no alias itself"
        _require(exists, f"{field}.alias_of", tensor.alias_of, rule)
    if recipe is None:
        return
    _require(math.isfinite(recipe.mean), f"{field}.values.mean", recipe.mean, "must be finite")
    _require(
        math.isfinite(recipe.spread), f"{field}.values.spread", recipe.spread, "must be finite"
    )
    for number, plant in enumerate(recipe.plants):
        at = f"{field}.values.plants[{number}]"
        inside = 0 <= plant.index < tensor.n_elements
        _require(inside, f"{at}.index", plant.index, f"must be in 0 ... {tensor.n_elements - 1}")
        _require(_is_number(plant.value), f"{at}.value", plant.value, "must be a number as text")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_valid(case: Case) -> None:
    """What the oracle and the memory of a valid case count on."""
    shape = list(case.shape)
    _require(case.n_cols >= 1, "shape", shape, "must have at least one column in a valid case")
    size = case.flags.get("group_size")
    fills = size is None or (case.group_size >= 1 and case.n_cols % case.group_size == 0)
    _require(fills, "flags['group_size']", size, f"must divide n_cols={case.n_cols}")
    offset = case.flags.get("weight_offset")
    is_number = offset is None or isinstance(offset, int | float)
    _require(is_number, "flags['weight_offset']", offset, "must be a number")
    for number, tensor in enumerate(case.tensors):
        field = f"tensors[{number}]"
        judged = tensor.dtype in JUDGED
        rule = f"must be one of {', '.join(JUDGED)} in a valid case"
        _require(judged, f"{field}.dtype", tensor.dtype, rule)
        strides = list(tensor.strides)
        rule = "must keep elements apart, except in expanded dims of inputs"
        apart = keeps_apart(tensor, may_expand=tensor.values is not None)
        _require(apart, f"{field}.strides", strides, rule)
        if tensor.name == "x":
            same = tensor.shape == case.shape
            _require(same, f"{field}.shape", list(tensor.shape), f"must be case.shape={shape}")
        if tensor.alias_of is not None:
            base = case.tensor_or_fail(tensor.alias_of)
            same = dataclasses.replace(base, name="", values=None) == dataclasses.replace(
                tensor, name="", values=None, alias_of=None
            )
            rule = "must have the dtype, shape, strides and offset of that tensor"
            _require(same, f"{field}.alias_of", tensor.alias_of, rule)


def keeps_apart(tensor: TensorCase, *, may_expand: bool) -> bool:
    """Whether each dim steps over all that the smaller ones cover, so that no elements meet.

    ``may_expand`` excepts dims of stride 0, whose elements are one and the same.
    """
    if tensor.n_elements == 0:
        return True
    dims = sorted((s, n) for n, s in zip(tensor.shape, tensor.strides, strict=True) if n > 1)
    reach = 0
    for stride, size in dims:
        if stride == 0 and may_expand:
            continue
        if stride <= reach:
            return False
        reach += (size - 1) * stride
    return True


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements; dims of size 0 count as 1, as in torch."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def describe(case: Case) -> str:
    """The case in one line, as printed under a mismatch."""
    parts = [case.target, f"x{list(case.shape)}:{case.dtype}"]
    for t in case.tensors:
        notes = []
        if t.alias_of is not None:
            notes.append(f"is {t.alias_of}")
        else:
            if t.name != "x" and t.dtype != case.dtype:
                notes.append(t.dtype)
            if t.strides != contiguous_strides(t.shape):
                notes.append(f"strides{list(t.strides)}")
            if t.offset:
                notes.append(f"offset {t.offset}")
        if t.values is not None and (t.name == "x" or t.values.plants):
            planted = f"+{len(t.values.plants)} planted" if t.values.plants else ""
            notes.append(f"{t.values.family}(mean {t.values.mean:g}){planted}")
        if t.name != "x" or notes:
            parts.append(f"{t.name}({', '.join(notes)})" if notes else t.name)
    parts += [f"{name}={value}" for name, value in sorted(case.flags.items()) if value is not None]
    parts.append(f"eps={case.eps:g}")
    launch = [f"{k}={v}" for k, v in dataclasses.asdict(case.launch).items() if v is not None]
    parts += launch
    if case.refusal is not None:
        parts.append(f"must refuse {case.refusal}")
    return " ".join(parts)
