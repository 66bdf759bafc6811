"""Study: does injection between architectures (TLI) help on real images?

Claim (arXiv 2101.02757, 2212.13970): the weights of a pretrained teacher, matched by order-preserving dynamic
programming and resized to the shapes of another architecture, are a better initialisation than Kaiming's or Xavier's,
and the gain increases with the similarity of the two architectures. Four initialisations are fine-tuned on CUB-50 crop
(16 images per class) and dtd10 at 64 px:

- `inject`: `nbt.transfer.injection.weight_injection`, blend .75, from each of three ImageNet teachers;
- `random`: the same with random pairs of layers of a family, ignoring order and score: the negative control;
- `kaiming` and `xavier`: normally distributed filters and matrices.

Students have no pretrained weights. All layers train, with the library's default recipe except for the learning rate,
which is the same for all arms of a student and target: of three rates, the one with the best validation accuracy of the
*Kaiming* arm on a separate seed, which can only favour Kaiming. squeezenet has no BatchNorm and is trained with AdamW.
In every arm, BatchNorm statistics are estimated on training images before the first step. Test accuracy is measured
after every epoch and influences no decision.

    python studies/injection.py run --shared ../shared                   # resumable; about 75 minutes on one core
    python studies/injection.py run --shared ../shared       # resumable; one process per core
    python studies/injection.py run --shared ../shared --students resnet18      # about 3 more hours
    python studies/injection.py report       # minutes for the similarities of all pairs among 20 architectures

Seeds run in sequence, so that a third of the time gives a complete study with one seed. Rows are stored in
`studies/results/injection*.jsonl`; the report writes `injection.{json,md,svg}` and `injection_similarity.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from shards import add_shard_option, start_shards

RESULTS = Path(__file__).parent / "results"
TARGETS: dict[str, dict[str, Any]] = {
    "cub50": {"dataset": "cub", "data_dir": "data", "shots": 16, "image_size": 64},
    "dtd10": {"dataset": "data/dtd10", "image_size": 64},
}
TEACHERS = {
    "mobilenet_v2": "weights/mobilenet_v2-imagenet.pth",
    "mobilenet_v2(width_mult=0.35)": "weights/mobilenet_v2_035-imagenet.pth",
    "squeezenet1_0": "weights/squeezenet1_0-imagenet.pth",
}
STUDENTS = (
    "mobilenet_v2(width_mult=0.5)",
    "squeezenet1_1",
    "mobilenet_v3_small",
    "mobilenet_v2(width_mult=0.75)",
)
OTHER_STUDENTS = ("resnet18",)
WITHOUT_NORM = ("squeezenet1_1",)
SEEDS = (0, 1, 2)
RATE_SEED = 1000
SGD_RATES, ADAMW_RATES = (0.01, 0.03, 0.1), (0.0003, 0.001, 0.003)
RANDOM_ARMS, TEACHER_ARMS = ("kaiming", "xavier"), ("inject", "random")
ARMS = (*TEACHER_ARMS, *RANDOM_ARMS)
BLEND = 0.75
STATISTICS_IMAGES = 512
BOOTSTRAP = 5000
ARCHITECTURES = (
    *("alexnet", "vgg11_bn", "vgg16", "resnet18", "resnet50", "resnext50_32x4d", "densenet121", "googlenet"),
    *("inception_v3", "squeezenet1_0", "squeezenet1_1", "mobilenet_v2", "mobilenet_v3_small", "mnasnet1_0"),
    *("shufflenet_v2_x1_0", "efficientnet_b0", "regnet_y_400mf", "convnext_tiny", "vit_b_16", "swin_t"),
)
Row = dict[str, Any]
Key = tuple[Any, ...]


@dataclasses.dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        target: Key of `TARGETS`.
        student: Name of the student backbone.
        arm: One of `ARMS`, or "rate" for a run that only serves to choose the learning rate.
        teacher: Key of `TEACHERS`, "" for arms without a teacher.
        seed: Seed of initialisation, split and order.
        rate: Learning rate of a "rate" run; None for other runs, which use the chosen rate.
    """

    target: str
    student: str
    arm: str
    teacher: str
    seed: int
    rate: float | None = None

    def key(self, epochs: int) -> Key:
        """Returns the key that identifies the row of this run."""
        return (*dataclasses.astuple(self), epochs)


