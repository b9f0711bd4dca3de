"""A finding stands where its message says, else at the change, else at the kernel."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from fuzz.gating.changes import Changes
from fuzz.gating.outcome import Place
from fuzz.gating.places import place_of
from fuzz.strict.faults import Access


@dataclass(frozen=True)
class Part:
    name: str
    file: str
    first_line: int
    last_line: int
    kernel: bool


WRAPPER = Part("norm", "kernels/norm.py", 30, 40, False)
KERNEL = Part("_kernel", "kernels/norm.py", 10, 20, True)
HELPER = Part("_reduce", "kernels/common.py", 5, 9, True)
PARTS = (WRAPPER, KERNEL, HELPER)


def access(file: str, line: int, text: str = "tl.store(y_ptr + cols, y)") -> str:
    place = ("_kernel", "write", f"/somewhere/{file}", line, text, (0, 1, 0))
    return str(Access(*place, "y_ptr", 1, "bfloat16", 1, 2))


@pytest.mark.parametrize(
    "message",
    [
        access("norm.py", 17),
        "Invalid __global__ write of 4 bytes ('y') [_kernel, norm.py:17], first by thread (0, 0, 0)"
        " in block (0, 0, 0); 8 reports of memcheck",
        "Race of a write with a read with norm.py:12, norm.py:14 [_kernel, norm.py:17]; 1 report"
        " of racecheck",
        "read beside 'x', at element 3 (float32), 1 of 2 lanes, where program (1, 0, 0) wrote other"
        " bits at norm.py:12 [_kernel, program (0, 0, 0), norm.py:17: a[b, norm.py:3]]",
    ],
)
def test_place_is_what_the_message_names(message):
    changes = Changes({"kernels/norm.py": ((12, 13),)})
    assert place_of(PARTS, changes, [message]) == Place("kernels/norm.py", 17)


def test_place_is_that_of_the_first_message_that_names_a_part():
    messages = ["y[0]=1", access("library.py", 12), access("common.py", 6), access("norm.py", 17)]
    assert place_of(PARTS, Changes(), messages) == Place("kernels/common.py", 6)


def test_place_in_one_of_two_files_of_a_name_is_where_the_code_is():
    twins = (KERNEL, Part("_kernel", "old/norm.py", 50, 60, True))
    assert place_of(twins, Changes(), [access("norm.py", 55)]) == Place("old/norm.py", 55)
    assert place_of(twins, Changes(), [access("norm.py", 15)]) == Place("kernels/norm.py", 15)
    assert place_of(twins, Changes(), [access("norm.py", 99)]) == Place("kernels/norm.py", 99)


def test_place_is_the_first_changed_line_of_a_kernel():
    changes = Changes({"kernels/norm.py": ((3, 4), (15, 16), (18, 18), (32, 32))})
    messages = ["y[0, 1]=2 (float16), but should be 1", access("library.py", 12)]
    assert place_of(PARTS, changes, messages) == Place("kernels/norm.py", 15)


def test_place_in_a_change_that_begins_before_the_kernel_is_in_the_kernel():
    changes = Changes({"kernels/norm.py": ((1, 12),)})
    assert place_of(PARTS, changes, []) == Place("kernels/norm.py", 10)


def test_place_is_in_the_kernel_that_changed():
    changes = Changes({"kernels/common.py": ((7, 7),), "kernels/norm.py": ((32, 32),)})
    assert place_of(PARTS, changes, []) == Place("kernels/common.py", 7)


def test_place_is_the_first_changed_line_of_another_part():
    changes = Changes({"kernels/norm.py": ((3, 4), (35, 36))})
    assert place_of(PARTS, changes, []) == Place("kernels/norm.py", 35)


def test_place_is_the_first_line_of_the_kernel_where_nothing_changed():
    changes = Changes({"kernels/norm.py": ((3, 4),), "elsewhere.py": ((1, 99),)})
    assert place_of(PARTS, changes, []) == Place("kernels/norm.py", 10)


def test_place_without_a_kernel_is_the_first_part():
    assert place_of((WRAPPER,), Changes(), []) == Place("kernels/norm.py", 30)


def test_place_without_parts_is_none():
    assert place_of((), Changes({"norm.py": ((1, 9),)}), [access("norm.py", 3)]) is None
