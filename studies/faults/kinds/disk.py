"""Faults of the disk: full, failing, read-only, and files damaged between two runs."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

from faults.checks import check_output
from faults.child import fail_writing
from faults.kinds.base import Attempt, Fault
from faults.process import Process
from faults.search import TIMEOUT_SECONDS

NOBODY = 65534


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


class FullDisk(Fault):
    """A file system of a random size below what the search writes; it is enlarged before the resume."""

    kind = "full disk"
    phases = ("start",)
    goal = 2

    @classmethod
    def missing(cls) -> str | None:
        return None if os.geteuid() == 0 else "mounting a file system needs root"

    def arrange(self, attempt: Attempt) -> None:
        folder = attempt.search.folder
        pages = max(40, int(attempt.rng.uniform(0.1, 1.0) * attempt.size) // 4096)
        logs, contents = attempt.search.outer_logs, folder.parent / f"{folder.name}-work"
        logs.mkdir()
        shutil.move(folder / "work", contents)
        # A copied database of MLflow takes its place before the disk is full.
        pages += sum(path.stat().st_size // 4096 + 2 for path in contents.rglob("*") if path.is_file())
        if not _mount("-t", "tmpfs", "-o", f"size={4096 * pages}", "none", str(folder)):
            raise OSError(errno.EPERM, "mount failed")
        shutil.move(contents, folder / "work")
        for name in ("cache", "temporary"):
            (folder / name).mkdir()
        (folder / "logs").symlink_to(logs)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        process.wait(TIMEOUT_SECONDS)
        return process.code != 0 or "No space left" in process.errors or "full" in process.errors

    def restore(self, attempt: Attempt) -> list[str]:
        _mount("-o", "remount,size=1g", str(attempt.search.folder))
        return []


class WriteError(Fault):
    """EIO or ENOSPC at a random opening of a file for writing, and at all later ones."""

    kind = "write error"
    phases = ("start",)
    goal = 2

    def setup(self, attempt: Attempt) -> Callable[[], None] | None:
        number = attempt.rng.randint(1, max(2, attempt.writes))
        code = attempt.rng.choice((errno.EIO, errno.ENOSPC))
        return fail_writing(str(attempt.search.folder), number, code)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        process.wait(TIMEOUT_SECONDS)
        return process.code != 0 or any(os.strerror(code) in process.errors for code in (errno.EIO, errno.ENOSPC))


class ReadOnlyFolder(Fault):
    """A folder of the search loses its write permission; the search runs as another user than root."""

    kind = "folder made read-only"
    codes = (0, 1, 2)

    @classmethod
    def missing(cls) -> str | None:
        return None if os.geteuid() == 0 else "becoming another user needs root"

    def arrange(self, attempt: Attempt) -> None:
        folder = attempt.search.folder
        folder.parent.chmod(0o755)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        self._target: Path | None = None

    def setup(self, attempt: Attempt) -> Callable[[], None] | None:
        return _become_nobody

    def inject(self, attempt: Attempt, process: Process) -> bool:
        search = attempt.search
        folders = [search.work, search.work / ".nbt", search.work / "reports", search.report, search.folder / "cache"]
        self._target = attempt.rng.choice([path for path in folders if path.exists()])
        self._target.chmod(0o500)
        return process.poll() is None

    def restore(self, attempt: Attempt) -> list[str]:
        if self._target is not None:
            self._target.chmod(0o755)
        return []


def _become_nobody() -> None:
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    os.environ["HOME"] = os.environ["TMPDIR"]


class _Damage(Fault):
    """Kills the process, and damages a file before the resume: half of it is left, or nothing, or bytes differ."""

    codes = (-signal.SIGKILL, 0)

    def inject(self, attempt: Attempt, process: Process) -> bool:
        process.send(signal.SIGKILL)
        process.wait(30.0)
        files = sorted(path for path in self.files(attempt) if path.is_file() and path.stat().st_size)
        if not files:
            return False
        self._damage(attempt, attempt.rng.choice(files))
        return True

    def files(self, attempt: Attempt) -> list[Path]:
        """Returns the files of which one is damaged."""
        raise NotImplementedError

    def _damage(self, attempt: Attempt, path: Path) -> None:
        content = bytearray(path.read_bytes())
        match attempt.rng.choice(("half", "empty", "changed")):
            case "half":
                content = content[: len(content) // 2]
            case "empty":
                content = bytearray()
            case _:
                for _ in range(8):
                    content[attempt.rng.randrange(len(content))] ^= 0xFF
        path.write_bytes(content)


class DamagedCache(_Damage):
    """Damages a file of the cache, a checkpoint, or a file of the report or the model."""

    kind = "damaged cache, checkpoint or report"
    phases = ("profile", "trials", "finals", "train", "report")
    goal = 3

    def files(self, attempt: Attempt) -> list[Path]:
        search = attempt.search
        checkpoints = list((search.work / ".nbt").rglob("*.pt"))
        return [*(search.folder / "cache").rglob("*"), *4 * checkpoints, *search.report.rglob("*")]


class DamagedStore(_Damage):
    """Damages the database of the studies; the next run must refuse it and leave it as it is."""

    kind = "damaged store"
    phases = ("trials", "finals", "train", "report")

    def __init__(self) -> None:
        self._saved: dict[Path, bytes] = {}

    def files(self, attempt: Attempt) -> list[Path]:
        return list((attempt.search.work / ".nbt").glob("studies.db*"))

    def _damage(self, attempt: Attempt, path: Path) -> None:
        self._saved = {file: file.read_bytes() for file in self.files(attempt)}
        super()._damage(attempt, path)

    def restore(self, attempt: Attempt) -> list[str]:
        if not self._saved:
            return []
        process = attempt.search.run("damaged")
        process.wait(TIMEOUT_SECONDS)
        for file in self.files(attempt):
            file.unlink()
        for file, content in self._saved.items():
            file.write_bytes(content)
        # SQLite ignores a damaged journal, and finds some changed bytes only where it reads them.
        return check_output(process, (0, 1, 2))
