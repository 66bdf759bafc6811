from __future__ import annotations

import optuna
import pytest

from nbt.errors import UsageError
from nbt.settings import TransferSettings, repair
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.samplers.distinct import DistinctSampler, stream_baseline_recipes
from nbt.tuning.space.applicability import applicable_space, unconditional_space
from nbt.tuning.space.space import Space
from nbt.tuning.stream_task import as_stream
from tests.sample_study import config


@pytest.fixture(scope="module")
def digits() -> Task:
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


class TestBaselineRecipes:
    @pytest.mark.parametrize("scenario", ["data", "task", "class"])
    def test_the_space_contains_every_method(self, scenario: str) -> None:
        space = Space.load("continual")
        recipes = stream_baseline_recipes(30, scenario)
        assert [name for name, settings in recipes if not space.can_express(settings)] == []
        assert {name for name, _ in recipes} == {DEFAULT_RECIPE, "dlcft", "ewc", "l2sp", "zap", "probe"}

    def test_the_first_is_the_default_recipe_and_all_are_repaired(self) -> None:
        recipes = stream_baseline_recipes(30, "class")
        assert recipes[0] == (DEFAULT_RECIPE, default_recipe(30))
        assert all(repair(settings) == settings for _, settings in recipes)
        assert len({settings for _, settings in recipes}) == len(recipes)


class TestDistinctSampler:
    def propose(self, count: int, seed: int = 0) -> list[TransferSettings]:
        """Returns the settings of a search's trials, in which probes are far better than the rest."""
        space = Space.load("continual")
        study = optuna.create_study(direction="maximize", sampler=DistinctSampler(space, length=20, seed=seed))
        first = dict(stream_baseline_recipes(20, "class"))["probe"]
        study.enqueue_trial(space.params(first))
        proposed = []
        for _ in range(count):
            trial = study.ask(space.distributions())
            proposed.append(space.settings(trial.params, 20))
            study.tell(trial, 1.0 if proposed[-1].stream.method == "probe" else 0.2)
        return proposed

    def test_no_settings_are_proposed_twice(self) -> None:
        proposed = self.propose(40)
        assert proposed[0].stream.method == "probe"
        assert len(set(proposed)) == 40

    def test_proposals_follow_from_the_seed(self) -> None:
        assert self.propose(14) == self.propose(14) != self.propose(14, seed=1)


class TestSpace:
    def test_the_continual_space_needs_a_stream(self, digits: Task) -> None:
        space = Space.load("continual")
        with pytest.raises(UsageError, match="scenario"):
            applicable_space(space, digits)
        assert applicable_space(space, as_stream(digits, "class", 5)) == space

    def test_the_unconditional_space_has_no_continual_dimensions(self) -> None:
        names = {dimension.name for dimension in unconditional_space(Space.load("continual")).dimensions}
        assert not names & {"method", "curvature", "penalty_strength"}

    def test_the_neutral_point_is_the_default_recipe(self) -> None:
        assert Space.load("continual").default(20) == default_recipe(20)

    def test_impossible_combinations_are_repaired(self) -> None:
        space = Space.load("continual")
        params = space.params(default_recipe(20)) | {"method": "ewc", "linearized": True, "target_scale": 15}
        settings = space.settings(params, 20)
        assert (settings.stream.method, settings.linearized, settings.target_scale) == ("ewc", False, 0.0)
        probe = space.settings(params | {"method": "probe"}, 20)
        assert probe.frozen_depth == 1.0


def test_settings_for_use_have_the_epochs_of_one_task() -> None:
    stream = config(scenario="class", tasks=5, epochs=60)
    assert stream.per_task_settings(TransferSettings(epochs=60)).epochs == 12
    assert config().per_task_settings(TransferSettings(epochs=12)).epochs == 12
