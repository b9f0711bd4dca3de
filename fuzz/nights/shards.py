"""What a shard leaves for the merge: a file that is written last, so that its absence tells."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from fuzz.jobs.setup import UsageError
from fuzz.nights.outcome import NightResult, Shard

SHARD = "shard.json"
"""Name of the file, beside the history."""

FORMAT = 1


@dataclass(frozen=True)
class ShardFile:
    """The last words of a shard. The counts are those that its history must have."""

    run: str
    shard: int
    shards: int
    seed: int
    exit_code: int
    executed: int
    failed: int
    skipped: int
    interrupted: bool
    format: int = FORMAT


class ShardError(Exception):
    """A shard's last words that cannot be read; the message names the file and the reason."""


def parse_shard(text: str) -> Shard:
    """The shard of ``i/n``.

    Raises: UsageError.
    """
    index, separator, count = text.partition("/")
    if separator and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count):
        return Shard(int(index), int(count))
    raise UsageError(f"shard={text!r}, must be i/n with 1 <= i <= n")


def begin_shard(out: Path) -> None:
    """Take away the last words of an earlier night: this one has not said any."""
    (out / SHARD).unlink(missing_ok=True)


def end_shard(result: NightResult, *, executed: int, failed: int, skipped: int) -> Path:
    """Write the last words, atomically; the counts are those of the history."""
    file = ShardFile(
        run=result.run,
        shard=result.shard.index,
        shards=result.shard.count,
        seed=result.seed,
        exit_code=result.exit_code,
        executed=executed,
        failed=failed,
        skipped=skipped,
        interrupted=result.interrupted,
    )
    with tempfile.NamedTemporaryFile(
        "w", dir=result.out, prefix=".", suffix=".tmp", delete=False, encoding="utf-8"
    ) as temporary:
        temporary.write(json.dumps(asdict(file), indent=1) + "\n")
    return Path(temporary.name).replace(result.out / SHARD)


def read_shard(folder: Path) -> ShardFile | None:
    """The last words of the shard in a folder, None where it has not said any.

    Raises: ShardError.
    """
    path = folder / SHARD
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read: {error}; truncated?") from error
    version = data.get("format") if isinstance(data, dict) else None
    if version != FORMAT:
        raise ShardError(f"{path}: format={version!r}, this version reads format {FORMAT}")
    names = {field.name: field.type for field in fields(ShardFile)}
    kinds = {"str": str, "int": int, "bool": bool}
    for name, kind in names.items():
        if type(data.get(name)) is not kinds[str(kind)]:
            raise ShardError(f"{path}: {name}={data.get(name)!r}, must be {kind}; truncated?")
    return ShardFile(**{name: data[name] for name in names})
