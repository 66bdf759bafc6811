"""Searches over several backbones, with small networks and real images."""

from __future__ import annotations

import importlib.util
import logging
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision

import nbt
from nbt import api
from nbt.api import _candidates
from nbt.errors import NbtError, UsageError
from nbt.models.backbone_spec import BackboneSpec
from nbt.settings import TransferSettings
from nbt.settings.candidate import Candidate, parse_candidates
from nbt.training.export.model_folder import read_card, was_trained_with
from nbt.training.results import TrialSpec
from nbt.tuning.engines.worker import TrialRunner
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.storage.records import StudyObserver, StudyRecord, TrialRecord
from nbt.tuning.storage.studies import list_studies, read_study, resolve_storage

CANDIDATES = [
    {"name": "conv3(width=8)", "weights": "none", "licence": "MIT"},
    {"name": "conv4(width=8)", "weights": "none", "image_size": 32},
    {"name": "conv3(width=16)", "weights": "none"},
]
QUICK: dict[str, Any] = {
    "backbones": CANDIDATES,
    "shots": 24,
    "image_size": 28,
    "epochs": 2,
    "final_seeds": 2,
    "workers": 1,
    "progress": False,
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(QUICK, "experience", tmp_path_factory.mktemp("no-experience"))
    return tmp_path


def backbones(record: StudyRecord) -> list[str]:
    return [record.config.backbone_name(trial.settings) for trial in record.trials]


def curves(record: StudyRecord) -> list[tuple[str, TransferSettings, list[float]]]:
    return [(t.origin, t.settings, [e.train_loss for e in t.curve]) for t in record.trials]


def test_a_search_chooses_among_backbones(own_folder: Path) -> None:
    result = nbt.search("digits", budget=8, **QUICK)
    record = result.record
    names = [candidate.name for candidate in record.config.candidates]
    assert sorted(names) == ["conv3(width=16)", "conv3(width=8)", "conv4(width=8)"]
    assert record.config.name == "digits-3-backbones-non_binary"
    expected = [known.forecast.mean for known in record.candidates]
    assert expected == sorted(expected, reverse=True), "the best-looking backbone is the reference"
    assert record.config.backbone == names[0]
    assert record.trials[0].origin == "anchor: default recipe"
    assert [t.origin for t in record.trials].count("anchor: default recipe") == 1
    assert set(backbones(record)) <= set(names)
    # Weights of another image size are profiled and trained at that size.
    assert {c.name: c.image_size for c in record.config.candidates}["conv4(width=8)"] == 32

    chosen = record.config.with_backbone_of(record.final(record.recommended).settings)
    card = read_card(result.report_path.parent / "model")
    assert (card["backbone"], card["image_size"]) == (chosen.backbone, chosen.image_size)
    settings = TransferSettings.load(result.report_path.parent / "recommended.yaml")
    assert settings == result.recommended
    assert settings.backbone == chosen.backbone
    recipe, options = api.study_recipe(record.config.name)
    assert (options.backbone, options.weights, options.image_size) == (chosen.backbone, "none", chosen.image_size)
    assert (options.backbones, recipe.backbone) == (None, "")

    document = result.to_json()["candidates"]
    assert [entry["name"] for entry in document] == names
    assert sum(entry["trials"] for entry in document) == len(record.trials)
    assert sum(entry["recommended"] for entry in document) == 1
    assert next(entry for entry in document if entry["name"] == "conv3(width=8)")["licence"] == "MIT"
    assert result.trials["backbone"].tolist() == backbones(record)
    report = (result.report_path.parent / "report.md").read_text()
    assert "## Backbones" in report
    assert f"--backbone '{chosen.backbone}'" in report, "the command of nbt train has the backbone"


class StopAfter(StudyObserver):
    """Interrupts a search when a number of trials have ended."""

    def __init__(self, trials: int) -> None:
        self.left = trials

    def trial_finished(self, trial: TrialRecord) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


def test_an_interrupted_search_resumes_with_its_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        nbt.search("digits", budget=6, observers=[StopAfter(3)], **QUICK)
    [summary] = list_studies(resolve_storage(None))
    before = read_study(resolve_storage(None), summary.name)
    monkeypatch.setattr(_candidates, "_measure", lambda *_: pytest.fail("a stored study has its profiles"))
    record = nbt.search("digits", budget=6, **QUICK).record
    assert record.config.candidates == before.config.candidates
    assert record.candidates == before.candidates
    assert curves(record)[:3] == curves(before)[:3]
    assert record.recommended is not None
    with pytest.raises(UsageError, match=r"exists with other inputs: .*list of backbones"):
        nbt.search("digits", budget=6, study=summary.name, **{**QUICK, "backbones": CANDIDATES[:2]})


def noise_weights(folder: Path, *backbones: str) -> list[tuple[str, str]]:
    """Returns backbones with weights of noise that has the standard deviation of each random weight tensor."""
    generator, listed = torch.Generator().manual_seed(0), []
    for i, backbone in enumerate(backbones):
        state = nbt.load_task("digits", backbone=backbone, weights="none", shots=24, image_size=28).w0
        noise = {name: torch.randn(value.shape, generator=generator) * value.std() for name, value in state.items()}
        torch.save(noise, folder / f"noise{i}.pth")
        listed.append((backbone, str(folder / f"noise{i}.pth")))
    return listed


def test_backbones_without_an_advantage_are_compared_with_training_from_scratch_first(
    own_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search resumes from the stored profiles."""
    options = {**QUICK, "backbones": noise_weights(own_folder, "conv3(width=8)", "conv3(width=16)")}
    with pytest.raises(KeyboardInterrupt):
        nbt.search("digits", budget=3, observers=[StopAfter(1)], **options)
    monkeypatch.setattr(_candidates, "_measure", lambda *_: pytest.fail("a stored study has its profiles"))
    result = nbt.search("digits", budget=3, **options)
    trials = result.record.trials
    assert [t.origin for t in trials][:3] == ["anchor: default recipe", "anchor: training from scratch", "sampler"]
    assert [t.settings.transfer_depth for t in trials] == [1.0] + [0.0] * (len(trials) - 1)
    assert [t.settings.backbone for t in trials][:2] == ["", ""]
    document = result.to_json()["transfer"]
    assert document["advised"] == (result.recommended.transfer_depth > 0.0)
    chosen = result.record.config.with_backbone_of(result.record.final(result.record.recommended).settings)
    [other] = {known.name for known in result.record.candidates} - {chosen.backbone}
    probe, others, comparison = document["evidence"]
    assert f"of the pretrained units of {chosen.backbone}" in probe and "no clear advantage." in probe
    assert others == f"By the ridge probe, the weights of {other} have no clear advantage."
    assert "In the final runs, training from scratch reaches" in comparison


def test_a_backbone_that_promises_nothing_gets_no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = _candidates._measure

    def measure(task: Any, progress: Any) -> Any:
        profile = measured(task, progress)
        if task.backbone.text == "conv3(width=16)":
            profile["scalars"] |= {"ridge_accuracy": 0.01, "knn_accuracy": 0.01}
        return profile

    monkeypatch.setattr(_candidates, "_measure", measure)
    record = nbt.search("digits", budget=6, **QUICK).record
    assert "conv3(width=16)" not in backbones(record)
    assert record.config.candidates[-1].name == "conv3(width=16)"


def test_workers_choose_and_train_as_this_process_does() -> None:
    alone = nbt.search("digits", budget=3, study="alone", **QUICK).record
    several = nbt.search("digits", budget=3, study="several", **{**QUICK, "workers": 2}).record
    assert curves(several)[0] == curves(alone)[0]
    assert len(several.trials) >= 3
    assert several.recommended is not None


def test_without_heuristics_the_first_of_the_list_is_the_reference() -> None:
    record = nbt.search("digits", budget=5, heuristics=False, pruner="none", **QUICK).record
    assert record.config.backbone == "conv3(width=8)"
    assert [trial.origin for trial in record.trials[:2]] == ["anchor: default recipe", "anchor: linear probe"]
    assert set(backbones(record)[:4]) == {"conv3(width=8)"}, "the baseline recipes are of the reference"
    assert record.prior_diagnostics == {}


def test_backbones_that_cannot_be_used_are_left_out(caplog: pytest.LogCaptureFixture, own_folder: Path) -> None:
    broken = own_folder / "broken.pth"
    torch.save({"nothing": torch.zeros(1)}, broken)
    listed = [CANDIDATES[0], {"name": "conv3(width=16)", "weights": str(broken)}]
    with caplog.at_level(logging.WARNING, logger="nbt"):
        result = nbt.search("digits", budget=2, **{**QUICK, "backbones": listed})
    assert "the backbone conv3(width=16) with weights" in caplog.text
    assert set(backbones(result.record)) == {"conv3(width=8)"}
    [(name, reason)] = result.record.left_out.items()
    assert name.startswith("conv3(width=16) with weights") and reason
    assert "Left out: conv3(width=16)" in (result.report_path.parent / "report.md").read_text()
    again = nbt.search("digits", budget=3, **{**QUICK, "backbones": listed}).record
    assert len(again.trials) >= 3, "the study resumes without it"
    none = [listed[1], {**listed[1], "name": "conv4"}]
    with pytest.raises(UsageError, match=r"none of the backbones can be used: conv3\(width=16\) with weights broken"):
        nbt.search("digits", budget=2, study="other", **{**QUICK, "backbones": none})


def test_missing_weights_are_left_out_once_and_whole(caplog: pytest.LogCaptureFixture, own_folder: Path) -> None:
    foreign = own_folder / "foreign.pth"
    torch.save({f"block{i}.convolution.weight": torch.zeros(1) for i in range(9)}, foreign)
    file = own_folder / "list.yaml"
    file.write_text(
        "- {name: conv3(width=8), weights: none}\n"
        "- {name: conv3(width=16), weights: missing.pth}\n"
        "- {name: conv4(width=8), weights: foreign.pth}\n"
    )
    config = nbt.SearchConfig(dataset="digits", budget="1", shots=24, image_size=28, backbones=file)
    with caplog.at_level(logging.WARNING, logger="nbt"):
        found = _candidates.prepare_candidates(config, None, None)
    assert [candidate.name for candidate in found.configs] == ["conv3(width=8)"]
    missing, misfit = found.left_out.items()
    assert missing[0] == "conv3(width=16) with weights missing.pth" and "missing.pth: no such file" in missing[1]
    assert misfit[1].endswith("unknown: " + ", ".join(f"block{i}.convolution.weight" for i in range(5)) + " and 4 more")
    assert caplog.text.count("is left out") == 2


def test_models_of_a_shipped_list_without_weights_or_timm_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """As without a network, but for the weights of one model, which are in the cache of torchvision."""
    from nbt.models import backbone_spec

    def fetch(spec: backbone_spec.BackboneSpec, image_size: int) -> dict[str, torch.Tensor]:
        if spec.name != "mobilenet_v2":
            raise NbtError(f"the weights of {spec.name} cannot be fetched (no network)")
        return torchvision.models.mobilenet_v2().state_dict()

    monkeypatch.setattr("nbt.models.weights._fetch_library_state_dict", fetch)
    find = importlib.util.find_spec
    monkeypatch.setattr(backbone_spec.importlib.util, "find_spec", lambda name: None if name == "timm" else find(name))
    monkeypatch.setattr(_candidates, "_measure", lambda *_: None)
    config = nbt.SearchConfig(dataset="digits", budget="1", shots=4, backbones="small")
    found = _candidates.prepare_candidates(config, None, None)
    assert [(candidate.name, candidate.image_size) for candidate in found.configs] == [("mobilenet_v2", 224)]
    reasons = found.left_out
    assert len(reasons) == len(parse_candidates("small")) - 1
    assert all("needs timm" in reason for name, reason in reasons.items() if name.startswith("timm:"))
    assert all("no network" in reason for name, reason in reasons.items() if not name.startswith("timm:"))
    assert {name.partition(":")[0] for name in reasons} > {"timm", "resnet18"}


def test_a_backbone_that_does_not_fit_in_memory_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.training.worker import trial_memory

    needed = {"conv3(width=8)": 1 << 20, "conv4(width=8)": 1 << 60, "conv3(width=16)": 1 << 60}
    monkeypatch.setattr(trial_memory, "estimate_trial_memory", lambda task: needed[task.backbone.text])
    record = nbt.search("digits", budget=2, **QUICK).record
    assert sorted(record.left_out) == ["conv3(width=16) with weights none", "conv4(width=8) with weights none"]
    assert "GiB" in record.left_out["conv4(width=8) with weights none"]
    needed["conv3(width=8)"] = 1 << 60
    with pytest.raises(NbtError, match="none of the backbones can be used"):
        nbt.search("digits", budget=2, fresh=True, **QUICK)


def test_bounds_leave_backbones_out_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import size

    latencies = {28: 2.0, 32: 9.0}
    monkeypatch.setattr(size, "measure_latency", lambda model, image_size: latencies[image_size])
    bounds = {"max_parameters": 5000, "max_latency": 5.0}
    record = nbt.search("digits", budget=2, **QUICK, **bounds).record
    assert set(backbones(record)) == {"conv3(width=8)"}
    assert record.left_out == {
        "conv3(width=16) with weights none": "it has 5,184 parameters, more than the 5,000 of --max-parameters",
        "conv4(width=8) with weights none": (
            "it takes 9 ms for an image of 32 px on this device, longer than the 5 ms of --max-latency"
        ),
    }
    assert [found.latency for found in record.candidates] == [2.0]
    latencies[28] = 6.0  # measured again, it may be longer by chance
    again = nbt.search("digits", budget=3, **QUICK, **bounds).record
    assert len(again.trials) >= 3 and again.config.candidates == record.config.candidates
    assert again.candidates == record.candidates
    with pytest.raises(UsageError, match=r"none of the backbones can be used: .*longer than the 5 ms of max_latency"):
        nbt.search("digits", budget=2, fresh=True, **QUICK, **bounds)


def test_a_study_that_was_killed_before_its_backbones_were_stored_is_resumed_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(*args: Any) -> None:
        raise NbtError("killed")

    bounds = {"max_parameters": 5000}
    with monkeypatch.context() as context, pytest.raises(NbtError, match="killed"):
        context.setattr("nbt.tuning.storage.study_store.StudyStore.put_candidates", kill)
        nbt.search("digits", budget=2, **QUICK, **bounds)
    record = nbt.search("digits", budget=2, **QUICK, **bounds).record
    assert [found.name for found in record.candidates] == [found.name for found in record.config.candidates]
    assert all(found.probe is not None and found.latency is not None for found in record.candidates)
    assert "conv3(width=16) with weights none" in record.left_out


def test_a_latency_that_is_measured_again_does_not_refuse_a_stored_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import size

    latencies = [2.0]
    monkeypatch.setattr(size, "measure_latency", lambda model, image_size: latencies[-1])
    options = {name: value for name, value in QUICK.items() if name != "backbones"}
    options |= {"backbone": "conv3(width=8)", "weights": "none", "max_latency": 5.0}
    nbt.search("digits", budget=2, **options)
    latencies.append(9.0)
    assert len(nbt.search("digits", budget=3, **options).record.trials) >= 3
    message = "takes 9 ms for an image of 28 px on this device, longer than the 5 ms"
    with pytest.raises(UsageError, match=message):
        nbt.search("digits", budget=2, fresh=True, **options)
    with pytest.raises(UsageError, match="longer than the 4 ms"):
        nbt.search("digits", budget=3, **{**options, "max_latency": 4.0})
    assert len(list_studies(resolve_storage(None))) == 1


def test_a_latency_that_is_measured_again_does_not_refuse_a_killed_study(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import size

    def kill(*args: Any) -> None:
        raise NbtError("killed")

    bounds = {"max_latency": 5.0}
    with monkeypatch.context() as context, pytest.raises(NbtError, match="killed"):
        context.setattr(size, "measure_latency", lambda model, image_size: 4.0)
        context.setattr("nbt.tuning.storage.study_store.StudyStore.put_candidates", kill)
        nbt.search("digits", budget=2, **QUICK, **bounds)
    monkeypatch.setattr(size, "measure_latency", lambda model, image_size: 6.0)
    record = nbt.search("digits", budget=2, **QUICK, **bounds).record
    assert [found.latency for found in record.candidates] == [6.0, 6.0, 6.0]


def test_free_memory_does_not_matter_and_a_stored_study_keeps_its_backbones(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.machine import memory
    from nbt.training.worker import trial_memory

    monkeypatch.setattr(memory, "available_memory", lambda: 0)
    record = nbt.search("digits", budget=2, **QUICK).record
    assert len(record.config.candidates) == 3
    monkeypatch.setattr(trial_memory, "estimate_trial_memory", lambda task: 10**18)
    again = nbt.search("digits", budget=3, **QUICK).record
    assert again.config.candidates == record.config.candidates and len(again.trials) >= 3


def test_a_backbone_of_a_stored_study_that_cannot_be_loaded_any_more_is_an_error(own_folder: Path) -> None:
    options = {**QUICK, "backbones": noise_weights(own_folder, "conv3(width=8)", "conv4(width=8)")}
    record = nbt.search("digits", budget=2, **options).record
    assert len(record.config.candidates) == 2
    (own_folder / "noise1.pth").rename(own_folder / "moved.pth")
    with pytest.raises(UsageError, match=r"with weights noise1\.pth, which the study has, cannot be used: .*no such"):
        nbt.search("digits", budget=3, **options)


def test_a_backbone_at_two_sizes_is_left_out_at_one_of_them_on_resume_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import size

    monkeypatch.setattr(size, "measure_latency", lambda model, image_size: float(image_size))
    listed = [{"name": "conv3(width=8)", "weights": "none", "image_size": pixels} for pixels in (24, 28)]
    options = {**QUICK, "backbones": listed, "max_latency": 26.0}
    record = nbt.search("digits", budget=2, **options).record
    assert list(record.left_out) == ["conv3(width=8) with weights none at 28 px"]
    again = nbt.search("digits", budget=3, **options).record
    assert again.config.candidates == record.config.candidates
    assert len(again.trials) >= 3


def test_entries_of_a_list_have_different_names() -> None:
    from nbt.api._candidate_names import candidate_labels

    items = [
        Candidate(name="conv3", weights="a/w.pth"),
        Candidate(name="conv3", weights="b/w.pth"),
        Candidate(name="conv3", weights="none", image_size=32),
        Candidate(name="conv3", weights="none"),
        Candidate(name="conv4", weights="default", image_size=32),
    ]
    assert candidate_labels(items[::-1]) == candidate_labels(items)[::-1], "their places do not matter"
    assert candidate_labels(items) == [
        "conv3 with weights a/w.pth",
        "conv3 with weights b/w.pth",
        "conv3 with weights none at 32 px",
        "conv3 with weights none",
        "conv4",
    ]


def test_weights_of_a_backbone_that_is_too_large_are_not_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.models import weights

    fetched: list[str] = []

    def fetch(spec: BackboneSpec, *args: Any, **kwargs: Any) -> Any:
        fetched.append(spec.text)
        return original(spec, *args, **kwargs)

    original = weights.load_pretrained_weights
    monkeypatch.setattr(weights, "load_pretrained_weights", fetch)
    nbt.search("digits", budget=2, max_parameters=5000, **QUICK)
    assert "conv3(width=8)" in fetched and "conv3(width=16)" not in fetched


def test_bounds_hold_for_a_single_backbone_too() -> None:
    options = {**QUICK, "backbones": None, "backbone": "conv3(width=8)", "weights": "none"}
    with pytest.raises(UsageError, match=r"^conv3\(width=8\) has \d,\d{3} parameters, more than the 100 of max_para"):
        nbt.search("digits", budget=2, max_parameters=100, **options)
    assert list_studies(resolve_storage(None)) == []


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        (["conv3", "no_such_net"], "no_such_net"),
        (
            [("conv3", "missing.pth"), ("conv4", "gone.pth")],
            "none of the backbones.*missing.pth.*; conv4 with weights gone",
        ),
        ([("conv3", "none"), {"name": "conv3()", "weights": "none"}], "is given twice"),
        (["conv3", {"name": "conv4", "image_size": 5}], "image_size 5"),
    ],
)
def test_wrong_lists_are_refused(listed: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        nbt.search("digits", budget=2, **{**QUICK, "backbones": listed})
    assert list_studies(resolve_storage(None)) == []


def test_equal_backbones_with_other_weights_have_their_own_names() -> None:
    listed = [("conv3", "none"), {"name": "conv3", "weights": "none", "image_size": 32}]
    config = nbt.SearchConfig(dataset="digits", budget="1", shots=24, image_size=28, backbones=listed)
    candidates = _candidates.prepare_candidates(config, None, None)
    assert sorted(found.name for found in candidates.configs) == ["conv3, none, 28 px", "conv3, none, 32 px"]
    first, second = candidates.task, candidates.task.candidate(candidates.names[1])
    assert first.images.size != second.images.size
    assert np.array_equal(first.split.val, second.split.val)


def test_the_cost_of_a_backbone_lowers_its_gain(monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.tuning.surrogate.backbone_surrogate import BackboneSurrogate

    seen: list[dict[str, float]] = []
    choose = BayesianSampler._choose

    def spy(self: BayesianSampler, *args: Any, **options: Any) -> int:
        assert isinstance(self._surrogate, BackboneSurrogate)
        seen.append(self._surrogate.backbone_costs)
        return choose(self, *args, **options)

    monkeypatch.setattr(BayesianSampler, "_choose", spy)
    record = nbt.search("digits", budget=3, **QUICK).record
    costs = {known.name: known.cost for known in record.candidates}
    assert costs[record.config.backbone] == 1.0
    assert costs["conv3(width=16)"] > 1.5 * costs["conv3(width=8)"]
    assert seen and sorted(seen[0].values()) == sorted(costs.values())


def test_a_worker_trains_and_exports_the_backbone_of_the_trial(own_folder: Path) -> None:
    config = nbt.SearchConfig(dataset="digits", budget="1", shots=24, image_size=28, backbones=CANDIDATES)
    task = _candidates.prepare_candidates(config, None, None).task
    name, other = next(iter(task.candidates.items()))
    settings = TransferSettings(epochs=1)
    spec = TrialSpec(key="trial", settings=settings.replace(backbone=name), export=own_folder / "model", seed=3)
    with closing(TrialRunner(task)) as runner:
        outcome = runner.run(spec, lambda result: None)
        reference = runner.run(replace(spec, settings=settings, export=None), lambda result: None)
        unknown = runner.run(replace(spec, settings=settings.replace(backbone="vgg11")), lambda result: None)
    with closing(TrialRunner(other)) as runner:
        alone = runner.run(replace(spec, settings=settings, export=None), lambda result: None)
    assert outcome.error is None
    losses = [[epoch.train_loss for epoch in found.curve] for found in (outcome, alone, reference)]
    assert losses[0] == losses[1] != losses[2]
    assert read_card(own_folder / "model")["backbone"] == other.backbone.text
    assert was_trained_with(own_folder / "model", spec.settings)
    assert "'vgg11' is not a backbone of this search" in str(unknown.error)
