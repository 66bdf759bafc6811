"""README and documentation: links, commands and Python blocks."""

from __future__ import annotations

import posixpath
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.shell_commands import code_blocks, nbt_commands, parse

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md", "studies/README.md", "reports/README.md"),
    *sorted(str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").rglob("*.md")),
]
GENERATED = {"docs/findings.md", "docs/index.md", "docs/reference/options.md", "docs/reference/settings.md"}
MAX_README_BYTES = 9000
PYTHON_PAGES = [page for page in PAGES if code_blocks((REPOSITORY / page).read_text(), "python")]


def read(page: str) -> str:
    return (REPOSITORY / page).read_text()


def anchors(page: str) -> set[str]:
    """Returns the anchors of the headings of a page, as GitHub and MkDocs name them."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```", "", read(page), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def broken_links(page: str) -> list[str]:
    broken = []
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", read(page)):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path)) if path else page
        missing = target not in GENERATED and not (REPOSITORY / target).exists()
        if missing or (anchor and target.endswith(".md") and anchor not in anchors(target)):
            broken.append(f"{path}#{anchor}" if anchor else path)
    return broken


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files_and_headings(page: str) -> None:
    assert broken_links(page) == []


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str) -> None:
    for words in nbt_commands("\n".join(code_blocks(read(page)))):
        try:
            parse(words)
        except click.ClickException as error:
            pytest.fail(f"nbt {' '.join(words)}: {error.format_message()}")


def test_commands_are_found() -> None:
    commands = list(nbt_commands("\n".join(code_blocks(read("README.md")))))
    assert ["search", "--dataset", "digits", "--budget", "20"] in commands
    assert {words[0] for words in commands} >= {"search", "check", "predict", "ui"}


def test_readme_is_short() -> None:
    assert len(read("README.md").encode()) <= MAX_README_BYTES


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    names = {posixpath.relpath(page, "docs") for page in PAGES if page.startswith("docs/")}
    assert {name for name in names if f" {name}\n" not in navigation} == set()


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    """The blocks of a page run one after the other, as a reader would enter them."""
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(code_blocks(read(page), "python")))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "body_lr" in (tmp_path / "site" / "reference" / "settings" / "index.html").read_text()
