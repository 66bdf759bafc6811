from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nbt.data.image_files import LabelledFile, PassedOver
from nbt.data.readers.manifest import MISSING, REPEATED, UNLABELLED, parse_manifest, read_manifest
from nbt.errors import UsageError
from tests.data.pictures import save_image

FOLDER = Path("/data")


def parse(text: str, *, missing: str = "") -> list[LabelledFile]:
    return parse_manifest(text, FOLDER, source="m.csv", is_file=lambda path: path.name != missing).images


def test_paths_are_relative_to_the_folder_of_the_manifest(tmp_path: Path) -> None:
    save_image(tmp_path / "pictures" / "a.png")
    save_image(tmp_path / "b.png")
    folder = tmp_path / "lists"
    folder.mkdir()
    absolute = tmp_path / "b.png"
    (folder / "m.csv").write_text(f"path,label,split\n../pictures/a.png,cat,train\n{absolute},dog,Test\n")
    assert read_manifest(folder / "m.csv").images == [
        LabelledFile(tmp_path / "pictures" / "a.png", "cat", "train"),
        LabelledFile(absolute, "dog", "test"),
    ]


def test_columns_may_be_in_any_order_with_other_columns_and_a_byte_order_mark(tmp_path: Path) -> None:
    save_image(tmp_path / "a b.png")
    save_image(tmp_path / "c.png")
    text = '\ufeffLabel,photographer,Path\r\n"big, cat",Ann,a b.png\r\n\r\ndog,Bo,c.png\r\n'
    (tmp_path / "m.csv").write_bytes(text.encode())
    assert [(row.path.name, row.label) for row in read_manifest(tmp_path / "m.csv").images] == [
        ("a b.png", "big, cat"),
        ("c.png", "dog"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "m.csv: is empty; expected the header path,label"),
        ("where,label\na,b\n", "line 1: missing column 'path' (or "),
        ("path,kind,size\na,b,c\n", "line 1: missing column 'label' (or "),
        ("path,lable\na,b\n", "line 1: unknown column 'lable'; did you mean label?"),
        ("path,label,splt\na,b,test\n", "line 1: unknown column 'splt'; did you mean split?"),
        ("path,label,path\na,b,c\n", "line 1: the column 'path' appears twice"),
        ("path,label\na,b\nc\n", "line 3: has 1 fields, the header 2"),
        ("path,label\na,b,c\n", "line 2: has 3 fields, the header 2"),
        ("path,label\n ,b\n", "line 2: the path is empty"),
        ("path,label,split\na,b,trian\n", "line 2: unknown split 'trian'; did you mean train"),
        ("path,label\nlost.png,b\n./lost.png,b\n", "m.csv: no such file: /data/lost.png; all 1 images are missing"),
        ("path,label,is_test\na,b,maybe\n", "line 2: unknown split 'maybe'; expected yes or no"),
        ("path,label,is_test,is_val\na,b,0,1\n", "line 1: several columns give the split (is_test, is_val)"),
        ("path,label,train,val\na,b,1,0\nc,b,0,1\n", "m.csv: several columns give the split (train, val)"),
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
        ("path,label\na\0b,x\n", "no such file"),
        ("path,label\na.png,x\n", "one class"),
    ],
)
def test_a_manifest_needs_images_of_two_classes(tmp_path: Path, text: str, message: str) -> None:
    save_image(tmp_path / "a.png")
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(UsageError, match=message):
        read_manifest(tmp_path / "m.csv")


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_bytes(b"\x89PNG\x00\x81")
    with pytest.raises(UsageError, match="cannot be read as a CSV manifest"):
        read_manifest(tmp_path / "m.csv")


