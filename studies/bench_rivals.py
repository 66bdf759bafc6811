"""Benchmark: the time of a search, compared with what a user would otherwise write.

1. `nbt`: `nbt search` with its defaults: trials, finals, last training, test and report.
2. `optuna`: Optuna's default sampler and a plain PyTorch loop (DataLoader, PIL, cross-entropy, SGD) that tunes the
   learning rates of backbone and head, the weight decay and the number of frozen blocks; one trial after the other,
   with all cores for PyTorch and two loader processes.
3. `ray`: Ray Tune with the same loop and space, as many trials at a time as there are cores.

All arms train the same backbone from the same weights on the same images, the epochs of 20 full trials together. A
round runs each arm once, in a process of its own, and rounds begin with another arm, so that other load affects all of
them. The seconds are those of the whole process, from its start to its end. Runs are stored as they end: the same
command continues an interrupted benchmark on the same machine, and more `--rounds` extend it.

    python studies/bench_rivals.py --data ../shared/data/dtd10 --weights ../shared/weights/mobilenet_v2_035-imagenet.pth

Goals: nbt takes at most 1/2 of Optuna's time and 1/3 of Ray Tune's. Writes `studies/results/bench_rivals.json` and
`.md`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
GOALS = {"optuna": 1 / 2, "ray": 1 / 3}
VALIDATION, BATCH = 0.25, 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train(config: Mapping[str, Any], options: Mapping[str, Any]) -> float:
    """The plain loop of a user: returns the validation accuracy after the last epoch.

    Args:
        config: The hyperparameters, see `optuna_search`.
        options: Options of the command.
    """
    import torch
    import torchvision
    from torch.utils.data import DataLoader, Subset
    from torchvision import transforms as t

    size = options["image_size"]
    normalise = [t.ToTensor(), t.Normalize(MEAN, STD)]
    augmented = t.Compose([t.RandomResizedCrop(size, scale=(0.5, 1.0)), t.RandomHorizontalFlip(), *normalise])
    plain = t.Compose([t.Resize(size), t.CenterCrop(size), *normalise])
    train_set, val_set = (
        torchvision.datasets.ImageFolder(options["data"], transform) for transform in (augmented, plain)
    )
    order = torch.randperm(len(train_set), generator=torch.Generator().manual_seed(0)).tolist()
    n_val = int(VALIDATION * len(order))
    kinds = {"batch_size": BATCH, "num_workers": options["loaders"], "persistent_workers": options["loaders"] > 0}
    loader = DataLoader(Subset(train_set, order[n_val:]), shuffle=True, **kinds)
    val_loader = DataLoader(Subset(val_set, order[:n_val]), **kinds)

    model = torchvision.models.mobilenet_v2(width_mult=options["width"])
    if options["weights"] is not None:
        model.load_state_dict(torch.load(options["weights"], weights_only=True), strict=False)
    model.classifier[1] = torch.nn.Linear(model.last_channel, len(train_set.classes))
    model.features[: config["frozen"]].requires_grad_(False)
    trained = [parameter for parameter in model.features.parameters() if parameter.requires_grad]
    groups = [{"params": model.classifier.parameters(), "lr": config["head_lr"]}]
    groups += [{"params": trained, "lr": config["body_lr"]}] if trained else []
    optimizer = torch.optim.SGD(groups, momentum=0.9, nesterov=True, weight_decay=config["weight_decay"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options["epochs"] * len(loader))
    accuracy = 0.0
    for _ in range(options["epochs"]):
        model.train()
        for images, labels in loader:
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            optimizer.step()
            schedule.step()
        model.eval()
        with torch.inference_mode():
            correct = sum(int((model(images).argmax(1) == labels).sum()) for images, labels in val_loader)
        accuracy = correct / max(1, n_val)
    return accuracy


def optuna_search(options: Mapping[str, Any]) -> float:
    """Runs the trials with Optuna; returns the best accuracy."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        config = {
            "head_lr": trial.suggest_float("head_lr", 1e-3, 1.0, log=True),
            "body_lr": trial.suggest_float("body_lr", 1e-4, 1e-1, log=True),
            "weight_decay": trial.suggest_float("weight_decay", 1e-6, 1e-2, log=True),
            "frozen": trial.suggest_int("frozen", 0, 19),
        }
        return train(config, options)

    study = optuna.create_study(direction="maximize")
    study.optimize(objective, n_trials=options["trials"])
    return float(study.best_value)


def ray_search(options: Mapping[str, Any]) -> float:
    """Runs the trials with Ray Tune; returns the best accuracy."""
    import ray
    from ray import tune

    def objective(config: dict[str, Any]) -> None:
        import torch

        torch.set_num_threads(1)
        tune.report({"accuracy": train(config, {**options, "loaders": 0})})

    space = {
        "head_lr": tune.loguniform(1e-3, 1.0),
        "body_lr": tune.loguniform(1e-4, 1e-1),
        "weight_decay": tune.loguniform(1e-6, 1e-2),
        "frozen": tune.randint(0, 20),
    }
    ray.init(num_cpus=options["cores"], include_dashboard=False, log_to_driver=False)
    tune_config = tune.TuneConfig(metric="accuracy", mode="max", num_samples=options["trials"])
    storage = tune.RunConfig(storage_path=str(Path.cwd() / "ray"), verbose=0)
    results = tune.Tuner(objective, param_space=space, tune_config=tune_config, run_config=storage).fit()
    if results.errors:
        raise SystemExit(f"{len(results.errors)} trials failed: {results.errors[0]}")
    return float((results.get_best_result().metrics or {})["accuracy"])


