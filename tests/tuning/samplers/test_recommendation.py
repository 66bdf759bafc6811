"""Recommended settings: good, simple, and true to the reasons that are given for them."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import pytest
import yaml

from nbt.settings import TransferSettings
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.registry import register_prior, unregister_prior
from nbt.tuning.priors.statement import near, setting
from nbt.tuning.samplers.candidates import best_recorded_params
from nbt.tuning.samplers.recommendation import _NEGLIGIBLE_LOSS, recommend_settings
from nbt.tuning.space.applicability import unconditional_space
from nbt.tuning.space.encoding import log_effective_lr
from nbt.tuning.space.space import Space, space_names
from nbt.tuning.storage.codec import TLI_SIMILARITY
from nbt.tuning.surrogate.prior_surrogate import RECORDED_TASKS, PriorSurrogate
from nbt.tuning.surrogate.task_similarity import target_from_header
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors
from tests.tuning.benchmark.tables import FULL_SPACE
from tests.tuning.synthetic import LENGTH, SPACE, TREES, draw, facts, profile, target, transferred_priors, trees_target

BARE = Target(epochs=LENGTH)


@pytest.fixture(scope="module")
def full_surrogate() -> PriorSurrogate:
    return transferred_priors().surrogate(trees_target(), SPACE)


class TestRecommendation:
    def test_it_is_deterministic_and_no_baseline_recipe(self, full_surrogate: PriorSurrogate) -> None:
        first = recommend_settings(full_surrogate, SPACE)
        assert first == recommend_settings(transferred_priors().surrogate(trees_target(), SPACE), SPACE)
        assert first not in [settings for _, settings in baseline_recipes(LENGTH)]

    def test_it_is_expected_to_be_better_than_random_and_recorded_settings(
        self, full_surrogate: PriorSurrogate
    ) -> None:
        best = float(full_surrogate.prior_mean([recommend_settings(full_surrogate, SPACE)])[0])
        recorded = [SPACE.settings(params, LENGTH) for params in best_recorded_params(full_surrogate, SPACE)]
        assert best >= full_surrogate.prior_mean([*recorded, *draw(300)]).max() - _NEGLIGIBLE_LOSS

    def test_it_is_in_the_best_fifth(self, full_surrogate: PriorSurrogate) -> None:
        assert TREES.true_logit(recommend_settings(full_surrogate, SPACE)) > np.quantile(
            [TREES.true_logit(recipe) for recipe in draw(300)], 0.8
        )

    @pytest.mark.parametrize("name", space_names())
    @pytest.mark.parametrize("on", [BARE, target()])
    def test_every_space_and_target_has_a_recommendation(self, name: str, on: Target) -> None:
        space = Space.load(name)
        recommended = recommend_settings(PriorSurrogate(on, space), space)
        assert space.can_express(recommended) and recommended.epochs == LENGTH

    def test_it_has_the_epochs_of_the_trials(self) -> None:
        short = dataclasses.replace(trees_target(), epochs=5)
        assert recommend_settings(transferred_priors().surrogate(short, SPACE), SPACE).epochs == 5


SHIPPED_SPACE = unconditional_space(Space.load("non_binary"))


@pytest.fixture(scope="module")
def shipped() -> TransferredPriors:
    """Returns the experience that comes with nbt."""
    return TransferredPriors(load_experience(None, SHIPPED_SPACE))


def targets(tables: Sequence[RecordedTable]) -> Iterator[Target]:
    """Yields many targets: those of the recorded tables, and all combinations of good and bad measures."""
    yield from (target_from_header(table.header) for table in tables)
    measures = itertools.product((0.12, 0.5, 0.97), (0.05, 0.4), (30, 50_000), (3, 40), (0.2, 0.9))
    for pretrained, random, images, epochs, similarity in measures:
        fit_profile = profile(pretrained, random, knee_depth=similarity)
        fit_profile["layers"][-1]["gain"] *= similarity
        yield Target.of(facts(train_images=images, **{TLI_SIMILARITY: similarity}), fit_profile, epochs)
    yield Target.of(facts(train_images=None), None, 12)


@pytest.fixture(scope="module")
def recommendations(shipped: TransferredPriors) -> list[tuple[PriorSurrogate, TransferSettings]]:
    """Returns surrogates with and without tables, and their recommended settings."""
    surrogates = [PriorSurrogate(on, SHIPPED_SPACE) for on in targets(shipped.tables)]
    surrogates += [shipped.surrogate(on, SHIPPED_SPACE) for on in itertools.islice(targets(shipped.tables), 0, None, 4)]
    return [(surrogate, recommend_settings(surrogate, SHIPPED_SPACE)) for surrogate in surrogates]


class TestUnjudgedDimensions:
    def test_the_shipped_tables_and_priors_do_not_judge_the_head_rate_multiplier(
        self, shipped: TransferredPriors
    ) -> None:
        surrogate = shipped.surrogate(target(), SHIPPED_SPACE)
        assert surrogate.unjudged == {"zap_scale", "head_lr_multiplier"}
        without_tables = PriorSurrogate(target(), SHIPPED_SPACE).unjudged
        assert without_tables - surrogate.unjudged == {
            *("decay_strength", "sp_mix", "sp_depth", "label_smoothing", "feature_norm")
        }

    def test_they_are_neutral(self, recommendations: list[tuple[PriorSurrogate, TransferSettings]]) -> None:
        for surrogate, recommended in recommendations:
            default = SHIPPED_SPACE.default(recommended.epochs)
            for name in surrogate.unjudged:
                assert recommended.value(name) == default.value(name), name

    def test_a_prior_that_judges_a_dimension_moves_it(self) -> None:
        """The multiplier counts only with a stall, which the two priors together make worth while."""

        def suggest(on: Target) -> PriorSuggestion:
            return PriorSuggestion((near(setting("head_lr_multiplier", log=True), 5.0, 0.2),), "this test")

        dimensions = ("stall", "head_lr_multiplier")
        strong = Prior(name="five", source="test", dimensions=dimensions, strength=2.0, suggest=suggest)
        before = recommend_settings(PriorSurrogate(target(), FULL_SPACE), FULL_SPACE)
        register_prior(strong)
        try:
            surrogate = PriorSurrogate(target(), FULL_SPACE)
            after = recommend_settings(surrogate, FULL_SPACE)
        finally:
            unregister_prior(strong)
        assert (before.stall, before.head_lr_multiplier) == (0.0, 1.0)
        assert after.head_lr_multiplier == pytest.approx(5.0, rel=0.3) and after.stall > 0.0
        assert "head_lr_multiplier" not in surrogate.unjudged

    def test_a_space_may_exclude_the_value_that_repair_gives_a_setting_without_effect(self) -> None:
        text = "dimensions:\n  sp_mix: {kind: float, low: 0, high: 1, neutral: 0}\n"
        text += "  sp_depth: {kind: float, low: 0.2, high: 0.8, neutral: 0.5}\n"
        text += "  head_lr: {kind: float, low: 0.001, high: 0.5, log: true, neutral: 0.01}\n"
        space = Space.parse(text, source="narrow.yaml")
        recommended = recommend_settings(PriorSurrogate(target(), space), space)
        assert (recommended.sp_mix, recommended.sp_depth) == (0.0, 1.0)
        assert recommended.head_lr != 0.01, "the only judged setting; the default recipe runs anyway"

    def test_a_neutral_value_that_costs_little_is_kept(self, shipped: TransferredPriors) -> None:
        surrogate = shipped.surrogate(target(), SHIPPED_SPACE)
        recommended = recommend_settings(surrogate, SHIPPED_SPACE)
        default = SHIPPED_SPACE.default(LENGTH)
        baselines = [settings for _, settings in baseline_recipes(LENGTH)]
        value = surrogate.prior_mean([recommended])[0]
        changed = [d.name for d in SHIPPED_SPACE.dimensions if recommended.value(d.name) != default.value(d.name)]
        assert 0 < len(changed) < 8
        for name in changed:
            reset = recommended.replace(**{name: default.value(name)})
            assert reset in baselines or surrogate.prior_mean([reset])[0] < value, name


def effective(settings: TransferSettings, rate: float) -> float:
    return float(10 ** log_effective_lr(settings, rate))


# Values of quantities in texts that are not settings, computed anew from the printed settings.
DERIVED: dict[str, Callable[[TransferSettings, Target], Any]] = {
    "of the units": lambda s, on: effective(s, s.body_lr),
    "of the head": lambda s, on: effective(s, s.head_lr),
    "layer_lr_shape from": lambda s, on: s.layer_lr_shape[2] - s.layer_lr_shape[0],
    "horizon": lambda s, on: (s.ema > 0) / (1 - s.ema) / (on.epochs * (on.train_images or 0) / s.batch_size),
    "recovers from zaps": lambda s, on: (
        s.zap_fraction
        * ((s.epochs - 1) // s.zap_period if s.zap_period else 0)
        * max(2.0, 100 / (on.images_per_class or 1))
        / on.epochs
    ),
    "the loss": lambda s, on: (
        f"{'squared error' if s.target_scale else 'cross-entropy'} of the {'expansion' if s.linearized else 'network'}"
    ),
}


@cache
def read_settings(printed: str) -> tuple[TransferSettings, dict[str, Any]]:
    return TransferSettings.from_yaml(printed), yaml.safe_load(printed)


def is_true(text: str, printed: str, on: Target) -> bool:
    """Evaluates a reason by its text alone, on the printed settings, without the code that made it."""
    if " or stall" in text:
        return any(is_true(part, printed, on) for part in text.split(" or "))
    label, value = re.fullmatch(r"(.*?),? is (.*)", text).groups()  # type: ignore[union-attr]
    recipe, fields = read_settings(printed)
    derive = next((function for part, function in DERIVED.items() if part in label), None)
    actual = fields[label] if derive is None else derive(recipe, on)
    limits = re.fullmatch(r"about \S+ \((\S+) to (\S+)\)|at least (\S+)|at most (\S+)", value)
    if limits is None:
        return str(actual).lower() in value.split(" or ")
    low, high = limits[1] or limits[3] or "-inf", limits[2] or limits[4] or "inf"
    return float(low) - 1e-9 <= actual <= float(high) + 1e-9


class TestReasons:
    def test_every_reason_is_true_of_the_printed_settings(
        self, shipped: TransferredPriors, recommendations: list[tuple[PriorSurrogate, TransferSettings]]
    ) -> None:
        judged, unfollowed = 0, 0
        for surrogate, recommended in recommendations:
            on = surrogate.target
            for source in surrogate.explain(recommended)["sources"]:
                for reason in source["statements"]:
                    if source["name"] == RECORDED_TASKS:
                        assert shipped.experience is not None
                        [predicted] = shipped.experience.for_target(on).predict([recommended])
                        assert reason["holds"] is bool(predicted >= 0.0), source
                    elif reason["value"] != "without effect":
                        assert reason["holds"] is is_true(reason["text"], recommended.to_yaml(), on), reason
                    else:
                        assert not reason["holds"]
                    judged, unfollowed = judged + 1, unfollowed + (not reason["holds"])
        assert judged > 300
        assert unfollowed < 0.15 * judged, "the settings follow most suggestions"

    @pytest.mark.parametrize("seed", range(4))
    def test_statements_are_judged_on_any_settings(self, seed: int) -> None:
        """Random settings contradict many statements, so that `holds` is tested in both directions."""
        on = target(0.7, 0.1)
        surrogate, outcomes = PriorSurrogate(on, FULL_SPACE), []
        for recipe in draw(60, seed, FULL_SPACE):
            for reason in itertools.chain(*surrogate.reasons(recipe)):
                if reason["value"] != "without effect":
                    assert reason["holds"] is is_true(reason["text"], recipe.to_yaml(), on), reason
                    outcomes.append(reason["holds"])
        assert 0.2 < np.mean(outcomes) < 0.8
