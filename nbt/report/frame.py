"""Trials as a table: one row a trial."""

from __future__ import annotations

import pandas as pd

from nbt.report.flat import flat_settings
from nbt.report.numbers import one_line
from nbt.search.records import StudyRecord, TrialRecord
from nbt.settings import TransferSettings

FULL_EPOCHS = "epochs_full"
"""Column of the setting `epochs`: the column "epochs" is how many epochs were run."""


def trials_frame(record: StudyRecord) -> pd.DataFrame:
    """Returns one row a trial, in the order of their numbers.

    Returns:
        Columns number, state, origin, val_accuracy (0 ... 1, of the kept epoch; 0 where the trial diverged), val_loss
        (nats), epochs (run), seconds (of training), reason, then every setting under its own name with one column a
        knot (`layer_lr_shape_input` ...); the setting `epochs` is called `epochs_full`. Missing numbers are NaN.
    """
    rows = [_row(trial) for trial in record.trials]
    columns = list(_row(TrialRecord(number=0, state="running", settings=TransferSettings())))
    frame = pd.DataFrame(rows, columns=columns)
    return frame.astype({"val_accuracy": "float64", "val_loss": "float64"})


def _row(trial: TrialRecord) -> dict[str, object]:
    settings = flat_settings(trial.settings)
    settings[FULL_EPOCHS] = settings.pop("epochs")
    return {
        "number": trial.number,
        "state": trial.state,
        "origin": one_line(trial.origin),
        "val_accuracy": trial.val_accuracy,
        "val_loss": trial.val_loss,
        "epochs": len(trial.curve),
        "seconds": round(trial.seconds, 3),
        "reason": one_line(trial.reason),
        **settings,
    }
