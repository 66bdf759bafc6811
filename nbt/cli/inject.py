"""`nbt inject`: injects the weights of a pretrained teacher into a backbone of another architecture."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nbt.cli.display.output import Output, percent
from nbt.cli.options.common import Command, config_option
from nbt.data.output_place import check_outside_class_folders
from nbt.errors import UsageError
from nbt.paths import check_writable_file

if TYPE_CHECKING:
    from nbt.transfer.injection.weight_injection import InjectionReport

_SUFFIXES = (".safetensors", ".pth")


@click.command(cls=Command)
@click.option(
    "--teacher",
    required=True,
    metavar="NAME|NAME=FILE",
    help="Architecture that provides the weights: those of its library, or a file.",
)
@click.option("--student", required=True, metavar="NAME", help="Architecture that receives them; see nbt backbones.")
@click.option("--score-only", is_flag=True, help="Show only the similarity and the plan; needs no weights.")
@click.option(
    "--blend",
    metavar="SHARE",
    type=click.FloatRange(0, 1),
    default=0.75,
    show_default=True,
    help="Share of the centre crop in tensors of another shape; the rest is resized.",
)
@config_option("image_size", show_default="that of the student")
@config_option("tracking_uri")
@config_option("seed", help="Seed of the weights that receive nothing.")
@click.option(
    "--out",
    "file",
    metavar="FILE.safetensors|.pth",
    show_default="STUDENT-from-TEACHER.safetensors",
    help="File of the new weights.",
)
def command(
    out: Output,
    teacher: str,
    student: str,
    score_only: bool,
    file: str | None,
    tracking_uri: str | None,
    **options: Any,
) -> None:
    """Inject weights into a backbone of another architecture (TLI).

    The layers are matched in order, and each tensor is cropped and resized to the shape of its match. Other commands
    take the resulting file as --weights FILE. The file states which running statistics these commands re-estimate on
    the target's training images.
    """
    from nbt.tracking import resolve_uri

    path, uri = _check(teacher, student, score_only, file, options["image_size"]), resolve_uri(tracking_uri)
    report = _score(teacher, student, **options) if score_only else _inject(teacher, student, path, **options)
    _warn_if_dissimilar(report.similarity)
    if not score_only:
        _track(report, path, {"teacher": teacher, "student": student, **options}, uri)
    if out.json:
        out.print_json({**report.to_dict(), "file": None if score_only else str(path)})
        return
    _print(out, report, None if score_only else path)


def _check(teacher: str, student: str, score_only: bool, file: str | None, image_size: int | None) -> Path:
    """Checks the options without importing torch, and returns the file of the new weights.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teacher
    from nbt.task.options import IMAGE_SIZES

    spec, _ = parse_teacher(teacher)
    name = parse_backbone(student).text
    low, high = IMAGE_SIZES
    if image_size is not None and not low <= image_size <= high:
        raise UsageError(f"--image-size {image_size}: expected {low} ... {high}")
    if score_only and file is not None:
        raise UsageError("--out: nothing is written with --score-only; leave one of them out")
    path = Path(
        file or re.sub(r"[^\w.-]+", "_", f"{name}-from-{spec.text}").replace("_-", "-").strip("_") + _SUFFIXES[0]
    )
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"--out {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: the folder {path.parent} does not exist")
    check_writable_file("--out", path)
    check_outside_class_folders("--out", path)
    return path


def _score(teacher: str, student: str, *, blend: float, image_size: int | None, **_: Any) -> InjectionReport:
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teacher
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import plan_injection

    student_outline = outline_of(parse_backbone(student), image_size)
    return plan_injection(student_outline, outline_of(parse_teacher(teacher)[0]), blend=blend)


def _inject(
    teacher: str, student: str, path: Path, *, blend: float, image_size: int | None, seed: int
) -> InjectionReport:
    from nbt.models.backbone import default_image_size
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.state_dict import write_state_dict
    from nbt.models.teacher import load_teacher
    from nbt.transfer.injection.weight_injection import inject_weights

    spec = parse_backbone(student)
    size = default_image_size(spec) if image_size is None else image_size
    w0, report = inject_weights(spec, size, load_teacher(teacher), blend=blend, seed=seed)
    write_state_dict(path, w0, report.statistics)
    return report


def _track(report: InjectionReport, path: Path, options: dict[str, Any], tracking_uri: str) -> None:
    """Records an injection in MLflow: its options, similarity and coverage, the plan and the new weights."""
    from nbt.tracking.command_tracker import CommandRun, track_command

    run = CommandRun(
        command="inject",
        name=f"{report.student} from {report.teacher}",
        params=options,
        metrics={"similarity": report.similarity, "coverage": report.coverage},
        experiment="nbt injections",
        files=[path],
        texts={"injection.json": json.dumps(report.to_dict(), indent=2) + "\n"},
    )
    track_command(run, tracking_uri)


def _warn_if_dissimilar(similarity: float) -> None:
    from nbt.transfer.injection.thresholds import HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY, SCALE_DIFFERENCE

    if similarity >= MIN_SAFE_SIMILARITY:
        return
    evidence = (
        f"below {HARMFUL_SIMILARITY:g}, every published injection was worse than random weights"
        if similarity < HARMFUL_SIMILARITY
        else f"between {HARMFUL_SIMILARITY:g} and {MIN_SAFE_SIMILARITY:g}, most published injections gained little"
    )
    logging.getLogger("nbt").warning(
        f"similarity {similarity:.2f} is below {MIN_SAFE_SIMILARITY:g}: {evidence} (published similarities are "
        f"{SCALE_DIFFERENCE:g} higher); compare with --weights none, or choose a more similar teacher"
    )


def _print(out: Output, report: InjectionReport, path: Path | None) -> None:
    """Prints the transferred tensors and a summary."""
    from rich.text import Text

    from nbt.report.formatting import pluralise

    out.print(Text(f"{report.student} from {report.teacher}"), "")
    out.print_rows(report.to_table(), right_aligned=["score"], empty_text="")
    untransferred, statistics = len(report.left), len(report.statistics)
    out.print(
        "",
        Text(f"similarity {report.similarity:.3f}, coverage {percent(report.coverage)} of the parameters without head"),
        Text(f"not transferred: the head and {pluralise(untransferred, 'other tensor')}, which keep initial weights"),
        Text(f"running statistics to re-estimate on target images: {pluralise(statistics, 'normalisation layer')}"),
    )
    if path is not None:
        usage = f"nbt search --dataset ... --backbone '{report.student}' --weights {path}"
        out.print("", Text(f"weights: {path}"), Text(f"usage: {usage}"))
