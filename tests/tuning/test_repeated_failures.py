"""Which failures in a row are equal."""

from __future__ import annotations

import pytest

from nbt.tuning.repeated_failures import RepeatedFailures


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        (["boom"] * 3, [False, False, True]),
        (["boom", "boom", "other", "boom"], [False] * 4),
        (
            ["out of memory: 12.5 MiB at 0x7f3a", "out of memory: 9 MiB at 0x11", "out of memory: 1 MiB at 0xff"],
            [False, False, True],
        ),
    ],
)
def test_failures_are_equal_but_for_numbers(errors: list[str], expected: list[bool]) -> None:
    failures = RepeatedFailures()
    assert [failures.add(error) for error in errors] == expected


def test_a_success_starts_again() -> None:
    failures = RepeatedFailures()
    assert not failures.add("boom") and not failures.add("boom")
    failures.reset()
    assert not failures.add("boom")
