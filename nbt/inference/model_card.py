"""The model card of a model folder, README.md in the format of Hugging Face, and the test results in the folder."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nbt._version import __version__
from nbt.files import write_all
from nbt.metrics import METRICS, Metric
from nbt.models.backbone_spec import TIMM_PREFIX
from nbt.models.teacher import teacher_without_folder
from nbt.settings import SETTINGS, TransferSettings
from nbt.training.calibration import scale
from nbt.training.export.model_folder import CARD_FILE, README_FILE
from nbt.training.metrics import Predictions
from nbt.tuning.finals.bootstrap import metric_intervals
from nbt.tuning.finals.test_results import ClassResult, TestResult
from nbt.tuning.intervals import Interval

_RESIZE = {
    "crop": "the shorter side is scaled to {size} pixels, with antialiasing, and the centre is cropped",
    "pad": "the longer side is scaled to {size} pixels, with antialiasing, and equal borders are added",
    "squash": "both sides are scaled to {size} pixels, with antialiasing",
}


def complete_model_folder(
    folder: Path,
    *,
    temperature: float = 1.0,
    test: TestResult | None = None,
    predictions: Predictions | None = None,
    majority: TestResult | None = None,
    classes: Sequence[ClassResult] = (),
) -> None:
    """Adds what is known only after the training to a model folder: temperature, test results, and README.md.

    Args:
        folder: The model folder.
        temperature: Temperature by which the logits are divided; 1 leaves them as they are.
        test: Result of the model on the test images; None if it was not tested.
        predictions: Its predictions of the test images, without temperature.
        majority: Result of always guessing on the same images.
        classes: Result by class, with the number of training and validation images where it is known.

    Raises:
        OSError: The folder cannot be read or written.
    """
    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    if card.get("temperature", 1.0) != temperature:
        card["temperature"] = temperature
    if test is not None and predictions is not None:
        # Log loss and AUROC depend on the temperature.
        test = dataclasses.replace(test, metrics=metric_intervals(scale(predictions, temperature)))
    if test is not None:
        card["metric"] = test.metric
        card["test"] = {"images": test.n, "metrics": {name: _values(value) for name, value in test.metrics.items()}}
    texts = {README_FILE: model_card(card, test, majority, classes), CARD_FILE: json.dumps(card, indent=2) + "\n"}
    write_all(folder, texts)


def model_card(
    card: Mapping[str, Any],
    test: TestResult | None = None,
    majority: TestResult | None = None,
    classes: Sequence[ClassResult] = (),
) -> str:
    """Returns the text of README.md: metadata in YAML, then what the model is and how to use it.

    Args:
        card: The card of the model folder.
        test: Result of the model on the test images.
        majority: Result of always guessing on the same images.
        classes: Result by class.
    """
    header = yaml.safe_dump(_metadata(card, test), sort_keys=False, allow_unicode=True)
    sections = [
        _introduction(card, classes),
        _test_section(test, majority, float(card.get("temperature", 1.0))),
        _class_section(classes),
        _preprocessing(card),
        _usage(card),
        _training(card),
        _limits(card, test),
    ]
    return f"---\n{header}---\n\n" + "\n".join(section for section in sections if section)


def _metadata(card: Mapping[str, Any], test: TestResult | None) -> dict[str, Any]:
    """Returns the metadata that Hugging Face reads; a licence is left out, because nbt does not know it."""
    backbone, base = _architecture(card["backbone"]), _architecture(_origin(card))
    is_timm = backbone.startswith(TIMM_PREFIX)
    dataset = str(card.get("dataset", ""))
    metadata: dict[str, Any] = {
        "library_name": "nbt",
        "pipeline_tag": "image-classification",
        "tags": ["image-classification", "transfer-learning", "nbt", "timm" if is_timm else "torchvision"],
        **({"base_model": base.replace(TIMM_PREFIX, "timm/", 1)} if base else {}),
        "datasets": [dataset],
    }
    if test is None:
        return metadata
    metrics = [
        {"type": name, "name": f"Test {METRICS[name].label}", "value": round(value.mean, 4)}
        for name, value in _ordered(test)
    ]
    task = {"type": "image-classification", "name": "Image classification"}
    result = {"task": task, "dataset": {"name": dataset, "type": dataset, "split": "test"}, "metrics": metrics}
    return {
        **metadata,
        "metrics": [name for name, _ in _ordered(test)],
        "model-index": [{"name": f"{backbone} on {dataset}", "results": [result]}],
    }


def _origin(card: Mapping[str, Any]) -> str:
    """Returns the backbone, or the teacher, whose weights the training started from; "" for random weights."""
    settings = card["settings"]
    if settings.get("init") == "inject":
        return teacher_without_folder(settings["teacher"])
    is_random = card.get("weights") == "none" or settings.get("transfer_depth") == 0.0
    return "" if is_random else str(card["backbone"])


def _architecture(name: str) -> str:
    """Returns the name of a backbone or teacher without arguments and file."""
    return name.partition("(")[0].partition("=")[0]


def _introduction(card: Mapping[str, Any], classes: Sequence[ClassResult]) -> str:
    labelled = [row.labelled for row in classes if row.labelled is not None]
    images = f"{sum(labelled)} labelled images of " if labelled and len(labelled) == len(classes) else ""
    names, dataset = list(card["class_names"]), card.get("dataset", "")
    backbone, origin = f"the backbone `{card['backbone']}`", _origin(card)
    start = backbone if origin else f"random weights of {backbone}"
    if card["settings"].get("init") == "inject":
        start = f"{backbone} with injected weights of the teacher `{origin}` (TLI)"
    return (
        f"# {card['backbone']} on {dataset}\n\n"
        f"An image classifier of {len(names)} classes, {'fine-tuned' if origin else 'trained'} on {images}the "
        f"dataset `{dataset}` with nbt {card.get('nbt', __version__)} from {start}. The classes, in the order of the "
        f"outputs: {', '.join(f'`{name}`' for name in names)}.\n"
    )


def _test_section(test: TestResult | None, majority: TestResult | None, temperature: float) -> str:
    if test is None:
        return "## Evaluation\n\nThe model was not evaluated on test images.\n"
    guess = "" if majority is None else " always guessing |"
    lines = [
        f"## Evaluation\n\nOn {test.n} test images that nbt used neither for training nor to choose the "
        "settings, with 95 % intervals over the images:\n",
        f"| metric | value | 95 % interval |{guess}",
        "|---|---|---|" + ("" if majority is None else "---|"),
    ]
    for name, value in _ordered(test):
        other = None if majority is None else majority.metrics.get(name)
        cell = "" if majority is None else f" {'-' if other is None else _text(METRICS[name], other.mean)} |"
        lines.append(
            f"| {METRICS[name].label} | {_text(METRICS[name], value.mean)} | {_bounds(METRICS[name], value)} |{cell}"
        )
    if temperature != 1.0:
        lines.append(
            "\nLog loss and AUROC are those of the probabilities that the model gives, after calibration, as `nbt "
            "evaluate` measures them; the report of a search has those before calibration, which compare recipes."
        )
    if test.without_copies is not None and test.without_copies.value is not None:
        metric, value = METRICS[test.metric], test.without_copies.value
        lines.append(
            f"\nWithout the {test.n - test.without_copies.n} test images that have a near copy among the training "
            f"images, the {metric.label} is {_text(metric, value.mean)} ({_bounds(metric, value)})."
        )
    return "\n".join(lines) + "\n"


def _class_section(classes: Sequence[ClassResult]) -> str:
    if not classes:
        return ""
    lines = [
        "### By class\n",
        "| class | training and validation images | test images | recall | precision | F1 |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(classes, key=lambda row: row.label):
        labelled = "-" if row.labelled is None else row.labelled
        shares = " | ".join(
            "-" if share is None else f"{100 * share:.1f} %" for share in (row.recall, row.precision, row.f1)
        )
        lines.append(f"| {_cell(row.name)} | {labelled} | {row.images} | {shares} |")
    return "\n".join(lines) + "\n"


def _preprocessing(card: Mapping[str, Any]) -> str:
    size = card["image_size"]
    resize = _RESIZE[card.get("resize", "crop")].format(size=size)
    ranges = "".join(
        f" Values of more than 8 bits ({kind}) are scaled from {low:g} ... {high:g} to 0 ... 255."
        for kind, (low, high) in card.get("value_ranges", {}).items()
    )
    mean, std = (", ".join(f"{value:.4g}" for value in card[name]) for name in ("mean", "std"))
    return (
        f"## Preprocessing\n\nRGB images of {size} x {size} pixels: {resize}. Values in 0 ... 1 are normalised with "
        f"the mean ({mean}) and the standard deviation ({std}) of the channels.{ranges}\n"
    )


def _usage(card: Mapping[str, Any]) -> str:
    return (
        '## Use\n\n```python\nimport nbt\n\nmodel = nbt.load_model("FOLDER")\n'
        'model.predict("photos/")  # a DataFrame: path, label, probability, ...\n'
        'model.evaluate("labelled/")  # metrics with intervals, classes, confusion matrix\n'
        "model.to_torch()  # a torch.nn.Module: pixels to probabilities\n```\n\n"
        "`nbt predict FOLDER photos/` does the same on the command line; `nbt export FOLDER --format onnx --out "
        "model.onnx` writes a file that needs no nbt. `model.json` has class names, preprocessing and settings, "
        "`weights.safetensors` the weights.\n"
    )


def _training(card: Mapping[str, Any]) -> str:
    try:
        settings = TransferSettings.from_dict(card["settings"])
    except ValueError:  # of a later version
        return ""
    default = TransferSettings(epochs=settings.epochs)
    changed = [name for name in SETTINGS if settings.value(name) != default.value(name)]
    lines = [
        f"- `{name}`: {_setting_text(name, settings)} (default {_setting_text(name, default)})" for name in changed
    ]
    text = "\n".join(lines) if lines else "Those of the default recipe: plain full fine-tuning."
    epochs = "1 epoch" if settings.epochs == 1 else f"{settings.epochs} epochs"
    return f"## Training\n\n{epochs}. Settings that differ from the default recipe:\n\n{text}\n"


def _setting_text(name: str, settings: TransferSettings) -> str:
    value = settings.value(name)
    return (teacher_without_folder(value) if name == "teacher" else str(value)) or "none"


def _limits(card: Mapping[str, Any], test: TestResult | None) -> str:
    temperature = float(card.get("temperature", 1.0))
    calibration = (
        f"The logits are divided by the temperature {temperature:g}, fitted on validation images."
        if temperature != 1.0
        else "The probabilities are not calibrated."
    )
    tested = (
        "The test images come from the same dataset as the training images; images from another source may be "
        "classified worse. The intervals include the draw of the test images, not that of the training images. "
        if test is not None
        else ""
    )
    return (
        "## Limits\n\nEvery image is assigned to one of the classes, also one that belongs to none of them. "
        f"{tested}{calibration}\n"
    )


def _ordered(test: TestResult) -> list[tuple[str, Interval]]:
    """Returns the metrics of a result, the chosen one first."""
    return sorted(test.metrics.items(), key=lambda item: item[0] != test.metric)


def _values(interval: Interval) -> dict[str, float | None]:
    return {"value": interval.mean, "low": interval.low, "high": interval.high}


def _text(metric: Metric, value: float) -> str:
    return metric.format_score(metric.score(value))


def _bounds(metric: Metric, interval: Interval) -> str:
    if interval.low is None or interval.high is None:
        return "-"
    return f"{_text(metric, interval.low)} to {_text(metric, interval.high)}"


def _cell(name: str) -> str:
    return name.replace("|", "\\|").replace("\n", " ")
