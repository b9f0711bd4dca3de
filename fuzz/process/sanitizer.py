"""NVIDIA's compute-sanitizer around the kernel process: its command line, its log, its reports.

The log is read after every run, so that a report is charged to the run that caused it. Where the
reports come only when the process ends, each case gets a process of its own. A planted fault shows
which of the two it is, and that the tool sees anything at all.

Imported before NumPy: whatever imports that is imported late.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fuzz.process.wrapping import PID, WrappedContext, write_launcher

if TYPE_CHECKING:
    from fuzz.verdict import Observation, Report, Storage

PROGRAM = "compute-sanitizer"

TOOLS = ("memcheck", "racecheck", "initcheck")

SETTLE = 0.1
"""Seconds without news after which a log is complete, unless the planted fault took longer. What
the tool writes of one launch comes within milliseconds."""

SETTLE_FACTOR = 5.0
"""How many times the delay of the planted fault's report is waited for another."""

CANARY_LIMIT = 5.0
"""Seconds in which a report must come while the process runs, to be charged as it comes."""

PRINT_LIMIT = 10_000
"""Reports that the tool prints of one process before it falls silent. One faulty launch may have a
report for each of its threads."""

WORN_OUT = PRINT_LIMIT // 2
"""Reports after which a process is replaced, so that the next case finds room for its own."""

PADDING = 4096
"""Bytes behind each allocation that are nobody's: memcheck tells neighbours apart by nothing else.
A red zone of the arena is as wide at most."""

_POLL = 0.005
"""Seconds between two looks at a log."""

OPTIONS = {
    # An access that is wrong ends its kernel, not the context: the process goes on. Errors of
    # CUDA calls are in the observation already.
    "memcheck": (
        *("--destroy-on-device-error", "kernel"),
        *("--report-api-errors", "no"),
        *("--padding", str(PADDING)),
    ),
    "racecheck": ("--racecheck-report", "analysis"),
    "initcheck": (),
}

ENVIRONMENT = {
    # Every tensor an allocation of its own: memcheck knows no other bounds.
    "PYTORCH_NO_CUDA_MEMORY_CACHING": "1",
    # Without it a report does not name the line.
    "TRITON_DISABLE_LINE_INFO": None,
}


class SanitizerError(ValueError):
    """The sanitizer cannot do its job; the message says what it said."""


