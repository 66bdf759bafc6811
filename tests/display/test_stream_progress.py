"""The progress display of task streams."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nbt.cli.display.output import Output
from nbt.display.stream_progress import StreamProgress
from tests.display.test_progress import Clock, shown
from tests.sample_stream import make_config, make_scores, make_stream

CONFIGS = [make_config("dlcft"), make_config("ewc")]
MEMORY: Any = {
    "dlcft": SimpleNamespace(kind="kfac", parameters=21029, nbytes=3 * 2**20, bytes_per_curvature=2**20, count=3)
}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> StreamProgress:
    return StreamProgress(Output().progress_mode, clock=clock)


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_of_every_event(progress: StreamProgress, err: Callable[[], list[str]]) -> None:
    progress.update("decoding images", 1, 10)
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_finished(make_stream("dlcft"), kept=True)
    progress.stream_started(CONFIGS[1], make_scores()[:1])
    progress.stream_progress(CONFIGS[1], "task 2 of 3", 13, 36)
    progress.task_finished(CONFIGS[1], make_scores()[1])
    assert err() == [
        "decoding images",
        "dlcft: kfac curvature of 21,029 weights needs 3.0 MiB (3 times 1.0 MiB)",
        f"stream 1 of 2: {CONFIGS[0].name} is already finished",
        f"stream 2 of 2: {CONFIGS[1].name}, resumed after task 1",
        "ewc, task 2 of 3: 80.0 %, 75.0 % on all 2 tasks so far, 20 s",
    ]


def test_the_display_has_tasks_and_epochs_and_time_left(progress: StreamProgress, clock: Clock) -> None:
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_started(CONFIGS[0], [])
    progress.stream_progress(CONFIGS[0], "task 1 of 3", 3, 36)
    assert shown(progress) == [
        CONFIGS[0].name,
        "streams 0 of 2",
        "tasks about 0.0 s left, task 1 of 3",
        "epochs 3 of 12",
    ]
    clock.now += 30.0
    progress.task_finished(CONFIGS[0], make_scores()[0])
    progress.stream_progress(CONFIGS[0], "task 2 of 3", 15, 36)
    assert shown(progress)[2:] == [
        "tasks about 42 s left, task 2 of 3",
        "epochs 3 of 12",
        "last task 1: 90.0 %, 10 s",
    ]


def test_the_time_left_ignores_tasks_of_earlier_sessions(progress: StreamProgress, clock: Clock) -> None:
    progress.streams_planned(CONFIGS, {})
    progress.stream_started(CONFIGS[0], make_scores()[:2])
    progress.stream_progress(CONFIGS[0], "task 3 of 3", 24, 36)
    assert shown(progress)[2] == "tasks task 3 of 3"
    clock.now += 10.0
    progress.stream_progress(CONFIGS[0], "task 3 of 3", 25, 36)
    assert shown(progress)[2] == "tasks about 1 min 50 s left, task 3 of 3"


def test_stored_summary(progress: StreamProgress) -> None:
    assert progress.stored_summary == "no task finished yet"
    progress.streams_planned(CONFIGS, {})
    progress.stream_started(CONFIGS[0], [])
    assert progress.stored_summary == "no task finished yet"
    progress.task_finished(CONFIGS[0], make_scores()[0])
    assert progress.stored_summary == f"1 task of {CONFIGS[0].name} stored"
    progress.stream_finished(make_stream("dlcft"), kept=False)
    assert progress.stored_summary == "1 of 2 streams stored"
    progress.stream_started(CONFIGS[1], make_scores()[:2])
    assert progress.stored_summary == f"1 of 2 streams and 2 tasks of {CONFIGS[1].name} stored"


def test_streams_that_run_at_a_time(progress: StreamProgress, err: Callable[[], list[str]]) -> None:
    progress.streams_planned(CONFIGS, {})
    for config in CONFIGS:
        progress.stream_started(config, [])
    progress.stream_progress(CONFIGS[0], "task 1 of 3", 3, 36)
    progress.task_finished(CONFIGS[0], make_scores()[0])
    progress.stream_progress(CONFIGS[1], "task 1 of 3", 2, 36)
    assert shown(progress)[0] == CONFIGS[1].name and shown(progress)[-1] == "epochs 2 of 12"
    progress.stream_progress(CONFIGS[0], "task 2 of 3", 13, 36)
    assert shown(progress)[0] == CONFIGS[0].name and shown(progress)[-1] == "last task 1: 90.0 %, 10 s"
    progress.task_finished(CONFIGS[1], make_scores()[0])
    first, second = (config.name for config in CONFIGS)
    assert progress.stored_summary == f"1 task of {first}, 1 task of {second} stored"
    assert [line for line in err() if line.startswith("stream")] == [
        f"stream 1 of 2: {first}",
        f"stream 2 of 2: {second}",
    ]
    progress.stream_finished(make_stream("dlcft"), kept=False)
    assert progress.stored_summary == f"1 of 2 streams and 1 task of {second} stored"


def test_a_diverged_task(progress: StreamProgress, err: Callable[[], list[str]]) -> None:
    from dataclasses import replace

    progress.task_finished(CONFIGS[0], replace(make_scores()[0], diverged=True))
    assert err() == ["dlcft, task 1 of 3: diverged, 10 s"]


def test_quiet_prints_nothing(clock: Clock, err: Callable[[], list[str]]) -> None:
    out = Output()
    out.verbosity = -1
    progress = StreamProgress(out, clock=clock)
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_started(CONFIGS[0], [])
    progress.task_finished(CONFIGS[0], make_scores()[0])
    assert err() == []
