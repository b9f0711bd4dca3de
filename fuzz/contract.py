"""A target's contract: its spec as data, its digest, and what another one promises less.

The contract is stored with every failure, so that a replay can tell a mended kernel from one that
has come to promise less; and a change is judged by the contract that it had before.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from fuzz.spec import (
    ArgSpec,
    DefaultLaunch,
    FlagSpec,
    FlagValue,
    LaunchSpace,
    OutputSpec,
    Refusal,
    Space,
    TargetSpec,
)
from oracle.arithmetic import Arithmetic, Depth
from oracle.formats import FORMATS

UNREAD = ("name", "description")
"""Of a target: what it is called is no promise. A digest leaves it out."""

ABSENT = "absent"

MAX_ROWS = 4
"""Of a long table, this many rows are shown."""


class ContractError(ValueError):
    """A contract that cannot be stored or read; the message names the field and the rule."""


# --- a spec as plain data -------------------------------------------------------------------------


def to_data(spec: TargetSpec) -> dict[str, Any]:
    """A spec as plain JSON values, every field of it.

    Raises: ContractError naming a value that is not of its field's type, as a NumPy integer.
    """
    data: dict[str, Any] = _written(TargetSpec, spec, "contract")
    return data


LATER: dict[tuple[type, str], object] = {(Depth, "parts"): 1}
"""Fields that contracts were without at first, and what all of them meant: it is not written, so
that a contract has the same data and digest as before."""


def from_data(data: object) -> TargetSpec:
    """Read a spec. Nothing is converted, and no field has a default but those of ``LATER``.

    Raises: ContractError naming the first field that is wrong, missing or not known, and the rule.
    """
    spec: TargetSpec = _read(TargetSpec, data, "contract")
    return spec


def digest(spec: TargetSpec) -> str:
    """16 hex digits that differ where two contracts do, whatever the targets are called.

    Raises: ContractError as :func:`to_data` does.
    """
    return digest_of(to_data(spec))


def digest_of(data: dict[str, Any]) -> str:
    """The digest of a contract that is data, in whatever version it was written."""
    kept = {name: value for name, value in data.items() if name not in UNREAD}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _written(kind: Any, value: Any, path: str) -> Any:
    if _is_part(kind):
        if not isinstance(value, kind):
            raise _wrong(path, value, f"must be of type {_name(kind)}")
        return {
            name: _written(of, getattr(value, name), f"{path}.{name}")
            for name, of in _fields(kind).items()
            if (kind, name) not in LATER or getattr(value, name) != LATER[kind, name]
        }
    if typing.get_origin(kind) is tuple:
        if type(value) is not tuple:
            raise _wrong(path, value, "must be a tuple")
        kinds = _item_kinds(kind, len(value), path)
        items = zip(kinds, value, strict=True)
        return [_written(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(items)]
    if kind is float and isinstance(value, float) and not math.isfinite(value):
        # Infinity is no JSON number.
        return str(value)
    return _scalar(kind, value, path)


def _read(kind: Any, value: Any, path: str) -> Any:
    if _is_part(kind):
        if not isinstance(value, dict):
            raise _wrong(path, value, "must be an object")
        fields = _fields(kind)
        for name in value:
            if name not in fields:
                raise ContractError(f"{path}.{name}: is no field of {_name(kind)}")
        for name in fields:
            if name not in value and (kind, name) not in LATER:
                raise ContractError(f"{path}.{name}: is missing")
        return kind(
            **{k: _read(of, value[k], f"{path}.{k}") for k, of in fields.items() if k in value}
        )
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _wrong(path, value, "must be a list")
        kinds = _item_kinds(kind, len(value), path)
        items = zip(kinds, value, strict=True)
        return tuple(_read(k, v, f"{path}[{i}]") for i, (k, v) in enumerate(items))
    if kind is float and value in ("inf", "-inf", "nan"):
        return float(value)
    return _scalar(kind, value, path)


def _scalar(kind: Any, value: Any, path: str) -> Any:
    """A value that is the same in Python and in JSON, once it is known to be what it must be."""
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if type(value) is not str or value not in choices:
            raise _wrong(path, value, f"must be one of {', '.join(choices)}")
        return value
    if kind is float and type(value) is int:
        # 4 and 4.0 are one promise and must have one spelling.
        return float(value)
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if type(value) not in kinds or (type(value) is float and not math.isfinite(value)):
        raise _wrong(path, value, f"must be {' or '.join(_WORDS[k] for k in kinds)}")
    return value


_WORDS = {
    bool: "true or false",
    int: "an integer",
    float: "a finite number",
    str: "a string",
    types.NoneType: "null",
}


def _is_part(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind)


@functools.cache
def _fields(kind: Any) -> dict[str, Any]:
    """The fields of a dataclass and their types."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _item_kinds(kind: Any, length: int, path: str) -> tuple[Any, ...]:
    kinds = typing.get_args(kind)
    if kinds[-1] is Ellipsis:
        return (kinds[0],) * length
    if len(kinds) != length:
        raise ContractError(f"{path} has {length} items, must have {len(kinds)}")
    return kinds