@pytest.mark.parametrize(
    ("column", "values", "splits"),
    [
        ("Split", ("TRAIN", "Validation", "testing"), ("train", "val", "test")),
        ("set", ("training", "valid", "eval"), ("train", "val", "test")),
        ("subset", ("train_set", "dev", "Test Set"), ("train", "val", "test")),
        ("partition", ("trn", "val", "tst"), ("train", "val", "test")),
        ("Usage", ("Training", "PublicTest", "PrivateTest"), ("train", "val", "test")),
        ("is_test", ("0", "False", "1"), ("train", "train", "test")),
        ("is-valid", ("no", "True", "N"), ("train", "val", "train")),
        ("is train", ("1", "yes", "0"), ("train", "train", "test")),
        ("fold", ("train", "", "test"), ("train", "", "test")),
        ("fold", ("1", "2", "3"), ("", "", "")),
    ],
)
def test_usual_split_columns_are_read(column: str, values: tuple[str, ...], splits: tuple[str, ...]) -> None:
    rows = parse(f"path,label,{column}\n" + "".join(f"{n},x,{value}\n" for n, value in enumerate(values)))
    assert tuple(row.split for row in rows) == splits


@pytest.mark.parametrize(
    ("column", "values", "splits"),
    [
        ("part", ("train", "TEST", "val"), ("train", "test", "val")),
        ("source", ("train", "", "test"), ("train", "", "test")),
        ("Train", ("1", "0", "1"), ("train", "test", "train")),
        ("test", ("True", "False", "False"), ("test", "train", "train")),
        ("part", ("train", "train", "train"), ("", "", "")),
        ("part", ("train", "test", "wing"), ("", "", "")),
        ("test", ("1", "0", "0.5"), ("", "", "")),
    ],
)
def test_values_tell_a_split_column_of_another_name(
    column: str, values: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    rows = parse(f"path,label,{column}\n" + "".join(f"{n},x,{value}\n" for n, value in enumerate(values)))
    assert tuple(row.split for row in rows) == splits


@pytest.mark.parametrize("header", ["picture,emotion", "ImageID,kind,split", "Image Index,,what"])
def test_the_only_other_column_is_the_label(header: str) -> None:
    values = {"emotion": "joy", "kind": "joy", "split": "test", "": "7", "what": "joy"}
    [row] = parse(f"{header}\na.png,{','.join(values[name] for name in header.split(',')[1:])}\n")
    assert row.label == "joy"


@pytest.mark.parametrize("path", ["image", "Filename", "image_id", "file path", "img-path", "imageName"])
@pytest.mark.parametrize("label", ["class", "Category", "species", "target", "class name", "ClassId"])
def test_usual_column_names_are_read(path: str, label: str) -> None:
    assert parse(f"{label},{path},size\n08,a.png,3\n") == [LabelledFile(FOLDER / "a.png", "08")]


def test_of_several_columns_the_plainest_name_counts() -> None:
    assert parse("id,label_name,label,path\n1,cat,x,a.png\n") == [LabelledFile(FOLDER / "a.png", "x")]


def test_unknown_splits_are_listed_with_their_counts() -> None:
    text = "path,label,usage\na,x,train\nb,x,gallery\nc,x,query\nd,x,gallery\n"
    with pytest.raises(UsageError) as error:
        parse(text)
    assert "m.csv, line 3: unknown split 'gallery'" in str(error.value)
    assert "'gallery' (2 times), 'query' (1 times)" in str(error.value)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_delimiters_and_encodings(tmp_path: Path, delimiter: str, encoding: str) -> None:
    for name in ("größe.png", "b.png"):
        save_image(tmp_path / name)
    rows = [["image", "class"], ["größe.png", f"a{delimiter} b"], ["b.png", "08"]]
    with (tmp_path / "m.csv").open("w", encoding=encoding, newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    assert read_manifest(tmp_path / "m.csv").images == [
        LabelledFile(tmp_path / "größe.png", f"a{delimiter} b"),
        LabelledFile(tmp_path / "b.png", "08"),
    ]


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sub\\a.png", "lists/sub/a.png"),
        ("a.png", "lists/images/a.png"),
        ("a.png", "images/a.png"),
        ("a.png", "a.png"),
        ("ISIC_01", "images/ISIC_01.jpg"),
        ("sub\\ISIC.01", "images/sub/ISIC.01.png"),
    ],
)
def test_images_are_found_near_the_manifest(name: str, file: str) -> None:
    rows = parse_manifest(
        f"path,label\n{name},x\n", Path("/d/lists"), source="m.csv", is_file=lambda path: path == Path("/d", file)
    )
    assert rows == ([LabelledFile(Path("/d", file), "x")], [])


