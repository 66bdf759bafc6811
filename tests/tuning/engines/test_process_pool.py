"""The local engine with two workers: the contract, and failures of worker processes."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nbt.machine.cores import usable_cores
from nbt.training.results import TrialSpec
from nbt.tuning.engines.local import LocalEngine
from tests.tuning.engines.contract import EPOCHS, ListSource, WorkerProcessContract, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from tests.tuning.engines.processes import TIMEOUT_SECONDS, is_running, wait_for


class TestTwoWorkers(WorkerProcessContract):
    def make(self, task: FakeTask) -> LocalEngine:
        return LocalEngine(task, workers=2, runner=RUNNER)  # type: ignore[arg-type]

    def test_starts_only_as_many_workers_as_there_are_trials(self, engine: LocalEngine, task: FakeTask) -> None:
        engine.run(ListSource(make_specs("train")))
        engine.close()
        assert len(list(task.folder.glob("closed-*"))) == 1

    @pytest.mark.parametrize(("behaviour", "code"), [("die", -9), ("exit", 3)])
    def test_the_exit_code_of_a_worker_is_reported(self, engine: LocalEngine, behaviour: str, code: int) -> None:
        source = ListSource(make_specs("train", behaviour, "train"))
        engine.run(source)
        outcome = source.done[f"0001 {behaviour}"]
        assert outcome.error == f"worker process died (exit code {code})"

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
        reason = f"a worker could not be set up on {platform.node()} (RuntimeError: no kernel image)"
        assert f"{reason}: concurrent trials reduced to 1" in caplog.text

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
            assert not is_running(fact["pid"])

    def test_workers_do_not_print_to_stdout(self, engine: LocalEngine, capfd: pytest.CaptureFixture[str]) -> None:
        engine.run(ListSource(make_specs("train")))
        engine.close()
        out, err = capfd.readouterr()
        assert out == ""
        assert "noise on stdout" in err


class CountingSource(ListSource):
    """Records the number of finished trials at each trial that is supplied."""

    def __init__(self, specs: list[TrialSpec]) -> None:
        super().__init__(specs)
        self.done_before: list[int] = []

    def next_trial(self) -> TrialSpec | None:
        if self.waiting:
            self.done_before.append(len(self.done))
        return super().next_trial()


def test_the_first_trial_has_a_gpu_and_later_ones_share_by_its_memory(tmp_path: Path) -> None:
    source = CountingSource(make_specs(*["measured"] * 6))
    engine = LocalEngine(FakeTask(tmp_path), workers=3, device="cuda:0", runner=RUNNER, measure_memory=True)  # type: ignore[arg-type]
    with engine:
        engine.run(source)
    assert len(source.done) == 6 and all(len(outcome.curve) == EPOCHS for outcome in source.done.values())
    assert source.done_before[:4] == [0, 1, 1, 1], "the first trial runs alone until it has finished"
    assert source.max_running == 3
    workers_per_device = {key: outcome.facts["workers_per_device"] for key, outcome in source.done.items()}
    assert workers_per_device == {key: 1 if key.startswith("0000") else 3 for key in source.done}


def test_out_of_memory_on_a_shared_gpu_reduces_the_trials_per_gpu(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = ListSource(make_specs("oom-once", "train", "train", "train"))
    with LocalEngine(FakeTask(tmp_path), workers=2, device="cuda:0", runner=RUNNER) as engine:  # type: ignore[arg-type]
        engine.run(source)
        later = ListSource(make_specs("train", "train"))
        engine.run(later)
    assert source.abandoned == ["0000 oom-once"]
    assert len(source.done) == 4 and all(outcome.error is None for outcome in source.done.values())
    assert f"out of memory on cuda:0 of {platform.node()}: GPU share per trial raised to 1" in caplog.text
    assert later.max_running == 1
    assert {outcome.facts["gpu_index"] for outcome in later.done.values()} == {"0"}
    assert len({outcome.facts["pid"] for outcome in later.done.values()}) == 1
    assert later.done["0001 train"].facts["workers_per_device"] == 1, "the caches of one worker have the whole GPU"


DRIVER = """
from pathlib import Path
from tests.tuning.engines.contract import ListSource, make_specs
from tests.tuning.engines.fake_runner import RUNNER, FakeTask
from nbt.tuning.engines.local import LocalEngine
from nbt.tuning.engines.protocol import local_worker_location

source = ListSource(make_specs(*{behaviours!r}))
try:
    with LocalEngine(FakeTask(Path({folder!r})), workers=2, device="cpu", runner=RUNNER) as engine:
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


def _hanging_workers(folder: Path) -> list[int]:
    return [int(path.name.rpartition("-")[2]) for path in folder.glob("hanging-*")]


def test_works_from_a_script_on_stdin_without_a_guard(tmp_path: Path) -> None:
    out, err = _start_driver(tmp_path, "train", "train").communicate(timeout=TIMEOUT_SECONDS)
    assert out == "done,0000 train,0001 train\n", err


def test_ctrl_c_abandons_running_trials_and_ends_workers(tmp_path: Path) -> None:
    driver = _start_driver(tmp_path, "hang", "hang", "train")
    assert wait_for(lambda: len(_hanging_workers(tmp_path)) == 2)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does
    out, err = driver.communicate(timeout=TIMEOUT_SECONDS)
    assert out == "abandoned,0000 hang,0001 hang\ndone\n", err
    assert not any(is_running(pid) for pid in _hanging_workers(tmp_path))


def test_workers_end_with_a_killed_driver_and_clean_up(tmp_path: Path) -> None:
    driver = _start_driver(tmp_path, "hang", "hang")
    assert wait_for(lambda: len(_hanging_workers(tmp_path)) == 2)
    driver.kill()
    driver.communicate(timeout=TIMEOUT_SECONDS)
    pids = _hanging_workers(tmp_path)
    assert wait_for(lambda: not any(is_running(pid) for pid in pids))
    assert all((tmp_path / f"closed-{pid}").exists() for pid in pids)
    folders = [Path((tmp_path / f"temporary-{pid}").read_text()) for pid in pids]
    assert not any(folder.exists() for folder in folders)
