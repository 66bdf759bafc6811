"""What must hold after a fault and a resume: nothing lost, counted twice or left behind, and equal results."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any

from faults.forked import call
from faults.process import Process
from faults.search import BUDGET, EPOCHS, STUDY, Search
from tests.tuning.engines.processes import find_processes, process_title

_ORPHAN_SECONDS = 20.0


def state_of(search: Search) -> dict[str, Any] | None:
    """Returns what the database says about the study, in JSON types; None if it has no study yet.

    Left out are trials that were interrupted or that a later trial runs again (their equal failures ended the search),
    and the numbers of trials, which depend on both.
    """
    return call(_state_of, search)  # type: ignore[no-any-return]


def _state_of(search: Search) -> dict[str, Any] | None:
    from nbt.training.export.model_folder import WEIGHTS_FILE
    from nbt.tuning.storage import codec
    from nbt.tuning.storage.studies import find_study

    os.chdir(search.work)
    record = find_study(search.url, STUDY)
    if record is None:
        return None
    repeated = {trial.facts.get("continues") for trial in record.trials}
    ended = [t for t in record.trials if t.end not in ("interrupted", "running") and t.number not in repeated]
    predictions = {name: record.test_predictions(name) for name in ("recommended", "baseline")}
    weights = search.report / "model" / WEIGHTS_FILE
    state = {
        "trials": [
            {
                "settings": trial.settings.to_dict(),
                "origin": trial.origin,
                "state": trial.state,
                "reason": trial.reason,
                "curve": [_values(result) for result in trial.curve],
                "forecast": trial.forecast,
            }
            for trial in ended
        ],
        "running": sum(trial.state == "running" for trial in record.trials),
        "spent": record.epochs_spent,
        "cost": round(record.budget_spent, 6),
        "length": sum(len(trial.curve) for trial in ended),
        "finals": [
            {
                "settings": final.settings.to_dict(),
                "dropped": final.dropped,
                "runs": [[run.seed, run.fold, [_values(result) for result in run.curve]] for run in final.runs],
            }
            for final in record.finals
        ],
        "recommended": None if record.recommended is None else record.final(record.recommended).settings.to_dict(),  # type: ignore[union-attr]
        "tests": {test.name: [test.accuracy.mean, test.loss, test.n] for test in record.test},
        "test_evaluations": record.test_evaluations,
        "predictions": {
            name: hashlib.sha256(found.to_bytes()).hexdigest() for name, found in predictions.items() if found
        },
        "profile": record.profile and {k: v for k, v in record.profile.items() if k not in ("seconds", "facts")},
        "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if weights.exists() else None,
    }
    return json.loads(json.dumps(codec.to_json(state)))  # type: ignore[no-any-return]


def _values(result: Any) -> list[Any]:
    values = result.to_dict()
    return [values[name] for name in sorted(values) if not name.endswith("seconds")]


def lost_trials(before: dict[str, Any] | None, after: dict[str, Any]) -> list[str]:
    """Returns the problems of finished trials and final runs that a resume has lost or changed."""
    if before is None:
        return []
    return [
        f"a finished trial was lost or changed: {trial['origin']} {trial['state']}"
        for trial in before["trials"]
        if trial["state"] != "failed" and trial not in after["trials"]
    ]


def check_state(search: Search, state: dict[str, Any] | None, reference: dict[str, Any] | None) -> list[str]:
    """Returns the problems of a finished study: budget, trials left, results unlike those of the undisturbed search."""
    if state is None:
        return ["the finished search left no study"]
    problems = []
    if state["running"]:
        problems.append(f"{state['running']} trials are running")
    if state["spent"] != state["length"]:
        problems.append(f"{state['spent']} epochs are counted, and the trials have {state['length']}")
    if state["cost"] > BUDGET * EPOCHS:
        problems.append(f"the epochs cost {state['cost']}, and the budget is {BUDGET * EPOCHS}")
    if state["test_evaluations"] != 1:
        problems.append(f"{state['test_evaluations']} test evaluations are counted")
    if reference is not None and (path := difference(reference, state)) is not None:
        problems.append(f"unlike the undisturbed search: {path}")
    return problems


def difference(expected: Any, found: Any, path: str = "") -> str | None:
    """Returns where two values in JSON types differ first; None if they are equal."""
    if isinstance(expected, dict) and isinstance(found, dict):
        for key in sorted(expected.keys() | found.keys()):
            if (inner := difference(expected.get(key), found.get(key), f"{path}/{key}")) is not None:
                return inner
        return None
    if isinstance(expected, list) and isinstance(found, list):
        for number, (one, other) in enumerate(zip(expected, found, strict=False)):
            if (inner := difference(one, other, f"{path}/{number}")) is not None:
                return inner
        return None if len(expected) == len(found) else f"{path}: {len(expected)} entries expected, {len(found)} found"
    return None if expected == found else f"{path}: {str(expected)[:60]!r} expected, {str(found)[:60]!r} found"


def check_output(process: Process, codes: tuple[int, ...], lines: int = 40, *, verbose: bool = False) -> list[str]:
    """Returns the problems of the output of a process: its exit code and, unless it is `verbose`, tracebacks, lines."""
    problems = []
    if process.code not in codes:
        last = (process.errors.strip().splitlines() or [""])[-1]
        problems.append(f"exit code {process.code}, not {' or '.join(map(str, codes))}: {last[:200]}")
    if verbose:  # it shows the traceback of every error
        return problems
    if "Traceback (most recent call last)" in process.errors:
        problems.append(f"traceback: {process.errors.strip().splitlines()[-1][:200]}")
    if "run again with -v" in process.errors:
        problems.append(f"an error that nbt did not expect: {process.errors.strip().splitlines()[-1][:200]}")
    if process.errors.count("\n") > lines:
        problems.append(f"{process.errors.count(chr(10))} lines on stderr")
    return problems


def check_orphans(search: Search) -> list[str]:
    """Returns the processes that a search has left, after the time that workers have to end."""
    deadline = time.monotonic() + _ORPHAN_SECONDS
    while (pids := _processes_of(search)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return [f"processes are left: {', '.join(map(process_title, pids))}"] if pids else []


def _processes_of(search: Search) -> list[int]:
    """Returns the processes of a search but the two agents of Ray, which may end a minute later."""
    pids = find_processes(str(search.folder / "cache"))
    return [pid for pid in pids if not process_title(pid).endswith("Agent")]


def check_files(search: Search) -> list[str]:
    """Returns the problems of the files of a finished search."""
    return call(_check_files, search)  # type: ignore[no-any-return]


def _check_files(search: Search) -> list[str]:
    import yaml
    from PIL import Image

    import nbt

    os.chdir(search.work)
    files = [path for path in search.folder.rglob("*") if "logs" not in path.relative_to(search.folder).parts[:1]]
    problems = [f"left: {path.relative_to(search.folder)}" for path in files if ".tmp" in path.name]
    problems += [f"left: {path.name}" for path in (search.folder / "temporary").iterdir() if "nbt" in path.name]
    problems += [f"checkpoint left: {path.name}" for path in (search.work / ".nbt" / STUDY).rglob("*.pt")]
    problems += [f"locked: {path.name}" for path in files if path.suffix == ".lock" and _is_locked(path)]
    report = search.report
    if not (report / "report.html").read_text(encoding="utf-8").rstrip().endswith("</html>"):
        problems.append("report.html is incomplete")
    if yaml.safe_load((report / "recommended.yaml").read_text())["epochs"] != EPOCHS:
        problems.append("recommended.yaml has other epochs")
    model = nbt.load_model(report / "model")
    [probabilities] = model.predict_proba([Image.new("RGB", (32, 32), (90, 120, 30))])
    if not math.isclose(float(probabilities.sum()), 1.0, abs_tol=1e-4):
        problems.append("the probabilities of the model do not sum to 1")
    return problems


def _is_locked(path: Path) -> bool:
    with path.open("a") as file, contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    return True


def check_tracking(search: Search, first: Process, second: Process) -> list[str]:
    """Returns the problems of the runs in MLflow after two calls of `nbt sync`."""
    problems = check_output(first, (0,)) + check_output(second, (0,))
    if problems:
        return problems
    counts = json.loads(second.output)
    if counts["written"] or counts["updated"]:
        problems.append(f"the second nbt sync changed runs: {counts}")
    return problems + call(_check_runs, search)  # type: ignore[no-any-return]


def _check_runs(search: Search) -> list[str]:
    """Compares the curves of all trials with those in MLflow."""
    from mlflow.tracking import MlflowClient

    from nbt.tuning.storage.studies import read_study

    os.chdir(search.work)
    client = MlflowClient(tracking_uri=f"sqlite:///{search.work / '.nbt' / 'mlflow.db'}")
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    runs = [run for run in client.search_runs(experiments, max_results=1000) if "nbt.key" in run.data.tags]
    by_key = {run.data.tags["nbt.key"]: run for run in runs}
    problems = [] if len(by_key) == len(runs) else ["two runs have the same key"]
    problems += ["a run is RUNNING"] if any(run.info.status == "RUNNING" for run in runs) else []
    for trial in read_study(search.url, STUDY).trials:
        run = by_key.get(f"trial-{trial.number:04d}")
        if run is None:
            problems.append(f"trial {trial.number} has no run")
            continue
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        if [point.value for point in sorted(history, key=lambda p: p.step)] != [r.val_accuracy for r in trial.curve]:
            problems.append(f"the run of trial {trial.number} has another learning curve")
    return problems