@dataclass(frozen=True)
class Sanitizer:
    """One tool of the program, and the folder of its logs, an absolute path.

    ``settle``: seconds without news after which a run's reports are complete. ``late``: reports
    come only when the process ends.
    """

    tool: str
    program: str
    folder: Path
    settle: float = SETTLE
    late: bool = False

    def log(self, pid: int) -> Path:
        """The log of the process of this id."""
        return self.folder / f"{pid}.log"

    def command(self) -> tuple[str, ...]:
        """The program and its options; the command line of the process to check follows."""
        # What follows a % is for the program to fill in.
        log = str(self.folder / f"{PID}.log").replace("%", "%%")
        return (
            self.program,
            *("--tool", self.tool),
            *("--log-file", log),
            # Not the compilers that Triton starts.
            *("--target-processes", "application-only"),
            # Of the host's frames, all are Python's own.
            *("--show-backtrace", "device"),
            *("--print-limit", str(PRINT_LIMIT)),
            # Importing torch from a cold disk comes before the first CUDA call.
            *("--launch-timeout", "600"),
            *("--require-cuda-init", "no"),
            *OPTIONS[self.tool],
        )

    def context(self) -> WrappedContext:
        """Starts processes under the sanitizer."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return WrappedContext(write_launcher(self.folder, self.command(), ENVIRONMENT))


def find_program(tool: str, device: str) -> str:
    """Where the program is.

    Raises: SanitizerError where it is not, or the device is one that it knows nothing of.
    """
    if device == "cpu":
        raise SanitizerError(
            f"sanitizer={tool!r}, but device='cpu': compute-sanitizer checks CUDA kernels; on a "
            "CPU the strict interpreter checks every access itself"
        )
    program = shutil.which(PROGRAM)
    if program is None:
        raise SanitizerError(
            f"sanitizer={tool!r} needs {PROGRAM}, which is not on the PATH: it comes with the "
            "CUDA toolkit, as a rule in /usr/local/cuda/bin"
        )
    return program


# --- what the log says ----------------------------------------------------------------------------

_PREFIX = "========="

_HARMLESS = re.compile(
    r"COMPUTE-SANITIZER|(ERROR|RACECHECK|LEAK) SUMMARY"
    # How the process ended, which the pool knows, or what it never did.
    r"|Target application returned an error|Error: process didn't terminate successfully"
    r"|Error: couldn't find exit code|Error: Target application terminated before first"
    # What the harness copies back may hold elements that the kernel left out: a check of our own.
    # So are errors of CUDA calls.
    r"|Host API memory access error|Program hit"
)
"""Beginnings of paragraphs that are no reports. What is not known to be harmless is one."""

_TROUBLE = re.compile(r"(Error|Warning):|Internal Sanitizer Error")
"""Beginnings of paragraphs in which the tool says that it cannot do (all of) its job."""

_RACE = re.compile(r"(?:\w+: )?(?:\(.*?\) )?Race reported between (\w+) access at (.+)", re.I)
_RACE_WITH = re.compile(r"and (\w+) access at (.+?)(?: \[([\d.,]+) hazards?\])?$")
_TITLE = re.compile(r"(.+?)(?: of size ([\d.,]+)(?: bytes?)?)?\.?$")
_AT_OLD = re.compile(r"0x[0-9a-f]+ in (?P<file>[^:]+):(?P<line>\d+):(?P<kernel>.+)")
_AT = re.compile(r"(?P<kernel>.+?)(?:[+:]0x[0-9a-f]+)?(?: in (?P<file>[^:]+):(?P<line>\d+))?")
_BY = re.compile(r"by thread (\(.+?\)) in block (\(.+?\))")
_ADDRESS = re.compile(r"(?:Address|Access to) (0x[0-9a-f]+)(?: is (.+))?")
_NEAREST = re.compile(
    r"and is (?:([\d.,]+) bytes? )?(\w+) the nearest allocation at (0x[0-9a-f]+)"
    r"(?: of size ([\d.,]+))?"
)


@dataclass
class Reading:
    """What a piece of a log says. ``printed`` counts reports; equal ones are joined."""

    reports: dict[tuple[str, str, str], Report] = field(default_factory=dict)
    printed: int = 0
    troubles: list[str] = field(default_factory=list)

    def add(self, report: Report) -> None:
        """One more report."""
        self.printed += 1
        key = _key(report)
        first = self.reports.get(key)
        if first is None:
            self.reports[key] = report
        else:
            self.reports[key] = replace(first, count=first.count + report.count)


def _key(report: Report) -> tuple[str, str, str]:
    return report.kind, report.kernel, report.place


def parse(tool: str, text: str) -> Reading:
    """Read a log, or a piece of one that begins and ends between two paragraphs."""
    log = Reading()
    for title, lines in _paragraphs(text):
        race = _RACE.match(title)
        if race is not None:
            log.add(_race(tool, race[1], race[2], lines))
        elif _HARMLESS.match(title):
            continue
        elif _TROUBLE.match(title):
            log.troubles.append(" ".join((title, *lines)))
        else:
            log.add(_access(tool, title, lines))
    return log


def _paragraphs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Title and indented lines of each paragraph."""
    title, lines = "", []
    for line in text.splitlines():
        if not line.startswith(_PREFIX):
            continue
        rest = line[len(_PREFIX) :].rstrip()
        if rest.startswith("   "):
            lines.append(rest.strip())
            continue
        if title:
            yield title, lines
        title, lines = rest.strip(), []
    if title:
        yield title, lines


