"""Benchmarks in studies/ run with tiny sizes, so that they work when a machine for them is there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture(autouse=True)
def studies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the modules of studies/ importable, as for a script there."""
    monkeypatch.syspath_prepend(str(REPOSITORY / "studies"))


def test_the_gpu_benchmark_runs_without_a_gpu_ray_and_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_gpu

    for name in ("ray", "mlflow"):
        for loaded in [key for key in sys.modules if key.split(".")[0] == name]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    bench_gpu.main(["--tiny", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "bench_gpu.json").read_text())
    assert list(result) == ["facts", *bench_gpu.PARTS]
    arms = result["training"]["arms"]
    assert list(arms) == [*bench_gpu.FROZEN, *bench_gpu.LOOPS]
    assert all(arm["images_per_second"] > 0 and 0 <= arm["accuracy"] <= 1 for arm in arms.values())
    assert result["packing"]["workers"]["1"]["trials_per_minute"] > 0
    assert result["search"]["trials"] >= 1 and result["search"]["phases"]["trials"] > 0
    assert result["tests"] == {"skipped": "no GPU"}
    table = (tmp_path / "bench_gpu.md").read_text()
    assert "| training | nbt, full |" in table and "| search |" in table
    # A part that is stored is not measured again.
    monkeypatch.setattr(
        bench_gpu, "PARTS", {name: lambda *_: pytest.fail("measured again") for name in bench_gpu.PARTS}
    )
    capsys.readouterr()
    bench_gpu.main(["--tiny", "--out", str(tmp_path)])
    assert json.loads((tmp_path / "bench_gpu.json").read_text()) == result


def test_the_gpu_benchmark_says_that_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_gpu

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(SystemExit, match=r"needs a GPU.*--tiny"):
        bench_gpu.main([])


def test_the_gpu_benchmark_names_the_wheels_to_carry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import bench_gpu

    monkeypatch.setattr(bench_gpu, "missing_packages", lambda: ["optuna", "alembic"])
    bench_gpu.main(["--tiny", "--parts", "packing", "search", "tests", "--out", str(tmp_path)])
    assert "pip download --only-binary=:all: -d .whl optuna alembic" in capsys.readouterr().out
    assert "search" not in json.loads((tmp_path / "bench_gpu.json").read_text())


def test_the_scaling_benchmark_measures_every_phase_of_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import bench_scaling

    monkeypatch.setenv("NBT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bench_scaling, "IMAGE_SIZE", 28)
    points = {str(size): bench_scaling.measure_task("images", size, tmp_path) for size in (40, 80)}
    assert {"first load", "fit profile", "two epochs, full"} <= points["80"].keys()
    assert all(row["seconds"] > 0 and row["anonymous"] > 10 for row in points["80"].values())
    table = bench_scaling.to_markdown({"machine": "m", "axes": {"images": points}})
    assert "| fit profile |" in table and "| exponent |" in table


def test_exponents_are_slopes_between_the_largest_sizes() -> None:
    import bench_scaling

    points = {str(n): {"slow": {"cpu": 1e-4 * n**2}, "quick": {"cpu": 1e-9 * n}} for n in (10, 100, 1000)}
    assert bench_scaling.exponent(points, "slow") == pytest.approx(2.0)
    assert bench_scaling.exponent(points, "quick") is None


@pytest.mark.slow
def test_a_long_search_is_measured_and_continued(tmp_path: Path) -> None:
    import soak

    for trials in (20, 40):
        soak.main(["--work", str(tmp_path / "work"), "--trials", str(trials), "--every", "5", "--out", str(tmp_path)])
    result = json.loads((tmp_path / "soak.json").read_text())
    assert [row["trials"] for row in result["rows"]] == sorted(row["trials"] for row in result["rows"])
    assert len(result["rows"]) >= 6 and result["rows"][-1]["trials"] >= 38
    assert sum(result["states"].values()) >= 40 and not result["states"]["failed"]
    assert "| per 1,000 trials |" in (tmp_path / "soak.md").read_text()


def test_slopes_are_those_of_the_second_half() -> None:
    import soak

    rows = [{"trials": 1e3 * n, "files": max(n, 10) * 2.0} for n in range(1, 21)]
    mean, half = soak.slope(rows, "files")
    assert mean == pytest.approx(2.0) and half == pytest.approx(0.0, abs=1e-6)


def test_the_loop_of_a_user_learns(tmp_path: Path) -> None:
    import bench_rivals
    from generated_images import write_images

    data = write_images(tmp_path, images=48, classes=2, size=32)
    options = {"data": str(data), "weights": None, "width": 0.1, "image_size": 32, "epochs": 1, "loaders": 0}
    config = {"head_lr": 0.1, "body_lr": 0.01, "weight_decay": 1e-4, "frozen": 2}
    assert 0 <= bench_rivals.train(config, options) <= 1


@pytest.mark.slow
def test_every_arm_of_the_comparison_runs(tmp_path: Path) -> None:
    import bench_rivals
    from generated_images import write_images

    data = write_images(tmp_path, images=60, classes=2, size=32)
    words = ["--width", "0.1", "--image-size", "32", "--trials", "2", "--epochs", "1"]
    bench_rivals.main(["--data", str(data), *words, "--out", str(tmp_path)])
    result = json.loads((tmp_path / "bench_rivals.json").read_text())
    assert list(result["runs"]) == ["nbt", "optuna", "ray"]
    assert all(run["seconds"] > 0 for runs in result["runs"].values() for run in runs)
    assert str(tmp_path) not in (tmp_path / "bench_rivals.json").read_text()
    assert "| optuna |" in (tmp_path / "bench_rivals.md").read_text()
