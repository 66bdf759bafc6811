"""What nbt does, one function for each command and for Python: it puts the rooms below together."""

from __future__ import annotations

from nbt.pipeline.finished import predict, report, studies, sync
from nbt.pipeline.fitting import Recommendation, fit, recommend
from nbt.pipeline.loading import Progress, TaskOptions, as_task, load_task
from nbt.pipeline.results import SearchResult, TrainResult
from nbt.pipeline.searching import search
from nbt.pipeline.training import train

__all__ = [
    "Progress",
    "Recommendation",
    "SearchResult",
    "TaskOptions",
    "TrainResult",
    "as_task",
    "fit",
    "load_task",
    "predict",
    "recommend",
    "report",
    "search",
    "studies",
    "sync",
    "train",
]
