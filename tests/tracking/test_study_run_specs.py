from dataclasses import replace

from nbt.settings import SETTINGS
from nbt.tracking.study_run_specs import RunSpec, study_id, study_run, study_runs, trial_run
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.source import SourceRecord
from tests.fit_profiles import profile_dict
from tests.report.study.backbone_study import OTHER, REFERENCE, backbone_study
from tests.sample_study import (
    config,
    curve,
    empty_study,
    evaluated_study,
    forecast,
    interrupted,
    sample_study,
    spread_study,
    study_with_priors,
    trial,
    unfinished_study,
    with_config,
)


def history(spec: RunSpec) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for point in spec.metrics:
        found.setdefault(point.key, {})[point.step] = point.value
    return found


def study(record: StudyRecord, *, live: bool = False) -> dict[str, dict[int, float]]:
    return history(study_run(record, live=live))


def test_specs_name_every_run_once_and_parents_first() -> None:
    for record in (sample_study(), unfinished_study(), empty_study()):
        seen: set[str] = set()
        for spec in study_runs(record):
            assert spec.key not in seen
            assert spec.parent is None or spec.parent in seen
            seen.add(spec.key)


def test_the_study_run_has_all_metrics_of_the_test_beside_always_guessing() -> None:
    values = {key: points[0] for key, points in study(evaluated_study()).items() if 0 in points}
    assert values["test_accuracy_low"] < values["test_accuracy"] < values["test_accuracy_high"]
    assert values["test_log_loss"] > 0
    assert values["test_majority_accuracy"] < 0.03 < values["test_baseline_macro_f1_low"]
    assert values["test_difference_low"] > 0
    assert values["optimism_low"] < values["optimism"] < values["optimism_high"]


def test_trial_run_contains_location() -> None:
    tags = {spec.key: spec.tags for spec in study_runs(spread_study())}
    ran = tags["trial-0012"]
    assert (ran["node"], ran["gpu_index"], ran["device"]) == ("alpha", "0", "NVIDIA H200")
    assert ran["lost_workers"] == "Trial 12 lost a worker on alpha, GPU 0: worker process died."
    assert "lost_workers" not in tags["trial-0000"]
    old = {spec.key: spec.tags for spec in study_runs(sample_study())}["trial-0012"]
    assert old["device"] == "cpu" and not {"node", "gpu_index"} & old.keys()


def test_hash_changes_with_the_content() -> None:
    record = sample_study()
    spec = study_runs(record)[3]
    assert spec.content_hash == study_runs(sample_study())[3].content_hash
    point = replace(spec.metrics[0], value=0.5)
    for other in (
        replace(spec, name="x"),
        replace(spec, status="FAILED"),
        replace(spec, params={**spec.params, "momentum": "0.5"}),
        replace(spec, metrics=(point, *spec.metrics[1:])),
        replace(spec, tags={**spec.tags, "origin": "x"}),
    ):
        assert other.content_hash != spec.content_hash


def test_names_stay_within_the_limits() -> None:
    record = with_config(sample_study(), name="n" * 400, dataset="/data/" + "d" * 400)
    reasoned = [replace(t, reason="r" * 9000) for t in record.trials]
    for spec in study_runs(replace(record, trials=tuple(reasoned), config=replace(config(), name="n" * 400))):
        assert len(spec.name) <= 250
        assert all(len(value) <= 5000 for value in spec.tags.values())


def test_study_is_identified_by_name_and_creation_time() -> None:
    record = sample_study()
    assert record.created is not None
    others = (with_config(record, name="x"), replace(record, created=record.created.replace(hour=1)))
    assert len({study_id(other) for other in (record, *others)}) == 3
    assert study_id(replace(record, trials=(), budget="99")) == study_id(record)


def test_all_values_are_finite() -> None:
    for spec in (*study_runs(sample_study()), *study_runs(study_with_priors(profile=profile_dict()))):
        assert all(abs(point.value) < 1e6 for point in spec.metrics)
        assert len({(point.key, point.step) for point in spec.metrics}) == len(spec.metrics)


def test_trials_have_the_dimensions_of_the_space_as_parameters() -> None:
    space = Space.load("binary")
    record = with_config(sample_study(), space="binary", space_hash=space.hash)
    columns = [column for dimension in space.dimensions for column in SETTINGS[dimension.name].columns]
    for spec in study_runs(record)[1:]:
        assert sorted(spec.params) == sorted(columns)
        assert {"kind", "state", "settings"} <= set(spec.tags)
    changed = with_config(record, space_hash="another")
    assert "momentum" in trial_run(changed, changed.trials[0]).params


def test_what_the_optimiser_trained_is_tagged() -> None:
    facts = {"optimizer": {"trainable_parameters": 12, "learning_rates": "0.01 ... 0.1"}}
    tags = trial_run(sample_study(), trial(0, facts=facts)).tags
    assert (tags["trainable_parameters"], tags["learning_rates"]) == ("12", "0.01 ... 0.1")


def test_keys_are_valid() -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    for spec in study_runs(study_with_priors(profile=profile_dict())):
        for point in spec.metrics:
            _validate_metric_name(point.key)
        for key in spec.tags:
            _validate_tag_name(key)


