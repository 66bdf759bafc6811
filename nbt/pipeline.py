"""The main job, put together: task, search, finals, last training, report, MLflow. Nothing here is clever."""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from nbt.errors import NbtError, UsageError, check_counts, nearest
from nbt.search.budget import Budget
from nbt.search.engines.maker import EngineMaker
from nbt.search.engines.ray_options import RayOptions
from nbt.search.pruner import PRUNERS
from nbt.search.records import Interval, SeedRun, StudyConfig, StudyObserver, StudyRecord, TestRecord
from nbt.settings import TransferSettings, repair

if TYPE_CHECKING:
    import pandas as pd

    from nbt.fit.fit_profile import FitProfile
    from nbt.search.engines.base import Engine, JobSource
    from nbt.search.guide import Guide
    from nbt.search.learned import Learned
    from nbt.search.pruner import Pruner
    from nbt.search.space import Space
    from nbt.search.store import StudyStore
    from nbt.search.target import Target
    from nbt.task.task import Task
    from nbt.training.export import Prediction
    from nbt.training.results import EpochResult, TrialJob, TrialOutcome

_log = logging.getLogger("nbt")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SearchResult:
    """What a search leaves behind.

    Attributes:
        record: The whole study.
        report_path: The HTML report; its folder holds everything else.
    """

    record: StudyRecord
    report_path: Path

    @property
    def recommended(self) -> TransferSettings:
        """The recommended settings."""
        from nbt.search.finals import recommended_final

        return recommended_final(self.record).settings

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial, as in `trials.csv`."""
        from nbt.report import trials_frame

        return trials_frame(self.record)

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types: study, report, recommendation, accuracies, what it cost."""
        record = self.record
        final = record.final(record.recommended or "")
        counts = record.counts()
        return {
            "study": record.config.name,
            "report": str(self.report_path),
            "recommended": record.config.for_use(self.recommended).to_dict(),
            "validation": None if final is None else _interval_json(final.validation),
            "versus_default": None if final is None else _interval_json(final.versus_default),
            "verdict": record.verdict,
            "test": {test.name: _interval_json(test.accuracy) for test in record.test},
            "trials": {state: counts[state] for state in ("complete", "pruned", "failed")},
            "epochs": {"spent": record.epochs_spent, "budget": record.epochs_budget},
            "seconds": record.seconds_spent,
        }


@dataclass(frozen=True)
class TrainResult:
    """What training with known settings gave.

    Attributes:
        settings: The repaired settings.
        runs: One a seed, each with its own train/validation split.
        validation: Their mean validation accuracy with its interval.
        test: The one evaluation of the model that was trained on train + validation.
        export: The model folder, if one was asked for.
    """

    settings: TransferSettings
    runs: tuple[SeedRun, ...]
    validation: Interval
    test: TestRecord
    export: Path | None

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {
            "settings": self.settings.to_dict(),
            "validation": _interval_json(self.validation),
            "seeds": [{"seed": run.seed, "val_accuracy": run.val_accuracy} for run in self.runs],
            "test": {**_interval_json(self.test.accuracy), "loss": self.test.loss, "images": self.test.n},
            "model": None if self.export is None else str(self.export),
        }


def _interval_json(interval: Interval | None) -> Any:
    return None if interval is None else dataclasses.asdict(interval)


class TaskOptions(TypedDict, total=False):
    """What `load_task` takes beside the dataset, and what `search` and `train` pass on to it.

    Attributes:
        backbone: A torchvision classifier with keyword arguments, conv3 or conv4; the dataset's default when None.
        weights: "default", "none" or a file.
        data_dir: Where a dataset known by name is.
        image_size: Pixels; the default of dataset and backbone when None.
        classes: The first so many classes only.
        shots: At most so many labelled images a class.
        teacher: Whose weights a trial may start from by injection, "BACKBONE" or "BACKBONE=FILE"; nobody's when None.
        seed: Of the train/validation split and of the shots, and of the search or training.
        progress: Called as progress(what, done, total) while something is fetched, decoded or pretrained.
    """

    backbone: str | None
    weights: str | Path
    data_dir: str | Path | None
    image_size: int | None
    classes: int | None
    shots: int | None
    teacher: str | None
    seed: int
    progress: Progress | None


