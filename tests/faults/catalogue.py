"""Every planted fault, with its class, what was changed, and an input that shows it."""

from __future__ import annotations

from tests.faults.described import DESCRIBED_FAULTS
from tests.faults.entry import Entry
from tests.faults.masks import MASK_FAULTS
from tests.faults.numerics import NUMERIC_FAULTS
from tests.faults.order import ORDER_FAULTS
from tests.faults.planted import plant
from tests.faults.semantics import SEMANTIC_FAULTS
from tests.faults.special_values import SPECIAL_VALUE_FAULTS
from tests.faults.strides import STRIDE_FAULTS

__all__ = ["CATALOGUE", "plant"]

CATALOGUE: tuple[Entry, ...] = (
    *DESCRIBED_FAULTS,
    *MASK_FAULTS,
    *STRIDE_FAULTS,
    *NUMERIC_FAULTS,
    *SEMANTIC_FAULTS,
    *ORDER_FAULTS,
    *SPECIAL_VALUE_FAULTS,
)
