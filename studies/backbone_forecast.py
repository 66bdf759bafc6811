"""Study: what accuracy does tuning reach with a backbone, given probes of its pretrained features?

Collects the rows from which `nbt.tuning.experience.backbone_forecast` learns its regression, and measures its error
with the data set left out. A row is a data set and a backbone with its weights: the probe accuracies of its fit
profile, and the test accuracy of the settings with the best validation accuracy

- among the 27 to 220 settings of a recorded table of a tuning data set, or
- among three learning rates of plain fine-tuning at several numbers of pretrained units, from the runs of an older
  design of `studies/fit_validity.py`. Only backbones with BatchNorm are used: these rates do not train the others.

The tables of the judging data sets (`recorded/judging/`, if they exist) are forecast from all of these rows and are not
among them.

    python studies/backbone_forecast.py     # seconds; writes studies/recorded/backbones.csv, studies/results/*.md
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd

from nbt.tuning.experience.backbone_forecast import COLUMNS, BackboneForecaster, read_rows
from nbt.tuning.experience.recorded_table import RecordedTable

HERE = Path(__file__).parent
DATASETS = {"cub50": "cub", "CUB_200_2011": "cub"}
WITHOUT_NORM = ("squeezenet1_0", "conv3")


def table_rows(*, judging: bool = False) -> list[dict[str, object]]:
    """Returns a row per recorded table of the tuning data sets, or of the judging ones."""
    rows = []
    for path in sorted((HERE / "recorded").rglob("*.parquet")):
        if (path.parent.name == "judging") != judging:
            continue
        table = RecordedTable.load(path)
        header = table.header
        tested = [(run.val_accuracy, run.test_accuracy) for run in table.runs if run.test_accuracy is not None]
        accuracy = max(tested, key=lambda pair: pair[0])[1]
        scalars = (header.profile or {})["scalars"]
        rows.append(_row(header.dataset, header.backbone, "recorded table", scalars, accuracy))
    return rows


def fit_validity_rows() -> list[dict[str, object]]:
    """Returns a row per starting point of the older design of `studies/fit_validity.py`."""
    items = [
        {json.dumps(line["item"]): line for line in map(json.loads, path.read_text().splitlines())}
        for path in (HERE / "results" / f"fit_validity_{kind}.jsonl" for kind in ("profiles", "runs"))
    ]
    rows = []
    for key in items[0].keys() & items[1].keys():
        item, scalars = json.loads(key), items[0][key]["profiles"]["scalars"]
        if item["backbone"] in WITHOUT_NORM:
            continue
        # Each run is a pair of validation and test accuracy.
        means = [np.mean(runs, axis=0) for runs in items[1][key]["runs"].values()]
        test = float(max(means, key=lambda pair: pair[0])[1])
        rows.append(_row(item["target"], item["backbone"], f"{item['kept']} units pretrained", scalars, test))
    return rows


def _row(dataset: str, backbone: str, source: str, scalars: dict[str, float], accuracy: float) -> dict[str, object]:
    names = ("ridge_accuracy", "knn_accuracy")
    values = (
        DATASETS.get(dataset, dataset),
        backbone,
        source,
        *(round(scalars[name], 4) for name in names),
        round(accuracy, 4),
    )
    return dict(zip(COLUMNS, values, strict=True))


def forecast_errors(rows: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Returns the errors of the forecast of each row from the known rows of other data sets."""
    results = []
    for row in rows.itertuples():
        forecaster = BackboneForecaster(known[known["dataset"] != row.dataset])
        forecast = forecaster.forecast(row.ridge, row.knn)
        results.append(
            {
                "dataset": row.dataset,
                "source": "recorded table" if row.source == "recorded table" else "fit validity",
                "error": 100 * (forecast.mean - row.accuracy),
                "covered": forecast.low <= row.accuracy <= forecast.high,
                "width": 100 * (forecast.high - forecast.low),
            }
        )
    return pd.DataFrame(results)


def main() -> None:
    """Writes the rows and the errors."""
    found = pd.DataFrame([*table_rows(), *fit_validity_rows()], columns=COLUMNS)
    found = found.sort_values(["dataset", "backbone", "source", "ridge"])
    found.to_csv(HERE / "recorded" / "backbones.csv", index=False, lineterminator="\n")
    rows, judging = read_rows(), pd.DataFrame(table_rows(judging=True), columns=COLUMNS)
    errors = forecast_errors(rows, rows)
    groups = [("all", errors), *((str(name), group) for name, group in errors.groupby("dataset"))]
    groups += [(str(name), group) for name, group in errors.groupby("source")]
    if len(judging):
        groups.append(("judging data sets", forecast_errors(judging, rows)))
    lines = [
        "# Forecast of the accuracy of a backbone from probes of its features\n",
        "Each row is forecast from the rows of the other data sets; the judging data sets, from all rows. Errors and",
        "widths are in points of test accuracy; the intervals are of 80 %.\n",
        "| rows | number | mean absolute error | mean error | covered | mean width |",
        "|---|---|---|---|---|---|",
        *(
            f"| {name} | {len(group)} | {group['error'].abs().mean():.1f} | {group['error'].mean():+.1f} | "
            f"{100 * group['covered'].mean():.0f} % | {group['width'].mean():.0f} |"
            for name, group in groups
        ),
    ]
    (HERE / "results" / "backbone_forecast.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
