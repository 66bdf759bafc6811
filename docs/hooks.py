"""Hooks of MkDocs: pages that are generated from README.md, from the studies and from the declarations of nbt.

`index.md`, `findings.md` and the recipes for clusters are files elsewhere in the repository; `reference/options.md` has
the help text of every command and `reference/settings.md` every setting of a trial. Links to files of the repository
that are not pages become their names.
"""

from __future__ import annotations

import importlib
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from mkdocs.structure.files import File, Files

from nbt.cli.app import COMMANDS
from nbt.settings import SETTINGS

REPOSITORY = Path(__file__).resolve().parent.parent
COPIED_PAGES = {
    "README.md": "index.md",
    "studies/README.md": "findings.md",
    "studies/cluster/README.md": "how-to/cluster-recipes.md",
}
"""Pages of the site by the files of the repository that they are copies of."""

_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]+)(#[^)]*)?\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages."""
    generated = {page: (REPOSITORY / source).read_text() for source, page in COPIED_PAGES.items()}
    generated["reference/options.md"] = options_page()
    generated["reference/settings.md"] = settings_page()
    for page, text in generated.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Replaces links to files of the repository by links to their pages, or by their names."""
    sources = {page: source for source, page in COPIED_PAGES.items()}
    source = sources.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {file.src_uri for file in files}

    def replace(match: re.Match[str]) -> str:
        image, text, path, anchor = match[1], match[2], match[3], match[4] or ""
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        uri = COPIED_PAGES.get(target, target.removeprefix("docs/"))
        if uri not in pages:
            return text
        return f"{image}[{text}]({posixpath.relpath(uri, posixpath.dirname(page.file.src_uri) or '.')}{anchor})"

    return _LINK.sub(replace, markdown)


def options_page() -> str:
    """Returns the help texts of all commands."""
    sections = [f"## nbt {name}\n\n```text\n{help_text(name)}\n```\n" for name in COMMANDS]
    return "# Options\n\nThe help texts of all commands.\n\n" + "\n".join(sections)


def help_text(name: str) -> str:
    """Returns the help text of a command, as `nbt NAME --help` prints it in a terminal of 100 columns."""
    command: click.Command = importlib.import_module(f"nbt.cli.{name}").command
    context = click.Context(command, info_name=f"nbt {name}", max_content_width=100, terminal_width=100)
    return command.get_help(context)


def settings_page() -> str:
    """Returns all settings of a trial with their declarations, by technique."""
    return "# Settings\n\n" + "\n".join(_setting_sections())


def _setting_sections() -> Iterator[str]:
    yield "The settings of a trial, as in `recommended.yaml`, in search spaces, tables, reports and MLflow.\n"
    techniques = dict.fromkeys(setting.technique for setting in SETTINGS.values())
    for technique in techniques:
        yield f"## {technique.capitalize() or 'Fine-tuning'}\n"
        yield "| setting | values | default | meaning |\n|---|---|---|---|"
        for name, setting in SETTINGS.items():
            if setting.technique == technique:
                meaning = f"{setting.text} {setting.details}".replace("|", "\\|").strip()
                values = setting.rule.describe().replace("|", "\\|")
                yield f"| `{name}` | {values} | `{setting.default!r}` | {meaning} |"
        yield ""
