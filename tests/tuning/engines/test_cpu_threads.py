"""The threads of worker processes, and of this process while workers train."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy  # noqa: F401 - loads OpenBLAS
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from nbt.tuning.engines.cpu_threads import limit_threads, single_threaded, thread_environment

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.delenv(name, raising=False)


def test_all_libraries_of_a_worker_have_the_same_limit() -> None:
    assert thread_environment(2) == {**dict.fromkeys(VARIABLES, "2"), "GOMP_SPINCOUNT": "20000"}


def test_lower_numbers_and_the_way_of_waiting_of_the_user_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in zip(VARIABLES, ("1", "8", "many"), strict=True):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert thread_environment(4) == {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "4",
        "MKL_NUM_THREADS": "4",
    }


@pytest.mark.parametrize(("value", "expected"), [(None, 4), ("2", 2), ("8", 4), ("0", 4), ("x", 4)])
def test_omp_num_threads_lowers_the_number(monkeypatch: pytest.MonkeyPatch, value: str | None, expected: int) -> None:
    if value is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert limit_threads(4) == expected
    assert limit_threads(0) == 1


def test_this_process_uses_one_thread_while_workers_train() -> None:
    def numbers() -> list[int]:
        return [library["num_threads"] for library in threadpool_info()]

    with threadpool_limits(2):
        before = numbers()
        assert before
        with single_threaded():
            assert set(numbers()) == {1}
        assert numbers() == before


def test_a_process_that_trains_limits_only_the_libraries_of_numpy_and_scipy() -> None:
    with threadpool_limits(2):
        before = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        with single_threaded(trains=True):
            for library in threadpool_info():
                expected = 1 if library["user_api"] == "blas" else before.get(library["filepath"])
                assert library["num_threads"] == expected or library["filepath"] not in before


_SCIPY_IS_LIMITED = """
import json
from nbt.tuning.engines.cpu_threads import single_threaded
from threadpoolctl import threadpool_info
with single_threaded():
    import scipy.linalg
    print(json.dumps([library["num_threads"] for library in threadpool_info()]))
"""


def test_the_library_of_scipy_is_limited_although_it_is_imported_later() -> None:
    done = subprocess.run([sys.executable, "-c", _SCIPY_IS_LIMITED], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) == {1}
