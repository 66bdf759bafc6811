"""Study: which model of recorded runs tells best, before any trial of a data set, which settings train well on it?

Every model learns from the tables that come with nbt, without those of the evaluated data set:

- *experience model*: what nbt uses, one Gaussian process over all tables (`nbt.tuning.surrogate.experience_model`);
  without the measures of the data set (facts and fit profile), and with those of the least similar recorded one;
- *one process per table* of the backbone, weighted by the similarity of the tasks, similar to what nbt used before;
- *boosted trees* (scikit-learn) and *networks* (the mean of five) on all tables, with settings, and with or without
  measures, as inputs.

They are compared by the rank correlation (Spearman) of prediction and accuracy. The models were chosen on the *tuning*
data sets, of which the recorded runs are (recipes near the default one, and random settings where they were recorded),
and judged on the *judging* data sets, with the random settings of `binary.py`: which is also where the least
similar task's measures show whether the measures help. For the model of a search (`PriorSurrogate`), which has seen the
run of the default recipe and no other, the error of its predictions and the coverage of their 80 % intervals are given.

*The search it makes* is replayed on the tuning tables without stopping: the gain in test accuracy, without its noise,
over the default recipe after the cost of six and of twelve trials, six seeds, with the difference to a search without
recorded tasks and priors, and its 95 % interval over tables.

    python studies/surrogates.py --shared ../shared      # eight minutes on one core; needs the rows of binary.py

Writes `studies/results/surrogates.md`.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from binary import ROWS as RUNS
from binary import interval
from machine import machine
from numpy.typing import NDArray
from scipy.stats import norm, spearmanr
from small_tasks import BACKBONE, EPOCHS, Tasks, recipe
from study_rows import latest_rows
from surrogate_models import MODELS, Predict, is_own

import nbt
from nbt.settings import TransferSettings
from nbt.task.summary import dataset_summary
from nbt.tuning.baseline_recipes import default_recipe
from nbt.tuning.benchmark.ground_truth import denoise_accuracies
from nbt.tuning.benchmark.methods import SearchComponents, SearchContext, SearchMethod
from nbt.tuning.benchmark.runner import replay_search
from nbt.tuning.benchmark.simulated_engine import ReplayedTrial
from nbt.tuning.benchmark.tabular import TabularBenchmark
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import RecordedTable
from nbt.tuning.space.encoding import encode
from nbt.tuning.space.space import Space
from nbt.tuning.surrogate.kernel import default_kernel
from nbt.tuning.surrogate.logit_score import accuracy_from_logit_score, logit_score, logit_score_variance
from nbt.tuning.surrogate.task_similarity import target_from_header
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import TransferredPriors, make_sampler

FloatArray = NDArray[np.float64]

REPORT = Path(__file__).resolve().parent / "results" / "surrogates.md"
RACE, RANDOM, JUDGING = "near the default", "random", "judging"
SEEDS, AMOUNTS, TEST_IMAGES = 6, (6, 12), 300


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Settings whose result a model has to rank.

    Attributes:
        name: Name of the data set.
        kind: `RACE`, `RANDOM` or `JUDGING`.
        target: Facts and fit profile.
        settings: The settings.
        accuracies: Accuracy of each setting, (settings,).
    """

    name: str
    kind: str
    target: Target
    settings: list[TransferSettings]
    accuracies: FloatArray


