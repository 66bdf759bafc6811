from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.settings import LAYER_LR_KNOTS, SETTINGS, TransferSettings, repair
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, baseline_recipes, default_recipe
from nbt.tuning.space.dimension import Dimension
from nbt.tuning.space.sampling import sample_many_params, sample_params
from nbt.tuning.space.space import Space, space_names

NON_BINARY = Space.load("non_binary")
BINARY = Space.load("binary")
SPACES = {name: Space.load(name) for name in space_names()}

LR = {"kind": "float", "low": 1e-3, "high": 1, "log": True, "neutral": 0.01}


def space_text(dimensions: dict, **others: object) -> str:
    return yaml.safe_dump({"name": "mine", "dimensions": dimensions, **others})


def error_message(dimensions: dict, **others: object) -> str:
    with pytest.raises(UsageError) as caught:
        Space.parse(space_text(dimensions, **others), source="mine.yaml")
    message = str(caught.value)
    assert message.startswith("mine.yaml: ")
    assert "\n" not in message
    return message


@st.composite
def sampled_params(draw: st.DrawFn, space: Space) -> dict[str, object]:
    """Returns parameters that the sampler can draw."""
    params: dict[str, object] = {}
    for dimension in space.dimensions:
        for name in dimension.parameters:
            if dimension.kind == "categorical":
                params[name] = draw(st.sampled_from(dimension.choices))
            else:
                params[name] = draw(st.floats(*dimension.bounds()))
    return params


class TestShippedSpaces:
    def test_names(self) -> None:
        assert space_names() == ("binary", "continual", "fast", "injection", "non_binary", "zapping")

    def test_neutral_point_is_the_default_recipe(self) -> None:
        for space in SPACES.values():
            assert space.default(7) == default_recipe(7) == TransferSettings(epochs=7)

    def test_baseline_recipes_are_in_the_spaces(self) -> None:
        for space in SPACES.values():
            params_by_name = {
                name: space.params(baseline) for name, baseline in baseline_recipes(9) if space.can_express(baseline)
            }
            assert all(
                space.settings(params, 9) == dict(baseline_recipes(9))[name] for name, params in params_by_name.items()
            )
            assert DEFAULT_RECIPE in params_by_name and "linear probe" in params_by_name
        assert all(SPACES["non_binary"].can_express(baseline) for _, baseline in baseline_recipes(9))
        assert SPACES["fast"].can_express(dict(baseline_recipes(9))["FAST"])

    @pytest.mark.parametrize("name", SPACES)
    @given(data=st.data())
    def test_every_point_is_valid_and_survives_the_round_trip(self, name: str, data: st.DataObject) -> None:
        space = SPACES[name]
        recipe = space.settings(data.draw(sampled_params(space)), 5)
        assert recipe == repair(recipe)
        params = space.params(recipe)
        assert params.keys() == space.distributions().keys()
        assert space.settings(params, 5) == recipe
        for parameter, distribution in space.distributions().items():
            assert distribution._contains(distribution.to_internal_repr(params[parameter]))

    def test_ends_have_a_positive_probability(self) -> None:
        import optuna

        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        drawn = [study.ask(NON_BINARY.distributions()).params for _ in range(400)]
        values = {d.name: [d.value(params[d.parameters[0]]) for params in drawn] for d in NON_BINARY.dimensions}
        ends = [("transfer_depth", 1), ("frozen_depth", 0), ("sp_mix", 0), ("sp_mix", 1), ("mixup", 0)]
        shares = {end: values[end[0]].count(end[1]) / 400 for end in ends}
        assert all(0.05 < share < 0.3 for share in shares.values()), shares

    def test_binary_has_one_learning_rate(self) -> None:
        params = {**BINARY.params(default_recipe(3)), "head_lr": 0.3}
        recipe = BINARY.settings(params, 3)
        assert recipe.head_lr == recipe.body_lr == 0.3

    def test_importing_a_space_imports_neither_optuna_nor_torch(self) -> None:
        code = (
            "import sys; from nbt.tuning.space.space import Space; Space.load('non_binary').to_table(); "
            "import nbt.tuning.baseline_recipes, nbt.tuning.budget, nbt.tuning.pruners.base, nbt.tuning.intervals; "
            "import nbt.tuning.storage.study_names; "
            "print(sorted({'optuna', 'torch', 'sqlalchemy'} & set(sys.modules)))"
        )
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert process.stdout.strip() == "[]"


