from __future__ import annotations

import numpy as np
import optuna
import pytest

from nbt.errors import UsageError
from nbt.settings.belief import parse_beliefs
from nbt.tuning.prior_diagnostics import diagnose_priors
from nbt.tuning.priors.beliefs import belief_priors
from nbt.tuning.space.space import Space
from nbt.tuning.storage.reader import read_trial
from nbt.tuning.storage.records import TrialRecord
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.transferred_priors import make_sampler
from tests.tuning.synthetic import LENGTH, SPACE, Task, add, draw, make_study, target, transferred_priors

NON_BINARY = Space.load("non_binary")


def beliefs(text: str, space: Space = NON_BINARY) -> list[str]:
    return [prior.name for prior in belief_priors(parse_beliefs(text), space)]


def test_their_texts_say_what_is_believed() -> None:
    text = (
        "[{dimension: frozen_depth, around: 0.5, spread: 0.2}, {dimension: head_lr, from: 0.01, to: 0.1}, "
        "{dimension: mixup, to: 0.2}, {dimension: optimizer, is: [adamw]}]"
    )
    assert beliefs(text) == [
        "belief about frozen_depth: frozen_depth is about 0.5 (0.3 to 0.7)",
        "belief about head_lr: head_lr is 0.01 to 0.1",
        "belief about mixup: mixup is at most 0.2",
        "belief about optimizer: optimizer is adamw",
    ]


@pytest.mark.parametrize(
    ("text", "space", "message"),
    [
        ("[{dimension: frozen_dept, around: 0.5}]", "non_binary", "unknown dimension; did you mean frozen_depth"),
        ("[{dimension: frozen_depth, around: 1.5}]", "non_binary", "1.5 is outside its range 0 ... 1"),
        ("[{dimension: head_lr, from: 0.01, to: 100}]", "non_binary", "100 is outside its range"),
        ("[{dimension: mixup, around: 0.1}]", "binary", "does not vary it here \\(it is fixed at 0\\)"),
        ("[{dimension: epochs, around: 20}]", "non_binary", "does not vary it here \\(it is fixed at 12\\)"),
        ("[{dimension: optimizer, is: adam}]", "non_binary", "'adam' is not one of sgd, adamw"),
        ("[{dimension: optimizer, around: 1}]", "non_binary", "it has choices"),
        ("[{dimension: head_lr, is: 1}]", "non_binary", "it is a number"),
        ("[{dimension: layer_lr_shape, around: 0}]", "non_binary", "lists of numbers are not supported"),
    ],
)
def test_wrong_beliefs_are_refused(text: str, space: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        beliefs(text, Space.load(space))


def search(text: str | None, seed: int = 0, trials: int = 12) -> tuple[PriorSurrogate, list[TrialRecord], float]:
    """Returns surrogate, trials and mean true score of the trials of a search; the best frozen depth is 1."""
    task = Task("odd", rate=0.6, frozen=1.0)
    surrogate = PriorSurrogate(target(), SPACE, beliefs=belief_priors(parse_beliefs(text), SPACE))
    study, sampler, scores = make_study(), make_sampler(surrogate, seed), []
    for number in range(trials):
        trial = optuna.trial.create_trial(state=optuna.trial.TrialState.RUNNING)
        trial.number = number
        sampler.before_trial(study, trial)
        settings = SPACE.settings(sampler.sample_relative(study, trial, SPACE.distributions()), LENGTH)
        add(study, settings, task.curve(settings), space=SPACE)
        scores.append(task.true_logit(settings))
    read = [record for trial in study.get_trials() if (record := read_trial(trial)) is not None]
    return surrogate, read, float(np.mean(scores))


RIGHT, WRONG = (f"[{{dimension: frozen_depth, around: {value}, spread: 0.2, certainty: 0.7}}]" for value in (1.0, 0.0))


def test_a_right_belief_helps_and_a_wrong_one_costs_little() -> None:
    means = {text: np.mean([search(text, seed)[2] for seed in range(4)]) for text in (None, RIGHT, WRONG)}
    assert means[RIGHT] > means[None]
    assert means[None] - means[WRONG] < 2 * (means[RIGHT] - means[None])


def test_trials_overcome_a_wrong_belief() -> None:
    def best(text: str | None, seed: int) -> float:
        return max(trial.score("accuracy") or 0.0 for trial in search(text, seed, 30)[1])

    without, wrong = (np.mean([best(text, seed) for seed in range(4)]) for text in (None, WRONG))
    assert without - wrong < 0.2, "it costs something, but the search finds good settings in spite of it"


def weight_after(text: str, seed: int) -> float:
    """Returns the weight of a belief after 30 random trials."""
    task, study = Task("odd", rate=0.6, frozen=1.0), make_study()
    for settings in draw(30, seed):
        add(study, settings, task.curve(settings), space=SPACE)
    surrogate = PriorSurrogate(target(), SPACE, beliefs=belief_priors(parse_beliefs(text), SPACE))
    assert surrogate.sources[-1].mean == 0.7, "no rule reduces it before the trials"
    row = diagnose_priors(surrogate, [read_trial(trial) for trial in study.get_trials()])["sources"][-1]  # type: ignore[misc]
    assert row["name"].startswith("belief about frozen_depth")
    return float(row["after"])


def test_the_trials_decide_on_the_weight_of_a_belief() -> None:
    right, wrong = (np.mean([weight_after(text, seed) for seed in range(3)]) for text in (RIGHT, WRONG))
    assert right > 0.2
    assert wrong < 0.05, "evidence rejects it"


def test_recorded_tables_do_not_reduce_its_weight() -> None:
    prior = belief_priors(parse_beliefs(RIGHT), SPACE)
    surrogate = transferred_priors().surrogate(target(), SPACE, beliefs=prior)
    assert [source.mean for source in surrogate.sources if source.name.startswith("belief")] == [0.7]
    without = transferred_priors().surrogate(target(), SPACE)
    rest = [source for source in surrogate.sources if not source.name.startswith("belief")]
    assert rest == list(without.sources), "the other sources keep their weights"
