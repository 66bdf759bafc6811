"""SearchConfig: one declaration of every option of a search, and what is made from it."""

from __future__ import annotations

import math
import shlex
import string
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nbt.errors import UsageError
from nbt.search_config import PRUNERS, SearchConfig, default_value, flag_of, option_fields

_text = st.text(string.ascii_letters + string.digits + " ./:=(),'\"-_é", min_size=1).filter(
    lambda text: text.strip() and not text.startswith("--")  # a value may be the name of an option
)


def _values(name: str) -> st.SearchStrategy[Any]:
    option = option_fields()[name]
    if name == "ray_address":
        return st.sampled_from(["auto", "head:6379", "ray://head:10001"])
    return {
        "whole": st.integers(8, 1024) if option.low is None else st.integers(option.low, 10**6),
        "number": st.floats(1e-3, 64.0),
        "choice": st.sampled_from(option.choices or ("",)),
        "flag": st.booleans(),
        "budget": st.one_of(st.integers(1, 500), st.sampled_from(["30m", "1.5h"])),
        "workers": st.one_of(st.just("auto"), st.integers(1, 64)),
        "codes": st.lists(st.sampled_from(["NBT101", "nbt203", "NBT209"]), min_size=1),
        "beliefs": st.lists(
            st.fixed_dictionaries({"dimension": st.sampled_from(["head_lr", "mixup"]), "around": st.floats(0.0, 1.0)}),
            min_size=1,
            unique_by=lambda belief: belief["dimension"],
        ),
        "backbones": st.lists(st.sampled_from(["resnet18", "squeezenet1_0"]), min_size=1, unique=True),
        "teachers": st.lists(st.sampled_from(["resnet18", "conv3=w.pth"]), min_size=1, unique=True),
        "gpus": st.one_of(st.just("auto"), st.floats(0.0, 1.0)),
    }.get(option.kind, _text)


configs = st.fixed_dictionaries({}, optional={name: _values(name) for name in option_fields()}).map(
    SearchConfig.from_options
)


@given(configs)
def test_yaml_in_and_out_gives_an_equal_configuration(config: SearchConfig) -> None:
    assert SearchConfig.from_yaml(config.to_yaml()) == config
    assert SearchConfig(**config.to_dict()) == config


def test_texts_that_look_like_numbers_stay_texts() -> None:
    config = SearchConfig(dataset="08", budget="3", study="1e3")
    assert SearchConfig.from_yaml(config.to_yaml()) == config


@given(configs)
def test_the_command_names_what_differs_from_the_defaults_and_nothing_else(config: SearchConfig) -> None:
    words = shlex.split(config.command())
    assert words[:2] == ["nbt", "search"]
    options = [word for word in words[2:] if word in {flag_of(name) for name in option_fields()}]
    assert list(dict.fromkeys(options)) == [flag_of(name) for name in config.to_dict()]


@pytest.mark.parametrize("teachers", [["resnet18"], ["resnet18", "conv3=my w.pth"]])
def test_the_option_of_several_teachers_is_repeated_in_the_command(teachers: list[str]) -> None:
    words = shlex.split(SearchConfig(dataset="digits", teacher=teachers).command())
    assert words == ["nbt", "search", "--dataset", "digits", *(w for name in teachers for w in ("--teacher", name))]


def test_every_option_has_a_sentence_a_kind_and_a_role() -> None:
    for name, option in option_fields().items():
        assert option.help.endswith("."), name
        assert option.role in ("task", "search", "run"), name
        assert option.metavar or option.kind in ("choice", "flag"), name
        assert option.kind != "flag" or option.flag, name


def test_defaults_are_those_of_an_empty_file() -> None:
    config = SearchConfig.from_yaml("{}")
    assert config == SearchConfig()
    assert config.to_dict() == {}
    assert (config.space, config.epochs, config.pruner, config.heuristics) == ("non_binary", None, "fit", True)
    assert PRUNERS == ("fit", "asha", "none")


