"""Part of `bench_gpu.py`: the table of its figures."""

from __future__ import annotations

from typing import Any

REFERENCES = ("torchvision's recipe", "timm's recipe")
"""Loops that nbt is compared with, see `gpu_loops.py`."""


def to_markdown(result: dict[str, Any]) -> str:
    """Returns one table of all parts."""
    head = ["| part | case | figure | relative | goal |", "|---|---|---|---|---|"]
    lines = ["## nbt on one GPU", "", result["facts"], "", *head]

    def row(part: str, case: str, figure: str, relative: str = "", goal: str = "") -> None:
        lines.append(f"| {part} | {case} | {figure} | {relative} | {goal} |")

    if (part := result.get("training")) is not None:
        arms = part["arms"]
        reference = max(arms[name]["images_per_second"] for name in REFERENCES)
        for name, arm in arms.items():
            busy = "" if arm["gpu_busy"] is None else f", GPU computing {arm['gpu_busy']:.2f} of the time"
            goal = ">= 1.3x, >= .9 of the time" if name == "nbt, full" else ""
            figure = f"{arm['images_per_second']:.0f} images/s, accuracy {arm['accuracy']:.3f}{busy}"
            row("training", name, figure, f"{arm['images_per_second'] / reference:.2f}x", goal)
    if (part := result.get("packing")) is not None:
        first = next(iter(part["workers"].values()))["trials_per_minute"]
        for workers, found in part["workers"].items():
            figure = f"{found['trials_per_minute']:.1f} trials/min, {found['peak_gib']:.1f} GiB per trial"
            row("packing", f"{workers} at a time", figure, f"{found['trials_per_minute'] / first:.2f}x")
    if (part := result.get("compile")) is not None:
        base = part["kinds"]["as it is"]["step_ms"]
        for name, found in part["kinds"].items():
            pays = "" if found["epochs_to_pay"] is None else f", pays after {found['epochs_to_pay']:.0f} epochs"
            figure = f"{found['step_ms']:.2f} ms per step, {found['start_seconds']:.1f} s to start{pays}"
            row("compile", name, figure, f"{base / found['step_ms']:.2f}x")
    if (part := result.get("search")) is not None:
        phases = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in part["phases"].items())
        row("search", f"{part['trials']} trials of {part['epochs']} epochs", f"{part['seconds']:.0f} s ({phases})")
    if (part := result.get("tests")) is not None:
        outcome = "" if "skipped" in part else f"exit code {part['exit_code']}: {part['tail'].splitlines()[-1]}"
        row("tests", "marked gpu", outcome or f"skipped: {part['skipped']}")
    return "\n".join(lines) + "\n"