def load_task(dataset: str | Path, **options: Unpack[TaskOptions]) -> Task:
    """Loads a dataset and the pretrained weights that are to be transferred to it; see `nbt.task.load.load_task`.

    Weights that are trained here (conv3 for digits) are made at first use and cached.

    Args:
        dataset: A known name, a folder of class folders, a train/val/test folder of such, or a CSV manifest.
        **options: See `TaskOptions`.

    Raises:
        UsageError: Something given is wrong.
        NbtError: Something cannot be fetched or written.
    """
    from nbt.task.load import load_task as load
    from nbt.training.pretrain import pretrained_source

    source = functools.partial(pretrained_source, progress=options.get("progress"))
    return load(dataset, pretrained=source, **options)


def as_task(given: Task | str | Path, options: TaskOptions) -> Task:
    """Returns a loaded task as it is, or loads the dataset that is named.

    Raises:
        UsageError: Options of a task are given beside a loaded one.
    """
    if isinstance(given, str | Path):
        return load_task(given, **options)
    extra = [name for name, value in options.items() if name != "progress" and value is not None]
    if extra:
        raise UsageError(f"{', '.join(extra)}: a loaded task has its own; give them to load_task")
    return given


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
        experience: Folder of recorded tables (`nbt.experience.record`); those that come with nbt when None.
        final_seeds: The most final runs of one candidate.
        scenario: "data", "task" or "class": every trial learns the dataset as a stream of tasks (see
            `nbt.training.continual.run_continual`) and is judged by its average accuracy at the end, so none is stopped
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
    from nbt.search.applicable import applicable
    from nbt.search.database import check_apart
    from nbt.search.space import Space
    from nbt.search.stream_target import as_stream, check_stream
    from nbt.tracking import Tracker, resolve_uri

    limit = Budget.parse(budget)
    chosen = Space.load(space)
    _check_choice("pruner", pruner, PRUNERS)
    check_counts(workers=workers, epochs=epochs, final_seeds=final_seeds)
    check_stream(scenario, tasks, pruner)
    check_apart(storage, resolve_uri(tracking_uri))
    with EngineMaker(engine, workers, RayOptions(ray_address, gpus_per_trial, cpus_per_trial)) as maker:
        given = as_task(task, options)
        if scenario is not None:
            given, pruner, heuristics = as_stream(given, scenario, tasks), "none", False
        possible = applicable(chosen, given)
        plan = _Plan(
            config=_configure(given, chosen, study, epochs),
            budget=limit,
            space=possible,
            pruner=pruner,
            heuristics=heuristics,
            learned=_learn(experience, possible) if heuristics or pruner == "fit" else None,
            storage=storage,
            engine=maker,
            final_seeds=final_seeds,
            out=Path(out),
            fresh=fresh,
            progress=options.get("progress"),
        )
        tracker = Tracker(tracking_uri, reports=plan.out)
        with ExitStack() as stack:
            return _open(stack, plan, given, [*observers, tracker]).to_end()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
    """The arguments of a search, checked."""

    config: StudyConfig
    budget: Budget
    space: Space
    pruner: str
    heuristics: bool
    learned: Learned | None
    storage: str | None
    engine: EngineMaker
    final_seeds: int
    out: Path
    fresh: bool
    progress: Progress | None


def _check_choice(name: str, value: str, choices: Sequence[str]) -> None:
    if value not in choices:
        raise UsageError(f"{name} {value!r}: {nearest(value, choices)}")


