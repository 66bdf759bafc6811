from nbt.report.study.backbones import candidate_results, candidates_json
from nbt.report.study.recommendation import recommended_task_options
from tests.report.study.backbone_study import BAD, OTHER, REFERENCE, backbone_study
from tests.sample_study import sample_study


def test_trials_and_results_are_counted_by_backbone() -> None:
    record = backbone_study()
    reference, other, bad = candidate_results(record)
    assert [result.config.name for result in (reference, other, bad)] == [REFERENCE, OTHER, BAD]
    assert [trial.number for trial in other.trials] == [12, 13]
    assert (bad.trials, bad.epochs, bad.best, bad.final, bad.epoch_seconds) == ((), 0, None, None, None)
    assert len(reference.trials) + len(other.trials) == len(record.trials)
    assert reference.epochs + other.epochs == sum(trial.epochs_spent for trial in record.trials)
    assert other.best == max(trial.score("accuracy") or 0.0 for trial in other.trials)
    assert other.final is record.final("trial 12")
    assert [result.is_recommended for result in (reference, other, bad)] == [False, True, False]
    assert candidate_results(sample_study()) == ()


def test_json_has_what_was_expected_and_what_came() -> None:
    reference, other, bad = candidates_json(backbone_study())
    assert reference["expected_accuracy"] == {"value": 0.7, "low": 0.35, "high": 0.7 + 0.1}
    assert (other["trials"], other["recommended"], other["licence"], other["relative_cost"]) == (2, True, "MIT", 2.0)
    assert other["validation"]["mean"] == backbone_study().final("trial 12").validation.mean
    assert (bad["trials"], bad["best"], bad["validation"]) == (0, None, None)
    assert candidates_json(sample_study()) == []


def test_a_training_takes_the_recommended_backbone() -> None:
    options = recommended_task_options(backbone_study())
    assert (options.backbone, options.image_size, options.backbones) == (OTHER, 64, None)
    assert recommended_task_options(sample_study()) == sample_study().search_config()
