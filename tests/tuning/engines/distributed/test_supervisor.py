"""The supervisor of a cluster's runs, without a cluster: what the source is told, what is tried again, what is written."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest

from nbt.errors import NbtError, UsageError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.distributed.gpu_packing import GpuPacking
from nbt.tuning.engines.distributed.protocol import TrialAssignment, WorkerLocation, WorkerMessage
from nbt.tuning.engines.distributed.supervisor import TrialSupervisor
from tests.tuning.engines.contract import ListSource, make_specs

HERE = WorkerLocation("n1", "alpha", "cuda:0", ("0",))
SAME_GPU = WorkerLocation("n1", "alpha", "cuda:0", ("0",))
OTHER_GPU = WorkerLocation("n1", "alpha", "cuda:0", ("1",))


def epoch(number: int, **others: object) -> WorkerMessage:
    return WorkerMessage(epoch=EpochResult(number, 1.0, 1.0, 0.5, 0.1), **others)  # type: ignore[arg-type]


def done(location: WorkerLocation = HERE, **others: object) -> WorkerMessage:
    return WorkerMessage(outcome=TrialOutcome(**others), location=location)  # type: ignore[arg-type]


def make_supervisor(*behaviours: str, workers: int = 1) -> tuple[TrialSupervisor, ListSource]:
    source = ListSource(make_specs(*behaviours))
    supervisor = TrialSupervisor(workers, GpuPacking({"CPU": 1.0}))
    supervisor.open(source)
    return supervisor, source


def make_supervisor_with_checkpoint(folder: Path) -> tuple[TrialSupervisor, ListSource]:
    source = ListSource([TrialSpec(key="t", settings=make_specs("x")[0].settings, checkpoint=folder / "c" / "t.pt")])
    supervisor = TrialSupervisor(1)
    supervisor.open(source)
    return supervisor, source


def test_hands_out_as_many_as_fit_and_asks_again_after_an_end() -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=2)
    first, second = supervisor.next_assignment("1"), supervisor.next_assignment("2")
    assert first is not None and second is not None
    assert (first.slot, second.slot) == (0, 1)
    assert first.resources == {"CPU": 1.0}
    assert supervisor.next_assignment("3") is None
    supervisor.handle_message("1", done(facts={"device": "cpu"}))
    assert source.done["0000 a"].facts == {"node": "alpha", "gpu_index": "0", "device": "cpu", "worker": 0}
    third = supervisor.next_assignment("3")
    assert third is not None and third.slot == 0
    supervisor.handle_message("2", done())
    supervisor.handle_message("3", done())
    assert not supervisor.finished, "the source has not been asked yet"
    assert supervisor.next_assignment("4") is None
    assert supervisor.finished


def test_asks_the_source_only_after_an_end() -> None:
    supervisor, source = make_supervisor("a", workers=2)
    supervisor.next_assignment("1")
    assert supervisor.next_assignment("2") is None
    source.waiting = make_specs("late")
    assert supervisor.next_assignment("3") is None
    supervisor.handle_message("1", done())
    assert supervisor.next_assignment("4") is not None


def test_passes_on_epochs_and_answers() -> None:
    supervisor, source = make_supervisor("a")
    source.stop = lambda spec, result: "weak" if result.epoch == 2 else None
    supervisor.next_assignment("1")
    assert supervisor.handle_message("1", epoch(1)).reason is None
    answer = supervisor.handle_message("1", epoch(2))
    assert (answer.reason, answer.finished) == ("weak", False)
    assert supervisor.handle_message("1", done(stopped="weak")).finished
    assert source.done["0000 a"].stopped == "weak"


def test_a_dead_worker_costs_one_more_attempt_and_the_source_hears_nothing_twice() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", epoch(1))
    supervisor.handle_worker_lost("1", "worker process died")
    assignment = supervisor.next_assignment("2")
    assert assignment is not None and assignment.spec.key == "0000 a"
    supervisor.handle_message("2", epoch(1))
    supervisor.handle_message("2", epoch(2))
    assert source.epochs == [("0000 a", 1), ("0000 a", 2)]
    supervisor.handle_worker_lost("2", "worker process died")
    outcome = source.done["0000 a"]
    assert outcome.error == "worker process died"
    assert [result.epoch for result in outcome.curve] == [1, 2]


def test_the_source_is_told_where_a_run_is_and_where_it_moves() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", epoch(1, location=HERE))
    supervisor.handle_message("1", epoch(2, location=HERE))
    supervisor.handle_worker_lost("1", "its node was lost", node_lost=True)
    supervisor.next_assignment("2")
    supervisor.handle_message("2", epoch(2, location=OTHER_GPU))
    supervisor.handle_message("2", done(OTHER_GPU))
    here = {"node": "alpha", "device": "cuda:0", "gpu_index": "0"}
    assert source.locations == [("0000 a", here), ("0000 a", {**here, "gpu_index": "1"})]
    facts = source.done["0000 a"].facts
    assert facts["gpu_index"] == "1"
    assert facts["lost_workers"] == [{**here, "reason": "its node was lost"}]


def test_a_run_that_fails_by_its_workers_says_where() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_worker_lost("1", "worker process died")
    supervisor.next_assignment("2")
    supervisor.handle_message("2", epoch(1, location=HERE))
    supervisor.handle_worker_lost("2", "worker process died")
    facts = source.done["0000 a"].facts
    assert facts["node"] == "alpha"
    assert [("node" in lost, lost["reason"]) for lost in facts["lost_workers"]] == [
        (False, "worker process died"),
        (True, "worker process died"),
    ]


def test_lost_nodes_are_not_held_against_a_job() -> None:
    supervisor, source = make_supervisor("a")
    for attempt in "12345":
        assert supervisor.next_assignment(attempt) is not None
        supervisor.handle_worker_lost(attempt, "its node was lost", node_lost=True)
    supervisor.next_assignment("6")
    supervisor.handle_all_workers_lost("Ray Tune ended")
    assert supervisor.next_assignment("7") is not None
    supervisor.handle_message("7", done())
    assert source.done["0000 a"].error is None


def test_nobody_wants_to_hear_a_lost_attempt() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_worker_lost("1", "its node was lost", node_lost=True)
    supervisor.next_assignment("2")
    assert supervisor.handle_message("1", epoch(1)).finished
    assert supervisor.handle_message("1", done()).finished
    supervisor.handle_worker_lost("1", "worker process died")
    assert not source.epochs and not source.done


def test_checkpoints_arrive_here_and_go_with_the_next_attempt(tmp_path: Path) -> None:
    supervisor, _ = make_supervisor_with_checkpoint(tmp_path)
    first = supervisor.next_assignment("1")
    assert first is not None and first.checkpoint is None
    supervisor.handle_message("1", epoch(1, checkpoint=b"one"))
    supervisor.handle_message("1", epoch(2, checkpoint=b"two"))
    supervisor.handle_message("1", epoch(3))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["t.pt"]
    supervisor.handle_worker_lost("1", "worker process died")
    second = supervisor.next_assignment("2")
    assert second is not None and second.checkpoint == b"two"
    supervisor.handle_message("2", done(error="ValueError: no"))
    assert (tmp_path / "c" / "t.pt").exists(), "what becomes of a failed trial's is the brain's to say"


def test_the_checkpoint_of_a_finished_job_is_removed(tmp_path: Path) -> None:
    supervisor, _ = make_supervisor_with_checkpoint(tmp_path)
    supervisor.next_assignment("1")
    supervisor.handle_message("1", epoch(1, checkpoint=b"one"))
    (tmp_path / "c" / "t.pt.task").touch()
    (tmp_path / "c" / "other.pt").touch()
    supervisor.handle_message("1", done())
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["other.pt"]


def make_supervisor_with_export(folder: Path) -> tuple[TrialSupervisor, WorkerMessage]:
    source = ListSource([TrialSpec(key="t", settings=make_specs("x")[0].settings, export=folder)])
    supervisor = TrialSupervisor(1)
    supervisor.open(source)
    supervisor.next_assignment("1")
    message = done()
    message.export = {"model.json": b"{}", "weights.safetensors": b"w"}
    return supervisor, message


def test_a_model_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("old")
    supervisor, message = make_supervisor_with_export(tmp_path / "model")
    supervisor.handle_message("1", message)
    assert (tmp_path / "model" / "model.json").read_text() == "{}"
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.json", "weights.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    supervisor, message = make_supervisor_with_export(tmp_path)
    with pytest.raises(UsageError, match=r"is not a model folder.*notes\.txt"):
        supervisor.handle_message("1", message)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("other", "shared"), [(SAME_GPU, True), (OTHER_GPU, False), (None, True)])
def test_out_of_memory_beside_another_is_put_back(other: WorkerLocation | None, shared: bool) -> None:
    supervisor, source = make_supervisor("a", "b", workers=2)
    supervisor.next_assignment("1")
    supervisor.next_assignment("2")
    if other is not None:
        supervisor.handle_message("2", epoch(1, location=other))
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert (source.abandoned == ["0000 a"]) is shared
    assert ("0000 a" in source.done) is not shared
    assert supervisor.max_concurrent == (1 if shared else 2)
    assert (supervisor.next_assignment("3") is None) is True


def test_out_of_memory_lets_fewer_share_a_gpu_where_that_was_measured() -> None:
    source = ListSource(make_specs("a", "b", "c"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, measured=True))
    supervisor.open(source)
    supervisor.next_assignment("1")
    assert supervisor.next_assignment("2") is None, "one a GPU, until the first was measured"
    supervisor.handle_message("1", done(facts={"peak_memory_bytes": 1, "device_memory_bytes": 5 << 29}))
    shared = [supervisor.next_assignment(attempt) for attempt in "23"]
    assert [assignment and assignment.resources for assignment in shared] == [{"GPU": 0.3333}] * 2
    supervisor.handle_message("2", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.abandoned == ["0001 b"] and supervisor.max_concurrent == 2
    assignment = supervisor.next_assignment("4")
    assert assignment is not None and assignment.spec.key == "0001 b" and assignment.resources == {"GPU": 0.5}


def test_out_of_memory_teaches_what_a_run_takes_at_least_and_alone_on_a_gpu_nothing() -> None:
    def measured(peak: int, **others: object) -> WorkerMessage:
        return done(facts={"peak_memory_bytes": peak << 30, "device_memory_bytes": 80 << 30}, **others)

    source = ListSource(make_specs(*"abcd"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, measured=True))
    supervisor.open(source)
    supervisor.next_assignment("1")
    supervisor.handle_message("1", measured(79, error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory
    assert supervisor.next_assignment("2").resources == {"GPU": 1.0}  # type: ignore[union-attr]
    supervisor.handle_message("2", measured(1))
    shared = [supervisor.next_assignment(attempt) for attempt in "34"]
    assert [assignment.resources for assignment in shared if assignment is not None] == [{"GPU": 0.0625}] * 2
    supervisor.handle_message("3", measured(20, error="OutOfMemoryError", out_of_memory=True))
    assert source.abandoned == ["0002 c"]
    assert supervisor.next_assignment("5").resources == {"GPU": 0.5}  # type: ignore[union-attr]


def test_out_of_memory_on_a_gpu_of_its_own_is_told_though_nobody_knows_where_the_others_are() -> None:
    source = ListSource(make_specs("a", "b"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, gpus=2))
    supervisor.open(source)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory
    assert supervisor.max_concurrent == 2


def test_out_of_memory_with_a_share_that_was_given_lets_fewer_share_too() -> None:
    source = ListSource(make_specs("a", "b", "c"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 0.5}, gpus=1))
    supervisor.open(source)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    answer = supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert answer.finished and answer.retire_worker, "its worker keeps the memory that it took"
    assert source.abandoned == ["0000 a"]
    assert supervisor.next_assignment("3") is None, "there is room for one"
    assert not supervisor.handle_message("2", done()).retire_worker
    assignment = supervisor.next_assignment("3")
    assert assignment is not None and assignment.spec.key == "0000 a" and assignment.resources == {"GPU": 1.0}


def test_out_of_memory_alone_is_told() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory


def test_broken_tools_cost_an_attempt() -> None:
    supervisor, source = make_supervisor("a")
    for attempt in "12":
        supervisor.next_assignment(attempt)
        supervisor.handle_message(
            attempt, WorkerMessage(outcome=TrialOutcome(error="RuntimeError: no"), setup_failed=True)
        )
    assert source.done["0000 a"].error == "a worker could not be set up (RuntimeError: no)"


def test_a_worker_without_tools_is_left_out_where_others_have_theirs(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=2)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    supervisor.handle_message("1", epoch(1, location=HERE))
    setup_failed = WorkerMessage(
        outcome=TrialOutcome(error="no kernel image"), setup_failed=True, location=WorkerLocation("n2", "beta")
    )
    answer = supervisor.handle_message("2", setup_failed)
    assert answer.finished and answer.retire_worker
    assert source.abandoned == ["0001 b"] and not source.done
    assert "a worker could not be set up on beta (no kernel image): going on with 1 at a time" in caplog.text
    assert supervisor.next_assignment("3") is None
    supervisor.handle_message("1", done())
    assignment = supervisor.next_assignment("3")
    assert assignment is not None and assignment.spec.key == "0001 b"


def test_giving_up_abandons_what_runs_and_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=2)
    supervisor.next_assignment("1")
    supervisor.next_assignment("2")
    supervisor.abandon_all()
    assert source.abandoned == ["0000 a", "0001 b"]
    assert supervisor.handle_message("1", epoch(1)).finished
    assert supervisor.next_assignment("3") is None

    def gone(spec: TrialSpec) -> None:
        raise NbtError("storage is gone")

    source.on_abandoned = gone  # type: ignore[method-assign]
    supervisor.open(source)
    supervisor.next_assignment("4")
    supervisor.abandon_all()
    assert "storage is gone" in caplog.text


def test_log_records_of_workers_are_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, _ = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", epoch(1, logs=((30, "100 % odd"),)))
    assert "100 % odd" in caplog.text


def test_a_warning_that_every_worker_gives_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, _ = make_supervisor("a", "b", workers=2)
    for attempt in ("1", "2"):
        supervisor.next_assignment(attempt)
    with caplog.at_level(logging.INFO, logger="nbt"):
        for attempt in ("1", "2"):
            supervisor.handle_message(attempt, epoch(1, logs=((30, "no GPU"), (20, "ready"), (40, "setup_failed"))))
    assert [record.getMessage() for record in caplog.records] == [
        "no GPU",
        "ready",
        "setup_failed",
        "ready",
        "setup_failed",
    ]


def test_an_order_is_never_copied() -> None:
    assignment = TrialAssignment(make_specs("a")[0], b"large")
    assert copy.deepcopy({"assignment": assignment})["assignment"] is assignment
    assert repr(assignment) == "0000 a", "Ray Tune makes names of it"