def _configure(task: Task, space: Space, study: str | None, epochs: int) -> StudyConfig:
    from nbt.search.identity import default_study_name
    from nbt.task.weights import hash_weights

    derived = default_study_name(task.dataset, task.backbone.text, space.name)
    return StudyConfig(
        name=study or (derived if task.scenario is None else f"{derived}-{task.scenario}{task.tasks}"),
        dataset=task.dataset,
        backbone=task.backbone.text,
        weights=task.weights,
        space=space.source,
        space_hash=space.hash,
        data_hash=task.fingerprint,
        weights_hash=hash_weights(task.w0),
        image_size=task.image_size,
        epochs=epochs * (task.tasks or 1),
        seed=task.seed,
        data_dir=task.data_dir,
        classes=task.classes,
        shots=task.shots,
        teacher=None if task.teacher is None else task.teacher.name,
        teacher_hash=None if task.teacher is None else hash_weights(task.teacher.w0),
        scenario=task.scenario,
        tasks=task.tasks or 1,
    )


def _facts(task: Task) -> dict[str, Any]:
    """Returns what is known of the data, and of the teacher where there is one."""
    from nbt.search.attributes import TLI_SIMILARITY
    from nbt.task.load import dataset_facts

    facts = dataset_facts(task)
    if task.teacher is not None:
        from nbt.transfer.injection import tli_similarity
        from nbt.transfer.outline import outline_of

        student = outline_of(task.backbone, task.image_size)
        facts[TLI_SIMILARITY] = round(tli_similarity(student, outline_of(task.teacher.spec)), 4)
    return facts


def _open(stack: ExitStack, plan: _Plan, task: Task, observers: Sequence[StudyObserver]) -> _Run:
    """Opens what a search holds, in an order in which nothing is written before everything given was checked."""
    from nbt.search.observers import Observers
    from nbt.search.storage import open_study, resolve_storage
    from nbt.search.target import Target

    facts = _facts(task)
    url = resolve_storage(plan.storage)
    engine = plan.engine.make(task)
    store = stack.enter_context(
        open_study(
            url,
            plan.config,
            budget=plan.budget.text,
            pruner=plan.pruner,
            dataset=facts,
            notes=_notes(task),
            fresh=plan.fresh,
        )
    )
    _measure_fit(task, store, plan.progress)
    target = Target.of(facts, store.record().profile, plan.config.epochs)
    return _Run(plan, store, engine, _steer(plan, target), Observers(observers))


@dataclass(frozen=True, eq=False)
class _Steering:
    """Who proposes settings and who stops trials.

    Attributes:
        pruner: Who stops trials.
        guide: Who guides the proposals; plain TPE makes them when None.
    """

    pruner: Pruner
    guide: Guide | None

    def arguments(self, space: Space) -> dict[str, Any]:
        """Returns what the brain needs of it."""
        from nbt.search.guided import recommend
        from nbt.search.learned import sampler

        if self.guide is None:
            return {"pruner": self.pruner}
        guide = self.guide
        return {
            "pruner": self.pruner,
            "sampler": lambda seed: sampler(guide, seed),
            "recommended": [("profile and experience", recommend(guide, space))],
        }


def _learn(folder: str | Path | None, space: Space) -> Learned:
    from nbt.search.experience_folder import load_experience
    from nbt.search.learned import Learned

    return Learned(load_experience(folder, space))


def _steer(plan: _Plan, target: Target) -> _Steering:
    from nbt.search.pruner import make_pruner

    length, learned = plan.config.epochs, plan.learned
    if plan.pruner == "fit" and learned is not None:
        pruner = learned.pruner(target, length=length, seed=plan.config.seed)
    else:
        pruner = make_pruner(plan.pruner, length)
    guided = plan.heuristics and learned is not None
    return _Steering(pruner, learned.guide(target, plan.space) if guided and learned is not None else None)


def _measure_fit(task: Task, store: StudyStore, progress: Progress | None) -> None:
    """Stores the fit profile of a study that has none; a search that cannot have one says so and goes on."""
    if store.record().profile is not None:
        return
    from nbt.fit.profile import profile_fit

    try:
        profile = profile_fit(task, seed=task.seed, progress=progress)
    except Exception as error:  # whatever it is, it must not cost the search
        _log.debug("fit profile", exc_info=error)
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        store.add_note(f"How well the pretrained weights fit could not be measured ({reason}); nothing rests on it")
    else:
        store.put_profile(profile.to_dict())