def rates(student: str) -> tuple[float, ...]:
    """Returns the candidate learning rates of a student."""
    return ADAMW_RATES if student in WITHOUT_NORM else SGD_RATES


def planned_runs(targets: Sequence[str], students: Sequence[str], seeds: Sequence[int], shard: str) -> Iterator[Run]:
    """Yields all runs of a shard, seed by seed; a student and target begin with the runs for the learning rate."""
    part, parts = (int(number) for number in shard.split("/"))
    pairs = [(target, student) for student in students for target in targets]
    for number, seed in enumerate(seeds):
        for target, student in pairs[part::parts]:
            if number == 0:
                yield from (Run(target, student, "rate", "", RATE_SEED, rate) for rate in rates(student))
            yield Run(target, student, "kaiming", "", seed)
            for teacher in TEACHERS:
                yield from (Run(target, student, arm, teacher, seed) for arm in TEACHER_ARMS)
            yield Run(target, student, "xavier", "", seed)


@functools.lru_cache(maxsize=2)
def load(target: str, student: str, shared: str) -> Any:
    """Returns the task without pretrained weights; its test images are evaluated after every epoch."""
    import nbt

    options = dict(TARGETS[target])
    dataset = options.pop("dataset")
    if "data_dir" in options:
        options["data_dir"] = str(Path(shared) / options["data_dir"])
    dataset = str(Path(shared) / dataset) if "/" in dataset else dataset
    task = nbt.load_task(dataset, backbone=student, weights="none", **options)
    return dataclasses.replace(task, watched=task.split.test)


@functools.cache
def load_teacher_weights(teacher: str, shared: str) -> Any:
    """Returns a teacher with its pretrained weights."""
    from nbt.models.teacher import load_teacher

    return load_teacher(f"{teacher}={Path(shared) / TEACHERS[teacher]}")


def initial_state(run: Run, task: Any, shared: str) -> tuple[dict[str, Any], Any]:
    """Returns the initial weights of a run, and the report of their injection or None."""
    from nbt.training.worker.starting_weights import draw_kaiming_state
    from nbt.transfer.injection.weight_injection import inject_weights

    if run.arm in TEACHER_ARMS:
        matching = "order" if run.arm == "inject" else "random"
        teacher = load_teacher_weights(run.teacher, shared)
        return inject_weights(task.backbone, task.image_size, teacher, blend=BLEND, seed=run.seed, matching=matching)
    if run.arm == "xavier":
        return xavier_state(task, run.seed), None
    return draw_kaiming_state(task.backbone, task.image_size, run.seed), None


def xavier_state(task: Any, seed: int) -> dict[str, Any]:
    """Returns initial units with Xavier-normal filters and matrices, and biases 0."""
    import torch

    from nbt.training.worker.starting_weights import draw_kaiming_state

    rng = torch.Generator().manual_seed(seed)
    state = draw_kaiming_state(task.backbone, task.image_size, seed)
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim in (2, 4):
            torch.nn.init.xavier_normal_(tensor, generator=rng)
    return state


def with_statistics(task: Any, w0: Mapping[str, Any], report: Any) -> dict[str, Any]:
    """Returns the weights with BatchNorm statistics of training images where no statistics were injected."""
    import torch

    from nbt.models.batch_norm import estimate_statistics
    from nbt.training.recipe.augmentation import AugmentationPlan, augment_and_normalise

    model = task.build_model()
    model.load_pretrained(w0)
    rows = np.random.default_rng(0).permutation(task.split.train)[:STATISTICS_IMAGES]
    pixels = torch.from_numpy(np.asarray(task.images.array)[rows]).split(64)
    mean, std = torch.tensor(task.mean), torch.tensor(task.std)
    batches = (augment_and_normalise(batch, AugmentationPlan(), mean, std) for batch in pixels)
    estimate_statistics(model, batches, None if report is None else report.statistics)
    return {name: tensor.clone() for name, tensor in model.unit_state_dict().items()}


