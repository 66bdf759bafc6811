import pytest

from nbt.report.study.cards.priors import Priors
from tests.report.study.cards.views import content, rendered
from tests.sample_study import sample_study, study_with_priors


def test_sources_in_both_formats() -> None:
    for kind in ("html", "md"):
        text = rendered(Priors(), study_with_priors(), kind)
        for fact in (
            "3 priors were active, 1 was inactive.",
            "The experience consisted of 2 recorded tables: sketch7 and digits.",
            "transfer up to the knee: proposal of transfer up to the knee",
            "+0.30 ± 0.40",
            "+0.62 (n = 10)",
            "contradicted",
            "rates by shift: not measured: statistics shift by unit",
        ):
            assert fact in text, fact


def test_study_without_priors_has_no_table() -> None:
    card = content(Priors(), sample_study())
    assert card.sources is None
    assert "The search used no priors" in card.sentences[0]


@pytest.mark.parametrize("stored", [{"sources": [{}], "silent": [{}], "tables": [None]}, {"sources": 3}, {"x": 1}])
def test_damaged_diagnostics_do_not_prevent_the_card(stored: dict[str, object]) -> None:
    for kind in ("html", "md"):
        text = rendered(Priors(), sample_study(prior_diagnostics=stored), kind)
        assert "could not be made" not in text and "nan" not in text