def main() -> None:
    """Evaluates all models and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, required=True, help="folder with data/ and weights/")
    args = parser.parse_args()
    torch.set_num_threads(1)
    space = Space.load("non_binary").with_fixed_epochs()
    tables = load_experience(None, space)
    evaluated = [*map(of_table, filter(is_own, tables)), *judging(Tasks(args.shared))]
    ranks = {
        name: {item.name + item.kind: rank(predict, tables, item) for item in evaluated}
        for name, predict in MODELS.items()
    }
    errors = [after_default(tables, item, space) for item in evaluated]
    gains = {name: replayed(filter(is_own, tables), tables, build) for name, build in SEARCHES.items()}
    REPORT.write_text(summarise(evaluated, ranks, errors, gains), encoding="utf-8")
    print(REPORT.read_text())


def of_table(table: RecordedTable) -> Evaluated:
    """Returns the runs of a table with the accuracy on validation and test images together."""
    target, kind = target_from_header(table.header), RACE if Path(table.source).parent.name == "race" else RANDOM
    share = target.validation_images / (target.validation_images + TEST_IMAGES)
    accuracies = [
        run.val_accuracy if run.test_accuracy is None else share * run.val_accuracy + (1 - share) * run.test_accuracy
        for run in table.runs
    ]
    return Evaluated(dataset_of(table), kind, target, [run.settings for run in table.runs], np.array(accuracies))


def judging(tasks: Tasks) -> list[Evaluated]:
    """Returns the runs of `binary.py` with their test accuracy."""
    rows = latest_rows(RUNS)
    found = []
    for name in dict.fromkeys(row["dataset"] for row in rows):
        task, own = tasks.task(name), [row for row in rows if row["dataset"] == name]
        target = Target.of(dataset_summary(task), nbt.profile_fit(task).to_dict(), EPOCHS)
        accuracies = np.array([row["test"] for row in own])
        found.append(Evaluated(name, JUDGING, target, [recipe(row["changes"]) for row in own], accuracies))
    return found


def dataset_of(table: RecordedTable) -> str:
    """Returns the name of a table's data set: that of its folder, or the one it is known by."""
    name = Path(table.header.dataset).name
    return {"CUB_200_2011": "cub"}.get(name, name)


def without(tables: Iterable[RecordedTable], name: str) -> list[RecordedTable]:
    """Returns the tables of other data sets."""
    return [table for table in tables if dataset_of(table) != name]


def rank(predict: Predict, tables: Sequence[RecordedTable], item: Evaluated) -> float:
    """Returns the rank correlation of a model's predictions with the accuracies."""
    predicted = predict(without(tables, item.name), item.target, item.settings)
    return float(spearmanr(predicted, item.accuracies).statistic)


def after_default(tables: Sequence[RecordedTable], item: Evaluated, space: Space) -> tuple[float, float] | None:
    """Returns mean absolute error, in points, and coverage of 80 % intervals of a search after the default recipe.

    Settings that failed, below half of the default recipe's accuracy, are left out: a search needs no figure for them.
    None where the default recipe is not among the settings.
    """
    default = default_recipe(EPOCHS)
    if default not in item.settings:
        return None
    first, images = item.settings.index(default), item.target.validation_images
    surrogate = TransferredPriors(without(tables, item.name)).surrogate(item.target, space)
    scores, noise = logit_score(item.accuracies, images), logit_score_variance(item.accuracies, images)
    model = surrogate.condition([default], scores[[first]], noise[[first]])
    mean, std = model.predict(item.settings)
    good = item.accuracies > 0.5 * item.accuracies[first]
    good[first] = False
    error = np.abs(accuracy_from_logit_score(mean, images) - item.accuracies)[good]
    half = norm.ppf(0.9) * np.sqrt(std**2 + noise)
    return 100 * float(error.mean()), float(np.mean((np.abs(scores - mean) <= half)[good]))


def search(*, heuristics: bool = True, recorded: Callable[[RecordedTable], bool] = lambda table: True) -> SearchMethod:
    """Returns a search without stopping, with or without priors, and with those tables that `recorded` accepts."""

    def build(context: SearchContext) -> SearchComponents:
        priors = TransferredPriors([table for table in context.experience if recorded(table)])
        surrogate = priors.surrogate(context.target, context.space, heuristics=heuristics)
        recommended = surrogate.recommend(context.settings, without=[default_recipe(context.header.epochs)])
        return SearchComponents(
            sampler=lambda seed: make_sampler(surrogate, seed), initial_settings=[("recommended", recommended)]
        )

    return SearchMethod(name="", description="", build=build)


NEITHER = "neither"
SEARCHES = {
    NEITHER: search(heuristics=False, recorded=lambda table: False),
    "priors": search(recorded=lambda table: False),
    "recorded tasks": search(heuristics=False),
    "recorded tasks and priors (default)": search(),
    "random settings and priors": search(recorded=lambda table: Path(table.source).parent.name != "race"),
}


