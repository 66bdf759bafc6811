"""Study: false alarms and recall of the near-copy check on the shared data sets.

Every data set of `tasks.yaml` is searched together with planted copies. Of each kind, up to 40 images
(at most a tenth of the data set) have one copy, made from the original file with a seed: JPEG of quality 50; half the
size; 5 % cut off every side; 5 % cut off width and height at a random place; the last with half the size and JPEG of
quality 70. A copy is found if it is in one group with its original. Digits of 8 x 8 pixels are searched for false
alarms only: they lose their content at half the size, and 5 % of them is no pixel.

The public data sets contain true copies. All flagged groups were drawn to pictures (`--pictures DIR`) and looked at;
`near_copies_judged.yaml` lists the groups that are copies, by file name. Every other flagged image counts as a false
alarm, so that new ones count until somebody has looked at them. For comparison, dHash of 64 bits flags pairs with a
distance of 10 bits or less.

    python studies/near_copies.py DATA_FOLDER --pictures DIR

Constants were chosen on the tuning sets dtd10, esc10, neu6, pokemon25 and sketch7; elpv4 and gtsrb16, of which an
earlier method had flagged 1.8 % and .6 %, were looked at as well, so they are not independent. Writes
`studies/results/near_copies.json` and `.md`.
"""

from __future__ import annotations

import argparse
import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from machine import machine
from PIL import Image, ImageDraw

from nbt.data.decoding import resize_pixels
from nbt.data.image_store import decode_images
from nbt.data.near_copies.search import find_near_copies
from nbt.data.registry import read_dataset
from nbt.data.resolve import resolve

SIZE = 128
PLANTED = 40
SPEED_IMAGES = 10_000

