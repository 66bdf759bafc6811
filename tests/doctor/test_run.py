from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nbt.doctor import run
from nbt.doctor.run import diagnose


def test_an_error_in_a_check_is_a_problem_and_ends_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)

    def broken() -> None:
        raise RuntimeError("unexpected")

    monkeypatch.setattr(run, "check_machine", broken)
    monkeypatch.setattr(run, "check_weights", lambda: iter(()))
    results = {result.subject: result for result in diagnose()}
    assert results["machine"].status == "problem"
    assert "RuntimeError: unexpected" in results["machine"].message
    assert {"Python", "cache", "Ray"} <= results.keys()


def test_nothing_heavy_is_imported() -> None:
    heavy = "torch optuna ray mlflow pandas matplotlib sklearn"
    code = (
        "import sys; import nbt.doctor.run as r; r.check_weights = lambda: iter(()); r.check_gpus = lambda: iter(());"
        f"list(r.diagnose()); print([name for name in '{heavy}'.split() if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
