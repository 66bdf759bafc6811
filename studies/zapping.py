"""Study: does zapping during pretraining give features that transfer better?

Tests the claim of Frati, Traft, Clune and Cheney (arXiv 2310.07996) on real images: pretraining {i.i.d., ASB, meta-ASB}
x {zap, no zap}, transfer {standard, continual}, over several pretraining seeds with 10 draws each. Every arm uses the
learning rate with the best result on separate draws. With the same seed, zap and no zap start from the same weights and
are evaluated on the same draws, so their differences are paired.

ASB and meta-ASB take 21 gradient steps per episode, i.i.d. takes one per batch. Therefore i.i.d. runs twice: with about
the published number of steps, and with the number of steps and images of ASB ("i.i.d., equal steps").

The default sizes are reduced, so that two cores finish in about an hour (published sizes in brackets): `conv3` of width
32 [256]; 70 source classes of the small Omniglot set, the alphabets Balinese, Early Aramaic and Greek [964 classes];
1000 episodes [9000 of ASB, 25,000 of meta-ASB], with meta-ASB's single steps at .01 [.1, at which the loss hardly
decreases in so few episodes]; i.i.d. with 17 epochs of 44 batches of 32 and a zap every second epoch [10 epochs of 76
batches of 256, every epoch or less often]; draws of 40 classes out of 66, the alphabets Korean and Latin [600 classes];
standard transfer with 5 epochs of batches of 32. As published are the episodes, the other learning rates of
pretraining, 15 train and 5 test images per class, 10 draws, and the range of learning rates.

    python studies/zapping.py run --shared ../shared               # resumable; one process per core
    python studies/zapping.py run --plan full                        # published sizes; downloads Omniglot; for a GPU
    python studies/zapping.py run --plan digits                      # the embedded digits: minutes
    python studies/zapping.py report                                 # writes studies/results/zapping.{json,md,svg}

Rows are stored in `studies/results/zapping_rows*.jsonl`, one line per run of a protocol; source models are stored in
nbt's cache.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from shards import add_shard_option, start_shards

from nbt.settings.class_stream import PROTOCOLS, ClassStreamSettings
from nbt.settings.pretrain import PretrainSettings, default_pretrain_settings
from nbt.tuning.intervals import Interval, paired_interval, t_interval

RESULTS = Path(__file__).parent / "results"
UNTRAINED = "untrained"
TITLES = {
    "iid": "i.i.d.",
    "iid-equal": "i.i.d., equal steps",
    "asb": "ASB",
    "meta-asb": "meta-ASB",
    UNTRAINED: "untrained",
}
EQUAL_STEPS = ("iid-equal", "asb", "meta-asb")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes of one run of the study.

    Attributes:
        dataset: Dataset of the source model and of the transfer.
        width: Width of `conv3`.
        source_classes: Number of first classes of the dataset on which the source model is trained; None for the
            embedded digits, which have separate source classes.
        iid: Changes to the settings of the i.i.d. scheme; `zap_period` applies to the zapped arm.
        episodes: Changes to the settings of ASB and of meta-ASB.
        equal: Changes to the settings of the i.i.d. scheme at ASB's number of steps and images.
        stream: Settings of the transfer protocols.
    """

    dataset: str
    width: int
    source_classes: int | None
    iid: Mapping[str, Any]
    episodes: Mapping[str, Mapping[str, Any]]
    equal: Mapping[str, Any]
    stream: Mapping[str, Any]


