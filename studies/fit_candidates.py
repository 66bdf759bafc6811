"""The candidates of `fit_validity.py`: backbones with weights, and their rows on the targets."""

from __future__ import annotations

import fcntl
import hashlib
import time
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from small_tasks import BACKBONE, EPOCHS, IMAGE_SIZE, WEIGHTS, Tasks, recipe
from study_rows import Row, append_row, latest_rows

import nbt
from nbt.files import atomic_file
from nbt.paths import cache_folder

# Backbone -> its weights and their top-1 accuracy on ImageNet, as published.
NETWORKS = {
    BACKBONE: (WEIGHTS, 0.603),
    "mobilenet_v2": ("weights/mobilenet_v2-imagenet.pth", 0.719),
    "squeezenet1_0": ("weights/squeezenet1_0-imagenet.pth", 0.581),
    "timm:tf_efficientnet_lite0": ("weights/tf_efficientnet_lite0-imagenet-fp16.pth", 0.748),
}
WITHOUT_NORM = ("squeezenet1_0",)
IMAGENET, RANDOM, FURTHER, CHANCE = "ImageNet", "random", "further trained", 0.001
SOURCES = ("CUB_200_2011", "dtd10", "sketch7", "neu6", "intel6", "kmnist10", "esc10", "pokemon25")
TARGETS = ("aid18", "scene15", "food15", "monkeys10", "pbc8", "elpv4", "trash6", "gtsrb16", "signdigits10", "bangla10")
PROFILE = "profile"
RECIPES: dict[str, dict[str, Any]] = {
    "default recipe": {},
    "rate .03": {"body_lr": 0.03, "head_lr": 0.03},
    "AdamW": {"optimizer": "adamw", "body_lr": 0.0003, "head_lr": 0.001},
}
SEEDS = (0, 1)
Key = tuple[str, str, str, int]  # target, candidate, recipe or `PROFILE`, seed


@dataclass(frozen=True)
class Candidate:
    """A backbone with weights.

    Attributes:
        backbone: Name of the backbone.
        source: Origin of the weights: `IMAGENET`, `RANDOM`, or the data set on which the former were further trained.
    """

    backbone: str
    source: str

    @property
    def name(self) -> str:
        """Name in the rows."""
        return f"{self.backbone}, {self.source}"

    @property
    def kind(self) -> str:
        """Kind of the weights: `IMAGENET`, `RANDOM` or `FURTHER`."""
        return FURTHER if self.source in SOURCES else self.source

    @property
    def top_1(self) -> float:
        """Top-1 accuracy on ImageNet of the weights, or of those from which they were further trained."""
        return CHANCE if self.source == RANDOM else NETWORKS[self.backbone][1]

    @property
    def recipes(self) -> tuple[str, ...]:
        """Keys of `RECIPES`."""
        return ("AdamW",) if self.backbone in WITHOUT_NORM else ("default recipe", "rate .03")


CANDIDATES = (
    *(Candidate(backbone, source) for source in (IMAGENET, RANDOM) for backbone in NETWORKS),
    *(Candidate(BACKBONE, source) for source in SOURCES),
)
ALL, PRETRAINED = "all", "pretrained"
# Subset of the candidates -> kinds of their weights.
SUBSETS = {ALL: (IMAGENET, RANDOM, FURTHER), PRETRAINED: (IMAGENET, FURTHER), FURTHER: (FURTHER,)}


def all_keys(seed: int, target: str, candidate: Candidate) -> list[Key]:
    """Returns the rows of a candidate on a target with a seed; there is one profile, with the first seed."""
    names = candidate.recipes if seed else (PROFILE, *candidate.recipes)
    return [] if candidate.source == target else [(target, candidate.name, name, seed) for name in names]


def key_of(row: Row) -> Key:
    """Returns the key of a row."""
    return row["dataset"], row["arm"], row["recipe"], row["seed"]


def train_all(args: Namespace) -> None:
    """Adds the missing rows of this process: all of the first seed, target by target, then those of the next."""
    part, parts = map(int, args.shard.split("/"))
    done, deadline = set(map(key_of, latest_rows(args.rows))), time.monotonic() + 60 * args.minutes
    for source in SOURCES[part::parts]:
        if time.monotonic() > deadline:
            return
        source_weights(source, args.shared)
    for seed in SEEDS:
        for target in TARGETS[part::parts]:
            for candidate in CANDIDATES:
                missing = [key for key in all_keys(seed, target, candidate) if key not in done]
                if not missing:
                    continue
                tasks = Tasks(args.shared, candidate.backbone, weights_of(candidate, args.shared))
                for key in missing:
                    if time.monotonic() > deadline:
                        return
                    values = row_values(tasks, key)
                    append_row(args.rows, {"arm": key[1], "recipe": key[2], "dataset": target, "seed": seed, **values})
                    print(*key, f"{100 * values['test']:.1f} %" if "test" in values else "", flush=True)


def row_values(tasks: Tasks, key: Key) -> dict[str, Any]:
    """Returns what a row holds beside its key: the scalars of a profile, or the accuracies of a run."""
    target, _, name, seed = key
    if name != PROFILE:
        result = tasks.train(target, recipe(RECIPES[name]), seed)
        return {field: result[field] for field in ("val", "test", "n_val", "n_test", "cpu_seconds")}
    profile = nbt.profile_fit(tasks.task(target), all_measures=True)
    scalars = {field: float(f"{value:.6g}") for field, value in profile.scalars.items()}
    return {"scalars": scalars, "weights": profile.facts["weights_hash"][:12], "seconds": profile.facts["seconds"]}


def weights_of(candidate: Candidate, shared: Path) -> Path | str:
    """Returns the weights of a candidate, which `nbt.load_task` takes."""
    if candidate.source == RANDOM:
        return "none"
    if candidate.source == IMAGENET:
        return shared / NETWORKS[candidate.backbone][0]
    return source_weights(candidate.source, shared)


def source_weights(source: str, shared: Path) -> Path:
    """Returns the file of the weights that were further trained on a data set; the first process trains them."""
    start = hashlib.sha256((shared / WEIGHTS).read_bytes()).hexdigest()[:8]
    path = cache_folder("studies", "fit_validity") / f"{source}-{start}-{IMAGE_SIZE}px-{EPOCHS}.pth"
    with path.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            state = Tasks(shared).trained_state(source, recipe({}), 0)
            with atomic_file(path) as temporary:
                torch.save(state, temporary)
            print(f"further trained on {source}", flush=True)
    return path
