"""The card "study and budget": what was searched, with which images, and what it cost."""

from __future__ import annotations

from nbt.metrics import METRICS
from nbt.report.formatting import (
    Fact,
    TemplateData,
    cost_text,
    duration,
    format_number,
    format_timestamp,
    join_words,
    one_line,
    percent,
    pluralise,
)
from nbt.report.priors.pruning import STOPPED, pruning_results
from nbt.report.study.cards.card import Card, StudyView
from nbt.report.study.hardware import hardware_text
from nbt.report.study.headline import error_text
from nbt.tuning.job_clock import PHASES
from nbt.tuning.storage.records import StudyRecord

_COST_NOTE = "estimated from the settings, without a clock: an epoch with frozen units costs less"


class Facts(Card):
    """Facts about the study and its budget."""

    name = "facts"
    title = "Study and budget"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData:
        """Returns the facts of the study and of its budget, and the share of the budget that is spent."""
        record = study.record
        spent = min(record.cost / record.cost_budget, 1.0) if record.cost_budget else None
        return TemplateData(study=study_facts(record), budget=budget_facts(record), share_spent=spent)


def budget_facts(record: StudyRecord) -> tuple[Fact, ...]:
    """Returns the budget and what was spent."""
    counts = record.counts()
    diverged = sum(trial.diverged for trial in record.trials)
    states = [f"{counts['complete']} full-length", f"{counts['pruned']} pruned", f"{counts['failed']} failed"]
    states += [f"{counts[end]} {end}" for end in ("interrupted", "running") if counts[end]]
    ended = record.ended and f"the search ended because {record.ended}"
    facts = [Fact("Budget", _budget_text(record), ended), Fact("Cost of the trials", _cost_text(record), _COST_NOTE)]
    facts.append(Fact("Epochs trained", str(record.epochs_spent)))
    facts.append(Fact("Trials", str(len(record.trials)), join_words(states)))
    if diverged:
        facts.append(Fact("Diverged", str(diverged), "the loss became infinite or NaN; counted as accuracy 0"))
    pruning = pruning_results(record)
    if pruning.with_decision(STOPPED):
        note = f"not trained; pruner {one_line(record.pruner)}"
        facts.append(Fact("Saved by pruning", pluralise(pruning.epochs_saved, "epoch"), note))
    facts.append(Fact("Time of the search", duration(record.seconds_spent)))
    if record.clock:
        seconds = {phase: record.clock.get(phase, 0.0) for phase in PHASES}
        parts = ", ".join(f"{phase} {duration(value)}" for phase, value in seconds.items() if value)
        facts.append(Fact("Time of the whole", duration(sum(seconds.values())), parts))
    if record.finals:
        runs = [run for final in record.finals for run in final.runs]
        epochs = sum(len(run.curve) for run in runs)
        facts.append(Fact("Final runs", str(len(runs)), f"{pluralise(epochs, 'epoch')}, not included in the budget"))
    return tuple(facts)


def _budget_text(record: StudyRecord) -> str:
    return record.budget if record.cost_budget is None else f"the cost of {record.budget} trials of the default recipe"


def _cost_text(record: StudyRecord) -> str:
    share = f" ({percent(record.cost / record.cost_budget, 0)})" if record.cost_budget else ""
    return f"{cost_text(record.cost, record.cost_budget).removeprefix('cost ')}{share}"


_DATA_LABELS = {
    "classes": "Classes",
    "train_images": "Training images",
    "validation_images": "Validation images",
    "test_images": "Test images",
    "imbalance": "Largest / smallest class",
    "unreadable_images": "Unreadable images",
}


def study_facts(record: StudyRecord) -> tuple[Fact, ...]:
    """Returns the facts about task, data and search that are known."""
    config = record.config
    values = {
        "Dataset": one_line(config.dataset),
        "Backbone": one_line(config.backbones_text),
        "Weights": None if config.candidates else one_line(config.weights),
        "Search space": one_line(config.space),
        "Metric": METRICS[config.metric].label,
        **{
            label: format_number(record.dataset[key])
            for key, label in _DATA_LABELS.items()
            if record.dataset.get(key) is not None
        },
        "Image size": f"{config.image_size} px",
        "First classes used": config.classes,
        "Labelled images per class": config.shots,
        "Stream": None if config.scenario is None else f"{config.scenario}-incremental, {config.tasks} tasks",
        "Epochs per full-length trial": config.epochs,
        "Standard error of validation": None if record.noise is None else f"± {_noise_text(record)}",
        "Seed": config.seed,
        "Hardware": hardware_text(record) or None,
        "Started": format_timestamp(record.created),
    }
    return tuple(Fact(label, str(value)) for label, value in values.items() if value is not None)


def _noise_text(record: StudyRecord) -> str:
    """Returns the standard error of the best trial's value."""
    best, metric = next(iter(record.ranked()), None), METRICS[record.config.metric]
    return error_text(record.noise or 0.0, metric, 0.0 if best is None else best.score(metric.name) or 0.0)
