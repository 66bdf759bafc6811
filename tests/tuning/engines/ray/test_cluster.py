from __future__ import annotations

import os

import pytest
import ray
from ray._common.utils import get_default_system_temp_dir
from ray._private.utils import validate_socket_filepath

from nbt.errors import NbtError
from nbt.tuning.engines.ray import cluster
from nbt.tuning.engines.ray.options import RayOptions


@pytest.mark.parametrize(("length", "folder"), [(20, None), (30, None), (60, "/tmp"), (90, "/tmp")])
def test_ray_has_a_short_path_for_its_sockets(monkeypatch: pytest.MonkeyPatch, length: int, folder: str | None) -> None:
    """Ray refuses to start with a longer path; TMPDIR of a batch job is often long."""
    long = "/" + "x" * (length - 1)
    monkeypatch.setenv("TMPDIR", long)
    monkeypatch.setenv("RAY_TMPDIR", "to be restored")
    monkeypatch.delenv("RAY_TMPDIR")
    used = []

    def init(**options: object) -> None:
        used.append(get_default_system_temp_dir())
        raise OSError("no Ray in this test")

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(NbtError, match="Ray could not be started on this machine: no Ray in this test"):
        cluster.connect(RayOptions())
    assert used == [folder or long]
    session = f"{used[0]}/ray/session_2026-11-29_12-34-56_123456_{os.getpid()}"
    validate_socket_filepath(f"{session}/sockets/plasma_store")
