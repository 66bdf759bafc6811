"""Recording of tables: baseline recipes and other settings of a space, trained to full length."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nbt.errors import NbtError, UsageError
from nbt.seeds import derive_seed
from nbt.settings import TransferSettings
from nbt.training.results import TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.engines.base import TrialSource
from nbt.tuning.experience.informed_design import InformedDesign
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable, TableHeader
from nbt.tuning.repeated_failures import MAX_EQUAL_FAILURES, RepeatedFailures
from nbt.tuning.space.sampling import sample_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import to_json

_log = logging.getLogger("nbt")

RANDOM_ORIGIN = "random"
REPEAT_INTERVAL = 10
"""Every setting with a number divisible by this runs with two seeds."""
_SEEDS = (0, 1)


@dataclass(frozen=True)
class PlannedRun:
    """A planned run of a recording; see `RecordedRun` for the fields."""

    setting: int
    seed: int
    origin: str
    settings: TransferSettings

    @property
    def key(self) -> str:
        """Name of the run, unique in the recording."""
        return f"setting-{self.setting:04d}-seed-{self.seed}"


def plan_runs(space: Space, n: int, *, epochs: int, seed: int) -> list[PlannedRun]:
    """Returns the runs of a recording: the baseline recipes, then random settings.

    Every tenth setting runs with two seeds. A random setting depends only on the seed and its number, so that a longer
    recording continues a shorter one.

    Args:
        space: The space from which each dimension is sampled independently: uniformly, or uniformly in the logarithm.
        n: Number of settings, including the baseline recipes.
        epochs: Number of epochs of every run.
        seed: Seed of the sampling.
    """
    baselines = [
        (f"anchor: {name}", settings) for name, settings in baseline_recipes(epochs) if space.can_express(settings)
    ]
    planned: list[PlannedRun] = []
    for number in range(n):
        if number < len(baselines):
            origin, settings = baselines[number]
        else:
            rng = np.random.default_rng(derive_seed(seed, "recorded setting", number))
            origin, settings = RANDOM_ORIGIN, space.settings(sample_params(space, rng), epochs)
        planned += _with_repeats(number, origin, settings)
    return planned


def plan_informed_runs(
    design: InformedDesign, numbers: range, finished: Mapping[tuple[int, int], RecordedRun]
) -> list[PlannedRun]:
    """Returns the runs of a block of settings of the informed design.

    A setting with a finished run keeps its settings, so that a resumed recording continues the interrupted one.

    Args:
        design: The design.
        numbers: Numbers of the settings.
        finished: The finished runs of the table by setting and seed; those before the block decide on its settings.
    """
    earlier = [run for (number, _), run in sorted(finished.items()) if number < numbers.start]
    planned: list[PlannedRun] = []
    for number in numbers:
        run = next((finished[number, seed] for seed in _SEEDS if (number, seed) in finished), None)
        origin, settings = design.setting(number, earlier) if run is None else (run.origin, run.settings)
        planned += _with_repeats(number, origin, settings)
    return planned


def n_runs(n_settings: int) -> int:
    """Returns the number of runs of a recording of `n_settings` settings."""
    return sum(len(_seeds(number)) for number in range(n_settings))


def _with_repeats(number: int, origin: str, settings: TransferSettings) -> list[PlannedRun]:
    return [PlannedRun(number, seed, origin, settings) for seed in _seeds(number)]


def _seeds(number: int) -> tuple[int, ...]:
    return _SEEDS if number % REPEAT_INTERVAL == 0 else _SEEDS[:1]


class Journal:
    """The finished runs of a recording: a file of JSON lines next to the table, extended after every run.

    Args:
        table: Path of the table.
        header: Header of the recording.

    Attributes:
        runs: The finished runs by setting and seed, including those of an existing table.

    Raises:
        UsageError: An existing table or journal belongs to another recording.
    """

    def __init__(self, table: Path, header: TableHeader) -> None:
        self.header = header
        self._table, self._path = table, table.with_name(f"{table.name}.journal")
        self.runs: dict[tuple[int, int], RecordedRun] = {}
        self._has_header = False  # the first line of the journal is its header
        if table.exists():
            existing = RecordedTable.load(table)
            self._check(existing.header.identity, table)
            self._add_runs(existing.runs)
        if self._path.exists():
            self._read()

    def _add_runs(self, runs: Sequence[RecordedRun]) -> None:
        self.runs |= {(run.setting, run.seed): run for run in runs}

    def _check(self, identity: dict[str, Any], path: Path) -> None:
        """Raises UsageError if an existing file belongs to another recording."""
        expected = to_json(self.header.identity)
        differing = [name for name, value in expected.items() if to_json(identity.get(name)) != value]
        if differing:
            raise UsageError(
                f"{path}: recorded with different {', '.join(differing)}; give another --out, or the same options"
            )

    def _read(self) -> None:
        """Reads the complete lines; a crash may have left an incomplete one."""
        lines = []
        for line in self._path.read_text(encoding="utf-8").splitlines():
            with suppress(ValueError):
                lines.append(json.loads(line))
        if lines:
            self._check(lines[0], self._path)
            self._has_header = True
            self._add_runs([RecordedRun.from_row(row) for row in lines[1:]])

    def add(self, run: RecordedRun) -> None:
        """Adds a run and writes it to disk before returning."""
        self.runs[run.setting, run.seed] = run
        lines = [run.to_row()]
        if not self._has_header:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lines = [to_json(self.header.identity), *(existing.to_row() for existing in self.runs.values())]
        with self._path.open("a", encoding="utf-8") as file:
            file.write(self._newline() + "".join(json.dumps(line) + "\n" for line in lines))
            file.flush()
            os.fsync(file.fileno())
        self._has_header = True

    def _newline(self) -> str:
        """Returns a line break if the last line is incomplete after a crash, else an empty string."""
        try:
            with self._path.open("rb") as file:
                file.seek(-1, os.SEEK_END)
                return "" if file.read(1) == b"\n" else "\n"
        except OSError:
            return ""

    def close(self, header: TableHeader) -> RecordedTable:
        """Writes the table and removes the journal.

        Args:
            header: Header of the table, with facts and profile.

        Returns:
            The table as loaded from its file.
        """
        RecordedTable(header, list(self.runs.values())).save(self._table)
        self._path.unlink(missing_ok=True)
        return RecordedTable.load(self._table)


class Recording(TrialSource):
    """The trial source of the missing runs of a recording (`nbt.tuning.engines.base.TrialSource`).

    No run is stopped early. A failed run is logged and skipped; a later recording tries it again.

    Args:
        planned: All runs of the recording.
        journal: The finished runs, to which the others are added.
        on_run: Called after every run with the run, the number of planned runs that are finished, and the number of
            planned runs.
        n_planned: Number of planned runs of the whole recording, if `planned` are a part of them.

    Attributes:
        failed: Key of each failed run -> error.
    """

    def __init__(
        self,
        planned: Sequence[PlannedRun],
        journal: Journal,
        on_run: Callable[[RecordedRun, int, int], None] | None = None,
        n_planned: int | None = None,
    ) -> None:
        self._journal, self._on_run = journal, on_run
        self._by_key = {run.key: run for run in planned}
        self._pending = deque(run for run in planned if (run.setting, run.seed) not in journal.runs)
        self._planned = None if n_planned else {(run.setting, run.seed) for run in planned}
        self._n_planned = n_planned or len(planned)
        self._failures = RepeatedFailures()
        self.failed: dict[str, str] = {}

    def next_trial(self) -> TrialSpec | None:
        """Returns the next missing run, or None if there is none."""
        if not self._pending:
            return None
        run = self._pending.popleft()
        seed = derive_seed(self._journal.header.seed, "recorded run", run.setting, run.seed, bits=31)
        return TrialSpec(key=run.key, settings=run.settings, seed=seed)

    def on_done(self, spec: TrialSpec, outcome: TrialOutcome) -> None:
        """Adds a finished run to the journal.

        Raises:
            NbtError: Three runs in a row failed with the same error.
        """
        if outcome.error is not None:
            self._record_failure(spec, outcome.error)
            return
        self._failures.reset()
        planned = self._by_key[spec.key]
        run = RecordedRun(
            setting=planned.setting,
            seed=planned.seed,
            origin=planned.origin,
            settings=planned.settings,
            curve=outcome.curve,
            setup_seconds=float(outcome.facts.get("setup_seconds", 0.0)),
        )
        self._journal.add(run)
        if self._on_run is not None:
            stored = self._journal.runs.keys()
            self._on_run(run, len(stored if self._planned is None else stored & self._planned), self._n_planned)

    def on_abandoned(self, spec: TrialSpec) -> None:
        """Queues a run that the engine returned unfinished; it runs again."""
        self._pending.appendleft(self._by_key[spec.key])

    def _record_failure(self, spec: TrialSpec, error: str) -> None:
        """Stores and logs a failure; ends the recording at the third equal failure in a row.

        Raises:
            NbtError: Three runs in a row failed with the same error.
        """
        self.failed[spec.key] = error
        _log.warning("%s failed and is skipped: %s", spec.key, error)
        if self._failures.add(error):
            raise NbtError(
                f"{MAX_EQUAL_FAILURES} runs in a row failed in the same way: {error} (recorded runs are kept)"
            )
