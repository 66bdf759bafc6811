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