def test_names_may_be_written_as_on_the_command_line() -> None:
    config = SearchConfig.from_yaml("dataset: digits\nbudget: 20\nfinal-seeds: 3\ngpus_per_trial: auto\n")
    assert config == SearchConfig(dataset="digits", budget="20", final_seeds=3, gpus_per_trial="auto")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: digits\nbuget: 20\n", r"mine.yaml, line 2: unknown option 'buget'; did you mean budget"),
        ("dataset: digits\n\nworkers: many\n", r"mine.yaml, line 3: workers 'many': expected auto or a whole number"),
        ("workers: 0\n", r"mine.yaml, line 1: workers: 0 is not 1 or more"),
        ("workers: true\n", r"line 1: workers: expected a whole number, got True"),
        ("pruner: fits\n", r"line 1: pruner 'fits': did you mean fit"),
        ("heuristics: 1\n", r"line 1: heuristics: expected true or false, got 1"),
        ("budget: 1.5\n", r"line 1: budget: expected a whole number of trials or a text such as '2h', got 1.5"),
        ("storage: [a]\n", r"line 1: storage: expected text, got \['a'\]"),
        ("seed: 1\nseed: 2\n", r"mine.yaml, line 2: not valid YAML \('seed' is given twice\)"),
        ("final_seeds: 3\nfinal-seeds: 2\n", r"line 2: option 'final-seeds' is given twice"),
        ("- dataset\n", r"mine.yaml: expected a mapping"),
        ("cpus_per_trial: .nan\n", r"line 1: cpus_per_trial: expected a number"),
        ("seed: 1\nfinal_seeds: 1\n", r"mine.yaml, line 2: final_seeds: 1 final run per recipe gives no interval"),
        ("budget: 0\n", r"mine.yaml, line 1: budget '0': it must be positive"),
        ("max-budget: auto\n", r"mine.yaml, line 1: max-budget 'auto': give a number of trials such as 20"),
        ("gpus_per_trial: 2\n", r"mine.yaml, line 1: gpus_per_trial 2: expected 0 ... 1"),
        ("ray-address: head\n", r"mine.yaml, line 1: ray-address head: expected auto, HOST:PORT"),
        ("shots: 1\n", r"mine.yaml, line 1: shots 1: expected a whole number, 2 or more; a class needs"),
    ],
)
def test_wrong_files_are_named_with_key_and_line(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchConfig.from_yaml(text, source="mine.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^configuration .*none.yaml: cannot be read \(No such file"):
        SearchConfig.load(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"cannot be read \(not a text file\)"):
        SearchConfig.load(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"worker": 2}, "unknown option 'worker'; did you mean workers"),
        ({"epochs": 0}, "epochs: 0 is not 1 or more"),
        ({"engine": None}, "engine: expected a value, got nothing"),
        ({"gpus_per_trial": True}, "gpus_per_trial: expected a number, got True"),
        ({"dataset": ""}, r"dataset: expected NAME\|FOLDER\|CSV, got an empty text"),
        ({"max_latency": 0}, "^max_latency: 0 is not above 0"),
        ({"max_latency": float("inf")}, "^max_latency: expected a number, got inf"),
        ({"min_gain": -1}, "^min_gain: -1 is not above 0"),
        ({"heuristics": "no"}, "^heuristics: expected true or false, got 'no'"),
        ({"final_seeds": 1}, "^final_seeds: 1 final run per recipe gives no interval"),
        ({"budget": "2.5"}, r"^budget '2\.5': the number of trials must be an integer"),
        ({"budget": "twenty"}, "^budget 'twenty': give a number of trials such as 20, .* or auto$"),
        ({"max_budget": "0h"}, "^max_budget '0h': it must be positive"),
        ({"gpus_per_trial": 2}, "^gpus_per_trial 2: expected 0 ... 1, because a trial trains on one GPU, or auto"),
        ({"gpus_per_trial": "all"}, "^gpus_per_trial all: expected a number, such as 0.5, or auto"),
        ({"ray_address": "http://head:1"}, "^ray_address http://head:1: expected auto"),
        ({"image_size": 4}, "^image_size 4: expected a whole number, 8 ... 1024"),
        ({"classes": 1}, "^classes 1: expected a whole number, 2 or more"),
        ({"shots": 1}, "^shots 1: expected a whole number, 2 or more"),
    ],
)
def test_wrong_arguments_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchConfig.from_options(changes)


