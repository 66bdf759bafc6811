"""The cards of a study's report, in their order."""

from __future__ import annotations

from nbt.report.study.cards.answer import Answer
from nbt.report.study.cards.backbones import Backbones
from nbt.report.study.cards.card import Card
from nbt.report.study.cards.facts import Facts
from nbt.report.study.cards.failures import Failures
from nbt.report.study.cards.finals import Finals
from nbt.report.study.cards.fit import Fit
from nbt.report.study.cards.hardware import Hardware
from nbt.report.study.cards.images import Images
from nbt.report.study.cards.importance import Importance
from nbt.report.study.cards.mistakes import Mistakes
from nbt.report.study.cards.other_checks import OtherChecks
from nbt.report.study.cards.priors import Priors
from nbt.report.study.cards.pruning import Pruning
from nbt.report.study.cards.recipe import Recipe
from nbt.report.study.cards.reproduce import Reproduce
from nbt.report.study.cards.search import Search
from nbt.report.study.cards.source_accuracy import SourceAccuracy
from nbt.report.study.cards.test_evaluation import TestEvaluation
from nbt.report.study.cards.trials import Trials

CARDS: tuple[Card, ...] = (
    Answer(),
    Images(),
    Mistakes(),
    TestEvaluation(),
    Recipe(),
    Backbones(),
    Finals(),
    Search(),
    Importance(),
    Fit(),
    SourceAccuracy(),
    Reproduce(),
    Trials(),
    Pruning(),
    Priors(),
    Failures(),
    OtherChecks(),
    Hardware(),
    Facts(),
)
"""Folded cards come last, in the appendix."""
