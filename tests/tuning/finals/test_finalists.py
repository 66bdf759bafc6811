"""Which recipes the final runs compare."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialSpec
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.finals.finalists import choose_finalists
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from tests.tuning.fakes import EPOCHS, FakeEngine, config, run_search


def record_of(*trials: tuple[float, dict]) -> StudyRecord:
    """Returns a study of full trials (accuracy, changes to the default recipe)."""
    records = [
        TrialRecord(
            number=number,
            state="complete",
            settings=default_recipe(EPOCHS).replace(**changes),
            curve=(EpochResult(EPOCHS, 1.0, 1.0 - accuracy, accuracy, 1.0),),
        )
        for number, (accuracy, changes) in enumerate(trials)
    ]
    return StudyRecord(
        config=config(), dataset={}, budget="9", epochs_budget=9, epochs_spent=9, seconds_spent=1, pruner="none",
        trials=records,
    )  # fmt: skip


class TestChooseFinalists:
    def test_the_best_trials_and_the_default_recipe(self) -> None:
        record = record_of(
            (0.5, {}), (0.9, {"head_lr": 0.1}), (0.6, {"head_lr": 0.2}), (0.7, {"head_lr": 0.3}), (0.8, {"ema": 0.9})
        )
        finalists = choose_finalists(record)
        assert [(finalist.name, finalist.trial) for finalist in finalists] == [
            ("trial 1", 1), ("trial 4", 4), ("trial 3", 3), (DEFAULT_RECIPE, 0)
        ]  # fmt: skip
        assert finalists[-1].settings == TransferSettings(epochs=EPOCHS)

    def test_the_default_recipe_counts_if_it_is_among_the_best(self) -> None:
        finalists = choose_finalists(
            record_of((0.9, {}), (0.8, {"head_lr": 0.1}), (0.7, {"ema": 0.9}), (0.1, {"ema": 0.98}))
        )
        assert [finalist.name for finalist in finalists] == ["trial 1", "trial 2", "trial 3", DEFAULT_RECIPE]
        assert finalists[-1].trial == 0

    def test_fewer_finalists(self) -> None:
        record = record_of((0.5, {}), (0.9, {"head_lr": 0.1}), (0.6, {"head_lr": 0.2}))
        assert [finalist.name for finalist in choose_finalists(record, 2)] == ["trial 1", DEFAULT_RECIPE]

    def test_a_lucky_trial_among_bad_neighbours_is_behind_trials_that_confirm_each_other(self) -> None:
        """The best value is that of a head rate of .3, but those of .29 and .31 are bad; all around .01 are good."""
        rates = {0.3: 0.80, 0.29: 0.55, 0.31: 0.55, 0.28: 0.55, 0.01: 0.78, 0.0101: 0.78, 0.0099: 0.78, 0.0102: 0.78}
        record = record_of(*((value, {"head_lr": rate}) for rate, value in rates.items()))
        surrogate = PriorSurrogate(Target(epochs=EPOCHS), Space.load("non_binary"))
        assert choose_finalists(record, 2)[0].settings.head_lr == 0.3
        assert choose_finalists(record, 2, surrogate)[0].settings.head_lr == pytest.approx(0.01, rel=0.05)

    def test_too_few_trials_are_ranked_by_their_values(self) -> None:
        record = record_of((0.8, {"head_lr": 0.3}), (0.5, {"head_lr": 0.29}), (0.7, {"head_lr": 0.01}))
        surrogate = PriorSurrogate(Target(epochs=EPOCHS), Space.load("non_binary"))
        assert choose_finalists(record, 2, surrogate)[0].settings.head_lr == 0.3

    def test_a_training_from_scratch_that_may_be_as_good_is_compared(self) -> None:
        trials = [
            (0.80, {"head_lr": 0.1}),
            (0.79, {"head_lr": 0.2}),
            (0.78, {"ema": 0.9}),
            (0.77, {"transfer_depth": 0.0}),
        ]
        record = dataclasses.replace(record_of(*trials), noise=0.02)

        def names(found: StudyRecord, n: int = 4) -> list[str]:
            return [finalist.name for finalist in choose_finalists(found, n)]

        assert names(record) == ["trial 0", "trial 1", "trial 3", DEFAULT_RECIPE]
        assert names(record, 3) == ["trial 0", "trial 3", DEFAULT_RECIPE]
        assert names(record, 2) == ["trial 0", DEFAULT_RECIPE], "the only challenger is the best"
        assert names(dataclasses.replace(record, noise=0.01)) == ["trial 0", "trial 1", "trial 2", DEFAULT_RECIPE]
        without_weights = dataclasses.replace(record, config=config(weights="none"))
        assert names(without_weights) == ["trial 0", "trial 1", "trial 2", DEFAULT_RECIPE]

    def test_equal_settings_run_once(self) -> None:
        finalists = choose_finalists(record_of((0.9, {"ema": 0.9}), (0.8, {"ema": 0.9}), (0.7, {"ema": 0.98})))
        assert [finalist.name for finalist in finalists] == ["trial 0", "trial 2", DEFAULT_RECIPE]
        assert finalists[-1].trial is None

    def test_without_trials_only_the_default_recipe_is_chosen(self) -> None:
        assert [finalist.name for finalist in choose_finalists(record_of())] == [DEFAULT_RECIPE]

    def test_diverged_and_pruned_trials_are_excluded(self, tmp_path: Path) -> None:
        def simulate(spec: TrialSpec) -> list[EpochResult]:
            return [EpochResult(1, float("nan"), None, 0.0, 1.0, diverged=True)]

        record = run_search(tmp_path, "2", FakeEngine(simulate=simulate))
        assert [finalist.name for finalist in choose_finalists(record)] == [DEFAULT_RECIPE]