@pytest.mark.parametrize(
    "options",
    [
        *({"budget": text} for text in (20, "1.5h", "auto", "auto, at most 30")),
        {"budget": "auto", "max_budget": "2h"},
        {"final_seeds": 2, "gpus_per_trial": "auto", "ray_address": "ray://head:10001"},
        {"gpus_per_trial": 0, "image_size": 8, "classes": 2, "shots": 2},
    ],
)
def test_values_at_the_bounds_are_taken(options: dict[str, Any]) -> None:
    config = SearchConfig(**options)
    assert config.to_dict() == {name: str(v) if name == "budget" else v for name, v in options.items()}


def test_the_command_line_names_the_option() -> None:
    with pytest.raises(UsageError) as caught:
        SearchConfig(max_latency=math.nan)
    assert caught.value.command_line_text == "--max-latency: expected a number, got nan"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(UsageError, match=r"^missing dataset; see help\(nbt\.search\)$") as error:
        SearchConfig(budget="3").check_complete()
    assert error.value.command_line_text == "missing --dataset; see nbt search --help"
    with pytest.raises(UsageError, match="missing budget"):
        SearchConfig(dataset="digits").check_complete()
    complete = SearchConfig(dataset="digits", budget="3")
    assert complete.check_complete() is complete


def test_what_is_stored_and_shown_has_no_password_and_absolute_paths(tmp_path: Path) -> None:
    config = SearchConfig(
        dataset="digits",
        budget="3",
        storage="postgresql+psycopg://me:secret@host/studies",
        out=str(tmp_path / "a" / ".." / "my reports"),
        heuristics=False,
    )
    assert config.to_record() == {
        "dataset": "digits",
        "budget": "3",
        "storage": "postgresql+psycopg://me:***@host/studies",
        "heuristics": False,
        "out": str(tmp_path / "my reports"),
    }
    assert "secret" not in config.command()
    assert config.command_options("search") == {"--budget": "3", "--no-heuristics": ""}
    assert shlex.split(config.command())[-2:] == ["--out", str(tmp_path / "my reports")]


def test_replace_keeps_the_rest() -> None:
    config = SearchConfig(dataset="digits", budget=20, fresh=True)
    assert config.budget == "20"
    assert config.replace(workers=2).to_dict() == {"dataset": "digits", "budget": "20", "workers": 2, "fresh": True}
    with pytest.raises(UsageError, match="unknown option"):
        config.replace(workrs=2)
    assert default_value("workers") == "auto"


def test_backbones_are_a_list_a_text_or_a_file(tmp_path: Path) -> None:
    listed = [{"name": "resnet18"}, {"name": "squeezenet1_0", "weights": "w.pth", "image_size": 64}]
    file = tmp_path / "list.yaml"
    file.write_text("- name: resnet18\n- {name: squeezenet1_0, weights: w.pth, image_size: 64}\n")
    config = SearchConfig(dataset="digits", budget="1", backbones=listed).check_complete()
    assert SearchConfig(backbones=config.backbones).backbones == config.backbones
    assert str(tmp_path / "w.pth") in str(SearchConfig(backbones=file).backbones)
    assert "--backbones" in shlex.split(config.command())


def test_further_checks_of_a_file_name_the_line(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("dataset: digits\nbackbones: [conv3, conv9]\n")
    seen = []

    def check(value: Any) -> None:
        seen.append(value)
        raise UsageError("no such network")

    with pytest.raises(UsageError, match=r"c\.yaml, line 2: no such network$"):
        SearchConfig.load(file, {"backbones": check})
    assert seen == [["conv3", "conv9"]]


def test_source_images_exclude_streams() -> None:
    with pytest.raises(UsageError, match=r"^source_data: .*leave out scenario"):
        SearchConfig(dataset="digits", budget="1", source_data="birds", scenario="class").check_complete()


def test_a_list_of_one_backbone_is_that_backbone() -> None:
    config = SearchConfig(dataset="digits", budget="1", image_size=32, backbones=[("conv3", "none")]).check_complete()
    assert config == SearchConfig(dataset="digits", budget="1", image_size=32, backbone="conv3", weights="none")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "conv3"}, "^backbone: backbones lists"),
        ({"weights": "none"}, "^weights: backbones lists"),
        ({"scenario": "data"}, "^scenario: only with one backbone"),
        ({"teacher": "resnet18"}, "^teacher: only with one backbone"),
    ],
)
def test_several_backbones_exclude_other_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SearchConfig(dataset="digits", budget="1", backbones=["conv3", "conv4"], **options).check_complete()
