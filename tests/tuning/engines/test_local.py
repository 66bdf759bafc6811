"""The local engine: the contract, in this process and in workers, and failures of worker processes."""

from __future__ import annotations

import logging
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Pipe
from pathlib import Path

import pytest

from nbt.errors import UsageError
from nbt.tuning.engines.cpu_threads import usable_cores
from nbt.tuning.engines.local import LocalEngine
from nbt.tuning.engines.worker import WorkerSetup, serve
from tests.tuning.engines.contract import EPOCHS, EngineContract, ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask

TIMEOUT_SECONDS = 60.0


class TestInProcess(EngineContract):
    workers = 1

    def make(self, task: FakeTask) -> LocalEngine:
        return LocalEngine(task, workers=1, runner=RUNNER)  # type: ignore[arg-type]

    def test_ctrl_c_during_training(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train", "interrupt", "train"))
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert list(source.done) == ["0000 train"]
        assert source.abandoned == ["0001 interrupt"]

    def test_a_termination_is_an_interrupt(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("terminate"))
        with pytest.raises(KeyboardInterrupt):
            engine.run(source)
        assert source.abandoned == ["0000 terminate"]

    def test_runs_in_this_process(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train"))
        engine.run(source)
        assert source.done["0000 train"].facts["pid"] == os.getpid()


class TestTwoWorkers(EngineContract):
    workers = 2

    def make(self, task: FakeTask) -> LocalEngine:
        return LocalEngine(task, workers=2, runner=RUNNER)  # type: ignore[arg-type]

    def test_starts_only_as_many_workers_as_there_are_trials(self, engine: LocalEngine) -> None:
        engine.run(ListSource(make_specs("train")))
        assert len(engine._executor._workers) == 1  # type: ignore[attr-defined]

    def test_a_trial_whose_worker_dies_once_is_retried(
        self, engine: LocalEngine, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = ListSource(make_specs("die-once", "train", "train"))
        engine.run(source)
        assert len(source.done) == 3
        assert all(outcome.error is None and len(outcome.curve) == EPOCHS for outcome in source.done.values())
        assert len(source.epochs) == len(set(source.epochs)) == 3 * EPOCHS
        assert not source.abandoned
        assert "0000 die-once: worker process died (exit code -9); running it again" in caplog.text

    def test_decisions_of_the_first_attempt_hold_for_the_retry(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("die-once"))
        source.stop = lambda spec, result: "enough" if result.epoch == 1 else None
        engine.run(source)
        assert source.done["0000 die-once"].stopped == "enough"
        assert source.epochs == [("0000 die-once", 1)]

    @pytest.mark.parametrize(("behaviour", "code"), [("die", -9), ("exit", 3)])
    def test_a_trial_whose_workers_die_fails_with_its_curve(
        self, engine: LocalEngine, behaviour: str, code: int
    ) -> None:
        source = ListSource(make_specs("train", behaviour, "train"))
        engine.run(source)
        outcome = source.done[f"0001 {behaviour}"]
        assert outcome.error == f"worker process died (exit code {code})"
        assert [result.epoch for result in outcome.curve] == [1]
        assert sum(other.error is None for other in source.done.values()) == 2
        location = {"node": platform.node(), "device": "cpu"}
        assert outcome.facts["lost_workers"] == [{**location, "reason": outcome.error}] * 2
        assert location.items() <= outcome.facts.items()

    def test_an_idle_worker_that_died_is_replaced(self, engine: LocalEngine) -> None:
        engine.run(ListSource(make_specs("train", "train")))
        for worker in engine._executor._workers:  # type: ignore[attr-defined]
            os.kill(worker.pid, signal.SIGKILL)
            worker._process.wait()
        source = ListSource(make_specs("train", "train", "train"))
        engine.run(source)
        assert all(outcome.error is None for outcome in source.done.values())

    def test_out_of_memory_reduces_the_concurrency(self, engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
        source = ListSource(make_specs("oom-once", "train", "train", "train"))
        engine.run(source)
        assert source.abandoned == ["0000 oom-once"]
        assert len(source.done) == 4
        assert all(outcome.error is None for outcome in source.done.values())
        assert "out of memory on cpu: concurrent trials reduced to 1" in caplog.text
        later = ListSource(make_specs("train", "train"))
        engine.run(later)
        assert later.max_running == 1

    def test_repeated_out_of_memory_is_reported(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train", "oom", "train"))
        engine.run(source)
        assert source.done["0001 oom"].out_of_memory
        assert len(source.done) == 3

    def test_out_of_memory_at_setup_reduces_the_concurrency(self, tmp_path: Path) -> None:
        source = ListSource(make_specs("train", "train", "train"))
        with LocalEngine(FakeTask(tmp_path, "lacks memory with another"), workers=2, runner=RUNNER) as engine:  # type: ignore[arg-type]
            engine.run(source)
        assert len(source.abandoned) == 1
        assert all(outcome.error is None for outcome in source.done.values())
        assert len(source.done) == 3

    def test_a_worker_whose_setup_fails_is_removed_if_another_works(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        source = ListSource(make_specs("train", "train", "train"))
        with LocalEngine(FakeTask(tmp_path, "fails with another"), workers=2, runner=RUNNER) as engine:  # type: ignore[arg-type]
            engine.run(source)
        assert [outcome.error for outcome in source.done.values()] == [None] * 3
        assert "could not be set up (RuntimeError: no kernel image): concurrent trials reduced to 1" in caplog.text

    def test_a_failing_setup_fails_the_trial(self, tmp_path: Path) -> None:
        source = ListSource(make_specs("train"))
        with LocalEngine(FakeTask(tmp_path, "fails"), workers=2, runner=RUNNER) as engine:  # type: ignore[arg-type]
            engine.run(source)
        error = source.done["0000 train"].error
        assert error == "a worker could not be set up (RuntimeError: set-up failed)"

    def test_workers_ignore_sigint_and_share_the_cores(
        self, engine: LocalEngine, task: FakeTask, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("OMP_NUM_THREADS")
        source = ListSource(make_specs("interrupt"))
        engine.run(source)
        outcome = source.done["0000 interrupt"]
        assert len(outcome.curve) == EPOCHS
        assert outcome.facts["threads"] == str(max(1, usable_cores() // 2))

    def test_a_smaller_number_of_threads_of_the_user_is_kept(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train"))
        engine.run(source)
        assert source.done["0000 train"].facts["threads"] == "1"  # set by tests/conftest.py

    def test_leaves_no_process_and_no_temporary_files(self, engine: LocalEngine) -> None:
        source = ListSource(make_specs("train", "die", "train"))
        engine.run(source)
        engine.close()
        facts = [outcome.facts for outcome in source.done.values() if outcome.error is None]
        assert facts
        for fact in facts:
            assert "nbt-worker-" in fact["temporary"]
            assert not Path(fact["temporary"]).exists()
            assert not _is_running(fact["pid"])

    def test_log_records_of_workers_arrive_here(self, engine: LocalEngine, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="nbt"):
            engine.run(ListSource(make_specs("train")))
        assert "runner 0 is ready" in caplog.text

    def test_workers_do_not_print_to_stdout(self, engine: LocalEngine, capfd: pytest.CaptureFixture[str]) -> None:
        engine.run(ListSource(make_specs("train")))
        engine.close()
        out, err = capfd.readouterr()
        assert out == ""
        assert "noise on stdout" in err


def test_zero_workers_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="workers: 0"):
        LocalEngine(FakeTask(tmp_path), workers=0)  # type: ignore[arg-type]


DRIVER = """
from pathlib import Path
from tests.tuning.engines.contract import ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from nbt.tuning.engines.local import LocalEngine

source = ListSource(make_specs(*{behaviours!r}))
try:
    with LocalEngine(FakeTask(Path({folder!r})), workers=2, runner=RUNNER) as engine:
        engine.run(source)
except KeyboardInterrupt:
    print("abandoned", *sorted(source.abandoned), sep=",")
print("done", *sorted(source.done), sep=",")
"""


def _start_driver(folder: Path, *behaviours: str) -> subprocess.Popen[str]:
    """Runs an engine in a script on stdin, which worker processes cannot import, without `if __name__ == ...`."""
    driver = subprocess.Popen(
        [sys.executable, "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        start_new_session=True,
    )
    assert driver.stdin is not None
    driver.stdin.write(DRIVER.format(behaviours=behaviours, folder=str(folder)))
    driver.stdin.close()
    driver.stdin = None
    return driver


def _wait_for(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            return False
        threading.Event().wait(0.02)
    return True


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # a zombie has ended
    return not (stat.exists() and stat.read_text().rpartition(")")[2].split()[0] == "Z")


def _hanging_workers(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("hanging-*")]


def test_works_from_a_script_on_stdin_without_a_guard(tmp_path: Path) -> None:
    out, err = _start_driver(tmp_path, "train", "train").communicate(timeout=TIMEOUT_SECONDS)
    assert out == "done,0000 train,0001 train\n", err


def test_ctrl_c_abandons_running_trials_and_ends_workers(tmp_path: Path) -> None:
    driver = _start_driver(tmp_path, "hang", "hang", "train")
    assert _wait_for(lambda: len(_hanging_workers(tmp_path)) == 2)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    out, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert out == "abandoned,0000 hang,0001 hang\ndone\n", err
    assert not any(_is_running(pid) for pid in _hanging_workers(tmp_path))


def test_workers_end_with_a_killed_driver_and_clean_up(tmp_path: Path) -> None:
    driver = _start_driver(tmp_path, "hang", "hang")
    assert _wait_for(lambda: len(_hanging_workers(tmp_path)) == 2)
    driver.kill()
    driver.communicate(timeout=TIMEOUT_SECONDS)
    pids = _hanging_workers(tmp_path)
    assert _wait_for(lambda: not any(_is_running(pid) for pid in pids))
    assert all((tmp_path / f"closed-{pid}").exists() for pid in pids)
    folders = [Path((tmp_path / f"temporary-{pid}").read_text()) for pid in pids]
    assert not any(folder.exists() for folder in folders)


def test_an_idle_worker_ends_when_its_pipe_closes(tmp_path: Path) -> None:
    driver_end, worker_end = Pipe()
    log = logging.getLogger("nbt")
    handlers, level = log.handlers, log.level
    driver_end.send(WorkerSetup(FakeTask(tmp_path), runner=RUNNER))  # type: ignore[arg-type]
    try:
        thread = threading.Thread(target=serve, args=(worker_end,))
        thread.start()
        assert driver_end.recv() == ("ready", "cpu")
        driver_end.close()
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()
        assert (tmp_path / f"closed-{os.getpid()}").exists()
    finally:
        log.handlers, log.propagate = handlers, True
        log.setLevel(level)
