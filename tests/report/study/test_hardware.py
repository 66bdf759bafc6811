from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from nbt.report.study.hardware import (
    hardware_section,
    hardware_summary,
    hardware_text,
    lost_workers,
    trial_location,
    used_several_locations,
)
from nbt.report.study.tables import trial_rows
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.sample_study import CREATED, curve, interrupted, sample_study, spread_study, trial


def ran(number: int, begin: float, end: float, *, epochs: int = 12, each: float = 1.0, **facts: Any) -> TrialRecord:
    """A trial that was handed out and ended at these seconds, and trained `epochs` epochs of `each` seconds."""
    results = tuple(replace(one, seconds=each) for one in curve(0.5, epochs=epochs))
    started, finished = CREATED + timedelta(seconds=begin), CREATED + timedelta(seconds=end)
    said = {"node": "alpha", "device": "cpu", "precision": "float32", **facts}
    return trial(number, curve=results, started=started, finished=finished, facts=said)


def study(*listed: TrialRecord, **changes: Any) -> StudyRecord:
    return sample_study(**{"trials": listed, "seconds_spent": 100.0, **changes})


def test_a_table_of_what_ran_where() -> None:
    section = hardware_section(spread_study())
    rows = [(row.node, row.gpu, row.trials, row.failed, row.lost) for row in section.rows]
    assert rows == [
        ("alpha", "0 (NVIDIA H200)", 6, 0, 1),
        ("alpha", "1 (NVIDIA H200)", 6, 0, 0),
        ("beta", "0 (NVIDIA H200)", 6, 1, 0),
        ("beta", "1", 0, 0, 1),
    ]
    assert sum(row.epochs for row in section.rows) == spread_study().epochs_spent
    assert section.losses == (
        "Trial 8 lost a worker on beta, GPU 1: its node was lost.",
        "Trial 12 lost a worker on alpha, GPU 0: worker process died.",
    )


def test_an_interrupted_trial_did_not_fail_where_it_ran() -> None:
    rows = hardware_section(study(ran(0, 0, 1), interrupted(1, facts={"node": "beta", "device": "cpu"}))).rows
    assert [(row.node, row.trials, row.failed) for row in rows] == [("alpha", 1, 0), ("beta", 1, 0)]


def test_one_place_needs_no_table() -> None:
    here = {"node": "alpha", "device": "cuda:0", "gpu_index": "3", "gpu": "NVIDIA H200", "precision": "bf16"}
    record = study(ran(0, 0, 20, **here), ran(1, 20, 40, **here))
    assert hardware_section(record).rows == ()
    assert hardware_text(record) == "NVIDIA H200, bf16 on GPU 3 of alpha"
    assert hardware_text(study(ran(0, 0, 20))) == "cpu, float32 on alpha"
    assert {row.place for row in trial_rows(record)} == {""}


def test_trials_of_before_places_were_known_make_no_table() -> None:
    old = trial(0, curve=curve(0.5))
    assert hardware_text(study(old)) == "cpu, float32"
    record = study(old, ran(1, 0, 20))
    assert not used_several_locations(record.trials)
    assert hardware_text(record) == "cpu, float32 on alpha"
    spread = study(old, ran(1, 0, 20), ran(2, 0, 20, node="beta"))
    assert [(row.node, row.gpu, row.trials) for row in hardware_section(spread).rows] == [
        ("\N{EN DASH}", "\N{EN DASH}", 1),
        ("alpha", "CPU", 1),
        ("beta", "CPU", 1),
    ]


@pytest.mark.parametrize(
    ("spots", "words"),
    [
        ([("alpha", "0"), ("alpha", "1"), ("beta", "0")], "3 GPUs of 2 nodes"),
        ([("alpha", "0"), ("alpha", "1")], "2 GPUs of alpha"),
        ([("alpha", ""), ("beta", "")], "2 nodes"),
        ([("alpha", ""), ("beta", "0")], "GPU 0 of 2 nodes"),
        ([("", "2")], "GPU 2"),
        ([("", "")], ""),
    ],
)
def test_the_extent_in_words(spots: list[tuple[str, str]], words: str) -> None:
    assert hardware_summary(ran(i, 0, 1, node=node, gpu_index=gpu) for i, (node, gpu) in enumerate(spots)) == words


def test_busy_is_when_at_least_one_trained() -> None:
    def busy(*listed: TrialRecord, seconds: float = 100.0) -> str:
        run_options = ran(9, 0, 1, node="beta", epochs=1)
        return hardware_section(study(*listed, run_options, seconds_spent=seconds)).rows[0].busy

    assert busy(ran(0, 0, 12), ran(1, 20, 32)) == "24 %"
    assert busy(ran(0, 0, 12), ran(1, 6, 18)) == "18 %", "two at a time are not twice as busy"
    assert busy(ran(0, 0, 50)) == "12 %", "it waited before it trained"
    assert busy(ran(0, 44, 50)) == "6 %", "six of its twelve epochs were trained in an earlier session"
    assert busy(ran(0, 0, 12), seconds=0.0) == "\N{EN DASH}"


def test_gpus_stand_in_the_order_of_their_numbers() -> None:
    record = study(*(ran(gpu, 0, 1, gpu_index=str(gpu)) for gpu in (10, 9, 2)))
    assert [row.gpu for row in hardware_section(record).rows] == ["2", "9", "10"]


def test_a_lost_workers_device_is_no_other_device() -> None:
    lost = trial(1, "failed", facts={"node": "alpha", "device": "cuda:0", "gpu_index": "0"})
    whole = ran(0, 0, 1, device="cuda:0", gpu="NVIDIA H200", precision="bf16", gpu_index="0")
    assert hardware_text(study(whole, lost)) == "NVIDIA H200, bf16 on GPU 0 of alpha"
    assert hardware_text(study(lost)) == "cuda:0 on GPU 0 of alpha"


def test_many_losses_are_counted() -> None:
    lost = [{"node": "alpha", "reason": "worker process died"}] * 11
    said = hardware_section(study(ran(0, 0, 1, lost_workers=lost))).losses
    assert len(said) == 9 and said[-1] == "And 3 more."


@pytest.mark.parametrize("damaged", ["x", 3, None, [3, None], [{}], {"node": "a"}])
def test_damaged_facts_cost_no_report(damaged: Any) -> None:
    one = trial(0, facts={"lost_workers": damaged, "node": damaged, "device": "cpu"})
    assert all("lost a worker" in str(loss) for loss in lost_workers([one]))
    hardware_section(study(one, ran(1, 0, 1)))
    assert "\n" not in str(trial_location({"node": "a\nb"}))
