"""The lowest layer: errors, YAML, paths and import times."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nbt
from nbt import api
from nbt.errors import NbtError, UsageError, errors_in, nearest, one_line_message, python_names
from nbt.paths import bundled_folder, cache_folder
from nbt.yaml_loader import parse_yaml_mapping


def test_exit_codes_distinguish_wrong_usage_from_failure() -> None:
    assert (NbtError.exit_code, UsageError.exit_code) == (1, 2)
    assert issubclass(UsageError, ValueError)


def test_nearest_suggests_close_names_or_lists_the_known_ones() -> None:
    assert nearest("digts", ["digits", "cub"]) == "did you mean digits?"
    assert nearest("xyzzy", ["digits", "cub"]) == "known: cub, digits"
    assert nearest("xyzzy", [f"n{i:02d}" for i in range(30)]).endswith("n11, ...")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1E5", 1e5),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("7", 7),
        ("1:30", "1:30"),
        ("1:30.5", "1:30.5"),
        ("1e", "1e"),
        ("e4", "e4"),
        ("'1e-4'", "1e-4"),
    ],
)
def test_numbers_are_read_as_in_yaml_1_2(text: str, value: object) -> None:
    parsed = parse_yaml_mapping(f"a: {text}", source="s")["a"]
    assert parsed == value
    assert type(parsed) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", "given twice"),
        ("a: {b: 1, b: 2}", "given twice"),
        ("a: [", "not valid YAML"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("3: 4", "mapping of names"),
        ("", "mapping of names"),
    ],
)
def test_invalid_texts_raise_usage_errors_that_name_the_source(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=rf"^space\.yaml(, line \d)?: .*{message}"):
        parse_yaml_mapping(text, source="space.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "space.yaml, line 3: not valid YAML ('a' is given twice)"),
        ("a:\n  b: 1\n  b: 2", "space.yaml, line 3: not valid YAML ('b' is given twice)"),
        ("a: 1\nb: ]", "space.yaml, line 2: not valid YAML (expected the node content, but found ']')"),
        ("a: \0", "space.yaml: not valid YAML (special characters are not allowed)"),
    ],
)
def test_messages_about_invalid_yaml_name_file_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError) as error:
        parse_yaml_mapping(text, source="space.yaml")
    assert str(error.value) == message


@given(st.text())
def test_any_text_is_parsed_or_raises_a_usage_error(text: str) -> None:
    try:
        assert isinstance(parse_yaml_mapping(text, source="s"), dict)
    except UsageError as error:
        assert "\n" not in str(error)


def test_bundled_folders_are_found_and_a_missing_one_raises() -> None:
    assert (bundled_folder("search_spaces") / "non_binary.yaml").is_file()
    assert (bundled_folder("studies") / "bench_training.py").is_file()
    with pytest.raises(FileNotFoundError, match="reinstall"):
        bundled_folder("no_such_folder")


def test_the_cache_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    assert cache_folder("images") == tmp_path / "cache" / "images"
    monkeypatch.delenv("NBT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "nbt"
    assert cache_folder().is_dir()


def test_an_unwritable_cache_names_its_environment_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "file"))
    with pytest.raises(NbtError, match="set NBT_CACHE"):
        cache_folder("images")


def test_importing_nbt_and_its_settings_imports_no_heavy_library() -> None:
    code = (
        "import sys, nbt; nbt.TransferSettings();"
        "heavy = {'torch', 'torchvision', 'optuna', 'mlflow', 'ray', 'pandas', 'sklearn'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_reading_a_stored_profile_imports_neither_torch_nor_scipy() -> None:
    code = "import sys, nbt.tuning.storage.codec; sys.exit(bool({'torch', 'scipy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("missing --dataset; see nbt search --help", "missing dataset; see help(nbt.search)"),
        ("leave out --no-heuristics and --scenario", "leave out heuristics=False and scenario"),
        ("--final-seeds: 1 final run", "final_seeds: 1 final run"),
        ("give --weights FILE, or --weights none", "give weights FILE, or weights none"),
        ("start with --fresh", "start with fresh=True"),
        ("a folder written by nbt train --export", "a folder written by nbt train --export"),
        ("start one with ray start --head", "start one with ray start --head"),
        ("well-known -- and -v stay", "well-known -- and -v stay"),
    ],
)
def test_messages_for_python_name_arguments(message: str, expected: str) -> None:
    assert python_names(message) == expected


def test_functions_of_the_package_name_arguments_and_those_of_the_command_line_options() -> None:
    with pytest.raises(UsageError, match=r"^missing budget; see help\(nbt\.search\)$"):
        nbt.search("digits")
    for function in (nbt.search, api.search):
        with pytest.raises(UsageError) as error:
            function("digits")
        assert error.value.command_line_text == "missing --budget; see nbt search --help"


def test_methods_name_arguments_too() -> None:
    with pytest.raises(UsageError, match=r"^budget auto needs the model of the priors.* leave out heuristics=False"):
        nbt.SearchConfig(dataset="digits", budget="auto", heuristics=False).check_complete()
    with pytest.raises(UsageError, match=r"^backbones conv3: cannot be read as a file"):
        nbt.SearchConfig(dataset="digits", backbones="conv3")


def test_a_long_message_ends_after_a_word() -> None:
    error = ValueError("word " * 10)
    assert one_line_message(error, 23) == "word word word word ..."
    assert one_line_message(error, 24) == "word word word word ..."
    assert one_line_message(error, 49) == "word " * 9 + "word"
    assert one_line_message(ValueError("x" * 30), 20) == "x" * 16 + " ..."
    assert one_line_message(ValueError()) == "ValueError"


def test_errors_begin_with_the_name_of_the_wrong_text() -> None:
    for source, message in (("a.yaml", "a.yaml: no"), (None, "no")):
        with pytest.raises(UsageError, match=f"^{message}$"), errors_in(source):
            raise UsageError("no")
    with pytest.raises(NbtError, match=r"^no$"), errors_in("a.yaml"):
        raise NbtError("no")


def test_functions_of_the_package_can_be_pickled() -> None:
    for name in ("search", "train", "load_model"):
        function = getattr(nbt, name)
        assert pickle.loads(pickle.dumps(function)) is function is getattr(nbt, name)
        assert function.__doc__ and function.__module__ == "nbt"
