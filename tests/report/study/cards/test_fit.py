from nbt.report.study.cards.fit import Fit
from tests.fit_profiles import make_profile, profile_dict
from tests.report.study.backbone_study import OTHER, REFERENCE, backbone_study
from tests.report.study.cards.views import content, reason, rendered
from tests.sample_study import sample_study, study_with_priors


def test_fit_requires_a_profile() -> None:
    record = sample_study(profile=profile_dict(left_out={"leep": "no <head>"}))
    for kind, missing in (("html", "LEEP: no &lt;head&gt;"), ("md", "LEEP: no \\<head\\>")):
        text = rendered(Fit(), record, kind)
        for fact in ("suggests transferring all units", "60.0 % ± 1.5", "over 1000 training images", missing):
            assert fact in text, fact
    assert "unit 5, features.4: 60.0 % ± 1.5, pretrained weights" in content(Fit(), record).drawing
    assert "was not measured" in reason(Fit(), sample_study())


def test_measures_without_skill_are_in_an_appendix() -> None:
    record = sample_study(profile=profile_dict(leep=-1.5))
    for kind in ("html", "md"):
        measures, appendix = rendered(Fit(), record, kind).split("Measures without demonstrated skill", 1)
        assert "TransRate" in appendix and "TransRate" not in measures
        assert "kNN" in measures and "all-measures" not in measures
    default = sample_study(profile=make_profile().without_optional_measures().to_dict())
    for kind in ("html", "md"):
        text = rendered(Fit(), default, kind)
        assert "nbt fit --all-measures also computes N-LEEP, LEEP, NCE, TransRate and plain H-score" in text
        assert "without demonstrated skill" not in text and "Not measured" not in text


def test_correlation_with_the_accuracy_of_the_trials() -> None:
    card = content(Fit(), study_with_priors(profile=profile_dict()))
    assert "not a random sample of settings" in card.correlation_sentence
    assert [column.label for column in card.correlation.columns][:2] == ["unit measure", "at transfer depth"]
    few = content(Fit(), sample_study(profile=profile_dict(), trials=()))
    assert "requires 8 full-length trials" in few.correlation_sentence and few.correlation is None


def test_of_several_backbones_the_recommended_one_is_shown() -> None:
    better = profile_dict(pretrained=(0.1, 0.2, 0.4, 0.7, 0.9))
    record = backbone_study(profile=profile_dict(), load_profile={OTHER: better}.get)
    for kind in ("html", "md"):
        text = rendered(Fit(), record, kind)
        assert f"Measured with {OTHER} before the search" in text
        assert "90.0 %" in text
    unmeasured = backbone_study(profile=profile_dict())
    assert f"Measured with {REFERENCE} before the search" in rendered(Fit(), unmeasured).replace("\\", "")
    assert "Measured before the search" in rendered(Fit(), sample_study(profile=profile_dict()))
