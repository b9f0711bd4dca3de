"""Mutation run: small changes to the code that judges, and which of them the tests do not see.

    python -m ci.mutation                150 mutants, sampled with a fixed seed
    python -m ci.mutation NAME ...       these mutants
    python -m ci.mutation --limit 500    stop after 500 s; the same command goes on from there

The tree is copied to OUT/tree, and mutated there by mutmut with the settings of ci/mutation.toml.
What mutmut lets live runs once more, in a process of its own, against all the tests named there.
Writes OUT/mutation.json (every mutant) and OUT/survivors.txt (as diffs). Exit status: 0 all mutants
judged, 2 not all. mutmut is imported where it is used: nothing else needs it, and no setup has it.
"""

from __future__ import annotations

import argparse
import collections
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ROOT / "ci" / "mutation.toml"
COPIED = ("ci", "fuzz", "ln_kernels", "oracle", "tests")


def prepare(tree: Path, files: list[str]) -> None:
    """Copy the tree, with mutmut's settings; keep the copy, and its results, if nothing changed."""
    sources = sorted(path for folder in COPIED for path in (ROOT / folder).rglob("*.py"))
    settings = (ROOT / "pyproject.toml").read_bytes() + b"\n" + SETTINGS.read_bytes()
    text = b"".join([settings, *(path.read_bytes() for path in sources)])
    digest, stamp = hashlib.sha256(text).hexdigest(), tree / "digest"
    # A copy without them all was left while mutmut wrote its mutants, and may hold half a file.
    whole = all((tree / "mutants" / f"{file}.meta").exists() for file in files)
    if whole and stamp.read_text() == digest:
        return
    if tree.exists():
        shutil.rmtree(tree)
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in COPIED:
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    (tree / "pyproject.toml").write_bytes(settings)
    (tree / "alone").mkdir()
    # Made before any interpreter begins that has it on its path: one that did not find it then
    # does not look for it again.
    (tree / "mutants").mkdir()
    stamp.write_text(digest)


def all_mutants(files: list[str]) -> dict[Path, list[str]]:
    """The mutants of each file, by the names that mutmut gives them."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    found = {}
    for path in map(Path, files):
        names = mutate_file_contents(str(path), path.read_text("utf-8")).mutant_names
        found[path] = [get_mutant_name(path, name) for name in names]
    return found


def sample(found: dict[Path, list[str]], number: int, seed: int) -> dict[str, Path]:
    """That many mutants, of each file in proportion to how many it has."""
    total = sum(map(len, found.values()))
    chosen: dict[str, Path] = {}
    seen = 0
    for path, names in found.items():
        seen += len(names)
        # Each file fills up to its end of the rounded running total: the shares add up.
        share = round(min(number, total) * seen / total) - len(chosen)
        drawn = random.Random(f"{seed} {path}").sample(names, share)
        chosen |= dict.fromkeys(sorted(drawn, key=names.index), path)
    return chosen


def said_by_mutmut(mutants: dict[str, Path]) -> dict[str, str]:
    """What mutmut has recorded so far of each mutant, in its own words."""
    from mutmut.stats import status_by_exit_code

    said = dict.fromkeys(mutants, "not checked")
    for path in set(mutants.values()):
        try:
            recorded = json.loads(Path("mutants", f"{path}.meta").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            continue  # Not begun, or being written just now.
        codes = recorded["exit_code_by_key"].items()
        said |= {name: status_by_exit_code[code] for name, code in codes if name in mutants}
    return said


def environment(mutant: str) -> dict[str, str]:
    """The environment of the tests, which must find the mutated packages before any others."""
    path = os.pathsep.join(filter(None, [str(Path("mutants").resolve()), os.getenv("PYTHONPATH")]))
    # No GPU: these tests need none, and processes that are forked could not share it.
    chosen = {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "", "PYTHONHASHSEED": "0"}
    return {**os.environ, **chosen, "MUTANT_UNDER_TEST": mutant}


def run_mutmut(mutants: dict[str, Path], workers: int, until: float) -> None:
    """Have mutmut judge what it has not judged yet."""
    pending = [name for name, said in said_by_mutmut(mutants).items() if said == "not checked"]
    if not pending:
        return
    code = "from mutmut.__main__ import cli; cli()"
    call = [sys.executable, "-c", code, "run", "--max-children", str(workers), *pending]
    log = Path("mutmut.log")
    with log.open("w") as file:
        # In a session of its own: it is told to stop from here, in order, and all of it can be.
        process = subprocess.Popen(
            call, env=environment(""), stdout=file, stderr=file, start_new_session=True
        )
    try:
        while process.poll() is None and time.monotonic() < until:
            time.sleep(1.0)
            left = list(said_by_mutmut(mutants).values()).count("not checked")
            print(f"\r{len(mutants) - left} of {len(mutants)} mutants run", end="", flush=True)
    finally:
        print()
        stopped = process.poll() is None
        if stopped:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(20.0)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
    if process.wait() != 0 and not stopped:
        raise SystemExit(f"mutmut failed: {log.read_text(errors='replace')[-3000:]}")


def run_alone(mutant: str, tests: list[str], until: float) -> str:
    """One mutant against all tests, in a fresh process: a word of mutmut's."""
    kept = Path("alone", mutant)
    if kept.exists():
        return kept.read_text()
    durations = json.loads(Path("mutants", "mutmut-stats.json").read_text())["duration_by_test"]
    limit, left = 4.0 * (sum(durations.values()) + 15.0), max(until - time.monotonic(), 0.0)
    call = [sys.executable, "-m", "pytest", "-x", "-q", *tests]
    environ, seconds = environment(mutant), min(limit, left)
    try:
        done = subprocess.run(
            call, cwd="mutants", env=environ, capture_output=True, timeout=seconds
        )
        verdict = "killed" if done.returncode else "survived"
    except subprocess.TimeoutExpired:
        if left < limit:
            return "not checked"
        verdict = "timeout"
    kept.write_text(verdict)
    print(f"{verdict}: {mutant}", flush=True)
    return verdict


