"""Table of trials, one row per trial."""

from __future__ import annotations

import pandas as pd

from nbt.metrics import METRICS
from nbt.report.formatting import one_line, origin_text
from nbt.report.priors.pruning import forecast_of
from nbt.report.settings_table import flat_settings
from nbt.report.study.hardware import trial_location
from nbt.settings import TransferSettings
from nbt.tuning.storage.records import StudyConfig, StudyRecord, TrialRecord

FULL_EPOCHS = "epochs_full"
"""Column of the setting `epochs`; the column "epochs" is the number of epochs that were trained."""

SOURCE = "source_accuracy"
_METRICS = {f"val_{name}": name for name in METRICS if name not in ("accuracy", "log_loss")}
_FORECASTS = {f"forecast_{name}": name for name in ("mean", "low", "high", "chance")}


def trials_frame(record: StudyRecord) -> pd.DataFrame:
    """Returns the trials as a table, one row per trial, by number.

    Returns:
        Columns number, state (see `TrialRecord.end`), origin, val_accuracy (0 ... 1, after the last epoch; 0 for
            diverged trials, missing for others that are not of full length), val_loss (nats, missing in the same way),
            epochs (trained), seconds (of training), reason, node (name of the machine),
            device (name of the GPU, or "cpu"), gpu_index (index of the GPU on its machine), forecast_mean,
            forecast_low, forecast_high (score of the metric of the study, 80 % interval) and forecast_chance (of
            beating the best trial) of the last forecast, control ("yes" for an unpromising trial that continued as a
            control, else "no"; "" without a forecast), val_balanced_accuracy, val_macro_f1 and val_auroc (as
            val_accuracy; missing where they were not recorded), metric (name of the metric of the study),
            source_accuracy (see `TrialRecord.source_accuracy`; only in a study with `--source-data`), then every
            setting by name, with one column per knot (`layer_lr_shape_input` ...) and the setting `epochs` as
            `epochs_full`; `backbone` only in a search over several. Missing numbers are NaN.
    """
    rows = [_row(trial, record.config) for trial in record.trials]
    columns = list(_row(TrialRecord(number=0, state="running", settings=TransferSettings()), record.config))
    frame = pd.DataFrame(rows, columns=columns)
    numbers = ("val_accuracy", "val_loss", *_METRICS, *_FORECASTS, *([SOURCE] if SOURCE in columns else []))
    return frame.astype(dict.fromkeys(numbers, "float64"))


def _row(trial: TrialRecord, config: StudyConfig) -> dict[str, object]:
    settings = flat_settings(config.named(trial.settings))
    settings[FULL_EPOCHS] = settings.pop("epochs")
    forecast, location = forecast_of(trial), trial_location(trial.facts)
    return {
        "number": trial.number,
        "state": trial.end,
        "origin": origin_text(trial.origin),
        "val_accuracy": trial.val_accuracy,
        "val_loss": trial.val_loss,
        "epochs": len(trial.curve),
        "seconds": round(trial.seconds, 3),
        "reason": one_line(trial.reason),
        "node": location.node,
        "device": one_line(str(trial.facts.get("gpu") or trial.facts.get("device") or "")),
        "gpu_index": location.gpu,
        **{column: None if forecast is None else getattr(forecast.last, name) for column, name in _FORECASTS.items()},
        "control": "" if forecast is None else "yes" if forecast.control else "no",
        **{column: trial.score(name) for column, name in _METRICS.items()},
        "metric": config.metric,
        **({} if config.source_data is None else {SOURCE: trial.source_accuracy}),
        **settings,
    }
