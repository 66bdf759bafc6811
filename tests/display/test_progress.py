"""The progress display on terminals and elsewhere."""

from __future__ import annotations

import io
import sys
import types
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace

import pytest
from rich.console import Console

from nbt.cli.display.output import Output
from nbt.display.modes import python_mode
from nbt.display.progress import Progress, shown_progress
from nbt.display.search_progress import SearchProgress
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.job_clock import JobEstimate
from nbt.tuning.storage.records import FinalRun, StudyRecord
from tests.cli.fakes import make_record, make_trial


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> SearchProgress:
    return SearchProgress(Output().progress_mode, clock=clock)


class FakeIPython(types.ModuleType):
    """A kernel of a notebook, with the pages that its displays show."""

    def __init__(self) -> None:
        super().__init__("IPython")
        self.pages: list[str] = []
        self.display = types.ModuleType("IPython.display")
        self.display.HTML = str  # type: ignore[attr-defined]
        self.display.display = lambda page, display_id: SimpleNamespace(update=self.pages.append)  # type: ignore[attr-defined]

    def get_ipython(self) -> SimpleNamespace:
        return SimpleNamespace(kernel=object())


@pytest.fixture
def ipython(monkeypatch: pytest.MonkeyPatch) -> FakeIPython:
    module = FakeIPython()
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", module.display)
    return module