def _notes(task: Task) -> list[str]:
    unreadable = task.images.unreadable
    if not unreadable:
        return []
    named = ", ".join(unreadable[:5]) + (", ..." if len(unreadable) > 5 else "")
    return [f"{len(unreadable)} images could not be read and were left out: {named}"]


@dataclass(frozen=True, eq=False)
class _Run:
    """An open study with everything that works on it."""

    plan: _Plan
    store: StudyStore
    engine: Engine
    steering: _Steering
    observers: StudyObserver

    def to_end(self) -> SearchResult:
        """Runs all phases. Whatever ends it early, the report and MLflow get what there is."""
        from nbt.report import write_report

        name = self.store.config.name
        try:
            self._phases((self.plan.out / name / "model").resolve())
        except BaseException:
            # What ended it is the news; a storage that is gone as well must not hide it.
            with suppress(NbtError):
                record = self.store.record()
                if record.trials:
                    write_report(record, self.plan.out)
                    self.observers.study_finished(record)
            raise
        record = self.store.record()
        path = write_report(record, self.plan.out)
        self.observers.study_finished(record)
        return SearchResult(record, path.resolve())

    def _arguments(self) -> dict[str, Any]:
        """Returns what the brain needs to know of proposals and pruning, an injection that a user would run first."""
        found = self.steering.arguments(self.plan.space)
        teacher, epochs = self.plan.config.teacher, self.plan.config.epochs
        if teacher is not None:
            settings = repair(TransferSettings(init="inject", teacher=teacher, epochs=epochs))
            found["recommended"] = [("injection", settings), *found.get("recommended", [])]
        return found

    def _stream_arguments(self) -> dict[str, Any]:
        """Returns what the brain needs to know of a search over streams of tasks."""
        from nbt.search.stream import DistinctSampler, stream_anchors

        config, space = self.store.config, self.plan.space
        return {
            "pruner": self.steering.pruner,
            "first": stream_anchors(config.epochs, str(config.scenario)),
            "sampler": lambda seed: DistinctSampler(space, length=config.epochs, seed=seed),
        }

    def _phases(self, export: Path) -> None:
        from nbt.search.brain import Brain
        from nbt.search.finals import Finals
        from nbt.search.retrain import Retrain
        from nbt.search.storage import study_folder

        checkpoints = study_folder(self.store.config.name) / "checkpoints"
        config = self.store.config
        brain = Brain(
            self.store,
            self.plan.space,
            budget=self.plan.budget,
            checkpoints=checkpoints,
            observers=[self.observers],
            **(self._arguments() if config.scenario is None else self._stream_arguments()),
        )
        try:
            self.engine.run(brain)
        finally:
            brain.close()
            self._review()
        if not any(trial.state == "complete" and not trial.diverged for trial in self.store.record().trials):
            raise NbtError(
                f"study {self.store.config.name}: no trial ran to its end with a finite loss within the budget of "
                f"{self.plan.budget.text}; give it more, or fewer --epochs"
            )
        self.engine.run(
            Finals(self.store, seeds=self.plan.final_seeds, checkpoints=checkpoints, observers=[self.observers])
        )
        # What a stream leaves behind is no model to predict with, but a way to learn.
        last = Retrain(self.store, export=None if config.scenario else export, checkpoints=checkpoints)
        self.engine.run(_Watched(last, self.plan.progress))

    def _review(self) -> None:
        """Stores what guided the search and what its trials made of it."""
        from nbt.search.review import review

        if self.steering.guide is None:
            return
        try:
            self.store.put_guide(review(self.steering.guide, self.store.record().trials))
        except (
            Exception
        ) as error:  # it is for the report alone, and must neither cost the search nor hide what ended it
            _log.warning("what guided the search could not be written down: %s", error)


