"""Functions behind the commands, shared by the command line and Python; they combine the packages of lower layers."""

from __future__ import annotations

from nbt.api._check import CheckedDataset, check, check_dataset
from nbt.api._continual import ContinualOutcome, check_streams, continual
from nbt.api._evaluate import evaluate
from nbt.api._export import export
from nbt.api._fit import Recommendation, fit, recommend
from nbt.api._load_task import TaskOptions, as_task, load_task
from nbt.api._predict import predict
from nbt.api._record import record, record_studies
from nbt.api._replay import replay, replay_curves
from nbt.api._search import search
from nbt.api._studies import compare, report, studies, study_recipe, sync
from nbt.api._train import train
from nbt.api.results import SearchResult, TrainResult
from nbt.tuning.storage.stream_record import StreamObserver

__all__ = [
    "CheckedDataset",
    "ContinualOutcome",
    "Recommendation",
    "SearchResult",
    "StreamObserver",
    "TaskOptions",
    "TrainResult",
    "as_task",
    "check",
    "check_dataset",
    "check_streams",
    "compare",
    "continual",
    "evaluate",
    "export",
    "fit",
    "load_task",
    "predict",
    "recommend",
    "record",
    "record_studies",
    "replay",
    "replay_curves",
    "report",
    "search",
    "studies",
    "study_recipe",
    "sync",
    "train",
]