def train(run: Run, rate: float, epochs: int, shared: str) -> Row:
    """Trains one run, and returns its results; accuracies after a non-finite loss count as 0."""
    import nbt
    from nbt.settings import TransferSettings

    task = load(run.target, run.student, shared).with_split_seed(run.seed)
    w0, report = initial_state(run, task, shared)
    task = dataclasses.replace(task, w0=with_statistics(task, w0, report), weights=run.arm)
    optimizer = "adamw" if run.student in WITHOUT_NORM else "sgd"
    settings = TransferSettings(epochs=epochs, body_lr=rate, head_lr=rate, optimizer=optimizer)
    curve = list(nbt.fine_tune(task, settings, seed=run.seed))
    test = [epoch.watched_accuracy or 0.0 for epoch in curve]
    val = [epoch.val_accuracy or 0.0 for epoch in curve]
    facts = {"similarity": report.similarity, "coverage": report.coverage} if report else {}
    return {
        **facts,
        "used_rate": rate,
        "test": test + [0.0] * (epochs - len(test)),
        "val": val + [0.0] * (epochs - len(val)),
        "train_images": len(task.split.train),
        "test_images": len(task.split.test),
        "seconds": round(sum(epoch.seconds for epoch in curve), 1),
    }


def collect(args: argparse.Namespace) -> None:
    """Runs the missing runs of this shard; stores every row immediately."""
    start_shards(args)
    from machine import machine

    args.out.mkdir(parents=True, exist_ok=True)
    part, parts = args.shard.split("/")
    path = args.out / f"injection{'' if parts == '1' else part}.jsonl"
    done = {key_of(row): row for row in read(args.out)}
    runs = list(planned_runs(args.targets, args.students, args.seeds, args.shard))
    for count, run in enumerate(runs, start=1):
        if run.key(args.epochs) in done:
            continue
        rate = run.rate or chosen_rate(run, args.epochs, done)
        row = {
            **dataclasses.asdict(run),
            "epochs": args.epochs,
            **train(run, rate, args.epochs, args.shared),
            "machine": machine(),
        }
        done[run.key(args.epochs)] = row
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{count} of {len(runs)}: {run} {row['test'][-1]:.3f} in {row['seconds']:.0f} s", flush=True)


def chosen_rate(run: Run, epochs: int, done: Mapping[Key, Row]) -> float:
    """Returns the rate with which the Kaiming arm has the best final validation accuracy."""
    candidates = [Run(run.target, run.student, "rate", "", RATE_SEED, rate) for rate in rates(run.student)]
    return max(candidates, key=lambda candidate: done[candidate.key(epochs)]["val"][-1]).rate or 0.0


def read(folder: Path) -> list[Row]:
    """Returns the stored rows of all shards."""
    return [json.loads(line) for path in sorted(folder.glob("injection*.jsonl")) for line in path.open()]


def key_of(row: Row) -> Key:
    """Returns the key that identifies a row."""
    run = Run(**{field.name: row[field.name] for field in dataclasses.fields(Run)})
    return run.key(row["epochs"])


@dataclasses.dataclass(frozen=True)
class Pair:
    """A teacher and a student on one target, with the learning curves of all four arms.

    Attributes:
        target: Key of `TARGETS`.
        student: Name of the student backbone.
        teacher: Name of the teacher backbone.
        similarity: TLI similarity of the two architectures.
        coverage: Share of the student's parameters that an injection sets.
        rate: Learning rate of all arms.
        curves: Test accuracies by arm, (seeds, epochs).
    """

    target: str
    student: str
    teacher: str
    similarity: float
    coverage: float
    rate: float
    curves: dict[str, np.ndarray]

    def gains(self, over: str) -> np.ndarray:
        """Returns the final test accuracy of injection minus that of another arm, one value per seed."""
        return np.asarray(self.curves["inject"][:, -1] - self.curves[over][:, -1])


def pairs_of(rows: Sequence[Row], epochs: int) -> list[Pair]:
    """Returns the pairs that have all arms for at least one seed, with these seeds only."""
    rows_by_key = {key_of(row): row for row in rows if row["epochs"] == epochs}
    pairs = []
    for target in TARGETS:
        for student in (*STUDENTS, *OTHER_STUDENTS):
            for teacher in TEACHERS:
                by_seed = [_rows_by_arm(rows_by_key, target, student, teacher, seed, epochs) for seed in SEEDS]
                complete = [arms for arms in by_seed if arms is not None]
                if complete:
                    curves = {arm: np.array([arms[arm]["test"] for arms in complete]) for arm in ARMS}
                    facts = complete[0]["inject"]
                    values = facts["similarity"], facts["coverage"], facts["used_rate"]
                    pairs.append(Pair(target, student, teacher, *values, curves))
    return pairs


