"""A slow tracking server does not delay a search."""

from __future__ import annotations

import logging
import threading
import time

import pytest

from nbt.tracking import Tracker
from nbt.tracking.background import BackgroundObserver
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.sample_study import sample_study


class SlowTracker(Tracker):
    """Notes its calls, each of which waits for an event."""

    def __init__(self) -> None:
        super().__init__("http://127.0.0.1:1", sync_options={"--out": "my reports"})
        self.calls: list[str] = []
        self.go = threading.Event()

    def study_started(self, record: StudyRecord) -> None:
        self._note("started")

    def trial_finished(self, trial: TrialRecord) -> None:
        self._note(f"trial {trial.number}")

    def study_finished(self, record: StudyRecord) -> None:
        self._note("finished")

    def _note(self, call: str) -> None:
        assert self.go.wait(timeout=30)
        self.calls.append(call)


def run_search(observer: BackgroundObserver) -> None:
    record = sample_study()
    observer.study_started(record)
    for trial in record.trials[:3]:
        observer.trial_finished(trial)


def test_trials_do_not_wait_and_the_end_does() -> None:
    tracker = SlowTracker()
    observer = BackgroundObserver(tracker)
    began = time.monotonic()
    run_search(observer)
    assert time.monotonic() - began < 5
    assert tracker.calls == []
    tracker.go.set()
    observer.study_finished(sample_study())
    assert tracker.calls == ["started", "trial 0", "trial 1", "trial 2", "finished"]


def test_the_end_waits_for_a_limited_time(caplog: pytest.LogCaptureFixture) -> None:
    tracker = SlowTracker()
    observer = BackgroundObserver(tracker, final_seconds=0.2)
    run_search(observer)
    with caplog.at_level(logging.WARNING, logger="nbt"):
        observer.study_finished(sample_study())
    [message] = [record.getMessage() for record in caplog.records]
    assert message.endswith("nbt sync cub-mobilenet_v2-non_binary --out 'my reports'")
    assert "\n" not in message
    tracker.go.set()


def test_errors_of_the_tracker_are_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(SlowTracker):
        def _note(self, call: str) -> None:
            raise ValueError("no such call")

    observer = BackgroundObserver(Broken())
    with caplog.at_level(logging.WARNING, logger="nbt"):
        run_search(observer)
        observer.study_finished(sample_study())
    assert len(caplog.records) == 1


def test_a_search_that_fails_before_its_first_trial_ends() -> None:
    tracker = SlowTracker()
    tracker.go.set()
    BackgroundObserver(tracker).study_finished(sample_study())
    assert tracker.calls == ["finished"]
