from dataclasses import replace
from pathlib import Path

from nbt.report.formatting import DASH, TemplateData
from nbt.report.study.report_data import build_report
from nbt.tuning.storage.records import StudyRecord, TrialRecord
from tests.sample_study import (
    CREATED,
    DEFAULT,
    curve,
    empty_study,
    evaluated_study,
    finals,
    interrupted,
    sample_study,
    trial,
    unfinished_study,
    with_config,
)


def report(record: StudyRecord) -> TemplateData:
    return build_report(record, Path("reports/birds"))


def facts(rows: tuple[object, ...]) -> dict[str, str]:
    return {row.label: f"{row.value} {row.note}".strip() for row in rows}  # type: ignore[attr-defined]


def test_changed_settings_are_marked() -> None:
    rows = {row.name: row for row in report(sample_study()).settings}
    changed = {name for name, row in rows.items() if row.changed}
    assert changed == {
        "transfer_depth",
        "frozen_depth",
        "head_lr",
        "body_lr",
        "layer_lr_shape_input",
        "layer_lr_shape_middle",
        "decay_strength",
        "sp_mix",
        "label_smoothing",
        "augmentation",
    }
    assert (rows["frozen_depth"].value, rows["frozen_depth"].default) == ("0.35", "0")
    assert (rows["augmentation"].value, rows["augmentation"].default) == ("color", "crop")


def test_default_recipe_has_the_length_of_the_study() -> None:
    record = with_config(sample_study(), epochs=30)
    longer = replace(record, finals=(replace(record.finals[1], settings=DEFAULT.replace(epochs=30)),))
    rows = report(replace(longer, recommended="default recipe")).settings
    assert not any(row.changed for row in rows)


def test_settings_of_a_stream_have_the_epochs_of_one_task() -> None:
    record = with_config(sample_study(), scenario="class", tasks=4)
    rows = {row.name: row for row in report(record).settings}
    assert (rows["epochs"].value, rows["epochs"].default, rows["epochs"].changed) == ("3", "3", False)
    assert rows["head_lr"].changed


def test_trials_are_sorted_by_state_and_accuracy() -> None:
    rows = report(unfinished_study()).trials
    assert [row.number for row in rows[:3]] == [12, 14, 17]
    states = [row.state for row in rows]
    assert states == sorted(states, key=["complete", "diverged", "pruned", "running", "failed"].index)
    assert len(rows) == 19
    assert {row.number: row.marks for row in rows if row.marks} == {12: ("best",), 0: ("default recipe",)}


def test_recommended_trial_is_marked_after_the_finals() -> None:
    listed = finals()
    record = sample_study(recommended="trial 14", finals=(listed[2], *listed[:2]))
    rows = report(record).trials
    assert {row.number: row.marks for row in rows if row.marks} == {14: ("recommended",), 0: ("default recipe",)}
    default = report(sample_study(recommended="default recipe")).trials
    assert next(row.marks for row in default if row.marks) == ("recommended", "default recipe")


def test_sparklines_cover_the_range_of_all_curves() -> None:
    close = [trial(i, curve=curve(0.95 + i / 100)[-4:]) for i in range(3)]
    rows = report(empty_study(trials=tuple(close))).trials
    assert len(set("".join(row.curve for row in rows))) > 3


def test_trial_row() -> None:
    row = next(row for row in report(sample_study()).trials if row.number == 16)
    assert (row.state, row.accuracy, row.loss, row.epochs) == ("pruned", DASH, DASH, "4/12"), (
        "a stopped trial has no value"
    )
    assert row.reason == "rank 5 of 6 after 4 epochs"
    assert len(row.curve) == 4


def test_the_loss_decides_exact_ties_only() -> None:
    """A recipe with a high cross-entropy, as of label smoothing, is not ranked below a less accurate one."""

    def smoothed(number: int, accuracy: float) -> TrialRecord:
        return trial(number, curve=tuple(replace(r, val_loss=(r.val_loss or 0) + 1) for r in curve(accuracy)))

    plain = trial(2, curve=curve(0.69))
    record = replace(empty_study(trials=(plain, smoothed(1, 0.70), smoothed(3, 0.69))), noise=0.02)
    assert [row.number for row in report(record).trials] == [1, 2, 3]


def test_budget_facts() -> None:
    record = sample_study()
    data = report(record)
    spent = facts(data.budget_facts)
    assert spent["Budget"] == "14 full-length trials = 168 epochs"
    assert spent["Epochs spent"] == "130 of 168 (77 %)"
    assert spent["Trials"] == "18 10 full-length, 7 pruned and 1 failed"
    assert spent["Diverged"].startswith("1 ")
    assert spent["Saved by pruning"] == "64 epochs not trained; pruner asha"
    assert spent["Time of the search"] == "10 min 12 s"
    assert spent["Final runs"] == "13 156 epochs, not included in the budget"
    assert data.budget_share_spent == 130 / 168
    timed = report(replace(record, budget="30m", epochs_budget=None))
    assert facts(timed.budget_facts)["Budget"] == "30m"
    assert timed.budget_share_spent is None
    untested = report(replace(record, budget="30m", epochs_budget=None, test=()))
    assert untested.tiles[3].value == "10 min 12 s"


