from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nbt.errors import UsageError
from nbt.paths import bundled_folder
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.experience.recorded_table import describe_dimensions
from nbt.tuning.space.applicability import unconditional_space
from nbt.tuning.space.space import Space
from tests.tuning.benchmark.tables import SPACE, make_table

PROBE = """
import json, sys
from nbt.tuning.experience.folder import load_experience
from nbt.tuning.space.space import Space
tables = load_experience(None, Space.load("non_binary"))
heavy = ["torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "sklearn", "scipy", "pyarrow.dataset"]
print(json.dumps([len(tables), [name for name in heavy if name in sys.modules]]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder with two tables and other files that are ignored."""
    for seed, name in enumerate(("fish", "birds")):
        make_table(4, seed=seed, dataset=name).save(tmp_path / f"{name}.parquet")
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / ".birds.parquet").write_text("left by a file manager")
    (tmp_path / "fish.parquet.journal").write_text("{}")
    return tmp_path


def change_header(path: Path, **changes: Any) -> None:
    table = pq.read_table(path)
    values = {**json.loads(table.schema.metadata[b"nbt"]), **changes}
    pq.write_table(table.replace_schema_metadata({b"nbt": json.dumps(values).encode()}), path)


def test_tables_are_sorted_by_file_name(folder: Path) -> None:
    assert [table.header.dataset for table in load_experience(folder, SPACE)] == ["birds", "fish"]
    assert [table.source for table in load_experience(str(folder), SPACE)] == [
        str(folder / "birds.parquet"),
        str(folder / "fish.parquet"),
    ]


def test_an_empty_folder_has_no_tables(tmp_path: Path) -> None:
    assert load_experience(tmp_path, SPACE) == []


def test_a_path_that_is_not_a_folder_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"--experience .*nowhere: No such file or directory; give a folder of tables"):
        load_experience(folder / "nowhere", SPACE)
    with pytest.raises(UsageError, match=r"--experience .*fish.parquet: Not a directory; give a folder of tables"):
        load_experience(folder / "fish.parquet", SPACE)


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def add_column(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.append_column("dropout", pa.array([0.1] * table.num_rows)), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (damage, "not a Parquet file, or damaged; expected a table written by nbt record"),
        (lambda path: path.write_bytes(b""), "not a Parquet file, or damaged; expected a table written by nbt record"),
        (lambda path: change_header(path, schema=2), "recorded table of version 2; this nbt reads version 1"),
        (lambda path: change_header(path, surprise=1), "damaged header"),
        (add_column, "the columns are not those of a recorded table: it has dropout"),
        (lambda path: change_header(path, dimensions={"dropout": [0, 1, "linear"]}), "dimension dropout, which space"),
        (
            lambda path: change_header(path, dimensions={**describe_dimensions(SPACE), "mixup": [0, 9, "linear"]}),
            r"mixup in \[0, 9, 'linear'\], but space non_binary has",
        ),
    ],
)
def test_the_error_of_an_unsuitable_table_names_file_and_difference(change: Any, message: str, folder: Path) -> None:
    change(folder / "fish.parquet")
    with pytest.raises(UsageError, match=rf"fish\.parquet: .*{message}.*; move the file to another folder or record"):
        load_experience(folder, SPACE)


def test_a_table_that_lacks_a_dimension_is_loaded(folder: Path) -> None:
    dimensions = {name: value for name, value in describe_dimensions(SPACE).items() if name != "mixup"}
    change_header(folder / "fish.parquet", dimensions=dimensions)
    assert len(load_experience(folder, SPACE)) == 2


def test_the_shipped_tables_that_match_the_space_are_the_default() -> None:
    recorded = bundled_folder("studies") / "recorded"
    shipped = [*sorted(recorded.glob("*.parquet")), *sorted((recorded / "race").glob("*.parquet"))]
    space = unconditional_space(Space.load("non_binary"))
    assert [table.source for table in load_experience(None, space)] == [str(path) for path in shipped]
    assert load_experience(None, Space.load("binary")) == [], "tables that do not match are ignored"


def test_loading_imports_no_slow_package() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    tables, heavy = json.loads(done.stdout)
    assert tables > 0
    assert heavy == []
