from __future__ import annotations

from dataclasses import replace

import pytest

from nbt.checks import FAILED, NOT_APPLICABLE, PASSED, CheckResult
from nbt.report.formatting import MINUS
from nbt.report.study.checks.space_edge import SpaceEdge
from nbt.settings import TransferSettings
from nbt.tuning.space.space import Space
from tests.report.study.checks.studies import run
from tests.sample_study import BEST, config, finals

CHECK = SpaceEdge()
SPACE = Space.load("non_binary")


def result_of(settings: TransferSettings, **changes: object) -> CheckResult:
    recommended = replace(finals()[0], settings=settings)
    return run(CHECK, finals=(recommended,), config=config(space_hash=SPACE.hash, **changes))


@pytest.mark.parametrize("teacher", ["conv4", '["conv3", "conv4"]'])
def test_an_injection_is_in_the_space_of_a_search_with_its_teacher(teacher: str) -> None:
    injection = BEST.replace(init="inject", teacher="conv4")
    assert result_of(injection, teacher=teacher).state == PASSED
    assert result_of(injection.replace(head_lr=1.0), teacher=teacher).state == FAILED
    assert result_of(injection).state == NOT_APPLICABLE


def test_settings_inside_the_space_pass() -> None:
    assert result_of(BEST).state == PASSED


@pytest.mark.parametrize(
    ("changes", "edge"),
    [
        ({"head_lr": 1.0}, "head_lr = 1 is at its upper bound 1"),
        ({"head_lr": 0.98}, "head_lr = 0.98 is at its upper bound 1"),
        ({"body_lr": 1e-4}, "body_lr = 0.0001 is at its lower bound 0.0001"),
        ({"momentum": 0.97}, "momentum = 0.97 is at its upper bound 0.97"),
        ({"label_smoothing": 0.2}, "label_smoothing = 0.2 is at its upper bound 0.2"),
        ({"layer_lr_shape": (-1.5, 0.0, 0.0)}, f"layer_lr_shape_input = {MINUS}1.5 is at its lower bound {MINUS}1.5"),
    ],
)
def test_settings_at_a_bound_fail(changes: dict[str, object], edge: str) -> None:
    result = result_of(BEST.replace(**changes))
    assert (result.state, result.severity) == (FAILED, "info")
    assert result.examples == (edge,)
    assert next(iter(changes)) in result.advice
    assert "--space FILE" in result.advice


def test_natural_bounds_and_neutral_values_are_no_edges() -> None:
    all_transferred = BEST.replace(transfer_depth=1.0, frozen_depth=0.0, sp_mix=1.0, momentum=0.0)
    assert result_of(all_transferred).state == PASSED


def test_head_lr_just_inside_the_margin_passes() -> None:
    # 1 % of three decades is 0.03 decades: 10 ** -0.03 = 0.933.
    assert result_of(BEST.replace(head_lr=0.92)).state == PASSED
    assert result_of(BEST.replace(head_lr=0.94)).state == FAILED


def test_without_the_space_it_is_not_applicable() -> None:
    assert run(CHECK).state == NOT_APPLICABLE, "the hash of the space differs"
    assert result_of(BEST, space="/nowhere/space.yaml").state == NOT_APPLICABLE
    assert run(CHECK, recommended="default recipe").state == NOT_APPLICABLE
    outside = BEST.replace(head_lr=5.0)
    assert result_of(outside).state == NOT_APPLICABLE
