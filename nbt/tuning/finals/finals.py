"""Final runs: the best settings run again with new seeds, on folds unless the split is fixed, until they differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from nbt.errors import NbtError
from nbt.metrics import METRICS
from nbt.option import check_final_seeds
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, is_from_scratch
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.finals.finalists import Finalist, choose_finalists, stored_finalists
from nbt.tuning.finals.plan import MAX_FINALISTS, FinalsPlan, is_cheaper, plan_finals
from nbt.tuning.finals.winner import SelectionState, count_looks, describe_comparison, select_finalist
from nbt.tuning.observers import ObserverGroup
from nbt.tuning.relative_cost import cost_model
from nbt.tuning.run_scores import RunScore, paired_difference
from nbt.tuning.samplers.without_transfer import starts_without_transfer
from nbt.tuning.storage import codec
from nbt.tuning.storage.reader import read_runs, score_of, validation_design
from nbt.tuning.storage.records import FinalRecord, FinalRun, StudyObserver, StudyRecord
from nbt.tuning.storage.study_store import StudyStore
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate


class Finals(TrialSource):
    """The trial source of the final runs of a study (`nbt.tuning.engines.base.TrialSource`).

    Run i of every finalist uses the seed `study seed + i` and fold i of the training and validation images, so that
    differences are paired; fold 0 is the split of the trials. Official validation images are the same in all runs. The
    numbers of finalists and of folds follow from the relative cost of the trials, see
    `nbt.tuning.finals.plan.plan_finals`. Every run is stored when it ends, so that a resumed study repeats none, and
    recipes whose runs are stored stay finalists beside those chosen after a larger budget; runs of version 0.1, whose
    splits were drawn one by one, are not mixed with them. The decision is stored after the last run; `finished` is true
    from the start if no runs are missing.

    Args:
        store: The study, locked by this driver.
        seeds: Maximum number of folds, 2 or more.
        max_cost: What finals and last training may cost at most, in trainings of the default recipe; for a budget in
            time.
        surrogate: Model of the search, which chooses the finalists; None chooses them by their values. Where the
            search starts without transfer, training from scratch is preferred to recipes that are as good.
        checkpoints: Folder for the checkpoints of running trials; None disables checkpoints.
        observers: Observers of the study.

    Raises:
        UsageError: `seeds` is below 2.
    """

    def __init__(
        self,
        store: StudyStore,
        *,
        seeds: int = 5,
        max_cost: float = math.inf,
        surrogate: PriorSurrogate | None = None,
        checkpoints: Path | None = None,
        observers: Sequence[StudyObserver] = (),
    ) -> None:
        check_final_seeds("--final-seeds", seeds)
        record = store.record()
        *challengers, default = choose_finalists(record, MAX_FINALISTS, surrogate)
        plan = _plan(record, challengers, seeds, max_cost)
        self._store, self._max_seeds, self._checkpoints = store, plan.folds, checkpoints
        self._observers = ObserverGroup(observers)
        attributes = store.attributes()
        chosen = [*challengers[: plan.finalists - 1], default]
        self._finalists = [*chosen[:-1], *stored_finalists(record, attributes, plan.folds, chosen), default]
        model, length = cost_model(record), record.config.epochs
        self._costs = {finalist.name: model.training(finalist.settings) / length for finalist in self._finalists}
        self._comparisons = max(1, len(self._finalists) - 1) * count_looks(plan.folds)
        without_transfer = surrogate is not None and starts_without_transfer(surrogate)
        self._from_scratch = {f.name for f in self._finalists if without_transfer and is_from_scratch(f.settings)}
        self._metric = record.config.metric
        self._design = validation_design(record.dataset, self._comparisons, self._metric)
        self._load_predictions = record.load_predictions
        self._runs = {finalist.name: self._stored_runs(attributes, finalist) for finalist in self._finalists}
        self._scores = {
            finalist.name: {i: self._score(finalist, run) for i, run in self._runs[finalist.name].items()}
            for finalist in self._finalists
        }
        self._failed: dict[str, str] = {}
        self._running: dict[str, tuple[Finalist, int]] = {}
        self._state = self._current_state()
        if self._state.finished:
            self._store_decision()
        else:
            done = sum(map(len, self._runs.values()))
            names = [finalist.name for finalist in self._finalists]
            self._observers.finals_started(len(names) * plan.folds - done, names)

    @property
    def finished(self) -> bool:
        """Whether all runs have ended; the study's record then contains finals, recommendation and verdict."""
        return self._state.finished

    def next_trial(self) -> TrialSpec | None:
        """Returns the next run, or None if there is none now; each seed runs for all finalists before the next seed."""
        if self.finished:
            return None
        for round_number in range(1, self._state.rounds + 1):
            for finalist in self._finalists:
                spec = self._spec(finalist, round_number)
                is_started = round_number in self._runs[finalist.name] or spec.key in self._running
                if finalist.name in self._state.active and not is_started:
                    self._running[spec.key] = finalist, round_number
                    return spec
        return None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Stores a run and updates the selection; stores the decision after the last run.

        Raises:
            NbtError: All finalists failed.
        """
        finalist, round_number = self._running.pop(spec.key)
        if outcome.error is not None:
            self._failed[finalist.name] = f"a final run failed: {outcome.error}"
            if len(self._failed) == len(self._finalists):
                raise NbtError(f"no final run succeeded; the last one: {outcome.error}")
        else:
            run = FinalRun(seed=self._seed(round_number), curve=outcome.curve, fold=round_number)
            self._store.put_predictions(codec.final_key(finalist.settings, run.seed, run.fold), outcome.predictions)
            self._store_run(finalist, round_number, run)
        self._state = self._current_state()
        self._store_decision_after_the_last_run()

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a run that the engine returned unfinished; it runs again if the selection still needs it."""
        self._running.pop(spec.key)
        self._store_decision_after_the_last_run()

    def _store_decision_after_the_last_run(self) -> None:
        if self.finished and not self._running:
            self._store_decision()

    def _store_run(self, finalist: Finalist, round_number: int, run: FinalRun) -> None:
        self._store.put(codec.final_key(finalist.settings, run.seed, run.fold), codec.encode_curve(run.curve))
        self._runs[finalist.name][round_number] = run
        self._scores[finalist.name][round_number] = self._score(finalist, run)
        self._observers.final_run_finished(finalist.name, run)

    def _spec(self, finalist: Finalist, round_number: int) -> TrialSpec:
        origin = "default" if finalist.name == DEFAULT_RECIPE else f"{finalist.trial:04d}"
        key = f"final-{origin}-seed-{round_number}"
        return TrialSpec(
            key=key,
            settings=finalist.settings,
            seed=self._seed(round_number),
            split_seed=self._seed(0),
            fold=round_number,
            checkpoint=None if self._checkpoints is None else self._checkpoints / f"{key}.pt",
            keep_predictions=True,
        )

    def _seed(self, round_number: int) -> int:
        """Returns the seed of a round, which is also its fold."""
        return self._store.config.seed + round_number

    def _stored_runs(self, attributes: dict[str, object], finalist: Finalist) -> dict[int, FinalRun]:
        """Returns the stored runs of a finalist by round."""
        base = self._seed(0)
        runs = read_runs(attributes, finalist.settings)
        return {r.fold: r for r in runs if r.fold == r.seed - base and 1 <= r.fold <= self._max_seeds}

    def _score(self, finalist: Finalist, run: FinalRun) -> RunScore:
        """Returns the score of a stored run; its scores per image are those of the stored predictions."""
        return score_of(finalist.settings, run, self._metric, self._load_predictions)

    def _current_state(self) -> SelectionState:
        """Returns the selection state over the rounds that each finalist has run without a gap."""
        scores = {}
        for name, runs in self._scores.items():
            n_rounds = next((i - 1 for i in range(1, self._max_seeds + 2) if i not in runs), 0)
            scores[name] = [runs[i] for i in range(1, n_rounds + 1)]
        return select_finalist(
            scores,
            default=DEFAULT_RECIPE,
            max_seeds=self._max_seeds,
            failed=self._failed,
            design=self._design,
            costs=self._costs,
            simpler=self._from_scratch,
        )

    def _store_decision(self) -> None:
        """Stores the finalists with their seeds, the dropped ones, the recommendation and the verdict.

        Raises:
            NbtError: All finalists failed.
        """
        leader = self._state.leader
        if leader is None:
            raise NbtError("no final run succeeded")
        runs = {
            finalist.name: [run for _, run in sorted(self._runs[finalist.name].items())] for finalist in self._finalists
        }
        default_runs = runs.get(DEFAULT_RECIPE, [])
        entries = [
            {
                "name": finalist.name,
                "trial": finalist.trial,
                "settings": finalist.settings.to_dict(),
                "seeds": [run.seed for run in runs[finalist.name]],
                "dropped": self._state.dropped.get(finalist.name, ""),
                "default": finalist.name == DEFAULT_RECIPE,
            }
            for finalist in self._finalists
            if runs[finalist.name]
        ]
        entries.sort(key=lambda entry: self._sort_key(str(entry["name"]), leader, runs))
        difference = paired_difference(self._scores[leader], self._scores.get(DEFAULT_RECIPE, {}), self._design)
        dearer = self._state.best if self._state.best != leader else DEFAULT_RECIPE
        cheaper_than = dearer if dearer is not None and is_cheaper(self._costs[leader], self._costs[dearer]) else None
        decision = {
            "candidates": entries,
            "failed": {name: why for name, why in self._failed.items() if not runs[name]},
            "recommended": leader,
            "verdict": describe_comparison(
                leader,
                DEFAULT_RECIPE,
                difference,
                METRICS[self._metric],
                self._mean(default_runs),
                cheaper_than=cheaper_than,
                costs=self._costs,
                needs_no_weights=leader in self._from_scratch and self._state.best not in self._from_scratch,
                diverged=sum(run.diverged for run in default_runs),
            ),
            "folds": True,
            "comparisons": self._comparisons,
        }
        self._store.put(codec.FINALS, decision)

    def _sort_key(self, name: str, leader: str, runs: dict[str, list[FinalRun]]) -> tuple[bool, bool, float]:
        """Returns the sort key: the recommended finalist, the others that were not dropped, then the dropped ones.

        Within each group, finalists are sorted by mean score.
        """
        return name != leader, name in self._state.dropped, -self._mean(runs[name])

    def _mean(self, runs: Sequence[FinalRun]) -> float:
        """Returns the mean score of runs, 0 without any."""
        return math.fsum(run.score(self._metric) for run in runs) / max(1, len(runs))


def _plan(record: StudyRecord, challengers: Sequence[Finalist], folds: int, max_cost: float) -> FinalsPlan:
    """Returns the size of the finals of a study, from the relative costs of its trials and of the finalists."""
    model, length = cost_model(record), record.config.epochs
    # The curve of a trial that continues an interrupted one includes the epochs of that trial.
    ended = [trial for trial in record.trials if trial.end != "interrupted"]
    trials = math.fsum(model.training(trial.settings, len(trial.curve)) for trial in ended) / length
    costs = [model.training(finalist.settings) / length for finalist in challengers]
    return plan_finals(trials, costs, folds, retraining=model.retraining, max_cost=max_cost)


def recommended_final(record: StudyRecord) -> FinalRecord:
    """Returns the recommended finalist of a study.

    Raises:
        NbtError: The finals are not finished.
    """
    final = record.final(record.recommended) if record.recommended is not None else None
    if final is None:
        raise NbtError(f"study {record.config.name} has no recommendation yet: its finals are not finished")
    return final
