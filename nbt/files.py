"""Writes files so that none is ever half-written."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yields a temporary file beside `path`, and renames it to `path` unless the block raises.

    The name of the temporary file begins with that of `path` and ends in `.tmp`: what removes a checkpoint or cleans a
    cache also removes the temporary files of killed processes.

    Args:
        path: The file; its folder exists.
    """
    temporary = path.with_name(f"{path.name}.{machine_code()}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_all(folder: Path, texts: Mapping[str, str | None]) -> None:
    """Writes files, and removes those whose text is None.

    All texts are written to temporary files before the first file is replaced; the last one is replaced last.

    Args:
        folder: The folder; it is created.
        texts: The text of each file by file name, or None to remove the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        # The stack renames the files in the reverse order.
        for name, text in reversed(list(texts.items())):
            if text is not None:
                # Texts may quote file names with undecodable bytes, which must not prevent a report.
                temporary = stack.enter_context(atomic_file(folder / name))
                temporary.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
    for name, text in texts.items():
        if text is None:
            (folder / name).unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Removes the temporary files and folders of killed processes of this machine, whose names end in "CODE.PID.tmp".

    Those of other machines, which may share the folder, have another code and stay.

    Args:
        folder: The folder, which may be missing.
    """
    for path in folder.glob("*.tmp"):
        process = re.search(rf"\.{machine_code()}\.(\d+)(-\d+)?\.tmp$", path.name)
        if process is None or process_exists(int(process[1])):
            continue
        with contextlib.suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@functools.cache
def machine_code() -> str:
    """Returns a short text that differs between machines."""
    return hashlib.blake2b(platform.node().encode("utf-8", "surrogateescape"), digest_size=4).hexdigest()


def process_exists(pid: int) -> bool:
    """Returns whether a process of this machine exists, also one of another user."""
    try:
        os.kill(pid, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)
    return True