@pytest.fixture
def err(capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    return lambda: capsys.readouterr().err.splitlines()


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def drawn(progress: Progress, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(progress.render())
    return console.file.getvalue()  # type: ignore[attr-defined]


def shown(progress: Progress) -> list[str]:
    """Returns the lines of the display with single spaces and without bars."""
    text = drawn(progress, 100)
    return [" ".join(line.replace("━", "").replace("╸", "").split()) for line in text.splitlines()]


def start_trial(progress: SearchProgress, number: int, *accuracies: float, spent: int = 0) -> None:
    progress.trial_started(number, TransferSettings(epochs=4), "sampler")
    for epoch, accuracy in enumerate(accuracies, 1):
        progress.epoch_finished(number, EpochResult(epoch, 1.0, 1.0, accuracy, 0.5), spent + epoch)


def test_without_a_terminal_there_is_one_line_per_trial_and_activity(
    progress: SearchProgress, err: Callable[[], list[str]]
) -> None:
    with progress:
        for done in range(4):
            progress.update("decoding images", done, 3)
        progress.study_started(replace(make_record(), experience="2 recorded tables of mine"))
        start_trial(progress, 0, 0.5, 0.7, 0.6, 0.6)
        progress.trial_finished(make_trial(0, "complete", 0.5, 0.7, 0.6, 0.6, origin="anchor: default recipe"))
        start_trial(progress, 1, 0.2, spent=4)
        progress.trial_finished(make_trial(1, "pruned", 0.2, reason="worse than the rest"))
        progress.trial_finished(make_trial(2, "failed", reason="ValueError: no"))
        progress.finals_started(10, ["trial 0", "default recipe"])
        progress.final_run_finished("trial 0", FinalRun(seed=3, curve=(EpochResult(1, 1.0, 1.0, 0.66, 1.0),)))
        progress.study_finished(make_record())
    assert err() == [
        "decoding images",
        "study birds; budget 5",
        "experience: 2 recorded tables of mine",
        "trial 0 complete: 60.0 % ± 4.8 (baseline: default recipe), 4 epochs in 2.0 s, the best so far; "
        "about 0.0 s left, cost 1.0 of 5 trials, 0.0 s so far",
        "trial 1 pruned after 1 epoch in 0.5 s: worse than the rest; best 60.0 % ± 4.8; about 0.0 s left, "
        "cost 1.2 of 5 trials, 0.0 s so far",
        "trial 2 failed: ValueError: no; best 60.0 % ± 4.8; about 0.0 s left, cost 1.2 of 5 trials, 0.0 s so far",
        "finals: trial 0 and default recipe, at most 10 runs with new seeds and folds",
        "final 1: trial 0, seed 3: 66.0 %",
    ]


def test_a_diverged_trial_is_not_the_best_so_far(progress: SearchProgress, err: Callable[[], list[str]]) -> None:
    with progress:
        progress.study_started(make_record())
        start_trial(progress, 0, 0.0)
        diverged = make_trial(0, "complete", 0.0)
        diverged = replace(diverged, curve=tuple(replace(each, diverged=True) for each in diverged.curve))
        progress.trial_finished(diverged)
        start_trial(progress, 1, 0.2)
        progress.trial_finished(make_trial(1, "complete", 0.2))
    first, second = (line for line in err() if line.startswith("trial "))
    assert "diverged" in first and "best" not in first
    assert "the best so far" in second


def test_quiet_prints_nothing(err: Callable[[], list[str]]) -> None:
    out = Output()
    out.configure(verbosity=-1)
    with SearchProgress(out.progress_mode) as progress:
        progress.update("decoding images", 1, 3)
        progress.study_started(make_record())
        progress.trial_finished(make_trial(0, "complete", 0.5))
    assert err() == []


@pytest.mark.parametrize(("term", "redraws"), [("xterm-256color", True), ("dumb", False), (None, False)])
def test_a_dumb_terminal_gets_lines(term: str | None, redraws: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    if term is None:
        monkeypatch.delenv("TERM", raising=False)
    else:
        monkeypatch.setenv("TERM", term)
    with Progress(Output().progress_mode) as progress:
        progress.update("decoding images", 1, 3)
    text = terminal.getvalue()
    assert ("\x1b[" in text) == redraws
    assert (text == "decoding images\n") == (not redraws)


def test_the_display_of_an_activity(progress: SearchProgress) -> None:
    assert shown(progress) == ["starting"]
    progress.update("downloading", 1234, 0)
    assert shown(progress) == ["downloading 1,234"]
    progress.update("decoding images", 25, 50)
    assert shown(progress) == ["decoding images 50 %"]
    progress.update("decoding images", 50, 50)
    assert shown(progress) == ["decoding images"]
    progress.announce("loading the model")
    assert shown(progress) == ["loading the model"]


def test_the_display_of_a_search(progress: SearchProgress, clock: Clock) -> None:
    progress.study_started(make_record())
    assert shown(progress) == ["birds", "search cost 0.0 of 5 trials, 0.0 s so far"]
    start_trial(progress, 0, 0.5, 0.7, 0.6, 0.6)
    progress.trial_finished(make_trial(0, "complete", 0.5, 0.7, 0.6, 0.6))
    start_trial(progress, 1, 0.4, spent=4)
    start_trial(progress, 2)
    clock.now += 60.0
    assert shown(progress) == [
        "birds",
        "search about 3 min 00 s left, cost 1.2 of 5 trials, 1 min 00 s so far",
        "trials 1 complete",
        "best 60.0 % ± 4.8 trial 0 (sampler)",
        "running trial 1 epoch 1 of 4 40.0 % sampler",
        "running trial 2 starting sampler",
    ]


def test_a_budget_in_time_counts_earlier_sessions(progress: SearchProgress, clock: Clock) -> None:
    trials = (make_trial(0, "complete", 0.5), make_trial(1, "running"))
    progress.study_started(make_record(budget="2m", epochs_budget=None, seconds_spent=30.0, trials=trials))
    clock.now += 45.0
    assert shown(progress)[1:3] == ["search about 45 s left, cost 0.2 trials, 1 min 15 s so far", "trials 1 complete"]
    assert progress.stored_trials == 1
    clock.now += 450.0
    assert "about 0.0 s left" in shown(progress)[1]


def test_the_display_of_the_finals(progress: SearchProgress) -> None:
    progress.study_started(make_record())
    progress.finals_started(10, ["trial 0", "default recipe"])
    progress.final_run_finished("trial 0", FinalRun(seed=3, curve=()))
    assert shown(progress) == ["birds", "finals 1 of at most 10 runs"]
    progress.update("testing", 1, 2)
    assert shown(progress) == ["birds", "testing 50 %"]


def estimate(elapsed: float, trials: float = 80.0) -> JobEstimate:
    phases = {"prepare": 4.0, "profile": 6.0, "trials": trials, "finals": 40.0, "train": 10.0, "report": 3.0}
    return JobEstimate(phases, elapsed)


def test_the_whole_is_announced_once_before_the_first_trial(
    progress: SearchProgress, err: Callable[[], list[str]]
) -> None:
    with progress:
        progress.job_estimated(estimate(4.0))
        progress.study_started(make_record())
        progress.job_estimated(estimate(20.0, trials=60.0))
        progress.trial_finished(make_trial(2, "failed", reason="ValueError: no"))
        progress.finals_started(10, ["trial 0", "default recipe"])
    assert err() == [
        "the whole search takes about 2 min 23 s: preparation 4.0 s, fit profile 6.0 s, trials 1 min 20 s, "
        "finals 40 s, last training 10 s, report 3.0 s",
        "finals and last training will take more than half of the time of the trials: a comparison needs 2 recipes on "
        "several folds; a larger --budget lowers their share",
        "study birds; budget 5",
        "trial 2 failed: ValueError: no; about 1 min 43 s left, cost 0.0 of 5 trials, 0.0 s so far",
        "finals: trial 0 and default recipe, at most 10 runs with new seeds and folds, about 1 min 43 s left",
    ]


def test_a_resumed_search_says_what_is_left_and_whether_its_budget_is_spent(
    progress: SearchProgress, err: Callable[[], list[str]]
) -> None:
    trials = tuple(make_trial(number, "complete", 0.5) for number in range(6))
    with progress:
        progress.job_estimated(replace(estimate(84.0), earlier=80.0))
        progress.study_started(make_record(trials=trials, epochs_spent=24))
    whole, _, study = err()
    assert whole.startswith("the whole search takes about 2 min 23 s (about 59 s left, 1 min 20 s in earlier sessions)")
    assert study == "study birds, resumed with 6 trials; budget 5, which is spent: no further trials"


def test_short_trials_make_the_finals_longer_than_them(progress: SearchProgress, err: Callable[[], list[str]]) -> None:
    with progress:
        progress.job_estimated(estimate(4.0, trials=25.0))
    assert err()[1].startswith(
        "finals and last training will take about 2.0 times as long as the trials: a comparison "
    )


def test_the_display_of_the_whole_counts_down_between_estimates(progress: SearchProgress, clock: Clock) -> None:
    progress.job_estimated(estimate(23.0))
    assert shown(progress) == ["starting", "whole about 2 min 00 s left, 23 s so far"]
    progress.study_started(make_record())
    clock.now += 60.0
    assert shown(progress) == [
        "birds",
        "whole about 1 min 00 s left, 1 min 23 s so far",
        "search cost 0.0 of 5 trials, 1 min 00 s so far",
    ]
    progress.finals_started(10, ["trial 0", "default recipe"])
    assert shown(progress)[1:] == ["whole about 1 min 00 s left, 1 min 23 s so far", "finals 0 of at most 10 runs"]
    progress.update("retraining", 1, 2)
    assert shown(progress)[1:] == ["whole about 1 min 00 s left, 1 min 23 s so far", "retraining 50 %"]


def test_only_some_of_many_running_trials_are_shown(progress: SearchProgress) -> None:
    progress.study_started(make_record())
    for number in range(9):
        start_trial(progress, number)
    lines = shown(progress)
    assert len(lines) == 9
    assert lines[-1] == "and 3 more"


def location(node: str, gpu: str = "") -> dict[str, str]:
    return {"node": node, "device": f"cuda:{gpu}" if gpu else "cpu", **({"gpu_index": gpu} if gpu else {})}


def test_locations_are_shown_if_they_differ(progress: SearchProgress, err: Callable[[], list[str]]) -> None:
    progress.study_started(make_record())
    start_trial(progress, 0)
    progress.trial_placed(0, location("alpha", "1"))
    start_trial(progress, 1, 0.4)
    progress.trial_placed(1, location("alpha", "1"))
    start_trial(progress, 2)
    assert shown(progress)[2:] == [
        "running trial 0 starting sampler",
        "running trial 1 epoch 1 of 4 40.0 % sampler",
        "running trial 2 starting sampler",
    ], "all trials run in one location"
    progress.trial_placed(2, location("beta"))
    start_trial(progress, 3)
    assert shown(progress)[2:] == [
        "running trial 0 starting sampler on alpha, GPU 1",
        "running trial 1 epoch 1 of 4 40.0 % sampler on alpha, GPU 1",
        "running trial 2 starting sampler on beta",
        "running trial 3 starting sampler",
    ]
    progress.trial_finished(make_trial(0, "complete", 0.5))
    progress.trial_finished(make_trial(1, "pruned", 0.4, reason="weak"))
    progress.trial_finished(make_trial(2, "failed", reason="ValueError: no"))
    first, second, third = err()[-3:]
    assert "1 epoch in 0.5 s on alpha, GPU 1, the best so far; " in first
    assert second.startswith("trial 1 pruned after 1 epoch in 0.5 s on alpha, GPU 1: weak; ")
    assert third.startswith("trial 2 failed on beta: ValueError: no; ")


def test_the_best_trial_is_the_first_in_rank(progress: SearchProgress) -> None:
    """The validation loss decides only exact ties, as in `rank_trials`."""
    progress.study_started(make_record())
    progress.trial_finished(make_trial(0, "complete", 0.70))
    progress.trial_finished(make_trial(3, "complete", 0.69))
    close = make_trial(1, "complete", 0.70)
    better_loss = EpochResult(1, 1.0, 0.5, 0.70, 0.5)
    progress.trial_finished(type(close)(number=1, state="complete", settings=close.settings, curve=(better_loss,)))
    progress.trial_finished(make_trial(2, "pruned", 0.99))
    assert "best 70.0 % ± 4.5 trial 1 (sampler)" in shown(progress)


def test_stored_trials_are_those_of_the_final_record(progress: SearchProgress) -> None:
    progress.study_started(make_record(trials=(make_trial(0, "complete", 0.5),)))
    progress.trial_finished(make_trial(1, "failed"))
    assert progress.stored_trials == 2
    last: StudyRecord = make_record(trials=(make_trial(0, "complete", 0.5), make_trial(1, "running")))
    progress.study_finished(last)
    assert progress.stored_trials == 1


def test_an_interrupted_trial_is_not_counted_as_failed(progress: SearchProgress, err: Callable[[], list[str]]) -> None:
    progress.study_started(make_record())
    progress.trial_finished(make_trial(0, "failed", reason="interrupted: the search ended before the trial did"))
    assert progress.stored_trials == 0
    assert "trials 1 interrupted" in shown(progress)
    assert err()[1].startswith("trial 0 interrupted: the search ended before the trial did; ")


@pytest.mark.parametrize("width", [80, 60, 40])
def test_time_left_and_best_value_are_visible_at_every_width(
    progress: SearchProgress, clock: Clock, width: int
) -> None:
    config = replace(make_record().config, name="photographs-of-many-birds-mobilenet_v2-non_binary")
    progress.job_estimated(estimate(23.0, trials=7300.0))
    progress.study_started(make_record(config=config, epochs_budget=1200))
    clock.now += 3700.0
    progress.trial_finished(make_trial(0, "complete", 0.5, origin="anchor: default recipe"))
    start_trial(progress, 1, 0.4, spent=1184)
    text = drawn(progress, width)
    assert max(len(line) for line in text.splitlines()) <= width
    assert "whole   " in text and "about 1 h 01 min left" in text
    assert "best      50.0 % ± 4.9" in text
    assert "cost 296.2 of 300 trials" in text
    assert ("1 h 02 min so far" in text) == (width > 40)
    assert "━━━" in text


def test_a_display_in_a_notebook(clock: Clock, ipython: FakeIPython) -> None:
    with SearchProgress(python_mode(None), clock=clock) as progress:
        progress.study_started(make_record(config=replace(make_record().config, name="<b>birds</b>")))
        progress.keep("warning NBT102: <few> images")
        clock.now += 10.0
        progress.epoch_finished(0, EpochResult(1, 1.0, 1.0, 0.5, 0.5), 1)
        progress.epoch_finished(0, EpochResult(2, 1.0, 1.0, 0.5, 0.5), 2)
    first, second, last = ipython.pages[-3:]
    assert "&lt;b&gt;birds&lt;/b&gt;" in first and "<b>" not in "".join(ipython.pages)
    assert "of 5 trials" in second, "two epochs within half a second are one update"
    assert "&lt;few&gt; images" in last and "cost" not in last, "what is kept stays"


def test_python_shows_progress_where_someone_looks(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    assert (python_mode(None), python_mode(True), python_mode(False)) == ("off", "lines", "off")
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    assert (python_mode(None), python_mode(True), python_mode(False)) == ("live", "live", "off")
    request.getfixturevalue("ipython")
    assert (python_mode(None), python_mode(True), python_mode(False)) == ("notebook", "notebook", "off")


def test_a_callback_replaces_the_display(err: Callable[[], list[str]]) -> None:
    def callback(label: str, done: int, total: int) -> None: ...

    with shown_progress(callback, SearchProgress) as (found, display):
        assert (found, display) == (callback, None)
    with shown_progress(True, SearchProgress) as (found, display):
        assert isinstance(display, SearchProgress) and found is not None
        found("decoding images", 1, 3)
    assert err() == ["decoding images"]
