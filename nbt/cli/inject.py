"""`nbt inject`: ranks pretrained teachers, and injects the weights of one into a backbone of another architecture."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping, Sequence
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
    "teachers",
    required=True,
    multiple=True,
    metavar="BACKBONE[=FILE]",
    help="Architecture that provides the weights: those of its library, or a file. Of several, the most similar one.",
)
@click.option("--student", required=True, metavar="NAME", help="Architecture that receives them; see nbt backbones.")
@click.option("--score-only", is_flag=True, help="Show only the similarities and the plan; needs no weights.")
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
    teachers: tuple[str, ...],
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

    Several teachers are ranked by the similarity of their architectures to the student's, for which no weights are
    needed; the weights of the most similar one are injected.
    """
    from nbt.tracking import resolve_uri

    _check(teachers, student, score_only, file, options["image_size"])
    uri, ranking = resolve_uri(tracking_uri), _rank(teachers, student, **options)
    teacher, report = next(iter(ranking.items()))
    path = None if score_only else Path(file or _default_file(teacher, student))
    if path is not None:
        _check_file(path)
        report = _inject(teacher, student, path, **options)
        _track(report, path, {"teacher": teacher, "student": student, **options}, uri)
    _warn_if_dissimilar(report.similarity)
    if out.json:
        rows = [{"teacher": name, **_measures(scored)} for name, scored in ranking.items()]
        out.print_json({**report.to_dict(), "file": path and str(path), "ranking": rows})
        return
    if len(ranking) > 1:
        _print_ranking(out, ranking)
        _warn_of_tie(ranking)
    _print(out, report, path)


def _check(teachers: Sequence[str], student: str, score_only: bool, file: str | None, image_size: int | None) -> None:
    """Checks the options without importing torch.

    Raises:
        UsageError: A value is invalid.
    """
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teachers
    from nbt.option import check_image_size

    parse_teachers(teachers)
    parse_backbone(student)
    check_image_size("--image-size", image_size)
    if file is None:
        return
    if score_only:
        raise UsageError("--out: nothing is written with --score-only; leave one of them out")
    _check_file(Path(file))


def _default_file(teacher: str, student: str) -> str:
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teacher

    names = f"{parse_backbone(student).text}-from-{parse_teacher(teacher)[0].text}"
    return re.sub(r"[^\w.-]+", "_", names).replace("_-", "-").strip("_") + _SUFFIXES[0]


def _check_file(path: Path) -> None:
    if path.suffix not in _SUFFIXES:
        raise UsageError(f"--out {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
    check_writable_file("--out", path)
    if not path.parent.is_dir():
        raise UsageError(f"--out {path}: the folder {path.parent} does not exist")
    check_outside_class_folders("--out", path)


def _rank(
    teachers: Sequence[str], student: str, *, blend: float, image_size: int | None, **_: Any
) -> dict[str, InjectionReport]:
    """Returns the plan of an injection from each teacher, the most similar teacher first; it needs no weights."""
    from nbt.models.backbone_spec import parse_backbone
    from nbt.models.teacher import parse_teacher
    from nbt.transfer.injection.outline import outline_of
    from nbt.transfer.injection.weight_injection import plan_injection

    outline = outline_of(parse_backbone(student), image_size)
    plans = {name: plan_injection(outline, outline_of(parse_teacher(name)[0]), blend=blend) for name in teachers}
    return dict(sorted(plans.items(), key=lambda item: (-item[1].similarity, -item[1].coverage)))


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
        metrics=_measures(report),
        experiment="nbt injections",
        files=[path],
        texts={"injection.json": json.dumps(report.to_dict(), indent=2) + "\n"},
    )
    track_command(run, tracking_uri)


def _measures(report: InjectionReport) -> dict[str, float]:
    return {"similarity": report.similarity, "coverage": report.coverage}


def _warn_if_dissimilar(similarity: float) -> None:
    from nbt.transfer.injection.thresholds import HARMFUL_SIMILARITY, MIN_SAFE_SIMILARITY

    if similarity >= MIN_SAFE_SIMILARITY:
        return
    evidence = (
        f"every published injection below {HARMFUL_SIMILARITY:g} was worse than random weights"
        if similarity < HARMFUL_SIMILARITY
        else f"most published injections from {HARMFUL_SIMILARITY:g} to {MIN_SAFE_SIMILARITY:g} gained little"
    )
    logging.getLogger("nbt").warning(
        f"similarity {similarity:.2f}: {evidence}; compare with random weights, or choose a more similar teacher"
    )


def _print_ranking(out: Output, ranking: Mapping[str, InjectionReport]) -> None:
    """Prints the teachers, the most similar one first."""
    rows = [
        {"teacher": name, "similarity": f"{plan.similarity:.3f}", "coverage": percent(plan.coverage)}
        for name, plan in ranking.items()
    ]
    out.print_rows(rows, right_aligned=["similarity", "coverage"], empty_text="")
    out.print("")


def _warn_of_tie(ranking: Mapping[str, InjectionReport]) -> None:
    """Warns if the similarity of the architectures does not decide between the first teachers."""
    first, *others = ranking
    ties = [name for name in others if ranking[name].similarity == ranking[first].similarity]
    if ties:
        logging.getLogger("nbt").warning(
            f"{', '.join(ties)}: as similar as {first}, which was given before; similarity compares architectures and "
            "not weights: compare the weights in a search, with --teacher for each"
        )


def _print(out: Output, report: InjectionReport, path: Path | None) -> None:
    """Prints the transferred tensors and a summary."""
    from rich.text import Text

    from nbt.report.formatting import pluralise

    out.print(Text(f"{report.student} from {report.teacher}"), "")
    out.print_rows(report.to_table(), right_aligned=["score"], empty_text="")
    others = f" and {pluralise(len(report.left), 'other tensor')}" if report.left else ""
    out.print(
        "",
        Text(f"similarity {report.similarity:.3f}, coverage {percent(report.coverage)} of the parameters without head"),
        Text(f"not transferred: the head{others}, with initial weights instead"),
    )
    if report.statistics:
        layers = pluralise(len(report.statistics), "normalisation layer")
        out.print(Text(f"running statistics to re-estimate on target images: {layers}"))
    if path is not None:
        usage = f"nbt search --dataset ... --backbone '{report.student}' --weights {path}"
        out.print("", Text(f"weights: {path}"), Text(f"usage: {usage}"))
