from __future__ import annotations

import time

import torch

from nbt.models.backbone import build_backbone
from nbt.models.backbone_spec import parse_backbone
from nbt.models.size import measure_latency, parameter_count


def test_the_head_does_not_count() -> None:
    # conv3 of width 4: a filter bank of 3 x 3 for 3 and twice for 4 channels, each with a bias and a normalisation.
    spec = parse_backbone("conv3(width=4)")
    few, many = (build_backbone(spec, n_classes, image_size=28, seed=0) for n_classes in (2, 90))
    assert parameter_count(few) == parameter_count(many)
    assert parameter_count(few) == sum(p.numel() for p in few.parameters()) - sum(
        p.numel() for p in few.head.parameters()
    )
    assert parameter_count(few) >= 9 * 4 * (3 + 4 + 4)


def test_the_latency_is_that_of_one_image_in_milliseconds() -> None:
    model = build_backbone(parse_backbone("conv3(width=64)"), 5, image_size=84, seed=0)
    threads = torch.get_num_threads()
    measured = measure_latency(model, 84, "cpu")
    image = torch.zeros(1, 3, 84, 84)
    with torch.inference_mode():
        times = []
        for _ in range(20):
            started = time.process_time()
            model(image)
            times.append(1e3 * (time.process_time() - started))
    assert 0.2 * min(times) < measured < 5 * max(times)
    assert torch.get_num_threads() == threads
    small = build_backbone(parse_backbone("conv3(width=8)"), 5, image_size=28, seed=0)
    assert measure_latency(small, 28, "cpu") < measured
