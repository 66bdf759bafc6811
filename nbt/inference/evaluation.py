"""ModelEvaluation: the result of a model on labelled images."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from nbt.data.image_files import PassedOver
from nbt.metrics import METRICS
from nbt.object_html import table_html
from nbt.training.metrics import Predictions
from nbt.tuning.finals.bootstrap import metric_intervals
from nbt.tuning.finals.test_results import ClassResult, class_results, confusion_matrix
from nbt.tuning.intervals import Interval

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class ModelEvaluation:
    """Result of a model on labelled images.

    Attributes:
        metric: Name of the metric that stands first, one of `nbt.metrics.METRICS`.
        class_names: Names of the C classes of the model.
        results: The predictions of the images that could be read; `index` are their positions in `paths`.
        paths: Path of each image.
        errors: Reason why an image cannot be read by its position in `paths`.
        passed_over: Files of the dataset that are not read as images.
        part: Part of the dataset: "test", "val", "train" or "all".
        reason: Why this part was chosen; "" where the user chose it.
    """

    metric: str
    class_names: Sequence[str]
    results: Predictions
    paths: Sequence[str]
    errors: Mapping[int, str]
    passed_over: Sequence[PassedOver]
    part: str
    reason: str = ""

    def __repr__(self) -> str:
        value = "not defined" if self.value is None else _text(self.metric, self.value.mean)
        return f"ModelEvaluation({METRICS[self.metric].label} {value}, {self.n} images, part {self.part!r})"

    def _repr_html_(self) -> str:
        rows = [
            (METRICS[name].label, *(_text(name, value) for value in (interval.mean, interval.low, interval.high)))
            for name, interval in sorted(self.metrics.items(), key=lambda item: item[0] != self.metric)
        ]
        rows = [("metric", "value", "95 % interval from", "to"), *rows]
        return table_html(f"{self.n} images, part {self.part}", rows)

    @property
    def n(self) -> int:
        """Number of images that were classified."""
        return len(self.results.labels)

    @cached_property
    def metrics(self) -> Mapping[str, Interval]:
        """Value of every defined metric with its 95 % interval over the images, by name."""
        return metric_intervals(self.results)

    @property
    def value(self) -> Interval | None:
        """Value of `metric` with its interval; None if it is not defined, as the AUROC of images of one class."""
        return self.metrics.get(self.metric)

    @property
    def majority(self) -> float:
        """Accuracy of always guessing the class with most images, 0 ... 1."""
        return float(self.results.class_counts.max() / self.n)

    @property
    def missing_classes(self) -> list[str]:
        """Classes of the model without an image."""
        return [self.class_names[label] for label in np.flatnonzero(self.results.class_counts == 0).tolist()]

    @property
    def skipped(self) -> list[tuple[str, str]]:
        """Path and reason of each file that was not evaluated."""
        unread = [(self.paths[position], reason) for position, reason in self.errors.items()]
        return unread + [(str(file.path), file.reason) for file in self.passed_over]

    @property
    def class_results(self) -> list[ClassResult]:
        """Result of every class, the lowest recall first, classes without images last."""
        return class_results(self.results, self.class_names)

    @property
    def classes(self) -> pd.DataFrame:
        """Result by class, the lowest recall first: columns name, images, predicted, recall, precision and f1."""
        import pandas as pd

        columns = ["name", "images", "predicted", "recall", "precision", "f1"]
        return pd.DataFrame([dataclasses.asdict(row) for row in self.class_results])[columns]

    @property
    def confusion(self) -> pd.DataFrame:
        """Number of images by true class (rows) and predicted class (columns), (C, C)."""
        import pandas as pd

        names = list(self.class_names)
        return pd.DataFrame(confusion_matrix(self.results), index=pd.Index(names, name="true class"), columns=names)

    @property
    def predictions(self) -> pd.DataFrame:
        """One row per image: columns path, label (true class), predicted, probability (of the predicted class), error.

        The files that were passed over come last.
        """
        import pandas as pd

        names, results = np.array(self.class_names, dtype=object), self.results
        read = pd.DataFrame(
            {
                "path": [self.paths[position] for position in results.index.tolist()],
                "label": names[results.labels],
                "predicted": names[results.predicted],
                "probability": np.exp(results.log_probabilities.max(axis=1)),
                "error": "",
            },
            index=results.index,
        )
        unread = pd.DataFrame(self.skipped, columns=["path", "error"])
        return pd.concat([read, unread], ignore_index=True) if len(unread) else read.reset_index(drop=True)

    def to_json(self) -> dict[str, Any]:
        """Returns the result in JSON types."""
        return {
            "part": self.part,
            "images": self.n,
            "metric": self.metric,
            "value": None if self.value is None else _value_json(self.value),
            "metrics": {name: _value_json(interval) for name, interval in self.metrics.items()},
            "majority": self.majority,
            "classes": [dataclasses.asdict(row) for row in self.class_results],
            "confusion": {"classes": list(self.class_names), "matrix": confusion_matrix(self.results).tolist()},
            "missing_classes": self.missing_classes,
            "skipped": [{"path": path, "error": reason} for path, reason in self.skipped],
        }


def _text(metric: str, value: float | None) -> str:
    return "" if value is None else METRICS[metric].format_score(METRICS[metric].score(value))


def _value_json(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.mean, "low": interval.low, "high": interval.high}
