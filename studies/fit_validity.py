"""Study: do the fit measures and the forecast rank candidates as fine-tuning does, and how many points is it off?

Claim: the calibrated forecast (`nbt.tuning.experience.backbone_forecast`), by which a search judges its backbones
before the first trial, ranks pretrained candidates on a new data set better than size and ImageNet accuracy do, and
tells their accuracy with a smaller error than a constant does.

16 candidates on each of the ten judging data sets, at 64 px:

- the four shared networks with ImageNet weights;
- the same four with random weights;
- `mobilenet_v2(width_mult=0.35)`, further trained from the ImageNet weights with the default recipe on each of eight
  tuning data sets, none of which is a target. These have one size and one ImageNet accuracy, that of their network.

Every candidate has a fit profile of the target's training images and is fine-tuned with two recipes of 12 epochs: the
default recipe, and a rate of .03, which suits random weights; the network without BatchNorm, which does not learn at
these rates, has one with AdamW. Its accuracy is that on the test images after the last epoch, mean over seeds, of the
recipe with the better validation accuracy. The forecast is calibrated on the best of more recipes and may lie above.

Results: the weighted Kendall tau of every measure with these accuracies per target, mean over targets, for all
candidates, the pretrained ones (all but random weights), and the further trained ones. Measures for which lower is
better are negated; one that some candidates lack (LEEP needs the classifier of the source) ranks the others; one that
is the same for all has tau 0. The error is the mean absolute one in points, beside that of a constant (the mean
accuracy on the other targets) and of the last layer's ridge probe, taken as a forecast. Intervals are 95 % of a
bootstrap over targets, which is somewhat too narrow for ten.

Rule, on the forecast: *confirmed* if its tau among the pretrained candidates has an interval above 0, so have its
differences from size and from ImageNet accuracy there, its error over all candidates is smaller than that of the
constant (interval of the difference below 0), and its 80 % interval covers 70 to 90 % of the accuracies; *confirmed in
part* if that tau or that difference of errors alone is clear; else *not confirmed*. The forecast is a function of
ridge probe and kNN; its difference from the probe is reported and decides nothing. There is no verdict before all rows
of the first seed exist. All other measures are exploratory, some 20 at once.

Cut for time (two cores): depths of transfer, which the study had before; four recipes per candidate; two of the ten
tuning data sets (digits, of another kind, and corn4, the smallest); more than two seeds.

    python studies/fit_validity.py run --shared ../shared      # resumable; 2 to 2.5 hours on two idle cores
    python studies/fit_validity.py report                      # writes studies/results/fit_validity.{json,md,svg}

Rows: `studies/results/fit_candidates.jsonl`, made by `fit_candidates.py`; the further trained weights are in the cache
of nbt. On the rows of the former design, `fit_validity_{runs,profiles}.jsonl`, `backbone_forecast.py` calibrates the
forecast; none of them is of a target.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fit_candidates import (
    ALL,
    CANDIDATES,
    PRETRAINED,
    PROFILE,
    SEEDS,
    SUBSETS,
    TARGETS,
    Candidate,
    all_keys,
    key_of,
    train_all,
)
from machine import machine
from scipy.stats import weightedtau
from shards import study_parser
from small_tasks import EPOCHS, IMAGE_SIZE
from study_command import run_study
from study_rows import Row, latest_rows

from nbt.tuning.experience.backbone_forecast import forecaster_without

RESULTS = Path(__file__).resolve().parent / "results"
ROWS = RESULTS / "fit_candidates.jsonl"
REPORT, FIGURE, VALUES = (RESULTS / f"fit_validity.{suffix}" for suffix in ("md", "svg", "json"))
BOOTSTRAP = 10_000
SIZE, TOP_1, PROBE, FORECAST = "parameters", "ImageNet accuracy", "ridge_accuracy", "forecast"
ABOVE, CONSTANT, COVERAGE, DIFFERENCE = "ridge above random", "constant", "coverage", "forecast minus constant"
LABELS = {SIZE: "size", PROBE: "ridge probe of the last layer", COVERAGE: "80 % interval covers, %"}
LOWER_IS_BETTER = ("mean_shift", "variance_shift", "dead_channels")
FACTS = (
    *("classes", "train_images", "images_per_class", "smallest_class", "imbalance", "samples"),
    *("image_size", "units", "feature_dim"),
)
Interval = tuple[float | None, float | None, float | None]  # mean, lower and upper bound


@dataclass(frozen=True)
class Point:
    """What is known of a candidate on a target.

    Attributes:
        target: The target.
        candidate: The candidate.
        accuracy: Test accuracy after fine-tuning, 0 ... 1.
        measures: Name -> value, greater for a better candidate.
        interval: The 80 % interval of the forecast.
    """

    target: str
    candidate: Candidate
    accuracy: float
    measures: Mapping[str, float]
    interval: tuple[float, float]


def main() -> None:
    """Runs the study or writes its report."""
    args = study_parser(__doc__, ROWS, "target")[0].parse_args()
    if args.command == "report" and not args.rows.exists():
        raise SystemExit(f"{args.rows} does not exist: run the study first")
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)
    if args.command == "report":
        VALUES.write_text(json.dumps(values_of(latest_rows(args.rows)), indent=1) + "\n", encoding="utf-8")


def points(rows: Sequence[Row]) -> list[Point]:
    """Returns the candidates and targets that have a profile and a seed with all recipes."""
    found, by_key = list[Point](), {key_of(row): row for row in rows}
    for target in TARGETS:
        forecaster = forecaster_without(target)
        for candidate in CANDIDATES:
            name = candidate.name
            seeds = [s for s in SEEDS if all((target, name, r, s) in by_key for r in candidate.recipes)]
            profile = by_key.get((target, name, PROFILE, 0))
            if not seeds or profile is None:
                continue
            runs = [[by_key[target, name, r, s] for s in seeds] for r in candidate.recipes]
            best = max(runs, key=lambda of_recipe: np.mean([row["val"] for row in of_recipe]))
            scalars = profile["scalars"]
            forecast = forecaster.forecast(scalars[PROBE], scalars.get("knn_accuracy"))
            measures = {**measures_of(scalars), TOP_1: candidate.top_1, FORECAST: forecast.mean}
            accuracy = float(np.mean([row["test"] for row in best]))
            found.append(Point(target, candidate, accuracy, measures, (forecast.low, forecast.high)))
    return found


def measures_of(scalars: Mapping[str, float]) -> dict[str, float]:
    """Returns the measures of a profile, negated where lower is better."""
    kept = {name: value for name, value in scalars.items() if name not in FACTS and not name.endswith("_random")}
    signed = {name: -value if name in LOWER_IS_BETTER else value for name, value in kept.items()}
    return signed | {ABOVE: scalars[PROBE] - scalars["ridge_accuracy_random"]}


def tau(name: str, of_target: Sequence[Point]) -> float:
    """Returns the weighted tau of a measure; NaN for fewer than three candidates that have it, 0 if it is constant."""
    pairs = [(point.measures[name], point.accuracy) for point in of_target if name in point.measures]
    if len(pairs) < 3:
        return math.nan
    values, accuracies = zip(*pairs, strict=True)
    if len(set(values)) < 2 or len(set(accuracies)) < 2:
        return 0.0
    return float(weightedtau(values, accuracies).statistic)


def by_target(found: Sequence[Point], subset: str) -> dict[str, list[Point]]:
    """Returns target -> its points of a subset of the candidates."""
    groups = defaultdict[str, list[Point]](list)
    for point in found:
        if point.candidate.kind in SUBSETS[subset]:
            groups[point.target].append(point)
    return dict(groups)


def errors(groups: Mapping[str, Sequence[Point]]) -> dict[str, list[float]]:
    """Returns the mean absolute errors in points and the coverage in per cent, each per target; two or more targets."""
    means = {target: float(np.mean([point.accuracy for point in group])) for target, group in groups.items()}
    result = defaultdict[str, list[float]](list)
    for target, group in groups.items():
        constant = float(np.mean([mean for other, mean in means.items() if other != target]))
        for name, value in ((FORECAST, None), (PROBE, None), (CONSTANT, constant)):
            off = [abs((point.measures[name] if value is None else value) - point.accuracy) for point in group]
            result[name].append(100 * float(np.mean(off)))
        covered = [point.interval[0] <= point.accuracy <= point.interval[1] for point in group]
        result[COVERAGE].append(100 * float(np.mean(covered)))
    result[DIFFERENCE] = [a - b for a, b in zip(result[FORECAST], result[CONSTANT], strict=True)]
    return dict(result)


def bootstrap(values: Sequence[float]) -> Interval:
    """Returns mean and 95 % interval over targets; NaN are left out, and fewer than two targets have no interval."""
    usable = np.array([value for value in values if not math.isnan(value)])
    if len(usable) < 2:
        return (float(usable.mean()) if len(usable) else None), None, None
    drawn = np.random.default_rng(0).integers(len(usable), size=(BOOTSTRAP, len(usable)))
    low, high = np.percentile(usable[drawn].mean(axis=1), [2.5, 97.5])
    return float(usable.mean()), float(low), float(high)


def values_of(rows: Sequence[Row]) -> dict[str, Any]:
    """Returns all results in JSON types: taus, differences from the forecast, errors, and accuracies."""
    found, done = points(rows), set(map(key_of, rows))
    result: dict[str, Any] = {"rows": {}, "verdict": "", "tau": {}, "forecast minus": {}, "errors": {}}
    for seed in SEEDS:
        keys = [key for target in TARGETS for candidate in CANDIDATES for key in all_keys(seed, target, candidate)]
        result["rows"][str(seed)] = [sum(key in done for key in keys), len(keys)]
    for subset in SUBSETS:
        groups = by_target(found, subset)
        names = sorted({name for group in groups.values() for point in group for name in point.measures})
        taus = {name: [tau(name, group) for group in groups.values()] for name in names}
        result["tau"][subset] = {name: bootstrap(values) for name, values in taus.items()}
        result["forecast minus"][subset] = {
            name: bootstrap(np.subtract(taus[FORECAST], taus[name]).tolist())
            for name in (SIZE, TOP_1, PROBE)
            if name in taus
        }
        of_errors = errors(groups) if len(groups) > 1 else {}
        result["errors"][subset] = {name: bootstrap(values) for name, values in of_errors.items()}
    result["accuracies"] = [
        {"target": p.target, "candidate": p.candidate.name, "accuracy": p.accuracy, FORECAST: p.measures[FORECAST]}
        for p in found
    ]
    result["verdict"] = verdict(result)
    return result


def verdict(values: Mapping[str, Any]) -> str:
    """Returns the verdict by the rule of the docstring, of the results of `values_of`."""
    n_rows, n_all = values["rows"][str(SEEDS[0])]
    if n_rows < n_all:
        return f"no verdict: {n_rows} of {n_all} rows of the first seed exist"
    ranks = values["tau"][PRETRAINED][FORECAST][1] > 0
    better = all(values["forecast minus"][PRETRAINED][name][1] > 0 for name in (SIZE, TOP_1))
    of_errors = values["errors"][ALL]
    smaller, covers = of_errors[DIFFERENCE][2] < 0, 70 <= of_errors[COVERAGE][0] <= 90
    if ranks and better and smaller and covers:
        return "confirmed"
    return "confirmed in part" if ranks or smaller else "not confirmed"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    values = values_of(rows)
    counts = "; ".join(f"seed {seed}: {n} of {n_all} rows" for seed, (n, n_all) in values["rows"].items())
    means = {name: -2.0 if found[0] is None else found[0] for name, found in values["tau"][ALL].items()}
    ranked = sorted(means, key=lambda name: -means[name])
    of_errors = (FORECAST, PROBE, CONSTANT, DIFFERENCE, COVERAGE)
    accuracies = {(line["target"], line["candidate"]): f"{100 * line['accuracy']:.1f}" for line in values["accuracies"]}

    def by_subset(part: str, names: Iterable[str], form: str, bold: bool = True) -> dict[str, list[str]]:
        return {name: [cell(values[part][subset].get(name), form, bold) for subset in SUBSETS] for name in names}

    text = [
        "# Fit measures and forecast against fine-tuned accuracy",
        "",
        f"{len(CANDIDATES)} candidates on {len(TARGETS)} judging data sets, {IMAGE_SIZE} px, {EPOCHS} epochs; "
        f"{counts}; {machine()}. Design and rule: `studies/fit_validity.py`. Verdict: {values['verdict']}.",
        "",
        "Weighted Kendall tau with the test accuracy, mean over targets [95 %]; bold where the interval is above 0.",
        *table("measure", SUBSETS, by_subset("tau", ranked, "{:.2f}")),
        *table("forecast minus", SUBSETS, by_subset("forecast minus", (SIZE, TOP_1, PROBE), "{:+.2f}")),
        *table("absolute error, points", SUBSETS, by_subset("errors", of_errors, "{:.1f}", bold=False)),
    ]
    lines = {c.name: [accuracies.get((target, c.name), "-") for target in TARGETS] for c in CANDIDATES}
    return "\n".join([*text, *table("test accuracy, %", TARGETS, lines), ""])


def table(title: str, columns: Iterable[str], lines: Mapping[str, Sequence[str]]) -> list[str]:
    """Returns the lines of a table, after an empty one."""
    header = [title, *columns]
    cells = [[LABELS.get(name, name), *values] for name, values in lines.items()]
    return ["", *(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *cells))]


def cell(found: Interval | None, form: str, bold: bool) -> str:
    """Returns a mean with its interval as text, a dash without a value."""
    if found is None or found[0] is None:
        return "-"
    mean, low, high = found
    if low is None or high is None:
        return form.format(mean)
    text = f"{form.format(mean)} [{form.format(low)}, {form.format(high)}]"
    return f"**{text}**" if bold and low > 0 else text


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the accuracies against the forecasts."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = points(rows)
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "fit_validity", "font.size": 9}):
        axes = (figure := Figure(figsize=(4.2, 4), layout="constrained")).subplots()
        axes.plot([0, 100], [0, 100], color="grey", linewidth=0.8)
        for kind in SUBSETS[ALL]:
            pairs = [(p.measures[FORECAST], p.accuracy) for p in found if p.candidate.kind == kind]
            axes.plot(*(100 * np.array(pairs).reshape(-1, 2).T), "o", markersize=3, label=kind)
        axes.set(xlabel="forecast, %", ylabel="test accuracy after fine-tuning, %")
        axes.legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
