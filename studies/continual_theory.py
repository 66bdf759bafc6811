"""Study: is a quadratic penalty the optimal continual policy for a linearised network, and what do cheap ones lose?

DLCFT's claim (arXiv 2208.08112): with squared error on the first-order expansion, the penalty with the summed
Gauss-Newton matrices of past tasks gives, task after task, what joint training on all of them gives; and what is left
out of that matrix is what is forgotten. Checked on real digits: `conv3(width=8)` trained on digits 0-4, its last unit
and a random head linearised (P weights), digits 5-9 in five class-incremental tasks of one class each. Everything is
solved in closed form in float64, so nothing but the curvature differs:

    w_t = argmin 1/2 ||f0 + J_t w - a onehot||^2 + 1/2 (w - w_{t-1})' (Lambda + sum_s C_s) (w - w_{t-1})

with C_s exact, K-FAC, diagonal or none. Reported over orders of the classes and random heads: the gap of the outputs on
test images to joint training, ||f - f_joint|| / ||f_joint - f0||, and the test accuracy.

    python studies/continual_theory.py       # a minute or two; writes studies/results/continual_theory.{json,md}
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
SCALE = 15.0
FROZEN = 2
# As a share of the mean eigenvalue of a task's own curvature: small enough to be no policy of its own.
PRIOR = 1e-4


class Linear:
    """The expansion of a model as matrices: f0, (n, C), and J, (n C, P), of any images."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task = task
        self.model: Backbone = task.build_model().double()
        self.model.units[:FROZEN].requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model.head.reset_parameters()
        self.parameters = {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}
        self.size = sum(parameter.numel() for parameter in self.parameters.values())

    def images(self, index: Any) -> Tensor:
        """Returns images as the model takes them, (n, 3, H, W)."""
        pixels = torch.from_numpy(self.task.images.array[index]).permute(0, 3, 1, 2).double()
        mean, std = (torch.tensor(values, dtype=torch.float64) for values in (self.task.mean, self.task.std))
        return normalise(pixels, mean, std)

    @torch.no_grad()
    def expand(self, index: Any) -> tuple[Tensor, Tensor]:
        """Returns f0 and J on some images."""

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
        """Returns the curvature of a task as a matrix, (P, P), as `nbt.transfer` estimates it."""
        if kind == "none":
            return torch.zeros(self.size, self.size, dtype=torch.float64)
        found = estimate_curvature(kind, self.model, self.images(index).split(64), vectors="unit")
        columns = []
        for position in range(self.size):
            unit = torch.zeros(self.size, dtype=torch.float64)
            unit[position] = 1.0
            columns.append(self._flat(found.multiply(self._named(unit))))
        return torch.stack(columns, dim=1)

    def _named(self, vector: Tensor) -> dict[str, Tensor]:
        parts = vector.split([parameter.numel() for parameter in self.parameters.values()])
        return {n: part.view_as(p) for (n, p), part in zip(self.parameters.items(), parts, strict=True)}

    def _flat(self, named: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([named[name].flatten() for name in self.parameters])


def targets(labels: Tensor, classes: int) -> Tensor:
    return SCALE * torch.nn.functional.one_hot(labels, classes).double()


def learn(
    order: Sequence[int],
    pieces: Mapping[int, tuple[Tensor, Tensor, Tensor]],
    curvature: Callable[[int], Tensor],
    prior: Tensor,
) -> Tensor:
    """Returns w after the tasks in order, each solved exactly.

    Args:
        order: Tasks.
        pieces: f0, (n, C), J, (n C, P), and targets, (n, C), of each task.
        curvature: What stands for a task that is gone, (P, P).
        prior: Lambda, (P, P).
    """
    w, past = torch.zeros(len(prior), dtype=torch.float64), prior.clone()
    for number in order:
        origin, jacobian, wanted = pieces[number]
        residual = (wanted - origin).flatten() - jacobian @ w
        w = w + torch.linalg.solve(jacobian.T @ jacobian + past, jacobian.T @ residual)
        past = past + curvature(number)
    return w


def run_seed(task: Task, seed: int) -> dict[str, Any]:
    """Returns gap and accuracy of every curvature, and how far the order matters, for one head and order."""
    linear = Linear(task, seed)
    labels = torch.from_numpy(task.labels)
    train = {c: task.split.train[task.labels[task.split.train] == c] for c in range(task.n_classes)}
    pieces = {}
    for number, index in train.items():
        pieces[number] = (*linear.expand(index), targets(labels[index], task.n_classes))
    origin, jacobian = linear.expand(task.split.test)
    truth = labels[task.split.test]
    exact = {number: j.T @ j for number, (_, j, _) in pieces.items()}
    mean = fmean(float(matrix.diagonal().mean()) for matrix in exact.values())
    prior = PRIOR * mean * torch.eye(linear.size, dtype=torch.float64)
    whole = sum(exact.values(), start=prior)
    pull = sum(
        ((y - f).flatten() @ j for f, j, y in pieces.values()), start=torch.zeros(linear.size, dtype=torch.float64)
    )
    joint = jacobian @ torch.linalg.solve(whole, pull)

    def gap(one: Tensor, other: Tensor) -> float:
        return float((one - other).norm() / joint.norm())

    def accuracy(change: Tensor) -> float:
        return float(((origin.flatten() + change).view_as(origin).argmax(1) == truth).double().mean())

    order = torch.randperm(task.n_classes, generator=generator(seed, "order")).tolist()
    found: dict[str, Any] = {"seed": seed, "order": order, "weights": linear.size, "joint": accuracy(joint)}
    for kind in CURVATURES:
        kept = {number: linear.curvature(kind, index) for number, index in train.items()}
        one, back = (jacobian @ learn(way, pieces, kept.__getitem__, prior) for way in (order, order[::-1]))
        found[kind] = {"gap": gap(one, joint), "order_gap": gap(one, back), "accuracy": accuracy(one)}
    return found


def interval(values: Sequence[float], style: Callable[[float], str]) -> str:
    found = t_interval(values)
    return f"{style(found.mean)} [{style(found.low or 0.0)}, {style(found.high or 0.0)}]"


def to_markdown(result: Mapping[str, Any]) -> str:
    """Renders the table and the finding."""
    rows = result["rows"]
    lines = []
    for kind in CURVATURES:
        gaps, orders, accuracies = ([row[kind][name] for row in rows] for name in ("gap", "order_gap", "accuracy"))
        style = "{:.1e}".format if kind == "exact" else "{:.2f}".format
        lines.append(
            f"| {kind} | {interval(gaps, style)} | {interval(orders, style)} "
            f"| {interval([100 * value for value in accuracies], '{:.1f}'.format)} |"
        )
    return "\n".join(
        [
            "# A quadratic penalty on a linearised network, in closed form",
            "",
            finding(rows),
            "",
            f"{result['machine']}. {len(rows)} random heads and orders of digits 5-9, one class a task; "
            f"{rows[0]['weights']:,} weights; means with 95 % intervals (Student's t). Joint training reaches "
            f"{interval([100 * row['joint'] for row in rows], '{:.1f}'.format)} % of the test images.",
            "",
            "| curvature | gap to joint training | gap to the reversed order | test accuracy, % |",
            "|---|---|---|---|",
            *lines,
            "",
        ]
    )


def finding(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns what the gaps say, in one paragraph."""
    steps = []
    for better, worse in itertools.pairwise(CURVATURES[1:]):
        found = paired_interval([row[worse]["gap"] for row in rows], [row[better]["gap"] for row in rows])
        sure = found.low is not None and found.low > 0
        steps.append(
            f"{better} {'below' if sure else 'not surely below'} {worse} "
            f"(difference {found.mean:.2f} [{found.low:.2f}, {found.high:.2f}])"
        )
    worst, order = (max(row["exact"][name] for row in rows) for name in ("gap", "order_gap"))
    holds = worst < 1e-6 and order < 1e-6
    return (
        "With exact curvature sequential equals joint training, whatever the order: "
        f"**{'confirmed' if holds else 'not confirmed'}** (largest gap {worst:.0e}, between orders {order:.0e}). "
        f"Of the approximations, {'; '.join(steps)}."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="random heads, each with an order of its own")
    parser.add_argument("--shots", type=int, help="labelled images a class; all when not given")
    parser.add_argument("--out", type=Path, default=RESULTS)
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