def _access(tool: str, title: str, lines: list[str]) -> Report:
    """A report of one access of one thread."""
    from fuzz.verdict import Report

    named = _TITLE.fullmatch(title)
    assert named is not None
    report = Report(tool, named[1], "", "", access=f"of {named[2]} bytes" if named[2] else "")
    for line in lines:
        if line.startswith("at ") and not report.kernel:
            kernel, place = _where(line.removeprefix("at "))
            report = replace(report, kernel=kernel, place=place)
        elif line.startswith("Device Frame:"):
            # From a function out to the kernel that it was inlined into.
            kernel, _ = _where(line.removeprefix("Device Frame:").strip())
            report = replace(report, kernel=kernel)
        elif by := _BY.match(line):
            report = replace(report, by=f"thread {by[1]} in block {by[2]}")
        elif address := _ADDRESS.match(line):
            fault = "" if address[2] in (None, "out of bounds") else address[2]
            report = replace(
                report, address=int(address[1], 16), access=_joined(report.access, fault)
            )
        elif nearest := _NEAREST.match(line):
            distance = f"{_number(nearest[1])} bytes " if nearest[1] else ""
            size = f" of {_number(nearest[4])} bytes" if nearest[4] else ""
            where = f"{distance}{nearest[2]} the nearest allocation{size}"
            report = replace(
                report, address=int(nearest[3], 16), access=_joined(report.access, where)
            )
    return report


def _race(tool: str, kind: str, where: str, lines: list[str]) -> Report:
    """A report of accesses to shared memory that are not ordered."""
    from fuzz.verdict import Report

    kernel, place = _where(where)
    others: list[tuple[str, str]] = []
    hazards = 0
    for line in lines:
        other = _RACE_WITH.match(line)
        if other is not None:
            others.append((other[1].lower(), _where(other[2])[1]))
            hazards += _number(other[3] or "1")
    kinds = " and ".join(sorted({access for access, _ in others}))
    at = ", ".join(dict.fromkeys(place for _, place in others if place))
    return Report(
        tool,
        f"Race of a {kind.lower()} with a {kinds}" if kinds else f"Race of a {kind.lower()}",
        kernel,
        place,
        access=f"with {at}" if at else "",
        count=max(hazards, 1),
    )


def _where(text: str) -> tuple[str, str]:
    """Kernel and file:line of a code location, in the forms of all versions."""
    found = _AT_OLD.fullmatch(text) or _AT.fullmatch(text)
    assert found is not None
    # Neither return type, template arguments nor parameters.
    kernel = re.split(r"[<(]", found["kernel"].removeprefix("void "))[0].strip()
    if re.fullmatch(r"0x[0-9a-f]+ in .+", kernel):
        kernel = kernel.partition(" in ")[2]
    place = f"{Path(found['file']).name}:{found['line']}" if found["file"] else ""
    return kernel, place


def _number(text: str) -> int:
    """A number with the separators of any locale."""
    return int(re.sub(r"[.,]", "", text))


def _joined(*parts: str) -> str:
    return ", ".join(part for part in parts if part)


# --- who is charged -------------------------------------------------------------------------------


class Log:
    """The log of one process, read piece by piece. ``offset`` is up to where."""

    def __init__(self, sanitizer: Sanitizer, pid: int, offset: int = 0) -> None:
        self._tool, self._settle = sanitizer.tool, sanitizer.settle
        self._path = sanitizer.log(pid)
        self.offset = offset
        self.printed = 0

    def size(self) -> int:
        """Bytes that there are."""
        return self._path.stat().st_size if self._path.exists() else 0

    def read(self) -> tuple[Report, ...]:
        """What was reported since the last call.

        Raises: SanitizerError where the tool says that it cannot do its job.
        """
        log = self._take()
        if log.troubles:
            raise SanitizerError(f"{PROGRAM}: {'; '.join(dict.fromkeys(log.troubles))}")
        return tuple(log.reports.values())

    def rest(self) -> tuple[Report, ...]:
        """As :meth:`read`, of a process that was ended, whatever the tool says of that."""
        return tuple(self._take().reports.values())

    def _take(self) -> Reading:
        if self.size() <= self.offset:
            return Reading()
        with self._path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        self.offset += len(data)
        log = parse(self._tool, data.decode(errors="replace"))
        self.printed += log.printed
        return log

    def read_settled(self) -> tuple[Report, ...]:
        """As :meth:`read`, once nothing has come for a while."""
        size, since = self.size(), time.monotonic()
        while time.monotonic() - since < self._settle:
            time.sleep(_POLL)
            if self.size() != size:
                size, since = self.size(), time.monotonic()
        return self.read()

    def wait(self, limit: float) -> float | None:
        """Seconds until a report came; None where none came within the limit."""
        began = time.monotonic()
        while time.monotonic() - began < limit:
            if self.read():
                return time.monotonic() - began
            time.sleep(_POLL)
        return None


