"""What a search over several backbones spent on each of them, what was expected and what came."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from nbt.metrics import METRICS
from nbt.report.study.recommendation import current_recommendation
from nbt.tuning.intervals import interval_json, value_interval
from nbt.tuning.storage.candidates import CandidateConfig, CandidateRecord
from nbt.tuning.storage.records import FinalRecord, StudyRecord, TrialRecord


@dataclass(frozen=True, eq=False)
class CandidateResult:
    """A backbone in a search over several.

    Attributes:
        config: The backbone.
        known: What was known of it before any trial; None if that is damaged.
        trials: Its trials.
        best: Highest score of its full-length trials; None without one.
        final: The best of its finalists; None without one.
        is_recommended: Whether the recommended settings use it.
    """

    config: CandidateConfig
    known: CandidateRecord | None
    trials: tuple[TrialRecord, ...]
    best: float | None
    final: FinalRecord | None
    is_recommended: bool

    @property
    def epochs(self) -> int:
        """Number of epochs that its trials trained."""
        return sum(trial.epochs_spent for trial in self.trials)

    @property
    def epoch_seconds(self) -> float | None:
        """Mean duration of its epochs in seconds; None without trials."""
        n_epochs = sum(len(trial.curve) for trial in self.trials)
        return sum(trial.seconds for trial in self.trials) / n_epochs if n_epochs else None

    @property
    def reached(self) -> float | None:
        """Mean validation score of the best finalist; without one, that of the best full-length trial, or None."""
        return self.best if self.final is None else self.final.validation.mean

    @property
    def latency(self) -> float | None:
        """Time for one image on the device of the search in milliseconds; None if it is unknown."""
        return None if self.known is None else self.known.latency

    @property
    def parameters(self) -> int | None:
        """Number of parameters without the head; None if it is unknown."""
        return None if self.known is None else self.known.parameters


def candidate_results(record: StudyRecord) -> tuple[CandidateResult, ...]:
    """Returns the backbones of a study, the reference first; none for a study of one backbone."""
    config, recommendation = record.config, current_recommendation(record)
    known = {candidate.name: candidate for candidate in record.candidates}
    chosen = None if recommendation is None else config.backbone_name(recommendation.settings)
    results = []
    for candidate in config.candidates:
        trials = tuple(t for t in record.trials if config.backbone_name(t.settings) == candidate.name)
        scores = [score for trial in trials if (score := trial.score(config.metric)) is not None]
        finals = [final for final in record.finals if config.backbone_name(final.settings) == candidate.name]
        results.append(
            CandidateResult(
                config=candidate,
                known=known.get(candidate.name),
                trials=trials,
                best=max(scores, default=None),
                final=max(finals, key=lambda final: final.validation.mean, default=None),
                is_recommended=candidate.name == chosen,
            )
        )
    return tuple(results)


def latency_front(results: Iterable[CandidateResult]) -> list[CandidateResult]:
    """Returns the backbones than which no other is faster and reached as much, the fastest first."""
    return _front(results, lambda result: result.latency)


def parameters_front(results: Iterable[CandidateResult]) -> list[CandidateResult]:
    """Returns the backbones than which no other is smaller and reached as much, the smallest first."""
    return _front(results, lambda result: result.parameters)


def _front(
    results: Iterable[CandidateResult], quantity: Callable[[CandidateResult], float | None]
) -> list[CandidateResult]:
    """Returns the Pareto front of what was reached and a quantity, by the quantity; unknown values are left out."""
    known = [
        (value, reached, result)
        for result in results
        if (value := quantity(result)) is not None and (reached := result.reached) is not None
    ]
    front: list[CandidateResult] = []
    highest = -math.inf
    for _, reached, result in sorted(known, key=lambda item: (item[0], -item[1])):
        if reached > highest:
            front.append(result)
            highest = reached
    return front


def _is_unknown(result: CandidateResult, quantity: float | None) -> bool:
    """Returns whether it is not known where a backbone lies: without a full-length trial, or without the quantity."""
    return result.reached is None or quantity is None


def candidates_json(record: StudyRecord) -> list[dict[str, Any]]:
    """Returns the backbones of a study in JSON types, the reference first; none for a study of one backbone."""
    metric, results = METRICS[record.config.metric], candidate_results(record)
    fastest, smallest = latency_front(results), parameters_front(results)
    documents = []
    for result in results:
        known = result.known
        forecast = None if known is None else known.forecast
        documents.append(
            {
                "name": result.config.name,
                "backbone": result.config.backbone,
                "weights": result.config.weights,
                "image_size": result.config.image_size,
                "parameters": result.parameters,
                "latency": result.latency,
                "relative_cost": None if known is None else known.cost,
                "expected_accuracy": None
                if forecast is None
                else {"value": forecast.mean, "low": forecast.low, "high": forecast.high},
                "trials": len(result.trials),
                "epochs": result.epochs,
                "seconds": sum(trial.seconds for trial in result.trials),
                "best": None if result.best is None else metric.value(result.best),
                "validation": None
                if result.final is None
                else interval_json(value_interval(result.final.validation, metric)),
                "recommended": result.is_recommended,
                "on_latency_front": None if _is_unknown(result, result.latency) else result in fastest,
                "on_parameters_front": None if _is_unknown(result, result.parameters) else result in smallest,
                "licence": "" if known is None else known.licence,
                "text": "" if known is None else known.text,
            }
        )
    return documents
