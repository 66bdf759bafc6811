"""What MLflow shows of a trial is what ran: compared with the real optimiser and the real steps of a training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nbt.api import load_task
from nbt.settings import TransferSettings
from nbt.tracking import sync
from nbt.training.recipe import optimizer as optimizer_module
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.training.run_trial import run_trial
from nbt.training.worker.context import WorkerContext
from nbt.transfer.l2sp import L2SP
from tests.sample_study import empty_study, trial


@pytest.fixture(params=["sgd", "adamw"])
def settings(request: pytest.FixtureRequest) -> TransferSettings:
    return TransferSettings(
        epochs=1,
        optimizer=request.param,
        frozen_depth=0.4,
        body_lr=0.003,
        head_lr=0.02,
        decay_strength=0.004,
        layer_lr_shape=(-1.0, 0.0, 0.0),
        warmup=0.0,
    )


class Observed:
    """The optimiser of a training, the highest rate of each of its groups, and the decay that was applied."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.optimizer: torch.optim.Optimizer | None = None
        self.rates: list[float] = []
        self.strengths: list[float] = []
        make, create = optimizer_module.make_optimizer, L2SP.__init__

        def observed_make(*arguments: Any) -> torch.optim.Optimizer:
            self.optimizer = make(*arguments)
            step = self.optimizer.step

            def observed_step(*options: Any) -> Any:
                assert self.optimizer is not None
                rates = [group["lr"] for group in self.optimizer.param_groups]
                self.rates = [max(pair) for pair in zip(self.rates or rates, rates, strict=True)]
                return step(*options)

            monkeypatch.setattr(self.optimizer, "step", observed_step)
            return self.optimizer

        def observed_create(l2sp: L2SP, groups: Any, *arguments: Any) -> None:
            self.strengths = [group.alpha + group.beta for group in groups]
            create(l2sp, groups, *arguments)

        monkeypatch.setattr("nbt.training.fine_tune.make_optimizer", observed_make)
        monkeypatch.setattr(L2SP, "__init__", observed_create)


def test_rates_decay_and_parameters_in_mlflow_are_those_of_the_optimiser(
    settings: TransferSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.tracking import MlflowClient

    observed = Observed(monkeypatch)
    task = load_task("digits", backbone="conv3(width=8)", weights="none", shots=12)
    outcome: TrialOutcome = run_trial(TrialSpec(key="t", settings=settings), WorkerContext(task), lambda _: None)
    assert outcome.error is None and observed.optimizer is not None
    record = replace(empty_study(), trials=(trial(0, settings=settings, curve=outcome.curve, facts=outcome.facts),))
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    sync(record, uri)
    client = MlflowClient(tracking_uri=uri)
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    [run] = client.search_runs(experiments, "tags.kind = 'trial'")
    logged = json.loads(run.data.tags["settings"])
    groups = observed.optimizer.param_groups
    trained = sum(parameter.numel() for group in groups for parameter in group["params"])
    assert int(run.data.tags["trainable_parameters"]) == trained
    assert trained < sum(parameter.numel() for parameter in task.build_model().parameters()), "one unit is frozen"
    low, high = json.loads(run.data.tags["learning_rates"])
    assert min(observed.rates) == pytest.approx(low, rel=0.05)
    assert max(observed.rates) == pytest.approx(high, rel=0.05)
    assert high == pytest.approx(logged["head_lr"]) == pytest.approx(float(run.data.params["head_lr"]))
    assert float(run.data.params["body_lr"]) == settings.body_lr
    assert float(run.data.tags["weight_decay"]) == max(observed.strengths) == pytest.approx(logged["decay_strength"])
    assert type(observed.optimizer).__name__.lower() == logged["optimizer"]
