"""Records of studies as real searches produce them: baseline recipes, sampled trials, finals and test."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from statistics import fmean, stdev
from typing import Any

from nbt.settings import TransferSettings, repair
from nbt.training.results import EpochResult
from nbt.tuning.intervals import Interval
from nbt.tuning.storage import codec
from nbt.tuning.storage.records import (
    INTERRUPTED,
    FinalRecord,
    FinalRun,
    StudyConfig,
    StudyRecord,
    TestRecord,
    TrialRecord,
)
from tests.predictions import fake_predictions

CREATED = datetime(2026, 3, 1, 9, 30, tzinfo=UTC)
EPOCHS = 12
DEFAULT = TransferSettings(epochs=EPOCHS)
BEST = repair(
    TransferSettings(
        transfer_depth=0.8,
        frozen_depth=0.35,
        head_lr=0.041,
        body_lr=0.013,
        layer_lr_shape=(-1.2, -0.4, 0.0),
        decay_strength=3e-3,
        sp_mix=0.6,
        label_smoothing=0.1,
        augmentation="color",
        epochs=EPOCHS,
    )
)
_STUDENT_QUANTILES = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}


def config(**changes: Any) -> StudyConfig:
    values: dict[str, Any] = {
        "name": "cub-mobilenet_v2-non_binary",
        "dataset": "cub",
        "backbone": "mobilenet_v2(width_mult=0.35)",
        "weights": "default",
        "space": "non_binary",
        "space_hash": "5b0c91",
        "data_hash": "c0ffee0123456789",
        "weights_hash": "9e1d77",
        "image_size": 96,
        "epochs": EPOCHS,
        "seed": 0,
        "data_dir": "birds/CUB_200_2011",
    }
    return StudyConfig(**{**values, **changes})


def curve(accuracy: float, *, epochs: int = EPOCHS, seed: int = 0, seconds: float = 4.0) -> tuple[EpochResult, ...]:
    """Returns a curve that rises to about `accuracy` at the last of `EPOCHS` epochs, or its first `epochs` epochs."""
    rng = random.Random(f"{seed}/{accuracy}")
    results = []
    for epoch in range(1, epochs + 1):
        share = 1.0 - math.exp(-4.0 * epoch / EPOCHS)
        reached = max(0.0, accuracy * share / (1.0 - math.exp(-4.0)) + rng.uniform(-0.006, 0.006) * (epoch < EPOCHS))
        loss = 4.0 * (1.0 - reached) + 0.15
        results.append(
            EpochResult(epoch, loss * 0.8, round(loss, 4), round(reached, 4), seconds + rng.uniform(-0.3, 0.3))
        )
    return tuple(results)


def diverged_curve() -> tuple[EpochResult, ...]:
    first = EpochResult(1, 6.5, 5.9, 0.03, 4.1)
    return (first, EpochResult(2, math.inf, None, None, 2.2, diverged=True))


def trial(number: int, state: str = "complete", **changes: Any) -> TrialRecord:
    started = CREATED + timedelta(minutes=number)
    values: dict[str, Any] = {
        "number": number,
        "state": state,
        "settings": sampled(number),
        "started": started,
        "finished": None if state == "running" else started + timedelta(seconds=50),
        "facts": {"device": "cpu", "precision": "float32", "setup_seconds": 0.03},
    }
    return TrialRecord(**{**values, **changes})


def interrupted(number: int, **changes: Any) -> TrialRecord:
    """Returns an interrupted trial with three epochs."""
    values = {"reason": INTERRUPTED, "curve": curve(0.5, epochs=3), "facts": {}}
    return trial(number, "failed", **{**values, **changes})


def sampled(number: int) -> TransferSettings:
    rng = random.Random(number)
    return repair(
        TransferSettings(
            transfer_depth=round(rng.uniform(0.2, 1.0), 2),
            frozen_depth=round(rng.uniform(0.0, 0.9), 2),
            head_lr=10 ** rng.uniform(-3, -0.5),
            body_lr=10 ** rng.uniform(-4, -1),
            layer_lr_shape=(round(rng.uniform(-2, 0), 2), round(rng.uniform(-1, 0), 2), 0.0),
            decay_strength=10 ** rng.uniform(-5, -2),
            sp_mix=round(rng.uniform(0, 1), 2),
            optimizer=rng.choice(("sgd", "adamw")),
            mixup=rng.choice((0.0, 0.2)),
            epochs=EPOCHS,
        )
    )


def trials() -> list[TrialRecord]:
    probe = DEFAULT.replace(frozen_depth=1.0)
    sp = DEFAULT.replace(sp_mix=1.0, decay_strength=0.01)
    out_of_memory = "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB"
    records = [
        trial(0, settings=DEFAULT, origin="anchor: default recipe", curve=curve(0.661, seed=0)),
        trial(1, settings=probe, origin="anchor: linear probe", curve=curve(0.548, seed=1, seconds=0.4)),
        trial(2, settings=sp, origin="anchor: L2-SP", curve=curve(0.668, seed=2)),
        trial(5, "failed", reason=out_of_memory, facts={"traceback": f"Traceback ...\n{out_of_memory}"}),
        trial(7, curve=diverged_curve(), reason="the loss became infinite or NaN"),
        trial(12, settings=BEST, curve=curve(0.712, seed=12, seconds=2.9)),
    ]
    for number, accuracy in {3: 0.604, 8: 0.689, 10: 0.655, 14: 0.701, 17: 0.694}.items():
        records.append(trial(number, curve=curve(accuracy, seed=number)))
    for number, epochs in {4: 2, 6: 2, 9: 4, 11: 2, 13: 4, 15: 2, 16: 4}.items():
        reason = f"rank 5 of 6 after {epochs} epochs"
        records.append(
            trial(number, "pruned", curve=curve(0.3 + number / 60, epochs=epochs, seed=number), reason=reason)
        )
    return sorted(records, key=lambda record: record.number)


def interval(values: Sequence[float]) -> Interval:
    n = len(values)
    if n == 1:
        return Interval(mean=values[0], low=None, high=None, n=1)
    half = _STUDENT_QUANTILES[n] * stdev(values) / math.sqrt(n)
    return Interval(mean=fmean(values), low=fmean(values) - half, high=fmean(values) + half, n=n)


def final(
    name: str,
    number: int | None,
    settings: TransferSettings,
    accuracies: Sequence[float],
    *,
    default: Sequence[float] | None = None,
    dropped: str = "",
) -> FinalRecord:
    runs = tuple(
        FinalRun(seed=seed, curve=curve(value, seed=100 + seed)) for seed, value in enumerate(accuracies, start=1)
    )
    pairs = None if default is None else [a - b for a, b in zip(accuracies, default, strict=False)]
    return FinalRecord(
        name=name,
        trial=number,
        settings=settings,
        runs=runs,
        validation=interval(accuracies),
        versus_default=None if pairs is None else interval(pairs),
        dropped=dropped,
    )


def finals(*, gain: float = 0.045) -> tuple[FinalRecord, ...]:
    default = (0.652, 0.668, 0.659, 0.671, 0.655)
    noise = (0.002, -0.004, 0.003, 0.001, -0.002)
    best = tuple(value + gain + w for value, w in zip(default, noise, strict=True))
    return (
        final("trial 12", 12, BEST, best, default=default),
        final("default recipe", 0, DEFAULT, default),
        final(
            "trial 14",
            14,
            sampled(14),
            (0.671, 0.679, 0.668),
            default=default,
            dropped="worse than trial 12 after 3 seeds",
        ),
    )


def tests(n: int = 1174) -> tuple[TestRecord, ...]:
    return (
        TestRecord(name="recommended", accuracy=Interval(mean=0.695, low=0.668, high=0.7207, n=n), loss=1.21, n=n),
        TestRecord(name="baseline", accuracy=Interval(mean=0.651, low=0.6233, high=0.6777, n=n), loss=1.43, n=n),
    )


def sample_study(**changes: Any) -> StudyRecord:
    """Returns a finished study of 18 trials; `changes` replace fields of the record."""
    listed = trials()
    values: dict[str, Any] = {
        "config": config(),
        "dataset": {
            "classes": 50,
            "train_images": 1200,
            "validation_images": 299,
            "test_images": 1174,
            "class_images_min": 29,
            "class_images_median": 30.0,
            "class_images_max": 30,
            "imbalance": 1.034,
            "image_size": 96,
            "validation_share": 0.1995,
            "validation_standard_error": 0.0289,
            "unreadable_images": 1,
        },
        "budget": "14",
        "epochs_budget": 14 * EPOCHS,
        "epochs_spent": sum(len(t.curve) for t in listed),
        "seconds_spent": 612.0,
        "pruner": "asha",
        "trials": tuple(listed),
        "finals": finals(),
        "recommended": "trial 12",
        "verdict": "Trial 12 is better than the default recipe by 4.5 points.",
        "test": tests(),
        "test_evaluations": 1,
        "importance": {
            "transfer_depth": 0.41,
            "body_lr": 0.27,
            "frozen_depth": 0.14,
            "sp_mix": 0.09,
            "optimizer": 0.09,
        },
        "noise": 0.026,
        "notes": ("1 image could not be read and was left out: birds/broken.jpg (truncated)",),
        "created": CREATED,
    }
    return StudyRecord(**{**values, **changes})


def evaluated_study(classes: int = 50, images: int = 1174, **changes: Any) -> StudyRecord:
    """Returns the sample study with stored predictions of the test images, and with the names of its classes."""
    predictions = {
        codec.test_key(settings): fake_predictions(accuracy, images, classes, seed)
        for seed, (settings, accuracy) in enumerate(((BEST, 0.695), (DEFAULT, 0.651)))
    }
    values = {
        "test": tests(images),
        "load_predictions": predictions.get,
        "class_names": tuple(f"bird {label}" for label in range(classes)),
        "class_images": (40, *[30] * (classes - 1)),
    }
    return sample_study(**{**values, **changes})


def unfinished_study(**changes: Any) -> StudyRecord:
    """Returns the sample study before its finals, with one running trial."""
    listed = (*trials(), trial(18, "running", curve=curve(0.5, epochs=3)))
    return sample_study(
        **{
            "trials": listed,
            "finals": (),
            "recommended": None,
            "verdict": "",
            "test": (),
            "test_evaluations": 0,
            **changes,
        }
    )


def forecast(
    mean: float, *, last: int, incumbent: float = 0.661, would_stop: int | None = None, control: bool = False
) -> dict[str, Any]:
    """Returns the stored forecasts of a trial from epoch 2 to epoch `last`; intervals are ten points wide."""
    rows = [[e, mean, mean - 0.05, mean + 0.05, 0.02 if e == would_stop else 0.3] for e in range(2, last + 1)]
    names = ("epoch", "mean", "low", "high", "chance")
    return {
        **dict(zip(names, rows[-1], strict=True)),
        "incumbent": incumbent,
        "would_stop": would_stop,
        "control": control,
        "rows": rows,
    }


def forecasts() -> dict[int, dict[str, Any]]:
    """Returns the forecasts by trial of the sample study.

    Seven stopped trials, two controls, one of which beat the incumbent, one unpromising baseline recipe, and three
    promising trials.
    """
    stopped = {4: 2, 6: 2, 9: 4, 11: 2, 13: 4, 15: 2, 16: 4}
    by_number = {number: forecast(0.5, last=epoch, would_stop=epoch) for number, epoch in stopped.items()}
    by_number[1] = forecast(0.56, last=11, would_stop=3)
    by_number[3] = forecast(0.6, last=11, would_stop=4, control=True)
    by_number[10] = forecast(0.58, last=11, incumbent=0.65, would_stop=4, control=True)
    return by_number | {number: forecast(0.69, last=11, incumbent=0.7) for number in (8, 14, 17)}


def source(name: str, before: float, after: float, agreement: float | None = None, **changes: Any) -> dict[str, Any]:
    values = {"mean": before, "spread": 0.4, "after": after, "after_spread": 0.1, "agreement": agreement, "trials": 10}
    return {"name": name, "words": f"proposal of {name}", "origin": f"origin of {name}", **values, **changes}


def stored_diagnostics() -> dict[str, Any]:
    """Returns prior diagnostics as the storage contains them."""
    return {
        "sources": [
            source("transfer up to the knee", 0.3, 0.45, 0.62),
            source("effective rate by similarity", 0.3, -0.05, -0.41),
            source("enough steps", 0.15, 0.18, after_spread=0.3),
            source("recorded tasks", 0.5, 0.52, 0.2, after_spread=0.3),
        ],
        "silent": [{"name": "rates by shift", "reason": "not measured: statistics shift by unit"}],
        "tables": ["sketch7", "digits"],
    }


def study_with_priors(**changes: Any) -> StudyRecord:
    """Returns the sample study with priors, recorded tasks and the fit pruner."""
    listed = list(trials())
    for number, stored in forecasts().items():
        listed[number] = replace(listed[number], facts={**listed[number].facts, "forecast": stored})
    return sample_study(
        **{"pruner": "fit", "prior_diagnostics": stored_diagnostics(), "trials": tuple(listed), **changes}
    )


def spread_study(**changes: Any) -> StudyRecord:
    """Returns the sample study as run on three GPUs of two nodes, with two lost workers."""
    locations = (("alpha", "0"), ("alpha", "1"), ("beta", "0"))
    listed = []
    for record in trials():
        node, gpu = locations[record.number % 3]
        facts = {**record.facts, "precision": "bf16", "gpu": "NVIDIA H200", "worker": record.number % 3}
        listed.append(replace(record, facts={**facts, "device": "cuda:0", "node": node, "gpu_index": gpu}))
    lost = [{"node": "beta", "device": "cuda:0", "gpu_index": "1", "reason": "its node was lost"}]
    listed[8] = replace(listed[8], facts={**listed[8].facts, "lost_workers": lost})
    lost = [{"node": "alpha", "device": "cuda:0", "gpu_index": "0", "reason": "worker process died"}]
    listed[12] = replace(listed[12], facts={**listed[12].facts, "lost_workers": lost})
    return sample_study(**{"trials": tuple(listed), **changes})


def empty_study(**changes: Any) -> StudyRecord:
    """Returns a study without ended trials."""
    values: dict[str, Any] = {"trials": (), "epochs_spent": 0, "seconds_spent": 0.0, "importance": {}, "noise": None}
    return unfinished_study(**{**values, "notes": (), **changes})


def with_config(record: StudyRecord, **changes: Any) -> StudyRecord:
    return replace(record, config=replace(record.config, **changes))
