from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nbt.errors import NbtError
from nbt.report.benchmark import FILES, regret_figure, write_benchmark
from nbt.tuning.benchmark.results import ReplayResult
from nbt.tuning.benchmark.runner import replay
from tests.tuning.benchmark.tables import LENGTH, SPACE, make_table


@pytest.fixture(scope="module")
def result() -> ReplayResult:
    tables = [make_table(30, seed=i, dataset=name, data_hash=name) for i, name in enumerate(("birds", "a<b&c"))]
    return replay(tables, space=SPACE, methods=["random", "asha"], seeds=3, budget=8)


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_all_files_are_written(result: ReplayResult, tmp_path: Path) -> None:
    paths = write_benchmark(result, tmp_path / "out")
    assert sorted(path.name for path in paths) == sorted(FILES) == sorted(p.name for p in (tmp_path / "out").iterdir())


def test_tables_contain_the_result(result: ReplayResult, tmp_path: Path) -> None:
    write_benchmark(result, tmp_path)
    assert [row["task"] for row in rows(tmp_path / "tasks.csv")] == ["birds · conv3", "a<b&c · conv3"]
    assert len(rows(tmp_path / "summary.csv")) == 4
    searches = rows(tmp_path / "searches.csv")
    assert len(searches) == 2 * 2 * 3
    assert all(int(row["epochs_spent"]) <= 8 * LENGTH for row in searches)
    curves = rows(tmp_path / "curves.csv")
    assert [int(row["epoch"]) for row in curves if (row["task"], row["method"]) == ("birds · conv3", "asha")] == list(
        range(LENGTH, 8 * LENGTH + 1, LENGTH // 2)
    )
    assert all(float(row["low"]) <= float(row["regret"]) <= float(row["high"]) for row in curves)
    [random, asha] = rows(tmp_path / "overall.csv")
    assert float(random["ratio"]) == 1
    assert float(random["rank"]) + float(asha["rank"]) == pytest.approx(3)
    assert len(rows(tmp_path / "comparisons.csv")) == 2


def test_figure_has_one_panel_per_task_and_one_for_the_mean(result: ReplayResult) -> None:
    svg = ElementTree.fromstring(regret_figure(result))
    texts = [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"birds · conv3", "a<b&c · conv3", "mean of 2 tasks", "random", "asha", "epochs"} <= set(texts)
    assert texts.count("regret, points") == 2


def test_figure_is_reproducible(result: ReplayResult) -> None:
    assert regret_figure(result) == regret_figure(result)


def test_one_task_has_one_panel() -> None:
    one = replay([make_table(12)], space=SPACE, methods=["random"], seeds=1, budget=3)
    assert "mean of" not in regret_figure(one)
    assert [row["worst_ratio"] for row in one.overall_rows()] == [None]


def test_invalid_folder_is_named_in_the_error(result: ReplayResult, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NbtError, match="cannot write the replay"):
        write_benchmark(result, tmp_path / "file" / "out")
