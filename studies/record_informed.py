"""Recording: learning curves of the informed design on all data sets, breadth first, resumed by the same command.

Every round extends the table of every data set by one block of settings (`nbt.tuning.experience.informed_design`), so
that the tables are usable whenever the recording is interrupted. Finished runs are kept in a journal beside the table.

    python studies/record_informed.py --data ../shared/data --weights ../shared/weights/mobilenet_v2_035-imagenet.pth

Writes `studies/recorded/informed/DATASET-SIZE.parquet`.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import yaml

from nbt.api import record
from nbt.tuning.experience.informed_design import BLOCK_SIZE

FOLDER = Path(__file__).resolve().parent
N_BASELINES = 4


def main() -> None:
    options = parse_options()
    tasks = yaml.safe_load((options.data / "tasks.yaml").read_text())
    names = options.datasets or [*tasks["tuning"], *tasks["judging"]]
    started = time.monotonic()
    for block in range(1, options.blocks + 1):
        for name in names:
            for size in options.image_sizes:
                record_table(name, size, N_BASELINES + block * BLOCK_SIZE, options)
                print(f"{(time.monotonic() - started) / 60:.1f} min: block {block} of {name}, {size} px", flush=True)


def record_table(name: str, size: int, trials: int, options: argparse.Namespace) -> None:
    """Records or extends a table; digits have their own images."""
    dataset = name if name == "digits" else options.data / name
    out = options.out / f"{name.lower().replace('_200_2011', '50')}-{size}.parquet"
    record(
        dataset,
        trials=trials,
        out=out,
        space=FOLDER / "recording_space.yaml",
        design="informed",
        backbone=options.backbone,
        weights=str(options.weights),
        image_size=size,
        workers=options.workers,
        on_run=lambda run, done, total: print(
            f"{name} {size} px: {done} of {total}, {run.origin}, {run.val_accuracy:.3f}", file=sys.stderr, flush=True
        ),
    )


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets, with tasks.yaml")
    parser.add_argument("--weights", type=Path, required=True, help="pretrained weights of the backbone")
    parser.add_argument("--backbone", default="mobilenet_v2(width_mult=0.35)")
    parser.add_argument("--datasets", nargs="+", help="names; all of tasks.yaml by default")
    parser.add_argument("--image-sizes", type=int, nargs="+", default=[64])
    parser.add_argument("--blocks", type=int, default=4, help=f"blocks of {BLOCK_SIZE} settings per table")
    parser.add_argument("--workers", default="auto", type=lambda text: text if text == "auto" else int(text))
    parser.add_argument("--out", type=Path, default=FOLDER / "recorded" / "informed")
    return parser.parse_args()


if __name__ == "__main__":
    main()
