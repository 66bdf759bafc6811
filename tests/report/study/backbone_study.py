"""A finished study of three backbones, of which one got no trial."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nbt.tuning.storage.candidates import BackboneForecast, CandidateConfig, CandidateRecord
from nbt.tuning.storage.records import StudyRecord
from tests.sample_study import sample_study

REFERENCE, OTHER, BAD = "mobilenet_v2(width_mult=0.35)", "squeezenet1_0", "vgg11"


def backbone_study(**changes: Any) -> StudyRecord:
    """Returns `sample_study` with trial 12, which is recommended, and trial 13 on another backbone."""
    record = sample_study(**changes)
    candidates = tuple(
        CandidateConfig(name=name, backbone=name, weights="default", weights_hash=f"hash {name}", image_size=size)
        for name, size in ((REFERENCE, 96), (OTHER, 64), (BAD, 96))
    )
    expected = ((0.7, 0.847), (0.65, 0.619), (0.1, -2.197))
    known = tuple(
        CandidateRecord(
            name=candidate.name,
            parameters=(i + 1) * 400_000,
            cost=float(i + 1),
            probe=mean,
            forecast=BackboneForecast(mean=mean, low=mean / 2, high=mean + 0.1, log_odds=odds, spread=0.4),
            latency=(8.0, 2.5, 30.0)[i],
            licence="MIT" if i == 1 else "",
        )
        for i, (candidate, (mean, odds)) in enumerate(zip(candidates, expected, strict=True))
    )

    def moved(item: Any, numbers: tuple[int, ...]) -> Any:
        number = item.trial if hasattr(item, "trial") else item.number
        return replace(item, settings=item.settings.replace(backbone=OTHER)) if number in numbers else item

    return replace(
        record,
        config=replace(record.config, candidates=candidates),
        trials=tuple(moved(trial, (12, 13)) for trial in record.trials),
        finals=tuple(moved(final, (12, 13)) for final in record.finals),
        candidates=known,
        left_out={"broken": "no such weights"},
    )
