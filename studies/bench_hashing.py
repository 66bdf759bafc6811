"""Benchmark: hashing the files of a dataset, beside decoding its images.

JPEG files of textures are generated, of 320 x 240 pixels and, a tenth as many, of 1024 x 768 pixels. A round hashes and
decodes them once, in alternating order and with as many threads; all files are in the page cache. "again" is hashing
from the cache of hashes, for files that have not changed. Writes `studies/results/bench_hashing.json` and `.md`.

    python studies/bench_hashing.py --images 10000 --rounds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from machine import machine
from PIL import Image
from scipy.ndimage import gaussian_filter

from nbt.data.content import file_hashes
from nbt.data.image_store import decode_images

SIZES = {"320 x 240": (320, 240), "1024 x 768": (1024, 768)}
IMAGE_SIZE = 224
GOAL = 0.10
_TEXTURES = 40


def generate(folder: Path, size: tuple[int, int], n: int) -> list[Path]:
    """Writes n different JPEG files of textures; a few textures are drawn, and a number is added to every file."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    textures = []
    for _ in range(_TEXTURES):
        noise = sum(
            8 * s * gaussian_filter(rng.normal(size=(size[1], size[0], 3)), (s, s, 0), mode="wrap") for s in (1, 4, 16)
        )
        path = folder / "texture.jpg"
        Image.fromarray((128 + 12 * np.asarray(noise)).clip(0, 255).astype(np.uint8)).save(path, quality=88)
        textures.append(path.read_bytes())
        path.unlink()
    paths = [folder / f"{number:05d}.jpg" for number in range(n)]
    for number, path in enumerate(paths):
        # Bytes after the end of the image are ignored by decoders.
        path.write_bytes(textures[number % _TEXTURES] + number.to_bytes(4, "big"))
    return paths


def seconds(call: Callable[[], object]) -> float:
    """Returns the wall-clock time of a call."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def clear_hashes(cache: Path) -> None:
    """Removes the cached hashes."""
    for path in (cache / "hashes").glob("*"):
        path.unlink()


def measure(paths: list[Path], cache: Path, first: bool) -> dict[str, float]:
    """Returns the seconds of one round; `first` is whether hashing comes first."""
    clear_hashes(cache)
    calls = {
        "hash": lambda: file_hashes(paths),
        "decode": lambda: decode_images(paths, IMAGE_SIZE, cache=False),
    }
    result = {name: seconds(calls[name]) for name in (calls if first else reversed(calls))}
    file_hashes(paths)
    result["again"] = seconds(lambda: file_hashes(paths))
    return result


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    rows = {}
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NBT_CACHE"] = str(Path(folder) / "cache")
        for name, size in SIZES.items():
            n = options.images if size[0] < 500 else options.images // 10
            paths = generate(Path(folder) / name.replace(" ", ""), size, n)
            time.sleep(3)  # the hash of a file that changed in the last two seconds is not trusted
            rounds = [measure(paths, Path(folder) / "cache", first=r % 2 == 0) for r in range(options.rounds)]
            medians = {key: statistics.median(each[key] for each in rounds) for key in rounds[0]}
            share = statistics.median(each["hash"] / each["decode"] for each in rounds)
            total = sum(path.stat().st_size for path in paths)
            rows[name] = {"images": n, "bytes": total, "medians": medians, "share": share, "rounds": rounds}
            print(name, rows[name], flush=True)
    write(rows)


def write(rows: dict[str, dict[str, object]]) -> None:
    """Writes the results."""
    folder = Path(__file__).parent / "results"
    result = {"machine": machine(), "goal": GOAL, "rows": rows}
    (folder / "bench_hashing.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    lines = [
        "# Hashing of image files",
        "",
        f"{machine()}. Medians over interleaved rounds; goal: at most {GOAL:.0%} of the decoding time.",
        "",
        "| JPEG files | images | MB | hash | decode | hash / decode | hash again |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        of = row["medians"]
        assert isinstance(of, dict)
        lines.append(
            f"| {name} | {row['images']} | {int(str(row['bytes'])) / 1e6:.0f} | {of['hash']:.2f} s | "
            f"{of['decode']:.2f} s | {float(str(row['share'])):.1%} | {of['again']:.2f} s |"
        )
    (folder / "bench_hashing.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
