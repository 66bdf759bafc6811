"""The arguments that each command passes to `nbt.api`, and its output."""

from __future__ import annotations

import dataclasses
import json
import logging
import socket
import sys
import webbrowser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from nbt import search_config
from nbt.cli.app import run
from nbt.cli.display.output import percent, to_strict
from nbt.cli.options import from_search_config
from nbt.errors import NbtError, UsageError
from nbt.report.comparison.content import compare_studies
from nbt.report.formatting import duration
from nbt.report.metric_text import interval_text
from nbt.search_config import SearchConfig
from nbt.settings.belief import BeliefError
from nbt.training.results import EpochResult
from nbt.tuning.intervals import Interval
from nbt.tuning.source_accuracies import SourceAccuracies
from nbt.tuning.storage import records
from nbt.tuning.tuned_recipes import TUNED_DEFAULT, tuned_default
from tests.cli.fakes import RECOMMENDED, FakeApi, make_record
from tests.data.pictures import save_classes
from tests.report.comparison.comparisons import study
from tests.sample_study import interrupted, spread_study

SEARCH = ["search", "--dataset", "digits", "--budget", "3"]


def load_strictly(text: str) -> Any:
    def refuse(constant: str) -> NoReturn:
        raise AssertionError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


class TestSearch:
    def test_passes_its_options_on(self, fake_api: FakeApi) -> None:
        args = "--backbone conv4 --space binary --workers 2 --epochs 7 --image-size 32 --classes 3 --shots 9 --study s"
        more = "--storage sqlite:///s.db --tracking-uri sqlite:///m.db --pruner none --seed 4 --final-seeds 2 --out o"
        guided = "--no-heuristics --experience . --teacher conv3 --scenario class --tasks 3"
        assert run([*SEARCH, *args.split(), *more.split(), *guided.split(), "--fresh", "-q"]) == 0
        [(name, (config,), options)] = fake_api.calls
        assert name == "search"
        observer = options.pop("observers")[0]
        assert options == {"progress": observer.update}
        assert config.to_dict() == {
            "dataset": "digits",
            "backbone": "conv4",
            "image_size": 32,
            "classes": 3,
            "shots": 9,
            "teacher": "conv3",
            "budget": "3",
            "space": "binary",
            "workers": 2,
            "epochs": 7,
            "study": "s",
            "storage": "sqlite:///s.db",
            "tracking_uri": "sqlite:///m.db",
            "pruner": "none",
            "heuristics": False,
            "experience": ".",
            "seed": 4,
            "final_seeds": 2,
            "scenario": "class",
            "tasks": 3,
            "out": "o",
            "fresh": True,
        }

    def test_backbones_are_repeated_or_listed_in_a_file(self, fake_api: FakeApi, tmp_path: Path) -> None:
        (tmp_path / "w.pth").touch()
        weights = str(tmp_path / "w.pth")
        listed = [{"name": "conv3"}, {"name": "conv4", "weights": weights}]
        repeated = ["--backbone", "conv3", "--weights", "default", "--backbone", "conv4", "--weights", weights]
        file = tmp_path / "list.yaml"
        file.write_text("- conv3\n- {name: conv4, weights: w.pth}\n")
        for words in (repeated, ["--backbones", str(file)], ["--backbones", json.dumps(listed)]):
            assert run([*SEARCH, *words, "-q"]) == 0
            config = fake_api.calls[-1][1][0]
            assert json.loads(config.backbones) == listed
            assert (config.backbone, config.weights) == (None, "default")
        config_file = tmp_path / "search.yaml"
        config_file.write_text(f"backbones: {file}\n")
        assert run([*SEARCH, "--config", str(config_file), "-q"]) == 0
        assert json.loads(fake_api.calls[-1][1][0].backbones) == listed
        assert run([*SEARCH, "--config", str(config_file), "--backbone", "conv3", "-q"]) == 0
        assert fake_api.calls[-1][1][0].to_dict() == {"dataset": "digits", "budget": "3", "backbone": "conv3"}
        assert run([*SEARCH, "--backbone", "conv3", "--weights", "none", "-q"]) == 0
        assert fake_api.calls[-1][1][0].weights == "none"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--backbone conv3 --backbone conv4 --weights none --weights none --weights none", "--weights is given 3"),
            ("--weights none --weights default", "--weights is given 2 times for 1 --backbone"),
            ("--backbone conv3 --backbone conv4 --backbones [conv3]", "leave out --backbone"),
            ("--backbone conv3 --backbones [conv3,conv4]", "--backbone: --backbones lists backbones"),
            ("--backbone conv3 --backbone conv5", "did you mean conv"),
            ("--backbones [conv3,{nam:conv4}]", "unknown key"),
            ("--backbones none.yaml", "none.yaml: cannot be read"),
            ("--backbones list.yaml", "list.yaml, line 3: unknown backbone 'conv5'; did you mean conv"),
            ("--config c.yaml", "c.yaml, line 2: list.yaml, line 3: unknown backbone 'conv5'"),
        ],
    )
    def test_wrong_backbones_are_refused(
        self, words: str, message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("list.yaml").write_text("- conv3\n- weights: none\n  name: conv5\n")
        Path("c.yaml").write_text("epochs: 3\nbackbones: list.yaml\n")
        assert run([*SEARCH, *words.split()]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
        assert fake_api.calls == []

    def test_weights_of_one_of_several_backbones_may_be_missing(self, fake_api: FakeApi) -> None:
        words = "--backbone conv3 --backbone conv4 --weights none --weights none.pth"
        assert run([*SEARCH, *words.split(), "-q"]) == 0
        assert "none.pth" in fake_api.calls[-1][1][0].backbones

    def test_ignored_checks_are_checked_first(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([*SEARCH, "--ignore", "nbt203", "--ignore", "NBT207,NBT201", "-q"]) == 0
        assert fake_api.calls[0][1][0].ignore == "NBT203,NBT207,NBT201"
        fake_api.calls.clear()
        assert run([*SEARCH, "--ignore", "NBT213"]) == 2
        assert "ignore 'NBT213': no check has this code; did you mean NBT203" in capsys.readouterr().err
        assert not fake_api.calls

    def test_passes_the_options_of_a_cluster_on(self, fake_api: FakeApi) -> None:
        args = "--engine ray --ray-address head:6379 --gpus-per-trial 0.25 --cpus-per-trial 2"
        assert run([*SEARCH, *args.split(), "-q"]) == 0
        assert run([*SEARCH, "--engine", "ray", "--gpus-per-trial", "auto", "-q"]) == 0
        first, second = (config for _, (config,), _ in fake_api.calls)
        assert (first.engine, second.engine) == ("ray", "ray")
        assert (first.ray_address, first.cpus_per_trial) == ("head:6379", 2.0)
        assert (first.gpus_per_trial, second.gpus_per_trial) == (0.25, "auto")

    def test_options_of_the_command_line_override_those_of_the_file(
        self, fake_api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        file = tmp_path / "search.yaml"
        file.write_text("dataset: digits\nbudget: 3\nepochs: 7\nworkers: 2\nheuristics: false\n")
        assert run(["search", "--config", str(file), "-q"]) == 0
        assert run(["search", "--config", str(file), "--epochs", "12", "--budget", "2h", "-q"]) == 0
        first, second = (config.to_dict() for _, (config,), _ in fake_api.calls)
        assert first == {"dataset": "digits", "budget": "3", "workers": 2, "epochs": 7, "heuristics": False}
        assert second == {"dataset": "digits", "budget": "2h", "workers": 2, "epochs": 12, "heuristics": False}
        file.write_text("dataset: digits\nbudgit: 3\n")
        assert run(["search", "--config", str(file)]) == 2
        assert "search.yaml, line 2: unknown option 'budgit'; did you mean budget" in capsys.readouterr().err
        file.write_text("dataset: digits\n")
        assert run(["search", "--config", str(file)]) == 2
        assert "missing --budget; see nbt search --help" in capsys.readouterr().err

    @pytest.mark.parametrize(
        ("wrong", "right", "message"),
        [
            ("final_seeds: 1", "", "final_seeds: 1 final run per recipe gives no interval"),
            ("gpus_per_trial: 2", "", "gpus_per_trial 2: expected 0 ... 1"),
            ("dataset: nowhere", "--dataset digits", "unknown dataset 'nowhere'"),
            ("backbone: conv9", "--backbone conv3", "unknown backbone 'conv9'; did you mean conv"),
            ("backbone: conv9", "--backbones [conv3,conv4]", "unknown backbone 'conv9'"),
            ("weights: missing.pth", "--weights none", "--weights missing.pth: no such file"),
            ("teacher: conv9", "--teacher conv4=w.pth", "unknown backbone 'conv9'"),
            ("space: binry", "--space binary", "unknown search space 'binry'; did you mean binary"),
            ("study: a/b", "--study a-b", "study name 'a/b': use at most 120 letters"),
            ("experience: nowhere", "--experience .", "--experience nowhere: no such folder"),
            ("ignore: [NBT999]", "--ignore NBT203", "ignore 'NBT999': no check has this code"),
        ],
    )
    def test_wrong_values_of_the_file_name_its_line_unless_they_are_overridden(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str], wrong: str, right: str, message: str
    ) -> None:
        Path("w.pth").touch()
        Path("c.yaml").write_text(f"budget: 3\nepochs: 2\n{wrong}\n")
        others = [] if wrong.startswith("dataset") else ["--dataset", "digits"]
        assert run(["search", *others, "--config", "c.yaml"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: c.yaml, line 3: {message}") and error.count("\n") == 1
        assert fake_api.calls == []
        if right:
            assert run(["search", *others, "--config", "c.yaml", *right.split(), "-q"]) == 0

    def test_errors_of_beliefs_name_the_line_of_the_file(
        self, fake_api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also those that only the space, or the space that applies to the images, shows."""
        file = tmp_path / "search.yaml"
        file.write_text("dataset: digits\nbudget: 3\nbeliefs:\n- dimension: head_lr\n  around: 900\n")
        assert run(["search", "--config", str(file), "-q"]) == 2
        assert "search.yaml, line 4: belief about head_lr: 900 is outside its range" in capsys.readouterr().err
        file.write_text("dataset: digits\nbudget: 3\nbeliefs:\n- dimension: head_lr\n  around: 0.1\n")

        def fail(options: Mapping[str, Any]) -> None:
            raise BeliefError("head_lr", "not here")

        fake_api.before = fail
        assert run(["search", "--config", str(file), "-q"]) == 2
        assert "search.yaml, line 4: belief about head_lr: not here" in capsys.readouterr().err
        beliefs = "[{dimension: head_lr, around: 900}]"
        assert run([*SEARCH, "--beliefs", beliefs, "-q"]) == 2
        assert "error: belief about head_lr: 900 is outside" in capsys.readouterr().err

    def test_an_option_that_is_declared_is_everywhere(
        self, fake_api: FakeApi, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
    ) -> None:
        """One more field of `SearchConfig` is an option of the command, a key of files, and part of the record."""

        @dataclasses.dataclass(frozen=True, kw_only=True)
        class LargerConfig(search_config.SearchConfig):
            patience: int = search_config._option(
                3, kind="whole", role="search", metavar="N", help="Proposals without a gain before the search ends."
            )

        for module in (search_config, from_search_config, records):
            monkeypatch.setattr(module, "SearchConfig", LargerConfig)
        monkeypatch.delitem(sys.modules, "nbt.cli.search", raising=False)
        assert run(["search", "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "--patience N Proposals without a gain before the search ends. [default: 3; x>=1]" in text
        (tmp_path / "s.yaml").write_text("dataset: digits\nbudget: 3\npatience: 9\n")
        assert run(["search", "--config", str(tmp_path / "s.yaml"), "-q"]) == 0
        assert run([*SEARCH, "--patience", "4", "-q"]) == 0
        first, second = (found for _, (found,), _ in fake_api.calls)
        assert (first.patience, second.patience) == (9, 4)
        assert second.command() == "nbt search --dataset digits --budget 3 --patience 4"
        assert second.to_record()["patience"] == 4

    def test_prints_result_files_and_next_step(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        fake_api.results["search"].report_path = Path.cwd() / "reports/birds/report.html"
        assert run([*SEARCH, "-q"]) == 0
        captured = capsys.readouterr()
        lines = [" ".join(line.split()) for line in captured.out.splitlines()]
        assert captured.err == ""
        assert lines == [
            "birds, final runs on validation images: It is better than the default recipe",
            "test accuracy 79.0 % [73.0, 84.0] 200 images",
            "default recipe 76.0 % [70.0, 82.0] the same images",
            "validation 81.0 % [80.0, 82.0] 5 runs; minus test +2.0 [-3.1, +8.1]",
            "settings trial 1: depth 1.00 frozen 0.50 lr 0.01",
            "cost 1 min 15 s, 4.5 of the budget of 5, 3 trials (2 complete, 1 pruned)",
            "report reports/birds/report.html",
            "next nbt predict reports/birds/model IMAGES...",
        ]

    def test_the_validation_is_shown_in_the_metric_of_the_study(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = fake_api.results["search"]
        config = dataclasses.replace(result.record.config, metric="log_loss")
        result.record = dataclasses.replace(result.record, config=config)
        assert run([*SEARCH, "-q"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "validation 0.211 nats [0.198, 0.223]" in text, "of scores .81, .82 and .80"

    @pytest.mark.parametrize(
        ("error", "code", "message"),
        [
            (KeyboardInterrupt(), 130, "interrupted: 0 trials stored; to continue, run the same command{}\n"),
            (NbtError("3 in a row failed"), 1, "error: 3 in a row failed; to continue, run the same command{}\n"),
        ],
    )
    def test_the_hint_of_a_fresh_study_names_the_study(
        self,
        error: BaseException,
        code: int,
        message: str,
        fake_api: FakeApi,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        def begin(options: dict[str, Any]) -> NoReturn:
            options["observers"][0].study_started(make_record())
            raise error

        fake_api.before = begin
        assert run([*SEARCH, "--fresh", "-q"]) == code
        assert capsys.readouterr().err.lstrip("\n") == message.format(" with --study birds instead of --fresh")
        assert run([*SEARCH, "-q"]) == code
        without_hint = message.replace("failed; to continue, run the same command", "failed").format("")
        assert capsys.readouterr().err.lstrip("\n") == without_hint

    def test_an_error_of_usage_has_no_hint_to_continue(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def refuse(options: dict[str, Any]) -> NoReturn:
            options["observers"][0].study_started(make_record())
            raise UsageError("wrong thing")

        fake_api.before = refuse
        assert run([*SEARCH, "--fresh", "-q"]) == 2
        assert capsys.readouterr().err == "error: wrong thing\n"

    def test_prints_the_hardware_if_the_trials_ran_in_several_locations(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake_api.results["search"].record = spread_study()
        assert run([*SEARCH, "-q"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        assert (
            "cost 10 min 12 s on 3 GPUs of 2 nodes, 10.8 of the budget of 14, " in text
            and "; 2 workers lost report" in text
        )

    def test_prints_the_number_of_interrupted_trials_if_there_are_any(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        record = fake_api.results["search"].record
        fake_api.results["search"].record = replace(record, trials=(*record.trials, interrupted(3)))
        assert run([*SEARCH, "-q"]) == 0
        assert "4 trials (2 complete, 1 pruned, 1 interrupted)" in capsys.readouterr().out

    def test_json_is_one_strict_document_alone_on_stdout(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        fake_api.before = lambda options: logging.getLogger("nbt").warning("careful")
        assert run([*SEARCH, "--json"]) == 0
        captured = capsys.readouterr()
        assert load_strictly(captured.out) == {"study": "birds", "loss": None, "report": "reports/birds/report.html"}
        assert "warning: careful" in captured.err


class TestTrain:
    def test_passes_settings_and_options_on(
        self, fake_api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("r.yaml").write_text(RECOMMENDED.to_yaml())
        args = "train --dataset digits --settings r.yaml --seeds 3 --seed 5 --export m -q"
        assert run(args.split()) == 0
        [(name, arguments, options)] = fake_api.calls
        assert (name, arguments) == ("train", ("digits", RECOMMENDED))
        assert options["export"] == Path("m")
        assert (options["seeds"], options["seed"]) == (3, 5)
        text = " ".join(capsys.readouterr().out.split())
        assert "validation 80.0 % [70.0, 90.0] 3 seeds" in text
        assert "test accuracy 79.0 % [73.0, 84.0] 200 images" in text
        assert text.endswith("model m next nbt predict m IMAGES...")

    def test_the_other_metrics_of_the_test_images_have_one_line(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        result = fake_api.results["train"]
        others = {"macro_f1": Interval(mean=0.61, low=0.5, high=0.7, n=200)}
        others["log_loss"] = Interval(mean=0.5, low=0.4, high=0.6, n=200)
        result.result = dataclasses.replace(result.result, metrics={**result.result.metrics, **others})
        Path("r.yaml").write_text(RECOMMENDED.to_yaml())
        assert run(["train", "--dataset", "digits", "--settings", "r.yaml", "-q"]) == 0
        lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == "test accuracy 79.0 % [73.0, 84.0] 200 images"
        assert lines[-1] == "other metrics macro F1 61.0 %, log loss 0.500 nats"

    def test_the_source_accuracy_has_one_line(
        self, fake_api: FakeApi, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        save_classes(tmp_path / "birds", {"jay": 1, "crane": 1})
        fake_api.results["train"].source = SourceAccuracies(reference=0.5857, recommended=0.314, images=200)
        assert run(["train", "--dataset", "digits", "--source-data", "birds", "-q"]) == 0
        assert fake_api.calls[0][2]["source_data"] == "birds"
        text = " ".join(capsys.readouterr().out.split())
        assert "source accuracy 31.4 % [25.4, 38.1] 200 images of the source; pretrained weights 58.6 %" in text
        for args, message in ((["nowhere"], "no such folder"), (["birds", "--export", "birds/jay/m"], "is inside")):
            assert run(["train", "--dataset", "digits", "--source-data", *args]) == 2
            assert message in capsys.readouterr().err

    def test_a_study_gives_settings_dataset_and_backbone(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        config = SearchConfig(dataset="digits", backbone="conv3", image_size=28, shots=9, resize="pad", seed=4)
        fake_api.results["study_recipe"] = RECOMMENDED, config
        assert run(["train", "--study", "s", "--storage", "sqlite:///s.db", "--seed", "7"]) == 0
        assert run(["train", "--study", "s", "--dataset", "cifar10", "--data-dir", ".", "--backbone", "conv4"]) == 0
        assert fake_api.calls[0] == ("study_recipe", ("s", "sqlite:///s.db"), {})
        (_, first, options), (_, second, others) = fake_api.calls[1], fake_api.calls[3]
        assert (first, second) == (("digits", RECOMMENDED), ("cifar10", RECOMMENDED))
        names = ("backbone", "image_size", "shots", "resize", "seed")
        assert [options[name] for name in names] == ["conv3", 28, 9, "pad", 7]
        assert [others[name] for name in names] == ["conv4", None, None, "pad", 4], "shots of another dataset"
        assert "training with the recommended settings of study s\n" in capsys.readouterr().err

    def test_without_settings_the_tuned_default_is_trained_and_named(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run(["train", "--dataset", "digits"]) == 0
        [(_, arguments, _)] = fake_api.calls
        assert arguments == ("digits", tuned_default())
        assert f"training with the recipe {TUNED_DEFAULT} for 24 epochs, " in capsys.readouterr().err
        assert run(["train"]) == 2
        assert run(["train", "--dataset", "digits", "--storage", "sqlite:///s.db"]) == 2
        assert len(fake_api.calls) == 1

    @pytest.mark.parametrize(
        ("text", "origin"),
        [("{}", "the default recipe, plain fine-tuning, from"), ("body_lr: 0.02", "the settings of")],
    )
    def test_the_recipe_of_a_file_is_named(
        self, text: str, origin: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("r.yaml").write_text(text)
        assert run(["train", "--dataset", "digits", "--settings", "r.yaml"]) == 0
        assert f"training with {origin} r.yaml\n" in capsys.readouterr().err

    def test_settings_of_another_backbone_name_their_file(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("r.yaml").write_text("backbone: conv4, w.pth\n")
        assert run(["train", "--dataset", "digits", "--backbone", "conv3", "--settings", "r.yaml"]) == 2
        error = capsys.readouterr().err
        assert error.startswith(
            "error: r.yaml: backbone: these settings were found for conv4, w.pth, but the task has conv3;"
        )
        assert "remove the setting backbone" in error
        assert not fake_api.calls

    def test_wrong_settings_are_wrong_usage(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        Path("r.yaml").write_text("head_rl: 0.1\n")
        assert run(["train", "--dataset", "digits", "--settings", "r.yaml"]) == 2
        assert "unknown setting 'head_rl'; did you mean head_lr" in capsys.readouterr().err
        assert not fake_api.calls

    @pytest.mark.parametrize("export", [".", "models", "../x", "notes.txt"])
    def test_an_export_must_not_replace_other_files(
        self, export: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for folder in ("x", "x/models"):
            Path(folder).mkdir()
            Path(folder, "notes.txt").write_text("mine")
        monkeypatch.chdir("x")
        Path("r.yaml").write_text(RECOMMENDED.to_yaml())
        args = ["train", "--dataset", "digits", "--settings", "r.yaml", "--export"]
        assert run([*args, export]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"error: --export {export}: ") and "notes.txt" in message
        assert not fake_api.calls
        assert Path("models/notes.txt").read_text() == "mine"
        assert run([*args, "models/new", "-q"]) == 0

    @pytest.mark.parametrize(
        ("recipe", "message"),
        [
            ("init: inject", "init: inject needs a teacher"),
            ("{init: inject, teacher: conv3=t.pth}", "no file t.pth"),
            ("{pretrain_zap_period: 2, epochs: 5}", "are not trained by nbt"),
        ],
    )
    def test_a_recipe_without_starting_weights_is_wrong_usage(
        self, recipe: str, message: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("r.yaml").write_text(recipe)
        assert run(["train", "--dataset", "digits", "--weights", "none", "--settings", "r.yaml"]) == 2
        assert message in capsys.readouterr().err
        assert not fake_api.calls

    def test_json(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        Path("r.yaml").write_text("epochs: 2\n")
        assert run(["train", "--dataset", "digits", "--settings", "r.yaml", "--json", "-q"]) == 0
        assert load_strictly(capsys.readouterr().out)["validation"]["mean"] == 0.8


class TestStudyCommands:
    def test_report(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["report", "birds", "--out", "o"]) == 0
        assert fake_api.calls == [("report", ("birds", None, "o"), {"ignore": None, "images": True})]
        assert capsys.readouterr().out == "reports/birds/report.html\n"
        assert run(["report", "birds", "--json"]) == 0
        assert load_strictly(capsys.readouterr().out) == {"study": "birds", "report": "reports/birds/report.html"}

    def test_report_ignores_checks(self, fake_api: FakeApi) -> None:
        assert run(["report", "birds", "--ignore", "NBT203,NBT207", "--ignore", "nbt201"]) == 0
        assert fake_api.calls[0][2] == {"ignore": ("NBT203,NBT207", "nbt201"), "images": True}

    def test_report_of_several_studies_compares_them(
        self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        comparison = compare_studies([study("a"), study("b", 0.79)])
        fake_api.results["compare"] = comparison, Path("reports/a+b/report.html")
        assert run(["report", "a", "b", "--out", "o"]) == 0
        assert fake_api.calls == [("compare", (("a", "b"), None, "o"), {})]
        assert capsys.readouterr().out.splitlines() == [*comparison.sentences, "reports/a+b/report.html"]
        assert run(["report", "a", "b", "--json"]) == 0
        found = load_strictly(capsys.readouterr().out)
        assert found["studies"][1]["difference"]["mean"] == pytest.approx(0.095, abs=1e-3)
        assert found["report"] == "reports/a+b/report.html"
        for option in (["--no-images"], ["--ignore", "NBT203"]):
            assert run(["report", "a", "b", *option]) == 2
            assert "a comparison has neither checks nor images" in capsys.readouterr().err

    def test_sync(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["sync", "birds", "--storage", "sqlite:///s.db", "--tracking-uri", "u"]) == 0
        assert fake_api.calls == [("sync", ("birds", "sqlite:///s.db", "u", "reports"), {})]
        assert capsys.readouterr().out == "birds: 3 written, 2 kept\n"
        assert run(["sync", "birds", "--json"]) == 0
        assert load_strictly(capsys.readouterr().out) == {"written": 3, "kept": 2}
        assert run(["sync", "birds", "--out", "o", "-q"]) == 0
        assert fake_api.calls[-1] == ("sync", ("birds", None, None, "o"), {})

    def test_studies(self, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["studies"]) == 0
        header, row = (" ".join(line.split()) for line in capsys.readouterr().out.splitlines())
        assert header == "study dataset backbone trials best when state"
        assert row.startswith("birds b conv3 3 80.0 % ") and row.endswith(" finished")
        assert run(["studies", "--json"]) == 0
        [study] = load_strictly(capsys.readouterr().out)
        assert study["best"] == 0.8
        assert study["created"].startswith("2030-01-02T")
        fake_api.results["studies"] = []
        assert run(["studies"]) == 0
        assert "no studies yet" in capsys.readouterr().out


class TestLists:
    def test_datasets(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["datasets"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[1].split()[:3] == ["digits", "5", "896"]
        assert run(["datasets", "--json"]) == 0
        names = [entry["name"] for entry in load_strictly(capsys.readouterr().out)]
        assert {"digits", "cub", "omniglot"} <= set(names)

    def test_backbones(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["backbones", "--json", "--filter", "MobileNet"]) == 0
        names = load_strictly(capsys.readouterr().out)
        assert "mobilenet_v2" in names
        assert all("mobilenet" in name for name in names)
        assert run(["backbones", "--filter", "nothing like it"]) == 0
        assert "no backbone has 'nothing like it'" in capsys.readouterr().out

    def test_spaces(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["spaces"]) == 0
        assert "non_binary" in capsys.readouterr().out
        assert run(["spaces", "non_binary"]) == 0
        assert "transfer_depth" in capsys.readouterr().out
        assert run(["spaces", "binary", "--json"]) == 0
        space = load_strictly(capsys.readouterr().out)
        assert "head_lr" in [row["dimension"] for row in space["dimensions"]]

    def test_lines_are_not_wrapped_without_a_terminal(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["datasets"]) == 0
        assert max(map(len, capsys.readouterr().out.splitlines())) > 100


class TestUi:
    def test_a_port_in_use_is_wrong_usage(self, capsys: pytest.CaptureFixture[str]) -> None:
        Path("m.db").touch()
        with socket.socket() as other:
            other.bind(("127.0.0.1", 0))
            other.listen()
            assert run(["ui", "--tracking-uri", "sqlite:///m.db", "--port", str(other.getsockname()[1])]) == 2
        assert "choose another port" in capsys.readouterr().err

    def test_a_missing_browser_is_wrong_usage(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Path("m.db").touch()

        def fail() -> NoReturn:
            raise webbrowser.Error("could not locate runnable browser")

        monkeypatch.setattr(webbrowser, "get", fail)
        assert run(["ui", "--tracking-uri", "sqlite:///m.db", "--open"]) == 2
        assert "error: --open: there is no browser here" in capsys.readouterr().err


class TestOutput:
    def test_strict_json_types(self) -> None:
        value = {
            "nan": float("nan"),
            "inf": -np.inf,
            "numpy": np.float32(0.5),
            "array": np.arange(2),
            "path": Path("a") / "b",
            "epoch": EpochResult(1, float("inf"), None, None, 0.0),
            3: (True, None),
        }
        strict = to_strict(value)
        assert load_strictly(json.dumps(strict, allow_nan=False)) == strict
        assert strict["nan"] is None
        assert strict["array"] == [0, 1]
        assert strict["epoch"]["train_loss"] is None
        assert strict["3"] == [True, None]
        with pytest.raises(TypeError, match="object has no JSON form"):
            to_strict(object())

    def test_format_of_numbers(self) -> None:
        assert percent(None) == "-"
        assert interval_text(Interval(mean=0.5, low=None, high=None, n=1)) == "50.0 %"
        assert [duration(s) for s in (0.04, 9.96, 59.7, 125, 3725)] == [
            "0.0 s",
            "10 s",
            "1 min 00 s",
            "2 min 05 s",
            "1 h 02 min",
        ]

    @pytest.mark.parametrize(
        ("option", "levels"),
        [("-q", ["error"]), ("--json", ["warning", "error"]), ("-v", ["info", "warning", "error"]), ("-vv", None)],
    )
    def test_levels_of_the_log(
        self, option: str, levels: list[str] | None, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def log_everything(options: dict[str, Any]) -> None:
            for level in ("debug", "info", "warning", "error"):
                getattr(logging.getLogger("nbt"), level)("message")

        fake_api.before = log_everything
        assert run(["studies", option]) == 0
        lines = capsys.readouterr().err.splitlines()
        assert lines == [f"{level}: message" for level in levels or ["debug", "info", "warning", "error"]]
