"""The books of a cluster's runs, without a cluster: what the source is told, what is tried again, what is written."""

from __future__ import annotations

import copy
import logging
from pathlib import Path

import pytest

from nbt.errors import NbtError, UsageError
from nbt.search.engines.books import Books
from nbt.search.engines.messages import Order, Place, Said
from nbt.search.engines.packing import Packing
from nbt.training.results import EpochResult, TrialJob, TrialOutcome
from tests.search.engines.contract import ListSource, make_jobs

HERE = Place("n1", "alpha", "cuda:0", ("0",))
SAME_GPU = Place("n1", "alpha", "cuda:0", ("0",))
OTHER_GPU = Place("n1", "alpha", "cuda:0", ("1",))


def epoch(number: int, **others: object) -> Said:
    return Said(epoch=EpochResult(number, 1.0, 1.0, 0.5, 0.1), **others)  # type: ignore[arg-type]


def done(place: Place = HERE, **others: object) -> Said:
    return Said(outcome=TrialOutcome(**others), place=place)  # type: ignore[arg-type]


def open_books(*acts: str, workers: int = 1) -> tuple[Books, ListSource]:
    source = ListSource(make_jobs(*acts))
    books = Books(workers, Packing({"CPU": 1.0}))
    books.open(source)
    return books, source


def with_files(folder: Path) -> tuple[Books, ListSource]:
    source = ListSource([TrialJob(key="t", settings=make_jobs("x")[0].settings, checkpoint=folder / "c" / "t.pt")])
    books = Books(1)
    books.open(source)
    return books, source


def test_hands_out_as_many_as_fit_and_asks_again_after_an_end() -> None:
    books, source = open_books("a", "b", "c", workers=2)
    first, second = books.next_order("1"), books.next_order("2")
    assert first is not None and second is not None
    assert (first.slot, second.slot) == (0, 1)
    assert first.resources == {"CPU": 1.0}
    assert books.next_order("3") is None
    books.hear("1", done(facts={"device": "cpu"}))
    assert source.done["0000 a"].facts == {"node": "alpha", "gpu_index": "0", "device": "cpu", "worker": 0}
    third = books.next_order("3")
    assert third is not None and third.slot == 0
    books.hear("2", done())
    books.hear("3", done())
    assert not books.over, "the source has not been asked yet"
    assert books.next_order("4") is None
    assert books.over


def test_asks_the_source_only_after_an_end() -> None:
    books, source = open_books("a", workers=2)
    books.next_order("1")
    assert books.next_order("2") is None
    source.waiting = make_jobs("late")
    assert books.next_order("3") is None
    books.hear("1", done())
    assert books.next_order("4") is not None


def test_passes_on_epochs_and_answers() -> None:
    books, source = open_books("a")
    source.stop = lambda job, result: "weak" if result.epoch == 2 else None
    books.next_order("1")
    assert books.hear("1", epoch(1)).reason is None
    answer = books.hear("1", epoch(2))
    assert (answer.reason, answer.over) == ("weak", False)
    assert books.hear("1", done(stopped="weak")).over
    assert source.done["0000 a"].stopped == "weak"


def test_a_dead_worker_costs_one_more_attempt_and_the_source_hears_nothing_twice() -> None:
    books, source = open_books("a")
    books.next_order("1")
    books.hear("1", epoch(1))
    books.lose("1", "worker process died")
    order = books.next_order("2")
    assert order is not None and order.job.key == "0000 a"
    books.hear("2", epoch(1))
    books.hear("2", epoch(2))
    assert source.epochs == [("0000 a", 1), ("0000 a", 2)]
    books.lose("2", "worker process died")
    outcome = source.done["0000 a"]
    assert outcome.error == "worker process died"
    assert [result.epoch for result in outcome.curve] == [1, 2]


def test_the_source_is_told_where_a_run_is_and_where_it_moves() -> None:
    books, source = open_books("a")
    books.next_order("1")
    books.hear("1", epoch(1, place=HERE))
    books.hear("1", epoch(2, place=HERE))
    books.lose("1", "its node was lost", node_lost=True)
    books.next_order("2")
    books.hear("2", epoch(2, place=OTHER_GPU))
    books.hear("2", done(OTHER_GPU))
    here = {"node": "alpha", "device": "cuda:0", "gpu_index": "0"}
    assert source.places == [("0000 a", here), ("0000 a", {**here, "gpu_index": "1"})]
    facts = source.done["0000 a"].facts
    assert facts["gpu_index"] == "1"
    assert facts["lost_workers"] == [{**here, "reason": "its node was lost"}]


