"""Files of the Linux control groups that limit this process, of both versions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple


class ControllerFolder(NamedTuple):
    """Folder of one control group.

    Attributes:
        version: Version of control groups, 1 or 2.
        path: The folder.
    """

    version: int
    path: Path


def controller_folders(controller: str, mounts_v1: Sequence[str], root: Path = Path("/")) -> Iterator[ControllerFolder]:
    """Yields the folders of the control groups of this process and of their parents, which may not exist.

    Args:
        controller: Name of the controller: "memory", "cpu".
        mounts_v1: Folders below `sys/fs/cgroup` in which the controller of version 1 may be mounted.
        root: Root of the file system that holds the kernel's files on control groups.
    """
    groups = _groups(controller, root)
    mounts = [(2, root / "sys/fs/cgroup"), *((1, root / "sys/fs/cgroup" / mount) for mount in mounts_v1)]
    for version, mount in mounts:
        # A container sees its own group as the root, and the path in proc may not exist inside the container.
        group = mount / groups.get(version, "")
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount):
                yield ControllerFolder(version, folder)


def _groups(controller: str, root: Path) -> dict[int, str]:
    """Returns the path of this process's control group by version, as far as the kernel lists it."""
    paths: dict[int, str] = {}
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers or controller in controllers.split(","):
            paths[1 if controllers else 2] = path.lstrip("/")
    return paths


def read_int(path: Path) -> int | None:
    """Returns the number in a file; None if the file is missing or holds other text, such as "max" or "-1"."""
    text = read_text(path).strip()
    return int(text) if text.isdecimal() else None


def read_text(path: Path) -> str:
    """Returns the text of a file; "" if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
