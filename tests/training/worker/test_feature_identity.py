"""The identity of frozen features: equal for equal tasks, another one if anything that features depend on changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from nbt.models.backbone_spec import parse_backbone
from nbt.task.task import Task
from nbt.training.worker import feature_identity
from nbt.training.worker.feature_identity import features_identity


def test_the_identity_changes_with_everything_that_features_depend_on(
    digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert digits.images.path is not None
    pool = np.arange(20)
    first = features_identity(digits, pool, 20)
    assert features_identity(dataclasses.replace(digits, seed=7, weights="none"), pool.copy(), 20) == first
    images = dataclasses.replace(digits.images, path=digits.images.path.with_name("others.npy"))
    others = [
        dataclasses.replace(digits, images=images),
        dataclasses.replace(digits, backbone=parse_backbone("conv3(width=9)")),
        dataclasses.replace(digits, mirror=not digits.mirror),
        dataclasses.replace(digits, mean=(0.1, 0.2, 0.3)),
    ]
    identities = [features_identity(task, pool, 20) for task in others]
    identities += [features_identity(digits, pool[::-1], 20), features_identity(digits, pool, 19)]
    with monkeypatch.context() as patch:
        patch.setattr(torch, "get_num_threads", lambda: 3)
        identities.append(features_identity(digits, pool, 20))
    with monkeypatch.context() as patch:
        patch.setattr(feature_identity, "_BOOT_ID", tmp_path / "missing")
        identities.append(features_identity(digits, pool, 20))
    assert len({first, *identities}) == 1 + len(identities)