class TestSettings:
    def test_knots_are_separate_parameters(self) -> None:
        names = [f"layer_lr_shape_{knot}" for knot in LAYER_LR_KNOTS]
        assert [name for name in NON_BINARY.parameters if name.startswith("layer")] == names
        params = {**NON_BINARY.params(default_recipe(3)), names[0]: -1.0, names[2]: 0.25}
        assert NON_BINARY.settings(params, 3).layer_lr_shape == (-1.0, 0.0, 0.25)

    def test_overshoot_is_clipped_to_the_end(self) -> None:
        params = {**NON_BINARY.params(default_recipe(3)), "sp_mix": 1.05, "decay_strength": 0.01}
        assert NON_BINARY.settings(params, 3).sp_mix == 1.0

    def test_frozen_depth_is_limited_to_transfer_depth(self) -> None:
        params = {**NON_BINARY.params(default_recipe(3)), "frozen_depth": 0.8, "transfer_depth": 0.3}
        assert NON_BINARY.settings(params, 3).frozen_depth == 0.3

    def test_missing_and_unknown_parameters_are_named(self) -> None:
        params = NON_BINARY.params(default_recipe(3))
        del params["ema"]
        with pytest.raises(UsageError, match="ema, warp"):
            NON_BINARY.settings({**params, "warp": 1}, 3)

    @pytest.mark.parametrize("value", [2.0, -0.5, "x", True, None, math.nan])
    def test_parameters_out_of_range_are_rejected(self, value: object) -> None:
        with pytest.raises(UsageError, match="transfer_depth"):
            NON_BINARY.settings({**NON_BINARY.params(default_recipe(3)), "transfer_depth": value}, 3)

    def test_settings_outside_the_space_are_rejected(self) -> None:
        default = default_recipe(3)
        with pytest.raises(UsageError, match="head_lr"):
            BINARY.params(default.replace(head_lr=1e-5, body_lr=1e-5))
        with pytest.raises(UsageError, match="body_lr"):
            BINARY.params(default.replace(head_lr=0.02))
        with pytest.raises(UsageError, match="mixup"):
            BINARY.params(default.replace(mixup=0.2))
        with pytest.raises(UsageError, match="frozen_depth"):
            BINARY.params(default.replace(frozen_depth=0.5))
        assert not BINARY.can_express(default.replace(batch_size=16))
        assert BINARY.can_express(default.replace(frozen_depth=1.0))

    def test_dimensions_can_be_fixed_at_neutral(self) -> None:
        space = SPACES["non_binary"]
        restricted = space.without(["mixup", "layer_lr_shape", "no such dimension"])
        assert set(space.parameters) - set(restricted.parameters) == {
            "mixup",
            *(f"layer_lr_shape_{knot}" for knot in LAYER_LR_KNOTS),
        }
        assert restricted.default(7) == space.default(7) and restricted.hash != space.hash
        assert not restricted.can_express(default_recipe(7).replace(mixup=0.2))
        assert restricted.can_express(default_recipe(7).replace(head_lr=0.2))
        assert space.without([]) is space

    def test_baseline_recipes_can_be_outside_a_space(self) -> None:
        space = Space.parse(space_text({"head_lr": LR}, fixed={"optimizer": "adamw"}), source="x")
        assert [name for name, baseline in baseline_recipes(3) if space.can_express(baseline)] == []

    def test_whole_numbers(self) -> None:
        entry = {"kind": "int", "low": 1, "high": 8, "neutral": 4, "log": True}
        space = Space.parse(space_text({"views": entry}), source="x")
        assert space.distributions()["views"].high == 8
        assert (space.settings({"views": 3}, 3).views, space.default(3).views) == (3, 4)
        with pytest.raises(UsageError, match=r"views: 9 is outside 1 \.\.\. 8"):
            space.params(space.default(3).replace(views=9))


