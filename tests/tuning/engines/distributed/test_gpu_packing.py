"""How many runs share a GPU."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.engines.distributed.gpu_packing import GpuPacking

GIB = 1 << 30
PEAKS = st.floats(0.001, 200.0)


def facts(peak: float, total: float = 80, cache: float = 0) -> dict[str, float]:
    return {
        "peak_memory_bytes": peak * GIB,
        "device_memory_bytes": total * GIB,
        "cache_memory_bytes": cache * GIB,
    }


def measured(*peaks: float) -> GpuPacking:
    packing = GpuPacking({"CPU": 1.0, "GPU": 1.0}, measured=True)
    for peak in peaks:
        packing.record_memory(facts(peak))
    return packing


def share(packing: GpuPacking) -> float:
    return packing.current()["GPU"]


def test_the_first_run_has_a_gpu_and_the_next_share_by_what_it_took() -> None:
    packing = measured()
    assert packing.current() == {"CPU": 1.0, "GPU": 1.0}
    packing.record_memory(facts(11.5))  # 14.875 GiB with margin and context, of the 60 that are not for prefix caches
    assert packing.current() == {"CPU": 1.0, "GPU": 0.25}
    packing.record_memory(facts(1))
    assert share(packing) == 0.25, "the largest counts"
    packing.record_memory(facts(15))
    assert share(packing) == pytest.approx(1 / 3, abs=1e-4)


def test_prefix_caches_shrink_with_the_share_and_do_not_count() -> None:
    packing = measured()
    packing.record_memory(facts(11.5 + 20, cache=20))
    assert share(packing) == 0.25
    packing.record_memory(facts(5, cache=9))
    assert share(packing) == 0.25


def test_gpus_of_several_sizes_are_shared_as_the_smallest_allows() -> None:
    packing = measured(11.5)
    packing.record_memory(facts(11.5, total=40))
    assert share(packing) == 0.5


@pytest.mark.parametrize(("gpus", "first"), [(1, 1), (3, 3), (8, 5), (0.5, 1)])
def test_until_one_was_measured_no_more_run_than_there_are_gpus(gpus: float, first: int) -> None:
    packing = GpuPacking({"GPU": 1.0}, measured=True, gpus=gpus)
    assert packing.max_concurrent(5) == first
    packing.record_memory(facts(1))
    assert packing.max_concurrent(5) == 5
    assert GpuPacking({"GPU": 0.5}, gpus=1).max_concurrent(5) == 5


@given(st.lists(PEAKS, max_size=4), st.integers(0, 20))
def test_what_shares_a_gpu_fits_on_it(peaks: list[float], times: int) -> None:
    packing = measured(*peaks)
    for _ in range(times):
        packing.reduce_sharing(packing.current())
    found = share(packing)
    assert 1 / 16 <= found <= 1
    assert found * round(1 / found) <= 1, "or the last one would not fit"
    assert int(1 / found) == round(1 / found), "workers tell from it how many they are"
    assert found == 1 or round(1 / found) * max(peaks) <= 60, "a quarter is left for prefix caches"


@given(PEAKS, PEAKS)
def test_a_run_that_takes_more_never_asks_for_less(one: float, other: float) -> None:
    less, more = sorted((one, other))
    assert share(measured(less)) <= share(measured(more))
    assert share(measured(less, more)) == share(measured(more, less)) == share(measured(more))


@given(PEAKS)
def test_backing_off_lets_fewer_share_until_one_is_alone(peak: float) -> None:
    packing = measured(peak)
    runs = round(1 / share(packing))
    while runs > 1:
        assert packing.reduce_sharing(packing.current())
        assert round(1 / share(packing)) == runs - 1
        runs -= 1
        packing.record_memory(facts(0.001))
    assert share(packing) == 1.0
    assert not packing.reduce_sharing(packing.current()), "alone on a GPU: fewer at a time is all that is left"


def test_runs_that_were_packed_before_back_off_no_further() -> None:
    packing = measured(11.5)
    before = packing.current()
    for _ in range(3):
        assert packing.reduce_sharing(before)
        assert share(packing) == pytest.approx(1 / 3, abs=1e-4)


def test_what_the_user_gave_stays_unless_it_is_too_little() -> None:
    packing = GpuPacking({"CPU": 2.0, "GPU": 0.25}, gpus=2)
    packing.record_memory(facts(79))
    assert packing.current() == {"CPU": 2.0, "GPU": 0.25}
    assert packing.max_concurrent(9) == 9, "who wants more at a time than fit gets them one after another"
    assert packing.reduce_sharing(packing.current())
    assert packing.current() == {"CPU": 2.0, "GPU": 0.3333}
    assert packing.max_concurrent(9) == 6


def test_without_a_gpu_there_is_nothing_to_share_and_a_word_of_it(caplog: pytest.LogCaptureFixture) -> None:
    packing = GpuPacking({"CPU": 1.0}, measured=True)
    assert "--gpus-per-trial auto: the cluster has no GPU; the trials run on its CPUs" in caplog.text
    packing.record_memory(facts(1))
    assert packing.current() == {"CPU": 1.0}
    assert packing.max_concurrent(5) == 5
    assert not packing.reduce_sharing(packing.current())


@pytest.mark.parametrize("said", [{}, {"peak_memory_bytes": 0, "device_memory_bytes": 1}, {"peak_memory_bytes": 1}])
def test_a_run_that_measured_nothing_teaches_nothing(said: dict[str, float]) -> None:
    packing = measured()
    packing.record_memory(said)
    assert share(packing) == 1.0
    assert packing.max_concurrent(2) == 1