def test_images_are_found_in_subfolders_of_the_manifest(tmp_path: Path) -> None:
    for name in ("train/1.jpg", "train/2.jpg", "test/1.jpg", "more/3.png"):
        save_image(tmp_path / name)
    (tmp_path / "train.csv").write_text("id,breed\n1,pug\n2,corgi\n3,pug\n")
    rows = read_manifest(tmp_path / "train.csv").images
    assert [(row.path.relative_to(tmp_path).as_posix(), row.label) for row in rows] == [
        ("train/1.jpg", "pug"),
        ("train/2.jpg", "corgi"),
        ("more/3.png", "pug"),
    ]
    (tmp_path / "train.csv").rename(tmp_path / "labels.csv")
    with pytest.raises(UsageError, match=r"labels\.csv, line 2: 1 may be .*/test/1\.jpg or .*/train/1\.jpg"):
        read_manifest(tmp_path / "labels.csv")


def test_an_image_in_two_places_is_refused_unless_it_is_beside_the_manifest() -> None:
    places = {Path("/d/images/a.png"), Path("/d/lists/images/a.png")}
    with pytest.raises(UsageError, match=r"line 2: a\.png may be /d/lists/images/a\.png or /d/images/a\.png"):
        parse_manifest("path,label\na.png,x\n", Path("/d/lists"), source="m.csv", is_file=places.__contains__)
    places.add(Path("/d/lists/a.png"))
    found = parse_manifest("path,label\na.png,x\n", Path("/d/lists"), source="m.csv", is_file=places.__contains__)
    assert found.images == [LabelledFile(Path("/d/lists/a.png"), "x")]


def test_missing_images_are_passed_over() -> None:
    files = parse_manifest(
        "path,label\na,x\nlost.png,y\n./lost.png,y\n", FOLDER, source="m.csv", is_file=lambda path: path.name == "a"
    )
    assert files.images == [LabelledFile(FOLDER / "a", "x")]
    assert files.passed_over == [PassedOver(FOLDER / "lost.png", MISSING)]


@pytest.mark.parametrize("label", ["", " ", "NaN", "nan"])
def test_lines_without_a_label_are_passed_over(label: str, tmp_path: Path) -> None:
    for name in "abc":
        save_image(tmp_path / f"{name}.png")
    (tmp_path / "m.csv").write_text(f"path,label\na.png,x\nb.png,{label}\nc.png,y\n")
    files = read_manifest(tmp_path / "m.csv")
    assert [row.path.name for row in files.images] == ["a.png", "c.png"]
    assert files.passed_over == [PassedOver(tmp_path / "b.png", UNLABELLED)]
    (tmp_path / "m.csv").write_text(f"path,label\na.png,{label}\nb.png,{label}\n")
    with pytest.raises(UsageError, match=r"names no images; .*; passed over: 2 \.png \(line without a label\)"):
        read_manifest(tmp_path / "m.csv")


word = st.text(
    st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=("Cs", "Cc", "Zs", "Zl", "Zp")), min_size=1
)
label = word.filter(lambda text: text.lower() != "nan")
role = st.sampled_from(["", "train", "val", "test"])


@settings(deadline=None)
@given(
    st.dictionaries(word.filter(lambda text: text not in (".", "..") and "/" not in text), st.tuples(label, role)),
    st.sampled_from(",;\t|"),
)
def test_written_manifests_are_read_back(images: dict[str, tuple[str, str]], delimiter: str) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file, delimiter=delimiter)
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


def test_two_names_of_one_split_are_refused(tmp_path: Path) -> None:
    text = "path,label,split\na.png,cat,train\nb.png,dog,val\nc.png,dog,dev\n"
    with pytest.raises(UsageError, match=r"^m\.csv, line 4: 'dev' and 'val' of line 3 are both val; give each"):
        parse(text)
    assert [row.split for row in parse(text.replace("dev", "VAL").replace("val\n", "val set\n"))] == [
        "train",
        "val",
        "val",
    ]


def test_repeated_lines_are_counted() -> None:
    files = parse_manifest("path,label\na.png,cat\na.png,cat\n", FOLDER, source="m.csv", is_file=lambda path: True)
    assert files.passed_over == [PassedOver(FOLDER / "a.png", REPEATED)]
