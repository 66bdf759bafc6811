"""MLflow, and nothing else: a study's record becomes runs that MLflow's own pages can compare.

A study is a run, its trials are that run's children, and the final runs are children of the trial whose recipe they
repeat (of the study where no trial ran it). Every run carries the tags `nbt.study` (which study), `nbt.key` (which run
of it) and, written last, `nbt.content` (a hash of what it says): so writing a record again finds what is there, adds
what is missing, and doubles nothing. MLflow can add to a run but not take back, so a run that says something else than
the record is written anew and the old one deleted.

The storage is the truth and MLflow a projection of it: an unreachable server costs a warning, never a trial, and what
it missed is written when it answers again. Importing this module does not import mlflow, which takes seconds.
"""

from __future__ import annotations

from nbt.tracking.client import open_store
from nbt.tracking.connection import TrackingConnection
from nbt.tracking.run_store import RunOwner, RunStore
from nbt.tracking.study_tracker import Tracker, sync
from nbt.tracking.uris import default_uri, may_have_runs, resolve_uri, ui_command
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
    "ui_command",
]
