"""`nbt.api.continual`: small task streams with real images and training, stored, resumed and compared."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nbt
from nbt import api
from nbt.errors import NbtError, UsageError
from nbt.settings import TransferSettings
from nbt.settings.continual import METHODS, SCENARIOS, method_overrides
from nbt.task.task import Task
from nbt.training.continual.results import TaskScore
from nbt.tuning.storage.stream_record import StreamConfig, StreamRecord

VARYING = ("seconds", "started", "report")
UNREACHABLE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def task() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=4)", weights="none", shots=12)


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def quick(*methods: str, scenario: str = "class", **changes: Any) -> dict[str, TransferSettings]:
    recipes = {name: TransferSettings(**{**method_overrides(name, scenario), "epochs": 1}) for name in methods}
    return {name: recipe.replace(**changes) for name, recipe in recipes.items()}


def learn(task: Task, **changes: Any) -> api.ContinualOutcome:
    arguments: dict[str, Any] = {
        "scenario": "class",
        "methods": quick("finetune"),
        "tasks": 2,
        "tracking_uri": UNREACHABLE,
    }
    return api.continual(task, **{**arguments, **changes})


class RecordingObserver(api.StreamObserver):
    def __init__(self, stop_after: int | None = None) -> None:
        self.events: list[tuple[Any, ...]] = []
        self.stop_after = stop_after
        self.progress: dict[tuple[str, int], list[tuple[str, int, int]]] = defaultdict(list)

    def stream_progress(self, config: StreamConfig, label: str, done: int, total: int) -> None:
        if (label, done, total) not in self.progress[config.method, config.seed]:
            self.progress[config.method, config.seed].append((label, done, total))

    def streams_planned(self, configs: Sequence[StreamConfig], memory: Mapping[str, Any]) -> None:
        self.events.append(("planned", len(configs), sorted(memory)))

    def stream_started(self, config: StreamConfig, scores: Sequence[TaskScore]) -> None:
        self.events.append(("started", config.method, config.seed, len(scores)))

    def task_finished(self, config: StreamConfig, score: TaskScore) -> None:
        self.events.append(("task", config.method, score.task))
        if self.stop_after is not None and sum(event[0] == "task" for event in self.events) > self.stop_after:
            raise KeyboardInterrupt

    def stream_finished(self, record: StreamRecord, *, kept: bool) -> None:
        self.events.append(("finished", record.config.method, record.config.seed, kept))


@pytest.mark.parametrize("is_file", [True, False])
def test_what_is_in_the_way_of_the_report_is_found_before_the_training(
    task: Task, own_folder: Path, is_file: bool
) -> None:
    path = learn(task).report_path
    (own_folder / ".nbt").rename(own_folder / "other")
    path.rename(own_folder / "kept.html")
    if is_file:
        path.parent.rename(own_folder / "report")
        path.parent.touch()
    else:
        path.mkdir()
    observer = RecordingObserver()
    with pytest.raises(UsageError, match=r"--out .*(is no folder|that is a folder)"):
        learn(task, observer=observer)
    assert observer.events == []


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if key not in VARYING}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def test_methods_learn_the_same_streams_in_the_order_of_the_seeds(task: Task, own_folder: Path) -> None:
    observer = RecordingObserver()
    outcome = learn(task, methods=quick("finetune", "probe"), seeds=2, observer=observer)
    assert observer.events[0] == ("planned", 4, [])
    order = [event[1:] for event in observer.events if event[0] == "finished"]
    assert order == [("finetune", 0, False), ("probe", 0, False), ("finetune", 1, False), ("probe", 1, False)]
    finetune, probe = outcome.comparison.methods
    for stream, other in zip(finetune.streams, probe.streams, strict=True):
        assert stream.result.class_order == other.result.class_order
        assert stream.images == other.images
    assert finetune.streams[0].result.class_order != finetune.streams[1].result.class_order
    assert outcome.report_path.parent == own_folder / "reports" / outcome.comparison.name
    assert json.loads(outcome.report_path.with_name("stream.json").read_text())["seeds"] == [0, 1]


def test_finished_streams_are_not_repeated(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    from nbt.training.worker import context as worker_context

    first = learn(task)
    monkeypatch.setattr(worker_context, "WorkerContext", None)
    observer = RecordingObserver()
    again = learn(task, observer=observer)
    assert observer.events[1:] == [("finished", "finetune", 0, True)]
    assert again.to_json() == first.to_json()


def test_another_call_reuses_finished_streams(task: Task) -> None:
    learn(task)
    observer = RecordingObserver()
    learn(task, methods=quick("finetune", "probe"), observer=observer)
    assert [event for event in observer.events if event[0] == "started"] == [("started", "probe", 0, 0)]


def test_fresh_repeats_finished_streams(task: Task) -> None:
    first = learn(task)
    observer = RecordingObserver()
    again = learn(task, fresh=True, observer=observer)
    assert ("started", "finetune", 0, 0) in observer.events
    assert without_times(again.to_json()) == without_times(first.to_json())


@pytest.mark.parametrize("method", ["ewc", "dlcft"])
def test_an_interrupted_stream_is_resumed(task: Task, method: str, own_folder: Path) -> None:
    methods = quick(method)
    whole = learn(task, methods=methods, tasks=3, out="whole")
    with pytest.raises(KeyboardInterrupt):
        learn(task, methods=methods, tasks=3, fresh=True, observer=RecordingObserver(stop_after=1))
    assert not (own_folder / "reports").exists()
    observer = RecordingObserver()
    again = learn(task, methods=methods, tasks=3, observer=observer)
    assert ("started", method, 0, 2) in observer.events
    assert [event for event in observer.events if event[0] == "task"] == [("task", method, 3)]
    assert without_times(again.to_json()) == without_times(whole.to_json())


def test_a_stream_without_its_checkpoint_starts_again(task: Task) -> None:
    with pytest.raises(KeyboardInterrupt):
        learn(task, tasks=3, observer=RecordingObserver(stop_after=1))
    [checkpoint] = Path(".nbt/streams").glob("*/checkpoint.pt")
    checkpoint.unlink()
    observer = RecordingObserver()
    learn(task, tasks=3, observer=observer)
    assert ("started", "finetune", 0, 0) in observer.events
    assert sum(event[0] == "task" for event in observer.events) == 3


def test_streams_on_several_workers_have_the_same_results(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = quick("finetune", "dlcft")
    alone = learn(task, methods=methods, seeds=2, out="alone")
    observer = RecordingObserver()
    together = learn(task, methods=methods, seeds=2, workers=2, fresh=True, observer=observer)
    assert without_times(together.to_json()) == without_times(alone.to_json())
    for event in ("started", "finished"):
        assert len({entry[1:3] for entry in observer.events if entry[0] == event}) == 4
    assert sum(entry[0] == "task" for entry in observer.events) == 8
    assert observer.progress["finetune", 0] == [("task 1 of 2", 1, 2), ("task 2 of 2", 2, 2)]


def test_a_failed_stream_ends_the_command(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr("nbt.training.continual.run.make_stages", fail)
    with pytest.raises(NbtError, match=r"stream .*: RuntimeError: no such kernel"):
        learn(task)


def test_the_memory_is_reported_before_the_first_task(task: Task) -> None:
    observer = RecordingObserver()
    outcome = learn(task, methods=quick("ewc", "probe"), observer=observer)
    assert observer.events[0] == ("planned", 2, ["ewc"])
    ewc, probe = (runs.streams[0] for runs in outcome.comparison.methods)
    assert ewc.curvature_bytes > 1000
    assert probe.curvature_bytes == 0


def test_mlflow_has_one_run_per_stream_and_is_not_written_twice(task: Task, own_folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    from nbt.tracking import stream_tracker as tracking_streams

    uri = f"sqlite:///{own_folder / 'm.db'}"
    outcome = learn(task, methods=quick("finetune", "probe"), tracking_uri=uri)
    mlflow = MlflowClient(uri)
    runs = mlflow.search_runs([one.experiment_id for one in mlflow.search_experiments()])
    assert {run.info.run_name for run in runs} == {r.streams[0].config.name for r in outcome.comparison.methods}
    assert all("report.html" in [one.path for one in mlflow.list_artifacts(run.info.run_id)] for run in runs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking_streams, "open_store", None)
        learn(task, methods=quick("finetune", "probe"), tracking_uri=uri)


def test_other_images_under_the_same_name_are_rejected(task: Task) -> None:
    import dataclasses

    plain = dataclasses.replace(task, shots=None)
    learn(plain)
    other = dataclasses.replace(plain, fingerprint="another")
    with pytest.raises(UsageError, match="different images, labels or split"):
        learn(other)
    learn(other, fresh=True)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scenario": "domain"}, "scenario 'domain'"),
        ({"methods": ("dlcf",)}, "did you mean dlcft"),
        ({"methods": ()}, "method: none given"),
        ({"tasks": 6}, "the dataset has 5 classes"),
        ({"tasks": 1}, "a stream needs 2 or more"),
        ({"seeds": 0}, "seeds: 0 is not 1 or more"),
        ({"more": {"memory_bytes": 10}, "methods": quick("finetune", "ewc")}, "--memory"),
        ({"methods": quick("finetune", "dlcft", head_scale=0.0)}, "head_scale"),
        ({"tracking_uri": "coop://x"}, "neither a server nor a database"),
        ({"shots": 3}, "shots: a loaded task has its own"),
    ],
)
def test_wrong_input_is_rejected_before_anything_is_written(
    changes: dict[str, Any], message: str, task: Task, own_folder: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        learn(task, **changes)
    assert message in str(caught.value)
    assert list(own_folder.iterdir()) == []


def test_every_method_is_checked_in_every_scenario_without_torch() -> None:
    for scenario in SCENARIOS:
        for method in METHODS:
            [settings] = api.check_streams(scenario, (method,)).values()
            assert settings.scenario == scenario


def test_unwritable_folders_and_missing_weights_are_rejected_first(task: Task, own_folder: Path) -> None:
    (own_folder / "reports").write_text("mine")
    with pytest.raises(UsageError, match=r"^--out reports: .* is no folder"):
        learn(task)
    with pytest.raises(UsageError, match="needs a teacher"):
        learn(task, out="pages", methods=quick("finetune", init="inject"))
    assert [path.name for path in own_folder.iterdir()] == ["reports"]


@pytest.mark.parametrize("method", ["finetune", "dlcft", "probe"])
def test_the_model_of_a_stream_classifies_as_it_was_tested(task: Task, method: str, own_folder: Path) -> None:
    outcome = learn(task, methods=quick(method), export="model", progress=False)
    [stream] = outcome.comparison.methods[0].streams
    model = nbt.load_model("model", "cpu")
    found = model.evaluate(task, part="test")
    counts, accuracies = np.array(stream.images), np.array(stream.result.matrix[-1])
    assert found.metrics["accuracy"].mean == pytest.approx(float(counts @ accuracies / counts.sum()))
    assert model.metadata["test"]["images"] == found.n
    assert "not evaluated" not in (own_folder / "model" / "README.md").read_text()
    assert len(model.predict(task.images.array[:2])) == 2
    before = (own_folder / "model" / "weights.safetensors").read_bytes()
    learn(task, methods=quick(method), export="model", progress=False)
    assert (own_folder / "model" / "weights.safetensors").read_bytes() == before, "finished streams keep their model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ["finetune", "probe"]}, "2 streams have 2 models; give one --method and one seed"),
        ({"seeds": 3}, "3 streams have 3 models"),
        ({"scenario": "task", "methods": ["finetune"]}, "needs the task of each image"),
        ({"export": "."}, "is the working directory"),
    ],
)
def test_a_stream_without_a_single_model_is_refused(task: Task, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        learn(task, **{"export": "model", "progress": False, **changes})


def test_a_stream_that_was_finished_without_a_model_says_so(task: Task) -> None:
    learn(task, progress=False)
    with pytest.raises(UsageError, match="was finished earlier without a model; learn it again with --fresh"):
        learn(task, export="model", progress=False)
    learn(task, export="model", progress=False, fresh=True)
    assert nbt.load_model("model").class_names == task.class_names