def _rows_by_arm(
    rows_by_key: Mapping[Key, Row], target: str, student: str, teacher: str, seed: int, epochs: int
) -> dict[str, Row] | None:
    """Returns the rows of all arms for one seed; None if one is missing."""
    keys = {arm: Run(target, student, arm, teacher if arm in TEACHER_ARMS else "", seed).key(epochs) for arm in ARMS}
    return (
        {arm: rows_by_key[key] for arm, key in keys.items()}
        if all(key in rows_by_key for key in keys.values())
        else None
    )


def bootstrap(pairs: Sequence[Pair], statistic: Callable[[list[Pair], list[np.ndarray]], float]) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of a statistic of all pairs, over pairs and seeds.

    Pairs of one student and target share their Kaiming and Xavier runs, so they are resampled together.

    Args:
        pairs: All pairs.
        statistic: Function of resampled pairs and, for each of them, the indices of the resampled seeds.
    """
    rng = np.random.default_rng(0)
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault((pair.target, pair.student), []).append(pair)
    values = []
    for _ in range(BOOTSTRAP):
        sampled_pairs: list[Pair] = []
        seeds: list[np.ndarray] = []
        for index in rng.integers(len(groups), size=len(groups)):
            group = list(groups.values())[index]
            rows = len(group[0].curves["inject"])
            seed_sample = rng.integers(rows, size=rows)
            for pair in group:
                sampled_pairs.append(pair)
                seeds.append(seed_sample % len(pair.curves["inject"]))
        value = statistic(sampled_pairs, seeds)
        if math.isfinite(value):
            values.append(value)
    low, high = np.percentile(values, [2.5, 97.5]) if values else (math.nan, math.nan)
    return float(low), float(high)


def mean_gain(over: str) -> Callable[[list[Pair], list[np.ndarray]], float]:
    """Returns a statistic for `bootstrap`: the mean gain of injection over an arm."""
    return lambda pairs, seeds: float(np.mean([p.gains(over)[s].mean() for p, s in zip(pairs, seeds, strict=True)]))


def rank_correlation(pairs: list[Pair], seeds: list[np.ndarray]) -> float:
    """Returns Spearman's rank correlation of similarity and mean gain over Kaiming, NaN below three distinct values."""
    from scipy.stats import spearmanr

    similarity = [pair.similarity for pair in pairs]
    gain = [pair.gains("kaiming")[rows].mean() for pair, rows in zip(pairs, seeds, strict=True)]
    if len(set(similarity)) < 3 or len(set(gain)) < 3:
        return math.nan
    return float(spearmanr(similarity, gain).statistic)


