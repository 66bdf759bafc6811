"""The informed design: its blocks, its core, its strata, and its use of finished runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from nbt.paths import bundled_folder
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.experience.informed_design import BLOCK_SIZE, InformedDesign, best_settings, draw_params
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.experience.recording import Journal, Recording, n_runs, plan_informed_runs
from nbt.tuning.experience.strata import AXES, STRATUM_SIZE, stratum
from nbt.tuning.space.space import Space
from tests.tuning.benchmark.tables import LENGTH, header, make_curve
from tests.tuning.fakes import FakeEngine

RECORDING_SPACE = Space.load(bundled_folder("studies") / "recording_space.yaml")


def design(name: str = "birds", seed: int = 0, tables: tuple[RecordedTable, ...] = ()) -> InformedDesign:
    return InformedDesign(RECORDING_SPACE, LENGTH, name, seed, tables)


def run_of(settings: TransferSettings, accuracy: float, setting: int = 0) -> RecordedRun:
    return RecordedRun(setting=setting, seed=0, origin="", settings=settings, curve=make_curve(accuracy, accuracy))


class TestBlocks:
    def test_four_blocks_have_core_strata_and_settings_near_good_ones(self) -> None:
        origins = Counter(design().setting(number, [])[0].split(":")[0] for number in range(4 + 4 * BLOCK_SIZE))
        assert origins == {"anchor": 4, "core": 24, "stratum": 40, "draw": 16}

    def test_the_core_is_the_same_on_every_task_and_the_draws_are_not(self) -> None:
        numbers = range(4, 4 + BLOCK_SIZE)
        for number in numbers:
            (origin, first), (_, second) = (design(name).setting(number, []) for name in ("birds", "cells"))
            assert (first == second) == (origin != "draw"), number

    def test_settings_have_three_lengths_and_strata_one(self) -> None:
        settings = [design().setting(number, []) for number in range(4 + 2 * BLOCK_SIZE)]
        assert {s.epochs for origin, s in settings if origin == "core"} == {LENGTH, LENGTH // 2, 2 * LENGTH}
        assert {s.epochs for origin, s in settings if origin.startswith(("stratum", "anchor"))} == {LENGTH}

    def test_good_settings_of_other_tables_and_of_this_one_are_mutated(self) -> None:
        good = TransferSettings(epochs=LENGTH, frozen_depth=0.5, head_lr=0.05)
        other = RecordedTable(header(), [run_of(good, 0.99)])
        origins = [design(tables=(other,)).setting(n, [run_of(good, 0.9)]) for n in range(4, 4 + BLOCK_SIZE)]
        near = {origin: s for origin, s in origins if origin.startswith(("best of", "own best"))}
        assert set(near) == {f"best of {other.header.name}", "own best"}
        for settings in near.values():
            changed = [name for name in SETTINGS if settings.value(name) != good.value(name) and name != "epochs"]
            assert len(changed) <= 6, "a mutation changes one to four parameters, on which others depend"


def test_most_draws_have_most_techniques_off() -> None:
    rng = np.random.default_rng(0)
    draws = [RECORDING_SPACE.settings(draw_params(RECORDING_SPACE, rng), LENGTH) for _ in range(400)]
    zapped = sum(settings.zap_period > 0 for settings in draws) / len(draws)
    linearised = sum(settings.linearized for settings in draws) / len(draws)
    assert 0.1 < zapped < 0.3, "a quarter of the draws has zapping, and one in four of those the period 0"
    assert 0.05 < linearised < 0.2


@pytest.mark.parametrize("axis", AXES)
def test_a_stratum_changes_one_axis_alone_within_the_space_of_recordings(axis: str) -> None:
    settings = stratum(axis, LENGTH)
    assert len(set(settings)) == STRATUM_SIZE
    assert all(RECORDING_SPACE.can_express(s) for s in settings)
    default = TransferSettings(epochs=LENGTH)
    changed = {name for s in settings for name in SETTINGS if s.value(name) != default.value(name)}
    expected = {
        "binary": {"transfer_depth", "frozen_depth", "head_lr", "body_lr", "sp_mix", "decay_strength"},
        "depth": {"transfer_depth", "frozen_depth"},
        "rates": {"head_lr", "body_lr", "layer_lr_shape"},
        "mix": {"decay_strength", "sp_mix", "sp_depth"},
    }
    assert changed <= expected[axis]


class TestRecording:
    def test_a_resumed_block_keeps_its_settings(self, tmp_path: Path) -> None:
        """The second call plans the same block with results that the first one did not have."""
        journal = Journal(tmp_path / "t.parquet", header())
        first = plan_informed_runs(design(), range(4, 4 + BLOCK_SIZE), {})
        FakeEngine(simulate=lambda spec: list(make_curve(0.6, 0.5))).run(
            Recording(first, journal, n_planned=n_runs(24))
        )
        again = plan_informed_runs(design(), range(4, 4 + BLOCK_SIZE), journal.runs)
        assert again == first

    def test_every_tenth_setting_runs_twice(self) -> None:
        assert n_runs(25) == 28

    def test_best_settings_are_distinct_and_sorted(self) -> None:
        settings = [TransferSettings(epochs=LENGTH, head_lr=lr) for lr in (0.01, 0.02, 0.03)]
        runs = [run_of(s, accuracy) for s, accuracy in zip(settings, (0.5, 0.9, 0.7), strict=True)]
        assert best_settings([*runs, *runs], RECORDING_SPACE, 2) == [settings[1], settings[2]]
