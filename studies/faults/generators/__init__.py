"""Generators of bad inputs: functions from a `Sandbox` to the `Case` that gives the input to nbt."""

from __future__ import annotations

from collections.abc import Callable

from faults.generators.arguments import bad_arguments, bad_names, bad_urls
from faults.generators.case import Case, Sandbox
from faults.generators.images import bad_archives, bad_images, bad_predictions
from faults.generators.models import bad_models, bad_tables, bad_weights, other_stores
from faults.generators.texts import bad_manifests, bad_yaml

GENERATORS: dict[str, Callable[[Sandbox], Case]] = {
    "images": bad_images,
    "images to classify": bad_predictions,
    "archives": bad_archives,
    "YAML files": bad_yaml,
    "CSV files": bad_manifests,
    "weights": bad_weights,
    "model folders": bad_models,
    "recorded tables": bad_tables,
    "databases of other versions": other_stores,
    "names": bad_names,
    "URLs with passwords": bad_urls,
    "values of options": bad_arguments,
}
"""Kind of input -> its generator."""

__all__ = ["GENERATORS", "Case", "Sandbox"]
