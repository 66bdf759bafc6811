from __future__ import annotations

import pytest

from nbt.errors import UsageError
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.tuning.stream_task import as_stream, check_stream


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


class TestCheckStream:
    @pytest.mark.parametrize(
        ("scenario", "tasks", "pruner", "message"),
        [
            ("classes", None, "fit", "did you mean class"),
            ("class", 1, "fit", "2 or more"),
            (None, 5, "fit", "scenario"),
            ("task", 5, "asha", "evaluated at their end"),
        ],
    )
    def test_wrong_input_is_rejected(self, scenario: str | None, tasks: int | None, pruner: str, message: str) -> None:
        with pytest.raises(UsageError, match=message):
            check_stream(scenario, tasks, pruner)

    @pytest.mark.parametrize("scenario", [None, "data", "task", "class"])
    def test_valid_input_is_accepted(self, scenario: str | None) -> None:
        check_stream(scenario, None, "fit")


class TestAsStream:
    def test_the_number_of_tasks_follows_from_the_classes(self, digits: Task) -> None:
        assert [as_stream(digits, scenario, None).tasks for scenario in ("data", "task", "class")] == [5, 2, 5]
        assert digits.scenario is None

    def test_more_tasks_than_classes_are_rejected(self, digits: Task) -> None:
        with pytest.raises(UsageError, match="class"):
            as_stream(digits, "class", 6)
