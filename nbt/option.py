"""Option: how one option of a search is written, checked and explained, and the rules of single options."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nbt.amounts import parse_amount
from nbt.errors import UsageError, nearest
from nbt.settings.belief import beliefs_text
from nbt.settings.candidate import candidates_text
from nbt.settings.teacher_names import teacher_names_text

AUTO = "auto"
"""Value of an option that is chosen from the resources of the machine or cluster."""

AUTO_BUDGET = "auto, at most "
"""Beginning of the text of a budget "auto" with its limit."""

OTHER_BUDGETS = ", or auto"
"""What `--budget` takes besides an amount, for messages."""

IMAGE_SIZES = (8, 1024)
"""Smallest and largest accepted image size in pixels."""

KINDS = (
    *("text", "path", "uri", "whole", "number", "choice", "flag", "budget", "gpus", "workers", "codes", "beliefs"),
    *("backbones", "teachers"),
)

_TEXT_OF_LIST: dict[str, Callable[[Any], str]] = {
    "beliefs": beliefs_text,
    "backbones": candidates_text,
    "teachers": teacher_names_text,
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """How one option of a search is written, checked and explained.

    Attributes:
        kind: One of `KINDS`. "budget" is a whole number or a text such as "2h", "gpus" a number or "auto", "workers" a
            whole number or "auto", "codes" a list of codes or a text with commas between them, "beliefs" a list of
            mappings or YAML text of it, "backbones" the same or a file of it, "teachers" a text or a list of texts.
        role: "task" for what is transferred to what, "search" for what the search does, "run" for where it runs and is
            stored.
        help: One sentence for help texts.
        metavar: What stands for the value in help texts.
        low: Least value of a whole number; None where `rule` checks it.
        positive: Whether a number must be above 0.
        choices: The values of a choice.
        when_none: What None means, for help texts; "" where None is not a value or needs no words.
        flag: Name on the command line where it is not the field's own, as "--no-heuristics" for a flag that is on.
        rule: Further check, called with the name and a value of the right type; it raises UsageError. What depends on
            the dataset or on other options is checked elsewhere.
    """

    kind: str
    role: str
    help: str
    metavar: str = ""
    low: int | None = 1
    positive: bool = False
    choices: tuple[str, ...] = ()
    when_none: str = ""
    flag: str = ""
    rule: Callable[[str, Any], None] | None = None

    def check(self, name: str, value: Any) -> Any:
        """Returns the value in its canonical type.

        Raises:
            UsageError: The value is of another type or out of range; the message names the option.
        """
        checked = self._check_type(name, value)
        if self.rule is not None:
            self.rule(name, checked)
        return checked

    def _check_type(self, name: str, value: Any) -> Any:
        match self.kind:
            case "whole":
                return self._check_whole(name, value)
            case "number":
                return self._check_number(name, value)
            case "flag":
                if not isinstance(value, bool):
                    raise UsageError(f"{name}: expected true or false, got {value!r}")
                return value
            case "choice":
                if value not in self.choices:
                    raise UsageError(f"{name} {value!r}: {nearest(str(value), self.choices)}")
                return value
            case "budget":
                if isinstance(value, bool) or not isinstance(value, int | str):
                    raise UsageError(f"{name}: expected a whole number of trials or a text such as '2h', got {value!r}")
                return self._check_text(name, str(value))
            case "gpus":
                return self._check_text(name, value) if isinstance(value, str) else self._check_number(name, value)
            case "workers":
                if isinstance(value, str) and value != AUTO:
                    raise UsageError(f"{name} {value!r}: expected {AUTO} or a whole number")
                return value if value == AUTO else self._check_whole(name, value)
            case "beliefs" | "backbones" | "teachers":
                text_of = _TEXT_OF_LIST[self.kind]
                return text_of(self._check_text(name, value) if isinstance(value, str) else value)
            case "codes":
                parts = value if isinstance(value, list | tuple) else [value]
                return ",".join(
                    dict.fromkeys(code for part in parts for code in split_codes(self._check_text(name, part)))
                )
        return self._check_text(name, value)

    def _check_whole(self, name: str, value: Any) -> int:
        if type(value) is not int:
            raise UsageError(f"{name}: expected a whole number, got {value!r}")
        if self.low is not None and value < self.low:
            raise UsageError(f"{name}: {value} is not {self.low} or more")
        return value

    def _check_number(self, name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise UsageError(f"{name}: expected a number, got {value!r}")
        if self.positive and value <= 0:
            raise UsageError(f"{name}: {value:g} is not above 0")
        return value

    def _check_text(self, name: str, value: Any) -> str:
        if isinstance(value, str) and not value.strip():
            raise UsageError(f"{name}: expected {self.metavar or 'text'}, got an empty text")
        if not isinstance(value, str | os.PathLike):
            raise UsageError(
                f"{name}: expected text, got {value!r}; numbers and dates that are meant as text need quotes"
            )
        return os.fspath(value)


def check_number(name: str, value: int | None, low: int, high: int | None, reason: str = "") -> None:
    """Checks that a number, unless it is None, is a whole one from `low` to `high`.

    Args:
        name: Name of the option.
        value: The number.
        low: Least value.
        high: Greatest value; None for any.
        reason: Why these are the bounds, for the message.

    Raises:
        UsageError: It is no whole number, or out of range.
    """
    if value is None:
        return
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        bound = f"{low} or more" if high is None else f"{low} ... {high}"
        raise UsageError(f"{name} {value!r}: expected a whole number, {bound}{f'; {reason}' if reason else ''}")


def check_image_size(name: str, value: int | None) -> None:
    """Checks the side length of images in pixels; None passes.

    Raises:
        UsageError: It is not in `IMAGE_SIZES`.
    """
    check_number(name, value, *IMAGE_SIZES)


def check_classes(name: str, value: int | None) -> None:
    """Checks a number of classes, whatever the dataset has; None passes.

    Raises:
        UsageError: It is below 2.
    """
    check_number(name, value, 2, None)


def check_shots(name: str, value: int | None) -> None:
    """Checks a number of labelled images per class; None passes.

    Raises:
        UsageError: It is below 2.
    """
    check_number(name, value, 2, None, "a class needs one image to train and one to validate on")


def is_auto_budget(text: str | int) -> bool:
    """Returns whether a budget is "auto", with or without its limit."""
    normalised = str(text).strip().lower()
    return normalised == AUTO or normalised.startswith(AUTO_BUDGET)


def check_budget(name: str, text: str) -> None:
    """Checks a budget.

    Raises:
        UsageError: It is neither an amount nor "auto".
    """
    if not is_auto_budget(text):
        parse_amount(text, name, OTHER_BUDGETS)


def check_max_budget(name: str, text: str) -> None:
    """Checks the limit of the budget "auto".

    Raises:
        UsageError: It is no amount.
    """
    parse_amount(text, name)


def check_gpus_per_trial(name: str, gpus: float | str) -> None:
    """Checks the share of a GPU per trial.

    Raises:
        UsageError: It is neither "auto" nor a number from 0 to 1.
    """
    if isinstance(gpus, str):
        if gpus != AUTO:
            raise UsageError(f"{name} {gpus}: expected a number, such as 0.5, or auto")
    elif not 0 <= gpus <= 1:
        raise UsageError(f"{name} {gpus:g}: expected 0 ... 1, because a trial trains on one GPU, or auto")


def check_ray_address(name: str, address: str) -> None:
    """Checks the address of a Ray cluster.

    Raises:
        UsageError: It has another form than "auto", "HOST:PORT" or "ray://HOST:PORT".
    """
    if address == AUTO:
        return
    match = re.fullmatch(r"(?:ray://)?(\[[0-9a-fA-F:.]+\]|[^\s/:\[\]]+):(\d{1,5})/?", address)
    if match is None or not 0 < int(match[2]) < 65536:
        raise UsageError(f"{name} {address}: expected auto, HOST:PORT (often port 6379) or ray://HOST:10001")


def check_final_seeds(name: str, folds: int) -> None:
    """Checks the number of folds of the final runs.

    Raises:
        UsageError: It is below 2.
    """
    if folds < 2:
        raise UsageError(
            f"{name}: {folds} final run per recipe gives no interval, so that no difference could be told from "
            "noise; give 2 or more"
        )


def split_codes(codes: str | None) -> tuple[str, ...]:
    """Returns the codes, in upper case, of a text with commas between them; an empty tuple for None."""
    return tuple(code.strip().upper() for code in (codes or "").split(",") if code.strip())
