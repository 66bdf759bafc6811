"""Report of streams: content, self-containment, and escaping of names from outside."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from nbt.errors import NbtError
from nbt.report.streams import plots
from nbt.report.streams.comparison import Comparison, compare_methods
from nbt.report.streams.report_data import build_stream_report
from nbt.report.streams.text import bytes_text
from nbt.report.streams.write import write_streams
from tests.browser import MEASURE, WIDTHS, OpenedPage
from tests.report.study.test_render import HOSTILE, Page
from tests.sample_stream import BETTER, MATRIX, make_scores, make_stream

HIGHER = tuple(tuple(min(x + 0.03, 1.0) for x in row) for row in BETTER)


def two_methods(seeds: int = 1) -> Comparison:
    shift = [
        tuple(tuple(x - 0.01 * seed for x in row) for row in matrix)
        for seed in range(seeds)
        for matrix in (MATRIX, BETTER)
    ]
    found = [
        make_stream(method, shift[2 * seed + index], seed=seed)
        for seed in range(seeds)
        for index, method in enumerate(("dlcft", "joint"))
    ]
    return compare_methods(found, "nbt continual --dataset birds")


def hostile() -> Comparison:
    name = HOSTILE + "W" * 200
    stream = make_stream(dataset=name, backbone=name, weights=name)
    return compare_methods([replace(stream, class_names=(name,) * 6, facts={"device": name})], name)


def test_everything_is_written(tmp_path: Path) -> None:
    path = write_streams(two_methods(), tmp_path)
    folder = tmp_path / "birds-mobilenet_v2-width_mult-0.35-task-3-dlcft-joint-seed0"
    assert path == folder / "report.html"
    assert {file.name for file in folder.iterdir()} == {
        "report.html",
        "report.md",
        "stream.json",
        "accuracy.svg",
        "matrix-dlcft.svg",
        "matrix-joint.svg",
    }
    assert json.loads((folder / "stream.json").read_text()) == two_methods().to_json()


def test_up_to_date_report_is_not_rewritten(tmp_path: Path) -> None:
    path = write_streams(two_methods(), tmp_path)
    path.write_text("mine")
    write_streams(two_methods(), tmp_path)
    assert path.read_text() == "mine"
    (path.parent / "matrix-joint.svg").unlink()
    write_streams(two_methods(), tmp_path)
    assert path.read_text() != "mine"
    path.write_text("mine")
    write_streams(replace(two_methods(), command="another"), tmp_path)
    assert path.read_text() != "mine"


def test_both_reports_contain_the_same_facts(tmp_path: Path) -> None:
    path = write_streams(two_methods(3), tmp_path)
    page, text = Page(path.read_text()).text, path.with_name("report.md").read_text()
    for fact in (
        "After 3 tasks, joint has 89.0 % average accuracy",
        "dlcft 74.0 %",
        "3 streams",
        "task-incremental: every task has new classes",
        "joint is 15.0 points better than dlcft (95 % interval +15.0 to +15.0, paired)",
        "3.0 MiB",
        "(29.0)",
        "gull, owl",
        "target_scale",
        "nbt continual --dataset birds",
        "Tasks of seed 0, the first of 3 streams.",
    ):
        assert fact in page, fact
        assert fact.replace("(29.0)", "(29.0)") in text, fact


def test_one_stream_allows_no_comparison(tmp_path: Path) -> None:
    text = (write_streams(two_methods(), tmp_path).parent / "report.md").read_text()
    assert "One stream does not show the effect of the order of tasks" in text
    assert "points better" not in text
    assert "cannot be distinguished" not in text


def test_indistinguishable_methods_are_not_ranked() -> None:
    records = [make_stream("ewc", BETTER), make_stream("zap", HIGHER), make_stream("ewc", HIGHER, seed=1)]
    report = build_stream_report(compare_methods([*records, make_stream("zap", MATRIX, seed=1)]))
    assert any("zap cannot be distinguished from ewc" in sentence for sentence in report.explanation)


@pytest.mark.parametrize("scenario", ["data", "task", "class"])
def test_single_method_report(scenario: str) -> None:
    report = build_stream_report(compare_methods([make_stream(scenario=scenario)]))
    assert report.headline.startswith("After 3 tasks, dlcft has 75.0 % average accuracy (95 % interval ")
    assert report.headline.endswith("the accuracy on past tasks is on average 20.0 points below its best value.")
    assert report.matrices[0].rows[1] == ("70.0", "80.0", "(40.0)")
    assert report.tiles[2].value == ("–" if scenario == "class" else "+0.0")  # noqa: RUF001 - a dash


def test_streams_without_forgetting() -> None:
    flat = tuple((0.5, 0.5, 0.5) for _ in range(3))
    rising = ((0.5, 0.1, 0.1), (0.6, 0.5, 0.1), (0.7, 0.6, 0.5))
    assert "there is no forgetting" in build_stream_report(compare_methods([make_stream(matrix=flat)])).headline
    assert (
        "the accuracy on past tasks improved"
        in build_stream_report(compare_methods([make_stream(matrix=rising)])).headline
    )


def test_diverged_stream_is_noted() -> None:
    stream = make_stream()
    scores = (*make_scores()[:2], replace(make_scores()[2], diverged=True, accuracies=(0.0, 0.0, 0.0)))
    report = build_stream_report(compare_methods([replace(stream, result=replace(stream.result, scores=scores))]))
    assert "dlcft diverged" in report.notes[0]


def test_settings_show_differences_from_the_default_recipe() -> None:
    rows = {row.name: row for row in build_stream_report(two_methods()).settings}
    assert rows["method"].values == ("dlcft", "joint")
    assert rows["linearized"].default == "false"
    assert "momentum" not in rows
    assert all(row.meaning for row in rows.values())


def test_training_images_of_joint_include_past_tasks() -> None:
    assert [row.train_images for row in build_stream_report(two_methods()).tasks] == ["100", "200", "300"]
    alone = build_stream_report(compare_methods([make_stream("joint")]))
    assert [row.train_images for row in alone.tasks] == ["100 so far", "200 so far", "300 so far"]


def test_page_is_self_contained(tmp_path: Path) -> None:
    text = write_streams(two_methods(), tmp_path).read_text()
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "embed", "img", "image")
        for name in ("src", "href", "xlink:href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:"))


def test_hostile_names_are_harmless(tmp_path: Path) -> None:
    path = write_streams(hostile(), tmp_path)
    text = path.read_text()
    assert "<script" not in text
    assert "onerror=alert(2)&gt;" in text
    Page(text)
    markdown = path.with_name("report.md").read_text()
    outside = re.sub(r"^(`{3,})\n.*?\n\1$", "", markdown, flags=re.M | re.S)
    assert not re.search(r"(?<!\\)<", outside)


def test_standalone_drawing_is_a_complete_svg() -> None:
    [runs] = compare_methods([make_stream()]).methods
    text = plots.standalone_svg(plots.matrix_heatmap(runs))
    root = ElementTree.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(--" not in text
    assert "after task 2, on task 1: 70.0 %" in text


@pytest.mark.parametrize("tasks", [2, 10, 11, 30])
def test_streams_of_any_length_can_be_drawn(tasks: int) -> None:
    matrix = tuple(tuple(0.5 for _ in range(tasks)) for _ in range(tasks))
    [runs] = compare_methods([make_stream(matrix=matrix, images=(9,) * tasks)]).methods
    numbers = plots.matrix_heatmap(runs).count(">50<")
    assert numbers == (tasks**2 if tasks <= 10 else 0)
    assert plots.task_curves(runs).count("after its training") == tasks
    assert "average accuracy" in plots.average_curves(
        compare_methods([make_stream(matrix=matrix, images=(9,) * tasks)])
    )


def test_unwritable_folder_is_named_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NbtError, match="use another --out"):
        write_streams(two_methods(), tmp_path / "file")


def test_sizes_in_memory() -> None:
    assert [bytes_text(count) for count in (0, 1, 1023, 1024, 3 * 2**20, 5 * 2**30 // 2)] == [
        "none",
        "1 bytes",
        "1023 bytes",
        "1.0 KiB",
        "3.0 MiB",
        "2.5 GiB",
    ]


@pytest.mark.browser
@pytest.mark.parametrize("comparison", [two_methods(3), hostile()], ids=["several", "hostile"])
def test_page_fits_and_loads_at_all_widths(browser: Any, comparison: Comparison, tmp_path: Path) -> None:
    path = write_streams(comparison, tmp_path / "reports")
    for width in WIDTHS:
        opened = OpenedPage(browser, path, width)
        measured = opened.page.evaluate(MEASURE)
        assert measured["scroll"] <= measured["width"] and measured["wide"] == []
        assert measured["letters"] >= 8.5
        assert opened.messages == [] and opened.outside == []
        opened.close()


def test_section_on_commands_requires_a_command(tmp_path: Path) -> None:
    with_command, without = two_methods(), replace(two_methods(), command="")
    for name in ("report.html", "report.md"):
        assert "Reproduce" in write_streams(with_command, tmp_path / "a").with_name(name).read_text()
        text = write_streams(without, tmp_path / "b").with_name(name).read_text()
        assert "Reproduce" not in text and "Written by nbt" in text