JUDGED = Path(__file__).with_name("near_copies_judged.yaml")


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    """Returns the image after compression."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def halve(image: Image.Image) -> Image.Image:
    """Returns the image at half its size."""
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def crop_middle(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cuts 5 % off every side."""
    x, y = round(0.05 * image.width), round(0.05 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def crop_anywhere(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Cuts 5 % off width and height, at random sides."""
    x, y = round(rng.uniform(0, 0.05) * image.width), round(rng.uniform(0, 0.05) * image.height)
    return image.crop((x, y, x + round(0.95 * image.width), y + round(0.95 * image.height)))


KINDS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "JPEG 50": lambda image, rng: jpeg(image, 50),
    "half size": lambda image, rng: jpeg(halve(image), 90),
    "crop, every side": lambda image, rng: jpeg(crop_middle(image, rng), 90),
    "crop, random": lambda image, rng: jpeg(crop_anywhere(image, rng), 90),
    "crop, half, JPEG 70": lambda image, rng: jpeg(halve(crop_anywhere(image, rng)), 70),
}


def dhash_share(images: np.ndarray) -> float:
    """Returns the share of images with another one within 10 bits of its dHash."""
    grey = [np.asarray(Image.fromarray(image).convert("L").resize((9, 8))) for image in images]
    bits = np.stack([(row[:, 1:] > row[:, :-1]).ravel() for row in grey]).astype(np.float32)
    distance = bits @ (1 - bits).T + (1 - bits) @ bits.T
    np.fill_diagonal(distance, 64)
    return float((distance.min(1) <= 10).mean())


def study(name: str, source: str, pictures: Path | None) -> dict[str, Any]:
    """Returns the row of a data set."""
    listing = read_dataset(resolve(source))
    images = decode_images(listing.items, SIZE, cache=False)[0].array
    originals, copies = plant(listing.items, len(images))
    started = time.process_time()
    found = find_near_copies(np.concatenate([images, copies])).groups
    seconds = time.process_time() - started
    groups = [group[group < len(images)] for group in found]
    groups = [group for group in groups if len(group) > 1]
    if pictures is not None:
        draw_groups(images, groups, pictures / f"{name}.png")
    flagged = {int(i) for group in groups for i in group}
    group_of = {int(i): g for g, group in enumerate(found) for i in group}
    is_found = [group_of.get(len(images) + k, -1) == group_of.get(i, -2) for k, i in enumerate(originals)]
    by_kind = np.reshape(is_found, (len(KINDS), -1)).mean(1).tolist() if originals else []
    judged = [set(group) for group in yaml.safe_load(JUDGED.read_text(encoding="utf-8")).get(name, [])]
    names = [str(i) for i in range(len(images))]
    if not isinstance(listing.items, np.ndarray):
        names = [path.relative_to(source).as_posix() for path in listing.items]
    by_name = [[names[i] for i in group] for group in groups]
    unjudged = [group for group in by_name if not any(judgement.issuperset(group) for judgement in judged)]
    row = {
        "images": len(images),
        "seconds": seconds,
        "groups": len(groups),
        "flagged": len(flagged),
        "false_alarms": sum(map(len, unjudged)),
        "unjudged": unjudged,
        "dhash": dhash_share(images),
        "across_classes": sum(len(set(listing.labels[group].tolist())) > 1 for group in groups),
        "planted": len(originals),
        "recall": dict(zip(KINDS, by_kind, strict=False)),
    }
    print(name, row, flush=True)
    return row


def plant(items: Any, n_images: int) -> tuple[list[int], np.ndarray]:
    """Returns the indices of the originals, all different, and their copies, those of each kind in sequence."""
    if isinstance(items, np.ndarray):
        return [], np.empty((0, SIZE, SIZE, 3), dtype=np.uint8)
    rng = np.random.default_rng(0)
    n = min(PLANTED, n_images // 10)
    originals = rng.choice(n_images, n * len(KINDS), replace=False)
    copies = []
    for kind, of_kind in zip(KINDS.values(), originals.reshape(len(KINDS), n), strict=True):
        for index in of_kind:
            with Image.open(items[index]) as image:
                copies.append(resize_pixels(np.asarray(kind(image.convert("RGB"), rng)), SIZE))
    return originals.tolist(), np.stack(copies)


def draw_groups(images: np.ndarray, groups: list[np.ndarray], path: Path) -> None:
    """Draws the first two images of every group, one above the other."""
    columns = min(14, max(1, len(groups)))
    rows = -(-len(groups) // columns) or 1
    sheet = Image.new("RGB", (columns * (SIZE + 2), rows * (2 * SIZE + 6)))
    for k, group in enumerate(groups):
        x, y = k % columns * (SIZE + 2), k // columns * (2 * SIZE + 6)
        for j, index in enumerate(group[:2]):
            sheet.paste(Image.fromarray(images[index]), (x, y + j * SIZE))
        ImageDraw.Draw(sheet).text((x + 2, y + 2), f"{group[:3].tolist()}", fill=(255, 0, 0))
    sheet.save(path)


def search_seconds(sources: list[str]) -> dict[str, float]:
    """Returns the number of images of a large mixed set, and the CPU seconds of decoding and searching it."""
    listings = [read_dataset(resolve(source)) for source in sources]
    items = [path for listing in listings if not isinstance(listing.items, np.ndarray) for path in listing.items]
    started = time.process_time()
    images = decode_images(items[:SPEED_IMAGES], SIZE, cache=False, workers=1)[0].array
    decoded = time.process_time()
    find_near_copies(images)
    return {"images": len(images), "decoding": decoded - started, "search": time.process_time() - decoded}


def write(rows: dict[str, Any], tuning: list[str], speed: dict[str, float]) -> None:
    """Writes the results."""
    folder = Path(__file__).parent / "results"
    result = {"machine": machine(), "rows": rows, "speed": speed}
    (folder / "near_copies.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Near copies: false alarms and recall",
        "",
        f"{machine()}. {speed['images']:,} mixed files of {SIZE} px were decoded in {speed['decoding']:.0f} CPU s "
        f"and searched for copies and mirrored copies in {speed['search']:.0f}.",
        "",
        f"| data set | part | images | flagged | false alarms | dHash flags | {' | '.join(KINDS)} | CPU seconds |",
        f"|{'---|' * (7 + len(KINDS))}",
    ]
    for name, row in rows.items():
        recall = [f"{row['recall'][kind]:.1%}" if row["recall"] else "-" for kind in KINDS]
        lines.append(
            f"| {name} | {'tuning' if name in tuning else 'judging'} | {row['images']} | {row['flagged']} "
            f"| {row['false_alarms'] / row['images']:.2%} | {row['dhash']:.1%} | {' | '.join(recall)} "
            f"| {row['seconds']:.1f} |"
        )
    (folder / "near_copies.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("data", type=Path, help="the folder of the shared data sets, with tasks.yaml")
    parser.add_argument("--pictures", type=Path, help="folder for pictures of all flagged pairs")
    options = parser.parse_args()
    tasks = yaml.safe_load((options.data / "tasks.yaml").read_text(encoding="utf-8"))
    names = [*tasks["tuning"], *tasks["judging"]]
    sources = {name: name if name == "digits" else str(options.data / name) for name in names}
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    rows = {name: study(name, source, options.pictures) for name, source in sources.items()}
    write(rows, tasks["tuning"], search_seconds(list(sources.values())))


if __name__ == "__main__":
    main()