def test_a_run_that_fails_by_its_workers_says_where() -> None:
    books, source = open_books("a")
    books.next_order("1")
    books.lose("1", "worker process died")
    books.next_order("2")
    books.hear("2", epoch(1, place=HERE))
    books.lose("2", "worker process died")
    facts = source.done["0000 a"].facts
    assert facts["node"] == "alpha"
    assert [("node" in lost, lost["reason"]) for lost in facts["lost_workers"]] == [
        (False, "worker process died"),
        (True, "worker process died"),
    ]


def test_lost_nodes_are_not_held_against_a_job() -> None:
    books, source = open_books("a")
    for attempt in "12345":
        assert books.next_order(attempt) is not None
        books.lose(attempt, "its node was lost", node_lost=True)
    books.next_order("6")
    books.lose_all("Ray Tune ended")
    assert books.next_order("7") is not None
    books.hear("7", done())
    assert source.done["0000 a"].error is None


def test_nobody_wants_to_hear_a_lost_attempt() -> None:
    books, source = open_books("a")
    books.next_order("1")
    books.lose("1", "its node was lost", node_lost=True)
    books.next_order("2")
    assert books.hear("1", epoch(1)).over
    assert books.hear("1", done()).over
    books.lose("1", "worker process died")
    assert not source.epochs and not source.done


def test_checkpoints_arrive_here_and_go_with_the_next_attempt(tmp_path: Path) -> None:
    books, _ = with_files(tmp_path)
    first = books.next_order("1")
    assert first is not None and first.checkpoint is None
    books.hear("1", epoch(1, checkpoint=b"one"))
    books.hear("1", epoch(2, checkpoint=b"two"))
    books.hear("1", epoch(3))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["t.pt"]
    books.lose("1", "worker process died")
    second = books.next_order("2")
    assert second is not None and second.checkpoint == b"two"
    books.hear("2", done(error="ValueError: no"))
    assert (tmp_path / "c" / "t.pt").exists(), "what becomes of a failed trial's is the brain's to say"


def test_the_checkpoint_of_a_finished_job_is_removed(tmp_path: Path) -> None:
    books, _ = with_files(tmp_path)
    books.next_order("1")
    books.hear("1", epoch(1, checkpoint=b"one"))
    (tmp_path / "c" / "t.pt.task").touch()
    (tmp_path / "c" / "other.pt").touch()
    books.hear("1", done())
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["other.pt"]


def exported(folder: Path) -> tuple[Books, Said]:
    source = ListSource([TrialJob(key="t", settings=make_jobs("x")[0].settings, export=folder)])
    books = Books(1)
    books.open(source)
    books.next_order("1")
    said = done()
    said.export = {"model.json": b"{}", "weights.safetensors": b"w"}
    return books, said