def judge(mutants: dict[str, Path], tests: list[str], workers: int, until: float) -> dict[str, str]:
    """The verdict on each mutant."""
    run_mutmut(mutants, workers, until)
    verdicts = said_by_mutmut(mutants)
    # Survivors, and what has no tests by mutmut's count or ended in an odd way.
    left = [n for n, s in verdicts.items() if s not in ("killed", "timeout", "not checked")]
    with ThreadPoolExecutor(workers) as pool:
        again = pool.map(lambda name: run_alone(name, tests, until), left)
        return verdicts | dict(zip(left, again, strict=True))


def main(argv: list[str] | None = None) -> int:
    """Run, report, and return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", help="mutants to run instead of a sample")
    parser.add_argument("--mutants", type=int, default=150, help="size of the sample")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--limit", type=float, default=86400.0, help="seconds")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutation")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("mutmut") is None:
        parser.error("mutmut is not installed; `make mutation` installs it, and runs this")
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    until, out = time.monotonic() + options.limit, options.out.resolve()
    settings: dict[str, Any] = tomllib.loads(SETTINGS.read_text("utf-8"))["tool"]["mutmut"]
    prepare(out / "tree", settings["only_mutate"])
    os.chdir(out / "tree")
    found = all_mutants(settings["only_mutate"])
    chosen = sample(found, options.mutants, options.seed)
    if options.names:
        files = {name: path for path, names in found.items() for name in names}
        chosen = {name: files[name] for name in options.names}
    tests = settings["pytest_add_cli_args"] + settings["pytest_add_cli_args_test_selection"]
    verdicts = judge(chosen, tests, options.workers, until)
    counts = collections.Counter(verdicts.values())
    rows = []
    for name, path in chosen.items():
        diff = "" if verdicts[name] == "not checked" else get_diff_for_mutant(name, path=path)
        rows.append({"name": name, "file": str(path), "verdict": verdicts[name], "diff": diff})
    result = {
        "tool": f"mutmut {importlib.metadata.version('mutmut')}",
        "seed": options.seed,
        "mutants_of_files": {str(path): len(names) for path, names in found.items()},
        "counts": counts,
        "mutants": rows,
    }
    (out / "mutation.json").write_text(json.dumps(result, indent=1) + "\n")
    lived = [row for row in rows if row["verdict"] == "survived"]
    (out / "survivors.txt").write_text("".join(f"# {r['name']}\n{r['diff']}\n\n" for r in lived))
    print(", ".join(f"{number} {verdict}" for verdict, number in counts.items()))
    return 2 if counts["not checked"] else 0


if __name__ == "__main__":
    sys.exit(main())
