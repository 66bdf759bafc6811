"""`nbt continual --scenario data|task|class`: option checks, recipes, output and resumption."""

from __future__ import annotations

import json
import logging
import shlex
import signal
from pathlib import Path
from typing import Any

import pytest

from nbt import api
from nbt.cli.app import run
from nbt.cli.display.output import stdout_console
from nbt.cli.display.stream_summary import comparison_text
from nbt.cli.options.continual import parse_size, recipes_from_options, stream_settings_from_options
from nbt.display.stream_progress import StreamProgress
from nbt.errors import UsageError
from nbt.report.streams.comparison import compare_methods
from nbt.settings import TransferSettings
from nbt.settings.continual import method_overrides
from tests.sample_stream import BETTER, make_stream

TASKS = ["continual", "--scenario", "class", "--dataset", "digits"]
TINY = [*TASKS, "--backbone", "conv3(width=4)", "--weights", "none", "--shots", "12", "--tasks", "2", "--epochs", "1"]
NOWHERE = ["--tracking-uri", "http://127.0.0.1:9"]
QUIET = [*NOWHERE, "-q"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*TASKS, "--method", "dlcfd"], "did you mean dlcft"),
        ([*TASKS, "--method", "ewc", "--method", "ewc"], "ewc is given twice"),
        ([*TASKS, "--tasks", "1"], "--tasks: 1"),
        ([*TASKS, "--seeds", "0"], "--seeds: 0"),
        ([*TASKS, "--draws", "3"], "--draws is an option of --scenario stream"),
        ([*TASKS, "--protocol", "standard"], "--protocol is an option of --scenario stream"),
        ([*TASKS, "--train-layers", "head"], "--train-layers is an option of --scenario stream"),
        ([*TASKS, "--method", "ewc", "--curvature", "kfac"], "--curvature is an option of --method dlcft"),
        ([*TASKS, "--method", "joint", "--penalty", "3"], "--penalty is an option of --method dlcft, ewc"),
        ([*TASKS, "--method", "probe", "--memory", "1G"], "--memory is an option of --method dlcft, ewc"),
        ([*TASKS, "--method", "ewc", "--head", "random"], "--head is an option of --method dlcft"),
        ([*TASKS, "--method", "ewc", "--target-scale", "5"], "--target-scale is an option of"),
        ([*TASKS, "--curvature", "kfak"], "did you mean kfac"),
        ([*TASKS, "--factors", "kep"], "did you mean keep"),
        ([*TASKS, "--memory", "much"], "give a size such as 512M or 2G"),
        ([*TASKS, "--penalty", "-1"], "penalty_strength: -1.0 is outside"),
        ([*TASKS, "--lr", "0"], "--lr 0: give a rate above 0"),
        ([*TASKS, "--settings", "nowhere.yaml"], "nowhere.yaml: cannot read settings"),
        ([*TASKS, "--weights", "nowhere.pth"], "nowhere.pth: no such file"),
        ([*TASKS, "--out", __file__], "test_continual_tasks.py is no folder"),
        ([*TASKS, "--tracking-uri", "coop://x"], "neither a server nor a database"),
        ([*TASKS, "--classes", "1"], "--classes"),
        ([*TINY, "--tasks", "9"], "the dataset has 5 classes"),
        (["continual", "--scenario", "stream", "--dataset", "digits", "--tasks", "3"], "--scenario data, task, class"),
        (["continual", "--scenario", "stream", "--dataset", "digits", "--method", "ewc"], "--method is an option of"),
        (["continual", "--scenario", "stream", "--dataset", "digits", "--fresh"], "--fresh is an option of"),
    ],
)
def test_wrong_input_is_reported(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert message in captured.err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_an_exceeded_memory_bound_names_the_remedy(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run([*TINY, "--method", "joint", "--method", "dlcft", "--memory", "2k"]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert "memory 2.0 KiB" in message and "--memory with" in message
    assert list(tmp_path.iterdir()) == []


def options(**given: Any) -> dict[str, Any]:
    names = ("file", "curvature", "penalty", "target_scale", "factors", "head", "vectors", "memory")
    return {
        "scenario": "class",
        "methods": (),
        **dict.fromkeys((*names, "epochs", "batch_size", "lr")),
        **given,
    }


def plain(method: str, scenario: str = "class", **changes: Any) -> TransferSettings:
    return TransferSettings(**{**method_overrides(method, scenario), **changes})


def settings_file(settings: TransferSettings) -> str:
    Path("recipe.yaml").write_text(settings.to_yaml())
    return "recipe.yaml"


def test_without_options_a_recipe_is_that_of_its_method() -> None:
    assert recipes_from_options(options()) == {"dlcft": plain("dlcft")}
    both = recipes_from_options(options(methods=("joint", "ewc"), scenario="data"))
    assert list(both.items()) == [("joint", plain("joint")), ("ewc", plain("ewc"))]
    assert stream_settings_from_options(options()) == {}


def test_options_change_every_method_that_they_apply_to() -> None:
    given = options(methods=("dlcft", "ewc", "joint"), epochs=3, batch_size=8, curvature="diagonal", penalty=2.0)
    recipes = recipes_from_options(given)
    assert {recipe.epochs for recipe in recipes.values()} == {3}
    assert {recipe.batch_size for recipe in recipes.values()} == {8}
    assert (
        recipes["dlcft"].stream.curvature,
        recipes["dlcft"].stream.penalty_strength,
        recipes["ewc"].stream.penalty_strength,
    ) == (
        "diagonal",
        2.0,
        2.0,
    )


def test_lr_keeps_the_ratio_of_head_rate_and_body_rate() -> None:
    before, after = plain("dlcft"), recipes_from_options(options(lr=0.5))["dlcft"]
    assert after.body_lr == 0.5
    assert after.head_lr / after.body_lr == pytest.approx(before.head_lr / before.body_lr)


def test_target_scale_changes_the_methods_with_squared_error() -> None:
    recipes = recipes_from_options(options(methods=("dlcft", "joint"), target_scale=7.0))
    assert (recipes["dlcft"].target_scale, recipes["joint"].target_scale) == (7.0, 0.0)
    assert recipes_from_options(options(methods=("joint",), target_scale=7.0))["joint"].target_scale == 7.0


def test_a_file_sets_method_and_recipe_and_options_override_it() -> None:
    settings = plain("ewc", epochs=5, body_lr=0.3, penalty_strength=0.5)
    assert recipes_from_options(options(file=settings_file(settings))) == {"ewc": settings}
    named = recipes_from_options(options(file="recipe.yaml", methods=("ewc", "joint"), epochs=2))
    assert named["ewc"] == settings.replace(epochs=2)
    assert named["joint"] == settings.replace(epochs=2, method="joint")


def test_ewc_ignores_the_linearisation_of_a_file() -> None:
    recipes = recipes_from_options(
        options(file=settings_file(plain("dlcft", body_lr=0.3)), methods=("dlcft", "ewc", "joint"))
    )
    assert recipes["joint"].linearized and recipes["joint"].target_scale == 15.0
    assert not recipes["ewc"].linearized and recipes["ewc"].target_scale == 0.0
    assert recipes["ewc"].body_lr == 0.3
    api.check_streams("class", recipes)


def test_fields_of_the_stream() -> None:
    given = options(factors="merge", head="random", vectors="unit", memory="1.5G")
    assert stream_settings_from_options(given) == {
        "factors": "merge",
        "head": "random",
        "vectors": "unit",
        "memory_bytes": 3 * 2**29,
    }


@pytest.mark.parametrize(
    ("text", "size"), [("1000", 1000), ("2k", 2048), ("512M", 2**29), ("2 GiB", 2**31), ("2gb", 2**31), (".5G", None)]
)
def test_sizes(text: str, size: int | None) -> None:
    if size is None:
        with pytest.raises(UsageError, match="512M"):
            parse_size(text)
    else:
        assert parse_size(text) == size


class FakeContinual:
    """Replaces `nbt.api.continual` and records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, dataset: Any, **arguments: Any) -> api.ContinualOutcome:
        self.calls.append((dataset, arguments))
        return api.ContinualOutcome(compare_methods([make_stream()]), Path.cwd() / "reports" / "x" / "report.html")


def test_passes_everything_on(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake = FakeContinual()
    monkeypatch.setattr(api, "continual", fake)
    more = (
        "--method dlcft --method ewc --tasks 4 --seeds 3 --seed 7 --classes 5 --shots 9 --image-size 16 --out r "
        "--fresh --export m"
    )
    assert run([*TASKS, *more.split(), "--memory", "1G", *QUIET]) == 0
    [(dataset, arguments)] = fake.calls
    assert dataset == "digits"
    assert list(arguments["methods"]) == ["dlcft", "ewc"]
    expected = {"scenario": "class", "tasks": 4, "seeds": 3, "seed": 7, "classes": 5, "shots": 9, "image_size": 16}
    expected |= {"out": "r", "fresh": True, "tracking_uri": NOWHERE[1], "more": {"memory_bytes": 2**30}, "export": "m"}
    assert {name: arguments[name] for name in expected} == expected
    args = shlex.split(arguments["command"])
    assert args[:2] == ["nbt", "continual"]
    assert "--fresh" not in args and "--export" not in args and "-q" not in args and "--json" not in args
    fake.calls.clear()
    assert run(args[1:]) == 0
    [(_, again)] = fake.calls
    changed = {"fresh": False, "export": None, "out": str(Path("r").absolute())}
    assert {name: again[name] for name in expected} == {**expected, **changed}
    assert capsys.readouterr().out.count("report reports/x/report.html") == 2


def test_the_command_is_valid_in_any_folder_and_contains_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeContinual()
    monkeypatch.setattr(api, "continual", fake)
    Path("w.pth").touch()
    settings_file(plain("ewc"))
    args = [*TASKS, "--weights", "w.pth", "--settings", "recipe.yaml"]
    assert run([*args, "--tracking-uri", "postgresql://me:secret@db/runs", "-q"]) == 0
    [(_, arguments)] = fake.calls
    assert arguments["tracking_uri"] == "postgresql://me:secret@db/runs"
    here = Path.cwd()
    more = ["--weights", f"{here}/w.pth", "--settings", f"{here}/recipe.yaml"]
    more += ["--tracking-uri", "postgresql://me:***@db/runs"]
    found = shlex.split(arguments["command"])
    assert sorted(found) == sorted(["nbt", *TASKS, *more])
    assert all(found[found.index(option) + 1] == value for option, value in zip(more[::2], more[1::2], strict=True))


def test_the_command_has_the_absolute_path_of_the_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeContinual()
    monkeypatch.setattr(api, "continual", fake)
    for name in ("cats", "dogs"):
        Path("pets", name).mkdir(parents=True)
        for i in range(3):
            Path("pets", name, f"{i}.png").touch()
    assert run(["continual", "--scenario", "class", "--dataset", "pets/", *QUIET]) == 0
    [(_, arguments)] = fake.calls
    args = shlex.split(arguments["command"])
    assert args[args.index("--dataset") + 1] == str(Path("pets").absolute())


def test_a_recipe_without_starting_weights_is_rejected_before_images_are_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeContinual()
    monkeypatch.setattr(api, "continual", fake)
    settings_file(plain("ewc", init="inject"))
    assert run([*TASKS, "--settings", "recipe.yaml", *QUIET]) == 2
    assert "init: inject needs a teacher" in capsys.readouterr().err
    assert not fake.calls


def test_the_summary_of_one_method_shows_its_matrix(capsys: pytest.CaptureFixture[str]) -> None:
    stdout_console().print(*comparison_text(compare_methods([make_stream()]), Path("r/report.html")), sep="\n")
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["1", "90.0", "(30.0)", "(20.0)"] in lines
    assert ["3", "60.0", "70.0", "95.0"] in lines
    assert ["average", "accuracy", "75.0", "%", "[67.4,", "81.3]", "one", "stream,", "150", "images"] in lines
    assert lines[-1] == ["report", "r/report.html"]


def test_the_summary_of_several_methods_has_one_row_per_method(capsys: pytest.CaptureFixture[str]) -> None:
    records = [make_stream(method, matrix, scenario="class") for method, matrix in (("dlcft", BETTER), ("ewc", BETTER))]
    stdout_console().print(*comparison_text(compare_methods(records), Path("r/report.html")), sep="\n")
    text = capsys.readouterr().out
    assert "vs dlcft, points" in text
    [dlcft, ewc] = [line.split() for line in text.splitlines() if line.startswith(("dlcft", "ewc"))]
    assert dlcft[1:3] == ["90.0", "%"] and dlcft[-6:] == ["3.0", "MiB", "1", "min", "00", "s"]
    assert "+0.0" in ewc and "none" in ewc


def test_the_summary_of_long_streams_has_no_matrix() -> None:
    matrix = tuple(tuple(0.5 for _ in range(13)) for _ in range(13))
    [runs] = compare_methods([make_stream(matrix=matrix, images=(9,) * 13)]).methods
    assert len(comparison_text(compare_methods(list(runs.streams)), Path("r"))) == 3


def test_resumes_and_prints_finished_streams_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    args = [*TINY, "--method", "finetune", "--method", "dlcft", *NOWHERE]
    task_finished = StreamProgress.task_finished

    def interrupt(self: StreamProgress, config: Any, score: Any) -> None:
        task_finished(self, config, score)
        if (config.method, score.task) == ("dlcft", 1):
            signal.raise_signal(signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(StreamProgress, "task_finished", interrupt)
        assert run(args) == 130
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("interrupted: 1 of 2 streams and 1 task of digits-conv3-width-4-class-2-dlcft-seed0-")
    assert last.endswith("stored; to continue, run the same command")
    assert "dlcft: kfac curvature of" in captured.err
    logging.getLogger("nbt").handlers = []

    assert run([*args, "--json"]) == 0
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert "is already finished" in captured.err and "resumed after task 1" in captured.err
    assert (document["scenario"], [row["method"] for row in document["methods"]]) == ("class", ["finetune", "dlcft"])
    assert Path(document["report"]).is_file()

    assert run([*args, "--json", "-q"]) == 0
    assert json.loads(capsys.readouterr().out) == document


def test_a_class_stream_runs(capsys: pytest.CaptureFixture[str]) -> None:
    args = "continual --scenario stream --dataset digits --weights none --train 2 --test 2 --draws 1 --sweep-draws 1"
    assert run([*args.split(), "--backbone", "conv3(width=4)", "--lr", "0.01", "--classes", "2", "-q"]) == 0
    assert capsys.readouterr().out.startswith("continual transfer of conv3(width=4) to 2 classes of digits")


def test_wrong_usage_imports_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from nbt.cli.app import run;"
        f"assert run({[*TASKS, '--method', 'joint', '--penalty', '3']!r}) == 2;"
        "assert not {'torch', 'mlflow', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