def test_pruning_metrics_only_grow() -> None:
    record = study_with_priors()
    found = study(record)
    assert found["pruning_epochs_saved"][17] == 64.0
    assert list(found["pruning_stopped"].values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert found["pruning_controls"] == {4: 1.0, 11: 2.0}
    assert found["pruning_false_stop_rate"] == {4: 0.0, 11: 0.5}
    assert found["pruning_false_stop_rate_low"][11] < 0.5 < found["pruning_false_stop_rate_high"][11]
    for count in range(len(record.trials)):
        part = study(replace(record, trials=record.trials[:count]))
        for key in (key for key in part if key.startswith("pruning_")):
            assert part[key].items() <= found[key].items()
    assert "pruning_controls" not in study(sample_study())
    assert study(sample_study())["pruning_epochs_saved"][17] == 64.0


def test_epochs_of_interrupted_trials_count_once() -> None:
    whole = curve(0.6)
    listed = (trial(0, "failed", curve=whole[:7]), trial(1, curve=whole, trained=5), trial(2, curve=whole, trained=14))
    found = study(sample_study(trials=listed, epochs_budget=52))
    assert list(found["epochs_spent"].values()) == [7.0, 12.0, 26.0]
    assert found["budget_spent"][3] == 0.5


def test_the_share_of_the_budget_is_that_of_the_cost_not_of_the_epochs() -> None:
    listed = (trial(0, curve=curve(0.6, epochs=10)), trial(1, curve=curve(0.6, epochs=10), epoch_cost=0.25))
    found = study(sample_study(trials=listed, epochs_budget=20))
    assert found["epochs_spent"][2] == 20.0
    assert found["budget_spent"] == {1: 0.5, 2: 0.625}


def test_interrupted_trial_is_killed_not_failed() -> None:
    record = sample_study(trials=(interrupted(0), trial(1, "failed", reason="ValueError: x")))
    _, killed, failed = study_runs(replace(record, finals=(), recommended=None))
    assert (killed.status, killed.tags["state"], killed.name.rpartition(" ")[2]) == ("KILLED", *["interrupted"] * 2)
    assert (failed.status, failed.tags["state"], failed.name.rpartition(" ")[2]) == ("FAILED", *["failed"] * 2)


def test_trial_run_contains_forecasts() -> None:
    record = study_with_priors()
    by_number = {trial_record.number: trial_run(record, trial_record) for trial_record in record.trials}
    found = history(by_number[10])
    assert list(found["pruning_forecast_mean"]) == list(range(2, 12))
    assert found["pruning_forecast_chance"][4] == 0.02
    assert (found["pruning_forecast_low"][2], found["pruning_forecast_high"][2]) == (0.58 - 0.05, 0.58 + 0.05)
    assert found["pruning_to_beat"] == {4: 0.65}
    times = {point.step: point.timestamp_ms for point in by_number[10].metrics if point.key == "val_accuracy"}
    assert all(p.timestamp_ms == times[p.step] for p in by_number[10].metrics if p.key == "pruning_forecast_mean")
    assert [by_number[number].tags.get("control") for number in (10, 4, 12)] == ["yes", "no", None]
    assert by_number[4].tags["reason"] == "rank 5 of 6 after 2 epochs"


def test_damaged_forecast_is_not_logged() -> None:
    stored = {**forecast(0.5, last=3), "rows": [[2, 0.5, None, 0.6, 0.1], [3, 0.5, 0.4, 0.6]]}
    spec = trial_run(sample_study(), trial(0, "pruned", facts={"forecast": stored}))
    assert not any(point.key.startswith("pruning_forecast_") for point in spec.metrics)
    assert "control" not in spec.tags


def test_metrics_of_every_epoch_become_histories() -> None:
    record = sample_study()
    trial_record = record.trials[0]
    rows = tuple(replace(row, metrics={"auroc": 0.1 * row.epoch, "macro_f1": None}) for row in trial_record.curve)
    written = history(trial_run(record, replace(trial_record, curve=rows)))
    assert written["val_auroc"] == {row.epoch: row.metrics["auroc"] for row in rows}
    assert "val_macro_f1" not in written


def test_the_clock_is_written_at_the_end() -> None:
    record = sample_study(clock={"trials": 600.0, "estimate": 700.0})
    assert study(record)["seconds_trials"] == {0: 600.0}
    assert study(record)["seconds_estimate"] == {0: 700.0}
    assert not any(key.startswith("seconds_") for key in study(record, live=True))


def test_trials_of_a_search_over_backbones_name_theirs() -> None:
    record = backbone_study()
    for listed in record.trials:
        assert trial_run(record, listed).params["backbone"] == (OTHER if listed.number in (12, 13) else REFERENCE)
    assert OTHER in trial_run(record, record.trials[12]).name
    study = study_runs(record)[0]
    assert study.params["candidates"] == ", ".join(candidate.name for candidate in record.config.candidates)
    assert "backbone" not in trial_run(sample_study(), sample_study().trials[0]).params
    assert "candidates" not in study_runs(sample_study())[0].params


def test_source_accuracies_are_metrics_of_the_study_and_its_trials() -> None:
    plain = sample_study()
    assert not [key for spec in study_runs(plain) for key in history(spec) if key.startswith("source")]
    listed = tuple(replace(found, source_accuracy=0.3 if found.number == 12 else None) for found in plain.trials)
    tested = tuple(replace(test, source_accuracy=value) for test, value in zip(plain.test, (0.25, 0.0), strict=True))
    source = SourceRecord(images=140, classes=7, matching="names", references={"": 0.8})
    record = replace(plain, trials=listed, test=tested, source=source)
    values = study(record)
    assert values["source_reference_accuracy"] == {0: 0.8}
    assert (values["source_accuracy"], values["source_baseline_accuracy"]) == ({0: 0.25}, {0: 0.0})
    by_trial = {spec.key: history(spec).get("source_accuracy") for spec in study_runs(record)}
    assert by_trial["trial-0012"] == {0: 0.3} and by_trial["trial-0000"] is None
