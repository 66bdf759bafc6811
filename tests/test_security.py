"""The page on security: every line has a test, and the tests that belong to no other module."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

import pytest

from nbt.data.download import temporary_folder
from nbt.tuning.engines.locked_directory import LockedDirectory

REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = (REPOSITORY / "docs" / "explanation" / "security.md").read_text()


def functions(path: Path) -> set[str]:
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)}


def test_every_line_on_what_is_not_trusted_names_a_test() -> None:
    lines = re.findall(r"^\| (?!what \||---)(.*) \|$", PAGE, re.M)
    assert len(lines) > 10
    for line in lines:
        assert re.search(r"\| `tests/[^`]+::[^`]+`$", line), line


@pytest.mark.parametrize("reference", sorted(set(re.findall(r"`(tests/[^`]*)`", PAGE))))
def test_the_tests_of_the_page_exist(reference: str) -> None:
    file, name = reference.split("::")
    assert name in functions(REPOSITORY / file)


def test_temporary_folders_belong_to_the_user_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = LockedDirectory("nbt-test-")
        with temporary_folder(tmp_path) as folder:
            modes = [path.stat().st_mode & 0o777 for path in (directory.path, folder)]
        directory.close()
    finally:
        os.umask(before)
    assert modes == [0o700, 0o700]


def listening_addresses(pids: set[str]) -> set[str]:
    """Returns the addresses, in hexadecimal digits, on which processes accept connections over TCP."""
    sockets = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            try:
                sockets.add(str(entry.readlink()))
            except OSError:  # closed meanwhile, or the process has ended
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1].split(":")[0])
    return found


def descendants(pid: int) -> set[str]:
    children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    direct = {child for task in children for child in task}
    return direct.union(*(descendants(int(child)) for child in direct))


@pytest.mark.slow
def test_a_started_ray_listens_on_this_machine_only() -> None:
    pytest.importorskip("ray")
    from nbt.tuning.engines.ray.cluster import connect
    from nbt.tuning.engines.ray.options import RayOptions

    if not Path("/proc/net/tcp").exists():
        pytest.skip("needs the files of Linux")
    cluster = connect(RayOptions())
    try:
        addresses = listening_addresses({str(os.getpid()), *descendants(os.getpid())})
    finally:
        cluster.close()
    local = {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
    assert addresses
    assert addresses <= local
