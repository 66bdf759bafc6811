"""Which recipes the final runs compare."""

from __future__ import annotations

from pathlib import Path

from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialSpec
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.finals.finalists import choose_finalists
from nbt.tuning.storage.records import StudyRecord, TrialRecord
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
        assert [finalist.name for finalist in finalists] == [DEFAULT_RECIPE, "trial 1", "trial 2"]

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
