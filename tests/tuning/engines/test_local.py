"""The local engine with one worker, which runs its trials in this process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.tuning.engines.local import LocalEngine
from tests.tuning.engines.contract import EngineContract, ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask


class TestInProcess(EngineContract):
    workers = 1

    def make(self, task: FakeTask) -> LocalEngine:
        return LocalEngine(task, workers=1, runner=RUNNER)  # type: ignore[arg-type]

    def test_ctrl_c_during_training(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train", "interrupt", "train"))
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert list(source.done) == ["0000 train"]
        assert source.abandoned == ["0001 interrupt"]

    def test_ctrl_c_that_python_drops_during_training(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("interrupt-in-finaliser", "train"))
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert source.abandoned == ["0000 interrupt-in-finaliser"]
        assert not source.done

    def test_a_termination_is_an_interrupt(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("terminate"))
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert source.abandoned == ["0000 terminate"]

    def test_runs_in_this_process(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train"))
        engine.run(source)
        assert source.done["0000 train"].facts["pid"] == os.getpid()


def test_zero_workers_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers: 0"):
        LocalEngine(FakeTask(tmp_path), workers=0)  # type: ignore[arg-type]
