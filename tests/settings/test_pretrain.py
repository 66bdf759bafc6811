from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.settings.pretrain import PretrainSettings, default_pretrain_settings


@given(epochs=st.integers(2, 30), period=st.integers(1, 29))
def test_zaps_start_epochs_except_the_first(epochs: int, period: int) -> None:
    if period >= epochs:
        with pytest.raises(UsageError, match="longer than the training"):
            PretrainSettings(epochs=epochs, zap_period=period)
        return
    settings = PretrainSettings(epochs=epochs, zap_period=period)
    zapped = [epoch for epoch in range(1, epochs + 1) if settings.is_zap_due(epoch)]
    assert zapped == list(range(1 + period, epochs + 1, period))
    assert not PretrainSettings(epochs=epochs).is_zap_due(2)


def test_the_published_period_zaps_in_every_episode() -> None:
    settings = PretrainSettings(scheme="asb", episodes=6, zap_period=1)
    assert [number for number in range(1, 7) if settings.is_zap_due(number)] == [1, 2, 3, 4, 5, 6]
    settings = PretrainSettings(scheme="meta-asb", episodes=6, zap_period=3)
    assert [number for number in range(1, 7) if settings.is_zap_due(number)] == [3, 6]


def test_published_settings() -> None:
    asb, meta = default_pretrain_settings("asb", "conv3"), default_pretrain_settings("meta-asb", "conv3")
    assert (asb.episodes, asb.inner_lr, asb.lr, asb.remembered, asb.inner_steps) == (9000, 1e-3, 1e-3, 64, 20)
    assert (meta.episodes, meta.inner_lr, meta.lr, meta.remembered, meta.inner_steps) == (25_000, 0.1, 1e-3, 64, 20)
    iid = default_pretrain_settings("iid", "conv3")
    assert (iid.lr, iid.batch_size, iid.epochs) == (1e-3, 256, 10)
    natural = [default_pretrain_settings(scheme, "conv4") for scheme in ("iid", "asb", "meta-asb")]
    assert (natural[0].lr, natural[0].batch_size, natural[0].epochs) == (3e-4, 256, 30)
    assert [(s.episodes, s.inner_lr, s.lr, s.remembered) for s in natural[1:]] == [
        (9000, 1e-3, 1e-3, 100),
        (25_000, 1e-3, 1e-3, 100),
    ]


def test_digits_take_fewer_steps() -> None:
    settings = [default_pretrain_settings(scheme, "conv3", digits=True) for scheme in ("iid", "asb", "meta-asb")]
    assert (settings[0].epochs, settings[0].batch_size) == (15, 64)
    assert [(s.episodes, s.inner_lr, s.remembered) for s in settings[1:]] == [(400, 1e-3, 100), (400, 1e-2, 100)]


def test_none_keeps_the_default() -> None:
    assert default_pretrain_settings("asb", "conv3", episodes=None, lr=0.5) == default_pretrain_settings(
        "asb", "conv3", lr=0.5
    )


def test_equal_trainings_have_equal_dictionaries() -> None:
    assert PretrainSettings(episodes=7, inner_lr=0.3, zap_scale="as_released").to_dict() == PretrainSettings().to_dict()
    asb = PretrainSettings(scheme="asb", epochs=3, batch_size=9)
    assert asb.to_dict() == PretrainSettings(scheme="asb").to_dict()
    values = dataclasses.asdict(PretrainSettings(zap_period=2))
    changes = [{"zap_period": 3}, {"zap_scale": "as_released"}, {"zap_fraction": 0.5}, {"lr": 0.1}, {"epochs": 9}]
    changed = [PretrainSettings(**values | change).to_dict() for change in changes]
    assert PretrainSettings(**values).to_dict() not in changed


def test_gradient_steps() -> None:
    assert PretrainSettings(epochs=3, batch_size=10).gradient_steps(25) == 9
    assert PretrainSettings(scheme="asb", episodes=5).gradient_steps(25) == 105


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scheme": "asbb"}, "did you mean asb"),
        ({"zap_scale": "row"}, "zap scale 'row'"),
        ({"epochs": 0}, "epochs: 0 is not 1 or more"),
        ({"scheme": "asb", "episodes": 0}, "episodes: 0"),
        ({"lr": 0.0}, "lr: 0 is not a rate above 0"),
        ({"inner_lr": float("nan")}, "inner lr: nan"),
        ({"zap_period": -1}, "zap period -1"),
        ({"zap_period": 10}, "zap period 10 is longer than the training of 10 epochs"),
        ({"scheme": "asb", "episodes": 5, "zap_period": 6}, "longer than the training of 5 episodes"),
        ({"zap_period": 1, "zap_fraction": 0.0}, "zap fraction 0: 0 classes"),
        ({"zap_fraction": 1.5}, "more than all classes"),
        ({"scheme": "asb", "zap_fraction": 0.5}, "zaps the one class of its episode"),
    ],
)
def test_errors_name_the_invalid_value(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PretrainSettings(**values)  # type: ignore[arg-type]
