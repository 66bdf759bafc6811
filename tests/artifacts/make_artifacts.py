"""Writes the files of version c8d5bce for tests/test_artifacts.py; requires a checkout of that version.

    PYTHONPATH=CHECKOUT python make_artifacts.py /srv/nbt DATA

The commands run in the first folder, which must be missing or empty. Its path is part of the files, because the program
stores the absolute paths of a dataset and of a weights file. The artefacts are copied to the second folder.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

BACKBONE = ["--dataset", "images", "--backbone", "conv3(width=8)"]
TASK = [*BACKBONE, "--weights", "source.safetensors"]
PRETRAIN = ["pretrain", "--dataset", "digits", "--backbone", "conv3(width=8)", "--shots", "12"]
PRETRAIN = [*PRETRAIN, "--epochs", "8", "--lr", "0.01"]
RECORD = ["record", *TASK, "--trials", "6", "--epochs", "4"]
EXPERIENCE = ["record", "--dataset", "digits", "--backbone", "conv3(width=8)", "--weights", "none", "--shots", "12"]
EXPERIENCE = [*EXPERIENCE, "--trials", "24", "--epochs", "6"]
SEARCH = ["search", *TASK, "--budget", "6", "--epochs", "6", "--final-seeds", "2", "--study", "s"]
SEARCH = [*SEARCH, "--experience", "experience"]
STREAM = ["continual", *BACKBONE, "--weights", "none", "--scenario", "data", "--tasks", "2", "--epochs", "2"]
KILLED_TRIAL, KILLED_EPOCH = 2, 3


def save_images(folder: Path, count: int = 20, side: int = 16) -> None:
    """Writes three classes of small noisy patterns."""
    rows, columns = np.mgrid[0:side, 0:side]
    middle = (side - 1) / 2
    rings = np.hypot(rows - middle, columns - middle)
    patterns = {"rings": rings, "stripes": 1.0 * rows, "waves": 0.7 * (rows + columns)}
    tints = {"rings": (230, 80, 50), "stripes": (60, 200, 80), "waves": (70, 100, 230)}
    rng = np.random.default_rng(0)
    for name, pattern in patterns.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            wave = 0.5 + 0.5 * np.sin(pattern * rng.uniform(0.9, 1.3) + rng.uniform(0.0, 6.28))
            tint = 0.4 * np.array(tints[name]) + 0.6 * rng.uniform(0.0, 255.0, 3)
            pixels = wave[..., None] * tint + rng.normal(0.0, 25.0, (side, side, 3))
            coarse = (np.clip(pixels, 0, 255) // 16 * 16).astype(np.uint8)
            Image.fromarray(coarse).save(folder / name / f"{number:02d}.png", optimize=True)


def nbt(*arguments: str) -> Any:
    """Runs a command and returns its JSON output."""
    completed = subprocess.run(
        [sys.executable, "-m", "nbt", *arguments, "--json", "-q"], check=True, stdout=subprocess.PIPE, text=True
    )
    return json.loads(completed.stdout)


def run_killed(command: str, *arguments: str) -> None:
    """Runs a command in a process that is killed before it finishes; see `run_until_killed`."""
    completed = subprocess.run([sys.executable, __file__, "--killed", command, *arguments, "-q"])
    code = completed.returncode
    assert code == -signal.SIGKILL, f"{command} ended with exit code {code} instead of being killed"


def run_until_killed(command: str, arguments: list[str]) -> None:
    """Runs a command with a single hook, which kills this process and its workers.

    Args:
        command: "search", "record" or "stream"; determines the hook.
        arguments: Arguments of the command line.
    """
    from nbt.cli.app import run

    def kill() -> None:
        for child in multiprocessing.active_children():
            os.kill(child.pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGKILL)

    if command == "search":
        from nbt.display.search_progress import SearchProgress

        def epoch_finished(self: Any, number: int, result: Any, spent: int) -> None:
            if number == KILLED_TRIAL and result.epoch == KILLED_EPOCH - 1:
                # The worker waits for the answer; checkpoints are written after an epoch, at most every 30 s.
                time.sleep(31)
            if number == KILLED_TRIAL and result.epoch == KILLED_EPOCH:
                kill()

        SearchProgress.epoch_finished = epoch_finished
    elif command == "record":
        from nbt.tuning.experience.recording import Journal

        add = Journal.add

        def add_and_kill(self: Any, recorded: Any) -> None:
            add(self, recorded)
            if len(self.runs) == 3:
                kill()

        Journal.add = add_and_kill
    else:
        from nbt.display.stream_progress import StreamProgress

        StreamProgress.task_finished = lambda *unused: kill()
    raise SystemExit(run(arguments))


def merge_write_ahead_log(database: Path) -> None:
    """Writes the contents of the write-ahead log into the database file."""
    connection = sqlite3.connect(database)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.execute("VACUUM")
    connection.close()


def mlflow_runs(database: Path) -> dict[str, Any]:
    """Returns tags, parameters and metrics that `nbt sync` wrote, by run, without times, machine and paths."""
    connection = sqlite3.connect(database)
    runs: dict[str, Any] = {}
    for uuid, name in connection.execute("select run_uuid, name from runs order by start_time, name"):
        values = {}
        for table in ("tags", "params", "latest_metrics"):
            rows = connection.execute(f"select key, value from {table} where run_uuid = ? order by key", (uuid,))
            values[table] = {key: value for key, value in rows if not key.startswith("mlflow.")}
        runs[name] = values
    connection.close()
    return runs


def without_report(document: Any) -> Any:
    """Returns a result without the path of its report."""
    return {name: value for name, value in document.items() if name != "report"}


def main(work: Path, data: Path) -> None:
    """Writes all artefacts.

    Args:
        work: Folder that the commands run in.
        data: Folder of the artefacts; it is replaced.
    """
    import torch

    work.mkdir(parents=True, exist_ok=True)
    assert not any(work.iterdir()), f"{work} is not empty"
    os.environ.update(NBT_CACHE=str(work / "cache"), OMP_NUM_THREADS="1", PYTHONDONTWRITEBYTECODE="1")
    os.chdir(work)
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(parents=True)
    expected: dict[str, Any] = {}

    save_images(Path("images"))
    nbt(*PRETRAIN, "--out", "source.safetensors")
    expected["record"] = nbt(*RECORD, "--out", "table.parquet")
    run_killed("record", *RECORD, "--out", "killed.parquet")
    expected["replay"] = nbt("replay", "table.parquet", "--seeds", "2", "--budget", "4", "--methods", "random,asha")
    Path("experience").mkdir()
    expected["experience"] = nbt(*EXPERIENCE, "--out", "experience/digits.parquet")
    expected["fit"] = nbt("fit", *TASK, "--recommend", "--experience", "experience", "--epochs", "6")
    inject = ["inject", "--teacher", "conv3(width=8)=source.safetensors", "--student", "conv3(width=6)"]
    expected["inject"] = nbt(*inject, "--out", "injected.safetensors")

    expected["search"] = without_report(nbt(*SEARCH))
    expected["studies"] = nbt("studies")
    nbt("sync", "s", "--tracking-uri", "sqlite:///fresh.db")
    expected["mlflow"] = mlflow_runs(Path("fresh.db"))
    finished = data / "finished"
    shutil.copytree("reports/s", finished / "report", ignore=shutil.ignore_patterns("report.*"))
    expected["predict"] = nbt("predict", "reports/s/model", "images")
    expected["train"] = nbt("train", *TASK, "--settings", "reports/s/recommended.yaml", "--seeds", "2", "--export", "m")
    merge_write_ahead_log(Path(".nbt/studies.db"))
    shutil.copy(".nbt/studies.db", finished)

    shutil.rmtree(".nbt")
    shutil.rmtree("reports")
    run_killed("search", *SEARCH)
    merge_write_ahead_log(Path(".nbt/studies.db"))
    [checkpoint] = Path(".nbt/s/checkpoints").iterdir()
    halfway = data / "halfway"
    halfway.mkdir()
    shutil.copy(".nbt/studies.db", halfway)
    shutil.copytree(".nbt/s", halfway / "s")
    expected["halfway"] = nbt("studies")
    state = torch.load(checkpoint, weights_only=True)
    expected["checkpoint"] = {"identity": state["identity"], "curve": state["curve"]}
    nbt("report", "s", "--out", "halfway-report")
    shutil.copy("halfway-report/s/trials.csv", halfway)

    shutil.rmtree(".nbt")
    expected["stream"] = without_report(nbt(*STREAM, "--method", "ewc"))
    expected["stream to go on"] = without_report(nbt(*STREAM, "--method", "dlcft"))
    shutil.rmtree(Path(".nbt/streams") / expected["stream to go on"]["name"])
    run_killed("stream", *STREAM, "--method", "dlcft")
    shutil.copytree(".nbt/streams", data / "streams", ignore=shutil.ignore_patterns("lock", "tracked"))

    for name in ("images", "experience"):
        shutil.copytree(name, data / name)
    for name in ("source.safetensors", "injected.safetensors", "table.parquet"):
        shutil.copy(name, data)
    shutil.copy("killed.parquet.journal", data / "killed.parquet.journal.txt")  # .gitignore has *.parquet.journal
    (data / "expected.json").write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    for file in data.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)


if __name__ == "__main__":
    if sys.argv[1] == "--killed":
        run_until_killed(sys.argv[2], sys.argv[3:])
    else:
        main(Path(sys.argv[1]), Path(sys.argv[2]).absolute())
