from dataclasses import replace

from nbt.report.study.backbones import (
    CandidateResult,
    candidate_results,
    candidates_json,
    latency_front,
    parameters_front,
)
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


def result_with(name: str, latency: float | None, parameters: int, reached: float | None) -> CandidateResult:
    result = candidate_results(backbone_study())[2]
    known = replace(result.known, latency=latency, parameters=parameters)
    return replace(result, config=replace(result.config, name=name), known=known, best=reached)


def names(results: list[CandidateResult]) -> list[str]:
    return [result.config.name for result in results]


def test_fronts_have_the_backbones_than_which_none_is_smaller_and_as_good() -> None:
    results = [
        result_with("slow and good", 9.0, 1000, 0.8),
        result_with("fast and bad", 1.0, 500, 0.5),
        result_with("slower and as good as the fast one", 2.0, 400, 0.5),
        result_with("without a trial", 0.5, 10, None),
        result_with("as fast and worse", 1.0, 2000, 0.4),
    ]
    assert names(latency_front(results)) == ["fast and bad", "slow and good"]
    assert names(parameters_front(results)) == ["slower and as good as the fast one", "slow and good"]
    assert names(latency_front([result_with("of an earlier version", None, 10, 0.9)])) == []
    assert latency_front([]) == []


def test_final_runs_count_more_than_the_best_trial() -> None:
    other = candidate_results(backbone_study())[1]
    assert other.final is not None
    assert other.reached == other.final.validation.mean
    assert replace(other, final=None).reached == other.best


def test_json_has_latency_and_both_fronts() -> None:
    documents = candidates_json(backbone_study())
    assert [document["latency"] for document in documents] == [8.0, 2.5, 30.0]
    assert [document["on_latency_front"] for document in documents] == [False, True, None]
    assert [document["on_parameters_front"] for document in documents] == [True, True, None]


def test_backbones_of_a_damaged_study_are_on_no_front() -> None:
    documents = candidates_json(replace(backbone_study(), candidates=()))
    assert not any(document["on_latency_front"] or document["on_parameters_front"] for document in documents)
    assert [document["latency"] for document in documents] == [None, None, None]


def test_a_training_takes_the_recommended_backbone() -> None:
    options = recommended_task_options(backbone_study())
    assert (options.backbone, options.image_size, options.backbones) == (OTHER, 64, None)
    assert recommended_task_options(sample_study()) == sample_study().search_config()
