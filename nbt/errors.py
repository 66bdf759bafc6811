"""Errors that are shown to users: what was wrong, where, and what to do."""

from __future__ import annotations

import contextlib
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

# Options of the command line, and whole commands, which stay as they are.
_OPTIONS = re.compile(r"\b(?:nbt|ray) [a-z]+ --[a-z-]+|--(no-)?([a-z][a-z-]*)")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_FLAGS = ("fresh", "ignore-unknown")


class NbtError(Exception):
    """A failure at run time; the command line exits with code 1.

    Attributes:
        command_line_text: The message with options of the command line, where `with_python_names` has replaced them.
    """

    exit_code = 1
    command_line_text: str | None = None


class UsageError(NbtError, ValueError):
    """Wrong input; the message names it and the remedy. The command line exits with code 2."""

    exit_code = 2


def require_positive(**counts: int) -> None:
    """Checks that counts, given by name, are 1 or more.

    Raises:
        UsageError: A count is below 1; the message names the first one.
    """
    for name, count in counts.items():
        if count < 1:
            raise UsageError(f"{name.replace('_', ' ')}: {count} is not 1 or more")


def printable(text: str) -> str:
    """Returns a text with "?" for each character that would control a terminal, such as the escape of a file's name."""
    return _CONTROLS.sub("?", text)


def one_line_message(error: BaseException, max_length: int = 160) -> str:
    """Returns an error's message on one line, its type without one; a text above `max_length` ends after a word."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= max_length else f"{text[: max_length - 3].rsplit(' ', 1)[0][: max_length - 4]} ..."


@contextlib.contextmanager
def errors_in(source: str | None) -> Iterator[None]:
    """Begins the messages of UsageErrors inside the context with the name of the wrong text, usually its path.

    Args:
        source: The name; None changes no message.
    """
    try:
        yield
    except UsageError as error:
        if source is None:
            raise
        raise UsageError(f"{source}: {error}") from error


def nearest(name: str, known: Iterable[str], *, count: int = 3) -> str:
    """Returns the end of an error message that suggests the known names closest to `name`.

    Args:
        name: The name that the user gave.
        known: The accepted names.
        count: Maximum number of suggestions.

    Returns:
        "did you mean a, b?" where a known name is close, else "known: a, b, c, ..." with up to twelve names.
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name, names, n=count, cutoff=0.5)
    if close:
        return f"did you mean {', '.join(close)}?"
    shown = ", ".join(names[:12])
    return f"known: {shown}{', ...' if len(names) > 12 else ''}"


def with_python_names(function: Callable[P, R]) -> Callable[P, R]:
    """Returns a function whose errors name arguments, such as `final_seeds`, instead of options (`--final-seeds`).

    The command line, which may call the function, too, shows their `command_line_text`.
    """

    @functools.wraps(function)
    def call(*arguments: P.args, **named: P.kwargs) -> R:
        try:
            return function(*arguments, **named)
        except NbtError as error:
            if error.command_line_text is None:
                error.command_line_text = str(error)
                error.args = (python_names(error.command_line_text), *error.args[1:])
            raise

    return call


def python_names(message: str) -> str:
    """Returns a message with arguments of Python instead of options: `workers`, `images=False`, `fresh=True`."""

    def replace(match: re.Match[str]) -> str:
        is_off, option = match[1], match[2]
        if option is None:  # a whole command
            command, _, last = match[0].rpartition(" ")
            return f"help({command.replace(' ', '.')})" if last == "--help" else match[0]
        name = option.replace("-", "_")
        return f"{name}=False" if is_off else f"{name}=True" if option in _FLAGS else name

    return _OPTIONS.sub(replace, message)
