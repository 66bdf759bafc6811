"""How many runs share a GPU."""

from __future__ import annotations

import pytest

from nbt.search.engines.packing import Packing

GIB = 1 << 30


def facts(peak: float, total: float = 80) -> dict[str, float]:
    return {"peak_memory_bytes": peak * GIB, "device_memory_bytes": total * GIB}


def test_the_first_run_has_a_gpu_and_the_next_share_by_what_it_took() -> None:
    packing = Packing({"CPU": 1.0, "GPU": 1.0}, measured=True)
    assert packing.current() == {"CPU": 1.0, "GPU": 1.0}
    packing.learn(facts(15))  # 19.25 of 80 GiB with margin and context
    assert packing.current() == {"CPU": 1.0, "GPU": 0.25}
    packing.learn(facts(1))
    assert packing.current()["GPU"] == 0.25, "the largest counts"
    packing.learn(facts(20))
    assert packing.current()["GPU"] == pytest.approx(1 / 3, abs=1e-4)


@pytest.mark.parametrize("peak", [0.01, 0.5, 3, 7, 11, 30, 79, 200])
def test_what_shares_a_gpu_fits_on_it(peak: float) -> None:
    packing = Packing({"GPU": 1.0}, measured=True)
    packing.learn(facts(peak))
    share = packing.current()["GPU"]
    assert share == 1.0 or int(1 / share) * peak <= 80
    assert round(1 / share) * share <= 1.0


def test_backs_off_one_run_at_a_time_and_stays_there() -> None:
    packing = Packing({"GPU": 1.0}, measured=True)
    packing.learn(facts(15))
    assert packing.back_off()
    assert packing.current()["GPU"] == pytest.approx(1 / 3, abs=1e-4)
    packing.learn(facts(1))
    assert packing.back_off() and packing.back_off()
    assert packing.current()["GPU"] == 1.0
    assert not packing.back_off(), "alone on a GPU: fewer at a time is all that is left"


def test_what_the_user_gave_stays() -> None:
    packing = Packing({"CPU": 2.0, "GPU": 0.5})
    packing.learn(facts(79))
    assert not packing.back_off()
    assert packing.current() == {"CPU": 2.0, "GPU": 0.5}


def test_without_a_gpu_there_is_nothing_to_share() -> None:
    packing = Packing({"CPU": 1.0}, measured=True)
    packing.learn(facts(1))
    assert packing.current() == {"CPU": 1.0}
