"""README and documentation: links, commands and Python blocks."""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from nbt.cli.app import run
from tests.shell_commands import code_blocks, nbt_commands, parse, shortened

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = [
    *("README.md", "CONTRIBUTING.md", "studies/README.md", "reports/README.md"),
    *sorted(str(page.relative_to(REPOSITORY)) for page in (REPOSITORY / "docs").rglob("*.md")),
]
GENERATED = {
    *("docs/findings.md", "docs/index.md", "docs/how-to/cluster-recipes.md"),
    *("docs/reference/options.md", "docs/reference/settings.md"),
}
MAX_README_BYTES = 9000
FIRST = "docs/tutorials/first-search.md"
"""The page whose commands run in the default suite; those of the others take longer."""
RUN_PAGES = [page for page in PAGES if page == "README.md" or page.startswith("docs/tutorials/")]
PYTHON_PAGES = [page for page in PAGES if code_blocks((REPOSITORY / page).read_text(), "python")]
NOTEBOOKS = sorted((REPOSITORY / "docs" / "notebooks").glob("*.ipynb"))
IMAGES = REPOSITORY / "tests" / "artifacts" / "c8d5bce" / "images"


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
    assert ["search", "--dataset", "numbers", "--shots", "8", "--budget", "12"] in commands
    assert {words[0] for words in commands} >= {"search", "check", "predict", "ui"}


def test_readme_is_short() -> None:
    assert len(read("README.md").encode()) <= MAX_README_BYTES


def test_every_page_is_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:\n")[1]
    names = {posixpath.relpath(page, "docs") for page in PAGES if page.startswith("docs/")}
    assert {name for name in names if f" {name}\n" not in navigation} == set()


@pytest.fixture
def own_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Changes to a folder with the images that the commands name."""
    shutil.copytree(IMAGES, tmp_path / "photos")
    shutil.copytree(IMAGES, tmp_path / "labelled")
    shutil.copytree(IMAGES / "rings", tmp_path / "new-photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.slow] * (page != FIRST)) for page in RUN_PAGES])
def test_commands_run(page: str, own_images: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The commands of a page run one after the other, with less training."""
    for words in nbt_commands("\n".join(code_blocks(read(page), "sh"))):
        command = shortened(words)
        if command is not None:
            assert run(command) == 0, f"nbt {' '.join(command)}: {capsys.readouterr().err}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_blocks_run(page: str, tmp_path: Path) -> None:
    """The blocks of a page run one after the other, as a reader would enter them."""
    script = tmp_path / "blocks.py"
    script.write_text("\n".join(code_blocks(read(page), "python")))
    done = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_stored_without_outputs(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    assert cells and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY))
    document = nbformat.read(notebook, as_version=4)
    nbformat.validate(document)
    resources = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(document, timeout=600, kernel_name="python3", resources=resources).execute()
    [shown] = [cell for cell in document.cells if cell.source.endswith("\nresult")]
    assert "default recipe" in shown.outputs[-1].data["text/html"]


@pytest.mark.slow
def test_site_builds_without_warnings(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "body_lr" in (tmp_path / "site" / "reference" / "settings" / "index.html").read_text()
