"""The main job, put together: task, search, finals, last training, report, MLflow. Nothing here is clever."""

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
    """Searches, runs finals, trains and tests the recommendation, and writes report and MLflow runs.

    The same call again resumes the study up to its budget. What was finished is kept, whatever interrupts it.

    Args:
        task: From `load_task`, or a dataset's name or path, for which `options` say the rest.
        budget: Full trials' worth of epochs in the whole study, or "30m", "2h" of wall-clock time.
        space: Name or file of the search space.
        engine: "local", or "ray": a Ray cluster.
        workers: Trials at a time.
        ray_address: "auto", "HOST:PORT" or "ray://HOST:PORT"; a Ray of this machine is started and ended when None.
        gpus_per_trial: With Ray, GPUs or a share of one; "auto" shares them by the memory that trials turn out to take;
            one where there are any when None.
        cpus_per_trial: With Ray, CPUs; a trial's share of them when None.
        epochs: Length of a full trial; of a stream, of each of its tasks.
        study: Name; derived from dataset, backbone and space when None.
        storage: URL of the Optuna storage; `.nbt/studies.db` when None.
        tracking_uri: Of MLflow; `.nbt/mlflow.db` when None.
        pruner: "fit" (needs recorded curves; without any it is ASHA), "asha" or "none".
        heuristics: Whether profile and experience guide the proposals; otherwise plain TPE makes them.
        experience: Folder of recorded tables (`nbt.api._record.record`); those that come with nbt when None.
        final_seeds: The most final runs of one candidate.
        scenario: "data", "task" or "class": every trial learns the dataset as a stream of tasks (see
            `nbt.training.continual.run.run_continual`) and is judged by its average accuracy at the end, so none is stopped
            early, and neither profile nor experience, which are of single tasks, say anything of it. None for a target
            that comes at once.
        tasks: Length of the stream; `default_tasks` when None.
        out: Folder of reports.
        fresh: Start over under a new name.
        observers: Told of how it goes.
        **options: Of the task, see `TaskOptions`; not with a loaded task.

    Raises:
        UsageError: Something given is wrong.
        NbtError: It cannot go on; what was finished is kept.
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
        given = as_task(task, options)
        if scenario is not None:
            given, pruner, heuristics = as_stream(given, scenario, tasks), "none", False
        varied = applicable_space(search_space, given)
        prepared = PreparedSearch(
            config=make_study_config(given, search_space, study, epochs),
            budget=limit,
            space=varied,
            pruner=pruner,
            heuristics=heuristics,
            transferred_priors=load_transferred_priors(experience, varied) if heuristics or pruner == "fit" else None,
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
            return _open_search(stack, prepared, given, [*observers, tracker]).run_all_phases()


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r}: {nearest(value, choices)}")


def _describe_data(task: Task) -> dict[str, Any]:
    """Returns what is known of the data, and of the teacher where there is one."""
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
    """Opens what a search holds, in an order in which nothing is written before everything given was checked."""
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
    if prepared.fresh:  # only now it has a name
        _check_output_folders(prepared, store.config.name)
    _measure_fit(task, store, prepared.progress)
    target = Target.of(facts, store.record().profile, prepared.config.epochs)
    return SearchRun(prepared, store, engine, make_strategy(prepared, target), ObserverGroup(observers))


def _check_output_folders(prepared: PreparedSearch, study: str) -> None:
    """Checks that report and model can be written, which comes last."""
    check_writable_folder("--out", prepared.out / study)
    if prepared.config.scenario is None:
        check_export(prepared.out / study / "model", "--out")


def _measure_fit(task: Task, store: StudyStore, progress: Progress | None) -> None:
    """Stores the fit profile of a study that has none; a search that cannot have one says so and goes on."""
    if store.record().profile is not None:
        return
    from nbt.fit.profile_builder import profile_fit

    try:
        profile = profile_fit(task, seed=task.seed, progress=progress)
    except Exception as error:  # whatever it is, it must not cost the search
        _log.debug("fit profile", exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        store.add_note(f"How well the pretrained weights fit could not be measured ({reason}); nothing rests on it")
    else:
        store.put_profile(profile.to_dict())


def _data_notes(task: Task) -> list[str]:
    unreadable = task.images.unreadable
    if not unreadable:
        return []
    named = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
    return [f"{len(unreadable)} images could not be read and were left out: {named}"]
