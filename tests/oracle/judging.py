"""From an emulated kernel to a verdict, by this oracle or by a mutant of it."""

from __future__ import annotations

import inspect
import sys
from dataclasses import dataclass
from types import ModuleType

import oracle.compare
import oracle.refs
from oracle.arithmetic import Arithmetic
from oracle.compare import Comparison
from oracle.formats import F64, FORMATS, round_to
from oracle.refs import Problem


@dataclass(frozen=True)
class Judge:
    """The modules that a verdict comes from."""

    refs: ModuleType = oracle.refs
    compare: ModuleType = oracle.compare

    def judge(
        self,
        problem: Problem,
        arithmetic: Arithmetic,
        outputs: dict[str, F64],
        dtypes: dict[str, str] | None = None,
    ) -> dict[str, Comparison]:
        """Store each output (in float32 unless ``dtypes`` says otherwise) and compare it."""
        dtypes = dict.fromkeys(outputs, "float32") | (dtypes or {})
        stored = {n: round_to(v, FORMATS[dtypes[n]]) for n, v in outputs.items()}
        bounded = self.refs.decompose(problem, arithmetic, stored)
        # A running mean meets infinity - infinity before the mean of the row does.
        strict = arithmetic.variance != "welford"
        return {
            name: self.compare.compare(
                value, self.compare.expect(bounded[name], dtypes[name]), strict_nonfinite=strict
            )
            for name, value in stored.items()
        }


ORACLE = Judge()


def mutant(module: ModuleType, old: str, new: str) -> ModuleType:
    """A copy of an oracle module whose source has ``new`` in place of the one ``old``.

    Raises: ValueError when ``old`` is not there exactly once.
    """
    source = inspect.getsource(module)
    if source.count(old) != 1:
        raise ValueError(f"{source.count(old)} occurrences in {module.__name__} of: {old}")
    name = f"{module.__name__}_mutant"
    copy = ModuleType(name)
    code = compile(source.replace(old, new), name, "exec")
    # Dataclasses look their module up while they are being made.
    sys.modules[name] = copy
    try:
        exec(code, copy.__dict__)
    finally:
        del sys.modules[name]
    return copy


def judge_by(module: ModuleType) -> Judge:
    """A judge that uses this copy of one of the oracle's modules."""
    if module.__name__.startswith(oracle.compare.__name__):
        return Judge(compare=module)
    if module.__name__.startswith(oracle.refs.__name__):
        return Judge(refs=module)
    refs = mutant(oracle.refs, "from oracle import bounds\n", "")
    refs.bounds = module  # type: ignore[attr-defined]
    return Judge(refs=refs)
