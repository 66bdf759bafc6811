"""The card "backbones": who got how much of the budget, what was expected, and what came."""

from __future__ import annotations

from nbt.report.formatting import (
    DASH,
    TemplateData,
    duration,
    format_number,
    join_words,
    one_line,
    percent,
    pluralise,
    score_text,
)
from nbt.report.study.backbone_plots import latency_drawing, parameters_drawing
from nbt.report.study.backbones import CandidateResult, candidate_results, latency_front, parameters_front
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.table import Cell, Column, Row, row, table
from nbt.tuning.storage.records import StudyRecord


class Backbones(Card):
    """The backbones of a search over several."""

    name = "backbones"
    title = "Backbones"

    def is_shown(self, record: StudyRecord) -> bool:
        """Returns whether the study has several backbones."""
        return bool(record.config.candidates)

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns a table of the backbones, the fronts of score against latency and size, and those left out."""
        results = candidate_results(study.record)
        if not results:
            return NotApplicable("the search has one backbone")
        columns = (
            Column("backbone", "recipe"),
            Column("expected accuracy", "n"),
            Column("80 % interval", "n wide"),
            Column("trials", "n"),
            Column("epochs", "n wide"),
            Column(f"best {study.metric.label}", "n"),
            Column("final runs", "n"),
            Column("parameters", "n wide"),
            Column("ms per image", "n wide"),
            Column("seconds per epoch", "n wide"),
        )
        return TemplateData(
            sentence=_sentence(study.record, results),
            table=table("Backbones", columns, [_row(study, result) for result in results], n_shown=len(results)),
            fronts=_fronts(study, results),
            latency=latency_drawing(results, study.metric),
            parameters=parameters_drawing(results, study.metric),
            label=study.metric.label,
            left_out=tuple(f"{one_line(name)}: {one_line(reason)}" for name, reason in study.record.left_out.items()),
        )


def _sentence(record: StudyRecord, results: tuple[CandidateResult, ...]) -> str:
    untried = sum(not result.trials for result in results)
    rest = f"; {untried} of the backbones got none" if untried else ""
    reference = one_line(results[0].config.name)
    return (
        f"The search chose among {pluralise(len(results), 'backbone')}, expected from probes of their features before "
        f"any training, and spent its {pluralise(len(record.trials), 'trial')} where a trial was expected to gain most "
        f"for its cost{rest}. The default recipe, with which results are compared, trains {reference}."
    )


def _fronts(study: StudyView, results: tuple[CandidateResult, ...]) -> str:
    """Returns in words which backbones are on the fronts of score against latency and size; "" for a single result."""
    if sum(result.reached is not None for result in results) < 2:
        return ""
    fronts = {
        "faster": [(result, f"{format_number(result.latency or 0.0)} ms") for result in latency_front(results)],
        "smaller": [(result, _millions(result.parameters or 0)) for result in parameters_front(results)],
    }
    sentences = []
    for word, front in fronts.items():
        names = [
            f"{one_line(result.config.name)} ({score_text(result.reached, study.metric)}, {value})"
            for result, value in front
        ]
        if names:
            sentences.append(f"No {word} backbone reached as much as {join_words(names)}.")
    if sentences:
        sentences.append(
            "That is the mean of the final runs where a backbone has some, else its best full-length trial, which is "
            "optimistic. The time is that of one image on the device of the search, on a CPU with one thread."
        )
    return " ".join(sentences)


def _millions(parameters: int) -> str:
    return f"{parameters / 1e6:.2g} M"


def _row(study: StudyView, result: CandidateResult) -> Row:
    known, metric = result.known, study.metric
    forecast = None if known is None else known.forecast
    marks = ("recommended",) if result.is_recommended else ()
    facts = [
        f"{result.config.image_size} px",
        "" if known is None else known.licence,
        "" if known is None else known.text,
    ]
    seconds = result.epoch_seconds
    return row(
        Cell(one_line(result.config.name), badges=marks, note=one_line(", ".join(filter(None, facts)))),
        DASH if forecast is None else percent(forecast.mean, 0),
        DASH if forecast is None else f"{percent(forecast.low, 0)} to {percent(forecast.high, 0)}",
        len(result.trials),
        result.epochs,
        score_text(result.best, metric),
        DASH if result.final is None else score_text(result.final.validation.mean, metric),
        DASH if known is None else _millions(known.parameters),
        DASH if result.latency is None else format_number(result.latency),
        DASH if seconds is None else duration(seconds),
        chosen=result.is_recommended,
    )