PLANS = {
    "small": Plan(
        dataset="omniglot-small",
        width=32,
        source_classes=70,
        iid={"epochs": 17, "batch_size": 32, "zap_period": 2},
        episodes={"asb": {"episodes": 1000}, "meta-asb": {"episodes": 1000, "inner_lr": 0.01}},
        # 75 epochs of 280 batches of 5: 21,000 steps and 105,000 images; ASB has 21,000 and 104,000.
        equal={"epochs": 75, "batch_size": 5, "zap_period": 1},
        stream={"classes": 40, "skip_classes": 70, "epochs": 5},
    ),
    "full": Plan(
        dataset="omniglot",
        width=256,
        source_classes=964,
        iid={"epochs": 10, "batch_size": 256, "zap_period": 1},
        episodes={"asb": {}, "meta-asb": {}},
        # 49 epochs of 3856 batches of 5: 188,944 steps; ASB has 189,000.
        equal={"epochs": 49, "batch_size": 5, "zap_period": 1},
        stream={"classes": 600, "skip_classes": 964, "epochs": 5},
    ),
    "digits": Plan(
        dataset="digits",
        width=32,
        source_classes=None,
        iid={"epochs": 15, "batch_size": 64, "zap_period": 1},
        episodes={"asb": {"episodes": 400}, "meta-asb": {"episodes": 400, "inner_lr": 0.01}},
        equal={"epochs": 46, "batch_size": 5, "zap_period": 1},
        stream={"classes": 5, "epochs": 5},
    ),
    "smoke": Plan(
        dataset="omniglot-small",
        width=4,
        source_classes=5,
        iid={"epochs": 3, "batch_size": 32, "zap_period": 1},
        episodes={"asb": {"episodes": 2}, "meta-asb": {"episodes": 2, "inner_lr": 0.01}},
        equal={"epochs": 2, "batch_size": 5, "zap_period": 1},
        stream={"classes": 4, "skip_classes": 70, "epochs": 1, "train": 3, "test": 2, "draws": 2, "sweep_draws": 1},
    ),
}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One source model.

    Attributes:
        plan: Key of `PLANS`.
        scheme: Key of `TITLES`.
        zap: Whether pretraining includes zaps.
        seed: Seed of initialisation, pretraining and draws.
    """

    plan: str
    scheme: str
    zap: bool
    seed: int


def arms(plan: str, seeds: int) -> Iterator[Arm]:
    """Yields all arms, seed by seed, so that an interrupted study has complete seeds."""
    for seed in range(seeds):
        for scheme in TITLES:
            for zap in (False,) if scheme == UNTRAINED else (False, True):
                yield Arm(plan, scheme, zap, seed)


def settings_of(arm: Arm) -> PretrainSettings:
    """Returns the settings for pretraining the source model of an arm."""
    plan = PLANS[arm.plan]
    if arm.scheme in ("iid", "iid-equal"):
        changes = dict(plan.iid if arm.scheme == "iid" else plan.equal)
        return default_pretrain_settings("iid", "conv3", **changes | ({} if arm.zap else {"zap_period": 0}))
    return default_pretrain_settings(arm.scheme, "conv3", zap_period=int(arm.zap), **plan.episodes[arm.scheme])


def spec_of(plan: Plan) -> Any:
    """Returns the backbone of a plan."""
    from nbt.models.backbone_spec import parse_backbone

    return parse_backbone(f"conv3(width={plan.width})")


@functools.lru_cache(maxsize=1)
def source_images(plan: str, data_dir: str | None) -> Any:
    """Returns the images on which source models are trained."""
    from nbt.data.resolve import resolve
    from nbt.training.pretrain.source_images import load_source_images

    sizes = PLANS[plan]
    return load_source_images(resolve(sizes.dataset, data_dir), 28, classes=sizes.source_classes)


@functools.lru_cache(maxsize=1)
def target(plan: str, data_dir: str | None) -> Any:
    """Returns the transfer task with random weights, which the weights of a source model replace."""
    from nbt.task.load import load_task

    sizes = PLANS[plan]
    return load_task(sizes.dataset, backbone=spec_of(sizes), weights="none", data_dir=data_dir, image_size=28)


def run_arm(arm: Arm, data_dir: str | None, protocols: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Trains the source model of an arm or loads it from the cache, and yields one row per protocol."""
    from nbt.models.weights import load_pretrained_weights
    from nbt.training.pretrain.class_stream import run_class_stream
    from nbt.training.pretrain.scheme_sources import pretrain

    plan, source = PLANS[arm.plan], None
    if arm.scheme == UNTRAINED:
        weights = load_pretrained_weights(spec_of(plan), "none", image_size=28, seed=arm.seed)
        facts: dict[str, Any] = {}
    else:
        images, settings = source_images(arm.plan, data_dir), settings_of(arm)
        source = pretrain(images, spec_of(plan), settings, arm.seed)
        weights = source.weights
        facts = {"gradient_steps": settings.gradient_steps(len(images)), "accuracy": source.accuracy}
        facts |= {"seconds": source.seconds, **settings.to_dict()}
    task = dataclasses.replace(target(arm.plan, data_dir), w0=weights.w0)
    for protocol in protocols:
        result = run_class_stream(task, ClassStreamSettings(protocol=protocol, **plan.stream), arm.seed)
        yield {"arm": dataclasses.asdict(arm), "protocol": protocol, "source": facts, "result": result.to_dict()}