def _name(kind: Any) -> str:
    return str(kind.__name__)


def _wrong(path: str, value: object, rule: str) -> ContractError:
    return ContractError(f"{path}={value!r}, {rule}")


# --- what one contract promises less than another -------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A field that two contracts do not share, and whether the second promises less by it.

    ``field`` is a path such as "arithmetic.variance" or "args.x.dtypes". ``weaker``: it promises
    less, or is tested on less, or is not known not to. ``judged``: it has a say in what is wrong
    with a given case; the others decide which cases there are.
    """

    field: str
    base: str
    head: str
    weaker: bool
    words: str
    judged: bool = True

    def __str__(self) -> str:
        return f"{self.field} {self.base} -> {self.head}"


def differences(base: TargetSpec, head: TargetSpec) -> tuple[Change, ...]:
    """What differs between two contracts, field by field; nothing where their digests are equal.

    Raises: ContractError as :func:`to_data` does.
    """
    # As they read when stored, where equal promises have one spelling.
    base, head = from_data(to_data(base)), from_data(to_data(head))
    return tuple(_compare("", base, head, base))


Loses = Callable[[Any, Any, TargetSpec], bool]
"""Whether the second of two values promises less; the contract is that of the first."""


@dataclass(frozen=True)
class Rule:
    """A field that is compared as it is. ``less`` says what is lost, ``judged`` as in Change."""

    loses: Loses
    less: str
    judged: bool = True

    def changes(self, path: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
        """The change of this field, if any."""
        # As text: True is no 1, and NaN is itself.
        if repr(base) == repr(head):
            return
        weaker = self.loses(base, head, before)
        words = self.less if weaker else self._no_less(base, head)
        yield Change(path, *_show_both(base, head), weaker, words, self.judged)

    def _no_less(self, base: Any, head: Any) -> str:
        if isinstance(base, tuple) and Counter(map(repr, base)) == Counter(map(repr, head)):
            return "the same in another order"
        return "promises no less" if self.judged else "is tested on no less"


@dataclass(frozen=True)
class Part:
    """A field that is a dataclass of its own, with a table of its own."""

    def changes(self, path: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
        """The changes of its fields."""
        return _compare(f"{path}.", base, head, before)


@dataclass(frozen=True)
class Named:
    """A field with several dataclasses, told apart by their names.

    ``gone`` and ``more`` say what it means that one is missing or new. ``welcome``: whether a new
    one takes nothing away.
    """

    gone: str
    more: str
    welcome: Callable[[Any], bool]
    judged: bool = True

    def changes(self, path: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
        """The changes of those that both have, those that are gone, and those that are new."""
        was, now = _by_name(base), _by_name(head)
        seen = False
        for name, item in was.items():
            if name not in now:
                change = Change(f"{path}.{name}", _show(item), ABSENT, True, self.gone, self.judged)
                changes: Iterator[Change] = iter((change,))
            else:
                changes = _compare(f"{path}.{name}.", item, now[name], before)
            for change in changes:
                seen = True
                yield change
        for name, item in now.items():
            if name not in was:
                seen = True
                weaker = not self.welcome(item)
                words = self.more if weaker else "new, and takes nothing away"
                yield Change(f"{path}.{name}", ABSENT, _show(item), weaker, words, self.judged)
        if not seen and list(was) != list(now):
            words = "the same in another order"
            yield Change(path, ", ".join(was), ", ".join(now), False, words, self.judged)


@dataclass(frozen=True)
class Pairs:
    """A field of (name, value) pairs; ``rule`` compares values, ABSENT where there is no pair."""

    rule: Rule

    def changes(self, path: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
        """The change of each name's value."""
        was, now = dict(base), dict(head)
        seen = False
        for name in dict.fromkeys((*was, *now)):
            for change in self.rule.changes(
                f"{path}.{name}", was.get(name, ABSENT), now.get(name, ABSENT), before
            ):
                seen = True
                yield change
        if not seen and repr(base) != repr(head):
            words = "the same in another order"
            yield Change(path, _show(base), _show(head), False, words, self.rule.judged)


