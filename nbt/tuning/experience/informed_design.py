"""The informed design of a recording: settings that are worth comparing, instead of draws from the whole space.

Most draws from the whole space are useless, and almost all of them combine several techniques. The informed design has,
after the baseline recipes, in every block of `BLOCK_SIZE` settings:

- six settings of the *core*, which is the same in every table, so that tasks can be compared setting by setting;
- ten settings of the *strata*, which change the default recipe along one axis alone (`nbt.tuning.experience.strata`);
- four settings near good ones: mutations of the best settings of other tables and of the best finished ones of this
  table, and one draw with most techniques off.

Settings of the core and of the last group have three lengths: `epochs`, half and twice of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from nbt.seeds import derive_seed
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.baseline_recipes import baseline_recipes
from nbt.tuning.experience.recorded_table import RecordedRun, RecordedTable
from nbt.tuning.experience.strata import AXES, stratum
from nbt.tuning.space.dimension import ParamValue
from nbt.tuning.space.sampling import mutate, neutral_params, sample_params
from nbt.tuning.space.space import Space

BLOCK_SIZE = 20
"""Settings per block. A block is planned when the ones before it have ended, because it uses their results."""

TECHNIQUE_SHARE, DIMENSION_SHARE = 0.25, 0.5
"""Probabilities that a technique is drawn instead of off, and another dimension instead of neutral."""

_CORE, _STRATUM, _OTHER_TABLES, _OWN_BEST, _DRAW = "core", "stratum", "other tables", "own best", "draw"
_BLOCK = (_CORE, _STRATUM, _STRATUM) * 4 + (_OTHER_TABLES, _OWN_BEST) + (_CORE, _STRATUM) * 2 + (_OTHER_TABLES, _DRAW)
_N_BEST = 5
_LENGTHS = (1.0, 0.5, 2.0)


@dataclass(frozen=True)
class InformedDesign:
    """The informed design of one table.

    Attributes:
        space: Space of the recording.
        epochs: Epochs of the baseline recipes and the strata.
        name: Name of the task; other tasks have other settings outside core and strata.
        seed: Seed of the settings.
        tables: Tables of other tasks, whose best settings are mutated.
    """

    space: Space
    epochs: int
    name: str
    seed: int = 0
    tables: Sequence[RecordedTable] = ()

    def setting(self, number: int, finished: Collection[RecordedRun]) -> tuple[str, TransferSettings]:
        """Returns the origin and the settings of a number.

        Args:
            number: Number of the setting in the table, from 0.
            finished: Runs of this table that have ended.
        """
        baselines = [(n, s) for n, s in baseline_recipes(self.epochs) if self.space.can_express(s)]
        if number < len(baselines):
            name, settings = baselines[number]
            return f"anchor: {name}", settings
        block, position = divmod(number - len(baselines), BLOCK_SIZE)
        kind = _BLOCK[position]
        index = block * _BLOCK.count(kind) + _BLOCK[:position].count(kind)
        if kind == _CORE:
            rng = np.random.default_rng(derive_seed(0, "core setting", index))
            return _CORE, self.space.settings(draw_params(self.space, rng), self._length(index))
        if kind == _STRATUM and index < sum(map(len, self._strata.values())):
            axis = AXES[index % len(AXES)]
            return f"stratum: {axis}", self._strata[axis][index // len(AXES)]
        return self._near_good_setting(kind, number, finished)

    @property
    def _strata(self) -> dict[str, list[TransferSettings]]:
        return {axis: stratum(axis, self.epochs) for axis in AXES}

    def _length(self, index: int) -> int:
        return max(1, round(self.epochs * _LENGTHS[index % len(_LENGTHS)]))

    def _near_good_setting(
        self, kind: str, number: int, finished: Collection[RecordedRun]
    ) -> tuple[str, TransferSettings]:
        """Returns a mutation of a good setting, or a draw where there is none."""
        rng = np.random.default_rng(derive_seed(self.seed, "informed setting", self.name, number))
        fresh, length = draw_params(self.space, rng), self._length(number)
        if kind == _OWN_BEST:
            best = [("own best", self.space.params(settings)) for settings in best_settings(finished, self.space)]
        else:
            best = [
                (f"best of {table.header.name}", self.space.params(settings))
                for table in self.tables
                for settings in best_settings(table.runs, self.space)
            ]
        if kind == _DRAW or not best:
            return "draw", self.space.settings(fresh, length)
        origin, params = best[int(rng.integers(len(best)))]
        return origin, self.space.settings(mutate(self.space, params, fresh, rng), length)


def draw_params(space: Space, rng: np.random.Generator) -> dict[str, ParamValue]:
    """Returns random parameters with most techniques off and about half of the other dimensions neutral.

    The dimensions of a technique are all drawn or all neutral.
    """
    drawn: Mapping[str, ParamValue] = sample_params(space, rng)
    params = neutral_params(space.dimensions)
    groups: dict[str, list[str]] = defaultdict(list)
    for dimension in space.dimensions:
        groups[SETTINGS[dimension.name].technique or dimension.name].extend(dimension.parameters)
    for group, names in groups.items():
        if rng.random() < (DIMENSION_SHARE if group in SETTINGS else TECHNIQUE_SHARE):
            params |= {name: drawn[name] for name in names}
    return params


def best_settings(runs: Collection[RecordedRun], space: Space, count: int = _N_BEST) -> list[TransferSettings]:
    """Returns the distinct settings of a space with the highest mean validation accuracy over their runs."""
    accuracies: dict[TransferSettings, list[float]] = defaultdict(list)
    for run in runs:
        if space.can_express(run.settings):
            accuracies[run.settings].append(run.val_accuracy)
    ranked = sorted(accuracies, key=lambda settings: -fmean(accuracies[settings]))
    return ranked[:count]
