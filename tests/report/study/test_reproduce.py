import shlex
from dataclasses import replace
from pathlib import Path

from nbt.report.study.reproduce import commands
from nbt.tuning.storage.records import StudyRecord
from tests.sample_study import sample_study, study_with_priors, unfinished_study, with_config


def test_task_options_define_the_task() -> None:
    record = with_config(sample_study(), weights="w/my net.pth", classes=20, shots=5, data_dir=None)
    train = commands(record, Path("r"), has_settings=True, has_model=False)[0].text
    assert shlex.split(train)[2:14] == [
        *("--dataset", "cub", "--backbone", "mobilenet_v2(width_mult=0.35)", "--weights", "w/my net.pth"),
        *("--image-size", "96", "--classes", "20", "--shots", "5"),
    ]


def test_train_command_uses_finals_seeds_and_report_folder() -> None:
    found = commands(sample_study(), Path("reports/cub"), has_settings=True, has_model=True)
    train, predict, search, ui = (command.text for command in found)
    words = shlex.split(train)
    assert words[:2] == ["nbt", "train"]
    assert words[words.index("--settings") + 1] == "reports/cub/recommended.yaml"
    assert words[words.index("--seeds") + 1] == "5"
    assert words[words.index("--export") + 1] == "reports/cub/model-again", "the existing model is not overwritten"
    assert predict == "nbt predict reports/cub/model IMAGES..."
    again = shlex.split(search)
    assert again[again.index("--budget") + 1] == "14"
    assert again[again.index("--study") + 1] == "cub-mobilenet_v2-non_binary"
    assert ui == "nbt ui"


def test_commands_for_missing_files_are_left_out() -> None:
    found = commands(unfinished_study(), Path("r"), has_settings=False, has_model=False)
    assert [shlex.split(command.text)[1] for command in found] == ["search", "ui"]


def test_names_are_quoted_for_the_shell() -> None:
    record = with_config(sample_study(), dataset="my birds; rm -rf $HOME", seed=7)
    text = commands(record, Path("a b"), has_settings=True, has_model=True)
    words = shlex.split(text[0].text)
    assert "my birds; rm -rf $HOME" in words
    assert words[words.index("--settings") + 1] == "a b/recommended.yaml"
    assert words[words.index("--seed") + 1] == "7"
    assert shlex.split(text[1].text) == ["nbt", "predict", "a b/model", "IMAGES..."]


def test_commands_use_existing_options() -> None:
    from nbt.cli.search import command as search
    from nbt.cli.train import command as train

    known = {"train": train, "search": search}
    for command in commands(sample_study(), Path("r"), has_settings=True, has_model=False)[:2]:
        words = shlex.split(command.text)
        options = {name for parameter in known[words[1]].params for name in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= options


def test_search_command_keeps_priors_on_or_off() -> None:
    def last_search(record: StudyRecord) -> list[str]:
        return shlex.split(commands(record, Path("r"), has_settings=False, has_model=False)[0].text)

    assert "--no-heuristics" in last_search(sample_study())
    assert "--no-heuristics" not in last_search(study_with_priors())


def test_stored_options_are_part_of_the_search_command() -> None:
    record = unfinished_study()
    search = record.search_config().replace(
        storage="postgresql://db/studies", tracking_uri="sqlite:///my runs.db", engine="ray", workers=3
    )
    found = commands(replace(record, search=search), Path("r"), has_settings=False, has_model=False)
    words = shlex.split(found[0].text)
    for option, value in search.command_options("run").items():
        assert words[words.index(option) + 1] == value
    assert "--engine" in words and "--workers" in words
    assert found[1].text == "nbt ui --tracking-uri 'sqlite:///my runs.db'"
    search = search.replace(tracking_uri="http://mlflow:5000")
    found = commands(replace(record, search=search), Path("r"), has_settings=False, has_model=False)
    assert found[1].text == "http://mlflow:5000", "a server has its own pages, and nbt ui rejects it"


def test_options_of_a_study_that_does_not_store_them_are_derived() -> None:
    """Studies of version 0.1 have only their configuration, budget and pruner."""
    record = with_config(sample_study(), seed=7)
    assert record.search is None
    search = record.search_config()
    assert (search.dataset, search.image_size, search.seed) == ("cub", 96, 7)
    assert (search.budget, search.pruner, search.heuristics) == (record.budget, record.pruner, False)
    assert search.study == record.config.name
    assert (search.engine, search.workers, search.storage) == ("local", 1, None)
