"""The number of trials that share a GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.engines.gpu_packing import GpuPacking, LocalGpuPacking

GIB = 1 << 30
PEAKS = st.floats(0.001, 200.0)


def facts(peak: float, total: float = 80, cache: float = 0) -> dict[str, float]:
    return {
        "peak_memory_bytes": peak * GIB,
        "device_memory_bytes": total * GIB,
        "cache_memory_bytes": cache * GIB,
    }


def measured(*peaks: float) -> GpuPacking:
    packing = GpuPacking({"CPU": 1.0, "GPU": 1.0}, measure_memory=True)
    for peak in peaks:
        packing.record_memory(facts(peak))
    return packing


def share(packing: GpuPacking) -> float:
    return packing.resources()["GPU"]


def test_the_first_trial_has_a_gpu_and_later_ones_share_by_its_memory() -> None:
    packing = measured()
    assert packing.resources() == {"CPU": 1.0, "GPU": 1.0}
    packing.record_memory(facts(11.5))  # 14.875 GiB with margin and context, of 60 GiB without those for caches
    assert packing.resources() == {"CPU": 1.0, "GPU": 0.25}
    packing.record_memory(facts(1))
    assert share(packing) == 0.25, "the largest trial determines the share"
    packing.record_memory(facts(15))
    assert share(packing) == pytest.approx(1 / 3, abs=1e-4)


def test_frozen_feature_caches_do_not_count() -> None:
    packing = measured()
    packing.record_memory(facts(11.5 + 20, cache=20))
    assert share(packing) == 0.25
    packing.record_memory(facts(5, cache=9))
    assert share(packing) == 0.25


def test_the_smallest_gpu_determines_the_share() -> None:
    packing = measured(11.5)
    packing.record_memory(facts(11.5, total=40))
    assert share(packing) == 0.5


@pytest.mark.parametrize(("gpus", "first"), [(1, 1), (3, 3), (8, 5), (0.5, 1)])
def test_one_trial_per_gpu_until_one_is_measured(gpus: float, first: int) -> None:
    packing = GpuPacking({"GPU": 1.0}, measure_memory=True, gpus=gpus)
    assert packing.max_concurrent(5) == first
    packing.record_memory(facts(1))
    assert packing.max_concurrent(5) == 5
    assert GpuPacking({"GPU": 0.5}, gpus=1).max_concurrent(5) == 5


@given(st.lists(PEAKS, max_size=4), st.integers(0, 20))
def test_trials_that_share_a_gpu_fit_on_it(peaks: list[float], times: int) -> None:
    packing = measured(*peaks)
    for _ in range(times):
        packing.reduce_sharing(packing.resources())
    result = share(packing)
    assert 1 / 16 <= result <= 1
    assert result * round(1 / result) <= 1, "otherwise the last trial would not fit"
    assert int(1 / result) == round(1 / result), "workers compute their number from it"
    assert result == 1 or round(1 / result) * max(peaks) <= 60, "a quarter is left for frozen-feature caches"


@given(PEAKS, PEAKS)
def test_the_share_grows_with_the_memory(first: float, second: float) -> None:
    less, more = sorted((first, second))
    assert share(measured(less)) <= share(measured(more))
    assert share(measured(less, more)) == share(measured(more, less)) == share(measured(more))


@given(PEAKS)
def test_reduce_sharing_removes_one_trial_per_call(peak: float) -> None:
    packing = measured(peak)
    trials = round(1 / share(packing))
    while trials > 1:
        assert packing.reduce_sharing(packing.resources())
        assert round(1 / share(packing)) == trials - 1
        trials -= 1
        packing.record_memory(facts(0.001))
    assert share(packing) == 1.0
    assert not packing.reduce_sharing(packing.resources()), "a trial alone on its GPU shares none"


def test_reduce_sharing_ignores_older_smaller_shares() -> None:
    packing = measured(11.5)
    before = packing.resources()
    for _ in range(3):
        assert packing.reduce_sharing(before)
        assert share(packing) == pytest.approx(1 / 3, abs=1e-4)


def test_a_given_share_grows_only_after_out_of_memory() -> None:
    packing = GpuPacking({"CPU": 2.0, "GPU": 0.25}, gpus=2)
    packing.record_memory(facts(79))
    assert packing.resources() == {"CPU": 2.0, "GPU": 0.25}
    assert packing.max_concurrent(9) == 9, "Ray queues trials that do not fit"
    assert packing.reduce_sharing(packing.resources())
    assert packing.resources() == {"CPU": 2.0, "GPU": 0.3333}
    assert packing.max_concurrent(9) == 6


def test_a_cluster_without_gpu_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    packing = GpuPacking({"CPU": 1.0}, measure_memory=True)
    assert "--gpus-per-trial auto: the cluster has no GPU; the trials run on its CPUs" in caplog.text
    packing.record_memory(facts(1))
    assert packing.resources() == {"CPU": 1.0}
    assert packing.max_concurrent(5) == 5
    assert not packing.reduce_sharing(packing.resources())


@pytest.mark.parametrize(
    "incomplete", [{}, {"peak_memory_bytes": 0, "device_memory_bytes": 1}, {"peak_memory_bytes": 1}]
)
def test_a_trial_without_measurement_changes_nothing(incomplete: dict[str, float]) -> None:
    packing = measured()
    packing.record_memory(incomplete)
    assert share(packing) == 1.0
    assert packing.max_concurrent(2) == 1


@pytest.mark.parametrize(
    ("workers", "gpus", "share", "max_workers"), [(4, 2, 0.5, 4), (3, 2, 0.5, 3), (2, 2, 1.0, 2), (1, 2, 1.0, 1)]
)
def test_local_workers_have_equal_shares(workers: int, gpus: int, share: float, max_workers: int) -> None:
    packing = LocalGpuPacking(workers, gpus)
    assert packing.resources() == {"GPU": share}
    assert packing.max_workers == max_workers


def test_local_workers_on_the_cpu_request_nothing(caplog: pytest.LogCaptureFixture) -> None:
    packing = LocalGpuPacking(3, 0, measure_memory=True)
    assert packing.resources() == {}
    assert packing.max_workers == packing.max_concurrent(3) == 3
    assert packing.choose_slot([1, 2], {0: {}}) == 1
    assert not caplog.text


def test_a_local_trial_runs_on_the_gpu_with_the_most_room() -> None:
    packing = LocalGpuPacking(6, 2)
    share = packing.resources()["GPU"]
    assert share == pytest.approx(1 / 3, abs=1e-4)
    assert packing.choose_slot([0, 1, 2, 3, 4, 5], {}) == 0
    assert packing.choose_slot([1, 2, 3, 4, 5], {0: {"GPU": share}}) == 1
    assert packing.choose_slot([0, 3, 5], {1: {"GPU": share}, 2: {"GPU": share}, 4: {"GPU": share}}) == 3


def test_a_local_trial_waits_until_a_gpu_has_room_for_a_larger_share() -> None:
    packing = LocalGpuPacking(8, 2)
    quarter = packing.resources()
    assert packing.reduce_sharing(quarter)
    assert packing.resources() == {"GPU": 0.3333}
    full = dict.fromkeys(range(7), quarter)  # four trials on GPU 0, three on GPU 1
    assert packing.choose_slot([7], full) is None
    del full[1]
    assert packing.choose_slot([1, 7], full) == 1
    assert packing.max_workers == packing.max_concurrent(8) == 6


@given(st.lists(st.booleans(), max_size=60), st.integers(1, 3), st.integers(1, 9))
def test_local_trials_never_exceed_a_gpu(events: list[bool], gpus: int, workers: int) -> None:
    """Trials start and end in any order, and every third end is out of memory."""
    packing = LocalGpuPacking(workers, gpus)
    busy: dict[int, dict[str, float]] = {}
    for number, starts in enumerate(events):
        if starts and len(busy) < packing.max_concurrent(workers):
            slot = packing.choose_slot([slot for slot in range(workers) if slot not in busy], busy)
            assert slot is not None or busy, "a trial waits only for others"
            if slot is not None:
                busy[slot] = packing.resources()
        elif busy:
            resources = busy.pop(next(iter(busy)))
            if number % 3 == 0:
                packing.reduce_sharing(resources)
        for gpu in range(gpus):
            assert sum(used["GPU"] for slot, used in busy.items() if slot % gpus == gpu) <= 1.0 + 1e-9
