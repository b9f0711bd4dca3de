"""Print how near to their bounds the kernels came, from the results of campaigns.

    ln-fuzz run --json one.json
    python -m ci.ratios one.json two.json

By target, output and dtype: the cases, the error/bound that 999 of 1000 cases do not exceed, and
the largest. Of several results of one target the larger figures are shown.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

NOT_A_NUMBER = 1e307
"""Where a result's JSON stands for infinity."""


def table(paths: list[Path]) -> str:
    """The table as Markdown."""
    found: dict[tuple[str, str, str], tuple[int, float, float]] = {}
    for path in paths:
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            for output, largest in row["ratios"].items():
                key = row["target"], output, row["dtype"]
                most = row["ratios_of_999_in_1000"][output]
                cases, earlier_most, earlier = found.get(key, (0, 0.0, 0.0))
                found[key] = (
                    cases + row["executed"],
                    max(most, earlier_most),
                    max(largest, earlier),
                )
    lines = ["| target | output | dtype | cases | 999 of 1000 | largest |"]
    lines.append("| --- | --- | --- | ---: | ---: | ---: |")
    for (target, output, dtype), (cases, most, largest) in sorted(found.items()):
        cells = (target, output, dtype, f"{cases:,}", _number(most), _number(largest))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _number(ratio: float) -> str:
    return "inf" if ratio > NOT_A_NUMBER else f"{ratio:.3g}"


def main() -> None:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("results", type=Path, nargs="+", help="what ln-fuzz run --json wrote")
    print(table(parser.parse_args().results))


if __name__ == "__main__":
    main()
