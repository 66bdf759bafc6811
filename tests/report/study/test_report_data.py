from pathlib import Path

import pytest

from nbt.report.study.cards.card import SHOWN
from nbt.report.study.report_data import build_report
from tests.sample_study import empty_study, sample_study, with_config


def test_title_and_recommendation() -> None:
    report = build_report(with_config(sample_study(), name="n\n# x", dataset="d\ne"), Path("r"))
    assert report.title == "n # x"
    assert report.subtitle.startswith("d e · mobilenet_v2")
    assert report.recommendation is not None and report.recommendation.name == "trial 12"
    assert build_report(empty_study(), Path("r")).recommendation is None


def test_cards_are_found_by_name() -> None:
    report = build_report(sample_study(), Path("r"))
    assert (report["answer"].card.title, report["answer"].state) == ("Answer", SHOWN)
    with pytest.raises(StopIteration):
        report["no such card"]
