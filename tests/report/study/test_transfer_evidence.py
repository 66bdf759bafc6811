"""Whether the report advises to transfer, and its evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nbt.report.study.headline import headline
from nbt.report.study.recommendation import current_recommendation
from nbt.report.study.transfer_evidence import is_transfer_advised, transfer_evidence
from nbt.tuning.baseline_recipes import from_scratch_recipe
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.report.study.backbone_study import BAD, OTHER, REFERENCE, backbone_study
from tests.sample_study import EPOCHS, curve, final, finals, sample_study, trial, trials, unfinished_study, with_config

SCRATCH = from_scratch_recipe(EPOCHS)
NAME = "trial 18"


def scratch_trial() -> Any:
    return trial(18, settings=SCRATCH, curve=curve(0.72, seed=18))


def scratch_study(**changes: Any) -> StudyRecord:
    """Returns a study that recommends trial 18, which trained from scratch."""
    default = (0.652, 0.668, 0.659, 0.671, 0.655)
    scratch = final(NAME, 18, SCRATCH, [value + 0.06 for value in default], default=default)
    _, baseline, other = finals()
    values = {"trials": (*trials(), scratch_trial()), "finals": (scratch, baseline, other), "recommended": NAME}
    return sample_study(**{**values, "test": (), **changes})


def evidence(record: StudyRecord) -> list[str]:
    found = transfer_evidence(record, current_recommendation(record))
    return [text.replace("\N{EN DASH}", "-") for text in found]


def test_the_recommendation_can_be_not_to_transfer() -> None:
    record = scratch_study(profile=profile_dict())
    recommendation = current_recommendation(record)
    assert is_transfer_advised(record, recommendation) is False
    assert headline(record, recommendation).startswith(
        "Do not transfer, train from random weights with the settings of trial 18: 72.1 % validation accuracy"
    )
    probe, comparison = evidence(record)
    assert "with random weights: a clear advantage." in probe
    assert comparison.startswith("In the final runs, training from scratch reaches 72.1 % (95 % interval ")
    assert comparison.endswith(" by trial 14.")


def test_training_from_scratch_that_is_only_as_good_is_not_called_better() -> None:
    default = (0.652, 0.668, 0.659, 0.671, 0.655)
    values = [value + gain for value, gain in zip(default, (0.06, -0.05, 0.04, -0.04, 0.01), strict=True)]
    record = scratch_study(finals=(final(NAME, 18, SCRATCH, values, default=default), *finals()[1:]))
    text = headline(record, current_recommendation(record))
    assert text.startswith(
        "The pretrained weights show no benefit: train from random weights with the settings of trial 18: "
    )
    assert "cannot be distinguished" in text


def test_a_profile_without_advantage_is_named() -> None:
    [probe, _] = evidence(scratch_study(profile=useless_profile()))
    assert probe == (
        "A ridge probe classifies 31.0 % of the training images of the fit profile correctly by the best of the "
        "pretrained units, and 30.0 % by the best of the same units with random weights: no clear advantage."
    )


def useless_profile() -> dict[str, Any]:
    profile = profile_dict()
    for row in profile["layers"]:
        row |= {"ridge_accuracy": 0.31, "ridge_accuracy_random": 0.3}
    return profile


def scratch_study_of_backbones(profiles: dict[str, Any], backbone: str = OTHER) -> StudyRecord:
    """Returns a study of three backbones that recommends to train one of them from scratch in trial 18."""
    record = scratch_study(profile=profiles.get(REFERENCE))
    settings = SCRATCH.replace(backbone="" if backbone == REFERENCE else backbone)
    moved = [replace(item, settings=settings) for item in (record.finals[0], scratch_trial())]
    return replace(
        record,
        config=backbone_study().config,
        finals=(moved[0], *record.finals[1:]),
        trials=(*trials(), moved[1]),
        load_profile=profiles.get,
    )


def test_the_evidence_of_several_backbones_names_them() -> None:
    profiles = {REFERENCE: useless_profile(), OTHER: useless_profile(), BAD: useless_profile()}
    probe, others, comparison = evidence(scratch_study_of_backbones(profiles))
    assert f"by the best of the pretrained units of {OTHER}, and 30.0 % by the best of the same units" in probe
    assert probe.endswith(": no clear advantage.")
    assert others == f"By the ridge probe, the weights of {REFERENCE} and {BAD} have no clear advantage."
    assert f" by trial 18 with {OTHER}, and the pretrained weights " in comparison
    assert comparison.endswith(f" by trial 14 with {REFERENCE}.")


def test_backbones_whose_weights_have_an_advantage_are_named_too() -> None:
    profiles = {REFERENCE: profile_dict(), BAD: useless_profile()}
    others, _ = evidence(scratch_study_of_backbones(profiles))
    assert others == (
        f"By the ridge probe, the weights of {REFERENCE} have a clear advantage, and the weights of {BAD} have no "
        "clear advantage."
    )
    probe, others, _ = evidence(scratch_study_of_backbones(profiles, REFERENCE))
    assert f"of the pretrained units of {REFERENCE}, and" in probe
    assert others == f"By the ridge probe, the weights of {BAD} have no clear advantage."
    [comparison] = evidence(scratch_study_of_backbones({}))
    assert comparison.startswith("In the final runs, training from scratch reaches ")


def test_trials_of_random_weights_are_no_transfer() -> None:
    """The default recipe and all trials but trial 18 train the reference, here with random weights."""
    record = scratch_study_of_backbones({OTHER: useless_profile()})
    reference, *others = record.config.candidates
    random = replace(record.config, candidates=(replace(reference, weights="none"), *others))
    assert evidence(replace(record, config=random)) == []


def test_a_transfer_that_is_recommended_is_compared_with_training_from_scratch() -> None:
    record = scratch_study(recommended="trial 14")
    assert is_transfer_advised(record, current_recommendation(record)) is True
    assert evidence(record)[0].startswith("In the final runs, training from scratch reaches 72.1 %")
    before = unfinished_study(trials=(*trials(), scratch_trial()))
    assert evidence(before) == [
        "Training from scratch reached 72.0 % in trial 18, and the pretrained weights 71.2 % in trial 12, in one run "
        "each."
    ]


def test_without_training_from_scratch_or_weights_nothing_is_said() -> None:
    assert evidence(sample_study()) == []
    assert is_transfer_advised(sample_study(), current_recommendation(sample_study())) is True
    random = with_config(scratch_study(), weights="none")
    assert (evidence(random), is_transfer_advised(random, current_recommendation(random))) == ([], None)
    stream = with_config(scratch_study(), scenario="class", tasks=2)
    assert is_transfer_advised(stream, current_recommendation(stream)) is None
    assert is_transfer_advised(replace(scratch_study(), trials=(), finals=(), recommended=None), None) is None
