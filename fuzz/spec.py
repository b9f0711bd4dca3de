"""What a target takes, returns, promises and refuses: data that the engine can read without torch.

A target file is imported in the kernel process alone. What crosses to the engine is its
:class:`TargetSpec`: it drives the strategies (what may be drawn), the oracle (what is owed) and
the checks (what a refusal must look like).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from oracle.arithmetic import Arithmetic

Role = Literal["in", "out", "inout", "scratch"]
"""in: must come back unchanged; out: must be fully written; inout: both; scratch: neither."""

ShapeKind = Literal["full", "cols", "rows", "rows_keepdim", "groups"]
"""How a tensor's shape follows from the problem's.

full: leading + normalized dims; cols: the normalized dims; rows: the leading dims;
rows_keepdim: the leading dims, normalized dims kept as 1; groups: (n_groups * n_rows,),
group-major. A row-reduced output (a weight gradient) has kind "cols", a cotangent is a plain
"in" argument of kind "full": neither needs a new kind.
"""

FlagValue = bool | int | float | str | None

FLOAT_DTYPES: tuple[str, ...] = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class ArgSpec:
    """One tensor argument.

    ``dtypes`` lists what may be drawn; the single entry ``("x",)`` means "the dtype of x".
    ``may_alias`` names the inputs whose memory the argument may share, element for element.
    ``owns_storage``: kernels may touch all of the argument's storage, gaps between its rows too.
    """

    name: str
    role: Role = "in"
    shape: ShapeKind = "full"
    dtypes: tuple[str, ...] = FLOAT_DTYPES
    optional: bool = False
    strided: bool = False
    may_alias: tuple[str, ...] = ()
    owns_storage: bool = False


@dataclass(frozen=True)
class OutputSpec:
    """One returned tensor: the oracle's quantity of that name (y, mean, rstd, sum)."""

    name: str
    shape: ShapeKind = "full"
    dtype: str = "x"
    # The argument that receives it when the caller passes one (out=), if any.
    given_as: str | None = None


@dataclass(frozen=True)
class FlagSpec:
    """One scalar argument and the values it may take. One choice makes it a constant.

    Names that the oracle knows: ``is_rms_norm``, ``norm_before_gate``, ``group_size`` (drawn by
    the strategies as a divisor of n_cols; its choices are then ignored), ``weight_offset``.
    """

    name: str
    choices: tuple[FlagValue, ...]


@dataclass(frozen=True)
class DefaultLaunch:
    """One row of the wrapper's own heuristic: the launch it takes up to ``max_cols``."""

    max_cols: int
    itemsize: int
    block: int
    num_warps: int


@dataclass(frozen=True)
class LaunchSpace:
    """The launch configurations that a case may pin.

    ``configs`` is for autotuned kernels: the keyword arguments of each configuration, one of
    which a case pins by its index. ``whole_row`` demands block >= n_cols.
    """

    blocks: tuple[int, ...] = ()
    num_warps: tuple[int, ...] = (4,)
    fp_fusion: tuple[bool, ...] = (True,)
    whole_row: bool = False
    defaults: tuple[DefaultLaunch, ...] = ()
    configs: tuple[tuple[tuple[str, FlagValue], ...], ...] = ()


@dataclass(frozen=True)
class Refusal:
    """An invalid input that the target declares to refuse, and how.

    ``name`` is a class of invalid cases known to the strategies; ``argument`` must appear in the
    message, so that a caller can see which argument was wrong.
    """

    name: str
    error: str
    argument: str


@dataclass(frozen=True)
class Space:
    """The supported inputs. ``fixed`` narrows a dimension to one value (``--fix n_cols=4097``)."""

    min_rank: int = 1
    max_rank: int = 5
    max_normalized_dims: int = 1
    max_cols: int = 65537
    empty_batch: bool = True
    min_eps: float = 0.0
    fixed: tuple[tuple[str, FlagValue], ...] = ()

    def fix(self, name: str) -> FlagValue:
        """The value that ``name`` is narrowed to, or None."""
        return dict(self.fixed).get(name)


@dataclass(frozen=True)
class TargetSpec:
    """All that the engine knows of a target."""

    name: str
    args: tuple[ArgSpec, ...]
    outputs: tuple[OutputSpec, ...]
    arithmetic: Arithmetic
    flags: tuple[FlagSpec, ...] = ()
    launch: LaunchSpace = field(default_factory=LaunchSpace)
    space: Space = field(default_factory=Space)
    refuses: tuple[Refusal, ...] = ()
    # Where it can run: the interpreter ("cpu"), a GPU ("cuda").
    devices: tuple[str, ...] = ("cpu", "cuda")
    # A program may read what others wrote, once both have done an atomic (a lock, a counter). The
    # interpreter then runs programs in ascending order, and else in an order drawn from the case.
    reads_after_atomics: bool = False
    # Equal launches give equal bits. Not so where programs add floats by atomics: the sum depends
    # on which comes first.
    repeatable: bool = True
    # Fuzzed when no target is named on the command line.
    default: bool = True
    description: str = ""

    def arg(self, name: str) -> ArgSpec | None:
        """The argument of that name, or None."""
        return next((a for a in self.args if a.name == name), None)

    def flag(self, name: str) -> FlagSpec | None:
        """The flag of that name, or None."""
        return next((f for f in self.flags if f.name == name), None)

    def fixed(self, values: dict[str, FlagValue]) -> TargetSpec:
        """The same target with dimensions of its space narrowed to one value each."""
        # What the target itself has fixed stays fixed.
        fixed = {**dict(self.space.fixed), **values}
        return replace(
            self, space=replace(self.space, fixed=tuple(sorted(fixed.items(), key=lambda i: i[0])))
        )