def run(args: argparse.Namespace) -> None:
    """Runs everything of this shard that is not stored yet; stores every row immediately."""
    start_shards(args)
    import torch

    torch.set_num_threads(1)
    shard, shards = map(int, args.shard.split("/"))
    data_dir = str(Path(args.shared) / "data") if PLANS[args.plan].dataset == "omniglot-small" else None
    args.results.mkdir(parents=True, exist_ok=True)
    path = args.results / (f"zapping_rows_{shard}.jsonl" if shards > 1 else "zapping_rows.jsonl")
    done = {(Arm(**row["arm"]), row["protocol"]) for row in read(args.results)}
    shard_arms = list(arms(args.plan, args.seeds))[shard::shards]
    for count, arm in enumerate(shard_arms, start=1):
        missing = [protocol for protocol in PROTOCOLS if (arm, protocol) not in done]
        for row in run_arm(arm, data_dir, missing) if missing else ():
            with path.open("a") as file:
                file.write(json.dumps(row) + "\n")
            accuracy, rate = row["result"]["accuracy"], row["result"]["rate"]
            print(f"{count} of {len(shard_arms)}: {arm} {row['protocol']} {accuracy:.3f} at {rate:g}", flush=True)


def read(results: Path) -> list[dict[str, Any]]:
    """Returns the stored rows of all shards."""
    return [json.loads(line) for path in sorted(results.glob("zapping_rows*.jsonl")) for line in path.open()]


Accuracies = dict[tuple[str, bool], dict[str, dict[int, list[float]]]]


def accuracies(rows: Sequence[Mapping[str, Any]], plan: str) -> Accuracies:
    """Returns the accuracies of all draws of a plan by (scheme, zap), protocol and seed."""
    values: Accuracies = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        arm = Arm(**row["arm"])
        if arm.plan == plan:
            values[arm.scheme, arm.zap][row["protocol"]][arm.seed] = row["result"]["accuracies"]
    return values


def difference(a: Mapping[int, list[float]], b: Mapping[int, list[float]]) -> dict[str, Any] | None:
    """Returns a - b over the common seeds, paired by seed, and paired by seed and draw; None below two seeds.

    Draws with the same source model are not independent, so the second interval is too narrow.
    """
    seeds = sorted(set(a) & set(b))
    if len(seeds) < 2:
        return None
    by_seed = paired_interval([fmean(a[seed]) for seed in seeds], [fmean(b[seed]) for seed in seeds])
    draws = [(x, y) for seed in seeds for x, y in zip(a[seed], b[seed], strict=True)]
    by_draw = paired_interval([x for x, _ in draws], [y for _, y in draws])
    return {
        "seeds": dataclasses.asdict(by_seed),
        "draws": dataclasses.asdict(by_draw),
        "positive_seeds": sum(fmean(a[seed]) > fmean(b[seed]) for seed in seeds),
    }


def compare(values: Accuracies) -> list[dict[str, Any]]:
    """Returns zap - no zap for every scheme and protocol, and ASB and meta-ASB minus i.i.d. at equal steps."""
    pairs = [("zap", scheme, (scheme, True), (scheme, False)) for scheme in TITLES if scheme != UNTRAINED]
    pairs += [
        ("equal steps", f"{TITLES[scheme]}{' + zap' if zap else ''} - i.i.d.{' + zap' if zap else ''}", *both)
        for scheme in EQUAL_STEPS[1:]
        for zap in (False, True)
        for both in [((scheme, zap), ("iid-equal", zap))]
    ]
    rows = []
    for kind, name, arm, reference in pairs:
        for protocol in PROTOCOLS:
            gap = difference(values[arm][protocol], values[reference][protocol])
            if gap is not None:
                rows.append({"kind": kind, "name": TITLES.get(name, name), "protocol": protocol, **gap})
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """Returns "better", "worse" or "open" for the interval of a difference over seeds."""
    interval = row["seeds"]
    return "better" if interval["low"] > 0 else "worse" if interval["high"] < 0 else "open"


