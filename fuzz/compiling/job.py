"""The job: what cases launch is compiled for each GPU, in processes of its own, without torch here.

A process takes one maker's GPUs for its own, because files may ask while they are imported what
they run on.
"""

from __future__ import annotations

import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fuzz.case import Case
from fuzz.compiling.crew import CannotStart, Crew, Lost, Order, Stopped
from fuzz.compiling.gpus import GPUS, Gpu
from fuzz.compiling.tasks import Build, Built, Collect, Collected, Specialisation
from fuzz.gating.outcome import CompiledKernel, CompileReport
from fuzz.process.kernel_process import never

LIMIT = 24
"""Specialisations of one target for one GPU: two cores compile as many for four GPUs in about ten
seconds."""

CASE_LIMIT = 120.0
"""Seconds for the wrapper's part of a case, which takes milliseconds once its file is imported."""

MAX_WORKERS = 16
"""Each takes half a gigabyte before it compiles anything."""

Progress = Callable[[str, int, int], None]
"""Told what is being done, how many of them are done, and of how many."""


@dataclass(frozen=True)
class Bounds:
    """What compiling one specialisation may take, in seconds and bytes, before it is given up.

    An ordinary one takes 0.1 to 0.3 s, the widest blocks in one warp a minute; a process that
    is new imports the target first, where all cores may be busy.
    """

    seconds: float = 120.0
    memory: int = 8 << 30


def compile_cases(
    cases: Sequence[Case],
    *,
    gpus: Sequence[Gpu] = GPUS,
    limit: int = LIMIT,
    workers: int | None = None,
    bounds: Bounds | None = None,
    progress: Progress | None = None,
    stop: Callable[[], bool] = never,
    folder: Path | None = None,
    foreign: Path | None = None,
    like: Sequence[CompiledKernel] = (),
) -> CompileReport:
    """Compile every distinct specialisation that the cases launch, for each GPU.

    At most ``limit`` of each target and GPU: first those that wrappers launch by default, then in
    the order of the cases. Or all those, and only those, that ``like`` has too, to compare with.
    ``folder`` is where targets are found and what is imported from first; ``foreign`` is another
    copy of it, from which nothing under test may come.
    Cases that must be refused launch nothing and are left out. The report counts a specialisation
    once for each target and GPU; where it names errors, some launches of a target are not known.
    """
    began = time.monotonic()
    usable = [case for case in cases if case.refusal is None]
    size = min(workers or min(len(os.sched_getaffinity(0)), MAX_WORKERS), max(len(usable), 1))
    known = frozenset((k.target, k.gpu, k.kernel, k.specialisation) for k in like)
    job = _Job(usable, limit, known, bounds or Bounds(), progress or _tell_nobody, stop)
    ended = []
    try:
        for _, group in itertools.groupby(gpus, key=lambda gpu: gpu.backend):
            mine = tuple(group)
            with Crew(size, gpu=mine[0], folder=folder, foreign=foreign) as crew:
                job.run(crew, mine)
    except Stopped:
        ended.append("stopped before everything was compiled")
    except CannotStart as error:
        ended.append(f"cannot compile: {error}")
    return CompileReport(
        kernels=tuple(job.kernels),
        wanted=job.wanted,
        compiled=len(job.kernels),
        seconds=time.monotonic() - began,
        errors=(*([] if ended else job.errors()), *ended),
    )


def _tell_nobody(what: str, done: int, total: int) -> None:
    pass


