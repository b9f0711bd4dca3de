"""Two results of one set of cases beside each other: verdicts, and how outputs were rounded."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field

from rich.console import Console
from rich.table import Table

from ci.verdict_files import Results, Row, VerdictsError
from fuzz.report import make_console

ULPS = 3
"""Errors of 0, 1 and 2 units in the last place are counted apart, larger ones together."""

MANY_ULPS = 10_000

WIDTH = 150
"""Columns that the table needs at least."""


@dataclass
class Rounding:
    """Sums over the cases of one target, output and dtype, on one device."""

    ulps: list[int] = field(default_factory=lambda: [0] * (ULPS + 1))
    max_ulp: int = 0
    ratio: float = 0.0

    def add(self, output: Row, ratio: float) -> None:
        """Count one case."""
        self.ulps = [a + b for a, b in zip(self.ulps, output["ulps"], strict=True)]
        self.max_ulp = max(self.max_ulp, output["max_ulp"])
        self.ratio = max(self.ratio, ratio)

    def share(self, ulp: int) -> float:
        """Part of the elements that are so many units off."""
        return self.ulps[ulp] / max(sum(self.ulps), 1)


@dataclass
class Pair:
    """The roundings of both devices, and in how many cases they are the same bits."""

    sides: tuple[Rounding, Rounding] = field(default_factory=lambda: (Rounding(), Rounding()))
    cases: int = 0
    same_bits: int = 0


def differing(a: Results, b: Results) -> list[tuple[Row, Row]]:
    """The cases whose verdicts are not the same: another status or other signatures."""
    same = ("status", "signatures")
    return [
        (row, b.rows[key])
        for key, row in a.rows.items()
        if key in b.rows and any(row[name] != b.rows[key][name] for name in same)
    ]


def roundings(a: Results, b: Results) -> dict[tuple[str, str, str], Pair]:
    """By target (gated or not), output and dtype, what became of it on both sides."""
    pairs: dict[tuple[str, str, str], Pair] = defaultdict(Pair)
    for key in sorted(a.rows.keys() & b.rows.keys()):
        rows = (a.rows[key], b.rows[key])
        for name in rows[0]["outputs"].keys() & rows[1]["outputs"].keys():
            outputs = [row["outputs"][name] for row in rows]
            target = rows[0]["target"] + (", gated" if rows[0]["gated"] else "")
            pair = pairs[target, name, outputs[0]["dtype"]]
            pair.cases += 1
            pair.same_bits += outputs[0]["digest"] == outputs[1]["digest"]
            for side, row, output in zip(pair.sides, rows, outputs, strict=True):
                side.add(output, float(row["ratios"].get(name, 0.0)))
    return dict(sorted(pairs.items()))


def compare(a: Results, b: Results) -> bool:
    """Print what agrees and what does not; whether all verdicts do.

    Raises: VerdictsError when the results are not of the same cases, or incomplete.
    """
    if a.header["set"] != b.header["set"]:
        raise VerdictsError(
            f"{a.path} is of set {a.header['set']}, {b.path} of {b.header['set']}: must be one"
        )
    for one in (a, b):
        if len(one.rows) != one.header["cases"]:
            raise VerdictsError(
                f"{one.path}: {len(one.rows)} of {one.header['cases']} cases are judged; "
                f"run judge again to go on"
            )
    console = Console(highlight=False, width=max(WIDTH, make_console().width))
    found = differing(a, b)
    counts = [
        ", ".join(f"{n} {status}" for status, n in sorted(statuses(one).items())) for one in (a, b)
    ]
    for one, count in zip((a, b), counts, strict=True):
        device = one.header["device_name"]
        packages = ", ".join(f"{name} {v}" for name, v in one.header["versions"].items())
        console.print(f"{one.name}: {count} ({device}; {packages})", soft_wrap=True)
    console.print(f"verdicts: {len(a.rows) - len(found)} of {len(a.rows)} agree")
    for left, right in found:
        console.print(f"  {left['target']} {left['id']}", soft_wrap=True)
        for one, row in ((a, left), (b, right)):
            said = "; ".join(row["messages"]) or row["reason"]
            console.print(f"    {one.name}: {row['status']} {said}", soft_wrap=True)
    console.print(_table(a, b))
    return not found


def statuses(results: Results) -> Counter[str]:
    """How many cases passed, failed and were skipped."""
    return Counter(row["status"] for row in results.rows.values())


def _table(a: Results, b: Results) -> Table:
    table = Table(title="outputs against the correctly rounded result")
    for name in ("target", "output", "dtype", "cases", "same bits", "elements", "on"):
        table.add_column(name)
    for name in ("exact", "1 ulp off", "2 ulp", "more", "largest", "error/bound"):
        table.add_column(name, justify="right")
    for (target, output, dtype), pair in roundings(a, b).items():
        about: tuple[str, ...] = (target, output, dtype, str(pair.cases), str(pair.same_bits))
        for one, side in zip((a, b), pair.sides, strict=True):
            shares = [f"{side.share(n):.3%}" for n in range(ULPS + 1)]
            table.add_row(
                *about,
                str(sum(side.ulps)),
                one.name,
                *shares,
                # Beside a result of nearly 0 an error has many units of it.
                str(side.max_ulp) if side.max_ulp < MANY_ULPS else f"{side.max_ulp:.1e}",
                f"{side.ratio:.3g}",
            )
            about = ("",) * len(about)
    return table