@dataclass(frozen=True)
class Label:
    """A field that promises nothing: a name."""

    def changes(self, path: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
        """None."""
        return iter(())


Entry = Rule | Part | Named | Pairs | Label


def _compare(prefix: str, base: Any, head: Any, before: TargetSpec) -> Iterator[Change]:
    """The changes of two dataclasses of one kind, in the order of their fields."""
    for name, entry in RULES[type(base)].items():
        yield from entry.changes(
            f"{prefix}{name}", getattr(base, name), getattr(head, name), before
        )


def _by_name(items: tuple[Any, ...]) -> dict[str, Any]:
    """Items by their names; one that has another's name is told by its number."""
    found: dict[str, Any] = {}
    for item in items:
        name, number = item.name, 2
        while name in found:
            name, number = f"{item.name}#{number}", number + 1
        found[name] = item
    return found


def _show(value: Any) -> str:
    """A value in one line."""
    if isinstance(value, DefaultLaunch):
        return f"{value.itemsize} bytes up to {value.max_cols}: {value.block} by {value.num_warps}"
    if type(value) in RULES:
        # What it is called has been said, and what is as usual need not be.
        told = (
            f"{field.name} {_show(getattr(value, field.name))}"
            for field in dataclasses.fields(value)
            if not isinstance(RULES[type(value)][field.name], Label)
            and getattr(value, field.name) != field.default
        )
        return ", ".join(told) or "as usual"
    if isinstance(value, tuple):
        inner = [f"({_show(v)})" if isinstance(v, tuple) else _show(v) for v in value]
        if _is_table(value) and len(inner) > MAX_ROWS:
            inner[MAX_ROWS:] = [f"and {len(inner) - MAX_ROWS} more"]
        return ", ".join(inner) or "none"
    return "none" if value is None else str(value)


def _is_table(value: Any) -> bool:
    return isinstance(value, tuple) and any(isinstance(i, tuple | DefaultLaunch) for i in value)


def _show_both(base: Any, head: Any) -> tuple[str, str]:
    """Two values; of long tables, only the rows that they do not share."""
    if _is_table(base) or _is_table(head):
        was, now = {repr(i) for i in base}, {repr(i) for i in head}
        if was != now:
            base = tuple(i for i in base if repr(i) not in now)
            head = tuple(i for i in head if repr(i) not in was)
    return _show(base), _show(head)


# --- the rules ------------------------------------------------------------------------------------

# What is not known to be stricter counts as weaker: a rule errs towards asking a person.


def _always(base: Any, head: Any, before: TargetSpec) -> bool:
    """Values that cannot be compared: none of them includes the other."""
    return True


def _larger(base: Any, head: Any, before: TargetSpec) -> bool:
    return not head <= base


def _smaller(base: Any, head: Any, before: TargetSpec) -> bool:
    return not head >= base


def _turned_on(base: Any, head: Any, before: TargetSpec) -> bool:
    return head is not False


def _turned_off(base: Any, head: Any, before: TargetSpec) -> bool:
    return head is not True


def _member_lost(base: Any, head: Any, before: TargetSpec) -> bool:
    return not {repr(item) for item in base} <= {repr(item) for item in head}


def _includes(wide: str, narrow: str) -> bool:
    """Whether a format holds every value of another; "x" is the dtype of x, whichever that is."""
    if wide == "float32" and narrow == "x":
        return True
    if wide not in FORMATS or narrow not in FORMATS:
        return False
    a, b = FORMATS[wide], FORMATS[narrow]
    return (
        a.precision >= b.precision and a.max_exponent >= b.max_exponent and a.quantum <= b.quantum
    )


def _narrower(base: str, head: str, before: TargetSpec) -> bool:
    return not _includes(head, base)


def _rounded_more(base: str, head: str, before: TargetSpec) -> bool:
    return head != ABSENT and (base == ABSENT or not _includes(head, base))


def _less_exact_variance(base: str, head: str, before: TargetSpec) -> bool:
    exactness = ("one_pass", "welford", "two_pass")
    return exactness.index(head) < exactness.index(base)


def _role_lost(base: str, head: str, before: TargetSpec) -> bool:
    return (base, head) != ("inout", "in")


def _dtype_lost(base: tuple[str, ...], head: tuple[str, ...], before: TargetSpec) -> bool:
    x = before.arg("x")
    # The dtypes that x had: whether it still has them is for x to say.
    dtypes = tuple(d for d in x.dtypes if d != "x") if x is not None else ()

    def together(choices: tuple[str, ...]) -> set[tuple[str, str]]:
        """The dtypes of x with those that this argument may have beside them."""
        return {(d, d if choice == "x" else choice) for d in dtypes for choice in choices}

    # Without x nothing is known of what "x" stands for.
    return not together(base) <= together(head) if dtypes else _member_lost(base, head, before)


def _receiver_lost(base: str | None, head: str | None, before: TargetSpec) -> bool:
    return base is not None


def _configs_moved(base: Any, head: Any, before: TargetSpec) -> bool:
    return repr(head[: len(base)]) != repr(base)


def _width_lost(
    base: tuple[DefaultLaunch, ...], head: tuple[DefaultLaunch, ...], before: TargetSpec
) -> bool:
    """Whether there are widths for which the wrapper's own launch is known no more.

    Which one that is may change: a wrapper owes no particular launch, and its own is drawn as
    ever.
    """

    def widest(rows: tuple[DefaultLaunch, ...]) -> dict[int, int]:
        found: dict[int, int] = {}
        for row in rows:
            found[row.itemsize] = max(row.max_cols, found.get(row.itemsize, 0))
        return found

    now = widest(head)
    return any(now.get(itemsize, 0) < width for itemsize, width in widest(base).items())


def _fixed_more(base: FlagValue, head: FlagValue, before: TargetSpec) -> bool:
    return head != ABSENT


_IMPLIED: dict[str, FlagValue] = {
    "group_size": None,
    "norm_before_gate": True,
    "is_rms_norm": False,
    "weight_offset": 0.0,
    "return_sum": True,
}
"""What the oracle takes a flag to be where a target has none of that name."""


def _keeps_implied(flag: FlagSpec) -> bool:
    return flag.name in _IMPLIED and _IMPLIED[flag.name] in flag.choices


def _may_be_left_out(arg: ArgSpec) -> bool:
    return arg.optional and arg.role in ("in", "out")


def _nothing_lost(item: object) -> bool:
    return True


_SUM = "another sum is read: with one rounded and one not, they need not fit together"

RULES: dict[type, dict[str, Entry]] = {
    Arithmetic: {
        "compute": Rule(_narrower, "computes in a format that holds less"),
        "variance": Rule(
            _less_exact_variance,
            "a running variance loses digits, one of a single pass cancels at large means",
        ),
        "depth": Part(),
        "roundings": Pairs(Rule(_rounded_more, "an intermediate is rounded, or rounded harder")),
        "mean_reads": Rule(_always, _SUM),
        "variance_reads": Rule(_always, _SUM),
        "output_reads": Rule(_always, _SUM),
        "reused": Rule(
            _member_lost, "what follows from it is judged by its bound, not by what it is"
        ),
        "div_error": Rule(_larger, "divisions may be further off"),
        "rsqrt_error": Rule(_larger, "roots may be further off"),
        "exp_error": Rule(_larger, "exponentials may be further off"),
        "flush_to_zero": Rule(_turned_on, "roots may take subnormal numbers for zero"),
        "uniform": Rule(_turned_off, "columns of a row may see different bits of mean and rstd"),
    },
    Depth: {
        "kind": Rule(_always, "sums are of another depth, which depends on other things"),
        "divisor": Rule(_smaller, "sums may be deeper"),
        "extra": Rule(_larger, "sums may be deeper"),
        "parts": Rule(_larger, "sums may be deeper under the interpreter"),
    },
    ArgSpec: {
        "name": Label(),
        "role": Rule(_role_lost, "other memory must stay as it was, or be written"),
        "shape": Rule(_always, "tensors of the shape that it had are not passed any more", False),
        "dtypes": Rule(_dtype_lost, "a dtype is not tried any more", False),
        "optional": Rule(_turned_off, "it is never left out", False),
        "strided": Rule(_turned_off, "gaps between rows and offsets are not tried", False),
        "may_alias": Rule(_member_lost, "memory shared with it is not tried", False),
        "owns_storage": Rule(_turned_on, "what lies between its rows may be overwritten"),
    },
    OutputSpec: {
        "name": Label(),
        "shape": Rule(_always, "callers get another shape"),
        "dtype": Rule(_always, "callers get another dtype"),
        "given_as": Rule(_receiver_lost, "what is passed in for it need not receive it"),
    },
    FlagSpec: {
        "name": Label(),
        "choices": Rule(_member_lost, "a value is not tried any more", False),
    },
    LaunchSpace: {
        "blocks": Rule(_member_lost, "a block is not tried any more", False),
        "num_warps": Rule(_member_lost, "a number of warps is not tried any more", False),
        "fp_fusion": Rule(_member_lost, "only with or only without FMA", False),
        "whole_row": Rule(_turned_on, "blocks narrower than a row are not tried", False),
        "defaults": Rule(_width_lost, "its own launches are not tried at all widths", False),
        "configs": Rule(
            _configs_moved,
            "one is gone, or has another index: stored cases name them by it",
            False,
        ),
    },
    Space: {
        "min_rank": Rule(_larger, "x of fewer dims is not tried", False),
        "max_rank": Rule(_smaller, "x of more dims is not tried", False),
        "max_normalized_dims": Rule(_smaller, "fewer dims are normalized together", False),
        "max_cols": Rule(_smaller, "wider rows are not tried", False),
        "empty_batch": Rule(_turned_off, "x without rows is not tried", False),
        "min_eps": Rule(_larger, "smaller eps are not tried", False),
        "fixed": Pairs(Rule(_fixed_more, "only this one value is tried", False)),
    },
    Refusal: {
        "name": Label(),
        "error": Rule(_always, "callers that catch the error by its type miss it"),
        "argument": Rule(_always, "the message need not name what it named"),
    },
    TargetSpec: {
        "name": Label(),
        "args": Named(
            "it is not taken any more",
            "it must be passed, or its memory may be written",
            _may_be_left_out,
            False,
        ),
        "outputs": Named("it is not compared any more", "", _nothing_lost),
        "arithmetic": Part(),
        "flags": Named(
            "it is not tried any more",
            "what it was without the flag is no choice",
            _keeps_implied,
            False,
        ),
        "launch": Part(),
        "space": Part(),
        "refuses": Named("it need not be refused", "", _nothing_lost),
        "devices": Rule(_member_lost, "it is not run there", False),
        "reads_after_atomics": Rule(
            _turned_on, "programs may read what others wrote, once both have done an atomic"
        ),
        "repeatable": Rule(_turned_off, "equal launches may give different bits"),
        "default": Rule(_turned_off, "it is fuzzed only where it is named", False),
        "description": Label(),
    },
}
"""How each field of a contract and of its parts is compared, and what is lost where it is less."""

WHOLE: dict[type, tuple[str, ...]] = {
    DefaultLaunch: ("max_cols", "itemsize", "block", "num_warps"),
}
"""Parts that are compared as a whole by the rule of the field that holds them."""