@dataclass(frozen=True)
class _Wanted:
    """A specialisation that a target needs on a GPU, and the first run that launches it."""

    target: str
    gpu: Gpu
    text: str
    specialisation: Specialisation
    case: Case
    run: int

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What it is compared by."""
        return self.target, self.gpu.name, self.specialisation.kernel, self.text


@dataclass
class _Job:
    """What was found so far."""

    cases: list[Case]
    limit: int
    # Target, GPU, kernel and text of those to compile, where it is not the first ones.
    known: frozenset[tuple[str, str, str, str]]
    bounds: Bounds
    progress: Progress
    stop: Callable[[], bool]
    kernels: list[CompiledKernel] = field(default_factory=list)
    wanted: int = 0
    launches: Counter[str] = field(default_factory=Counter)
    # By target and reason: the cases and the GPUs, in order.
    troubles: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = field(
        default_factory=dict
    )

    def run(self, crew: Crew, gpus: tuple[Gpu, ...]) -> None:
        """Collect what the cases launch on these GPUs, and compile it.

        Raises: Stopped; CannotStart.
        """
        found = self._collect(crew, gpus)
        self._note_errors(found, gpus)
        chosen: list[_Wanted] = []
        for target in dict.fromkeys(case.target for case in self.cases):
            for gpu in gpus:
                wanted = self._wanted(found, target, gpu)
                if self.known:
                    wanted = [one for one in wanted if one.key in self.known]
                self.wanted += len(wanted)
                chosen += wanted if self.known else wanted[: self.limit]
        self._build(crew, chosen)

    # --- which ------------------------------------------------------------------------------------

    def _collect(self, crew: Crew, gpus: tuple[Gpu, ...]) -> list[Collected | Lost | None]:
        """The answer for each case. None: not asked, because an earlier one ended its process."""
        found: list[Collected | Lost | None] = [None] * len(self.cases)
        fatal: dict[str, int] = {}

        def orders() -> Iterator[Order[int]]:
            for index, case in enumerate(self.cases):
                if case.target not in fatal:
                    yield Order(Collect(case, gpus), index)

        what = f"cases for {gpus[0].backend}"
        self.progress(what, 0, len(self.cases))
        answers = crew.work(orders(), seconds=CASE_LIMIT, stop=self.stop)
        for done, (index, answer) in enumerate(answers, 1):
            assert not isinstance(answer, Built)
            found[index] = answer
            if isinstance(answer, Lost):
                target = self.cases[index].target
                fatal[target] = min(index, fatal.get(target, index))
            self.progress(what, done, len(self.cases))
        for index, case in enumerate(self.cases):
            # What other processes were at meanwhile is a matter of luck.
            if index > fatal.get(case.target, index):
                found[index] = None
        return found

    def _note_errors(self, found: list[Collected | Lost | None], gpus: tuple[Gpu, ...]) -> None:
        """Keep why targets could not be called, and how often they launched something."""
        names = [gpu.name for gpu in gpus]
        for case, answer in zip(self.cases, found, strict=True):
            if isinstance(answer, Lost):
                self._note(case, f"the wrapper cannot be called: {answer.reason}", names)
            elif answer is not None and answer.problem:
                self._note(case, answer.problem, names)
            elif answer is not None:
                self.launches[case.target] += sum(map(len, answer.launched.values()))
                for name, reason in answer.errors.items():
                    self._note(case, f"the wrapper fails without a GPU: {reason}", [name])

    def _note(self, case: Case, reason: str, gpus: list[str]) -> None:
        ids, names = self.troubles.setdefault((case.target, reason), ({}, {}))
        ids[case.case_id] = None
        names |= dict.fromkeys(gpus)

    def errors(self) -> list[str]:
        """Why targets could not be called, each reason once, and which launched nothing."""
        told = []
        for (target, reason), (ids, names) in self.troubles.items():
            of = sum(case.target == target for case in self.cases)
            told.append(
                f"{target}: {reason}; {len(ids)} of {of} cases on {', '.join(names)}, "
                f"the first is {next(iter(ids))}"
            )
        explained = {target for target, _ in self.troubles}
        for case in self.cases:
            if not self.launches[case.target] and case.target not in explained:
                told.append(f"{case.target}: no case launches a Triton kernel")
        return list(dict.fromkeys(told))

    def _wanted(self, found: list[Collected | Lost | None], target: str, gpu: Gpu) -> list[_Wanted]:
        """The distinct specialisations of a target, the most important first."""
        ranked = []
        for index, (case, answer) in enumerate(zip(self.cases, found, strict=True)):
            # What a case pins for another maker's GPU is no fault of the kernel.
            if (case.launch.num_warps or 0) > gpu.max_warps:
                continue
            if case.target == target and isinstance(answer, Collected):
                for launch in answer.launched.get(gpu.name, ()):
                    ranked.append(((not answer.default, index), case, launch))
        ranked.sort(key=lambda item: item[0])
        wanted: dict[str, _Wanted] = {}
        texts: set[tuple[str, str]] = set()
        for _, case, launch in ranked:
            one = launch.specialisation
            if one.identity in wanted:
                continue
            text = one.text
            for number in itertools.count(2):
                if (one.kernel, text) not in texts:
                    break
                # Functions of one name: made by a function, say, for each of several constants.
                text = f"{one.text} #{number}"
            texts.add((one.kernel, text))
            wanted[one.identity] = _Wanted(target, gpu, text, one, case, launch.run)
        return list(wanted.values())

    # --- how they compile -------------------------------------------------------------------------

    def _build(self, crew: Crew, chosen: list[_Wanted]) -> None:
        """Compile each, once for all targets that launch it."""
        what = f"kernels for {', '.join(dict.fromkeys(one.gpu.name for one in chosen))}"
        first = {(one.gpu, one.specialisation.identity): one for one in reversed(chosen)}
        ordered = [one for one in chosen if first[one.gpu, one.specialisation.identity] is one]
        built: dict[tuple[Gpu, str], Built] = {}

        def orders() -> Iterator[Order[_Wanted]]:
            for one in ordered:
                identity = one.specialisation.identity
                yield Order(Build(one.case, one.run, one.gpu, identity, self.bounds.memory), one)

        try:
            self.progress(what, 0, len(ordered))
            for one, answer in crew.work(orders(), seconds=self.bounds.seconds, stop=self.stop):
                assert not isinstance(answer, Collected)
                result = Built(error=answer.reason) if isinstance(answer, Lost) else answer
                built[one.gpu, one.specialisation.identity] = result
                self.progress(what, len(built), len(ordered))
        finally:
            # Of a job that is stopped, what is there.
            for one in chosen:
                done = built.get((one.gpu, one.specialisation.identity))
                if done is not None:
                    self.kernels.append(_kernel(one, done))


def _kernel(one: _Wanted, built: Built) -> CompiledKernel:
    return CompiledKernel(
        target=one.target,
        kernel=one.specialisation.kernel,
        gpu=one.gpu.name,
        specialisation=one.text,
        error=built.error,
        registers=built.registers,
        spilled_bytes=built.spilled_bytes,
        shared_bytes=built.shared_bytes,
        shared_limit=one.gpu.shared_limit,
        place=built.place or one.specialisation.place,
    )
