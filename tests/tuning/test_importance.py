from __future__ import annotations

import warnings

import optuna
import pytest

from nbt.tuning.importance import MIN_TRIALS, Importance


def study_of(values: list[tuple[float, float, float]], state: str = "COMPLETE") -> optuna.Study:
    """Returns a study of trials (x, y, accuracy)."""
    study = optuna.create_study(direction="maximize")
    for x, y, accuracy in values:
        ranges = {"x": optuna.distributions.FloatDistribution(0, 1), "y": optuna.distributions.FloatDistribution(0, 1)}
        study.add_trial(
            optuna.create_trial(
                params={"x": x, "y": y},
                distributions=ranges,
                value=accuracy,
                state=optuna.trial.TrialState[state],
            )
        )
    return study


def importance(study: optuna.Study) -> dict[str, float]:
    return Importance(study.get_trials()).shares()


def importance_bounds(study: optuna.Study) -> dict[str, tuple[float, float]]:
    return Importance(study.get_trials()).bounds()


GRID = [(i / 9, ((i * 7) % 10) / 9) for i in range(10)] * 3


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_the_dimension_that_leads_to_high_accuracy_is_important() -> None:
    """Only x above 0.7 gives high accuracy; if the study were minimised, y would be more important."""
    shares = importance(study_of([(x, y, 0.9 if x > 0.7 else 0.5 - 0.3 * (y > 0.8)) for x, y in GRID]))
    assert list(shares) == ["x", "y"]
    assert shares["x"] > 0.8
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_full_trials_give_no_importance() -> None:
    values = [(x, y, x) for x, y in GRID]
    assert importance(study_of(values[: MIN_TRIALS - 1])) == {}
    assert importance(study_of(values[:MIN_TRIALS])) != {}
    assert importance(study_of(values, state="PRUNED")) == {}


def test_equal_accuracies_give_no_importance() -> None:
    assert importance(study_of([(x, y, 0.5) for x, y in GRID])) == {}
    assert importance(study_of([(x, y, 0.5 if i else 0.1) for i, (x, y) in enumerate(GRID)])) != {}


def test_intervals_contain_the_importance_and_are_wider_with_fewer_trials() -> None:
    values = [(x, y, 0.9 * (x > 0.7) + 0.1 * x) for x, y in GRID]
    widths = []
    for count in (10, len(values)):
        study = study_of(values[:count])
        shares, bounds = importance(study), importance_bounds(study)
        assert list(bounds) == list(shares)
        for name, (low, high) in bounds.items():
            assert 0.0 <= low <= shares[name] <= high <= 1.0, name
        widths.append(bounds["x"][1] - bounds["x"][0])
    assert widths[0] > widths[1] > 0.0


def test_a_clear_importance_has_an_interval_apart_from_the_other() -> None:
    bounds = importance_bounds(study_of([(x, y, 0.9 * (x > 0.7) + 0.1 * x) for x, y in 4 * GRID]))
    assert bounds["x"][0] > bounds["y"][1]


def test_intervals_of_many_trials_are_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.tuning import importance as module

    study = study_of([(x, y, x + 0.1 * y) for x, y in 4 * GRID])
    whole = importance_bounds(study)
    monkeypatch.setattr(module, "_MAX_DRAWN", len(GRID))
    part = importance_bounds(study)
    for name in whole:
        width, other = (bounds[name][1] - bounds[name][0] for bounds in (whole, part))
        assert other != width and 0.4 < other / width < 2.5, name


def test_intervals_are_the_same_at_every_call_and_ignore_pruned_trials() -> None:
    study = study_of([(x, y, x + 0.1 * y) for x, y in GRID])
    bounds = importance_bounds(study)
    study.add_trials(study_of([(0.5, y, 2.0) for _, y in GRID], state="PRUNED").trials)
    assert importance_bounds(study) == bounds


def test_no_importance_has_no_interval() -> None:
    assert importance_bounds(study_of([(x, y, 0.5) for x, y in GRID])) == {}
