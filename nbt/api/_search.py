"""A complete search: task, search, finals, retraining, test, report and MLflow runs."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from nbt.api._command_options import search_options, sync_options
from nbt.api._load_task import TaskOptions, as_task
from nbt.api._prepared_search import PreparedSearch, make_study_config
from nbt.api._search_run import SearchRun
from nbt.api._strategy import load_transferred_priors, make_strategy
from nbt.api.results import SearchResult
from nbt.errors import UsageError, nearest, require_positive
from nbt.paths import check_writable_folder
from nbt.progress import Progress
from nbt.training.export.model_folder import check_export
from nbt.tuning.budget import Budget
from nbt.tuning.engines.factory import EngineFactory
from nbt.tuning.engines.ray.options import RayOptions
from nbt.tuning.pruners.base import PRUNER_NAMES
from nbt.tuning.storage.records import StudyObserver

if TYPE_CHECKING:
    from nbt.task.task import Task
    from nbt.tuning.storage.study_store import StudyStore

_log = logging.getLogger("nbt")


def search(
    task: Task | str | Path,
    *,
    budget: int | str,
    space: str | Path = "non_binary",
    engine: str = "local",
    workers: int = 1,
    ray_address: str | None = None,
    gpus_per_trial: float | str | None = None,
    cpus_per_trial: float | None = None,
    epochs: int = 12,
    study: str | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    pruner: str = "fit",
    heuristics: bool = True,
    experience: str | Path | None = None,
    final_seeds: int = 5,
    scenario: str | None = None,
    tasks: int | None = None,
    out: str | Path = "reports",
    fresh: bool = False,
    observers: Sequence[StudyObserver] = (),
    **options: Unpack[TaskOptions],
) -> SearchResult:
    """Searches for settings, runs finals, retrains and tests the recommended settings, and writes the report.

    The same call resumes the study up to its budget. An interruption loses no finished trial.

    Args:
        task: A loaded task, or the name or path of a dataset, which is loaded with `options`.
        budget: Budget of the study in all its sessions together: a number of full trials, whose epochs may be spent,
            or a wall-clock time such as "30m" or "2h".
        space: Name or file of the search space.
        engine: "local", or "ray" for a Ray cluster.
        workers: Number of concurrent trials.
        ray_address: "auto", "HOST:PORT" or "ray://HOST:PORT"; None starts Ray on this machine for the search.
        gpus_per_trial: With Ray, the number of GPUs per trial, or a share of one; "auto" derives the share from the
            measured memory of the trials. None is one GPU if there are any, or an equal share if the workers outnumber
            the GPUs.
        cpus_per_trial: With Ray, the number of CPUs per trial; None is the largest number that leaves room for all
            workers.
        epochs: Epochs of a full trial; with `scenario`, epochs of each task.
        study: Name of the study; derived from dataset, backbone and space when None.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        tracking_uri: URI of the MLflow tracking store; `.nbt/mlflow.db` when None.
        pruner: "fit" (ASHA if there are no recorded learning curves), "asha" or "none".
        heuristics: Whether priors and experience guide the proposals; if not, plain TPE proposes settings.
        experience: Folder of recorded tables (see `nbt.api.record`); the tables shipped with nbt when None.
        final_seeds: Maximum number of final runs per finalist.
        scenario: "data", "task" or "class" to learn the dataset as a stream of tasks in every trial, see
            `nbt.training.continual.run.run_continual`; None for a single task. The value of a trial is then its average
            accuracy after the last task. No trial is stopped early, and profile and experience are not used, because
            they describe single tasks.
        tasks: Number of tasks of the stream; `nbt.settings.continual.default_tasks` when None.
        out: Folder of the reports.
        fresh: Whether to start a new study under another name instead of resuming.
        observers: Observers of the study.
        **options: Options of the task, see `TaskOptions`; not allowed with a loaded task.

    Returns:
        The study, its report and the recommended settings.

    Raises:
        UsageError: An argument is invalid, or the stored study of this name has another configuration.
        NbtError: The search cannot continue; finished trials stay stored.
    """
    from nbt.tracking import Tracker, resolve_uri
    from nbt.tuning.space.applicability import applicable_space
    from nbt.tuning.space.space import Space
    from nbt.tuning.storage.database import check_separate_databases
    from nbt.tuning.stream_task import as_stream, check_stream

    limit = Budget.parse(budget)
    search_space = Space.load(space)
    _check_choice("pruner", pruner, PRUNER_NAMES)
    require_positive(workers=workers, epochs=epochs, final_seeds=final_seeds)
    check_stream(scenario, tasks, pruner)
    check_separate_databases(storage, resolve_uri(tracking_uri))
    check_writable_folder("--out", out)
    run_options = search_options(
        storage=storage,
        tracking_uri=tracking_uri,
        engine=engine,
        ray_address=ray_address,
        workers=workers,
        gpus_per_trial=gpus_per_trial,
        cpus_per_trial=cpus_per_trial,
        experience=experience,
        final_seeds=final_seeds,
        out=out,
    )
    with EngineFactory(engine, workers, RayOptions(ray_address, gpus_per_trial, cpus_per_trial)) as factory:
        loaded = as_task(task, options)
        if scenario is not None:
            loaded, pruner, heuristics = as_stream(loaded, scenario, tasks), "none", False
        searched = applicable_space(search_space, loaded)
        needs_priors = heuristics or pruner == "fit"
        prepared = PreparedSearch(
            config=make_study_config(loaded, search_space, study, epochs),
            budget=limit,
            space=searched,
            pruner=pruner,
            heuristics=heuristics,
            transferred_priors=load_transferred_priors(experience, searched) if needs_priors else None,
            storage=storage,
            engine=factory,
            final_seeds=final_seeds,
            out=Path(out),
            run_options=run_options,
            fresh=fresh,
            progress=options.get("progress"),
        )
        tracker = Tracker(tracking_uri, reports=prepared.out, sync_options=sync_options(run_options))
        with ExitStack() as stack:
            return _open_search(stack, prepared, loaded, [*observers, tracker]).run_all_phases()


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r}: {nearest(value, choices)}")


def _describe_data(task: Task) -> dict[str, Any]:
    """Returns the facts of the dataset, and the similarity of the teacher if there is one, in JSON types."""
    from nbt.task.summary import dataset_summary
    from nbt.tuning.storage.codec import TLI_SIMILARITY

    facts = dataset_summary(task)
    if task.teacher is not None:
        from nbt.transfer.injection.outline import outline_of
        from nbt.transfer.injection.weight_injection import tli_similarity

        student = outline_of(task.backbone, task.image_size)
        facts[TLI_SIMILARITY] = round(tli_similarity(student, outline_of(task.teacher.spec)), 4)
    return facts


def _open_search(
    stack: ExitStack, prepared: PreparedSearch, task: Task, observers: Sequence[StudyObserver]
) -> SearchRun:
    """Creates engine, store and strategy of a search; the order ensures that checks precede everything written."""
    from nbt.tuning.observers import ObserverGroup
    from nbt.tuning.storage.studies import open_study, resolve_storage
    from nbt.tuning.target import Target

    facts = _describe_data(task)
    url = resolve_storage(prepared.storage)
    if not prepared.fresh:
        _check_output_folders(prepared, prepared.config.name)
    engine = prepared.engine.make(task)
    store = stack.enter_context(
        open_study(
            url,
            prepared.config,
            budget=prepared.budget.text,
            pruner=prepared.pruner,
            dataset=facts,
            notes=_data_notes(task),
            fresh=prepared.fresh,
        )
    )
    if prepared.fresh:  # the name of a new study is known only now
        _check_output_folders(prepared, store.config.name)
    _measure_fit(task, store, prepared.progress)
    target = Target.of(facts, store.record().profile, prepared.config.epochs)
    return SearchRun(prepared, store, engine, make_strategy(prepared, target), ObserverGroup(observers))


def _check_output_folders(prepared: PreparedSearch, study: str) -> None:
    """Checks before the search that its report and model can be written."""
    check_writable_folder("--out", prepared.out / study)
    if prepared.config.scenario is None:
        check_export(prepared.out / study / "model", "--out")


def _measure_fit(task: Task, store: StudyStore, progress: Progress | None) -> None:
    """Measures and stores the fit profile of a study that has none; if this fails, a note is stored instead."""
    if store.record().profile is not None:
        return
    from nbt.fit.profile_builder import profile_fit

    try:
        profile = profile_fit(task, seed=task.seed, progress=progress)
    except Exception as error:  # a failed measurement must not end the search
        _log.debug("fit profile", exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        store.add_note(
            f"The fit of the pretrained weights could not be measured ({reason}); the search does not use it"
        )
    else:
        store.put_profile(profile.to_dict())


def _data_notes(task: Task) -> list[str]:
    """Returns a note on the images that could not be read, if there are any."""
    unreadable = task.images.unreadable
    if not unreadable:
        return []
    names = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
    return [f"{len(unreadable)} images could not be read and were left out: {names}"]