class _Seeds:
    """Runs of one recipe with several seeds, then one on train + validation: the job source of `train`."""

    def __init__(self, settings: TransferSettings, seeds: int, first: int, export: Path | None) -> None:
        from nbt.training.results import TrialJob

        self._waiting = [
            TrialJob(key=f"seed-{seed}", settings=settings, seed=seed, split_seed=seed)
            for seed in range(first, first + seeds)
        ]
        self._waiting.append(
            TrialJob(
                key="train-on-all",
                settings=settings,
                seed=first,
                train_on_all=True,
                evaluate_test=True,
                export=export,
            )
        )
        self.settings = settings
        self.outcomes: dict[str, TrialOutcome] = {}
        self.jobs = tuple(self._waiting)

    def next_job(self) -> TrialJob | None:
        """Returns the next run."""
        return self._waiting.pop(0) if self._waiting else None

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Never stops a run."""
        return None

    def on_done(self, job: TrialJob, outcome: TrialOutcome) -> None:
        """Keeps an outcome.

        Raises:
            NbtError: The run failed, or its loss left the finite numbers.
        """
        if outcome.error is not None:
            raise NbtError(f"{job.key}: {outcome.error}")
        if outcome.diverged:
            raise NbtError(f"{job.key}: the loss left the finite numbers in epoch {outcome.curve[-1].epoch}")
        self.outcomes[job.key] = outcome

    def on_abandoned(self, job: TrialJob) -> None:
        """Takes a run back."""
        self._waiting.insert(0, job)


def train(
    task: Task | str | Path,
    settings: TransferSettings | None = None,
    *,
    seeds: int = 1,
    export: Path | None = None,
    **options: Unpack[TaskOptions],
) -> TrainResult:
    """Trains with known settings: `seeds` validated runs, then one on train + validation that is tested once.

    Args:
        task: As in `search`.
        settings: The recipe; the default recipe when None.
        seeds: Validated runs, with the seeds from the task's own on, each with a train/validation split of its own.
        export: Folder to write the tested model to; it has the task's seed.
        **options: As in `search`.

    Raises:
        UsageError: Something given is wrong.
        NbtError: A run failed.
    """
    from nbt.search.engines.local import LocalEngine
    from nbt.search.stats import accuracy_interval, wilson_interval

    check_counts(seeds=seeds)
    given = as_task(task, options)
    recipe = settings or TransferSettings()
    from nbt.training.recipe import check_recipe

    check_recipe(recipe, len(given.split.train))
    source = _Seeds(repair(recipe), seeds, given.seed, export)
    with LocalEngine(given) as engine:
        engine.run(_Watched(source, options.get("progress")))
    last = source.outcomes["train-on-all"]
    if last.test_accuracy is None:
        raise NbtError("the model was trained but not tested")
    runs = tuple(
        SeedRun(seed=job.seed, curve=source.outcomes[job.key].curve) for job in source.jobs if not job.train_on_all
    )
    n_test = len(given.split.test)
    test = TestRecord(
        name="test", accuracy=wilson_interval(last.test_accuracy, n_test), loss=_finite(last.test_loss), n=n_test
    )
    return TrainResult(source.settings, runs, accuracy_interval([run.val_accuracy for run in runs]), test, export)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


class _Watched:
    """A job source that tells a progress callback of every epoch."""

    def __init__(self, source: JobSource, progress: Progress | None) -> None:
        self._source, self._progress = source, progress
        self.next_job = source.next_job
        self.on_done = source.on_done
        self.on_abandoned = source.on_abandoned

    def on_epoch(self, job: TrialJob, result: EpochResult) -> str | None:
        """Passes an epoch on."""
        if self._progress is not None:
            self._progress(f"training: {job.key}", result.epoch, job.settings.epochs)
        return self._source.on_epoch(job, result)


def fit(
    dataset: str | Path,
    backbones: Sequence[tuple[str | None, str | Path]] = ((None, "default"),),
    *,
    samples: int | None = None,
    source_data: str | Path | None = None,
    **options: Unpack[TaskOptions],
) -> list[FitProfile]:
    """Measures how well several backbones fit one dataset, before any training; see `nbt.profile_fit`.

    Args:
        dataset: As in `load_task`.
        backbones: Each with its weights, see `TaskOptions`.
        samples: Training images to look at, at most; see `nbt.profile_fit`.
        source_data: Folder of the images that the weights were trained on, for the similarity of the classes.
        **options: The rest of the task's; `backbone` and `weights` come from `backbones`.

    Returns:
        One profile a backbone, in the order given.

    Raises:
        UsageError: Something given is wrong; also a sample smaller than the number of classes.
        NbtError: Something cannot be fetched or written.
    """
    from nbt.fit.profile import profile_fit
    from nbt.fit.source import source_class_means

    seed, progress = options.get("seed", 0), options.get("progress")
    profiles = []
    for backbone, weights in backbones:
        chosen: TaskOptions = {**options, "backbone": backbone, "weights": weights}
        task = load_task(dataset, **chosen)
        means = None
        if source_data is not None:
            means = source_class_means(task, source_data, seed=seed, progress=progress)
        try:
            profiles.append(profile_fit(task, samples=samples, seed=seed, source_means=means, progress=progress))
        except ValueError as error:
            raise UsageError(f"--{error}" if str(error).startswith("samples:") else str(error)) from error
    return profiles


@dataclass(frozen=True)
class Recommendation:
    """What profile and experience suggest before any training.

    Attributes:
        settings: The recipe.
        guide: What it rests on, see `nbt.search.guide.Guide.explain`.
    """

    settings: TransferSettings
    guide: Mapping[str, Any]


def recommend(
    profile: FitProfile,
    *,
    space: str | Path = "non_binary",
    epochs: int = 12,
    experience: str | Path | None = None,
) -> Recommendation:
    """Returns the settings that a fit profile and recorded tasks suggest; a search runs them after the anchors.

    Args:
        profile: From `fit` or `nbt.profile_fit`.
        space: Name or file of the search space.
        epochs: Length of the training.
        experience: Folder of recorded tables; those that come with nbt when None.

    Raises:
        UsageError: Something given is wrong.
    """
    from nbt.search.applicable import everywhere
    from nbt.search.guided import recommend as choose
    from nbt.search.space import Space
    from nbt.search.target import Target

    check_counts(epochs=epochs)
    chosen = everywhere(Space.load(space))
    guide = _learn(experience, chosen).guide(Target.of({}, profile.to_dict(), epochs), chosen)
    return Recommendation(choose(guide, chosen), guide.explain())


def predict(model_dir: Path, images: Sequence[Path]) -> list[Prediction]:
    """Classifies images with an exported model; see `nbt.training.export.predict`."""
    from nbt.training.export import predict as classify

    return classify(model_dir, images)


def report(study: str, storage: str | None = None, out: str | Path = "reports") -> Path:
    """Writes a study's report from the storage; returns the HTML file.

    Raises:
        UsageError: There is no such study.
    """
    from nbt.report import write_report
    from nbt.search.storage import read_study, resolve_storage

    return write_report(read_study(resolve_storage(storage), study), Path(out)).resolve()


def sync(
    study: str, storage: str | None = None, tracking_uri: str | None = None, out: str | Path = "reports"
) -> dict[str, int]:
    """Writes a study's MLflow runs from the storage; returns how many were written and how many were there.

    The report in `out`, where there is one, is added to the study's run.

    Raises:
        UsageError: There is no such study, or the URI is none.
        NbtError: The tracking server cannot be reached.
    """
    from nbt.search.storage import read_study, resolve_storage
    from nbt.tracking import sync as write_runs

    return write_runs(read_study(resolve_storage(storage), study), tracking_uri, reports=Path(out).resolve())


def studies(storage: str | None = None) -> list[dict[str, Any]]:
    """Returns a line for each study in the storage, see `nbt.search.records.StudySummary`."""
    from nbt.search.storage import list_studies, resolve_storage

    return [dataclasses.asdict(summary) for summary in list_studies(resolve_storage(storage))]
