"""The display of streams: which, how far, how the last task went."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from nbt.cli.display.output import Output
from nbt.cli.display.stream_progress import StreamProgress
from tests.cli.display.test_progress import Clock, shown
from tests.sample_stream import make_config, make_scores, make_stream

CONFIGS = [make_config("dlcft"), make_config("ewc")]
MEMORY: Any = {"dlcft": SimpleNamespace(kind="kfac", parameters=21029, nbytes=3 * 2**20, each=2**20, count=3)}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> StreamProgress:
    return StreamProgress(Output(), clock=clock)


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


def test_lines_say_what_happens(progress: StreamProgress, err: Callable[[], list[str]]) -> None:
    progress.update("decoding images", 1, 10)
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_finished(make_stream("dlcft"), kept=True)
    progress.stream_started(CONFIGS[1], make_scores()[:1])
    progress.update("task 2 of 3", 13, 36)
    progress.task_finished(CONFIGS[1], make_scores()[1])
    assert err() == [
        "decoding images",
        "dlcft: kfac curvature of 21,029 weights takes 3.0 MiB (3 of 1.0 MiB)",
        f"stream 1 of 2: {CONFIGS[0].name} was finished before",
        f"stream 2 of 2: {CONFIGS[1].name}, goes on after task 1",
        "ewc, task 2 of 3: 80.0 % on it, 75.0 % on all 2 so far, 20 s",
    ]


def test_the_display_has_tasks_and_epochs_and_time_left(progress: StreamProgress, clock: Clock) -> None:
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_started(CONFIGS[0], [])
    progress.update("task 1 of 3", 3, 36)
    assert shown(progress) == [
        CONFIGS[0].name,
        "streams 0 of 2",
        "tasks task 1 of 3, about 0.0 s left",
        "epochs 3 of 12",
    ]
    clock.now += 30.0
    progress.task_finished(CONFIGS[0], make_scores()[0])
    progress.update("task 2 of 3", 15, 36)
    assert shown(progress)[2:] == [
        "tasks task 2 of 3, about 42 s left",
        "epochs 3 of 12",
        "last task 1: 90.0 % on it, 10 s",
    ]


def test_earlier_tasks_do_not_make_the_rest_look_short(progress: StreamProgress, clock: Clock) -> None:
    progress.streams_planned(CONFIGS, {})
    progress.stream_started(CONFIGS[0], make_scores()[:2])
    progress.update("task 3 of 3", 24, 36)
    assert shown(progress)[2] == "tasks task 3 of 3"
    clock.now += 10.0
    progress.update("task 3 of 3", 25, 36)
    assert shown(progress)[2] == "tasks task 3 of 3, about 1 min 50 s left"


def test_what_an_interruption_leaves(progress: StreamProgress) -> None:
    assert progress.kept == "nothing was finished yet"
    progress.streams_planned(CONFIGS, {})
    progress.stream_started(CONFIGS[0], [])
    assert progress.kept == "nothing was finished yet"
    progress.task_finished(CONFIGS[0], make_scores()[0])
    assert progress.kept == f"1 task of {CONFIGS[0].name} kept"
    progress.stream_finished(make_stream("dlcft"), kept=False)
    assert progress.kept == "1 of 2 streams kept"
    progress.stream_started(CONFIGS[1], make_scores()[:2])
    assert progress.kept == f"1 of 2 streams and 2 tasks of {CONFIGS[1].name} kept"


def test_a_task_that_diverged_says_so(progress: StreamProgress, err: Callable[[], list[str]]) -> None:
    from dataclasses import replace

    progress.task_finished(CONFIGS[0], replace(make_scores()[0], diverged=True))
    assert err() == ["dlcft, task 1 of 3: diverged, 10 s"]


def test_quiet_is_quiet(clock: Clock, err: Callable[[], list[str]]) -> None:
    out = Output()
    out.verbosity = -1
    progress = StreamProgress(out, clock=clock)
    progress.streams_planned(CONFIGS, MEMORY)
    progress.stream_started(CONFIGS[0], [])
    progress.task_finished(CONFIGS[0], make_scores()[0])
    assert err() == []
