from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbt.data.image_files import LabelledFile
from nbt.data.readers.manifest import parse_manifest, read_manifest
from nbt.errors import UsageError
from tests.data.pictures import save_image

FOLDER = Path("/data")


def parse(text: str, *, missing: str = "") -> list[LabelledFile]:
    return parse_manifest(text, FOLDER, source="m.csv", is_file=lambda path: path.name != missing)


def test_paths_are_relative_to_the_folder_of_the_manifest(tmp_path: Path) -> None:
    save_image(tmp_path / "pictures" / "a.png")
    save_image(tmp_path / "b.png")
    folder = tmp_path / "lists"
    folder.mkdir()
    absolute = tmp_path / "b.png"
    (folder / "m.csv").write_text(f"path,label,split\n../pictures/a.png,cat,train\n{absolute},dog,Test\n")
    assert read_manifest(folder / "m.csv") == [
        LabelledFile(tmp_path / "pictures" / "a.png", "cat", "train"),
        LabelledFile(absolute, "dog", "test"),
    ]


def test_columns_may_be_in_any_order_with_other_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    save_image(tmp_path / "a b.png")
    save_image(tmp_path / "c.png")
    text = '\ufeffLabel,photographer,Path\r\n"big, cat",Ann,a b.png\r\n\r\ndog,Bo,c.png\r\n'
    (tmp_path / "m.csv").write_bytes(text.encode())
    assert [(row.path.name, row.label) for row in read_manifest(tmp_path / "m.csv")] == [
        ("a b.png", "big, cat"),
        ("c.png", "dog"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.csv: is empty; expected the header path,label"),
        ("file,label\na,b\n", "line 1: missing column 'path'"),
        ("path,class\na,b\n", "line 1: missing column 'label'"),
        ("path,lable\na,b\n", "line 1: unknown column 'lable'; did you mean label?"),
        ("path,label,splt\na,b,test\n", "line 1: unknown column 'splt'; did you mean split?"),
        ("path,label,path\na,b,c\n", "line 1: the column 'path' appears twice"),
        ("path,label\na,b\nc\n", "line 3: has 1 fields, the header 2"),
        ("path,label\na,b,c\n", "line 2: has 3 fields, the header 2"),
        ("path,label\na, \n", "line 2: the label is empty"),
        ("path,label\n ,b\n", "line 2: the path is empty"),
        ("path,label,split\na,b,trian\n", "line 2: unknown split 'trian'; did you mean train"),
        ("path,label\na,b\nlost.png,b\n", "line 3: no such file: /data/lost.png"),
        ("path,label\na,b\n\n./x/../a,c\n", "line 4: a has the label 'c', but 'b' in line 2"),
        ("path,label,split\na,b,train\na,b,test\n", "line 3: a has the split 'test', but 'train' in line 2"),
        ('path,label\n"a,b\n', "not valid CSV"),
    ],
)
def test_errors_name_the_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text, missing="lost.png")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_repeated_lines_count_once() -> None:
    assert parse("path,label\na,x\nb,y\n./a,x\n") == [LabelledFile(FOLDER / "a", "x"), LabelledFile(FOLDER / "b", "y")]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\n", "names no images"),
        ("path,label\na\0b,x\n", "line 2: no such file"),
        ("path,label\na.png,x\n", "one class"),
    ],
)
def test_a_manifest_needs_images_of_two_classes(tmp_path: Path, text: str, message: str) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path / "m.csv")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UsageError, match="cannot be read as a CSV manifest"):
        read_manifest(tmp_path / "m.csv")


word = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1
)
role = st.sampled_from(["", "train", "val", "test"])


@settings(deadline=None)
@given(st.dictionaries(word.filter(lambda text: text not in (".", "..") and "/" not in text), st.tuples(word, role)))
def test_written_manifests_are_read_back(images: dict[str, tuple[str, str]]) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["path", "label", "split"])
    writer.writerows((path, label, split) for path, (label, split) in images.items())
    expected = [LabelledFile(FOLDER / path, label, split) for path, (label, split) in images.items()]
    assert parse(file.getvalue()) == expected


@settings(deadline=None)
@given(
    st.one_of(st.text(), st.text(alphabet='path,label\n\r"x;\0', max_size=60).map(lambda text: "path,label\n" + text))
)
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        rows = parse(text)
    except UsageError as error:
        assert str(error).startswith("m.csv")
    else:
        assert all(row.label and row.label == row.label.strip() and row.split == "" for row in rows)
        assert len({row.path for row in rows}) == len(rows)
