from __future__ import annotations

from pathlib import Path

from tests.data.checks.checked import check_results, failed_codes
from tests.data.pictures import save_classes


def test_a_ratio_beyond_3(tmp_path: Path) -> None:
    save_classes(tmp_path, {"a": 50, "b": 5, "c": 10, "d": 40})
    assert failed_codes(tmp_path) == {"NBT106"}
    result = check_results(tmp_path)["NBT106"]
    assert (result.severity, result.count, result.examples) == ("warning", 2, ("b: 4", "c: 8"))
    assert result.message == "Class a has 40 training and validation images, class b 4: 10.0 to 1."


def test_a_ratio_of_3_passes(tmp_path: Path) -> None:
    assert failed_codes(save_classes(tmp_path, {"a": 30, "b": 10})) == set()
