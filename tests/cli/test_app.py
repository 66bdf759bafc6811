"""Exit codes, error lines, and the imports that help and wrong usage must avoid."""

from __future__ import annotations

import contextlib
import errno
import importlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from nbt.cli.app import COMMANDS, run
from nbt.errors import NbtError, UsageError
from tests.cli.fakes import FakeApi

SEARCH = ["search", "--dataset", "digits", "--budget", "3"]
WITH_DATASET = ("search", "train", "fit", "check", "pretrain", "continual")

WRONG = [
    ([], "no command"),
    (["serch"], "unknown command 'serch'; did you mean search?"),
    (["search"], "missing --dataset"),
    ([*SEARCH, "--bugdet", "3"], "unknown option --bugdet; did you mean --budget?"),
    ([*SEARCH, "surplus"], "unexpected extra argument (surplus)"),
    *(([name, "my photos"], "my photos; for a dataset, write --dataset 'my photos'") for name in WITH_DATASET),
    (["check", "two", "more"], "missing --dataset"),
    (["studies", "surplus"], "unexpected extra argument (surplus)"),
    (["search", "--dataset", "digits", "--budget", "0"], "--budget '0'"),
    (["search", "--dataset", "digits", "--budget", "soon"], "--budget 'soon'"),
    (["search", "--dataset", "digits", "--budget", "auto", "--no-heuristics"], "--budget auto needs the model"),
    (["search", "--dataset", "digits", "--budget", "auto", "--min-gain", "0"], "--min-gain: 0 is not above 0"),
    (["search", "--dataset", "digits", "--budget", "auto", "--max-budget", "few"], "--max-budget 'few'"),
    (["search", "--dataset", "digits", "--budget", "Auto", "--no-heuristics"], "--budget auto needs the model"),
    ([*SEARCH, "--max-budget", "5"], "--max-budget: only with --budget auto"),
    ([*SEARCH, "--min-gain", "0.5"], "--min-gain: only with --budget auto"),
    (
        ["search", "--dataset", "digits", "--budget", "3", "--beliefs", "[{dimension: head_lrr, around: 1}]"],
        "belief about head_lrr: unknown dimension; did you mean",
    ),
    (["search", "--dataset", "digitz", "--budget", "3"], "unknown dataset 'digitz'"),
    (["search", "--dataset", "./nowhere", "--budget", "3"], "no such folder"),
    ([*SEARCH, "--backbone", "mobilnet_v2"], "mobilenet_v2"),
    ([*SEARCH, "--space", "nonbinary"], "non_binary"),
    ([*SEARCH, "--weights", "nowhere.pth"], "nowhere.pth"),
    ([*SEARCH, "--data-dir", "nowhere"], "nowhere"),
    ([*SEARCH, "--pruner", "asah"], "--pruner: 'asah' is not a choice; did you mean asha?"),
    ([*SEARCH, "--experience", "nowhere"], "--experience nowhere: no such folder"),
    ([*SEARCH, "--experience", __file__], "not a folder; give the folder of the recorded tables"),
    ([*SEARCH, "--engine", "rey"], "--engine: 'rey' is not a choice; did you mean ray?"),
    ([*SEARCH, "--ray-address", "auto"], "--ray-address: only with --engine ray"),
    ([*SEARCH, "--engine", "ray", "--ray-address", "head"], "--ray-address head: expected auto, HOST:PORT"),
    ([*SEARCH, "--engine", "ray", "--gpus-per-trial", "much"], "--gpus-per-trial much: expected a number"),
    ([*SEARCH, "--engine", "ray", "--gpus-per-trial", "1.5"], "--gpus-per-trial 1.5: expected 0 ... 1"),
    ([*SEARCH, "--engine", "ray", "--cpus-per-trial", "0"], "--cpus-per-trial: 0 is not above 0"),
    ([*SEARCH, "--workers", "0"], "--workers: 0"),
    ([*SEARCH, "--workers", "many"], "--workers: 'many'"),
    ([*SEARCH, "--epochs", "-1"], "--epochs: -1"),
    ([*SEARCH, "--final-seeds", "0"], "--final-seeds: 0"),
    ([*SEARCH, "--final-seeds", "1"], "--final-seeds: 1 final run per recipe gives no interval"),
    ([*SEARCH, "--image-size", "3"], "--image-size 3"),
    ([*SEARCH, "--classes", "1"], "--classes 1"),
    ([*SEARCH, "--seed", "-1"], "--seed: -1"),
    ([*SEARCH, "--study", "a/b"], "study name 'a/b'"),
    ([*SEARCH, "--storage", "studies.db"], "write sqlite:///studies.db"),
    ([*SEARCH, "--out", __file__], "test_app.py is no folder"),
    ([*SEARCH, "-v", "-q"], "-v and -q"),
    (["train"], "missing --dataset"),
    (["train", "--dataset", "digits", "--settings", "nowhere.yaml"], "nowhere.yaml"),
    (["predict"], "missing MODEL_DIR"),
    (["predict", "nowhere", "image.png"], "nowhere: no such folder"),
    (["report"], "missing STUDY"),
    (["report", "../up"], "study name '../up'"),
    (["report", "s", "--out", __file__], "test_app.py is no folder"),
    (["replay", "t.parquet", "--out", f"{__file__}/deep"], "test_app.py is no folder"),
    (["record", "--dataset", "digits", "--trials", "3", "--out", f"{__file__}/t.parquet"], "test_app.py is no folder"),
    (["fit", "--dataset", "digits", "--epochs", "3"], "--epochs is an option of --recommend"),
    (["spaces", "nowhere"], "unknown search space"),
    (["ui"], "no runs have been written there yet"),
    (["ui", "--port", "0"], "--port: 0"),
    (["ui", "--host", "0.0.0.0"], "unknown option --host"),
    (["ui", "--tracking-uri", "http://server"], "open it in a browser"),
]

