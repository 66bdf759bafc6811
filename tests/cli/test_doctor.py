from __future__ import annotations

import json

import pytest

from nbt.cli.app import run
from nbt.doctor import run as doctor
from nbt.doctor.diagnosis import Diagnosis

FINE = Diagnosis("Python", "ok", "3.12")
SLOW = Diagnosis("tracking", "warning", "http://me:***@host cannot be reached", "start the server")
BROKEN = Diagnosis("ray", "problem", "not installed", "pip install ray")


@pytest.mark.parametrize(("results", "code"), [([FINE, SLOW], 0), ([FINE, SLOW, BROKEN], 1)])
def test_lines_and_exit_code(
    results: list[Diagnosis], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, object] = {}
    monkeypatch.setattr(doctor, "diagnose", lambda **given: options.update(given) or iter(results))
    assert run(["doctor", "--storage", "sqlite:///s.db", "--out", "o"]) == code
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [
        "ok Python: 3.12",
        "warning tracking: http://me:***@host cannot be reached",
        "start the server",
    ]
    assert lines[3:] == (["problem ray: not installed", "pip install ray"] if code else [])
    assert options == {"storage": "sqlite:///s.db", "tracking_uri": None, "ray_address": None, "out": "o"}
    assert run(["doctor", "--json"]) == code
    document = json.loads(capsys.readouterr().out)
    assert document[1] == {
        "subject": "tracking",
        "status": "warning",
        "message": "http://me:***@host cannot be reached",
        "advice": "start the server",
    }