def charged(seen: Observation, reports: tuple[Report, ...]) -> Observation:
    """The observation of a run with what was reported of it.

    memcheck ends a kernel at its first wrong access: whatever else is seen of the run follows from
    that.
    """
    if not reports:
        return seen
    reports = tuple(replace(r, tensor=_tensor(r, seen.storages)) for r in reports)
    if reports[0].tool != "memcheck":
        return replace(seen, reports=reports)
    return replace(seen, status="reported", outputs={}, damage=(), key=None, reports=reports)


def _tensor(report: Report, storages: Iterable[Storage]) -> str:
    """The tensor whose memory the report is about."""
    for storage in storages:
        start = storage.address
        if report.address is not None and start <= report.address < start + storage.n_bytes:
            return storage.name
    return ""


class Ledger:
    """The engine's account of the logs: what was charged, and what is left when a process ends."""

    def __init__(self, sanitizer: Sanitizer) -> None:
        self._sanitizer = sanitizer
        self.forget()

    def forget(self) -> None:
        """Begin anew, with the processes to come: the cases under way are lost or run again."""
        self._pid = self._offset = 0
        self._known: set[tuple[str, str, str]] = set()

    def charge(
        self, pid: int, offset: int, observations: tuple[Observation, ...]
    ) -> tuple[Observation, ...]:
        """The observations of a case that ran in process ``pid``, with all that was reported.

        The process itself has charged them with the log up to ``offset``. The rest is theirs too
        where it has ended since.
        Raises: SanitizerError where the tool cannot do its job, or the process before this one
        has left what was charged to no case.
        """
        if pid != self._pid:
            self.close()
            self._pid = pid
        ended = bool(observations) and observations[-1].status in ("crashed", "timed_out")
        self._offset = offset
        if ended or self._sanitizer.late:
            log = Log(self._sanitizer, pid, offset)
            self._offset = log.size()
            observations = _charged_at_end(observations, log.read())
        self._known.update(_key(r) for seen in observations for r in seen.reports)
        return observations

    def close(self) -> None:
        """The last process has ended, and with it came all that it reported.

        Raises: SanitizerError where some of it was charged to no case.
        """
        pid, offset, known = self._pid, self._offset, self._known
        self.forget()
        if pid == 0:
            return
        left = [r for r in Log(self._sanitizer, pid, offset).rest() if _key(r) not in known]
        if left:
            what = "; ".join(f"{r.kind} [{r.kernel}, {r.place}]" for r in left)
            raise SanitizerError(
                f"{PROGRAM} reported after the case in question was judged: {what}; "
                f"see {self._sanitizer.log(pid)}"
            )


def _charged_at_end(
    observations: tuple[Observation, ...], reports: tuple[Report, ...]
) -> tuple[Observation, ...]:
    """The observations of a case with what its process has reported by its end.

    It is the run's that the process ended in. Where it ended well, the run is not known, and the
    base run answers for all.
    """
    if not observations or not reports:
        return observations
    if observations[-1].status != "ok":
        return (*observations[:-1], charged(observations[-1], reports))
    return (charged(observations[0], reports), *observations[1:])


def proven(sanitizer: Sanitizer, pid: int, delay: float | None) -> Sanitizer:
    """The sanitizer as a planted fault has shown it, which process ``pid`` has ended with.

    ``delay`` is how long its report took to come; None: it did not while the process ran.
    Raises: SanitizerError where it has not come at all.
    """
    if delay is not None:
        return replace(sanitizer, settle=max(sanitizer.settle, SETTLE_FACTOR * delay))
    if Log(sanitizer, pid).read():
        return replace(sanitizer, late=True)
    raise SanitizerError(
        f"{PROGRAM} --tool {sanitizer.tool} does not report a fault that was planted for it"
    )


def said(sanitizer: Sanitizer) -> str:
    """What the tool says of itself in all of its logs, for a process that could not start."""
    words: dict[str, None] = {}
    for path in sorted(sanitizer.folder.glob("*.log"), key=os.path.getmtime):
        text = path.read_text(encoding="utf-8", errors="replace")
        words |= dict.fromkeys(t for t, _ in _paragraphs(text) if t.startswith("Error"))
        words |= dict.fromkeys(parse(sanitizer.tool, text).troubles)
    return "; ".join(words)
