"""Study: is injection between architectures (TLI) a better start than random weights, and does similarity tell where?

Claim (arXiv 2101.02757, 2212.13970): the weights of a pretrained teacher, matched in order and resized to the shapes of
another architecture, are a better start than Kaiming's or Xavier's, the more so the more similar the two are. Three
students without weights of their own, each with a near and a far teacher from ImageNet, learn Bengali digits and
hand signs, long enough for random weights to leave the floor. Arms:

- *kaiming*, *xavier*: normally distributed filters and matrices;
- *random*: injection from random pairs of layers of a family, which ignores order and shapes: the negative control;
- *inject*: injection in order, blend .75;
- *teacher*: the teacher itself, fine-tuned: the ceiling.

Everything but the rate is the default recipe. Every arm of a student, teacher and data set chooses its rate by
validation on a seed of its own: of three, and of one more beyond where the best is the least or the greatest, at most
twice. The best then runs on three other seeds, of which the test accuracy counts. Running statistics are estimated on
training images before the first step in all arms but *teacher*.

Rule, on *inject* minus the better of *kaiming* and *xavier*, in the mean over seeds and data sets: *confirmed* if it is
at least 1 point for all near teachers, its mean over them has a 95 % interval above 0, and it is greater for the near
than for the far teacher of every student; *confirmed in part* if that interval is above 0; else *not confirmed*.
Intervals are Student's over students and data sets.

    python studies/injection.py run --shared ../shared      # resumable; about 2 hours on two idle cores
    python studies/injection.py report

Rows: `studies/results/injection.jsonl`; the report writes `injection.md` and `injection.svg`.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from binary import interval
from machine import machine
from shards import study_parser
from study_command import run_study
from study_rows import append_row, latest_rows

import nbt
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import load_teacher
from nbt.settings import TransferSettings
from nbt.task.task import Task
from nbt.training.worker.starting_weights import draw_kaiming_state
from nbt.transfer.injection.outline import outline_of
from nbt.transfer.injection.weight_injection import inject_weights, tli_similarity

RESULTS = Path(__file__).resolve().parent / "results"
ROWS, REPORT, FIGURE = (RESULTS / f"injection.{suffix}" for suffix in ("jsonl", "md", "svg"))
TARGETS = ("bangla10", "signdigits10")
WEIGHTS = {
    "mobilenet_v2": "mobilenet_v2-imagenet.pth",
    "mobilenet_v2(width_mult=0.35)": "mobilenet_v2_035-imagenet.pth",
    "squeezenet1_0": "squeezenet1_0-imagenet.pth",
}
# Student -> its near and its far teacher.
PAIRS = {
    "mobilenet_v2(width_mult=0.5)": ("mobilenet_v2(width_mult=0.35)", "squeezenet1_0"),
    "squeezenet1_1": ("squeezenet1_0", "mobilenet_v2(width_mult=0.35)"),
    "mobilenet_v3_small": ("mobilenet_v2", "squeezenet1_0"),
}
KAIMING, XAVIER, RANDOM, INJECT, TEACHER = ARMS = ("kaiming", "xavier", "random", "inject", "teacher")
EPOCHS, IMAGE_SIZE, BLEND = 40, 48, 0.75
RATES, STEP, MAX_RATES = (0.01, 0.03, 0.1), 3.0, 5
RATE_SEED, SEEDS = 1000, (0, 1, 2)
cached_teacher = functools.cache(load_teacher)
Row = dict[str, Any]
Key = tuple[str, str, str, str]  # target, student ("" in the arm *teacher*), teacher ("" without one) and arm


def main() -> None:
    """Runs the study or writes its report."""
    args = study_parser(__doc__, ROWS, "arm")[0].parse_args()
    run_study(args, train_all, summarise, draw_figure, REPORT, FIGURE)


def all_keys() -> list[Key]:
    """Returns all arms; those of a student and data set are neighbours."""
    keys = list[Key]()
    for target in TARGETS:
        for student, teachers in PAIRS.items():
            keys += [(target, student, "", arm) for arm in (KAIMING, XAVIER)]
            keys += [(target, student, teacher, arm) for teacher in teachers for arm in (RANDOM, INJECT)]
        keys += [(target, "", teacher, TEACHER) for teacher in WEIGHTS]
    return keys


def train_all(args: argparse.Namespace) -> None:
    """Trains the missing runs of this process: all searches of a rate first, then seed by seed."""
    part, parts = map(int, args.shard.split("/"))
    keys, deadline = all_keys()[part::parts], time.monotonic() + 60 * args.minutes
    for seed in (RATE_SEED, *SEEDS):
        for key in keys:
            while (rate := next_rate(latest_rows(args.rows), key, seed)) is not None:
                if time.monotonic() > deadline:
                    return
                row = train(key, rate, seed, args.shared)
                append_row(args.rows, row)
                print(f"{row['arm']}, rate {rate:g}, seed {seed}: {100 * row['test'][-1]:.1f} %", flush=True)


def next_rate(rows: Sequence[Row], key: Key, seed: int) -> float | None:
    """Returns the rate of the next run of an arm with a seed; None if it is complete."""
    if seed != RATE_SEED:
        is_done = any(row["arm"] == name_of(key) and row["seed"] == seed for row in rows)
        return None if is_done else best_rate(rows, key)
    values = rates_of(rows, key)
    missing = [rate for rate in RATES if rate not in values]
    if missing or len(values) == MAX_RATES:
        return missing[0] if missing else None
    best = max(values, key=lambda rate: values[rate])
    beyond = {min(values): best / STEP, max(values): best * STEP}.get(best)
    return None if beyond is None else round(beyond, 5)


def rates_of(rows: Sequence[Row], key: Key) -> dict[float, float]:
    """Returns rate -> validation accuracy of the runs of an arm that choose its rate."""
    found = [row for row in rows if row["arm"] == name_of(key) and row["seed"] == RATE_SEED]
    return {row["changes"]["rate"]: row["val"] for row in found}


def best_rate(rows: Sequence[Row], key: Key) -> float:
    """Returns the rate of an arm with the best validation accuracy."""
    values = rates_of(rows, key)
    return max(values, key=values.__getitem__)


def name_of(key: Key) -> str:
    """Returns the name of an arm in the rows."""
    target, student, teacher, arm = key
    last = f"{arm} from {teacher}" if teacher and student else teacher or arm
    return ", ".join(filter(None, (target, student, last)))


def train(key: Key, rate: float, seed: int, shared: Path) -> Row:
    """Trains one run, and returns its row; accuracies after a loss that is not finite count as 0."""
    task = start(key, seed, shared)
    settings = TransferSettings(epochs=EPOCHS, body_lr=rate, head_lr=rate)
    started = time.process_time()
    curve = list(nbt.fine_tune(task, settings, seed=seed))
    test = [0.0 if epoch.diverged else epoch.watched_accuracy or 0.0 for epoch in curve]
    return {
        "arm": name_of(key),
        "seed": seed,
        "changes": {"rate": rate},
        "val": 0.0 if curve[-1].diverged else curve[-1].val_accuracy,
        "test": test + [0.0] * (EPOCHS - len(test)),
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def start(key: Key, seed: int, shared: Path) -> Task:
    """Returns the task of a run with its initial weights; the test images are evaluated after every epoch."""
    target, student, teacher, arm = key
    weights = str(shared / "weights" / WEIGHTS[teacher]) if arm == TEACHER else "none"
    task = load(target, student or teacher, weights, shared).with_split_seed(seed)
    if arm == TEACHER:
        return task
    if arm in (RANDOM, INJECT):
        options: dict[str, Any] = {"blend": BLEND, "seed": seed, "matching": "order" if arm == INJECT else "random"}
        file = shared / "weights" / WEIGHTS[teacher]
        w0, report = inject_weights(task.backbone, IMAGE_SIZE, cached_teacher(f"{teacher}={file}"), **options)
        layers = list(report.statistics)
    else:
        w0 = draw_kaiming_state(task.backbone, IMAGE_SIZE, seed) if arm == KAIMING else xavier_state(task, seed)
        layers = [name.removesuffix(".running_mean") for name in w0 if name.endswith(".running_mean")]
    model = task.build_model()
    model.load_pretrained(w0)
    task.estimate_statistics(model, layers)
    state = {name: tensor.detach().clone() for name, tensor in model.unit_state_dict().items()}
    return dataclasses.replace(task, w0=state, weights=arm)


@functools.lru_cache(maxsize=2)
def load(target: str, backbone: str, weights: str, shared: Path) -> Task:
    """Returns a task whose test images are evaluated after every epoch."""
    options: dict[str, Any] = {"backbone": backbone, "weights": weights, "image_size": IMAGE_SIZE, "progress": False}
    task = nbt.load_task(shared / "data" / target, **options)
    return dataclasses.replace(task, watched=task.split.test)


def xavier_state(task: Task, seed: int) -> dict[str, torch.Tensor]:
    """Returns initial units with Xavier-normal filters and matrices, and biases 0."""
    rng, state = torch.Generator().manual_seed(seed), draw_kaiming_state(task.backbone, IMAGE_SIZE, seed)
    for name, tensor in state.items():
        if name.endswith("weight") and tensor.ndim in (2, 4):
            torch.nn.init.xavier_normal_(tensor, generator=rng)
    return state


def curves(rows: Sequence[Row], key: Key) -> np.ndarray:
    """Returns the test accuracies of an arm in points, (seeds, epochs)."""
    found = {row["seed"]: row["test"] for row in rows if row["arm"] == name_of(key) and row["seed"] in SEEDS}
    return 100 * np.array([found[seed] for seed in sorted(found)]).reshape(-1, EPOCHS)


def pairs(rows: Sequence[Row]) -> Iterator[tuple[str, str, str, dict[str, np.ndarray]]]:
    """Yields target, student, teacher and the curves of all arms, of the pairs that are complete."""
    for target in TARGETS:
        for student, teachers in PAIRS.items():
            for teacher in teachers:
                keys = {arm: (target, student, teacher if arm in (RANDOM, INJECT) else "", arm) for arm in ARMS[:-1]}
                keys[TEACHER] = (target, "", teacher, TEACHER)
                found = {arm: curves(rows, key) for arm, key in keys.items()}
                if all(len(curve) == len(SEEDS) for curve in found.values()):
                    yield target, student, teacher, found


def gain(found: dict[str, np.ndarray]) -> float:
    """Returns the points by which *inject* ends above the better random initialisation."""
    ends = {arm: float(curve[:, -1].mean()) for arm, curve in found.items()}
    return ends[INJECT] - max(ends[KAIMING], ends[XAVIER])


def verdict(rows: Sequence[Row]) -> str:
    """Returns the verdict by the rule of the docstring."""
    gains = {(target, student, teacher): gain(found) for target, student, teacher, found in pairs(rows)}
    n_pairs = len(TARGETS) * sum(map(len, PAIRS.values()))
    if len(gains) < n_pairs:
        return f"no verdict: {len(gains)} of {n_pairs} pairs are complete"
    means = {s: [statistics.fmean(gains[t, s, teacher] for t in TARGETS) for teacher in PAIRS[s]] for s in PAIRS}
    if interval([gains[t, s, PAIRS[s][0]] for t in TARGETS for s in PAIRS])[1] <= 0:
        return "not confirmed"
    return "confirmed" if all(near >= 1 and near > far for near, far in means.values()) else "confirmed in part"


def summarise(rows: Sequence[Row]) -> str:
    """Returns the report."""
    found = list(pairs(rows))
    text = [
        "# Injection between architectures",
        "",
        f"{len(rows)} runs of {EPOCHS} epochs at {IMAGE_SIZE} px; test accuracy in per cent, mean over {len(SEEDS)} "
        f"seeds; {machine()}. Design and rule: `studies/injection.py`. Verdict: {verdict(rows)}.",
        "",
        f"| data set | student | teacher | similarity | {' | '.join(ARMS)} | inject minus the better random start |",
        "|---" * (5 + len(ARMS)) + "|",
    ]
    for target, student, teacher, by_arm in found:
        outline = outline_of(parse_backbone(student), IMAGE_SIZE)
        similarity = tli_similarity(outline, outline_of(parse_backbone(teacher)))
        ends = " | ".join(f"{by_arm[arm][:, -1].mean():.1f}" for arm in ARMS)
        text.append(f"| {target} | {student} | {teacher} | {similarity:.2f} | {ends} | {gain(by_arm):+.1f} |")
    chosen = [(key, rates_of(rows, key)) for key in all_keys()]
    edges = [name_of(key) for key, rates in chosen if rates and best_rate(rows, key) in (min(rates), max(rates))]
    text += ["", f"Best rate at the edge of its range: {'; '.join(edges) or 'in no arm'}.", ""]
    return "\n".join([*text, *comparisons(found), ""])


def comparisons(found: Sequence[tuple[str, str, str, dict[str, np.ndarray]]]) -> Iterator[str]:
    """Yields a table of *inject* minus the other arms at the end; the last two rows were chosen after the runs."""
    subsets: dict[str, Callable[[str, str], bool]] = {
        "all pairs": lambda student, teacher: True,
        "near teachers": lambda student, teacher: PAIRS[student][0] == teacher,
        "far teachers": lambda student, teacher: PAIRS[student][1] == teacher,
        "students with BatchNorm": lambda student, teacher: "squeezenet" not in student,
        "both with BatchNorm": lambda student, teacher: "squeezenet" not in student + teacher,
    }
    yield "| inject minus another arm | pairs | better random start | kaiming | xavier | random | teacher |"
    yield "|---" * 7 + "|"
    for label, matches in subsets.items():
        curves = [by_arm for _, student, teacher, by_arm in found if matches(student, teacher)]
        ends = [{arm: float(curve[:, -1].mean()) for arm, curve in by_arm.items()} for by_arm in curves]
        columns = [[gain(by_arm) for by_arm in curves]]
        columns += [[end[INJECT] - end[arm] for end in ends] for arm in ARMS if arm != INJECT]
        cells = ["{:+.1f} [{:+.1f}, {:+.1f}]".format(*interval(values)) for values in columns if len(values) > 1]
        yield f"| {label} | {len(curves)} | {' | '.join(cells)} |"


def draw_figure(rows: Sequence[Row], path: Path) -> None:
    """Draws the mean test accuracy of the arms by epoch, for near and for far teachers."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    found = list(pairs(rows))
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "injection", "font.size": 9}):
        figure = Figure(figsize=(6.4, 3), layout="constrained")
        for index, axes in enumerate(figure.subplots(1, 2, sharey=True)):
            shown = [by_arm for _, student, teacher, by_arm in found if PAIRS[student][index] == teacher]
            for arm in ARMS:
                means = np.array([by_arm[arm].mean(axis=0) for by_arm in shown]).reshape(-1, EPOCHS)
                axes.plot(range(1, EPOCHS + 1), means.mean(axis=0), label=arm)
            axes.set(title=f"{('near', 'far')[index]} teacher", xlabel="epoch")
        figure.axes[0].set_ylabel("test accuracy, %")
        figure.axes[0].legend(frameon=False)
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    main()