def summarise(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns mean gains over the other arms, their correlation with the similarity, and gains by similarity."""
    all_seeds = [np.arange(len(pair.curves["inject"])) for pair in pairs]
    gains = {}
    for over in ("kaiming", "xavier", "random"):
        low, high = bootstrap(pairs, mean_gain(over))
        gains[over] = {"mean": mean_gain(over)(list(pairs), all_seeds), "low": low, "high": high}
    low, high = bootstrap(pairs, rank_correlation)
    correlation = {"spearman": rank_correlation(list(pairs), all_seeds), "low": low, "high": high}
    bands = {}
    for name, low, high in (("below .35", 0.0, 0.35), (".35 to .5", 0.35, 0.5), ("from .5", 0.5, 2.0)):
        inside = [float(p.gains("kaiming").mean()) for p in pairs if low <= p.similarity < high]
        if inside:
            positive = sum(gain > 0 for gain in inside)
            bands[name] = {"pairs": len(inside), "won": positive, "mean": float(np.mean(inside))}
    return {"gains": gains, "correlation": correlation, "bands": bands}


def finding(pairs: Sequence[Pair], summary: Mapping[str, Any]) -> str:
    """Returns a paragraph that states whether the claim is confirmed, with the gains and the correlation."""
    gains, correlation = summary["gains"], summary["correlation"]
    better = [gains[arm]["low"] > 0 for arm in ("kaiming", "xavier", "random")]
    worse = all(gain["high"] < 0 for gain in gains.values())
    verdict = "confirmed" if all(better) else "confirmed in part" if any(better) else "not confirmed"
    verdict = "contradicted" if worse else verdict
    gain_texts = ", ".join(f"{points_text(gains[arm])} points over {arm}" for arm in gains)
    seeds = min(len(pair.curves["inject"]) for pair in pairs)
    low, high, rho = correlation["low"], correlation["high"], correlation["spearman"]
    ranks = "confirmed" if low > 0 else "contradicted" if high < 0 else "not confirmed"
    bands = "; ".join(
        f"{name}: positive for {band['won']} of {band['pairs']} pairs, {100 * band['mean']:+.1f} points on average"
        for name, band in summary["bands"].items()
    )
    return (
        f"The claim that injection is the better initialisation is {verdict}. Over {len(pairs)} pairs of teacher and "
        f"student with at least {seeds} seeds each, the final test accuracy of injection is {gain_texts} (mean, 95 % "
        f"interval over students and seeds). The claim that more similar architectures gain more is {ranks}: the rank "
        f"correlation of similarity and gain over Kaiming is {rho:.2f} [{low:.2f}, {high:.2f}]. Gain over Kaiming by "
        f"similarity: {bands}."
    )


def points_text(interval: Mapping[str, float]) -> str:
    """Returns a mean gain in percentage points with its interval."""
    return f"{100 * interval['mean']:+.1f} [{100 * interval['low']:+.1f}, {100 * interval['high']:+.1f}]"


def similarity_matrix() -> np.ndarray:
    """Returns the TLI similarity of all pairs of `ARCHITECTURES`, (student, teacher)."""
    from nbt.models.backbone_spec import parse_backbone
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import tli_similarity

    outlines = [outline_of(parse_backbone(name)) for name in ARCHITECTURES]
    return np.array([[tli_similarity(student, teacher) for teacher in outlines] for student in outlines])


def report(args: argparse.Namespace) -> None:
    """Writes tables, figures and finding of the stored rows."""
    rows = read(args.out)
    pairs = pairs_of(rows, args.epochs)
    if not pairs:
        raise SystemExit(
            f"{args.out} has no pair with all arms at {args.epochs} epochs; run `python studies/injection.py run` first"
        )
    summary = summarise(pairs)
    matrix = similarity_matrix()
    text = finding(pairs, summary)
    result = {
        "finding": text,
        "machine": rows[0]["machine"],
        "epochs": args.epochs,
        **summary,
        "pairs": [_pair_json(pair) for pair in pairs],
        "architectures": list(ARCHITECTURES),
        "similarity": np.round(matrix, 4).tolist(),
    }
    (args.out / "injection.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "injection.md").write_text(markdown(result, pairs, matrix))
    draw_curves(pairs, args.out / "injection.svg")
    draw_matrix(matrix, args.out / "injection_similarity.svg")
    print(text)


def _pair_json(pair: Pair) -> dict[str, Any]:
    curves = {arm: np.round(curve, 4).tolist() for arm, curve in pair.curves.items()}
    return {**dataclasses.asdict(pair), "curves": curves}


def markdown(result: Mapping[str, Any], pairs: Sequence[Pair], matrix: np.ndarray) -> str:
    """Returns the finding and the tables as Markdown."""
    from nbt.tuning.intervals import t_interval

    lines = ["# Injection between architectures", "", result["finding"], ""]
    lines += [
        f"Machine: {result['machine']}. 64 px, {result['epochs']} epochs; test accuracy in % after the last epoch.",
        "",
    ]
    lines += [
        "| target | student | teacher | similarity | coverage | rate | seeds | kaiming | xavier | random | inject "
    ]
    lines[-1] += "| gain over kaiming, 95 % interval |"
    lines += ["|---" * 12 + "|"]
    for pair in pairs:
        last = {arm: f"{100 * curve[:, -1].mean():.1f}" for arm, curve in pair.curves.items()}
        gain = t_interval(pair.gains("kaiming").tolist())
        ends = "" if gain.low is None else f" [{100 * gain.low:+.1f}, {100 * (gain.high or 0.0):+.1f}]"
        lines.append(
            f"| {pair.target} | {pair.student} | {pair.teacher} | {pair.similarity:.2f} | {pair.coverage:.2f} "
            f"| {pair.rate:g} | {len(pair.curves['inject'])} | {last['kaiming']} | {last['xavier']} "
            f"| {last['random']} | {last['inject']} | {100 * gain.mean:+.1f}{ends} |"
        )
    lines += ["", "## Test accuracy by epoch, mean over pairs and seeds", ""]
    for target in dict.fromkeys(pair.target for pair in pairs):
        curves = mean_curves([pair for pair in pairs if pair.target == target])
        lines += [f"| {target} | " + " | ".join(str(epoch + 1) for epoch in range(result["epochs"])) + " |"]
        lines += ["|---" * (result["epochs"] + 1) + "|"]
        lines += [f"| {arm} | " + " | ".join(f"{100 * value:.1f}" for value in curves[arm]) + " |" for arm in ARMS]
        lines.append("")
    lines += ["## Similarity of architectures", "", "Rows are students, columns are teachers.", ""]
    lines += ["| | " + " | ".join(ARCHITECTURES) + " |", "|---" * (len(ARCHITECTURES) + 1) + "|"]
    for name, row in zip(ARCHITECTURES, matrix, strict=True):
        lines.append(f"| **{name}** | " + " | ".join(f"{value:.2f}" for value in row) + " |")
    return "\n".join([*lines, ""])


def mean_curves(pairs: Sequence[Pair]) -> dict[str, np.ndarray]:
    """Returns the mean test accuracy by epoch of every arm; every pair has the same weight."""
    return {arm: np.mean([pair.curves[arm].mean(axis=0) for pair in pairs], axis=0) for arm in ARMS}


def draw_curves(pairs: Sequence[Pair], path: Path) -> None:
    """Draws accuracy by epoch for each target, and gain by similarity."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    targets = list(dict.fromkeys(pair.target for pair in pairs))
    figure, axes = plt.subplots(1, len(targets) + 1, figsize=(4.2 * (len(targets) + 1), 3.6), layout="constrained")
    for axis, target in zip(axes, targets, strict=False):
        for arm, curve in mean_curves([pair for pair in pairs if pair.target == target]).items():
            axis.plot(range(1, len(curve) + 1), 100 * curve, label=arm, marker="o", markersize=3)
        axis.set(title=target, xlabel="epoch", ylabel="test accuracy, %")
        axis.legend()
    axis = axes[-1]
    for target in targets:
        target_pairs = [pair for pair in pairs if pair.target == target]
        gains = [100 * pair.gains("kaiming").mean() for pair in target_pairs]
        axis.scatter([pair.similarity for pair in target_pairs], gains, label=target)
    axis.axhline(0.0, color="grey", linewidth=0.8)
    axis.set(title="by similarity", xlabel="TLI similarity", ylabel="gain over Kaiming, points", xlim=(0, 1))
    axis.legend()
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def draw_matrix(matrix: np.ndarray, path: Path) -> None:
    """Draws the matrix of similarities."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 8), layout="constrained")
    image = axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    axis.set_xticks(range(len(ARCHITECTURES)), ARCHITECTURES, rotation=90)
    axis.set_yticks(range(len(ARCHITECTURES)), ARCHITECTURES)
    axis.set(xlabel="teacher", ylabel="student")
    for (row, column), value in np.ndenumerate(matrix):
        shade = "white" if value < 0.6 else "black"
        axis.text(column, row, f"{100 * value:.0f}", ha="center", va="center", fontsize=6, color=shade)
    figure.colorbar(image, label="TLI similarity")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    collector = commands.add_parser("run", help="run everything that is not stored yet")
    collector.add_argument("--shared", default="../shared", help="folder with data/ and weights/")
    add_shard_option(collector, "pair of student and target")
    collector.add_argument("--targets", nargs="*", choices=TARGETS, default=list(TARGETS), help="targets to run")
    students = (*STUDENTS, *OTHER_STUDENTS)
    collector.add_argument("--students", nargs="*", choices=students, default=list(STUDENTS), help="students to run")
    collector.add_argument("--seeds", nargs="*", type=int, choices=SEEDS, default=list(SEEDS), help="seeds to run")
    collector.set_defaults(do=collect)
    reporter = commands.add_parser("report", help="write the report of the stored rows")
    reporter.set_defaults(do=report)
    for command in (collector, reporter):
        command.add_argument("--epochs", type=int, default=8, help="epochs of every run")
        command.add_argument("--out", type=Path, default=RESULTS, help="folder of the rows and the report")
    args = parser.parse_args()
    args.do(args)


if __name__ == "__main__":
    main()
