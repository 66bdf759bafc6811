"""Statements: the text shows the limits that `holds` compares with, and where it holds the density is greatest."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest

from nbt.settings import TransferSettings
from nbt.tuning.priors.statement import Choice, Either, Quantity, Range, at_least, at_most, near, setting

DEPTH = setting("frozen_depth", low=0.0, high=1.0)
RATE = setting("head_lr", log=True)


def frozen(depth: float) -> TransferSettings:
    return TransferSettings(frozen_depth=depth)


class TestRange:
    def test_near_a_value(self) -> None:
        statement = near(DEPTH, 0.8, 0.3)
        assert statement.text == "frozen_depth is about 0.8 (0.5 to 1)"
        assert [statement.holds(frozen(depth)) for depth in (0.49, 0.5, 0.8, 1.0)] == [False, True, True, True]
        assert statement.log_density(frozen(0.8)) == 0.0
        assert statement.log_density(frozen(0.5)) == pytest.approx(-0.5), "one standard deviation below"
        assert statement.log_density(frozen(1.0)) == pytest.approx(-2 / 9), "two thirds of one above"

    def test_a_logarithmic_quantity_has_its_width_in_decades(self) -> None:
        statement = near(RATE, 0.1, 1.0)
        assert statement.text == "head_lr is about 0.1 (0.01 to 1)"
        assert statement.log_density(TransferSettings(head_lr=0.01)) == pytest.approx(-0.5)
        assert statement.log_density(TransferSettings(head_lr=1e-9)) == -9.0, "the floor"

    def test_bounds(self) -> None:
        low, high = at_least(DEPTH, 0.4, 0.1), at_most(DEPTH, 0.4, 0.1, weight=2.0)
        assert (low.text, high.text) == ("frozen_depth is at least 0.4", "frozen_depth is at most 0.4")
        assert [low.holds(frozen(depth)) for depth in (0.39, 0.4, 1.0)] == [False, True, True]
        assert [high.holds(frozen(depth)) for depth in (0.0, 0.4, 0.41)] == [True, True, False]
        assert low.log_density(frozen(0.9)) == high.log_density(frozen(0.1)) == 0.0
        assert low.log_density(frozen(0.2)) == pytest.approx(-2.0)
        assert high.log_density(frozen(0.6)) == pytest.approx(-4.0)

    @pytest.mark.parametrize("bound", [2 / 3, 0.745, 0.12345, 1 / 7])
    def test_the_bound_that_is_shown_is_the_bound(self, bound: float) -> None:
        statement = at_least(DEPTH, bound, 0.1)
        shown = float(statement.text.split()[-1])
        assert statement.holds(frozen(shown))
        assert not statement.holds(frozen(math.nextafter(shown, 0.0)))

    def test_a_quantity_without_effect(self) -> None:
        statement = near(Quantity(label="nothing", value=lambda settings: None), 1.0, 0.5)
        assert not statement.holds(frozen(0.5))
        assert statement.value_text(frozen(0.5)) == "without effect"
        assert statement.log_density(frozen(0.5)) == -0.5, "the density at one standard deviation"

    def test_where_it_holds_the_density_exceeds_all_others(self) -> None:
        rng = np.random.default_rng(0)
        for _ in range(50):
            centre, width = rng.uniform(0, 1), rng.uniform(0.05, 0.3)
            statements: list[Range] = [make(DEPTH, centre, width) for make in (near, at_least, at_most)]
            for statement in statements:
                settings = [frozen(depth) for depth in np.linspace(0, 1, 41)]
                true = [statement.log_density(item) for item in settings if statement.holds(item)]
                false = [statement.log_density(item) for item in settings if not statement.holds(item)]
                # Limits are rounded to two digits: densities at a limit may differ by that.
                assert min(true, default=0.0) >= max(false, default=-9.0) - 0.1


class TestChoice:
    STATEMENT = Choice(quantity=setting("augmentation"), preferred={"crop": 0.0, "none": 0.7}, other=1.5)

    def test_values(self) -> None:
        assert self.STATEMENT.text == "augmentation is crop or none"
        for value, density in (("crop", 0.0), ("none", -0.7), ("color", -1.5), ("rand", -1.5)):
            settings = TransferSettings(augmentation=value)
            assert self.STATEMENT.log_density(settings) == density
            assert self.STATEMENT.holds(settings) is (density > -1.0)
            assert self.STATEMENT.value_text(settings) == value

    def test_flags_are_written_as_in_a_settings_file(self) -> None:
        statement = Choice(quantity=setting("linearized"), preferred={False: 0.0}, other=1.0)
        assert statement.text == "linearized is false"
        assert statement.value_text(TransferSettings(linearized=True)) == "true"


def test_either_of_two_statements() -> None:
    statement = Either(at_most(setting("head_scale"), 0.001, 0.7), at_least(setting("stall"), 0.1, 0.05))
    assert statement.text == "head_scale is at most 0.001 or stall is at least 0.1"
    assert statement.holds(TransferSettings(head_scale=0.0))
    assert statement.holds(TransferSettings(stall=0.2))
    assert not statement.holds(TransferSettings())
    assert statement.value_text(TransferSettings(stall=0.2)) == "1 and 0.2"
    assert statement.log_density(TransferSettings()) == pytest.approx(-0.5 * (0.999 / 0.7) ** 2), "the better of two"
    assert statement.log_density(TransferSettings(stall=0.2)) == 0.0
    assert re.fullmatch(r"[a-z_.0-9 ]+", statement.text)
