"""MLflow tracking: the record of a study or stream as MLflow runs.

A study is a run, its trials are child runs of it, and final runs are children of the trial whose settings they repeat
(of the study if no trial ran them). Every run has the tags `nbt.study` (its study), `nbt.key` (its key within the
study) and, written last, `nbt.content` (a hash of its content). Writing a record again therefore finds existing runs,
adds what is missing, and creates no duplicates. MLflow can add to a run but not remove from it, so a run that
contradicts the record is written anew and the old one is deleted.

The study storage is the source of truth and MLflow a projection of it: an unreachable server causes a warning but never
fails a trial, and missing runs are written when it is reachable again. Importing this package does not import mlflow,
which takes seconds.
"""

from __future__ import annotations

from nbt.tracking.client import open_store
from nbt.tracking.connection import TrackingConnection
from nbt.tracking.run_store import RunOwner, RunStore
from nbt.tracking.study_tracker import Tracker, sync
from nbt.tracking.uris import default_uri, may_have_runs, resolve_uri
from nbt.uris import redact_uri

__all__ = [
    "TrackingConnection",
    "RunOwner",
    "RunStore",
    "Tracker",
    "default_uri",
    "may_have_runs",
    "open_store",
    "resolve_uri",
    "redact_uri",
    "sync",
]