class TestHash:
    def test_texts_do_not_change_the_hash(self) -> None:
        first = Space.parse(space_text({"head_lr": LR}), source="a")
        second = Space.parse(
            space_text({"head_lr": {**LR, "description": "d"}}, description="text"), source="b", default_name="c"
        )
        assert first.hash == second.hash

    @pytest.mark.parametrize("change", [{"high": 0.9}, {"neutral": 0.02}, {"log": False}])
    def test_ranges_change_the_hash(self, change: dict) -> None:
        space = Space.parse(space_text({"head_lr": LR}), source="a")
        assert space.hash != Space.parse(space_text({"head_lr": {**LR, **change}}), source="a").hash

    def test_fixed_and_same_as_change_the_hash(self) -> None:
        texts = [
            space_text({"head_lr": LR}),
            space_text({"head_lr": LR}, fixed={"momentum": 0.5}),
            space_text({"head_lr": LR}, same_as={"body_lr": "head_lr"}),
        ]
        assert len({Space.parse(text, source="a").hash for text in texts}) == 3

    def test_the_order_of_dimensions_does_not_change_the_hash(self) -> None:
        momentum = {"kind": "float", "low": 0, "high": 0.9, "neutral": 0.9}
        text = yaml.safe_dump({"dimensions": {"head_lr": LR, "momentum": momentum}}, sort_keys=False)
        other = yaml.safe_dump({"dimensions": {"momentum": momentum, "head_lr": LR}}, sort_keys=False)
        assert Space.parse(text, source="a").hash == Space.parse(other, source="a").hash


