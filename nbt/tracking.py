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

import dataclasses
import getpass
import json
import logging
import math
import os
import re
import socket
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from nbt.errors import NbtError, UsageError, nearest
from nbt.report.choice import default_trial
from nbt.report.runs import (
    NAME_LENGTH,
    STATUS,
    STUDY_KEY,
    Point,
    RunSpec,
    experiment_name,
    seed_run,
    study_id,
    study_run,
    study_runs,
    trial_run,
)
from nbt.search.anchors import DEFAULT_RECIPE, default_recipe
from nbt.search.records import FinalRecord, Interval, SeedRun, StudyObserver, StudyRecord, TrialRecord

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

_log = logging.getLogger("nbt")

RETRY_SECONDS = 60.0
"""Pause after a server did not answer; longer where not answering took long, so that it costs a twentieth at most."""

_SERVERS = ("http", "https")
_PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
_DATABASES = ("sqlite", *_PORTS)
_PROBE_SECONDS = 3.0
# MLflow's own defaults wait for a dead server for minutes at every call, and print to stdout, which is for results.
_ENVIRONMENT = {
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
_CHATTY = {"mlflow.store.db.utils": "WARNING", "alembic": "WARNING", "urllib3.connectionpool": "ERROR"}
_METRICS_A_BATCH = 800
_PAIRS_A_BATCH = 100
_STUDY, _KEY, _CONTENT, _PARENT = "nbt.study", "nbt.key", "nbt.content", "mlflow.parentRunId"
_REPORT_FILES = ("report.html", "report.md", "recommended.yaml", "trials.csv")


# Where runs go


def default_uri(folder: str | Path = ".nbt") -> str:
    """Returns the URI of the SQLite file that is used when none is given: `mlflow.db` in `folder`, absolute."""
    return f"sqlite:///{Path(folder).absolute() / 'mlflow.db'}"


def resolve_uri(uri: str | None) -> str:
    """Returns a tracking URI in the form in which it means the same everywhere, without opening anything.

    Args:
        uri: A server (`http://`, `https://`), a database (`sqlite:///FILE`, `postgresql://...`), or None for
            `default_uri`. The path of an SQLite file is made absolute.

    Raises:
        UsageError: It is neither; the message shows no password.
    """
    if uri is None:
        return default_uri()
    try:
        parts = urlsplit(uri)
        scheme, host = parts.scheme.split("+")[0], parts.hostname
        _ = parts.port  # raises where it is none
    except ValueError as error:
        raise UsageError(f"tracking URI {shown_uri(uri)!r} is malformed ({error})") from error
    if scheme not in _SERVERS + _DATABASES:
        remedy = nearest(scheme, _SERVERS + _DATABASES) if "://" in uri else "a file is written sqlite:///FILE"
        raise UsageError(f"tracking URI {shown_uri(uri)!r} is neither a server nor a database; {remedy}")
    if scheme in _SERVERS and not host:
        raise UsageError(f"tracking URI {shown_uri(uri)!r} names no host; e.g. http://127.0.0.1:5000")
    return _absolute_sqlite(uri) if scheme == "sqlite" else uri


def shown_uri(uri: str) -> str:
    """Returns a URI as it may be shown: without a password."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def _absolute_sqlite(uri: str) -> str:
    prefix, slashes, path = uri.partition(":///")
    if not slashes or not path or path.startswith(":memory:"):
        raise UsageError(f"tracking URI {uri!r} names no file; e.g. sqlite:///mlflow.db")
    return f"{prefix}:///{Path(path).absolute()}"


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.partition(":///")[2]) if uri.startswith("sqlite") else None


def is_there(uri: str) -> bool:
    """Returns whether a store may have runs: an SQLite file may be missing, what else it is only asking would tell."""
    file = _sqlite_file(uri)
    return file is None or file.is_file()


def _artifact_location(uri: str) -> str | None:
    """Returns where artifacts go: beside an SQLite file; a server decides by itself; else under `.nbt/`."""
    if urlsplit(uri).scheme in _SERVERS:
        return None
    file = _sqlite_file(uri)
    return ((Path(".nbt").absolute() if file is None else file.parent) / "mlartifacts").as_uri()


def ui_command(uri: str | None, port: int) -> list[str]:
    """Returns the command that shows the runs in MLflow's pages, on this machine only.

    Args:
        uri: As for `resolve_uri`.
        port: Local port, 1 ... 65535.

    Raises:
        UsageError: The URI is of a server, which has pages of its own, or of an SQLite file that does not exist.
    """
    uri = resolve_uri(uri)
    if urlsplit(uri).scheme in _SERVERS:
        raise UsageError(f"{shown_uri(uri)} is a server with pages of its own: open it in a browser")
    file = _sqlite_file(uri)
    if file is not None and not file.is_file():
        raise UsageError(f"{file}: no runs have been written there yet; nbt search writes them")
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri]
    return [*command, "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]


# Writing


@dataclass
class _Known:
    """A run that MLflow has. `points` is read when it is first needed."""

    run_id: str
    name: str
    status: str
    params: dict[str, str]
    tags: dict[str, str]
    metric_keys: set[str]
    points: dict[tuple[str, int], float] | None = None


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose runs are written: a study's, or a stream's (`nbt.tracking_streams`).

    Attributes:
        id: Tells its runs from all others.
        experiment: Where they are.
        key: Of the run that the others are children of, and that has dataset and files.
        dataset: As the user named it.
        digest: Hash of its images, labels and split.
        data_dir: Where it is, if the user said so.
        facts: What is known of it.
    """

    id: str
    experiment: str
    key: str
    dataset: str
    digest: str
    data_dir: str | None
    facts: Mapping[str, Any]


def _owner(record: StudyRecord) -> Owner:
    return Owner(
        id=study_id(record),
        experiment=experiment_name(record),
        key=STUDY_KEY,
        dataset=record.config.dataset,
        digest=record.config.data_hash,
        data_dir=record.config.data_dir,
        facts=record.dataset,
    )


class RunStore:
    """The runs of one owner in one MLflow store.

    Args:
        client: MLflow's.
        uri: For the location of artifacts.
        owner: Whose.

    Raises:
        Exception: Whatever MLflow raises; so do all methods.
    """

    def __init__(self, client: MlflowClient, uri: str, owner: Owner) -> None:
        self._client, self._owner = client, owner
        self._experiment = self._open_experiment(owner.experiment, _artifact_location(uri))
        self._known = self._find()

    def write(self, spec: RunSpec) -> str:
        """Makes MLflow's run say what the spec says; the run of its parent has to be there.

        Returns:
            "written" (it is new), "updated" or "unchanged".
        """
        known = self._known.get(spec.key)
        if known is None:
            self._create(spec)
            return "written"
        if known.tags.get(_CONTENT) == spec.content and known.status == spec.status and self._is_at_home(known, spec):
            return "unchanged"
        if self._can_extend(known, spec):
            self._extend(known, spec)
        else:
            self._create(spec)
            self._client.delete_run(known.run_id)
            self._adopt(known.run_id, spec.key)
        return "updated"

    def log_files(self, files: Sequence[Path]) -> None:
        """Writes files to the owner's run, over those of the same name."""
        for file in files:
            self._client.log_artifact(self._known[self._owner.key].run_id, str(file))

    def log_profile(self, record: StudyRecord) -> None:
        """Writes the fit profile, where the study has one, to the study's run as `fit.json`."""
        if record.profile is not None:
            from nbt.report.write import FIT_FILE, fit_file  # pandas and the templates come with it

            self._client.log_text(self._known[self._owner.key].run_id, fit_file(record.profile), FIT_FILE)

    def _open_experiment(self, name: str, artifacts: str | None) -> str:
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            # The kind makes MLflow's pages open on runs, not on traces of language models.
            kind = {"mlflow.experimentKind": "custom_model_development"}
            return str(self._client.create_experiment(name, artifact_location=artifacts, tags=kind))
        if experiment.lifecycle_stage == "deleted":
            # MLflow keeps the name of a deleted experiment taken, so it is the only place to write to.
            self._client.restore_experiment(experiment.experiment_id)
        return str(experiment.experiment_id)

    def _find(self) -> dict[str, _Known]:
        """Returns the owner's runs by key; of two with one key, which a crash can leave, the whole one is kept."""
        found: dict[str, _Known] = {}
        token: str | None = None
        while True:
            text = f"tags.`{_STUDY}` = '{self._owner.id}'"
            page = self._client.search_runs([self._experiment], text, max_results=1000, page_token=token)
            for run in page:
                known = _read_run(run)
                key = known.tags.get(_KEY, "")
                other = found.get(key)
                if other is not None:
                    keep, spare = (other, known) if _CONTENT in other.tags else (known, other)
                    self._client.delete_run(spare.run_id)
                    known = keep
                found[key] = known
            token = page.token
            if not token:
                return found

    def _create(self, spec: RunSpec) -> None:
        tags = {
            _STUDY: self._owner.id,
            _KEY: spec.key,
            **({} if spec.parent is None else {_PARENT: self._known[spec.parent].run_id}),
            "mlflow.user": _user(),
            "mlflow.source.name": "nbt",
        }
        run = self._client.create_run(self._experiment, start_time=spec.started, tags=tags, run_name=spec.name)
        known = _Known(run.info.run_id, spec.name, "RUNNING", {}, dict(tags), set(), points={})
        self._known[spec.key] = known
        self._extend(known, spec)

    def _can_extend(self, known: _Known, spec: RunSpec) -> bool:
        """Tells whether all that the run says is in the spec: parameters and metrics can be added, not changed."""
        if any(spec.params.get(name) != value for name, value in known.params.items()):
            return False
        wanted = {(point.key, point.step): point.value for point in spec.metrics}
        return all(
            at in wanted and math.isclose(wanted[at], value, rel_tol=1e-9, abs_tol=1e-12)
            for at, value in self._points(known).items()
        )

    def _extend(self, known: _Known, spec: RunSpec) -> None:
        """Adds what the run lacks; the hash goes last, so that a run that has it has everything."""
        if spec.parent is None and _CONTENT not in known.tags:
            self._log_dataset(known.run_id)
        there = self._points(known)
        points = [point for point in spec.metrics if (point.key, point.step) not in there]
        params = {name: value for name, value in spec.params.items() if name not in known.params}
        tags = {name: value for name, value in spec.tags.items() if known.tags.get(name) != value}
        if spec.parent is not None:
            tags[_PARENT] = self._known[spec.parent].run_id
        tags[_CONTENT] = spec.content
        self._log(known.run_id, points, params, tags)
        known.params |= params
        known.tags |= tags
        there.update({(point.key, point.step): point.value for point in points})
        if known.name != spec.name:
            self._client.update_run(known.run_id, name=spec.name)
        if spec.ended is not None:
            self._client.set_terminated(known.run_id, status=spec.status, end_time=spec.ended)
        elif known.status != spec.status:
            self._client.update_run(known.run_id, status=spec.status)
        known.name, known.status = spec.name, spec.status

    def _log(self, run_id: str, points: Sequence[Point], params: Mapping[str, str], tags: Mapping[str, str]) -> None:
        """Writes in one batch, or in as few as MLflow's limits allow; the tags with the last."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [Metric(point.key, point.value, point.time, point.step) for point in points]
        pairs = [Param(name, value) for name, value in params.items()]
        marks = [RunTag(name, value) for name, value in tags.items()]
        while len(metrics) > _METRICS_A_BATCH or len(pairs) > _PAIRS_A_BATCH:
            self._client.log_batch(run_id, metrics[:_METRICS_A_BATCH], pairs[:_PAIRS_A_BATCH], [])
            metrics, pairs = metrics[_METRICS_A_BATCH:], pairs[_PAIRS_A_BATCH:]
        self._client.log_batch(run_id, metrics, pairs, marks)

    def _log_dataset(self, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        owner = self._owner
        local = owner.data_dir is not None or os.sep in owner.dataset
        dataset = Dataset(
            name=owner.dataset[-NAME_LENGTH:],
            digest=owner.digest[:36],
            source_type="local" if local else "nbt",
            source=json.dumps({"uri": owner.data_dir or owner.dataset}),
            profile=json.dumps(dict(owner.facts), default=str),
        )
        self._client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])

    def _points(self, known: _Known) -> dict[tuple[str, int], float]:
        if known.points is None:
            known.points = {
                (metric.key, metric.step): metric.value
                for key in sorted(known.metric_keys)
                for metric in self._client.get_metric_history(known.run_id, key)
            }
        return known.points

    def _is_at_home(self, known: _Known, spec: RunSpec) -> bool:
        return spec.parent is None or known.tags.get(_PARENT) == self._known[spec.parent].run_id

    def _adopt(self, old: str, key: str) -> None:
        """Gives the children of a run that was written anew to the new one."""
        for known in self._known.values():
            if known.tags.get(_PARENT) == old:
                self._client.set_tag(known.run_id, _PARENT, self._known[key].run_id)
                known.tags[_PARENT] = self._known[key].run_id


def _read_run(run: Any) -> _Known:
    return _Known(
        run_id=run.info.run_id,
        name=run.info.run_name,
        status=run.info.status,
        params=dict(run.data.params),
        tags=dict(run.data.tags),
        metric_keys=set(run.data.metrics),
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container whose user has no name
        return "unknown"


def open_store(uri: str, owner: Owner) -> RunStore:
    """Returns the owner's runs in a store, which is made where it is a new SQLite file.

    Raises:
        Exception: Whatever goes wrong, soon: a server that does not answer is asked once.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if urlsplit(uri).scheme in _SERVERS:
        _probe_server(uri)
    else:
        _probe_database(uri)
    from mlflow.tracking import MlflowClient

    for chatty, level in _CHATTY.items():
        logging.getLogger(chatty).setLevel(level)
    return RunStore(MlflowClient(tracking_uri=uri), uri, owner)


def _probe_server(uri: str) -> None:
    """Asks a server for any answer at all.

    Raises:
        OSError: There was none within seconds.
    """
    address = re.sub(r"://[^/@]*@", "://", uri).rstrip("/") + "/health"
    try:
        with urllib.request.urlopen(address, timeout=_PROBE_SECONDS):
            pass
    except urllib.error.HTTPError:
        pass  # it answers; whether it lets us in is for the real calls to find out
    except urllib.error.URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # requests may know certificates that we do not
            raise


def _probe_database(uri: str) -> None:
    """Connects to a database once: MLflow itself tries for two minutes.

    Raises:
        Exception: It cannot be connected to, or its driver is missing.
    """
    import sqlalchemy

    parts, file = urlsplit(uri), _sqlite_file(uri)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
    engine = sqlalchemy.create_engine(uri)
    try:
        if parts.hostname:
            port = parts.port or _PORTS[parts.scheme.split("+")[0]]
            socket.create_connection((parts.hostname, port), timeout=_PROBE_SECONDS).close()
        sqlalchemy.inspect(engine)
    finally:
        engine.dispose()


def sync(record: StudyRecord, uri: str | None = None, *, reports: str | Path | None = None) -> dict[str, int]:
    """Writes the runs of a study that are missing or out of date; called again, it changes nothing.

    Args:
        record: The study.
        uri: As for `resolve_uri`.
        reports: Folder of reports; the study's, where there is one, is added to its run.

    Returns:
        How many runs were "written", "updated" and "unchanged".

    Raises:
        UsageError: The URI is malformed.
        NbtError: The store cannot be written.
    """
    uri = resolve_uri(uri)
    try:
        store = open_store(uri, _owner(record))
        counts = _write_all(store, study_runs(record))
        store.log_profile(record)
        store.log_files(_report_files(record, reports))
    except Exception as error:
        remedy = "check that it runs, or give another --tracking-uri"
        raise NbtError(f"MLflow at {shown_uri(uri)} cannot be written ({_reason(error)}); {remedy}") from error
    return counts


def _write_all(store: RunStore, specs: Sequence[RunSpec]) -> dict[str, int]:
    counts = {"written": 0, "updated": 0, "unchanged": 0}
    for spec in specs:
        counts[store.write(spec)] += 1
    return counts


def _report_files(record: StudyRecord, reports: str | Path | None) -> list[Path]:
    if reports is None:
        return []
    from nbt.report import report_folder  # pandas and the templates come with it

    folder = report_folder(reports, record.config.name)
    return [folder / name for name in _REPORT_FILES if (folder / name).is_file()]


def _reason(error: BaseException) -> str:
    """Returns one line on an error: what the network or disk said where that is the cause, else the error itself."""
    cause, chain = error, [error]
    while (deeper := cause.__cause__ or cause.__context__) is not None:
        cause = deeper
        chain.append(cause)
    told = next((one for one in reversed(chain) if isinstance(one, OSError)), error)
    text = shown_uri(" ".join(str(told).split()))[:200]
    return f"{type(told).__name__}: {text}" if text else type(told).__name__


class Contact:
    """Who asks a store again that did not answer: seldom, and with one warning.

    Args:
        uri: Resolved.
        retry_seconds: The least time between two attempts.
        clock: Seconds; for tests.
    """

    def __init__(
        self, uri: str, *, retry_seconds: float = RETRY_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.uri = uri
        self._retry_seconds, self._clock = retry_seconds, clock
        self._down = False
        self._next_attempt = -math.inf

    @property
    def due(self) -> bool:
        """Whether it is time to ask again."""
        return self._clock() >= self._next_attempt

    def hurry(self) -> None:
        """Makes it due now."""
        self._next_attempt = -math.inf

    def attempt(self, write: Callable[[], None], lost: str) -> bool:
        """Writes, whatever comes of it.

        Args:
            write: May raise anything.
            lost: What a warning says of it: "the search goes on, ...".

        Returns:
            Whether it was written.
        """
        began = self._clock()
        try:
            write()
        except Exception as error:  # a tracking server must not cost a training
            self._next_attempt = self._clock() + max(self._retry_seconds, 20 * (self._clock() - began))
            if not self._down:
                self._down = True
                _log.warning("MLflow at %s cannot be written (%s); %s", shown_uri(self.uri), _reason(error), lost)
            _log.debug("MLflow", exc_info=error)
            return False
        if self._down:
            self._down = False
            _log.info("MLflow at %s answers again; what it missed is written", shown_uri(self.uri))
        return True


class Tracker(StudyObserver):
    """Writes a study to MLflow while it runs; whatever MLflow does, the search goes on.

    A trial is written once, when it ends. Where that fails, one warning says so, and the whole study is written again
    from what is known of it: when MLflow answers again (it is asked at most once in `retry_seconds`), and at the end.

    Args:
        uri: As for `resolve_uri`.
        reports: Folder of reports; the study's own is added to its run at the end.
        retry_seconds: The least time between two attempts to reach a server that did not answer.
        clock: Seconds; for tests.

    Raises:
        UsageError: The URI is malformed.
    """

    def __init__(
        self,
        uri: str | None = None,
        *,
        reports: str | Path | None = None,
        retry_seconds: float = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uri = resolve_uri(uri)
        self._reports = reports
        self._contact = Contact(self.uri, retry_seconds=retry_seconds, clock=clock)
        self._record: StudyRecord | None = None
        self._store: RunStore | None = None
        self._live = True

    @property
    def pending(self) -> bool:
        """Whether MLflow lacks something that is known."""
        return self._record is not None and self._store is None

    def study_started(self, record: StudyRecord) -> None:
        """Writes the study, and what an earlier search could not."""
        self._record, self._store, self._live = record, None, True
        self._write()

    def trial_finished(self, trial: TrialRecord) -> None:
        """Writes a trial and how far the study is."""
        if self._record is None or trial.state not in STATUS:
            return
        others = [other for other in self._record.trials if other.number != trial.number]
        trials = sorted([*others, trial], key=lambda one: one.number)
        record = self._record = dataclasses.replace(self._record, trials=tuple(trials))
        self._write(lambda: [trial_run(record, trial), study_run(record, live=True)])

    def final_run_finished(self, candidate: str, run: SeedRun) -> None:
        """Writes a final run."""
        final = None if self._record is None else _grown_final(self._record, candidate, run)
        if self._record is None or final is None:
            return
        others = [other for other in self._record.finals if other.name != candidate]
        record = self._record = dataclasses.replace(self._record, finals=(*others, final))
        self._write(lambda: [seed_run(record, final, run)])

    def study_finished(self, record: StudyRecord) -> None:
        """Writes everything that is not there yet, and the report's files."""
        self._record, self._live = record, False
        self._contact.hurry()
        self._write(lambda: study_runs(record), files=_report_files(record, self._reports))

    def _write(self, specs: Callable[[], list[RunSpec]] | None = None, *, files: Sequence[Path] = ()) -> None:
        """Writes some runs; all that are known where the last attempt failed. Never raises.

        Args:
            specs: Makes the runs to write where the store is open; None writes all.
            files: Go to the study's run.
        """
        record = self._record
        if record is None or (self._store is None and not self._contact.due):
            return
        opened = self._store
        self._store = None

        def write() -> None:
            if opened is None or specs is None:
                store, wanted = open_store(self.uri, _owner(record)), study_runs(record, live=self._live)
            else:
                store, wanted = opened, specs()
            _write_all(store, wanted)
            if store is not opened:
                store.log_profile(record)
            store.log_files(files)
            self._store = store

        lost = "the search goes on, its runs are kept and written when it answers again, or by: nbt sync "
        self._contact.attempt(write, lost + record.config.name)


def _grown_final(record: StudyRecord, candidate: str, run: SeedRun) -> FinalRecord | None:
    """Returns a finalist with one more run; None where the candidate is not known.

    Its interval is a placeholder: runs do not show it, and the record at the end has the real one.
    """
    if candidate == DEFAULT_RECIPE:
        trial, settings = default_trial(record), default_recipe(record.config.epochs)
    else:
        trial = next((t for t in record.trials if f"trial {t.number}" == candidate), None)
        if trial is None:
            return None
        settings = trial.settings
    final = record.final(candidate)
    runs = () if final is None else final.runs
    return FinalRecord(
        name=candidate,
        trial=None if trial is None else trial.number,
        settings=settings,
        runs=(*(other for other in runs if other.seed != run.seed), run),
        validation=Interval(mean=run.val_accuracy, low=None, high=None, n=1),
    )


__all__ = [
    *("Contact", "Owner", "RunStore", "is_there", "open_store"),
    *("Tracker", "default_uri", "resolve_uri", "shown_uri", "sync", "ui_command"),
]
