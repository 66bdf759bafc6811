from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nbt.errors import NbtError
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.benchmark.simulated_engine import ReplayEngine
from nbt.tuning.benchmark.tabular import CandidatePool, TabularBenchmark
from tests.tuning.benchmark.tables import LENGTH, SPACE, diverge, make_table


@dataclass
class RecordingTrialSource:
    """A trial source with given settings that stops some trials and records all calls."""

    pending: list[TransferSettings]
    stop: dict[str, int] = field(default_factory=dict)
    epochs: list[tuple[str, int]] = field(default_factory=list)
    outcomes: dict[str, TrialOutcome] = field(default_factory=dict)
    results: list[EpochResult] = field(default_factory=list)
    started: int = 0

    def next_trial(self) -> TrialSpec | None:
        if not self.pending:
            return None
        self.started += 1
        return TrialSpec(key=f"spec-{self.started}", settings=self.pending.pop(0))

    def on_placed(self, spec: TrialSpec, location: object) -> None:
        raise AssertionError("replayed trials are not placed")

    def on_epoch(self, spec: TrialSpec, result: EpochResult) -> str | None:
        self.epochs.append((spec.key, result.epoch))
        self.results.append(result)
        return "enough" if self.stop.get(spec.key) == result.epoch else None

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        self.outcomes[spec.key] = outcome

    def on_abandoned(self, spec: TrialSpec) -> None:
        raise AssertionError("no trial is abandoned")


@pytest.fixture
def pool() -> CandidatePool:
    return CandidatePool(
        TabularBenchmark(make_table(8, change=lambda run: diverge(run) if run.setting == 4 else run), SPACE)
    )


def settings(pool: CandidatePool, *indices: int) -> list[TransferSettings]:
    return [pool.benchmark.settings[index].settings for index in indices]


def test_a_recorded_curve_is_replayed_to_its_end(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 3)), ReplayEngine(pool)
    engine.run(source)
    assert source.epochs == [("spec-1", epoch) for epoch in range(1, LENGTH + 1)]
    assert source.outcomes["spec-1"].curve == pool.benchmark.settings[3].curves[0]
    assert source.outcomes["spec-1"].stopped is None
    [trial] = engine.trials
    assert (trial.setting, trial.epochs, trial.cumulative_epochs, trial.stopped, trial.distance) == (
        3,
        LENGTH,
        LENGTH,
        None,
        None,
    )
    assert engine.clock.now == pytest.approx(0.5 + LENGTH)


def test_test_accuracies_are_hidden(pool: CandidatePool) -> None:
    source = RecordingTrialSource(settings(pool, 0, 1))
    ReplayEngine(pool).run(source)
    assert all(result.watched_accuracy is None for result in source.results)


def test_a_stopped_trial_ends_and_its_remaining_epochs_are_not_spent(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 3, 5), stop={"spec-1": 2}), ReplayEngine(pool)
    engine.run(source)
    assert source.outcomes["spec-1"].stopped == "enough"
    assert len(source.outcomes["spec-1"].curve) == 2
    assert [(trial.epochs, trial.cumulative_epochs) for trial in engine.trials] == [(2, 2), (LENGTH, LENGTH + 2)]


def test_a_stop_after_the_last_epoch_is_ignored(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 3), stop={"spec-1": LENGTH}), ReplayEngine(pool)
    engine.run(source)
    assert source.outcomes["spec-1"].stopped is None
    assert engine.trials[0].stopped is None


def test_a_diverged_run_ends_early_and_does_not_count_as_stopped(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 4)), ReplayEngine(pool)
    engine.run(source)
    assert source.outcomes["spec-1"].diverged
    assert (engine.trials[0].epochs, engine.trials[0].stopped) == (2, None)


def test_workers_run_in_parallel(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 1, 2, 3), stop={"spec-1": 3}), ReplayEngine(pool, workers=2)
    engine.run(source)
    assert source.epochs[:6] == [(f"spec-{spec}", epoch) for epoch in (1, 2, 3) for spec in (1, 2)]
    assert source.epochs.index(("spec-3", 1)) > source.epochs.index(("spec-1", 3))
    assert engine.clock.now == pytest.approx(3.5 + 0.5 + LENGTH)


def test_the_replay_ends_when_every_setting_was_used(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, *range(8), 0)), ReplayEngine(pool)
    engine.run(source)
    assert len(engine.trials) == 8
    assert len(source.pending) == 1


def test_no_trial_starts_for_which_the_epochs_do_not_suffice(pool: CandidatePool) -> None:
    source, engine = RecordingTrialSource(settings(pool, 0, 1, 2)), ReplayEngine(pool, horizon=2 * LENGTH + 1)
    engine.run(source)
    assert len(engine.trials) == 2
    assert pool.max_epochs == 1


def test_settings_that_were_not_recorded_are_an_error(pool: CandidatePool) -> None:
    with pytest.raises(NbtError, match="spec-1 has settings that were not recorded"):
        ReplayEngine(pool).run(RecordingTrialSource([TransferSettings(head_lr=0.77, epochs=LENGTH)]))
