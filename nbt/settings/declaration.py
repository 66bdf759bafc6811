"""The declaration of a setting, from which every other part of nbt reads its rule, neutral value and text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from nbt.errors import UsageError, nearest
from nbt.settings.identity import SINCE
from nbt.settings.rule import FieldRule

_DECLARATION = "declaration"

Class = TypeVar("Class", bound=type)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Declaration of one setting.

    Attributes:
        name: Name in files, search spaces, tables, reports and MLflow.
        rule: The accepted values.
        default: Neutral value, which is that of the default recipe.
        text: One sentence for users.
        details: Further sentences for the reference documentation.
        technique: Technique that the setting belongs to, "" for ordinary fine-tuning.
        label: Format of a value in the one-line summary of a recipe, for example "zap {}"; the summary has settings
            that are not neutral. "" leaves the setting out of the summary.
        knots: Names of the elements of a setting that is a list of numbers.
        since: Version that added the setting, "" for 0.1; stored hashes know a newer setting only if it is not neutral.
        group: Attribute of `TransferSettings` that holds the setting, "" for `TransferSettings` itself.
    """

    name: str
    rule: FieldRule
    default: Any
    text: str
    details: str = ""
    technique: str = ""
    label: str = ""
    knots: tuple[str, ...] = ()
    since: str = ""
    group: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the setting's plain values: its own name, or one name per knot."""
        return tuple(f"{self.name}_{knot}" for knot in self.knots) or (self.name,)

    @property
    def documentation(self) -> str:
        """Text, accepted values, default and details, for the reference documentation."""
        parts = (self.text, f"{self.rule.describe()}; default {self.default!r}.", self.details)
        return " ".join(part for part in parts if part)

    def summary(self, value: Any) -> str:
        """Returns the label of a value in the summary of a recipe, "" for the neutral value."""
        return "" if value == self.default else self.label.format(value)


def setting_field(default: Any, rule: FieldRule, text: str, **declaration: Any) -> Any:
    """Declares a field of a dataclass of settings; the keywords are those of `Setting`."""
    values = {"rule": rule, "text": text, **declaration}
    since = {SINCE: declaration["since"]} if "since" in declaration else {}
    return field(default=default, metadata={_DECLARATION: values, **since})


def declared_settings(cls: type, group: str = "") -> Iterator[Setting]:
    """Yields the settings of a dataclass in the order of its fields; a field whose default is a group yields its own.

    Args:
        cls: The dataclass; its fields are declared with `setting_field`.
        group: Attribute of `TransferSettings` that holds an instance of the class, "" for `TransferSettings` itself.
    """
    for item in dataclasses.fields(cls):
        if _DECLARATION in item.metadata:
            yield Setting(name=item.name, default=item.default, group=group, **item.metadata[_DECLARATION])
        elif dataclasses.is_dataclass(item.default):
            yield from declared_settings(type(item.default), item.name)


def documented(cls: Class) -> Class:
    """Class decorator that writes the declarations into the docstring of a dataclass of settings."""
    lines = [f"    {item.name}: {item.documentation}" for item in declared_settings(cls) if not item.group]
    cls.__doc__ = f"{(cls.__doc__ or '').rstrip()}\n\n    Attributes:\n    " + "\n    ".join(lines) + "\n"
    return cls


class SettingRegistry(Mapping[str, Setting]):
    """All settings by name: the fields of `TransferSettings`, in their order, and those of registered techniques."""

    def __init__(self) -> None:
        self._settings: dict[str, Setting] = {}
        self._extensions: dict[str, Setting] = {}
        self._modules: dict[str, str] = {}

    def declare(self, cls: type) -> None:
        """Adds the settings of a dataclass."""
        self._settings |= {item.name: item for item in declared_settings(cls)}

    def add(self, settings: Sequence[Setting], module: str) -> None:
        """Adds settings of a technique that is registered at run time.

        Args:
            settings: The settings.
            module: Name of the module that registers the technique.

        Raises:
            UsageError: A name is already taken, or the default breaks its rule.
        """
        for item in settings:
            if any(name in self for name in (item.name, *item.columns)):
                raise UsageError(f"setting {item.name}: the name is already taken; choose another one")
            item.rule.check(f"default of {item.name}", item.default)
        self._extensions |= {item.name: item for item in settings}
        self._modules |= {item.name: module for item in settings}

    def remove(self, settings: Sequence[Setting]) -> None:
        """Removes settings that were added with `add`."""
        for item in settings:
            del self._extensions[item.name], self._modules[item.name]

    def module(self, name: str) -> str:
        """Returns the module that registers the technique of a setting."""
        return self._modules[name]

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name] if name in self._settings else self._extensions[name]

    def __iter__(self) -> Iterator[str]:
        yield from self._settings
        yield from self._extensions

    def __len__(self) -> int:
        return len(self._settings) + len(self._extensions)

    @property
    def extensions(self) -> Mapping[str, Setting]:
        """The settings of registered techniques."""
        return self._extensions

    def unknown(self, name: Any) -> str:
        """Returns the message for a name that is not a setting."""
        return f"unknown setting {name!r}; {nearest(str(name), self)}"


SETTINGS = SettingRegistry()
"""All settings by name, in the order of files and tables."""
