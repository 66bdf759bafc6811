import io

import pandas as pd

from nbt.report.study.trials_frame import trials_frame
from nbt.settings import LAYER_LR_KNOTS, SETTINGS, TransferSettings
from nbt.training.results import EpochResult
from tests.sample_study import BEST, empty_study, sample_study, spread_study, study_with_priors, trial, with_config

COLUMNS = ["number", "state", "origin", "val_accuracy", "val_loss", "epochs", "seconds", "reason"]
PLACES = ["node", "device", "gpu_index"]
FORECASTS = ["forecast_mean", "forecast_low", "forecast_high", "forecast_chance", "control"]


def settings_of(row: pd.Series) -> TransferSettings:
    values = {name: row[name] for name in SETTINGS if name in row.index}
    values["layer_lr_shape"] = [row[f"layer_lr_shape_{knot}"] for knot in LAYER_LR_KNOTS]
    return TransferSettings.from_dict({**values, "epochs": row["epochs_full"]})


def test_one_row_per_trial() -> None:
    record = sample_study()
    frame = trials_frame(record)
    assert list(frame.columns[:16]) == COLUMNS + PLACES + FORECASTS
    assert list(frame["number"]) == list(range(18))
    assert frame["state"].value_counts().to_dict() == {"complete": 10, "pruned": 7, "failed": 1}
    best = frame.set_index("number").loc[12]
    assert (best["val_accuracy"], best["epochs"], best["epochs_full"]) == (0.712, 12, 12)
    assert frame["epochs"].sum() == record.epochs_spent
    assert frame.set_index("number").loc[7, "val_accuracy"] == 0.0
    assert frame.set_index("number")["val_accuracy"].isna()[5]


def test_table_contains_locations() -> None:
    rows = trials_frame(spread_study())[PLACES].head(2).values.tolist()
    assert rows == [["alpha", "NVIDIA H200", "0"], ["alpha", "NVIDIA H200", "1"]]
    assert set(trials_frame(sample_study())["device"]) == {"cpu", ""}


def test_csv_round_trip_keeps_settings() -> None:
    record = sample_study()
    frame = trials_frame(record)
    read = pd.read_csv(io.StringIO(frame.to_csv(index=False)), keep_default_na=False, na_values={"val_accuracy": ""})
    for (_, row), trial_record in zip(read.iterrows(), record.trials, strict=True):
        assert settings_of(row) == trial_record.settings
        assert row["reason"] == trial_record.reason
    assert settings_of(read.iloc[12]) == BEST


def test_study_without_trials_has_the_same_columns() -> None:
    empty = trials_frame(empty_study())
    assert len(empty) == 0
    assert list(empty.columns) == list(trials_frame(sample_study()).columns)


def test_origins_are_those_of_the_report() -> None:
    assert list(trials_frame(sample_study())["origin"][:3]) == [
        "baseline: default recipe",
        "baseline: linear probe",
        "baseline: L2-SP",
    ]
    first = trial(0, origin="recommended: injection")
    assert list(trials_frame(empty_study(trials=(first,)))["origin"]) == ["initial settings: injection"]


def test_reasons_with_line_breaks_stay_in_one_row() -> None:
    failed = trial(0, "failed", reason='ValueError: a\n"b",\rc', origin="x\ny")
    text = trials_frame(empty_study(trials=(failed,))).to_csv(index=False)
    assert len(text.splitlines()) == 2


def test_trial_without_validation_has_missing_values() -> None:
    blind = trial(0, curve=(EpochResult(1, 1.0, None, None, 2.0),))
    row = trials_frame(empty_study(trials=(blind,))).iloc[0]
    assert row[["val_accuracy", "val_loss"]].isna().all()


def test_forecasts_are_those_of_the_last_epoch() -> None:
    frame = trials_frame(study_with_priors()).set_index("number")
    assert list(frame.loc[4, FORECASTS]) == [0.5, 0.45, 0.55, 0.02, "no"]
    assert frame.loc[10, "control"] == "yes"
    assert frame.loc[10, "forecast_chance"] == 0.3, "unpromising after epoch 4, but not after epoch 11"
    assert frame.loc[12, FORECASTS[:4]].isna().all()
    assert frame.loc[12, "control"] == ""
    assert trials_frame(sample_study())[FORECASTS[:4]].isna().all().all()


def test_source_accuracy_is_a_column_of_studies_that_measure_it() -> None:
    assert "source_accuracy" not in trials_frame(sample_study())
    measured = (trial(0, source_accuracy=0.25), trial(1, "pruned"))
    frame = trials_frame(with_config(sample_study(trials=measured), source_data="birds"))
    assert frame["source_accuracy"].dtype == "float64"
    assert (frame["source_accuracy"][0], frame["source_accuracy"].isna()[1]) == (0.25, True)
    assert "source_accuracy" in trials_frame(with_config(empty_study(), source_data="birds"))