class TestLoad:
    def test_a_file_by_its_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mine.yaml").write_text(space_text({"head_lr": LR}))
        monkeypatch.chdir(tmp_path)
        space = Space.load("mine.yaml")
        assert space.source == str(tmp_path / "mine.yaml")
        assert space.name == "mine"
        assert Space.load("binary").source == "binary"

    def test_an_unknown_name_suggests_the_nearest(self) -> None:
        with pytest.raises(UsageError, match="unknown search space 'non_binry'; did you mean non_binary"):
            Space.load("non_binry")

    @pytest.mark.parametrize("name", ["", ".", "a\0b", "x" * 300, "nope.yaml", "some/where.yaml", "a" * 300 + ".yaml"])
    def test_invalid_names_are_rejected(self, name: str) -> None:
        with pytest.raises(UsageError):
            Space.load(name)

    def test_a_binary_file(self, tmp_path: Path) -> None:
        (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
        with pytest.raises(UsageError, match="not a text file"):
            Space.load(tmp_path / "a.yaml")

    def test_table_has_a_row_per_dimension_fixed_setting_and_follower(self) -> None:
        text = space_text({"head_lr": LR}, fixed={"momentum": 0.5}, same_as={"body_lr": "head_lr"})
        rows = Space.parse(text, source="a").to_table()
        assert [row["dimension"] for row in rows] == ["head_lr", "momentum", "body_lr"]
        assert rows[0]["range"] == "0.001 ... 1 (log)"
        assert len({tuple(row) for row in rows}) == 1


class TestErrors:
    def test_unknown_dimension(self) -> None:
        assert "unknown dimension 'haed_lr'; did you mean head_lr" in error_message({"haed_lr": LR})

    def test_epochs_can_be_varied_but_not_fixed(self) -> None:
        assert "use kind: int" in error_message({"epochs": {"kind": "categorical", "choices": [6, 12], "neutral": 12}})
        assert "--epochs" in error_message({"head_lr": LR}, fixed={"epochs": 3})

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"low": 1, "high": 1e-3}, "inverted range"),
            ({"low": 0.01, "high": 0.01}, "empty range"),
            ({"low": 0, "neutral": 0.5}, "outside above 0"),
            ({"neutral": 2}, "neutral 2 is outside 0.001 ... 1"),
            ({"neutral": None}, "neutral is missing"),
            ({"low": None}, "low is missing"),
            ({"high": "big"}, "expected a number, got 'big'"),
            ({"high": True}, "expected a number"),
            ({"high": math.inf}, "not finite"),
            ({"high": 10**400}, "not finite"),
            ({"high": 2000}, "outside above 0, up to 1000"),
            ({"log": "yes"}, "log: expected true or false"),
            ({"kind": "real"}, "kind 'real' is not one of float, int, categorical"),
            ({"kind": None}, "kind None"),
            ({"choices": [0.1]}, "unknown key 'choices'"),
            ({"hihg": 3}, "unknown key 'hihg'; did you mean high"),
            ({"knots": list(LAYER_LR_KNOTS)}, "leave knots out"),
            ({"ends": [0.1, 0.1]}, "ends: only a float range without log"),
            ({"description": 3}, "description: expected text"),
        ],
    )
    def test_wrong_ranges(self, change: dict, expected: str) -> None:
        message = error_message({"head_lr": {**LR, **change}})
        assert expected in message
        assert "dimension head_lr" in message

    def test_a_logarithmic_range_must_be_positive(self) -> None:
        entry = {"kind": "float", "low": 0, "high": 1, "log": True, "neutral": 0.5}
        assert "has no logarithm" in error_message({"decay_strength": entry})

    @pytest.mark.parametrize("ends", [[0.1], [0.1, -1], "x", [True, 0], [0, 2], 0.1])
    def test_wrong_ends(self, ends: object) -> None:
        entry = {"kind": "float", "low": 0, "high": 1, "neutral": 0, "ends": ends}
        assert "ends: expected two shares" in error_message({"sp_mix": entry})

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            ({"choices": []}, "choices: give a list"),
            ({"choices": ["sgd"]}, "goes under fixed:"),
            ({"choices": "sgd"}, "choices: give a list"),
            ({"choices": ["sgd", "sgd"]}, "given twice"),
            ({"choices": ["sgd", "adam"]}, "'adam' is not one of sgd, adamw"),
            ({"choices": ["sgd", {}]}, "is not one of sgd, adamw"),
            ({"neutral": "lion"}, "neutral: 'lion' is not one of"),
            ({"neutral": None}, "neutral is missing"),
            ({"low": 0}, "unknown key 'low'"),
        ],
    )
    def test_wrong_choices(self, change: dict, expected: str) -> None:
        entry = {"kind": "categorical", "choices": ["sgd", "adamw"], "neutral": "sgd", **change}
        assert expected in error_message({"optimizer": entry})

    def test_neutral_must_be_a_choice(self) -> None:
        entry = {"kind": "categorical", "choices": [16, 64], "neutral": 32}
        assert "neutral 32 is not among the choices" in error_message({"batch_size": entry})
        assert "choices: 0 is outside" in error_message({"batch_size": {**entry, "choices": [0, 32]}})

    def test_kinds_must_match_the_setting(self) -> None:
        numbers = {"kind": "float", "low": 1, "high": 9, "neutral": 2}
        assert "use kind: categorical" in error_message({"optimizer": numbers})
        assert "use kind: int" in error_message({"batch_size": numbers})
        assert "whole number" in error_message({"mixup": {"kind": "int", "low": 0, "high": 1.5, "neutral": 0}})
        assert "knots: expected [input, middle, top]" in error_message({"layer_lr_shape": {**numbers, "high": 3}})
        assert "use kind: float with knots" in error_message(
            {"layer_lr_shape": {"kind": "categorical", "choices": [0, 1]}}
        )

    @pytest.mark.parametrize("entry", [None, 3, [], "float"])
    def test_entries_must_be_mappings(self, entry: object) -> None:
        assert "dimension head_lr: expected kind, range" in error_message({"head_lr": entry})

    def test_a_setting_in_two_sections(self) -> None:
        assert "given twice" in error_message({"head_lr": LR}, fixed={"head_lr": 0.1})
        assert "given twice" in error_message({"head_lr": LR}, fixed={"body_lr": 0.1}, same_as={"body_lr": "head_lr"})

    def test_a_duplicate_key(self) -> None:
        with pytest.raises(UsageError, match="given twice"):
            Space.parse("dimensions:\n  head_lr: {kind: float}\n  head_lr: {kind: float}\n", source="x")

    def test_same_as(self) -> None:
        assert "did you mean head_lr" in error_message({"head_lr": LR}, same_as={"body_lr": "head_lrs"})
        assert "momentum: 1.0 is outside" in error_message({"head_lr": LR}, same_as={"momentum": "head_lr"})
        assert "unknown setting under same_as" in error_message({"head_lr": LR}, same_as={"body_lrr": "head_lr"})

    def test_fixed(self) -> None:
        assert "fixed: momentum: 2 is outside" in error_message({"head_lr": LR}, fixed={"momentum": 2})
        assert "did you mean momentum" in error_message({"head_lr": LR}, fixed={"momentun": 0.9})

    @pytest.mark.parametrize("text", ["dimensions: {}", "{}", "dimensions:", "name: x"])
    def test_no_dimensions(self, text: str) -> None:
        with pytest.raises(UsageError, match="no dimensions"):
            Space.parse(text, source="x")

    def test_unknown_key_at_the_top(self) -> None:
        assert "unknown key 'dims'" in error_message({"head_lr": LR}, dims={})
        assert "dimensions: expected a mapping" in error_message([1])  # type: ignore[arg-type]
        assert "name: expected text" in error_message({"head_lr": LR}, name=["a"])


