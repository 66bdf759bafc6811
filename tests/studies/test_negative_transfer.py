"""The study of weights that do not help: how they are spoilt, and what the report says of searches."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

STUDIES = Path(__file__).resolve().parents[2] / "studies"
KINDS = ("permuted", "shuffled", "noise")


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


STATE = {
    "conv.weight": torch.arange(24.0).reshape(4, 2, 3),
    "bn.running_var": torch.arange(1.0, 5.0),
    "bn.num_batches_tracked": torch.tensor(3),
}


@pytest.mark.parametrize("kind", KINDS)
def test_spoilt_weights(kind: str) -> None:
    from negative_transfer import spoil

    spoilt = spoil(STATE, kind, 0)
    weight, original = spoilt["conv.weight"], STATE["conv.weight"]
    assert weight.shape == original.shape and not torch.equal(weight, original)
    assert torch.equal(weight, spoil(STATE, kind, 0)["conv.weight"]), "the seed decides"
    assert spoilt["bn.num_batches_tracked"] == 3
    assert sorted(spoilt["bn.running_var"].tolist()) == [1.0, 2.0, 3.0, 4.0], "variances stay positive"
    if kind != "noise":
        assert torch.equal(weight.flatten().sort().values, original.flatten())
    filters = {tuple(one.flatten().tolist()) for one in original}
    assert ({tuple(one.flatten().tolist()) for one in weight} == filters) == (kind == "shuffled")


def test_noise_has_the_mean_and_spread_of_the_tensor() -> None:
    from negative_transfer import spoil

    large = torch.randn(100, 100) * 3.0 + 2.0
    noise = spoil({"w": large}, "noise", 1)["w"]
    assert noise.mean().item() == pytest.approx(2.0, abs=0.1) and noise.std().item() == pytest.approx(3.0, abs=0.1)


def test_the_share_of_transfers_leaves_out_the_default_recipe() -> None:
    from negative_transfer import trial_facts

    trials = pd.DataFrame(
        {
            "origin": ["baseline: default recipe", "baseline: from scratch", "proposed", "proposed"],
            "state": ["complete", "complete", "complete", "pruned"],
            "transfer_depth": [1.0, 0.0, 0.5, 0.2],
            "seconds": [10.0, 10.0, 15.0, 5.0],
            "val_accuracy": [0.5, 0.4, 0.45, float("nan")],
        }
    )
    facts = trial_facts(trials)
    assert facts == {"share": pytest.approx(15 / 40), "best_transfer": 0.5, "best_scratch": 0.4}


def row(kind: str, depth: float, share: float) -> dict[str, object]:
    return {
        "kind": kind,
        "dataset": "trash6",
        "seed": 0,
        "transfer_depth": depth,
        "share": share,
        "test": 0.5,
        "default": 0.45,
        "best_scratch": 0.4,
        "best_transfer": 0.5,
        "machine": "m",
    }


@pytest.mark.parametrize(
    ("depth", "share", "expected"), [(0.25, 0.1, "left out"), (0.3, 0.1, "not left out"), (0.0, 0.2, "not left out")]
)
def test_verdict(depth: float, share: float, expected: str) -> None:
    from negative_transfer import verdict

    assert verdict([row("noise", 0.0, 0.0), row("noise", depth, share)]) == expected


def test_report() -> None:
    from negative_transfer import summarise

    intact = [{"recommended": {"transfer_depth": 0.8}}, {"recommended": {"transfer_depth": 0.2}}]
    text = summarise([row("permuted", 1.0, 0.5), row("noise", 0.0, 0.05)], intact)
    assert "- permuted: not left out. Recommended depth at most 0.25 in 0 of 1 searches; transfers took 50 %" in text
    assert "- noise: left out. Recommended depth at most 0.25 in 1 of 1 searches" in text
    assert "the recommendation is +5.0 points from the default recipe" in text
    assert "(2 searches of `optimism.py`): recommended depth at most 0.25 in 1; the least is 0.20." in text
    assert "| noise | trash6 | 0 | 0.00 | 0.05 | 0.500 | 0.450 | 0.400 | 0.500 |" in text
