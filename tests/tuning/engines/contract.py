"""Tests that every engine must pass: the test class of an engine inherits one of these classes and defines `make`.

`EngineContract` is for every engine, `WorkerProcessContract` for one whose workers are processes of their own.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import platform
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.base import Engine
from tests.tuning.engines.fake_runner import PREDICTIONS, FakeTask
from tests.tuning.engines.processes import is_running, wait_for

EPOCHS = 4


def make_specs(*behaviours: str) -> list[TrialSpec]:
    """Returns one trial per behaviour of `fake_runner`, in this order: "0000 train", "0001 die"."""
    settings = TransferSettings(epochs=EPOCHS)
    return [
        TrialSpec(key=f"{number:04d} {behaviour}", settings=settings) for number, behaviour in enumerate(behaviours)
    ]


class ListSource:
    """Supplies the trials of a list and records the calls that it receives. Abandoned trials are supplied again."""

    def __init__(self, specs: Sequence[TrialSpec]) -> None:
        self.waiting = list(specs)
        self.running: list[TrialSpec] = []
        self.max_running = 0
        self.epochs: list[tuple[str, int]] = []
        self.locations: list[tuple[str, dict[str, Any]]] = []
        self.done: dict[str, TrialOutcome] = {}
        self.abandoned: list[str] = []
        self.stop: Callable[[TrialSpec, EpochResult], str | None] = lambda spec, result: None

    def next_trial(self) -> TrialSpec | None:
        if not self.waiting:
            return None
        spec = self.waiting.pop(0)
        self.running.append(spec)
        self.max_running = max(self.max_running, len(self.running))
        return spec

    def on_placed(self, spec: TrialSpec, location: Mapping[str, Any]) -> None:
        assert spec in self.running
        self.locations.append((spec.key, dict(location)))

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        assert spec in self.running
        self.epochs.append((spec.key, result.epoch))
        return self.stop(spec, result)

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        self.running.remove(spec)
        assert spec.key not in self.done
        self.done[spec.key] = outcome

    def on_abandoned(self, spec: TrialSpec) -> None:
        self.running.remove(spec)
        self.abandoned.append(spec.key)
        self.waiting.insert(0, spec)


class EngineContract:
    """The tests; a subclass defines `make`."""

    workers: int

    def make(self, task: Any) -> Engine:
        """Returns an engine that runs `fake_runner.RUNNER` with `workers` concurrent trials."""
        raise NotImplementedError

    @pytest.fixture
    def task(self, tmp_path: Path) -> FakeTask:
        return FakeTask(tmp_path)

    @pytest.fixture
    def engine(self, task: FakeTask) -> Iterator[Engine]:
        engine = self.make(task)
        yield engine
        engine.close()

    def test_runs_every_trial_once_with_its_whole_curve(self, engine: Engine) -> None:
        specs = make_specs(*["train"] * 5)
        source = ListSource(specs)
        engine.run(source)
        assert list(source.done) == sorted(source.done) or self.workers > 1
        assert source.done.keys() == {spec.key for spec in specs}
        assert Counter(source.epochs) == {(spec.key, epoch): 1 for spec in specs for epoch in range(1, EPOCHS + 1)}
        assert all([r.epoch for r in outcome.curve] == [1, 2, 3, 4] for outcome in source.done.values())
        assert source.max_running == self.workers
        assert not source.running
        assert not source.abandoned

    def test_requested_predictions_arrive_with_the_outcome(self, engine: Engine) -> None:
        kept, other = make_specs("train", "train")
        source = ListSource([dataclasses.replace(kept, keep_predictions=True), other])
        engine.run(source)
        predictions = source.done[kept.key].predictions
        assert predictions is not None
        np.testing.assert_array_equal(predictions.index, PREDICTIONS.index)
        np.testing.assert_array_equal(predictions.log_probabilities, PREDICTIONS.log_probabilities)
        assert source.done[other.key].predictions is None

    def test_epochs_of_a_trial_arrive_in_order_before_its_end(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train"))
        engine.run(source)
        for key in source.done:
            assert [epoch for name, epoch in source.epochs if name == key] == [1, 2, 3, 4]

    def test_the_location_is_reported_before_the_first_epoch(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train", "fail"))
        source.stop = lambda spec, result: None if spec.key in dict(source.locations) else "no location"
        engine.run(source)
        here = {"node": platform.node(), "device": "cpu"}
        for key in ("0000 train", "0001 train"):
            assert [location for name, location in source.locations if name == key] == [here]
            assert source.done[key].stopped is None
        for outcome in source.done.values():
            assert here.items() <= outcome.facts.items(), "failed trials included"
            assert "lost_workers" not in outcome.facts

    def test_run_returns_without_trials(self, engine: Engine) -> None:
        source = ListSource([])
        engine.run(source)
        assert not source.done

    def test_requests_a_trial_after_every_end(self, engine: Engine) -> None:
        first, second = make_specs("train", "train")
        source = ListSource([first])
        original = source.on_done

        def on_done(spec: TrialSpec, outcome: TrialOutcome) -> None:
            original(spec, outcome)
            if spec is first:
                source.waiting.append(second)

        source.on_done = on_done  # type: ignore[method-assign]
        engine.run(source)
        assert list(source.done) == [first.key, second.key]

    def test_a_stop_reason_stops_only_its_trial(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train"))
        source.stop = lambda spec, result: "too slow" if spec.key == "0000 train" and result.epoch == 2 else None
        engine.run(source)
        stopped, other = source.done["0000 train"], source.done["0001 train"]
        assert stopped.stopped == "too slow"
        assert len(stopped.curve) == 2
        assert ("0000 train", 3) not in source.epochs
        assert other.stopped is None
        assert len(other.curve) == EPOCHS

    def test_a_failing_trial_is_reported_and_the_others_continue(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "fail", "train", "train"))
        engine.run(source)
        assert source.done["0001 fail"].error == "ValueError: no"
        assert source.done["0001 fail"].traceback == "Traceback ..."
        assert sum(outcome.error is None for outcome in source.done.values()) == 3

    def test_out_of_memory_alone_on_the_device_is_reported(self, engine: Engine) -> None:
        source = ListSource(make_specs("oom"))
        engine.run(source)
        assert source.done["0000 oom"].out_of_memory
        assert source.done["0000 oom"].error

    def test_workers_keep_their_runner_between_trials_and_runs(self, engine: Engine) -> None:
        source = ListSource(make_specs(*["train"] * 3))
        engine.run(source)
        again = ListSource(make_specs(*["train"] * 3))
        engine.run(again)
        facts = [outcome.facts for outcome in [*source.done.values(), *again.done.values()]]
        trials_per_worker = Counter(fact["pid"] for fact in facts)
        assert len(trials_per_worker) <= self.workers
        for pid, count in trials_per_worker.items():
            assert max(fact["trials_run"] for fact in facts if fact["pid"] == pid) == count
        assert all(fact["worker"] in range(self.workers) for fact in facts)

    @pytest.mark.parametrize("call", ["next_trial", "on_epoch", "on_done"])
    def test_an_error_of_the_source_ends_the_run(self, engine: Engine, call: str) -> None:
        source = ListSource(make_specs(*["train"] * 4))
        original = getattr(source, call)
        calls = 0

        def fail_at_second(*args: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2:
                raise NbtError("three identical failures")
            return original(*args)

        setattr(source, call, fail_at_second)
        with pytest.raises(NbtError, match="three identical failures"):
            engine.run(source)
        ended = 1 if call == "on_done" else 0  # this trial has ended, although its on_done failed
        assert len(source.running) == ended
        assert len(source.done) + len(source.waiting) + ended == 4

    def test_runs_again_after_an_error_of_the_source(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train", "train"))
        source.stop = _raise_error
        with pytest.raises(NbtError):
            engine.run(source)
        source.stop = lambda spec, result: None
        engine.run(source)
        assert len(source.done) == 3

    def test_runs_again_after_an_error_of_the_first_request_of_a_later_run(self, engine: Engine) -> None:
        engine.run(ListSource(make_specs("train")))
        source = ListSource(make_specs("train"))
        source.next_trial = _fail_request  # type: ignore[method-assign]
        with pytest.raises(NbtError):
            engine.run(source)
        source = ListSource(make_specs("train"))
        engine.run(source)
        assert len(source.done) == 1

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_an_interrupt_waits_for_the_source_and_abandons_running_trials(
        self, engine: Engine, number: signal.Signals
    ) -> None:
        before = signal.getsignal(number)
        source = ListSource(make_specs(*["train"] * 4))
        finished: list[str] = []

        def interrupt(spec: TrialSpec, result: EpochResult) -> None:
            signal.raise_signal(number)
            finished.append(spec.key)

        source.stop = interrupt
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert len(finished) == 1, "the call to the source was interrupted"
        assert finished[0] in source.abandoned
        assert not source.running
        assert not source.done
        assert signal.getsignal(number) == before
        source.stop = lambda spec, result: None
        engine.run(source)
        assert len(source.done) == 4

    def test_an_error_while_abandoning_does_not_hide_the_interrupt(self, engine: Engine) -> None:
        source = ListSource(make_specs("train"))

        def interrupt(spec: TrialSpec, result: EpochResult) -> None:
            raise KeyboardInterrupt

        def on_abandoned(spec: TrialSpec) -> None:
            raise NbtError("storage is gone")

        source.stop = interrupt
        source.on_abandoned = on_abandoned  # type: ignore[method-assign]
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)

    def test_close_may_be_called_twice_and_before_any_run(self, task: FakeTask) -> None:
        engine = self.make(task)
        engine.close()
        engine.close()

    def test_close_closes_the_runners(self, engine: Engine, task: FakeTask) -> None:
        source = ListSource(make_specs("train", "train"))
        engine.run(source)
        engine.close()
        engine.close()
        pids = {outcome.facts["pid"] for outcome in source.done.values()}
        assert {path.name for path in task.folder.glob("closed-*")} >= {f"closed-{pid}" for pid in pids}


class WorkerProcessContract(EngineContract):
    """The contract of an engine with two worker processes: failures of workers, and their log records."""

    workers = 2

    def test_a_trial_whose_worker_dies_once_is_retried(self, engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
        source = ListSource(make_specs("train", "die-once", "train"))
        engine.run(source)
        assert len(source.done) == 3
        assert all(outcome.error is None and len(outcome.curve) == EPOCHS for outcome in source.done.values())
        assert len(source.epochs) == len(set(source.epochs)) == 3 * EPOCHS
        assert not source.abandoned
        assert re.search(r"0001 die-once: worker process died.*; running it again", caplog.text)

    def test_decisions_of_the_first_attempt_hold_for_the_retry(self, engine: Engine) -> None:
        source = ListSource(make_specs("die-once-2"))
        source.stop = lambda spec, result: "enough" if result.epoch == 1 else None
        engine.run(source)
        assert source.done["0000 die-once-2"].stopped == "enough"
        assert source.epochs == [("0000 die-once-2", 1)]

    def test_a_trial_whose_workers_die_fails_with_its_curve(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "die", "train"))
        engine.run(source)
        outcome = source.done["0001 die"]
        assert outcome.error is not None and outcome.error.startswith("worker process died")
        assert [result.epoch for result in outcome.curve] == [1]
        assert sum(other.error is None for other in source.done.values()) == 2
        location = {"node": platform.node(), "device": "cpu"}
        assert outcome.facts["lost_workers"] == [{**location, "reason": outcome.error}] * 2
        assert location.items() <= outcome.facts.items()

    def test_an_idle_worker_that_died_is_replaced(self, engine: Engine) -> None:
        source = ListSource(make_specs("train", "train"))
        engine.run(source)
        for outcome in source.done.values():
            os.kill(outcome.facts["pid"], signal.SIGKILL)
        assert wait_for(lambda: not any(is_running(outcome.facts["pid"]) for outcome in source.done.values()))
        again = ListSource(make_specs("train", "train", "train"))
        engine.run(again)
        assert all(outcome.error is None for outcome in again.done.values())

    def test_out_of_memory_reduces_the_concurrency(
        self, engine: Engine, task: FakeTask, caplog: pytest.LogCaptureFixture
    ) -> None:
        closed = set(task.folder.glob("closed-*"))
        source = ListSource(make_specs("oom-once", "train", "train", "train"))
        engine.run(source)
        assert wait_for(lambda: set(task.folder.glob("closed-*")) > closed), "the worker ends, which frees its memory"
        assert source.abandoned == ["0000 oom-once"]
        assert len(source.done) == 4
        assert all(outcome.error is None for outcome in source.done.values())
        assert f"out of memory on cpu of {platform.node()}: concurrent trials reduced to 1" in caplog.text
        later = ListSource(make_specs("train", "train"))
        engine.run(later)
        assert later.max_running == 1

    def test_a_failing_setup_fails_the_trial(self, tmp_path: Path) -> None:
        source = ListSource(make_specs("train"))
        engine = self.make(FakeTask(tmp_path, "fails"))
        try:
            engine.run(source)
        finally:
            engine.close()
        error = source.done["0000 train"].error
        assert error == f"a worker could not be set up on {platform.node()} (RuntimeError: set-up failed)"

    def test_log_records_of_workers_arrive_here(
        self, engine: Engine, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        with caplog.at_level(logging.INFO, logger="nbt"):
            engine.run(ListSource(make_specs("train")))
        engine.close()
        assert "runner 0 is ready" in caplog.text
        assert capfd.readouterr().out == "", "stdout is for results only"


def _fail_request() -> TrialSpec | None:
    raise NbtError("no more")


def _raise_error(spec: TrialSpec, result: EpochResult) -> str | None:
    raise NbtError("no more")