def test_trial_stopped_by_the_budget_saves_no_epochs() -> None:
    ended = trial(0, "pruned", curve=curve(0.4, epochs=4), reason="epoch budget used up")
    data = report(empty_study(trials=(ended,)))
    assert "Saved by pruning" not in facts(data.budget_facts)
    assert data.pruning.sentences[0].endswith("The end of the budget stopped 1 trial.")


def test_budget_share_is_at_most_one() -> None:
    assert report(sample_study(epochs_spent=500)).budget_share_spent == 1.0


def test_tiles_of_a_finished_study() -> None:
    guessing = "Always guessing the largest class"
    tiles = facts(report(evaluated_study()).tiles)
    assert list(tiles) == ["Test accuracy", "Test of the default recipe", guessing, "Validation accuracy"]
    assert tiles["Test accuracy"].startswith("69.5 % 66.8")
    assert tiles["Test of the default recipe"].startswith("65.1 % 62.3")
    assert "recommended +4.4 points, +" in tiles["Test of the default recipe"]
    assert tiles[guessing].startswith("2.0 % 1.4")
    assert "minus test +1.1 points, \N{MINUS SIGN}1.6 to +4.0" in tiles["Validation accuracy"]


def test_tiles_without_predictions() -> None:
    tiles = facts(report(sample_study()).tiles)
    assert tiles["Always guessing the largest class"] == "\N{EN DASH} no stored predictions"
    same = facts(report(sample_study(recommended="default recipe")).tiles)
    assert same["Test of the default recipe"] == "the same the default recipe is recommended"


def test_tiles_before_the_test() -> None:
    tiles = facts(report(sample_study(test=())).tiles)
    assert list(tiles) == ["Validation accuracy", "Difference from default", "Test accuracy", "Epochs spent"]
    assert tiles["Difference from default"] == "+4.5 points +4.1 to +4.9, paired"


def test_failures_are_grouped_by_reason() -> None:
    failed = [trial(i, "failed", reason="ValueError: x", facts={"traceback": f"T{i}"}) for i in (1, 3)]
    other = trial(2, "failed", reason="")
    data = report(empty_study(trials=(failed[0], other, failed[1])))
    assert [(f.reason, f.trials, f.traceback) for f in data.failures] == [
        ("ValueError: x", "1 and 3", "T3"),
        ("no reason recorded", "2", ""),
    ]


def test_interrupted_trial_is_no_failure() -> None:
    data = report(empty_study(trials=(interrupted(0), trial(1, curve=curve(0.5)), interrupted(2))))
    assert data.failures == ()
    assert facts(data.budget_facts)["Trials"] == "3 1 full-length, 0 pruned, 0 failed and 2 interrupted"
    assert "1 trial," in facts(data.tiles)["Epochs spent"]
    assert [(row.number, row.state) for row in data.trials] == [(1, "complete"), (0, "interrupted"), (2, "interrupted")]


def test_importance_is_sorted_and_finite() -> None:
    rows = report(sample_study(importance={"a": 0.2, "b": 0.7, "c": float("nan")})).importance
    assert [(row.name, row.text) for row in rows] == [("b", "70 %"), ("a", "20 %")]


def test_study_facts() -> None:
    found = facts(report(sample_study()).study_facts)
    assert found["Hardware"] == "cpu, float32"
    assert (found["Validation images"], found["Unreadable images"]) == ("299", "1")
    assert found["Started"] == CREATED.strftime("%Y-%m-%d %H:%M UTC")
    bare = facts(report(sample_study(dataset={}, trials=(), created=None)).study_facts)
    assert "Classes" not in bare
    assert "Hardware" not in bare


def test_names_with_line_breaks_become_one_line() -> None:
    record = with_config(sample_study(notes=("a\nb",)), name="n\n# x", dataset="d\ne")
    data = report(record)
    assert data.title == "n # x"
    assert "\n" not in data.subtitle + data.notes[0] + facts(data.study_facts)["Dataset"]


def test_the_time_of_the_whole_names_its_phases() -> None:
    clock = {
        "prepare": 4.0,
        "profile": 0.0,
        "trials": 600.0,
        "finals": 90.0,
        "train": 30.0,
        "report": 0.0,
        "estimate": 1.0,
    }
    spent = facts(report(sample_study(clock=clock)).budget_facts)
    assert spent["Time of the whole"] == "12 min 04 s prepare 4.0 s, trials 10 min 00 s, finals 1 min 30 s, train 30 s"
    assert "Time of the whole" not in facts(report(sample_study()).budget_facts), "studies of earlier versions"