LIGHT = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS), ["datasets"], ["backbones"], ["spaces"]]

PROBE = """
import json, sys
from nbt.cli.app import run
heavy = ["torch", "torchvision", "ray", "mlflow", "optuna", "pandas", "sklearn", "nbt.api"]
for args in json.load(sys.stdin):
    code = run(args)
    print("PROBE", json.dumps([args, code, [name for name in heavy if name in sys.modules]]))
"""


TEXTS = [
    (name, param.opts[0], param.metavar)
    for name in COMMANDS
    for param in importlib.import_module(f"nbt.cli.{name}").command.params
    if isinstance(param, click.Option) and param.type is click.STRING and param.callback is None
]


@pytest.mark.parametrize(("command", "option", "metavar"), TEXTS)
@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_text_is_no_value_of_an_option(
    command: str, option: str, metavar: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    args = [command]
    for param in importlib.import_module(f"nbt.cli.{command}").command.params:
        if param.required and param.opts[0] != option:
            value = {"--scenario": "data", "--format": "onnx"}.get(param.opts[0], "x")
            args += [param.opts[0], value] if isinstance(param, click.Option) else [value]
    assert run([*args, option, text]) == 2
    assert capsys.readouterr().err == f"error: {option}: expected {metavar}, got an empty text\n"


@pytest.mark.parametrize(
    ("args", "name"), [(["predict", "", "a.png"], "MODEL_DIR"), (["predict", "m", "a.png", ""], "IMAGES")]
)
def test_an_empty_text_is_no_argument(args: list[str], name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(args) == 2
    assert capsys.readouterr().err == f"error: {name}: got an empty text\n"


@pytest.mark.parametrize(
    ("args", "message"), WRONG, ids=lambda value: " ".join(value) if isinstance(value, list) else ""
)
def test_wrong_usage_is_reported_in_one_line(
    args: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err
    assert not list(tmp_path.iterdir()), "something was written"


def test_help_lists_and_usage_errors_import_nothing_heavy() -> None:
    args = [*(args for args, _ in WRONG), *LIGHT]
    done = subprocess.run(
        [sys.executable, "-c", PROBE],
        input=json.dumps(args),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
    )
    entries = [
        json.loads(line.removeprefix("PROBE ")) for line in done.stdout.splitlines() if line.startswith("PROBE ")
    ]
    assert [entry[0] for entry in entries] == args
    assert {" ".join(entry[0]): entry[2] for entry in entries if entry[2]} == {}
    assert all(entry[1] == 2 for entry in entries[: len(WRONG)])
    assert all(entry[1] == 0 for entry in entries[len(WRONG) :])


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_helps(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([name, "-h"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: nbt {name}" in text
    assert "--verbose" in text
    assert "--quiet" in text
    assert ("--json" in text) == (name != "ui")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_with_a_value_shows_its_default(name: str) -> None:
    command: click.Command = importlib.import_module(f"nbt.cli.{name}").command
    for param in command.params:
        if isinstance(param, click.Option) and not (param.required or param.is_flag or param.count):
            # Here or in a configuration file; for record, without --from-studies.
            is_required = (name, param.name) in (("search", "dataset"), ("search", "budget"), ("record", "dataset"))
            assert param.show_default or is_required, param.opts


def test_short_help_is_not_truncated(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"\n  {name} " in text for name in COMMANDS)
    assert "..." not in text.partition("Commands:")[2]


def _raise(error: BaseException) -> Any:
    def raising(options: dict[str, Any]) -> None:
        raise error

    return raising


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (UsageError("wrong thing"), 2, "error: wrong thing\n"),
        (NbtError("broke\ndown"), 1, "error: broke down\n"),
        (ValueError("odd"), 1, "error: ValueError: odd (run again with -v for the traceback)\n"),
        (
            OSError(errno.ENOSPC, "No space left on device", "/out/model/README.md.1.tmp"),
            1,
            "error: /out/model: No space left on device; free some space and run the same command again\n",
        ),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "odd"),
            1,
            "error: FileNotFoundError: [Errno 2] No such file: 'odd' (run again with -v for the traceback)\n",
        ),
        (KeyboardInterrupt(), 130, "interrupted: 0 trials stored; to continue, run the same command\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException, code: int, line: str, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_api.before = _raise(error)
    assert run([*SEARCH, "-q"]) == code
    captured = capsys.readouterr()
    assert captured.err.lstrip("\n") == line
    assert captured.out == ""


def test_an_interrupt_outside_a_search(fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.before = _raise(KeyboardInterrupt())
    assert run(["studies"]) == 130
    assert capsys.readouterr().err.lstrip("\n") == "interrupted\n"


def test_an_interrupt_that_a_library_swallows_ends_the_command(
    fake_api: FakeApi, capsys: pytest.CaptureFixture[str]
) -> None:
    def swallow(options: dict[str, Any]) -> None:
        with contextlib.suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)

    fake_api.before = swallow
    assert run(["studies"]) == 130
    assert capsys.readouterr().err.lstrip("\n") == "interrupted\n"


INTERRUPTED_MODULE = """
import nbt.cli.app as app

def run(arguments):
    try:
        exec("import signal; signal.raise_signal(signal.SIGINT)")
    except KeyboardInterrupt:
        return app.INTERRUPTED

app.run = run
from nbt.cli import main
main()
"""


def test_the_exit_code_of_an_interrupt_while_a_text_is_executed(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_MODULE)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    assert subprocess.run([sys.executable, "-m", "interrupted"], env=environment, check=False).returncode == 130


SLOW_END = """
import atexit, sys, time, nbt.cli.app as app

class Slow:
    def __del__(self):
        time.sleep(30)

kept = Slow()
atexit.register(print, "exit handler")
app.run = lambda arguments: print("flushed", end=" ") or int(sys.argv[1])
from nbt.cli import main
main()
"""


def test_an_interrupted_command_runs_its_exit_handlers_but_does_not_wait_for_the_end_of_the_interpreter() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SLOW_END, "130"], capture_output=True, text=True, timeout=25, check=False
    )
    assert (done.returncode, done.stdout) == (130, "flushed exit handler\n")


DROPPED_INTERRUPT = """
import signal, sys, time, weakref

class Imported:
    pass

class Finder:  # interrupts the import of the commands where Python drops every exception, as its own import locks do
    def find_spec(self, name, path, target=None):
        if name == "nbt.cli.app":
            imported = Imported()
            reference = weakref.ref(imported, lambda reference: signal.raise_signal(signal.SIGINT))
            del imported
            time.sleep(1)

sys.meta_path.insert(0, Finder())
from nbt.cli import main
sys.argv = ["nbt", "datasets", "--json"]
main()
"""


def test_an_interrupt_while_the_commands_are_imported_is_not_lost() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", DROPPED_INTERRUPT], env=environment, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


@pytest.mark.parametrize("error", [NbtError("broke"), ValueError("odd")])
def test_v_shows_the_traceback(error: Exception, fake_api: FakeApi, capsys: pytest.CaptureFixture[str]) -> None:
    fake_api.before = _raise(error)
    assert run(["studies", "-v"]) == 1
    text = capsys.readouterr().err
    assert "Traceback (most recent call last)" in text
    assert "run again" not in text


def test_a_closed_pipe_is_not_an_error_message() -> None:
    script = "from nbt.cli import main; import sys; sys.argv = ['nbt', 'datasets', '--json']; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 1


def test_python_m_nbt_and_an_ascii_terminal() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "nbt", "predict", "größe", "x"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": "ascii"},
    )
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: gr\\xf6\\xdfe: no such folder")


def test_no_command_is_listed_twice() -> None:
    assert len(set(COMMANDS)) == len(COMMANDS)


def test_datasets_are_printed_with_the_keys_of_version_0_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["datasets", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    keys = "name title description kind classes images image_size mirror default_backbone marker fetched homepage"
    assert all(list(row) == keys.split() for row in rows)
