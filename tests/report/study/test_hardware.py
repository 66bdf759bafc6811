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
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.sample_study import CREATED, curve, interrupted, sample_study, spread_study, trial


def ran(number: int, begin: float, end: float, *, epochs: int = 12, each: float = 1.0, **facts: Any) -> TrialRecord:
    """Returns a trial that started and ended at these seconds and trained `epochs` epochs of `each` seconds."""
    results = tuple(replace(result, seconds=each) for result in curve(0.5, epochs=epochs))
    started, finished = CREATED + timedelta(seconds=begin), CREATED + timedelta(seconds=end)
    facts = {"node": "alpha", "device": "cpu", "precision": "float32", **facts}
    return trial(number, curve=results, started=started, finished=finished, facts=facts)


def study(*listed: TrialRecord, **changes: Any) -> StudyRecord:
    return sample_study(**{"trials": listed, "seconds_spent": 100.0, **changes})


def test_table_of_locations() -> None:
    section = hardware_section(spread_study())
    rows = [(row.node, row.gpu, row.trials, row.failed, row.workers_lost) for row in section.rows]
    assert rows == [
        ("alpha", "0 (NVIDIA H200)", 6, 0, 1),
        ("alpha", "1 (NVIDIA H200)", 6, 0, 0),
        ("beta", "0 (NVIDIA H200)", 6, 1, 0),
        ("beta", "1", 0, 0, 1),
    ]
    assert sum(row.epochs for row in section.rows) == spread_study().epochs_spent
    assert section.lost_workers == (
        "Trial 8 lost a worker on beta, GPU 1: its node was lost.",
        "Trial 12 lost a worker on alpha, GPU 0: worker process died.",
    )


def test_interrupted_trial_does_not_count_as_failed_at_its_location() -> None:
    rows = hardware_section(study(ran(0, 0, 1), interrupted(1, facts={"node": "beta", "device": "cpu"}))).rows
    assert [(row.node, row.trials, row.failed) for row in rows] == [("alpha", 1, 0), ("beta", 1, 0)]


def test_single_location_has_no_table() -> None:
    here = {"node": "alpha", "device": "cuda:0", "gpu_index": "3", "gpu": "NVIDIA H200", "precision": "bf16"}
    record = study(ran(0, 0, 20, **here), ran(1, 20, 40, **here))
    assert hardware_section(record).rows == ()
    assert hardware_text(record) == "NVIDIA H200, bf16 on GPU 3 of alpha"
    assert hardware_text(study(ran(0, 0, 20))) == "cpu, float32 on alpha"


def test_trials_without_location_do_not_count_as_a_location() -> None:
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
    ("locations", "summary"),
    [
        ([("alpha", "0"), ("alpha", "1"), ("beta", "0")], "3 GPUs of 2 nodes"),
        ([("alpha", "0"), ("alpha", "1")], "2 GPUs of alpha"),
        ([("alpha", ""), ("beta", "")], "2 nodes"),
        ([("alpha", ""), ("beta", "0")], "GPU 0 of 2 nodes"),
        ([("", "2")], "GPU 2"),
        ([("", "")], ""),
    ],
)
def test_hardware_summary(locations: list[tuple[str, str]], summary: str) -> None:
    trials = [ran(i, 0, 1, node=node, gpu_index=gpu) for i, (node, gpu) in enumerate(locations)]
    assert hardware_summary(trials) == summary


def test_utilisation_counts_time_with_at_least_one_trial() -> None:
    def utilisation(*listed: TrialRecord, seconds: float = 100.0) -> str:
        on_other_node = ran(9, 0, 1, node="beta", epochs=1)
        return hardware_section(study(*listed, on_other_node, seconds_spent=seconds)).rows[0].utilisation

    assert utilisation(ran(0, 0, 12), ran(1, 20, 32)) == "24 %"
    assert utilisation(ran(0, 0, 12), ran(1, 6, 18)) == "18 %", "overlapping trials count once"
    assert utilisation(ran(0, 0, 50)) == "12 %", "waiting before training does not count"
    assert utilisation(ran(0, 44, 50)) == "6 %", "epochs of an earlier session do not count"
    assert utilisation(ran(0, 0, 12), seconds=0.0) == "\N{EN DASH}"


def test_gpus_are_sorted_by_index() -> None:
    record = study(*(ran(gpu, 0, 1, gpu_index=str(gpu)) for gpu in (10, 9, 2)))
    assert [row.gpu for row in hardware_section(record).rows] == ["2", "9", "10"]


def test_device_of_a_lost_worker_is_not_a_second_device() -> None:
    lost = trial(1, "failed", facts={"node": "alpha", "device": "cuda:0", "gpu_index": "0"})
    whole = ran(0, 0, 1, device="cuda:0", gpu="NVIDIA H200", precision="bf16", gpu_index="0")
    assert hardware_text(study(whole, lost)) == "NVIDIA H200, bf16 on GPU 0 of alpha"
    assert hardware_text(study(lost)) == "cuda:0 on GPU 0 of alpha"


def test_many_lost_workers_are_counted() -> None:
    lost = [{"node": "alpha", "reason": "worker process died"}] * 11
    sentences = hardware_section(study(ran(0, 0, 1, lost_workers=lost))).lost_workers
    assert len(sentences) == 9 and sentences[-1] == "And 3 more."


@pytest.mark.parametrize("damaged", ["x", 3, None, [3, None], [{}], {"node": "a"}])
def test_damaged_facts_do_not_prevent_the_report(damaged: Any) -> None:
    damaged_trial = trial(0, facts={"lost_workers": damaged, "node": damaged, "device": "cpu"})
    assert all("lost a worker" in str(loss) for loss in lost_workers([damaged_trial]))
    hardware_section(study(damaged_trial, ran(1, 0, 1)))
    assert "\n" not in str(trial_location({"node": "a\nb"}))
