"""The nbt commands in documentation and scripts: found, parsed, and shortened so that a test can run them."""

from __future__ import annotations

import importlib
import re
import shlex
from collections.abc import Iterator

import click

from nbt.cli.app import COMMANDS

_COMMAND_END = re.compile(r"[;&|<>()\n]+")


def code_blocks(text: str, language: str = r"\w*") -> list[str]:
    """Returns the fenced code blocks of a Markdown text."""
    return re.findall(rf"^```(?:{language})\n(.*?)^```", text, re.M | re.S)


def nbt_commands(text: str) -> Iterator[list[str]]:
    """Yields the words of every nbt command, also of commands that are an argument of another command."""
    for line in text.replace("\\\n", " ").splitlines():
        try:
            lexer = shlex.shlex(line, posix=True, punctuation_chars=";&|<>()")
            lexer.whitespace_split = True
            words = list(lexer)
        except ValueError:  # a single line of a quotation over several lines
            continue
        for position, word in enumerate(words):
            if " nbt " in word:
                yield from nbt_commands(word)
            elif (
                word.split("/")[-1] == "nbt" and words[position + 1 : position + 2] and words[position + 1] in COMMANDS
            ):
                rest = words[position + 1 :]
                end = next(
                    (index for index, argument in enumerate(rest) if _COMMAND_END.fullmatch(argument)), len(rest)
                )
                yield [argument for argument in rest[:end] if argument != "$@"]


def parse(words: list[str]) -> click.Context:
    """Parses a command line as nbt does, without running the command."""
    command: click.Command = importlib.import_module(f"nbt.cli.{words[0]}").command
    # Scripts append the user's options.
    required = {} if "--budget" in words or "--config" in words else {"budget": "1", "dataset": "digits"}
    user_options = [part for name, value in required.items() for part in (f"--{name}", value)]
    # click keeps the help option of a command's first context, so it must be the option that nbt sets.
    return command.make_context(
        words[0], [*words[1:], *(user_options if words[0] == "search" else [])], help_option_names=["-h", "--help"]
    )


def shortened(words: list[str]) -> list[str] | None:
    """Returns a command with little training, small images and no download.

    None if it needs a server, a cluster, or a list of backbones with their weights.
    """
    if words[0] == "ui" or {"--ray-address", "--backbones"} & set(words):
        return None
    options = {"--epochs": "1"} if words[0] in ("search", "continual") else {}
    if words[0] == "search":
        options["--budget"] = "2"
    if "numbers" in words:
        options["--weights"] = "none"
    if "--seeds" in words:
        options["--seeds"] = "2"
    if "--backbone" in words or (words[0] == "train" and "photos/" in words):  # whose default weights are downloaded
        options |= {"--weights": "none", "--image-size": "32"}
    return [*words, *(word for option in options.items() for word in option)]  # the last of repeated options counts