YAML_KEYS = [
    "kind",
    "low",
    "high",
    "log",
    "choices",
    "neutral",
    "knots",
    "ends",
    "name",
    "dimensions",
    "fixed",
    "same_as",
]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["float", "int", "categorical", "sgd", "head_lr", 10**400])
)
KEYS = st.sampled_from([*YAML_KEYS, *SETTINGS]) | st.text(max_size=4) | st.integers()
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=20
)
ENTRIES = st.fixed_dictionaries(
    {}, optional={"kind": st.sampled_from(["float", "int", "categorical"]), **dict.fromkeys(YAML_KEYS[1:8], TREES)}
)
DOCUMENTS = st.fixed_dictionaries(
    {}, optional={"dimensions": st.dictionaries(KEYS, ENTRIES | TREES, max_size=3), "fixed": TREES, "same_as": TREES}
)


class TestArbitraryInput:
    @settings(max_examples=300)
    @given(DOCUMENTS | TREES)
    def test_documents(self, tree: object) -> None:
        self.check(yaml.safe_dump(tree))

    @given(st.text(max_size=60))
    def test_text(self, text: str) -> None:
        self.check(text)

    def check(self, text: str) -> None:
        try:
            space = Space.parse(text, source="x")
        except UsageError as error:
            assert str(error).startswith(("x: ", "x, line "))
            assert "\n" not in str(error)
        else:
            assert space.default(3) == repair(space.default(3))
            assert len(space.distributions()) == len(space.parameters)


def test_baseline_recipes() -> None:
    recipes = dict(baseline_recipes(4))
    assert next(iter(recipes)) == DEFAULT_RECIPE
    assert recipes[DEFAULT_RECIPE] == TransferSettings(epochs=4)
    assert recipes["linear probe"].frozen_depth == 1
    assert (recipes["L2-SP"].sp_mix, recipes["L2-SP"].decay_strength) == (1, 0.01)
    assert (recipes["FAST"].head_scale, recipes["FAST"].feature_norm) == (0, "batch") and recipes["FAST"].stall > 0
    assert all(baseline == repair(baseline) and baseline.epochs == 4 for baseline in recipes.values())


class TestShareOf:
    """`frozen_depth` as a share of what is transferred."""

    DEPTHS = {
        "transfer_depth": {"kind": "float", "low": 0, "high": 1, "neutral": 1},
        "frozen_depth": {"kind": "float", "low": 0, "high": 1, "neutral": 0, "share_of": "transfer_depth"},
    }
    SPACE = Space.parse(space_text(DEPTHS), source="mine.yaml")

    def test_the_setting_is_the_product(self) -> None:
        settings = self.SPACE.settings({"transfer_depth": 0.8, "frozen_depth": 0.5}, 3)
        assert (settings.transfer_depth, settings.frozen_depth) == (0.8, 0.4)
        assert self.SPACE.params(settings) == {"transfer_depth": 0.8, "frozen_depth": 0.5}
        assert self.SPACE.default(3) == TransferSettings(epochs=3)

    @given(st.floats(0, 1), st.floats(0, 1))
    def test_every_setting_has_parameters(self, transfer: float, frozen: float) -> None:
        settings = repair(TransferSettings(transfer_depth=transfer, frozen_depth=frozen))
        params = self.SPACE.params(settings)
        restored = self.SPACE.settings(params, settings.epochs)
        assert restored.frozen_depth == pytest.approx(settings.frozen_depth, rel=1e-9)
        assert 0.0 <= params["frozen_depth"] <= 1.0

    def test_the_parameter_differs_from_that_of_a_space_without(self) -> None:
        plain = {**self.DEPTHS, "frozen_depth": {**self.DEPTHS["frozen_depth"]}}
        del plain["frozen_depth"]["share_of"]
        other = Space.parse(space_text(plain), source="mine.yaml")
        assert other.settings({"transfer_depth": 0.8, "frozen_depth": 0.5}, 3).frozen_depth == 0.5
        assert other.hash != self.SPACE.hash

    def test_without_the_whole_it_is_a_share_of_its_neutral_value(self) -> None:
        space = self.SPACE.without(["transfer_depth"])
        assert space.settings({"frozen_depth": 0.5}, 3).frozen_depth == 0.5

    def test_errors(self) -> None:
        frozen = self.DEPTHS["frozen_depth"]
        assert "share_of: 'head_lr' is not a dimension of 0 ... 1" in error_message(
            {"head_lr": LR, "frozen_depth": {**frozen, "share_of": "head_lr"}}
        )
        assert "did you mean transfer_depth" in error_message(
            {**self.DEPTHS, "frozen_depth": {**frozen, "share_of": "transfer_dept"}}
        )
        mixup = {"kind": "float", "low": 0, "high": 2, "neutral": 0, "share_of": "transfer_depth"}
        assert "mixup: share_of: its range must be within 0 ... 1" in error_message({**self.DEPTHS, "mixup": mixup})


