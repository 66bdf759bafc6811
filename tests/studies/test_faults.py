"""The campaign of faults: its parts, one try, and that every kind of bad input can be made."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from tests.tuning.fakes import FakeEngine, make_controller, open_fake_study

STUDIES = Path(__file__).resolve().parents[2] / "studies"
ONE_TRY = """
import json, signal, sys
from pathlib import Path
import nbt.api._search, nbt.cli.search
from faults.checks import check_files, check_orphans, check_output, check_state, lost_trials, state_of
from faults.search import NO_SERVER, Search

search = Search(Path(sys.argv[1]), "digits", 1, options=["--tracking-uri", NO_SERVER])
search.prepare()
process = search.run("first")
assert process.wait_for_phase("finals", 200), process.errors
process.send(signal.SIGKILL)
process.wait(200)
before = state_of(search)
resumed = search.run("resumed")
resumed.wait(200)
after = state_of(search)
problems = check_output(process, (-9,)) + check_output(resumed, (0,)) + check_orphans(search)
problems += check_state(search, after, None) + lost_trials(before, after) + check_files(search)
changed = lost_trials(before, {**after, "trials": after["trials"][1:]})
print(json.dumps({"trials": len(before["trials"]), "problems": problems, "if one were lost": changed}))
"""


@pytest.fixture
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(STUDIES))


def test_one_try(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(STUDIES), *sys.path])}
    command = [sys.executable, "-c", ONE_TRY, str(tmp_path / "campaign" / "try")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["trials"] >= 4
    assert result["problems"] == []
    assert len(result["if one were lost"]) == 1


@pytest.mark.usefixtures("studies")
def test_nothing_of_a_try_without_problems_is_left(tmp_path: Path) -> None:
    from faults.search import Search

    search = Search(tmp_path / "try-0001", "digits", 1)
    for _ in range(2):
        search.prepare()
        search.outer_logs.mkdir()  # as a full disk does
    search.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["experience"]


@pytest.mark.usefixtures("studies")
def test_differences_name_their_place() -> None:
    from faults.checks import difference

    assert difference({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.0}]}) is None
    assert difference({"a": [1, {"b": 2.0}]}, {"a": [1, {"b": 2.5}]}) == "/a/1/b: '2.0' expected, '2.5' found"
    assert difference({"a": [1, 2]}, {"a": [1]}) == "/a: 2 entries expected, 1 found"


@pytest.mark.usefixtures("studies")
def test_trials_that_ran_again_are_compared_once(tmp_path: Path) -> None:
    """A search that three equal failures have ended, and that was resumed, is equal to an undisturbed one."""
    from faults.checks import difference, lost_trials, state_of
    from faults.search import STUDY, Search

    def fail(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome | None:
        return TrialOutcome(error="PermissionError: read-only") if int(spec.key[-4:]) >= 1 else None

    def search(folder: Path, engine: FakeEngine) -> None:
        with open_fake_study(folder / "work", "4", name=STUDY) as store:
            engine.run(make_controller(store, "4"))

    search(tmp_path / "undisturbed", FakeEngine())
    with pytest.raises(NbtError, match="3 trials in a row failed"):
        search(tmp_path / "failed", FakeEngine(outcome=fail))
    failed = state_of(Search(tmp_path / "failed", "digits", 0))
    search(tmp_path / "failed", FakeEngine())
    resumed = state_of(Search(tmp_path / "failed", "digits", 0))
    assert failed is not None and resumed is not None
    assert [trial["state"] for trial in failed["trials"]] == ["complete", "failed", "failed", "failed"]
    assert difference(state_of(Search(tmp_path / "undisturbed", "digits", 0)), resumed) is None
    assert lost_trials(failed, resumed) == []
    assert len(lost_trials(failed, {**resumed, "trials": resumed["trials"][1:]})) == 1


@pytest.mark.usefixtures("studies")
def test_the_proxy_passes_on_drops_and_connects_again() -> None:
    from faults.kinds.postgresql import free_port
    from faults.proxy import start_proxy

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = free_port()
        proxy = start_proxy(port, server.getsockname()[1])
        try:
            server.settimeout(20.0)
            server.accept()[0].close()  # the probe of `start_proxy`
            for _ in range(2):
                with socket.create_connection(("127.0.0.1", port), timeout=20.0) as client:
                    accepted, _ = server.accept()
                    client.sendall(b"question")
                    assert accepted.recv(100) == b"question"
                    accepted.sendall(b"answer")
                    assert client.recv(100) == b"answer"
                    os.kill(proxy, signal.SIGUSR1)
                    assert client.recv(100) == b""
                    accepted.close()
        finally:
            os.kill(proxy, signal.SIGKILL)
            os.waitpid(proxy, 0)


@pytest.mark.usefixtures("studies")
def test_the_table_counts_tries_by_kind_and_phase_and_names_problems() -> None:
    from faults.inputs import INPUTS
    from faults.kinds import KINDS
    from faults.search import PHASES
    from faults.table import table

    assert len({kind.kind for kind in KINDS}) == len(KINDS)
    assert all(set(kind.phases) <= set(PHASES) for kind in KINDS)
    row = {"seed": 1, "try": 0, "kind": KINDS[0].kind, "phase": "trials", "workers": 1, "hit": True, "problems": []}
    missed = {**row, "hit": False, "problems": ["a | b"]}
    bad = {"seed": 1, "try": 2, "kind": INPUTS, "input": "names", "name": "x\n", "codes": [2], "problems": []}
    text = table([row, missed, bad], {KINDS[1].kind: "needs root"})
    assert f"| {KINDS[0].kind} | 2 | 1 |  |  |  | 1 |  |  |  |  | 1 |" in text
    assert f"| {KINDS[1].kind} | not possible here |" in text
    assert "| names | 1 | 2: 1 | 0 |" in text
    assert "a / b" in text
    assert "No try had a problem" in table([row], {})


@pytest.mark.usefixtures("studies")
def test_an_opening_for_writing_fails_from_a_number_on(tmp_path: Path) -> None:
    code = (
        "import errno, sys; from faults.child import fail_writing\n"
        "fail_writing(sys.argv[1], 2, errno.EIO)()\n"
        "open(sys.argv[1] + '/a', 'w').close(); open('/dev/null', 'w').close(); open(sys.argv[1] + '/a').close()\n"
        "try:\n    open(sys.argv[1] + '/b', 'w')\nexcept OSError as error:\n    print(error.errno == errno.EIO)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(STUDIES), *sys.path])}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