def test_a_model_replaces_an_older_one(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.json").write_text("old")
    books, said = exported(tmp_path / "model")
    books.hear("1", said)
    assert (tmp_path / "model" / "model.json").read_text() == "{}"
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.json", "weights.safetensors"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_replaces_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    books, said = exported(tmp_path)
    with pytest.raises(UsageError, match=r"is no model folder.*notes\.txt"):
        books.hear("1", said)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize(("other", "shared"), [(SAME_GPU, True), (OTHER_GPU, False), (None, True)])
def test_out_of_memory_beside_another_is_put_back(other: Place | None, shared: bool) -> None:
    books, source = open_books("a", "b", workers=2)
    books.next_order("1")
    books.next_order("2")
    if other is not None:
        books.hear("2", epoch(1, place=other))
    books.hear("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert (source.abandoned == ["0000 a"]) is shared
    assert ("0000 a" in source.done) is not shared
    assert books.at_a_time == (1 if shared else 2)
    assert (books.next_order("3") is None) is True


def test_out_of_memory_lets_fewer_share_a_gpu_where_that_was_measured() -> None:
    source = ListSource(make_jobs("a", "b", "c"))
    books = Books(2, Packing({"GPU": 1.0}, measured=True))
    books.open(source)
    books.next_order("1")
    assert books.next_order("2") is None, "one a GPU, until the first was measured"
    books.hear("1", done(facts={"peak_memory_bytes": 1, "device_memory_bytes": 5 << 29}))
    shared = [books.next_order(attempt) for attempt in "23"]
    assert [order and order.resources for order in shared] == [{"GPU": 0.3333}] * 2
    books.hear("2", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.abandoned == ["0001 b"] and books.at_a_time == 2
    order = books.next_order("4")
    assert order is not None and order.job.key == "0001 b" and order.resources == {"GPU": 0.5}


def test_out_of_memory_teaches_what_a_run_takes_at_least_and_alone_on_a_gpu_nothing() -> None:
    def measured(peak: int, **others: object) -> Said:
        return done(facts={"peak_memory_bytes": peak << 30, "device_memory_bytes": 80 << 30}, **others)

    source = ListSource(make_jobs(*"abcd"))
    books = Books(2, Packing({"GPU": 1.0}, measured=True))
    books.open(source)
    books.next_order("1")
    books.hear("1", measured(79, error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory
    assert books.next_order("2").resources == {"GPU": 1.0}  # type: ignore[union-attr]
    books.hear("2", measured(1))
    shared = [books.next_order(attempt) for attempt in "34"]
    assert [order.resources for order in shared if order is not None] == [{"GPU": 0.0625}] * 2
    books.hear("3", measured(20, error="OutOfMemoryError", out_of_memory=True))
    assert source.abandoned == ["0002 c"]
    assert books.next_order("5").resources == {"GPU": 0.5}  # type: ignore[union-attr]


def test_out_of_memory_on_a_gpu_of_its_own_is_told_though_nobody_knows_where_the_others_are() -> None:
    source = ListSource(make_jobs("a", "b"))
    books = Books(2, Packing({"GPU": 1.0}, gpus=2))
    books.open(source)
    for attempt in "12":
        books.next_order(attempt)
    books.hear("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory
    assert books.at_a_time == 2


def test_out_of_memory_with_a_share_that_was_given_lets_fewer_share_too() -> None:
    source = ListSource(make_jobs("a", "b", "c"))
    books = Books(2, Packing({"GPU": 0.5}, gpus=1))
    books.open(source)
    for attempt in "12":
        books.next_order(attempt)
    answer = books.hear("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert answer.over and answer.retire, "its worker keeps the memory that it took"
    assert source.abandoned == ["0000 a"]
    assert books.next_order("3") is None, "there is room for one"
    assert not books.hear("2", done()).retire
    order = books.next_order("3")
    assert order is not None and order.job.key == "0000 a" and order.resources == {"GPU": 1.0}


def test_out_of_memory_alone_is_told() -> None:
    books, source = open_books("a")
    books.next_order("1")
    books.hear("1", done(error="OutOfMemoryError", out_of_memory=True))
    assert source.done["0000 a"].out_of_memory


def test_broken_tools_cost_an_attempt() -> None:
    books, source = open_books("a")
    for attempt in "12":
        books.next_order(attempt)
        books.hear(attempt, Said(outcome=TrialOutcome(error="RuntimeError: no"), broken=True))
    assert source.done["0000 a"].error == "a worker could not be set up (RuntimeError: no)"


def test_a_worker_without_tools_is_left_out_where_others_have_theirs(caplog: pytest.LogCaptureFixture) -> None:
    books, source = open_books("a", "b", "c", workers=2)
    for attempt in "12":
        books.next_order(attempt)
    books.hear("1", epoch(1, place=HERE))
    broken = Said(outcome=TrialOutcome(error="no kernel image"), broken=True, place=Place("n2", "beta"))
    answer = books.hear("2", broken)
    assert answer.over and answer.retire
    assert source.abandoned == ["0001 b"] and not source.done
    assert "a worker could not be set up on beta (no kernel image): going on with 1 at a time" in caplog.text
    assert books.next_order("3") is None
    books.hear("1", done())
    order = books.next_order("3")
    assert order is not None and order.job.key == "0001 b"


def test_giving_up_abandons_what_runs_and_hides_no_error(caplog: pytest.LogCaptureFixture) -> None:
    books, source = open_books("a", "b", "c", workers=2)
    books.next_order("1")
    books.next_order("2")
    books.give_up()
    assert source.abandoned == ["0000 a", "0001 b"]
    assert books.hear("1", epoch(1)).over
    assert books.next_order("3") is None

    def gone(job: TrialJob) -> None:
        raise NbtError("storage is gone")

    source.on_abandoned = gone  # type: ignore[method-assign]
    books.open(source)
    books.next_order("4")
    books.give_up()
    assert "storage is gone" in caplog.text


def test_log_records_of_workers_are_logged_here(caplog: pytest.LogCaptureFixture) -> None:
    books, _ = open_books("a")
    books.next_order("1")
    books.hear("1", epoch(1, logs=((30, "100 % odd"),)))
    assert "100 % odd" in caplog.text


def test_a_warning_that_every_worker_gives_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    books, _ = open_books("a", "b", workers=2)
    for attempt in ("1", "2"):
        books.next_order(attempt)
    with caplog.at_level(logging.INFO, logger="nbt"):
        for attempt in ("1", "2"):
            books.hear(attempt, epoch(1, logs=((30, "no GPU"), (20, "ready"), (40, "broken"))))
    assert [record.getMessage() for record in caplog.records] == ["no GPU", "ready", "broken", "ready", "broken"]


def test_an_order_is_never_copied() -> None:
    order = Order(make_jobs("a")[0], b"large")
    assert copy.deepcopy({"order": order})["order"] is order
    assert repr(order) == "0000 a", "Ray Tune makes names of it"
