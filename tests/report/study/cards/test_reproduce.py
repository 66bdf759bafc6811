from nbt._version import __version__
from nbt.report.study.cards.reproduce import Reproduce
from tests.report.study.cards.views import content, facts, rendered
from tests.sample_study import empty_study, evaluated_study, sample_study, with_config


def test_fingerprints_and_version() -> None:
    found = facts(content(Reproduce(), with_config(sample_study(), content_hash="ab" * 32)).fingerprints)
    assert found["nbt"] == __version__
    assert found["Images, labels and parts"] == "c0ffee0123456789"
    assert found["Bytes of the images"] == "ab" * 8
    assert (found["Weights"], found["Search space"]) == ("9e1d77", "5b0c91")


def test_teachers_are_named() -> None:
    cases = {
        "vgg11=/w/a.pth": "Weights of the teacher vgg11",
        '["vgg11=/w/a.pth", "resnet18"]': "Weights of the teachers vgg11 and resnet18",
    }
    for teacher, label in cases.items():
        record = with_config(sample_study(), teacher=teacher, teacher_hash="ab" * 32)
        assert facts(content(Reproduce(), record).fingerprints)[label] == "ab" * 8
    assert not any("teacher" in label for label in facts(content(Reproduce(), sample_study()).fingerprints))


def test_the_model_is_mentioned_only_if_it_exists() -> None:
    for kind in ("html", "md"):
        assert "nbt predict" in rendered(Reproduce(), sample_study(), kind, has_model=True)
        assert "nbt predict" not in rendered(Reproduce(), sample_study(), kind)
        assert "nbt train" not in rendered(Reproduce(), empty_study(), kind)


def test_files_are_named_only_if_they_exist() -> None:
    for kind in ("html", "md"):
        assert "test_classes.csv" in rendered(Reproduce(), evaluated_study(), kind)
        assert "test_classes.csv" not in rendered(Reproduce(), sample_study(), kind)
        assert "fit.json" not in rendered(Reproduce(), sample_study(), kind)