def nbt_search(options: Mapping[str, Any]) -> float:
    """Runs `nbt search`; returns the validation score of the recommended settings."""
    from nbt.tuning.storage.studies import read_study, resolve_storage

    words = ["search", "--dataset", options["data"], "--backbone", f"mobilenet_v2(width_mult={options['width']})"]
    words += ["--weights", options["weights"] or "none", "--image-size", str(options["image_size"])]
    words += ["--budget", str(options["trials"]), "--epochs", str(options["epochs"]), "--study", "rivals", "-q"]
    subprocess.run([sys.executable, "-m", "nbt", *words], check=True, stdout=sys.stderr)
    record = read_study(resolve_storage(None), "rivals")
    print(json.dumps({"phases": dict(record.clock)}))
    final = record.final(record.recommended) if record.recommended is not None else None
    return math.nan if final is None else final.validation.mean


SEARCHES: dict[str, Callable[[Mapping[str, Any]], float]] = {
    "nbt": nbt_search,
    "optuna": optuna_search,
    "ray": ray_search,
}


def run_arm(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a search in a new process and an empty folder, without caches of earlier runs."""
    with tempfile.TemporaryDirectory(prefix="bench-rivals-") as folder:
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        path = os.pathsep.join(filter(None, [str(HERE.parent), environment.get("PYTHONPATH")]))
        environment |= {"PYTHONPATH": path, "NBT_CACHE": f"{folder}/cache", "RAY_USAGE_STATS_ENABLED": "0"}
        command = [sys.executable, __file__, "--arm", name, "--options", json.dumps(options)]
        started = time.perf_counter()
        done = subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        seconds = time.perf_counter() - started
    answers = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"')]
    return {"seconds": seconds} | {key: value for answer in answers for key, value in answer.items()}


def to_markdown(result: Mapping[str, Any]) -> str:
    """Returns the table."""
    runs, options = result["runs"], result["options"]
    medians = {name: statistics.median(run["seconds"] for run in found) for name, found in runs.items()}
    lines = [
        "# The time of a search, compared with what a user would otherwise write",
        "",
        f"{result['machine']}, {options['cores']} cores. {Path(options['data']).name} at {options['image_size']} px, "
        f"`mobilenet_v2(width_mult={options['width']})`, {options['trials']} trials of {options['epochs']} epochs; "
        f"rounds: {len(runs['nbt'])}; whole processes; nbt's time includes finals, last training, test and report. "
        f"The rivals train on {1 - VALIDATION:.0%} of the images and test nothing; nbt's trials train on 60 %, and "
        "20 % are left for the test. The accuracies are therefore on other images; nbt has the mean of its final "
        "runs, those of the rivals are of the best trial.",
        "",
        "| arm | seconds: median (all) | nbt / arm | goal | best validation accuracy |",
        "|---|---|---|---|---|",
    ]
    for name, found in runs.items():
        every = ", ".join(f"{run['seconds']:.0f}" for run in found)
        ratio = "" if name == "nbt" else f"{medians['nbt'] / medians[name]:.2f}"
        goal = f"<= {GOALS[name]:.2f}" if name in GOALS else ""
        accuracy = statistics.median(run["accuracy"] for run in found)
        lines.append(f"| {name} | {medians[name]:.0f} ({every}) | {ratio} | {goal} | {accuracy:.3f} |")
    phases = runs["nbt"][-1].get("phases", {})
    lines += ["", "Phases of nbt: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in phases.items()) + "."]
    return "\n".join(lines) + "\n"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with one subfolder of images per class")
    parser.add_argument("--weights", type=Path, help="state dict of the backbone; random weights if absent")
    parser.add_argument("--width", type=float, default=0.35, help="width of mobilenet_v2")
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--arms", nargs="+", choices=SEARCHES, default=list(SEARCHES))
    parser.add_argument("--arm", choices=SEARCHES, help=argparse.SUPPRESS)
    parser.add_argument("--options", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark, or one arm of it."""
    args = parse(arguments)
    if args.arm is not None:
        print(json.dumps({"accuracy": SEARCHES[args.arm](args.options)}))
        return
    from machine import machine

    cores = len(os.sched_getaffinity(0))
    options = {name: getattr(args, name) for name in ("width", "image_size", "trials", "epochs")}
    options |= {"data": str(args.data.resolve()), "cores": cores, "loaders": min(2, cores)}
    options["weights"] = None if args.weights is None else str(args.weights.resolve())
    # Paths of this machine are not part of the result.
    facts = {**options, "data": args.data.name, "weights": None if args.weights is None else args.weights.name}
    path = args.out / "bench_rivals.json"
    stored = json.loads(path.read_text()) if path.exists() else {}
    result: dict[str, Any] = {"machine": machine(), "options": facts, "runs": {}}
    if all(stored.get(key) == result[key] for key in ("machine", "options")):
        result["runs"] = stored["runs"]
    runs: dict[str, list[dict[str, Any]]] = result["runs"]
    args.out.mkdir(parents=True, exist_ok=True)
    for number in range(args.rounds):
        first = number % len(args.arms)
        for name in (*args.arms[first:], *args.arms[:first]):
            if len(runs.setdefault(name, [])) > number:
                continue
            runs[name].append(run_arm(name, options))
            path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
            print(f"round {number + 1}, {name}: {runs[name][-1]['seconds']:.1f} s", flush=True)
    (args.out / "bench_rivals.md").write_text(to_markdown(result), encoding="utf-8")
    print(to_markdown(result))


if __name__ == "__main__":
    main()