def replayed(
    evaluated: Iterable[RecordedTable], tables: Sequence[RecordedTable], method: SearchMethod
) -> dict[str, list[float]]:
    """Returns the mean gains of a search over the default recipe, in points, after `AMOUNTS`, by table."""
    space, gains = Space.load("non_binary"), dict[str, list[float]]()
    for table in evaluated:
        benchmark = TabularBenchmark(table, space)
        test = np.array([np.mean([run.test_accuracy or 0.0 for run in setting.runs]) for setting in benchmark.settings])
        noise = test * (1 - test) / TEST_IMAGES + 0.01**2
        points = encode([setting.settings for setting in benchmark.settings])
        smoothed = denoise_accuracies(test, noise, points, default_kernel())
        default = smoothed[benchmark.index[default_recipe(benchmark.length)]]
        others, results = without(tables, dataset_of(table)), []
        for seed in range(SEEDS):
            trials = replay_search(benchmark, method, experience=others, seed=seed, budget=max(AMOUNTS))
            results.append([smoothed[incumbent(trials, benchmark, amount)] - default for amount in AMOUNTS])
        gains[table.source] = [100 * float(value) for value in np.mean(results, axis=0)]
    return gains


def incumbent(trials: Sequence[ReplayedTrial], benchmark: TabularBenchmark, amount: int) -> int:
    """Returns the setting with the best validation accuracy within the epochs of so many full trials."""
    done = [trial for trial in trials if trial.cumulative_epochs <= amount * benchmark.length]
    return max(done, key=lambda trial: benchmark.settings[trial.setting].runs[trial.run].val_accuracy).setting


def summarise(
    evaluated: Sequence[Evaluated],
    ranks: Mapping[str, Mapping[str, float]],
    errors: Sequence[tuple[float, float] | None],
    gains: Mapping[str, Mapping[str, list[float]]],
) -> str:
    """Returns the report."""
    kinds = (RACE, RANDOM, JUDGING)
    counts = ", ".join(
        f"{sum(len(i.settings) for i in evaluated if i.kind == kind)} of {sum(i.kind == kind for i in evaluated)} "
        f"data sets ({kind})"
        for kind in kinds
    )
    text = [
        "# Models of recorded runs",
        "",
        f"Runs: {counts}; `{BACKBONE}`, 64 px; {machine()}. Design: `studies/surrogates.py`.",
        "",
        "Rank correlation of prediction and accuracy, before any trial of the data set [95 % over data sets]:",
        "",
        "| model | " + " | ".join(kinds) + " |",
        "|---|---|---|---|",
    ]
    for name, values in ranks.items():
        cells = [[values[i.name + i.kind] for i in evaluated if i.kind == kind] for kind in kinds]
        text.append(f"| {name} | " + " | ".join(map(interval_text, cells)) + " |")
    known = [error for error in errors if error is not None]
    text += [
        "",
        f"After the default recipe alone, on the {len(known)} tables that have it: mean absolute error "
        f"{statistics.fmean(error for error, _ in known):.1f} points, coverage of the 80 % intervals "
        f"{100 * statistics.fmean(covered for _, covered in known):.0f} % "
        f"({100 * min(covered for _, covered in known):.0f} to {100 * max(covered for _, covered in known):.0f} % on "
        "single tables).",
    ]
    for kind, folder in ((RACE, "race"), (RANDOM, "recorded")):
        names = [name for name in gains[NEITHER] if Path(name).parent.name == folder]
        text += [
            "",
            f"Replay on the {len(names)} tuning tables with settings {kind}: points above the default recipe "
            f"[difference to *{NEITHER}*, 95 % over tables]",
            "",
            "| search knows | " + " | ".join(f"cost of {amount} trials" for amount in AMOUNTS) + " |",
            "|---|---|---|",
        ]
        for search_name, by_table in gains.items():
            cells_text = []
            for i in range(len(AMOUNTS)):
                differences = [by_table[name][i] - gains[NEITHER][name][i] for name in names]
                mean = statistics.fmean(by_table[name][i] for name in names)
                low, high = interval(differences)[1:]
                cells_text.append(f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]")
            text.append(f"| {search_name} | " + " | ".join(cells_text) + " |")
    return "\n".join([*text, ""])


def interval_text(values: Sequence[float]) -> str:
    """Returns the mean with its interval."""
    return "{:+.2f} [{:+.2f}, {:+.2f}]".format(*interval(values))


if __name__ == "__main__":
    main()
