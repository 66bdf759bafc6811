"""The number of workers that fits a machine."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.tuning.engines import worker_count
from nbt.tuning.engines.gpu_packing import MAX_TRIALS_PER_GPU
from nbt.tuning.engines.worker_count import MachineResources, fitting_workers, most_workers, resolve_workers

GIB = 1 << 30


def never() -> int:
    raise AssertionError("the memory of a worker does not matter here")


def needs(gib: float) -> object:
    return lambda: int(gib * GIB)


@pytest.fixture(autouse=True)
def all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


@pytest.mark.parametrize(
    ("machine", "gib", "max_runs", "line"),
    [
        (MachineResources(2, 20 * GIB), 2, None, "2 workers with 1 thread each: 2 usable cores"),
        (MachineResources(8, 100 * GIB), 2, 3, "3 workers with 2 threads each: 3 runs"),
        (
            MachineResources(8, 8 * GIB),
            2,
            None,
            "3 workers with 2 threads each: 8.0 GiB of memory available, about 2.0 GiB per worker",
        ),
        (
            MachineResources(4, GIB),
            2,
            None,
            "1 worker with 4 threads: 1.0 GiB of memory available, about 2.0 GiB per worker",
        ),
    ],
)
def test_the_line_says_what_limits_the_number(
    machine: MachineResources, gib: float, max_runs: int | None, line: str
) -> None:
    assert resolve_workers("auto", machine, needs(gib), max_runs)[1] == line  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "max_runs", "line"),
    [
        (MachineResources(1, GIB), None, "1 worker with 1 thread: 1 usable core"),
        (MachineResources(2, GIB), 1, "1 worker with 2 threads: 1 run"),
        (MachineResources(2, GIB), 0, "1 worker with 2 threads: 0 runs"),
        (MachineResources(4, GIB, gpus=1), None, "up to 4 workers on 1 GPU: 4 usable cores"),
        (MachineResources(99, GIB, gpus=2), None, "up to 32 workers on 2 GPUs: 2 GPUs, at most 16 trials per GPU"),
    ],
)
def test_the_memory_of_a_worker_is_estimated_only_where_it_matters(
    machine: MachineResources, max_runs: int | None, line: str
) -> None:
    assert resolve_workers("auto", machine, never, max_runs)[1] == line


@pytest.mark.parametrize(
    ("requested", "machine", "warning"),
    [
        (1, MachineResources(1, 0), ""),
        (2, MachineResources(2, 20 * GIB), ""),
        (8, MachineResources(2, 20 * GIB), "--workers 8: only 2 workers fit this machine (2 usable cores)"),
        (2, MachineResources(1, 20 * GIB), "--workers 2: only 1 worker fits this machine (1 usable core)"),
        (
            4,
            MachineResources(8, 8 * GIB),
            "--workers 4: only 3 workers fit this machine (8.0 GiB of memory available, about 2.0 GiB per worker)",
        ),
    ],
)
def test_the_number_of_the_user_is_kept_with_a_warning(
    caplog: pytest.LogCaptureFixture, requested: int, machine: MachineResources, warning: str
) -> None:
    with caplog.at_level(logging.WARNING, logger="nbt"):
        workers, line = resolve_workers(requested, machine, needs(2))  # type: ignore[arg-type]
    assert workers == requested
    assert line.endswith(f", as requested (--workers {requested})")
    assert caplog.messages == ([warning] if warning else [])


def test_no_more_workers_than_runs_are_started() -> None:
    found = resolve_workers(4, MachineResources(4, 20 * GIB), needs(2), 2)  # type: ignore[arg-type]
    assert found == (2, "2 workers with 2 threads each: 2 runs")


@given(
    cores=st.integers(1, 256),
    memory=st.integers(0, 2**44),
    gpus=st.integers(0, 8),
    needed=st.integers(1, 2**40),
    max_runs=st.none() | st.integers(0, 50),
)
def test_the_number_respects_all_limits(cores: int, memory: int, gpus: int, needed: int, max_runs: int | None) -> None:
    machine = MachineResources(cores, memory, gpus)
    chosen = fitting_workers(machine, lambda: needed, max_runs).workers
    assert 1 <= chosen <= cores
    assert max_runs is None or chosen <= max(1, max_runs)
    if gpus:
        assert chosen <= gpus * MAX_TRIALS_PER_GPU
    elif chosen > 1:
        assert chosen * needed <= 0.75 * memory
    # No limit is left unused: one worker more would violate one.
    more = chosen + 1
    assert (
        more > cores
        or (max_runs is not None and more > max_runs)
        or (more > gpus * MAX_TRIALS_PER_GPU if gpus else more * needed > 0.75 * memory)
    )


@pytest.mark.parametrize(
    ("requested", "max_runs", "expected"), [("auto", None, 6), (3, None, 3), ("auto", 2, 2), (3, 0, 1), (1, 5, 1)]
)
def test_the_most_workers_need_no_task(
    requested: int | str, max_runs: int | None, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_count, "usable_cores", lambda: 6)
    assert most_workers(requested, max_runs) == expected
