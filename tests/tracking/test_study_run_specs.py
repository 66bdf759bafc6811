from dataclasses import replace

from nbt.tracking.study_run_specs import RunSpec, study_id, study_run, study_runs, trial_run
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    config,
    curve,
    empty_study,
    forecast,
    interrupted,
    sample_study,
    source,
    spread_study,
    stored_diagnostics,
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


def test_study_run_contains_prior_diagnostics() -> None:
    spec = study_run(study_with_priors(), live=False)
    found = history(spec)
    name = "guide/effective rate by similarity"
    assert found[f"{name}/weight_before"] == {0: 0.3}
    assert found[f"{name}/weight_after"] == {0: -0.05}
    assert found[f"{name}/agreement"] == {0: -0.41}
    assert found["guide/recorded_ sketch7/spread_after"] == {0: 0.3}
    assert "guide/enough steps/agreement" not in found
    assert spec.tags[name].startswith("contradicted: proposal of effective rate by similarity")
    assert spec.tags["guide_silent"] == "rates by shift: not measured: statistics shift by unit"
    assert spec.tags["guide_tables"] == "sketch7; digits"
    rules = study_run(study_with_priors(prior_diagnostics={**stored_diagnostics(), "tables": []}), live=False)
    assert rules.tags["guide_tables"] == "none: rules alone"
    plain = study_run(sample_study(), live=False)
    assert not any("guide" in key for key in (*plain.tags, *history(plain)))


def test_hostile_source_names_yield_valid_unique_keys() -> None:
    names = ["../../x", "../../x", "a//b/", "..", ".", "<b>'\"\n", "x" * 400, "x" * 401, "é: (width_mult=0.35)"]
    record = study_with_priors(
        prior_diagnostics={"sources": [source(name, 0.1 * i, 0.2) for i, name in enumerate(names)]}
    )
    before = {key: value[0] for key, value in study(record).items() if key.endswith("/weight_before")}
    assert sorted(before.values()) == [0.1 * i for i in range(len(names))]
    for key in (*study(record), *study_run(record, live=False).tags):
        validate(key)


def validate(key: str) -> None:
    from mlflow.utils.validation import _validate_metric_name, _validate_tag_name

    _validate_metric_name(key)
    _validate_tag_name(key)
    assert len(key) <= 250


def test_pruning_metrics_only_grow() -> None:
    record = study_with_priors()
    found = study(record)
    assert found["pruning/epochs_saved"][17] == 64.0
    assert list(found["pruning/stopped"].values()) == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert found["pruning/controls"] == {4: 1.0, 11: 2.0}
    assert found["pruning/false_stop_rate"] == {4: 0.0, 11: 0.5}
    assert found["pruning/false_stop_rate_low"][11] < 0.5 < found["pruning/false_stop_rate_high"][11]
    for count in range(len(record.trials)):
        part = study(replace(record, trials=record.trials[:count]))
        for key in (key for key in part if key.startswith("pruning/")):
            assert part[key].items() <= found[key].items()
    assert "pruning/controls" not in study(sample_study())
    assert study(sample_study())["pruning/epochs_saved"][17] == 64.0


def test_epochs_of_interrupted_trials_count_once() -> None:
    whole = curve(0.6)
    listed = (trial(0, "failed", curve=whole[:7]), trial(1, curve=whole, trained=5), trial(2, curve=whole, trained=14))
    found = study(sample_study(trials=listed, epochs_budget=52))
    assert list(found["epochs_spent"].values()) == [7.0, 12.0, 26.0]
    assert found["budget_spent"][3] == 0.5
    assert history(trial_run(sample_study(), listed[1]))["epochs"] == {0: 12.0}, "of its curve"


def test_interrupted_trial_is_killed_not_failed() -> None:
    record = sample_study(trials=(interrupted(0), trial(1, "failed", reason="ValueError: x")))
    _, killed, failed = study_runs(replace(record, finals=(), recommended=None))
    assert (killed.status, killed.tags["state"], killed.name.rpartition(" ")[2]) == ("KILLED", *["interrupted"] * 2)
    assert (failed.status, failed.tags["state"], failed.name.rpartition(" ")[2]) == ("FAILED", *["failed"] * 2)


def test_correlations_are_logged_when_the_search_has_ended() -> None:
    record = study_with_priors(profile=profile_dict())
    found = study(record)
    assert found["skill/transfer_depth/ridge_accuracy"] == found["skill/transfer_depth/ridge_accuracy_baseline"]
    assert "skill/transfer_depth/logme" not in found
    assert not any(key.startswith("skill/") for key in study(record, live=True))
    assert not any(key.startswith("skill/") for key in study(study_with_priors()))


def test_trial_run_contains_forecasts() -> None:
    record = study_with_priors()
    by_number = {trial_record.number: trial_run(record, trial_record) for trial_record in record.trials}
    found = history(by_number[10])
    assert list(found["forecast/mean"]) == list(range(2, 12))
    assert found["forecast/chance"][4] == 0.02
    assert (found["forecast/low"][2], found["forecast/high"][2]) == (0.58 - 0.05, 0.58 + 0.05)
    assert found["forecast/to_beat"] == {4: 0.65}
    times = {point.step: point.timestamp_ms for point in by_number[10].metrics if point.key == "val_accuracy"}
    assert all(p.timestamp_ms == times[p.step] for p in by_number[10].metrics if p.key == "forecast/mean")
    assert [by_number[number].tags.get("control") for number in (10, 4, 12)] == ["yes", "no", None]
    assert by_number[4].tags["reason"] == "rank 5 of 6 after 2 epochs"


def test_damaged_forecast_is_not_logged() -> None:
    stored = {**forecast(0.5, last=3), "rows": [[2, 0.5, None, 0.6, 0.1], [3, 0.5, 0.4, 0.6]]}
    spec = trial_run(sample_study(), trial(0, "pruned", facts={"forecast": stored}))
    assert not any(point.key.startswith("forecast/") for point in spec.metrics)
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
    assert study(record)["clock/trials"] == {0: 600.0}
    assert study(record)["clock/estimate"] == {0: 700.0}
    assert not any(key.startswith("clock/") for key in study(record, live=True))
