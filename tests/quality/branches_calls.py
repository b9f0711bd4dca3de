"""Branches that decide how a target is called: launch, flags, dtypes, absent and shared tensors."""

from __future__ import annotations

from collections.abc import Iterator

from fuzz.case import Case
from tests.quality.branches_readings import launch_block, own
from tests.quality.branches_samples import (
    BORDERED,
    BORDERED_BY_DEFAULT,
    CONFIGURED,
    GATING,
    IN_ONE_BLOCK,
    OTHER_ROLES,
    PLAIN,
    SUMMED,
)
from tests.quality.branches_sampling import Branch, valid

DTYPES = ("float32", "bfloat16", "float16")


def call_branches() -> Iterator[Branch]:
    yield from _launches()
    yield from _whole_rows()
    yield from _configurations()
    yield from _flags()
    yield from _dtypes()
    yield from _absent()
    yield from _shared()


def _launches() -> Iterator[Branch]:
    def launched(case: Case) -> tuple[int | None, int | None]:
        return case.launch.block, case.launch.num_warps

    # Blocks or warps that are not drawn by themselves: the wrapper's own launch.
    for block, warps, least in ((512, 1, 0.01), (2048, 2, 0.01), (2048, 8, 0.01)):
        yield Branch(
            f"default launch of {block} columns and {warps} warps",
            PLAIN,
            least,
            lambda c, launch=(block, warps): launched(c) == launch,
        )
    for block in (32, 128, 1024, 4096, 8192):
        # No default launch has as many warps for so few columns, or so few for as many.
        warps = 1 if block > 1024 else 4
        yield Branch(
            f"pinned block of {block} columns",
            PLAIN,
            0.01,
            lambda c, launch=(block, warps): launched(c) == launch,
        )
    for warps in (1, 4, 8):
        yield Branch(
            f"pinned {warps} warps",
            PLAIN,
            0.01,
            lambda c, launch=(32, warps): launched(c) == launch,
        )
    for fusion, least in ((True, 0.7), (False, 0.04)):
        for name, block in (("default", 512), ("pinned", 32)):
            yield Branch(
                f"fp_fusion {fusion}, {name} launch",
                PLAIN,
                least,
                lambda c, f=fusion: c.launch.fp_fusion is f,
                lambda c, b=block: valid(c) and c.launch.block == b,
            )
    yield Branch(
        "fp_fusion False, where it is the only one",
        BORDERED_BY_DEFAULT,
        1.0,
        lambda c: c.launch.fp_fusion is False,
    )
    yield Branch(
        "fp_fusion None, where it is no choice", BORDERED, 1.0, lambda c: c.launch.fp_fusion is None
    )
    yield Branch(
        "a block that walks a wide row within the budget",
        PLAIN,
        0.1,
        lambda c: launch_block(c) in (1024, 4096),
        lambda c: valid(c) and c.n_cols > 4096,
    )

    def default(case: Case) -> bool:
        return launched(case) == (1500, 1)

    yield Branch("default launch where it is known", BORDERED_BY_DEFAULT, 0.1, default)
    yield Branch(
        "pinned launch where none is known for the width",
        BORDERED_BY_DEFAULT,
        1.0,
        lambda c: not default(c),
        lambda c: c.n_cols > 9000,
    )
    yield Branch(
        "pinned launch where none is known for the dtype",
        BORDERED_BY_DEFAULT,
        1.0,
        lambda c: not default(c),
        lambda c: c.dtype != "float32",
    )
    yield Branch(
        "no launch where a target has none",
        OTHER_ROLES,
        1.0,
        lambda c: launched(c) == (None, 4),
    )


def _whole_rows() -> Iterator[Branch]:
    def least_block(case: Case) -> int:
        return 1 << (case.n_cols - 1).bit_length()

    def pinned(case: Case) -> bool:
        """No default launch has 32 warps for so few columns."""
        return valid(case) and case.launch.num_warps == 32 and case.n_cols <= 4096

    yield Branch(
        "a row in the least block that holds it",
        IN_ONE_BLOCK,
        0.3,
        lambda c: launch_block(c) == least_block(c),
        pinned,
    )
    yield Branch(
        "a row in the block beyond",
        IN_ONE_BLOCK,
        0.3,
        lambda c: launch_block(c) == 2 * least_block(c),
        pinned,
    )
    yield Branch(
        "a row of one block, by default",
        IN_ONE_BLOCK,
        0.03,
        lambda c: c.launch.num_warps in (1, 2, 4, 8),
    )
    for warps in (16, 32):
        yield Branch(
            f"{warps} warps for a row of few columns",
            IN_ONE_BLOCK,
            0.1,
            lambda c, w=warps: c.launch.num_warps == w,
            lambda c: valid(c) and c.n_cols <= 2048,
        )
    for power in range(18):
        yield Branch(
            f"a row in a block of {2**power} columns",
            IN_ONE_BLOCK,
            0.003,
            lambda c, b=2**power: launch_block(c) == b,
        )


