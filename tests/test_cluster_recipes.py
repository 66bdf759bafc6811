"""The recipes of studies/cluster, as far as they can be checked without a cluster. No Ray is started."""

from __future__ import annotations

import copy
import re
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from nbt.tuning.engines.ray.options import MIN_RAY_VERSION
from tests.shell_commands import code_blocks, nbt_commands, parse

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = REPOSITORY / "studies" / "cluster"
LAUNCHER = ["cluster.yaml", "cluster-local.yaml"]


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def document(name: str, kind: str) -> dict[str, Any]:
    return next(manifest for manifest in documents(name) if manifest["kind"] == kind)


def search_script() -> str:
    script: str = document("rayjob.yaml", "ConfigMap")["data"]["search.sh"]
    return script


def shell_lines() -> dict[str, str]:
    """Returns the documented and the executed shell commands by source; the number of Slurm nodes is 2."""
    return {
        "cluster/README.md": "\n".join(code_blocks((FOLDER / "README.md").read_text())),
        "search.slurm": (FOLDER / "search.slurm").read_text().replace("$SLURM_JOB_NUM_NODES", "2"),
        "rayjob.yaml": search_script(),
    }


@pytest.mark.parametrize("source", ["cluster/README.md", "search.slurm", "rayjob.yaml"])
def test_every_nbt_command_parses(source: str) -> None:
    commands = list(nbt_commands(shell_lines()[source]))
    assert any(words[0] == "search" for words in commands)
    for words in commands:
        parse(words)


def test_wrong_option_is_detected() -> None:
    line = "ray exec cluster.yaml 'cd x; nbt search --dataset a --budget 3 --ray-adress auto; nbt studies'"
    wrong, right = nbt_commands(line)
    with pytest.raises(click.NoSuchOption):
        parse(wrong)
    parse(right)


@pytest.mark.parametrize("source", ["search.slurm", "rayjob.yaml"])
def test_searches_of_the_recipes_use_the_cluster(source: str) -> None:
    (words,) = nbt_commands(shell_lines()[source])
    options = parse(words).params
    assert options["engine"] == "ray"
    assert options["ray_address"] is not None


@pytest.mark.parametrize("name", LAUNCHER)
def test_launcher_accepts_the_configuration(name: str) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents(name)
    validate_config(prepare_config(copy.deepcopy(config)))
    with pytest.raises(Exception, match="idle_timeout"):
        validate_config(prepare_config({**copy.deepcopy(config), "idle_timeout": 3}))


def test_head_runs_no_trial() -> None:
    (config,) = documents("cluster.yaml")
    head = config["available_node_types"][config["head_node_type"]]
    assert head["resources"]["CPU"] == 0
    assert "InstanceMarketOptions" not in head["node_config"]
    spec = document("rayjob.yaml", "RayJob")["spec"]["rayClusterSpec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("name", LAUNCHER)
def test_every_node_of_the_launcher_requires_the_token(name: str) -> None:
    (config,) = documents(name)
    starts = [
        command
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for command in config[key]
        if "ray start" in command
    ]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert any("RAY_AUTH_TOKEN_PATH=$HOME/nbt-cluster/auth_token" in command for command in config["setup_commands"])
    assert list(config["file_mounts"]) == ["~/nbt-cluster"]


def test_other_recipes_require_the_token() -> None:
    assert "export RAY_AUTH_MODE=token\n" in (FOLDER / "search.slurm").read_text()
    job = document("rayjob.yaml", "RayJob")["spec"]
    assert job["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_no_dashboard_is_public() -> None:
    for path in FOLDER.iterdir():
        text = path.read_text()
        assert "0.0.0.0" not in text
        assert set(re.findall(r"dashboard-host[=:\s]+(\S+)", text)) <= {"127.0.0.1"}
    for name in LAUNCHER:
        assert "--dashboard-host=127.0.0.1" in (FOLDER / name).read_text()
    assert "--include-dashboard=false" in (FOLDER / "search.slurm").read_text()
    head = document("rayjob.yaml", "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress")


def test_pods_accept_no_other_traffic() -> None:
    labels = {"app": "nbt-search"}
    policy = document("rayjob.yaml", "NetworkPolicy")["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert all(rule["from"] for rule in policy["ingress"])
    spec = document("rayjob.yaml", "RayJob")["spec"]
    cluster = spec["rayClusterSpec"]
    pods = [spec["submitterPodTemplate"], cluster["headGroupSpec"]["template"]]
    pods += [group["template"] for group in cluster["workerGroupSpecs"]]
    assert all(pod["metadata"]["labels"] == labels for pod in pods)


def test_all_recipes_use_one_ray_version() -> None:
    bound = re.search(r'"ray\[tune\]>=([\d.]+),<2.61"', (REPOSITORY / "pyproject.toml").read_text())
    assert bound is not None
    assert tuple(map(int, bound[1].split("."))) == MIN_RAY_VERSION
    pattern = re.compile(r"rayproject/ray:([\d.]+)-|ray\[[a-z,]+\]==([\d.]+)|:ray-([\d.]+)\b|rayVersion: \"([\d.]+)\"")
    for name in (*LAUNCHER, "rayjob.yaml", "rayjob-data.yaml", "Dockerfile"):
        versions = {next(filter(None, groups)).strip(".") for groups in pattern.findall((FOLDER / name).read_text())}
        assert versions == {f"{bound[1]}.0"}, name


def test_job_refers_to_existing_objects() -> None:
    kinds = {
        (manifest["kind"], manifest["metadata"]["name"])
        for name in ("rayjob", "rayjob-data")
        for manifest in documents(f"{name}.yaml")
    }
    pod = document("rayjob.yaml", "RayJob")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert ("PersistentVolumeClaim", volumes["data"]["persistentVolumeClaim"]["claimName"]) in kinds
    assert ("ConfigMap", volumes["search"]["configMap"]["name"]) in kinds
    (container,) = pod["containers"]
    assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
    secret = container["envFrom"][0]["secretRef"]["name"]
    creation = (FOLDER / "README.md").read_text().split(f"create secret generic {secret}")[1].split("```")[0]
    for variable in set(re.findall(r"\$(NBT_\w+)", search_script())):
        assert f"{variable}=" in creation


def test_scripts_have_valid_bash_syntax() -> None:
    scripts = [(FOLDER / "search.slurm").read_text(), search_script()]
    for name in LAUNCHER:
        (config,) = documents(name)
        scripts += [line for key, lines in config.items() if key.endswith("commands") for line in lines]
    for script in scripts:
        result = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_no_recipe_contains_a_secret() -> None:
    for path in FOLDER.iterdir():
        assert not re.search(r"://[^/@\s:]+:[^/@\s]+@", path.read_text()), path.name


def test_readme_names_every_file() -> None:
    text = (FOLDER / "README.md").read_text()
    assert [path.name for path in FOLDER.iterdir() if path.name != "README.md" and f"({path.name})" not in text] == []
