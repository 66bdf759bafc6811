"""The backbones that a search chooses from: how they are loaded, measured and ordered."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nbt.api._bounds import BoundError, bounds_of, check_parameters, latency_within
from nbt.api._candidate_names import candidate_labels, candidate_names
from nbt.api._load_task import load_candidate, load_silently
from nbt.errors import NbtError, UsageError, one_line_message
from nbt.models.backbone_spec import parse_backbone
from nbt.progress import Progress
from nbt.search_config import SearchConfig
from nbt.settings.candidate import Candidate, candidates_text
from nbt.task.load import with_source_data
from nbt.task.options import check_candidates, check_task_options
from nbt.tuning.storage.candidates import CandidateConfig, CandidateRecord

if TYPE_CHECKING:
    from nbt.data.image_store import ImageStore
    from nbt.task.task import Task
    from nbt.tuning.storage.records import StudyRecord

_log = logging.getLogger("nbt")

Identity = tuple[str, str, int]  # backbone, fingerprint of its weights, image size

_MAX_REASON_LENGTH = 400
_DATA_FIELDS = ("data_dir", "classes", "shots", "resize", "seed")


@dataclass(frozen=True, eq=False)
class Candidates:
    """The backbones of a search that can be used.

    Attributes:
        task: Task of the reference, with the tasks of the others as its `candidates`.
        configs: What identifies them, the reference first.
        records: What is known of them before any trial, in the same order; empty for a study that has stored it.
        profiles: Their fit profiles by name, without those that could not be measured; empty like `records`.
        left_out: Backbone that cannot be used -> reason.
        listed: The user's list, with names and paths that mean the same in every folder.
    """

    task: Task
    configs: tuple[CandidateConfig, ...]
    records: tuple[CandidateRecord, ...]
    profiles: Mapping[str, Mapping[str, Any]]
    left_out: Mapping[str, str]
    listed: str

    @property
    def names(self) -> tuple[str, ...]:
        """Values of the setting `backbone` in the order of `configs`; "" is the reference."""
        return ("", *self.task.candidates)


def prepare_candidates(config: SearchConfig, stored: StudyRecord | None, progress: Progress | None) -> Candidates:
    """Loads the backbones of a search, and measures their fit unless their study has it.

    The reference is the backbone that is expected to be the most accurate, or the first of the list if the search uses
    no priors. A study keeps its order and names, and leaves out what it left out at its start.

    Args:
        config: Configuration with a list of backbones.
        stored: The stored study; None without one.
        progress: Progress callback, or None.

    Raises:
        UsageError: A value is wrong, two entries are the same, or no backbone can be used.
        NbtError: No backbone can be used.
    """
    listed = check_candidates(config.backbones)
    loaded, latencies, left_out = _load_all(listed, config, stored, progress)
    if config.source_data is not None:
        loaded = _with_source_data(loaded, config.source_data, progress)
    of_study = () if stored is None else stored.config.candidates
    known = {candidate.identity: candidate.name for candidate in of_study}
    configs = [
        _candidate_config(task, known.get(_identity(task), name))
        for name, (_, task) in zip(candidate_names([task for _, task in loaded]), loaded, strict=True)
    ]
    entries = [(found, item, task) for found, (item, task) in zip(configs, loaded, strict=True)]
    records: dict[str, CandidateRecord] = {}
    profiles: dict[str, dict[str, Any]] = {}
    if not _is_measured(stored):
        for found, item, task in entries:
            profile = _measure(task, progress)
            if profile is not None:
                profiles[found.name] = profile
            latency = latencies.get(found.identity)
            records[found.name] = replace(_record(found, item, task, profile), latency=latency)
    if known:
        places = {identity: place for place, identity in enumerate(known)}
        entries.sort(key=lambda entry: places.get(entry[0].identity, len(places)))
    elif config.heuristics:
        entries.sort(key=lambda entry: -_expected(records[entry[0].name]))
    (_, _, reference), *others = entries
    ordered = tuple(found for found, _, _ in entries)
    costs = _relative_costs(ordered)
    return Candidates(
        task=replace(reference, candidates={found.name: other for found, _, other in others}),
        configs=ordered,
        records=tuple(replace(records[name], cost=costs[name]) for name in costs if name in records),
        profiles=profiles,
        left_out=left_out,
        listed=candidates_text([_resolved(item, loaded) for item in listed]),
    )


def _candidate_config(task: Task, name: str) -> CandidateConfig:
    backbone, weights_hash, image_size = _identity(task)
    return CandidateConfig(
        name=name, backbone=backbone, weights=task.weights, weights_hash=weights_hash, image_size=image_size
    )


def _is_measured(stored: StudyRecord | None) -> bool:
    """Returns whether a study has what is known of its backbones, which one that was killed while it began lacks."""
    return stored is not None and bool(stored.candidates)


def _load_all(
    listed: Sequence[Candidate], config: SearchConfig, stored: StudyRecord | None, progress: Progress | None
) -> tuple[list[tuple[Candidate, Task]], dict[Identity, float], dict[str, str]]:
    """Returns the backbones that can be used with their tasks, their latencies, and why others cannot be used.

    The latencies, in milliseconds and by identity, lack those that a stored study has. The reasons are by label.

    Raises:
        NbtError: No backbone can be used, or one of the stored study cannot be used any more.
    """
    check_task_options(
        config.dataset, image_size=config.image_size, source_data=config.source_data, **_data_options(config)
    )
    skipped = {} if stored is None else stored.left_out
    loaded: list[tuple[Candidate, Task]] = []
    latencies: dict[Identity, float] = {}
    errors: dict[str, NbtError] = {}
    for item, label in zip(listed, candidate_labels(listed), strict=True):
        if label in skipped:
            continue
        try:
            task, latency = _load(item, loaded, config, stored, progress)
        except NbtError as error:
            if _is_measured(stored):
                raise _unusable(label, error) from error
            errors[label] = error
            continue
        if any(_identity(task) == _identity(other) for _, other in loaded):
            raise UsageError(f"--backbones: {label} is given twice")
        loaded.append((item, task))
        if latency is not None:
            latencies[_identity(task)] = latency
    left_out = {**skipped, **{name: _reason(error) for name, error in errors.items()}}
    if not loaded:
        kind = UsageError if all(isinstance(error, UsageError) for error in errors.values()) else NbtError
        shown = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
        raise kind(f"none of the backbones can be used: {shown}")
    for name in errors:
        _log.warning("the backbone %s is left out: %s", name, left_out[name])
    return loaded, latencies, left_out


def _load(
    item: Candidate,
    loaded: Sequence[tuple[Candidate, Task]],
    config: SearchConfig,
    stored: StudyRecord | None,
    progress: Progress | None,
) -> tuple[Task, float | None]:
    """Returns the task of a backbone that meets the bounds, and its latency unless the stored study has it.

    The backbones of a stored study met its bounds; a latency that is measured again may differ.
    """
    from nbt.models.backbone import default_image_size

    has_same_bounds = stored is not None and bounds_of(stored.search_config()) == bounds_of(config)
    is_known = has_same_bounds and _is_measured(stored)
    spec, size = parse_backbone(item.name), item.image_size or config.image_size
    if not is_known:
        check_parameters(spec, size, config)  # before weights are fetched
    if loaded:
        # Images of one size are decoded once.
        wanted = size or default_image_size(spec)
        base = next((other for _, other in loaded if other.image_size == wanted), loaded[0][1])
        task = load_candidate(base, item.name, item.weights, size, progress)
    else:
        source: dict[str, Any] = {"backbone": item.name, "weights": item.weights, "image_size": size}
        task = load_silently(config.dataset, progress=progress, **source, **_data_options(config))
    if is_known:
        return task, None
    if config.engine != "ray":  # whose nodes may have more memory
        _check_memory(task)
    met_bounds = stored is not None and has_same_bounds and _identity(task) in _identities(stored)
    return task, latency_within(task, None if met_bounds else config.max_latency)


def _data_options(config: SearchConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in _DATA_FIELDS}


def _identities(stored: StudyRecord) -> set[Identity]:
    return {candidate.identity for candidate in stored.config.candidates}


def _reason(error: NbtError) -> str:
    """Returns why a backbone is left out, in one line."""
    return error.reason if isinstance(error, BoundError) else one_line_message(error, _MAX_REASON_LENGTH)


def _unusable(label: str, error: NbtError) -> NbtError:
    """Returns the error of a resumed search whose study has a backbone that cannot be used now."""
    kind = UsageError if isinstance(error, UsageError) else NbtError
    return kind(
        f"the backbone {label}, which the study has, cannot be used: {_reason(error)}; mend this and run the command "
        "again, or start a new study with --fresh"
    )


def _with_source_data(
    loaded: Sequence[tuple[Candidate, Task]], path: str, progress: Progress | None
) -> list[tuple[Candidate, Task]]:
    """Adds the images of the source to the backbones whose weights have a classifier of their classes.

    Raises:
        UsageError: No backbone has such weights.
    """
    found: list[tuple[Candidate, Task]] = []
    shared: dict[int, ImageStore] = {}  # image size -> decoded images
    errors: dict[str, str] = {}
    labels = candidate_labels([item for item, _ in loaded])
    for label, (item, task) in zip(labels, loaded, strict=True):
        try:
            task = with_source_data(task, path, progress)
        except UsageError as error:
            errors[label] = one_line_message(error, _MAX_REASON_LENGTH)
        if task.source_data is not None:
            if not shared:
                task.source_data.warn_of_copies()  # once: the images of the others are the same
            images = shared.setdefault(task.image_size, task.source_data.images)
            task = replace(task, source_data=replace(task.source_data, images=images))
        found.append((item, task))
    if len(errors) == len(loaded):
        raise UsageError(next(iter(errors.values())))
    for name, reason in errors.items():
        _log.warning("the source accuracy of %s is not measured: %s", name, reason)
    return found


def _check_memory(task: Task) -> None:
    """Raises NbtError if this machine has too little memory to train the backbone of a task.

    What other programs use does not count: it would decide which backbones a search chooses from.
    """
    import torch

    from nbt.machine.memory import total_memory
    from nbt.training.worker.trial_memory import estimate_trial_memory

    gpus = range(torch.cuda.device_count())
    total = max((torch.cuda.get_device_properties(i).total_memory for i in gpus), default=total_memory())
    needed = estimate_trial_memory(task)
    if needed > total:
        raise NbtError(
            f"a training needs about {needed / 2**30:.1f} GiB, and this machine has {total / 2**30:.1f} GiB; give a "
            "smaller --image-size"
        )


def _identity(task: Task) -> Identity:
    return task.backbone.text, task.weights_hash, task.image_size


def _measure(task: Task, progress: Progress | None) -> dict[str, Any] | None:
    """Returns the fit profile of a backbone; None if it cannot be measured."""
    from nbt.fit.profile_builder import profile_fit

    try:
        return profile_fit(task, seed=task.seed, progress=progress).to_dict()
    except Exception as error:  # a failed measurement must not end the search
        reason = one_line_message(error)
        _log.warning("the fit of %s could not be measured: %s", task.backbone.text, reason)
        return None


def _record(found: CandidateConfig, item: Candidate, task: Task, profile: Mapping[str, Any] | None) -> CandidateRecord:
    """Returns what is known of a backbone before any trial, but for its cost."""
    from nbt.models.backbone import build_backbone
    from nbt.models.size import parameter_count
    from nbt.tuning.experience.backbone_forecast import forecaster_without

    scalars = {} if profile is None else profile["scalars"]
    ridge = scalars.get("ridge_accuracy")
    forecast = None
    if ridge is not None:
        forecast = forecaster_without(task.dataset).forecast(ridge, scalars.get("knn_accuracy"))
    parameters = scalars.get("parameters")
    if parameters is None:
        model = build_backbone(task.backbone, task.n_classes, image_size=task.image_size, seed=0)
        parameters = parameter_count(model)
    return CandidateRecord(
        name=found.name,
        parameters=int(parameters),
        cost=1.0,
        probe=ridge,
        forecast=forecast,
        seconds=None if profile is None else profile["facts"]["seconds"],
        licence=item.licence,
        text=item.text,
    )


def _expected(record: CandidateRecord) -> float:
    return 0.0 if record.forecast is None else record.forecast.mean


def _relative_costs(configs: Sequence[CandidateConfig]) -> dict[str, float]:
    """Returns the work of a forward pass of each backbone relative to the first one, by name."""
    from nbt.tuning.relative_cost import forward_work

    work = [forward_work(found.backbone, found.image_size) for found in configs]
    return {found.name: round(own / work[0], 4) for found, own in zip(configs, work, strict=True)}


def _resolved(item: Candidate, loaded: Sequence[tuple[Candidate, Task]]) -> Candidate:
    """Returns an entry of the list with the canonical backbone and the absolute path of its weights."""
    task = next((task for other, task in loaded if other is item), None)
    return item if task is None else replace(item, name=task.backbone.text, weights=task.weights)
