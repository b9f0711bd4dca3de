"""Inputs written down briefly, made into cases.

An example is a dict: ``shape`` of x, and what differs from the plainest input there is. Tensors
that a target needs are given, and so is every optional one that is named: by a dict with
``family``, ``mean``, ``spread`` and ``plants`` ({index: value}) of its values, ``strides``,
``offset``, ``dtype``, ``alias_of``. The others: ``dtype`` (float32), ``normalized_ndim`` (1),
``eps`` (1e-5), ``block`` (the least that holds the row, or the largest), ``num_warps`` (4),
``flags``, ``relations``, and ``refusal`` for an input that must be refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from fuzz.case import Case, Launch, Plant, Recipe, TensorCase, contiguous_strides
from fuzz.space.refusals import REFUSALS
from fuzz.spec import ArgSpec, TargetSpec

_WORDS = frozenset(
    (
        *("shape", "dtype", "normalized_ndim", "eps", "block", "num_warps"),
        *("flags", "relations", "refusal"),
    )
)


def case_of(spec: TargetSpec, example: Mapping[str, Any]) -> Case:
    """The case of an example for a target.

    Raises: ValueError for a word that is not known, and for a refusal that cannot be had.
    """
    known = _WORDS | {arg.name for arg in spec.args}
    if not known.issuperset(example):
        unknown = sorted(example.keys() - known)
        raise ValueError(f"example has {unknown}, must be of {sorted(known)}")
    shape, normalized_ndim = tuple(example["shape"]), example.get("normalized_ndim", 1)
    case = Case(
        spec.name,
        shape,
        normalized_ndim,
        tuple(
            _tensor(arg, shape, normalized_ndim, example)
            for arg in spec.args
            if not arg.optional or arg.name in example
        ),
        {f.name: f.choices[0] for f in spec.flags} | dict(example.get("flags", {})),
        example.get("eps", 1e-5),
        Launch(num_warps=example.get("num_warps", 4), fp_fusion=True),
        seed=1,
        relations=tuple(example.get("relations", ())),
    )
    if spec.launch.blocks:
        blocks = spec.launch.blocks
        least = next((b for b in blocks if b >= case.group_size), blocks[-1])
        launch = dataclasses.replace(case.launch, block=example.get("block", least))
        case = dataclasses.replace(case, launch=launch)
    if "refusal" not in example:
        return case
    spoiled = REFUSALS[example["refusal"]](case)
    if spoiled is None:
        raise ValueError(f"refusal={example['refusal']!r} cannot be had from {example}")
    return dataclasses.replace(spoiled, refusal=example["refusal"])


def _tensor(
    arg: ArgSpec, shape: tuple[int, ...], normalized_ndim: int, example: Mapping[str, Any]
) -> TensorCase:
    own = shape if arg.shape == "full" else shape[len(shape) - normalized_ndim :]
    given = dict(example.get(arg.name, {}))
    # What shares memory with another tensor lies as that one does.
    layout = dict(example.get(given.get("alias_of"), {})) if "alias_of" in given else given
    values = None
    if arg.role != "out":
        values = Recipe(
            given.get("family", "normal"),
            given.get("mean", 0.5),
            given.get("spread", 1.0),
            tuple(Plant(i, v) for i, v in given.get("plants", {}).items()),
        )
    return TensorCase(
        arg.name,
        layout.get("dtype", example.get("dtype", "float32")),
        own,
        tuple(layout.get("strides", contiguous_strides(own))),
        layout.get("offset", 0),
        values,
        given.get("alias_of"),
    )
