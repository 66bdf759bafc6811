"""Study: is a quadratic penalty optimal for a linearised network, and how much do approximations lose?

Claim of DLCFT (arXiv 2208.08112): with squared error on the first-order expansion, training task after task with a
penalty from the summed Gauss-Newton matrices of past tasks equals joint training on all tasks; an approximation of the
matrices causes forgetting. The study tests this on real digits: `conv3(width=8)` is trained on digits 0-4, its last
unit and a random head are linearised (P weights), and digits 5-9 are five class-incremental tasks of one class each.
All solutions are in closed form in float64, so that only the curvature differs:

    w_t = argmin 1/2 ||f0 + J_t w - a onehot||^2 + 1/2 (w - w_{t-1})' (Lambda + sum_s C_s) (w - w_{t-1})

with C_s exact, K-FAC, diagonal or none. Reported are, over orders of the classes and random heads, the gap between the
outputs on test images and those of joint training, ||f - f_joint|| / ||f_joint - f0||, and the test accuracy.

    python studies/continual_theory.py       # about two minutes; writes studies/results/continual_theory.{json,md}
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from machine import machine
from torch import Tensor
from torch.func import functional_call, jacrev, vmap

import nbt
from nbt.devices import normalise
from nbt.models.backbone import Backbone
from nbt.seeds import generator
from nbt.task.task import Task
from nbt.transfer.curvature.estimate import estimate_curvature
from nbt.tuning.intervals import paired_interval, t_interval

RESULTS = Path(__file__).parent / "results"
CURVATURES = ("exact", "kfac", "diagonal", "none")
TARGET_SCALE = 15.0
FROZEN_UNITS = 2
# Lambda as a share of the mean eigenvalue of a task's curvature; small enough not to prevent forgetting by itself.
PRIOR_SHARE = 1e-4


class LinearizedModel:
    """First-order expansion of a model as matrices: f0, (n, C), and J, (n C, P), for n images.

    Args:
        task: Task of the target digits.
        seed: Seed of the random head.
    """

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self.model: Backbone = task.build_model().double()
        self.model.units[:FROZEN_UNITS].requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model.head.reset_parameters()
        self.parameters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        self.size = sum(parameter.numel() for parameter in self.parameters.values())

    def images(self, index: Any) -> Tensor:
        """Returns normalised images in float64, (n, 3, H, W)."""
        pixels = torch.from_numpy(self.task.images.array[index]).permute(0, 3, 1, 2).double()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.task.mean, self.task.std))
        return normalise(pixels, mean, std)

    @torch.no_grad()
    def expand(self, index: Any) -> tuple[Tensor, Tensor]:
        """Returns f0, (n, C), and J, (n C, P), for the images with the given indices."""

        def outputs(parameters: Mapping[str, Tensor], image: Tensor) -> Tensor:
            logits: Tensor = functional_call(self.model, dict(parameters), (image[None],))[0]
            return logits

        values, rows = [], []
        for images in self.images(index).split(16):
            values.append(self.model(images))
            parts = vmap(jacrev(outputs), (None, 0))(self.parameters, images)
            rows.append(torch.cat([part.flatten(2) for part in parts.values()], dim=2))
        return torch.cat(values), torch.cat(rows).flatten(0, 1)

    def curvature(self, kind: str, index: Any) -> Tensor:
        """Returns the curvature of a task from `estimate_curvature` as a matrix, (P, P)."""
        if kind == "none":
            return torch.zeros(self.size, self.size, dtype=torch.float64)
        estimate = estimate_curvature(kind, self.model, self.images(index).split(64), vectors="unit")
        columns = []
        for position in range(self.size):
            unit = torch.zeros(self.size, dtype=torch.float64)
            unit[position] = 1.0
            columns.append(self._flat(estimate.multiply(self._named(unit))))
        return torch.stack(columns, dim=1)

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([parameter.numel() for parameter in self.parameters.values()])
        return {n: part.view_as(p) for (n, p), part in zip(self.parameters.items(), parts, strict=True)}

    def _flat(self, named: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([named[name].flatten() for name in self.parameters])


def targets(labels: Tensor, classes: int) -> Tensor:
    """Returns scaled one-hot targets, (n, C)."""
    return TARGET_SCALE * torch.nn.functional.one_hot(labels, classes).double()


def learn(
    order: Sequence[int],
    expansions: Mapping[int, tuple[Tensor, Tensor, Tensor]],
    curvature: Callable[[int], Tensor],
    prior: Tensor,
) -> Tensor:
    """Returns the weights w, (P,), after training the tasks in order, each solved exactly.

    Args:
        order: Numbers of the tasks.
        expansions: f0, (n, C), J, (n C, P), and targets, (n, C), of each task.
        curvature: Returns the matrix C_s, (P, P), that represents a past task.
        prior: Lambda, (P, P).
    """
    w, past = torch.zeros(len(prior), dtype=torch.float64), prior.clone()
    for number in order:
        origin, jacobian, target = expansions[number]
        residual = (target - origin).flatten() - jacobian @ w
        w = w + torch.linalg.solve(jacobian.T @ jacobian + past, jacobian.T @ residual)
        past = past + curvature(number)
    return w


def run_seed(task: Task, seed: int) -> dict[str, Any]:
    """Returns gap, accuracy and effect of the order for every curvature, for one head and order."""
    model = LinearizedModel(task, seed)
    labels = torch.from_numpy(task.labels)
    train = {c: task.split.train[task.labels[task.split.train] == c] for c in range(task.n_classes)}
    expansions = {}
    for number, index in train.items():
        expansions[number] = (*model.expand(index), targets(labels[index], task.n_classes))
    origin, jacobian = model.expand(task.split.test)
    truth = labels[task.split.test]
    exact = {number: j.T @ j for number, (_, j, _) in expansions.items()}
    mean = fmean(float(matrix.diagonal().mean()) for matrix in exact.values())
    prior = PRIOR_SHARE * mean * torch.eye(model.size, dtype=torch.float64)
    joint_curvature = sum(exact.values(), start=prior)
    gradient = sum(
        ((y - f).flatten() @ j for f, j, y in expansions.values()), start=torch.zeros(model.size, dtype=torch.float64)
    )
    joint = jacobian @ torch.linalg.solve(joint_curvature, gradient)

    def gap(change: Tensor, reference: Tensor) -> float:
        return float((change - reference).norm() / joint.norm())

    def accuracy(change: Tensor) -> float:
        return float(((origin.flatten() + change).view_as(origin).argmax(1) == truth).double().mean())

    order = torch.randperm(task.n_classes, generator=generator(seed, "order")).tolist()
    result: dict[str, Any] = {"seed": seed, "order": order, "weights": model.size, "joint": accuracy(joint)}
    for kind in CURVATURES:
        curvatures = {number: model.curvature(kind, index) for number, index in train.items()}
        forward, backward = (
            jacobian @ learn(tasks, expansions, curvatures.__getitem__, prior) for tasks in (order, order[::-1])
        )
        result[kind] = {
            "gap": gap(forward, joint),
            "order_gap": gap(forward, backward),
            "accuracy": accuracy(forward),
        }
    return result


def interval_text(values: Sequence[float], style: Callable[[float], str]) -> str:
    """Returns the mean of values with its 95 % interval as text."""
    mean = t_interval(values)
    return f"{style(mean.mean)} [{style(mean.low or 0.0)}, {style(mean.high or 0.0)}]"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the finding and the table as Markdown."""
    rows = result["rows"]
    lines = []
    for kind in CURVATURES:
        gaps, orders, accuracies = ([row[kind][name] for row in rows] for name in ("gap", "order_gap", "accuracy"))
        style = "{:.1e}".format if kind == "exact" else "{:.2f}".format
        lines.append(
            f"| {kind} | {interval_text(gaps, style)} | {interval_text(orders, style)} "
            f"| {interval_text([100 * value for value in accuracies], '{:.1f}'.format)} |"
        )
    return "\n".join(
        [
            "# A quadratic penalty on a linearised network, in closed form",
            "",
            finding(rows),
            "",
            f"{result['machine']}. {len(rows)} random heads and orders of digits 5-9, one class per task; "
            f"{rows[0]['weights']:,} weights; means with 95 % intervals (Student's t). Joint training reaches "
            f"{interval_text([100 * row['joint'] for row in rows], '{:.1f}'.format)} % of the test images.",
            "",
            "| curvature | gap to joint training | gap to the reversed order | test accuracy, % |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a paragraph that states whether the claim is confirmed and compares the approximations."""
    comparisons = []
    for better, worse in itertools.pairwise(CURVATURES[1:]):
        difference = paired_interval([row[worse]["gap"] for row in rows], [row[better]["gap"] for row in rows])
        significant = difference.low is not None and difference.low > 0
        comparisons.append(
            f"the gap of {better} is {'' if significant else 'not significantly '}smaller than that of {worse} "
            f"(difference {difference.mean:.2f} [{difference.low:.2f}, {difference.high:.2f}])"
        )
    worst, order = (max(row["exact"][name] for row in rows) for name in ("gap", "order_gap"))
    holds = worst < 1e-6 and order < 1e-6
    return (
        "The claim that sequential training with exact curvature equals joint training in any order is "
        f"**{'confirmed' if holds else 'not confirmed'}** (largest gap {worst:.0e}, between orders {order:.0e}). "
        f"Approximations: {'; '.join(comparisons)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="random heads, each with its own order of the tasks")
    parser.add_argument("--shots", type=int, help="labelled images per class; default: all")
    parser.add_argument("--out", type=Path, default=RESULTS, help="output folder")
    args = parser.parse_args()
    task = nbt.load_task("digits", backbone="conv3(width=8)", shots=args.shots)
    rows = []
    for seed in range(args.seeds):
        rows.append(run_seed(task, seed))
        print({kind: round(rows[-1][kind]["gap"], 4) for kind in CURVATURES}, flush=True)
    result = {"machine": machine(), "rows": rows}
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "continual_theory.json").write_text(json.dumps(result, indent=1) + "\n")
    (args.out / "continual_theory.md").write_text(to_markdown(result))
    print(to_markdown(result))


if __name__ == "__main__":
    main()
