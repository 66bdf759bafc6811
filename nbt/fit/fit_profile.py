"""The fit profile: how well pretrained weights fit a target, overall and per unit, convertible to and from JSON."""

from __future__ import annotations

import dataclasses
import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nbt.object_html import short_repr, table_html

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1

_SHOWN_MEASURES = ("ridge_accuracy", "advantage", "logme", "knn_accuracy")

OPTIONAL_MEASURES = ("nleep", "leep", "nce", "transrate", "h_score")
"""Scalars that a profile has on request only.

They have shown no skill in ordering weights: the 95 % interval of their rank correlation with fine-tuned accuracy is
above 0 neither across backbones nor across transfer depths (`studies/results/fit_validity.md`). Others without skill
are always computed: a rule or a diagnosis reads them, or they follow from the ridge probe. "h_score" is the plain
H-score; the regularised one has skill.
"""

LAYER_COLUMNS = (
    "unit",
    "depth",
    "channels",
    "ridge_accuracy",
    "ridge_accuracy_random",
    "gain",
    "logme",
    "logme_random",
    "h_score",
    "h_score_random",
    "mean_shift",
    "variance_shift",
    "dead_channels",
    "cka_next",
    "relative_gradient",
)


@dataclass(frozen=True, eq=False)
class FitProfile:
    """Measures of how well a backbone's weights fit a target, computed before any training.

    Attributes:
        scalars: Measures at the output, and numeric facts about the dataset and the model; a measure that does not
            apply is absent and named in `left_out`. `OPTIONAL_MEASURES` are last, and absent from both unless they were
            requested.
        layers: One row per unit in order from the input, with the columns `LAYER_COLUMNS`; NaN where a measure does not
            apply.
        facts: The subject of the profile: dataset, backbone, weights, image_size, samples, fingerprint, seconds.
        left_out: Reasons why measures are absent, by measure.
    """

    scalars: Mapping[str, float]
    layers: pd.DataFrame
    facts: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        measures = [f"{name} {value:.3g}" for name, value in self.scalars.items() if name in _SHOWN_MEASURES]
        return short_repr("FitProfile", [*self._subject(), *measures, f"{len(self.layers)} units"])

    def _repr_html_(self) -> str:
        rows = [(name, f"{value:.4g}") for name, value in self.scalars.items()]
        left_out = f"left out: {', '.join(self.left_out)}; " if self.left_out else ""
        note = f"{left_out}.layers has {len(self.layers)} units, .plot() draws them"
        return table_html(f"FitProfile of {', '.join(self._subject())}", rows, note)

    def _subject(self) -> list[str]:
        """Returns dataset, backbone and weights, as far as they are known."""
        return [str(self.facts[name]) for name in ("dataset", "backbone", "weights") if name in self.facts]

    def plot(self) -> Any:
        """Draws the ridge probe of each unit at pretrained and at random weights, and the gain.

        Returns:
            A `matplotlib.figure.Figure`, which a notebook shows.

        Raises:
            ValueError: The profile has no units.
        """
        # As pandas does with its plotting backend: the figures are in a package that uses this one.
        return importlib.import_module("nbt.report.fit.plots").draw_profiles([self])

    def to_dict(self) -> dict[str, Any]:
        """Returns the profile in JSON types; NaN and infinite values become None."""
        rows = self.layers.to_dict(orient="records")
        return {
            "version": FORMAT_VERSION,
            "facts": dict(self.facts),
            "scalars": _replace_non_finite(self.scalars),
            "layers": [_replace_non_finite({str(key): value for key, value in row.items()}) for row in rows],
            "left_out": dict(self.left_out),
        }

    def to_json(self) -> str:
        """Returns the profile as a JSON document: {version, facts, scalars, layers: [{unit, ...}], left_out}."""
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> FitProfile:
        """Builds a profile from the result of `to_dict`.

        Raises:
            ValueError: The values are of another version, or not a profile.
        """
        import pandas as pd

        if values.get("version") != FORMAT_VERSION:
            raise ValueError(f"fit profile of version {values.get('version')}: this nbt reads version {FORMAT_VERSION}")
        try:
            layers = pd.DataFrame(values["layers"], columns=list(LAYER_COLUMNS))
            numbers = [name for name in LAYER_COLUMNS if name != "unit"]
            layers[numbers] = layers[numbers].astype(float)
            scalars = {name: math.nan if value is None else float(value) for name, value in values["scalars"].items()}
            return cls(scalars, layers, dict(values["facts"]), dict(values["left_out"]))
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a fit profile: {error}") from error

    @classmethod
    def from_json(cls, text: str) -> FitProfile:
        """Builds a profile from the result of `to_json`.

        Raises:
            ValueError: The text is not JSON, of another version, or not a profile.
        """
        values = json.loads(text)
        if not isinstance(values, dict):
            raise ValueError("not a fit profile: expected a JSON object")
        return cls.from_dict(values)

    def without_optional_measures(self) -> FitProfile:
        """Returns the profile without `OPTIONAL_MEASURES`."""
        scalars = {name: value for name, value in self.scalars.items() if name not in OPTIONAL_MEASURES}
        left_out = {name: reason for name, reason in self.left_out.items() if name not in OPTIONAL_MEASURES}
        return dataclasses.replace(self, scalars=scalars, left_out=left_out)

    def with_facts(self, **facts: Any) -> FitProfile:
        """Returns the profile with some facts added or replaced."""
        return dataclasses.replace(self, facts={**self.facts, **facts})


def _replace_non_finite(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value for name, value in values.items()
    }
