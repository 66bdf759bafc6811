"""A complete search: task, search, finals, retraining, test, report and MLflow runs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt.api._bounds import check_latency, check_parameters
from nbt.api._candidates import Candidates, prepare_candidates
from nbt.api._job import estimate_job
from nbt.api._load_task import check_task, load_silently
from nbt.api._prepared_search import PreparedSearch, make_study_config
from nbt.api._search_run import SearchRun
from nbt.api._strategy import load_transferred_priors, make_strategy
from nbt.api.results import SearchResult
from nbt.errors import UsageError
from nbt.metrics import METRICS
from nbt.paths import check_outside, check_writable_folder
from nbt.progress import Progress
from nbt.search_config import DEFAULT_EPOCHS, SearchConfig
from nbt.settings.candidate import parse_candidates
from nbt.task.options import check_candidates, check_task_options
from nbt.training.export.model_folder import check_export
from nbt.tuning.budget import Budget
from nbt.tuning.engines.factory import EngineFactory
from nbt.tuning.engines.ray.options import RayOptions
from nbt.tuning.job_clock import PREPARE, PROFILE, JobClock
from nbt.tuning.storage.records import StudyObserver

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.source import SourceRecord
    from nbt.tuning.storage.study_store import StudyStore

_log = logging.getLogger("nbt")

_TASK_FIELDS = (
    *("dataset", "data_dir", "backbone", "weights", "image_size"),
    *("classes", "shots", "resize", "teacher", "source_data", "seed"),
)
_SYNC_OPTIONS = ("--storage", "--tracking-uri", "--out")


def search(
    task: SearchConfig | Task | str | Path,
    *,
    observers: Sequence[StudyObserver] = (),
    progress: Progress | bool | None = None,
    **options: Any,
) -> SearchResult:
    """Searches for settings, runs finals, retrains and tests the recommended settings, and writes the report.

    The same call resumes the study up to its budget. An interruption loses no finished trial.

    Args:
        task: A loaded task, the name or path of a dataset, or a whole configuration.
        observers: Observers of the study.
        progress: Whether to show the progress: None on a terminal and in a notebook, False never, True everywhere; or
            a callback, called as progress(what, done, total) during downloads, decoding, pretraining and retraining.
        **options: Fields of `nbt.SearchConfig`, such as `budget` (the cost of so many trials, or a time such as "2h"),
            `space`, `workers` and `epochs`. Those that define the task are not allowed with a loaded task.

    Returns:
        The study, its report and the recommended settings.

    Raises:
        UsageError: An option is unknown or invalid, or the stored study of this name has another configuration.
        NbtError: The search cannot continue; finished trials stay stored.

    Examples:
        >>> import nbt
        >>> task = nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)
        >>> quick = {"heuristics": False, "pruner": "none", "workers": 1, "progress": False}
        >>> result = nbt.search(task, budget=1, epochs=1, **quick)
        >>> result.recommended.epochs
        1
        >>> result.trials[["number", "state", "epochs"]]
           number     state  epochs
        0       0  complete       1
    """
    from nbt.display.progress import shown_progress
    from nbt.display.search_progress import SearchProgress

    with shown_progress(progress, SearchProgress) as (callback, display):
        return _search(task, [*observers, *([] if display is None else [display])], callback, options)


def _search(
    task: SearchConfig | Task | str | Path,
    observers: Sequence[StudyObserver],
    progress: Progress | None,
    options: Mapping[str, Any],
) -> SearchResult:
    from nbt.report.study.checks.registry import check_ignored
    from nbt.settings.belief import parse_beliefs
    from nbt.tracking import Tracker, resolve_uri
    from nbt.tracking.background import BackgroundObserver
    from nbt.tuning.priors.beliefs import belief_priors
    from nbt.tuning.space.applicability import applicable_space
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.database import check_separate_databases, check_writable_storage
    from nbt.tuning.stream_task import as_stream, check_stream

    clock = JobClock()
    config = _make_config(task, options)
    limit = Budget.parse(config.budget, max_budget=config.max_budget, min_gain=config.min_gain)
    search_space = Space.load(config.space)
    if config.epochs is not None:
        search_space = search_space.with_fixed_epochs()
    if search_space.epochs is not None and config.scenario is not None:
        raise UsageError(f"space {search_space.name} varies epochs, which streams of tasks do not: give --epochs")
    epochs = config.epochs or (search_space.epochs.neutral if search_space.epochs else DEFAULT_EPOCHS)
    check_stream(config.scenario, config.tasks, config.pruner, config.metric)
    check_separate_databases(config.storage, resolve_uri(config.tracking_uri))
    check_writable_storage(config.storage)
    check_writable_folder("--out", config.out)
    check_ignored(config.ignore)
    ray = RayOptions(config.ray_address, config.gpus_per_trial, config.cpus_per_trial)
    with EngineFactory(config.engine, config.workers, ray) as factory:
        candidates = None
        factory.start_spares()
        if config.backbones is not None:
            candidates = _prepare_candidates(config, search_space, clock, progress)
            loaded = candidates.task
            config = config.replace(study=_study_name(config, search_space))
        else:
            loaded = _load_task(task, config, progress)
        for folder in (loaded.dataset, config.source_data):
            check_outside("--out", config.out, folder)
        _check_metric(config.metric, loaded)
        pruner, heuristics = config.pruner, config.heuristics
        if config.scenario is not None:
            loaded, pruner, heuristics = as_stream(loaded, config.scenario, config.tasks), "none", False
        varied = config.epochs is None and config.scenario is None
        searched = applicable_space(search_space.with_epochs(int(epochs)) if varied else search_space, loaded)
        for other in loaded.candidates.values():
            searched = applicable_space(searched, other)
        searched = searched.with_backbones(tuple(loaded.candidates))
        belief_priors(parse_beliefs(config.beliefs), searched)  # wrong ones end the search before anything is written
        needs_priors = heuristics or pruner == "fit"
        if config.experience is not None and not needs_priors:
            _log.warning(
                "--experience %s has no effect: only the model of the priors and the fit pruner use recorded tables",
                config.experience,
            )
        prepared = PreparedSearch(
            options=_resolve(config, loaded, search_space, limit, candidates),
            config=make_study_config(
                loaded,
                search_space,
                config.study,
                int(epochs),
                config.metric,
                () if candidates is None else candidates.configs,
            ),
            budget=limit,
            space=searched,
            pruner=pruner,
            heuristics=heuristics,
            # Tables may vary what does not apply to this task, such as injection without a teacher.
            transferred_priors=load_transferred_priors(config.experience, search_space) if needs_priors else None,
            engine=factory,
            progress=progress,
            candidates=candidates,
        )
        run_options = prepared.options.command_options("run")
        sync_options = {name: value for name, value in run_options.items() if name in _SYNC_OPTIONS}
        tracker = Tracker(config.tracking_uri, reports=prepared.out, sync_options=sync_options)
        with ExitStack() as stack:
            return _open_search(
                stack, prepared, loaded, [*observers, BackgroundObserver(tracker)], clock
            ).run_all_phases()


def _make_config(task: SearchConfig | Task | str | Path, options: Mapping[str, Any]) -> SearchConfig:
    """Returns the complete configuration of a search."""
    if isinstance(task, SearchConfig):
        return task.replace(**options).check_complete()
    if options.get("backbones") is not None:
        check_candidates(options["backbones"])  # before only their values are kept, without lines
    if isinstance(task, str | Path):
        return SearchConfig.from_options({**options, "dataset": task}).check_complete()
    check_task(task)
    names = [name for name, value in options.items() if name in (*_TASK_FIELDS, "backbones") and value is not None]
    if names:
        raise UsageError(f"{', '.join(names)}: a loaded task has its own; pass them to load_task")
    return SearchConfig.from_options({**options, **_task_options(task)}).check_complete()


def _task_options(task: Task) -> dict[str, Any]:
    """Returns the options that define a loaded task."""
    return {
        "dataset": task.dataset,
        "data_dir": task.data_dir,
        "backbone": task.backbone.text,
        "weights": task.weights,
        "image_size": task.image_size,
        "classes": task.classes,
        "shots": task.shots,
        "resize": task.resize,
        "teacher": [teacher.name for teacher in task.teachers] or None,
        "source_data": None if task.any_source_data is None else task.any_source_data.dataset,
        "seed": task.seed,
    }


def _load_task(task: SearchConfig | Task | str | Path, config: SearchConfig, progress: Progress | None) -> Task:
    if not isinstance(task, SearchConfig | str | Path):
        check_parameters(task.backbone, task.image_size, config)
        return task
    options = {name: getattr(config, name) for name in _TASK_FIELDS if name != "dataset"}
    if config.max_parameters is not None:  # before weights are fetched
        check_parameters(check_task_options(config.dataset, **options).backbone, config.image_size, config)
    return load_silently(config.dataset, progress=progress, **options)


def _study_name(config: SearchConfig, space: Space) -> str:
    """Returns the name of a study of several backbones, which does not depend on their order."""
    from nbt.tuning.storage.study_names import default_study_name

    count = len(parse_candidates(config.backbones))
    return config.study or default_study_name(str(config.dataset), f"{count}-backbones", space.name)


def _prepare_candidates(config: SearchConfig, space: Space, clock: JobClock, progress: Progress | None) -> Candidates:
    """Returns the backbones of a search over several; the measurement of their fit counts as such."""
    from nbt.tuning.storage.studies import find_study, resolve_storage

    name = _study_name(config, space)
    stored = None if config.fresh else find_study(resolve_storage(config.storage), name)
    clock.enter(PROFILE)
    candidates = prepare_candidates(config, stored, progress)
    clock.enter(PREPARE)
    return candidates


def _check_metric(name: str, task: Task) -> None:
    """Raises UsageError if the metric of the search is not defined for the validation images."""
    classes = set(task.labels[task.split.val].tolist())
    if len(classes) == 1 and not METRICS[name].single_class:
        raise UsageError(
            f"metric {name}: all {len(task.split.val)} validation images belong to the class "
            f"{task.class_names[classes.pop()]}, and the {METRICS[name].label} needs two classes; choose another "
            "metric, or add images of other classes to the validation part"
        )


def _resolve(
    config: SearchConfig, task: Task, space: Space, budget: Budget, candidates: Candidates | None
) -> SearchConfig:
    """Returns the configuration with names and paths that mean the same in every folder."""
    values = _task_options(task) | ({} if task.scenario is None else {"tasks": task.tasks})
    if candidates is not None:
        values |= {"backbone": None, "weights": "default", "image_size": config.image_size}
        values["backbones"] = candidates.listed
    return config.replace(**values, space=space.source, budget=budget.option)


def _describe_data(task: Task) -> dict[str, Any]:
    """Returns the facts of the dataset, and the similarities of the teachers if there are any, in JSON types."""
    from nbt.task.summary import dataset_summary
    from nbt.tuning.storage.codec import CHECKS, COPIED_TEST_IMAGES

    facts = {**dataset_summary(task), CHECKS: [result.to_dict() for result in task.checks]}
    if task.copied_test:
        facts[COPIED_TEST_IMAGES] = list(task.copied_test)
    return facts | _describe_teachers(task)


def _describe_teachers(task: Task) -> dict[str, Any]:
    """Returns the similarities of the teachers; nothing without one."""
    if not task.teachers:
        return {}
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import tli_similarity
    from nbt.tuning.storage.codec import TLI_SIMILARITIES, TLI_SIMILARITY

    student = outline_of(task.backbone, task.image_size)
    values = {teacher.name: round(tli_similarity(student, outline_of(teacher.spec)), 4) for teacher in task.teachers}
    return {TLI_SIMILARITY: max(values.values())} | ({TLI_SIMILARITIES: values} if len(values) > 1 else {})


def _open_search(
    stack: ExitStack, prepared: PreparedSearch, task: Task, observers: Sequence[StudyObserver], clock: JobClock
) -> SearchRun:
    """Creates engine, store and strategy of a search; the order ensures that checks precede everything written."""
    from nbt.task.summary import labelled_images_per_class
    from nbt.tuning.job_monitor import JobMonitor
    from nbt.tuning.observers import ObserverGroup
    from nbt.tuning.storage.studies import find_study, fresh_name, open_study, resolve_storage
    from nbt.tuning.target import Target

    facts = _describe_data(task)
    url, fresh = resolve_storage(prepared.options.storage), prepared.options.fresh
    _check_output_folders(prepared, fresh_name(url, prepared.config.name) if fresh else prepared.config.name)
    found = None if fresh else find_study(url, prepared.config.name)
    if prepared.candidates is None:
        check_latency(task, prepared.options, found)
    engine = prepared.engine.make(task, prepared.progress)
    source = None if found is None else found.source
    if source is None:
        source = _measure_source(task)
    if found is None:  # a budget that is refused leaves no study behind
        engine.start_workers()
        _read_models(prepared)
        estimator = estimate_job(prepared, task, None, engine, clock)
    store = stack.enter_context(
        open_study(
            url,
            prepared.config,
            budget=prepared.budget.text,
            pruner=prepared.pruner,
            dataset=facts,
            notes=_data_notes(task),
            fresh=fresh,
            contents=task.contents,
        )
    )
    store.put_classes(task.class_names, labelled_images_per_class(task))
    store.put_search(prepared.options.replace(study=store.config.name, fresh=False))
    store.put_source(source)
    if found is not None:
        record = store.record()
        if not record.has_ended:
            engine.start_workers()
        _read_models(prepared)
        estimator = estimate_job(prepared, task, record, engine, clock)
    group = ObserverGroup(observers)
    monitor = JobMonitor(store, clock, estimator, group)
    monitor.enter(PROFILE)
    if prepared.candidates is not None:
        _store_candidates(store, prepared.candidates)
    elif store.record().profile is None:
        _measure_fit(task, store, prepared.progress)
    if prepared.fitted_priors is not None:
        prepared.fitted_priors.fit()
    target = Target.of(
        facts,
        store.record().profile,
        prepared.config.epochs,
        prepared.config.metric,
        backbone=prepared.config.backbone,
    )
    others = {
        name: Target.of(facts, store.candidate_profile(name), prepared.config.epochs, prepared.config.metric)
        for name in task.candidates
    }
    record = store.record()
    strategy = make_strategy(prepared, target, others, record.candidates)
    if not record.has_ended:
        store.put_experience(strategy.experience)
    return SearchRun(prepared, store, engine, strategy, group, monitor)


def _read_models(prepared: PreparedSearch) -> None:
    """Reads the forests of recorded curves while the workers start; they are fitted once the estimate is shown."""
    if prepared.transferred_priors is not None:
        prepared.transferred_priors.read_cache()


def _store_candidates(store: StudyStore, candidates: Candidates) -> None:
    """Stores what is known of the backbones of a new study."""
    if not candidates.records:
        return
    for name, found in zip(candidates.names, candidates.configs, strict=True):
        if found.name in candidates.profiles:
            store.put_profile(candidates.profiles[found.name], name)
        else:
            store.add_note(f"The fit of {found.name} could not be measured; the search does not use it")
    for name, reason in candidates.left_out.items():
        store.add_note(f"The backbone {name} was left out: {reason}")
    store.put_candidates(candidates.records, candidates.left_out)


def _check_output_folders(prepared: PreparedSearch, study: str) -> None:
    """Checks before the search that its report and model can be written."""
    check_writable_folder("--out", prepared.out / study)
    if prepared.config.scenario is None:
        check_export(prepared.out / study / "model", "--out")


def _measure_source(task: Task) -> SourceRecord | None:
    """Returns the source accuracy of the pretrained weights of every backbone; None without images of the source."""
    from nbt.training.source_accuracy import reference_accuracy
    from nbt.tuning.storage.source import SourceRecord

    source = task.any_source_data
    if source is None:
        return None
    measured = {name: reference_accuracy(task.candidate(name)) for name in ("", *task.candidates)}
    return SourceRecord(
        images=len(source.labels),
        classes=len(source.class_names),
        matching=source.matching,
        references={name: accuracy for name, accuracy in measured.items() if accuracy is not None},
        copies=len(source.copies),
        near_copies=len(source.near_copies),
    )


def _measure_fit(task: Task, store: StudyStore, progress: Progress | None) -> None:
    """Measures and stores the fit profile of a study; if this fails, a note is stored instead."""
    from nbt.fit.profile_builder import profile_fit

    try:
        profile = profile_fit(task, seed=task.seed, progress=progress)
    except Exception as error:  # a failed measurement must not end the search
        _log.debug("fit profile", exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        store.add_note(f"The fit of the weights could not be measured ({reason}); the search does not use it")
    else:
        store.put_profile(profile.to_dict())


def _data_notes(task: Task) -> list[str]:
    """Returns a note on the images that could not be read, if there are any."""
    unreadable = task.images.unreadable
    if not unreadable:
        return []
    names = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
    return [f"{len(unreadable)} images could not be read and were left out: {names}"]
