"""The study of zapping: its arms and its rule."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

STUDIES = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def rows_with(continual: float, standard: float, epochs: int = 1) -> list[dict[str, Any]]:
    """Returns all runs on seeds, in which zaps gain so much, and the first of so many epochs reaches the end."""
    from zapping import KEYS, SEEDS, ZAP

    rows = []
    for index, key in enumerate(KEYS):
        gain = (continual, standard) if key[1] == ZAP else (0.0, 0.0)
        for seed in SEEDS:
            ends = [0.4 + change + 0.001 * ((index + 2 * seed) % 5) for change in gain]
            row = {"arm": ", ".join(key), "seed": seed, "changes": [], "continual": ends[0], "standard": ends[1]}
            rise = epochs if key[1] == ZAP else 5
            rows.append(row | {"by_epoch": [ends[1] * min(1.0, (epoch + 1) / rise) for epoch in range(5)]})
    return rows


def test_the_verdict_follows_the_rule() -> None:
    from zapping import verdict

    assert verdict(rows_with(0.1, 0.1)) == "confirmed"
    assert verdict(rows_with(0.1, -0.05)) == "confirmed in part"
    assert verdict(rows_with(-0.1, -0.05)) == "not confirmed"
    assert verdict(rows_with(0.1, 0.1)[:-12]).startswith("no verdict: 2 of 6")


def test_the_ratio_of_epochs_to_the_accuracy_without_zaps() -> None:
    from zapping import speed

    assert speed(rows_with(0.0, 0.0), "asb") == pytest.approx(0.2, rel=0.02)
    assert speed(rows_with(0.0, 0.0, epochs=5), "asb") == pytest.approx(1.0, rel=0.02)


def test_compared_arms_differ_in_zaps_or_have_equal_steps() -> None:
    from zapping import EQUAL_COST, EQUAL_STEPS, META, PLAIN, RATE, ZAP, axes_of, settings_of

    for scheme, length in (("iid", 8.0), ("asb", 250.0), ("meta-asb", 250.0)):
        plain, zapped = (settings_of((scheme, zap), (length, 3e-4)).to_dict() for zap in (PLAIN, ZAP))
        assert {name for name in plain if plain[name] != zapped[name]} >= {"zap_period"}
        assert plain["lr"] == zapped["lr"] == 3e-4
        assert len(axes_of((scheme, ZAP))) == 2 and RATE in axes_of((scheme, PLAIN))
    assert not axes_of(META)
    assert settings_of(EQUAL_STEPS, ()).gradient_steps(1000) == settings_of(META, ()).gradient_steps(1000) == 21000
    assert settings_of(EQUAL_COST, ()).episodes == 1670 and settings_of(EQUAL_COST, ()).zap_period == 1


def test_no_class_of_the_judging_draws_is_known_to_the_search() -> None:
    from zapping import HELD_OUT, KNOWN_CLASSES, SOURCE_CLASSES, TRANSFER

    assert HELD_OUT["skip_classes"] == SOURCE_CLASSES
    assert HELD_OUT["skip_classes"] + HELD_OUT["classes"] == KNOWN_CLASSES == TRANSFER["skip_classes"]