def _configurations() -> Iterator[Branch]:
    for config in (0, 1, 2):
        yield Branch(
            f"configuration {config}", CONFIGURED, 0.2, lambda c, i=config: c.launch.config == i
        )
    for fusion in (True, False):
        yield Branch(
            f"fp_fusion {fusion}, with a configuration",
            CONFIGURED,
            0.08,
            lambda c, f=fusion: c.launch.fp_fusion is f,
        )


def _flags() -> Iterator[Branch]:
    for name in ("norm_before_gate", "is_rms_norm"):
        for value in (True, False):
            yield Branch(f"{name} {value}", GATING, 0.4, lambda c, n=name, v=value: c.flags[n] is v)
    yield Branch(
        "gated RMS norm of groups, the norm last",
        GATING,
        0.05,
        lambda c: (
            c.flags["is_rms_norm"] is True
            and c.flags["norm_before_gate"] is False
            and c.n_groups > 1
            and c.tensor("z") is not None
        ),
    )
    for value in (True, False):
        yield Branch(
            f"return_sum {value}", SUMMED, 0.4, lambda c, v=value: c.flags["return_sum"] is v
        )
    for offset in (0.0, 1.0):
        yield Branch(
            f"weight_offset {offset}",
            OTHER_ROLES,
            0.4,
            lambda c, v=offset: c.flags["weight_offset"] == v,
        )


def _dtypes() -> Iterator[Branch]:
    for dtype in DTYPES:
        yield Branch(f"x {dtype}", PLAIN, 0.28, lambda c, d=dtype: c.dtype == d)
    for name, sample in (("weight", PLAIN), ("bias", PLAIN), ("z", GATING), ("residual", SUMMED)):
        for dtype in DTYPES:
            for other in DTYPES:
                yield Branch(
                    f"{name} {other} beside x {dtype}",
                    sample,
                    _least_share(dtype, other),
                    lambda c, n=name, d=other: c.tensor_or_fail(n).dtype == d,
                    lambda c, n=name, d=dtype: valid(c) and c.dtype == d and bool(own(c, n)),
                )
    for other in ("float32", "x"):
        yield Branch(
            f"sum_out {other} beside x in half precision",
            SUMMED,
            0.2,
            lambda c, d=other: c.tensor_or_fail("sum_out").dtype == (c.dtype if d == "x" else d),
            lambda c: valid(c) and c.dtype != "float32" and bool(own(c, "sum_out")),
        )
    for other in ("float16", "bfloat16"):
        yield Branch(
            f"dy {other}, which cannot be as x",
            OTHER_ROLES,
            0.3,
            lambda c, d=other: c.tensor_or_fail("dy").dtype == d,
            lambda c: c.dtype == "float32",
        )
    yield Branch(
        "mean float32 beside x in half precision",
        OTHER_ROLES,
        1.0,
        lambda c: c.tensor_or_fail("mean").dtype == "float32",
        lambda c: c.dtype != "float32",
    )


def _least_share(x: str, other: str) -> float:
    """Half the cases have one dtype, a quarter has float32, and a quarter any."""
    if x == other:
        return 0.75 if x == "float32" else 0.5
    return 0.22 if other == "float32" else 0.04


def _absent() -> Iterator[Branch]:
    for name, sample in (
        *((name, PLAIN) for name in ("weight", "bias", "out")),
        *((name, SUMMED) for name in ("input_bias", "sum_out")),
        ("z", GATING),
    ):
        yield Branch(f"{name} absent", sample, 0.25, lambda c, n=name: c.tensor(n) is None)
        yield Branch(f"{name} given", sample, 0.5, lambda c, n=name: c.tensor(n) is not None)
    yield Branch("bias without weight", PLAIN, 0.15, _bias_alone)
    yield Branch("all that is optional absent", GATING, 0.005, lambda c: len(c.tensors) == 1)
    yield Branch("all that is optional given", GATING, 0.1, lambda c: len(c.tensors) == 5)


def _bias_alone(case: Case) -> bool:
    return case.tensor("weight") is None and case.tensor("bias") is not None


def _shared() -> Iterator[Branch]:
    for name, sample, others in (
        ("out", PLAIN, ("x",)),
        ("out", GATING, ("x", "z")),
        ("out", SUMMED, ("x", "residual")),
        ("sum_out", SUMMED, ("x", "residual")),
    ):
        for other in others:
            yield Branch(
                f"{name} is {other} [{sample.spec.name}]",
                sample,
                0.06,
                lambda c, n=name, o=other: c.tensor_or_fail(n).alias_of == o,
                lambda c, n=name: valid(c) and c.tensor(n) is not None,
            )
        yield Branch(
            f"{name} has memory of its own [{sample.spec.name}]",
            sample,
            0.4,
            lambda c, n=name: c.tensor_or_fail(n).alias_of is None,
            lambda c, n=name: valid(c) and c.tensor(n) is not None,
        )
    yield Branch(
        "two outputs in the memory of two inputs",
        SUMMED,
        0.005,
        lambda c: {t.alias_of for t in c.tensors} >= {"x", "residual"},
    )
