"""The supervisor of trials, without workers: calls to the source, retries and failures."""

from __future__ import annotations

import copy
import logging

import pytest

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.engines.gpu_packing import GpuPacking
from nbt.tuning.engines.protocol import TrialAssignment, WorkerLocation, WorkerMessage
from nbt.tuning.engines.supervisor import TrialSupervisor
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
    supervisor.start(source)
    return supervisor, source


def test_assigns_up_to_the_limit_and_requests_again_after_an_end() -> None:
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
    assert not supervisor.finished, "no trial has been requested after the last end"
    assert supervisor.next_assignment("4") is None
    assert supervisor.finished


def test_requests_only_after_an_end() -> None:
    supervisor, source = make_supervisor("a", workers=2)
    supervisor.next_assignment("1")
    assert supervisor.next_assignment("2") is None
    source.waiting = make_specs("late")
    assert supervisor.next_assignment("3") is None
    supervisor.handle_message("1", done())
    assert supervisor.next_assignment("4") is not None


def test_the_slot_of_a_removed_worker_is_not_used_again() -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=3)
    for attempt in "123":
        supervisor.next_assignment(attempt)
        supervisor.handle_message(attempt, epoch(1, location=HERE))
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    for attempt in "23":
        supervisor.handle_message(attempt, done())
    source.waiting += make_specs("d")
    assignments = [supervisor.next_assignment(attempt) for attempt in "45"]
    assert [assignment and assignment.slot for assignment in assignments] == [1, 2]


def test_a_message_with_a_location_only_is_reported() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    assert not supervisor.handle_message("1", WorkerMessage(location=HERE)).finished
    assert source.locations == [("0000 a", HERE.facts())]
    assert supervisor.running_spec("1") is not None
    supervisor.handle_message("1", done())
    assert supervisor.running_spec("1") is None


def test_forwards_epochs_and_stop_reasons() -> None:
    supervisor, source = make_supervisor("a")
    source.stop = lambda spec, result: "weak" if result.epoch == 2 else None
    supervisor.next_assignment("1")
    assert supervisor.handle_message("1", epoch(1)).stop_reason is None
    decision = supervisor.handle_message("1", epoch(2))
    assert (decision.stop_reason, decision.finished) == ("weak", False)
    assert supervisor.handle_message("1", done(stopped="weak")).finished
    assert source.done["0000 a"].stopped == "weak"


def test_a_dead_worker_leads_to_one_retry_without_repeated_epochs() -> None:
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


def test_reports_each_location_of_a_trial() -> None:
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


def test_lost_workers_are_recorded_with_their_location() -> None:
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


def test_lost_nodes_do_not_fail_a_trial() -> None:
    supervisor, source = make_supervisor("a")
    for attempt in "12345":
        assert supervisor.next_assignment(attempt) is not None
        supervisor.handle_worker_lost(attempt, "its node was lost", node_lost=True)
    supervisor.next_assignment("6")
    supervisor.handle_all_workers_lost("Ray Tune ended")
    assert supervisor.next_assignment("7") is not None
    supervisor.handle_message("7", done())
    assert source.done["0000 a"].error is None


def test_messages_of_a_lost_attempt_are_ignored() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_worker_lost("1", "its node was lost", node_lost=True)
    supervisor.next_assignment("2")
    assert supervisor.handle_message("1", epoch(1)).finished
    assert supervisor.handle_message("1", done()).finished
    supervisor.handle_worker_lost("1", "worker process died")
    assert not source.epochs and not source.done


@pytest.mark.parametrize(("other", "shared"), [(SAME_GPU, True), (OTHER_GPU, False), (None, True)])
def test_out_of_memory_on_a_shared_device_requeues_the_trial(other: WorkerLocation | None, shared: bool) -> None:
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


@pytest.mark.parametrize(("idle", "shared"), [(SAME_GPU, True), (OTHER_GPU, False)])
def test_an_idle_worker_keeps_its_memory(idle: WorkerLocation, shared: bool) -> None:
    supervisor, source = make_supervisor("a", "b", workers=2)
    supervisor.next_assignment("1")
    supervisor.next_assignment("2")
    supervisor.handle_message("2", done(idle))
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert (source.abandoned == ["0000 a"]) is shared
    assert supervisor.max_concurrent == (1 if shared else 2)