def test_a_dimension_without_a_description_has_the_text_of_its_setting() -> None:
    space = Space.parse(space_text({"head_lr": LR}), source="mine.yaml")
    assert space.dimensions[0].description == SETTINGS["head_lr"].text


class TestChecks:
    """Values are checked unless the whole range of their dimension is valid."""

    def test_a_dimension_that_exceeds_its_setting(self) -> None:
        wide = Dimension(name="momentum", kind="float", low=0.0, high=2.0, neutral=0.9)
        space = Space(name="wide", description="", dimensions=(wide,))
        assert space.settings({"momentum": 0.5}, 3) == TransferSettings(momentum=0.5, epochs=3)
        with pytest.raises(UsageError, match=r"momentum: 1\.5 is outside"):
            space.settings({"momentum": 1.5}, 3)

    def test_a_range_of_whole_numbers_gives_fractions(self) -> None:
        whole = Dimension(name="mixup", kind="float", low=0, high=1, neutral=0, ends=(0.5, 0.0))
        mixup = Space(name="whole", description="", dimensions=(whole,)).settings({"mixup": -0.2}, 3).mixup
        assert mixup == 0.0 and type(mixup) is float

    def test_epochs_and_fixed_values(self) -> None:
        space = BINARY.with_fixed(mixup=-1.0)
        with pytest.raises(UsageError, match="epochs"):
            BINARY.default(0)
        with pytest.raises(UsageError, match="mixup"):
            space.default(3)

    @pytest.mark.parametrize("name", SPACES)
    def test_the_settings_are_those_of_the_constructor(self, name: str) -> None:
        space = SPACES[name]
        for params in sample_many_params(space, np.random.default_rng(0), 50):
            found = space.settings(params, 12)
            assert repr(vars(TransferSettings(**vars(found)))) == repr(vars(found))


class TestEpochs:
    SPACE = Space.parse(
        "dimensions: {epochs: {kind: int, low: 3, high: 48, log: true, neutral: 12}, "
        "mixup: {kind: float, low: 0, high: 1, neutral: 0}}",
        source="epochs",
    )

    def test_they_replace_the_given_length(self) -> None:
        settings = self.SPACE.settings({"epochs": 20, "mixup": 0.0}, 12)
        assert settings == TransferSettings(epochs=20)
        assert self.SPACE.params(settings) == {"epochs": 20, "mixup": 0.0}
        assert self.SPACE.epochs is not None and self.SPACE.epochs.neutral == 12
        assert not self.SPACE.can_express(TransferSettings(epochs=2))

    def test_fixed_epochs_leave_the_rest(self) -> None:
        fixed = self.SPACE.with_fixed_epochs()
        assert fixed.parameters == ("mixup",)
        assert fixed.settings({"mixup": 0.0}, 7).epochs == 7
        other = Space.load("non_binary")
        assert other.with_fixed_epochs() is other

    def test_whole_numbers_are_drawn_on_the_logarithmic_scale(self) -> None:
        rng = np.random.default_rng(0)
        many = [params["epochs"] for params in sample_many_params(self.SPACE, rng, 2000)]
        one = [sample_params(self.SPACE, rng)["epochs"] for _ in range(2000)]
        for drawn in (many, one):
            assert min(drawn) == 3 and max(drawn) == 48
            assert np.median(drawn) == pytest.approx(12, abs=1)
