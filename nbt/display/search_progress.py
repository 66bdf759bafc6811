"""Progress of `nbt search`: time left of the whole, trials, budget, best trial, running trials and where they run."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import RenderableType

from nbt.checks import sort_results
from nbt.display.progress import Progress
from nbt.display.rows import BarRow, text_row
from nbt.metrics import DEFAULT_METRIC, METRICS, Metric
from nbt.report.formatting import cost_text, difference_number, duration, join_words, origin_text, pluralise, score_text
from nbt.report.study.checks.registry import data_checks
from nbt.report.study.hardware import TrialLocation, trial_location
from nbt.report.study.sentences import left_out_sentence
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult
from nbt.tuning.budget import Budget
from nbt.tuning.finals.plan import MAX_FINALS_SHARE, MIN_FINALISTS
from nbt.tuning.job_clock import FINALS, PREPARE, PROFILE, REPORT, TRAIN, TRIALS, JobEstimate
from nbt.tuning.storage.records import FinalRun, StudyObserver, StudyRecord, TrialRecord, count_ended, rank_trials

_MAX_TRIALS_SHOWN = 6
_PHASE_NAMES = {
    PREPARE: "preparation",
    PROFILE: "fit profile",
    TRIALS: "trials",
    FINALS: "finals",
    TRAIN: "last training",
    REPORT: "report",
}
_INTERRUPTED = "interrupted"


class SearchProgress(Progress, StudyObserver):
    """Shows a search as an observer of its study: time left of the whole, trials, best trial so far, running trials."""

    def __init__(self, mode: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(mode, clock=clock)
        self._record: StudyRecord | None = None
        self._budget: Budget | None = None
        self._counts: Counter[str] = Counter()
        self._best: TrialRecord | None = None
        self._running: dict[int, tuple[TransferSettings, str, EpochResult | None]] = {}
        self._locations: dict[int, TrialLocation] = {}  # of the running trials
        self._all_locations: set[TrialLocation] = set()  # of the trials of this session
        self._spent = 0.0  # in epochs of the default recipe
        self._earlier = 0.0  # spent before the clock of this session started
        self._start_time = self._clock()
        self._finals: tuple[int, int] | None = None
        self._estimate: JobEstimate | None = None
        self._estimated_at = 0.0

    @property
    def study(self) -> str | None:
        """The name of the study; None before it is opened."""
        return None if self._record is None else self._record.config.name

    @property
    def _metric(self) -> Metric:
        return METRICS[DEFAULT_METRIC if self._record is None else self._record.config.metric]

    @property
    def stored_trials(self) -> int:
        """The number of stored trials that have ended, including earlier sessions and excluding interrupted trials."""
        return count_ended(self._counts)

    def job_estimated(self, estimate: JobEstimate) -> None:
        """Shows what the whole search takes."""
        if self._estimate is None:
            parts = (f"{_PHASE_NAMES[phase]} {duration(estimate.phases[phase])}" for phase in _PHASE_NAMES)
            about = "at most about" if estimate.is_limit else "about"
            earlier = (
                f" ({about} {duration(estimate.left)} left, {duration(estimate.earlier)} in earlier sessions)"
                if estimate.earlier
                else ""
            )
            self._line(f"the whole search takes {about} {duration(estimate.total)}{earlier}: {', '.join(parts)}")
            if estimate.finals_share > MAX_FINALS_SHARE:
                self._line(
                    f"finals and last training will take {_share_text(estimate.finals_share)}: a comparison needs "
                    f"{MIN_FINALISTS} recipes on several folds; a larger --budget lowers their share"
                )
        self._estimate, self._estimated_at = estimate, self._clock()

    def study_started(self, record: StudyRecord) -> None:
        """Shows the study and takes over the results of earlier sessions."""
        self._record, self._budget = record, Budget.parse(record.budget)
        self._count(record)
        self._best = next(iter(rank_trials(record.trials, record.config.metric)), None)
        self._spent = self._earlier = record.budget_spent
        self._start_time = self._clock()
        self._activity = None
        resumed = f", resumed with {pluralise(self.stored_trials, 'trial')}" if self.stored_trials else ""
        optimised = "" if self._metric.name == DEFAULT_METRIC else f"; optimises the {self._metric.label}"
        spent = ", which is spent: no further trials" if record.has_spent_budget else ""
        self._line(f"study {record.config.name}{resumed}; budget {record.budget}{spent}{optimised}")
        if record.experience and not record.has_ended:
            self._line(f"experience: {record.experience}")
        self._show_checks(record)

    def _show_checks(self, record: StudyRecord) -> None:
        """Shows the failed checks of the data, the worst first, above the display."""
        for result in sort_results(data_checks(record)):
            if result.is_failed:
                self.keep(f"{result.severity} {result.code}: {result.message} {result.advice}")

    def trial_started(self, number: int, settings: TransferSettings, origin: str) -> None:
        """Adds a line for the trial."""
        self._activity = None
        self._running[number] = (settings, origin, None)

    def trial_placed(self, number: int, location: Mapping[str, Any]) -> None:
        """Stores where the trial runs; the display shows it if trials run in several locations."""
        if (known_location := trial_location(location)) != TrialLocation():
            self._locations[number] = known_location
            self._all_locations.add(known_location)

    def epoch_finished(self, number: int, result: EpochResult, spent: float) -> None:
        """Updates the line of the trial and the spent budget."""
        self._spent = spent
        if number in self._running:
            self._running[number] = (*self._running[number][:2], result)
        self._refresh()

    def trial_finished(self, trial: TrialRecord) -> None:
        """Counts the trial and removes its line."""
        self._running.pop(trial.number, None)
        self._counts[trial.outcome] += 1
        best = self._best = next(iter(rank_trials([*filter(None, [self._best]), trial], self._metric.name)), None)
        if best is None or best.diverged:  # no trial has a result yet
            reached = ""
        else:
            reached = ", the best so far" if trial is best else f"; best {self._value(best)}"
        self._line(f"{self._describe(trial)}{reached}; {', '.join(filter(None, self._spent_texts()))}")
        self._locations.pop(trial.number, None)

    def finals_started(self, runs: int, finalists: Sequence[str]) -> None:
        """Switches the display to the finals."""
        self._running.clear()
        self._finals = (0, runs)
        self._start_time, self._earlier = self._clock(), self._spent
        fixed = self._record is not None and self._record.has_fixed_validation
        left = f", {self._left_text()}" if self._left_text() else ""
        names = join_words(finalists)
        self._line(f"finals: {names}, at most {runs} runs with new seeds{'' if fixed else ' and folds'}{left}")
        if sentence := left_out_sentence(self._best, finalists, self._metric):
            self._line(sentence)

    def final_run_finished(self, candidate: str, run: FinalRun) -> None:
        """Counts the final run."""
        done, total = self._finals or (0, 0)
        self._finals = (done + 1, total)
        score = score_text(run.score(self._metric.name), self._metric)
        result = f"diverged, counts as {score}" if run.diverged else score
        self._line(f"final {done + 1}: {candidate}, seed {run.seed}: {result}")

    def study_finished(self, record: StudyRecord) -> None:
        """Takes over the final state of the study."""
        self._record = record
        self._count(record)
        self._running.clear()

    def _rows(self) -> list[RenderableType]:
        record = self._record
        if record is None:
            return [*super()._rows(), *self._job_rows()]
        rows: list[RenderableType] = [text_row(record.config.name, style="bold"), *self._job_rows()]
        if self._activity is not None:
            rows += super()._rows()
        elif self._finals is not None:
            rows.append(BarRow("finals", *self._finals, [f"{self._finals[0]} of at most {self._finals[1]} runs"]))
        else:
            rows.append(BarRow("search", *self._progress(), self._spent_texts(with_left=self._estimate is None)))
        if self._counts:
            rows.append(text_row("trials", ", ".join(f"{n} {state}" for state, n in self._counts.items())))
        if (best := self._best) is not None:
            rows.append(text_row("best", f"{self._value(best)}   trial {best.number} ({origin_text(best.origin)})"))
        running = sorted(self._running.items())
        for number, state in running[:_MAX_TRIALS_SHOWN]:
            rows.append(
                text_row(
                    "running",
                    self._with_backbone(_running_text(number, *state, self._metric), state[0])
                    + self._location_text(number, "  on "),
                )
            )
        if len(running) > _MAX_TRIALS_SHOWN:
            rows.append(text_row("", f"and {len(running) - _MAX_TRIALS_SHOWN} more"))
        return rows

    def _job_rows(self) -> list[RenderableType]:
        """Returns the line of the whole search, if it could be estimated."""
        if self._estimate is None:
            return []
        elapsed = self._estimate.elapsed + self._clock() - self._estimated_at
        left = self._seconds_left() or 0.0
        return [BarRow("whole", elapsed, elapsed + left, [self._left_text(), f"{duration(elapsed)} so far"])]

    def _left_text(self) -> str:
        left = self._seconds_left()
        return "" if left is None else f"about {duration(left)} left"

    def _location_text(self, number: int, before: str) -> str:
        """Returns the location of a trial after `before`; "" if all trials run in one location."""
        location = self._locations.get(number, TrialLocation())
        several = len(self._all_locations) > 1
        return f"{before}{location}" if several and location != TrialLocation() else ""

    def _count(self, record: StudyRecord) -> None:
        self._counts = Counter(trial.outcome for trial in record.trials if trial.state != "running")

    def _noise(self, trials: Sequence[TrialRecord]) -> float:
        """Returns the standard error of a score at the best of the trials, 0 if it is unknown."""
        from nbt.tuning.storage.reader import noise_of  # imports Optuna, which a search needs anyway

        return (noise_of(trials, self._record.dataset, self._metric.name) if self._record is not None else None) or 0.0

    def _value(self, trial: TrialRecord) -> str:
        """Returns the value of a full-length trial with its standard error."""
        metric, noise = self._metric, self._noise([trial])
        score = trial.score(metric.name)
        error = f" ± {difference_number(noise, metric, score, signed=False)}" if score and noise else ""
        return score_text(score, metric) + error

    def _describe(self, trial: TrialRecord) -> str:
        if trial.end == _INTERRUPTED:
            return f"trial {trial.number} {trial.reason}"
        location = self._location_text(trial.number, " on ")
        if trial.state == "failed":
            return f"trial {trial.number} failed{location}: {trial.reason}"
        epochs = f"{len(trial.curve)} epoch{'' if len(trial.curve) == 1 else 's'} in {duration(trial.seconds)}"
        if trial.state == "pruned":
            return f"trial {trial.number} pruned after {epochs}{location}: {trial.reason}"
        result = "diverged" if trial.diverged else self._value(trial)
        origin = self._with_backbone(origin_text(trial.origin), trial.settings)
        return f"trial {trial.number} complete: {result} ({origin}), {epochs}{location}"

    def _with_backbone(self, text: str, settings: TransferSettings) -> str:
        """Returns the text with the backbone of a trial if the search has several."""
        record = self._record
        several = record is not None and record.config.candidates
        return f"{text}, {record.config.backbone_name(settings)}" if record is not None and several else text

    def _seconds(self) -> float:
        """Returns the time spent on the search, including earlier sessions."""
        earlier = self._record.seconds_spent if self._record is not None else 0.0
        return earlier + self._clock() - self._start_time

    def _progress(self) -> tuple[float, float]:
        if self._estimate is not None and self._budget is not None and self._budget.seconds is not None:
            return self._seconds(), self._estimate.phases[TRIALS]
        if self._budget is not None and self._budget.seconds is not None:
            return self._seconds(), self._budget.seconds
        return self._spent, (self._record.epochs_budget if self._record is not None else None) or 0

    def _spent_texts(self, with_left: bool = True) -> list[str]:
        """Returns the time left, the cost and the time so far, the most important first."""
        cost = (
            []
            if self._record is None
            else [cost_text(self._spent / self._record.config.epochs, self._record.cost_budget)]
        )
        return [*([self._left_text()] if with_left else []), *cost, f"{duration(self._seconds())} so far"]

    def _seconds_left(self) -> float | None:
        """Returns the time left of the whole search.

        Where the whole could not be estimated, it is that of the trials; None before the first epoch of this session.
        """
        if self._estimate is not None:
            return max(0.0, self._estimate.left - (self._clock() - self._estimated_at))
        done, total = self._progress()
        if self._budget is not None and self._budget.seconds is not None:
            return max(0.0, total - done)
        if self._spent <= self._earlier:
            return None
        return max(0.0, total - done) * (self._clock() - self._start_time) / (self._spent - self._earlier)


def _share_text(share: float) -> str:
    """Returns how long finals and last training will take, as it is estimated."""
    if share < 0.95:
        return "more than half of the time of the trials"
    return f"about {share:.1f} times as long as the trials" if share < math.inf else "all of the time"


def _running_text(
    number: int, settings: TransferSettings, origin: str, last: EpochResult | None, metric: Metric
) -> str:
    state = "starting"
    if last is not None:
        state = f"epoch {last.epoch} of {settings.epochs}  {score_text(last.score(metric.name), metric)}"
    return f"trial {number}  {state}  {origin_text(origin)}"