def finding(plan: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns a paragraph that states whether the claim is confirmed, with all differences."""
    gaps = [row for row in rows if row["kind"] == "zap"]
    if not gaps:
        return "No arm has two seeds yet, so there is no result."
    by_verdict = {
        kind: [f"{r['name']} {r['protocol']} {points_text(r['seeds'])}" for r in gaps if verdict(r) == kind]
        for kind in ("better", "worse", "open")
    }
    if len(by_verdict["better"]) == len(gaps):
        claim = "The claim that zapping helps is confirmed"
    elif not by_verdict["better"]:
        claim = "The claim that zapping helps is not confirmed"
    elif by_verdict["worse"]:
        claim = "The claim that zapping helps is confirmed in part and contradicted in part"
    else:
        claim = "The claim that zapping helps is confirmed in part"
    titles = {"better": "Zapping helps", "worse": "Zapping harms", "open": "The interval includes 0"}
    parts = [f"{titles[kind]} in {len(texts)}: {'; '.join(texts)}." for kind, texts in by_verdict.items() if texts]
    positive = sum(row["seeds"]["mean"] > 0 for row in gaps)
    seeds = min(row["seeds"]["n"] for row in gaps)
    return (
        f"{claim} (sizes: {plan}; at least {seeds} pretraining seeds; zap - no zap in points of test accuracy with "
        f"95 % intervals over seeds, not corrected for {len(gaps)} comparisons). The mean difference is positive in "
        f"{positive} of {len(gaps)} comparisons. {' '.join(parts)}"
    )


def points_text(interval: Mapping[str, Any]) -> str:
    """Returns a difference in points of accuracy with its interval, such as "+1.2 [0.3, 2.1]"."""
    return f"{100 * interval['mean']:+.1f} [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def report(args: argparse.Namespace) -> None:
    """Writes tables, figures and findings of the stored rows."""
    rows = read(args.results)
    result: dict[str, Any] = {}
    from machine import machine

    for plan in PLANS:
        values = accuracies(rows, plan)
        if not values:
            continue
        gaps = compare(values)
        result[plan] = {
            "sizes": sizes(plan),
            "accuracies": [
                {"scheme": scheme, "zap": zap, "protocol": protocol, **dataclasses.asdict(over_seeds(by_seed))}
                for (scheme, zap), by_protocol in values.items()
                for protocol, by_seed in by_protocol.items()
            ],
            "rates": chosen_rates(rows, plan),
            "differences": gaps,
            "finding": finding(plan, gaps),
        }
        draw(gaps, args.results / ("zapping.svg" if plan == "small" else f"zapping_{plan}.svg"))
    (args.results / "zapping.json").write_text(json.dumps({"machine": machine(), **result}, indent=1) + "\n")
    (args.results / "zapping.md").write_text(markdown(result))
    print(markdown(result))


def sizes(plan: str) -> dict[str, Any]:
    """Returns the sizes of a plan and the gradient steps of each protocol."""
    values = dataclasses.asdict(PLANS[plan])
    steps = {protocol: ClassStreamSettings(protocol=protocol, **PLANS[plan].stream).steps() for protocol in PROTOCOLS}
    return {**values, "stream_steps": steps}


def over_seeds(by_seed: Mapping[int, list[float]]) -> Interval:
    """Returns the mean accuracy with its interval over pretraining seeds."""
    return t_interval([fmean(values) for values in by_seed.values()])


def chosen_rates(rows: Sequence[Mapping[str, Any]], plan: str) -> dict[str, list[float]]:
    """Returns the chosen learning rates in ascending order, by arm and protocol."""
    chosen: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        arm = Arm(**row["arm"])
        if arm.plan == plan:
            chosen[f"{arm.scheme}{' zap' if arm.zap else ''} {row['protocol']}"].append(row["result"]["rate"])
    return {name: sorted(values) for name, values in chosen.items()}


def markdown(result: Mapping[str, Any]) -> str:
    """Returns the findings and the tables as Markdown."""
    lines = ["# Zapping during pretraining"]
    for plan, part in result.items():
        lines += ["", f"## {plan}", "", part["finding"], "", f"Sizes: `{json.dumps(part['sizes'])}`", ""]
        lines += ["Test accuracy in %, mean and 95 % interval over pretraining seeds.", ""]
        lines += ["| pretraining | zap | " + " | ".join(PROTOCOLS) + " |", "|---|---|" + "---|" * len(PROTOCOLS)]
        cells = {(row["scheme"], row["zap"], row["protocol"]): row for row in part["accuracies"]}
        for scheme, zap in dict.fromkeys((row["scheme"], row["zap"]) for row in part["accuracies"]):
            texts = [accuracy_text(cells.get((scheme, zap, protocol))) for protocol in PROTOCOLS]
            lines.append(f"| {TITLES[scheme]} | {'yes' if zap else 'no'} | " + " | ".join(texts) + " |")
        for kind, title in (("zap", "Zap - no zap"), ("equal steps", "At equal gradient steps")):
            selected = [row for row in part["differences"] if row["kind"] == kind]
            if selected:
                lines += [
                    "",
                    f"{title}, in points, with intervals over seeds, and over seeds and draws (too narrow, because "
                    "draws with the same source model are not independent).",
                    "",
                ]
                lines += ["| | protocol | over seeds | seeds above 0 | over draws |", "|---|---|---|---|---|"]
                lines += [
                    f"| {r['name']} | {r['protocol']} | {points_text(r['seeds'])} | {r['positive_seeds']} of "
                    f"{r['seeds']['n']} | {points_text(r['draws'])} |"
                    for r in selected
                ]
    return "\n".join(lines) + "\n"


def accuracy_text(row: Mapping[str, Any] | None) -> str:
    """Returns the mean accuracy in percent with its interval, or a dash for None."""
    if row is None:
        return "-"
    if row["low"] is None:
        return f"{100 * row['mean']:.1f}"
    return f"{100 * row['mean']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def draw(gaps: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draws zap - no zap with its intervals."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    zap_gaps = [row for row in gaps if row["kind"] == "zap"]
    if not zap_gaps:
        return
    figure, axes = plt.subplots(figsize=(6, 0.4 * len(zap_gaps) + 1.2), layout="constrained")
    for position, row in enumerate(reversed(zap_gaps)):
        mean, low, high = (100 * row["seeds"][name] for name in ("mean", "low", "high"))
        axes.errorbar(mean, position, xerr=[[mean - low], [high - mean]], fmt="o", color="C0", capsize=3)
    axes.set_yticks(range(len(zap_gaps)), [f"{row['name']}, {row['protocol']}" for row in reversed(zap_gaps)])
    axes.axvline(0, color="grey", linewidth=1)
    axes.set_xlabel("zap - no zap, points of test accuracy, 95 % over pretraining seeds")
    figure.savefig(file)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run everything that is not stored yet")
    runner.add_argument("--plan", choices=PLANS, default="small", help="sizes of the study; full: the published sizes")
    runner.add_argument("--shared", default="../shared", help="folder with data/omniglot_small1.zip")
    runner.add_argument("--seeds", type=int, default=3, help="number of pretraining seeds")
    add_shard_option(runner, "source model")
    runner.set_defaults(do=run)
    reporter = commands.add_parser("report", help="write the report of the stored rows")
    reporter.set_defaults(do=report)
    for command in (runner, reporter):
        command.add_argument("--results", type=Path, default=RESULTS, help="folder of the rows and the report")
    args = parser.parse_args()
    do: Callable[[argparse.Namespace], None] = args.do
    do(args)


if __name__ == "__main__":
    main()
