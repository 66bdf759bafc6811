from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from nbt.errors import UsageError
from nbt.search.replay.pool import Catalogue
from nbt.search.replay.truth import judge, run_noise, smooth
from nbt.search.stats import accuracy_error
from tests.search.replay.tables import SPACE, make_table, merit


def test_the_test_accuracy_is_the_mean_over_seeds() -> None:
    catalogue = Catalogue(make_table(12), SPACE)
    truth = judge(catalogue)
    runs = catalogue.settings[0].runs
    assert truth.test[0] == pytest.approx(sum(run.test_accuracy or 0 for run in runs) / 2)
    assert truth.test[0] != runs[0].test_accuracy


def test_noise_is_found_from_pairs() -> None:
    truth = judge(Catalogue(make_table(400, noise=0.02), SPACE))
    assert truth.pairs >= 10
    assert truth.run_noise == pytest.approx(0.02, rel=0.5)
    assert truth.image_noise == pytest.approx(accuracy_error(truth.best, 400))


def test_settings_that_train_badly_do_not_count_as_noise() -> None:
    pairs = [np.asarray([0.9, 0.92])] * 3 + [np.asarray([0.1, 0.5])]
    assert run_noise(pairs, 0.8) == (pytest.approx(0.02 / 2**0.5), 3)
    assert run_noise(pairs[2:], 0.8)[1] == 2, "with too few good ones all of them count"
    assert run_noise([np.asarray([0.5])], 0.0) == (None, 0)


def test_smoothing_says_what_the_apparent_best_is_worth() -> None:
    errors = []
    for seed in range(8):
        catalogue = Catalogue(make_table(200, seed=seed, noise=0.04), SPACE)
        real = np.asarray([merit(setting.settings) for setting in catalogue.settings])
        test = judge(catalogue).test
        counts = np.asarray([len(setting.runs) for setting in catalogue.settings], dtype=float)
        smoothed = smooth(test, counts, catalogue.points, 0.04)
        errors.append([values.max() - real[values.argmax()] for values in (test, smoothed)])
    lucky, smoothed_error = np.mean(errors, axis=0)
    assert lucky > 0.03
    assert abs(smoothed_error) < 0.4 * lucky


def test_without_noise_nothing_is_smoothed() -> None:
    catalogue = Catalogue(make_table(30, noise=0.0), SPACE)
    truth = judge(catalogue)
    assert truth.smoothed == pytest.approx(truth.test)
    assert truth.best == pytest.approx(max(merit(setting.settings) for setting in catalogue.settings), abs=1e-6)


def test_a_second_seed_is_trusted_more() -> None:
    draws = np.random.default_rng(0)
    points, test = draws.random((40, 3)), draws.random(40) * 0.1
    test[0] = 0.3
    once, often = np.ones(40), np.ones(40)
    often[0] = 4
    assert smooth(test, once, points, 0.03)[0] < smooth(test, often, points, 0.03)[0] < 0.3


def test_a_disaster_next_door_says_nothing_on_a_good_setting() -> None:
    draws = np.random.default_rng(0)
    points, test = draws.random((40, 3)), 0.8 + 0.1 * draws.random(40)
    broken = test.copy()
    broken[np.argsort(test)[:10]] = 0.0
    ones = np.ones(40)
    assert smooth(broken, ones, points, 0.02).max() == pytest.approx(smooth(test, ones, points, 0.02).max())


def test_tables_without_test_accuracies_are_refused() -> None:
    with pytest.raises(UsageError, match="without test accuracies"):
        judge(Catalogue(make_table(4, watched=0), SPACE))
    unwatched = make_table(
        4,
        change=lambda run: dataclasses.replace(
            run, curve=tuple(dataclasses.replace(result, watched_accuracy=None) for result in run.curve)
        ),
    )
    with pytest.raises(UsageError, match="without test accuracies"):
        judge(Catalogue(unwatched, SPACE))