def test_out_of_memory_increases_a_measured_share() -> None:
    source = ListSource(make_specs("a", "b", "c"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, measure_memory=True))
    supervisor.start(source)
    supervisor.next_assignment("1")
    assert supervisor.next_assignment("2") is None, "one trial per GPU until the first is measured"
    supervisor.handle_message("1", done(facts={"peak_memory_bytes": 1, "device_memory_bytes": 5 << 29}))
    shared = [supervisor.next_assignment(attempt) for attempt in "23"]
    assert [assignment and assignment.resources for assignment in shared] == [{"GPU": 0.3333}] * 2
    supervisor.handle_message("2", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.abandoned == ["0001 b"] and supervisor.max_concurrent == 2
    assignment = supervisor.next_assignment("4")
    assert assignment is not None and assignment.spec.key == "0001 b" and assignment.resources == {"GPU": 0.5}


def test_out_of_memory_is_recorded_as_a_measurement_only_on_a_shared_gpu() -> None:
    def measured(peak: int, **others: object) -> WorkerMessage:
        return done(facts={"peak_memory_bytes": peak << 30, "device_memory_bytes": 80 << 30}, **others)

    source = ListSource(make_specs(*"abcd"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, measure_memory=True))
    supervisor.start(source)
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


def test_out_of_memory_on_a_whole_gpu_is_reported() -> None:
    source = ListSource(make_specs("a", "b"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 1.0}, gpus=2))
    supervisor.start(source)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory
    assert supervisor.max_concurrent == 2


def test_out_of_memory_increases_a_given_share() -> None:
    source = ListSource(make_specs("a", "b", "c"))
    supervisor = TrialSupervisor(2, GpuPacking({"GPU": 0.5}, gpus=1))
    supervisor.start(source)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    decision = supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert decision.finished and decision.retire_worker, "its worker keeps its memory"
    assert source.abandoned == ["0000 a"]
    assert supervisor.next_assignment("3") is None, "one trial fits"
    assert not supervisor.handle_message("2", done()).retire_worker
    assignment = supervisor.next_assignment("3")
    assert assignment is not None and assignment.spec.key == "0000 a" and assignment.resources == {"GPU": 1.0}


def test_out_of_memory_alone_is_reported() -> None:
    supervisor, source = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory


def test_a_failed_setup_counts_as_a_worker_failure() -> None:
    supervisor, source = make_supervisor("a")
    for attempt in "12":
        supervisor.next_assignment(attempt)
        supervisor.handle_message(
            attempt, WorkerMessage(outcome=TrialOutcome(error="RuntimeError: no"), setup_failed=True)
        )
    assert source.done["0000 a"].error == "a worker could not be set up (RuntimeError: no)"


def test_a_worker_whose_setup_fails_is_removed_if_others_work(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=2)
    for attempt in "12":
        supervisor.next_assignment(attempt)
    supervisor.handle_message("1", epoch(1, location=HERE))
    setup_failed = WorkerMessage(
        outcome=TrialOutcome(error="no kernel image"), setup_failed=True, location=WorkerLocation("n2", "beta")
    )
    decision = supervisor.handle_message("2", setup_failed)
    assert decision.finished and decision.retire_worker
    assert source.abandoned == ["0001 b"] and not source.done
    assert "a worker could not be set up on beta (no kernel image): concurrent trials reduced to 1" in caplog.text
    assert supervisor.next_assignment("3") is None
    supervisor.handle_message("1", done())
    assignment = supervisor.next_assignment("3")
    assert assignment is not None and assignment.spec.key == "0001 b"


def test_abandon_all_reports_every_trial_and_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, source = make_supervisor("a", "b", "c", workers=2)
    supervisor.next_assignment("1")
    supervisor.next_assignment("2")
    supervisor.abandon_all()
    assert source.abandoned == ["0000 a", "0001 b"]
    assert supervisor.handle_message("1", epoch(1)).finished
    assert supervisor.next_assignment("3") is None

    def fail(spec: TrialSpec) -> None:
        raise NbtError("storage is gone")

    source.on_abandoned = fail  # type: ignore[method-assign]
    supervisor.start(source)
    supervisor.next_assignment("4")
    supervisor.abandon_all()
    assert "storage is gone" in caplog.text


def test_log_records_of_workers_are_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, _ = make_supervisor("a")
    supervisor.next_assignment("1")
    supervisor.handle_message("1", epoch(1, logs=((30, "100 % odd"),)))
    assert "100 % odd" in caplog.text


def test_a_warning_of_several_workers_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    supervisor, _ = make_supervisor("a", "b", workers=2)
    for attempt in ("1", "2"):
        supervisor.next_assignment(attempt)
    with caplog.at_level(logging.INFO, logger="nbt"):
        for attempt in ("1", "2"):
            supervisor.handle_message(attempt, epoch(1, logs=((30, "no GPU"), (20, "ready"), (40, "broken"))))
    assert [record.getMessage() for record in caplog.records] == ["no GPU", "ready", "broken", "ready", "broken"]


def test_an_assignment_is_never_copied() -> None:
    assignment = TrialAssignment(make_specs("a")[0], checkpoint=b"large")
    assert copy.deepcopy({"assignment": assignment})["assignment"] is assignment
    assert repr(assignment) == "0000 a", "Ray Tune uses this in names"
