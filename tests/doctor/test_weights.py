from __future__ import annotations

from pathlib import Path

import pytest

from nbt.doctor import weights
from nbt.doctor.weights import check_weights


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "find_spec", lambda name: None)


def test_cached_weights_are_named_where_no_server_answers(tmp_path: Path) -> None:
    folder = tmp_path / "hub" / "checkpoints"
    [none] = check_weights(lambda host, port, timeout: "no route")
    assert none.status == "warning"
    assert none.message == f"download.pytorch.org cannot be reached (no route); none cached in {folder}"
    folder.mkdir(parents=True)
    for name in ("a", "b", "c", "d", "e"):
        (folder / f"{name}.pth").write_bytes(bytes(2**20))
    [some] = check_weights(lambda host, port, timeout: "no route")
    assert f"cached in {folder}: a, b, c, d and 1 more (5 MiB)" in some.message
    [online] = check_weights(lambda host, port, timeout: "")
    assert (online.status, online.advice) == ("ok", "")


def test_timm_is_checked_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "find_spec", lambda name: object())
    hosts = []
    results = list(check_weights(lambda host, port, timeout: hosts.append(host) or ""))
    assert hosts == ["download.pytorch.org", "huggingface.co"]
    assert [result.subject for result in results] == ["torchvision weights", "timm weights"]


def test_the_folder_is_that_of_torch() -> None:
    import torch

    assert weights.torch_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"
