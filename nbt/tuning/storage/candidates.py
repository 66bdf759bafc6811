"""Records of the backbones that a search chooses from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class CandidateConfig:
    """A backbone with its weights, as it identifies a study.

    Attributes:
        name: Its name in reports and, unless it is the reference, in the setting `backbone` of trials.
        backbone: Canonical specification.
        weights: "default", "none" or the absolute path of a file.
        weights_hash: Fingerprint of the weights.
        image_size: Side of its images in pixels.
    """

    name: str
    backbone: str
    weights: str
    weights_hash: str
    image_size: int

    @property
    def identity(self) -> tuple[str, str, int]:
        """What two sessions of a study must agree in."""
        return self.backbone, self.weights_hash, self.image_size


@dataclass(frozen=True, kw_only=True)
class BackboneForecast:
    """The accuracy that tuning is expected to reach with a backbone, from its fit before any training.

    Attributes:
        mean: Expected accuracy, 0 ... 1.
        low: Lower end of its 80 % interval.
        high: Upper end.
        log_odds: Log odds of `mean`.
        spread: Standard deviation of the log odds relative to those of the other backbones of the same task.
    """

    mean: float
    low: float
    high: float
    log_odds: float
    spread: float


@dataclass(frozen=True, kw_only=True)
class CandidateRecord:
    """What is known of a candidate before any trial.

    Attributes:
        name: Name of the candidate, see `CandidateConfig`.
        parameters: Number of parameters of its units.
        cost: Cost of an epoch of the default recipe relative to the reference.
        probe: Accuracy of the ridge probe on its features, 0 ... 1; None if its fit could not be measured.
        forecast: What it is expected to reach; None without a fit profile.
        seconds: Duration of the measurement of its fit.
        latency: Time in milliseconds in which it classifies one image on the device of the search; None in studies of
            earlier versions.
        licence: Licence of the weights, "" if it is not given.
        text: The user's remark.
    """

    name: str
    parameters: int
    cost: float
    probe: float | None = None
    forecast: BackboneForecast | None = None
    seconds: float | None = None
    latency: float | None = None
    licence: str = ""
    text: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Returns the record in JSON types."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CandidateRecord:
        """Reads the result of `to_dict`.

        Raises:
            TypeError: The values are damaged.
        """
        forecast = values.get("forecast")
        return cls(**{**values, "forecast": None if forecast is None else BackboneForecast(**forecast)})
