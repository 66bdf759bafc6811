from dataclasses import replace

from nbt.report.runs import study_id, study_runs
from tests.sample_study import config, empty_study, sample_study, unfinished_study, with_config


def test_specs_name_every_run_once_and_parents_first() -> None:
    for record in (sample_study(), unfinished_study(), empty_study()):
        seen: set[str] = set()
        for spec in study_runs(record):
            assert spec.key not in seen
            assert spec.parent is None or spec.parent in seen
            seen.add(spec.key)


def test_the_hash_changes_with_what_is_said() -> None:
    record = sample_study()
    spec = study_runs(record)[3]
    assert spec.content == study_runs(sample_study())[3].content
    point = replace(spec.metrics[0], value=0.5)
    for other in (
        replace(spec, name="x"),
        replace(spec, status="FAILED"),
        replace(spec, params={**spec.params, "momentum": "0.5"}),
        replace(spec, metrics=(point, *spec.metrics[1:])),
        replace(spec, tags={**spec.tags, "origin": "x"}),
    ):
        assert other.content != spec.content


def test_names_stay_within_the_limits() -> None:
    record = with_config(sample_study(), name="n" * 400, dataset="/data/" + "d" * 400)
    reasoned = [replace(t, reason="r" * 9000) for t in record.trials]
    for spec in study_runs(replace(record, trials=tuple(reasoned), config=replace(config(), name="n" * 400))):
        assert len(spec.name) <= 250
        assert all(len(value) <= 5000 for value in spec.tags.values())


def test_a_study_is_told_by_its_name_and_its_creation() -> None:
    record = sample_study()
    assert record.created is not None
    others = (with_config(record, name="x"), replace(record, created=record.created.replace(hour=1)))
    assert len({study_id(one) for one in (record, *others)}) == 3
    assert study_id(replace(record, trials=(), budget="99")) == study_id(record)


def test_all_values_are_finite() -> None:
    for spec in study_runs(sample_study()):
        assert all(abs(point.value) < 1e6 for point in spec.metrics)
        assert len({(point.key, point.step) for point in spec.metrics}) == len(spec.metrics)
