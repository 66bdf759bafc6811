"""Undocumented parts of Ray that nbt uses: each still exists in the installed version. No Ray is started."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import ray
from ray import tune
from ray._private import worker
from ray.train._internal import storage
from ray.tune.execution.tune_controller import TuneController
from ray.tune.experiment.trial import Trial, _TemporaryTrialState
from ray.tune.progress_reporter import TrialProgressCallback
from ray.tune.utils.object_cache import _ObjectCache

from nbt.tuning.engines.ray import tune_internals
from nbt.tuning.engines.ray.options import MIN_RAY_VERSION

PACKAGE = Path(inspect.getfile(tune_internals)).parent
REMEDY = "Ray has changed: adapt nbt/tuning/engines/ray/tune_internals.py, then run the slow tests of this folder"


def test_the_installed_version_is_the_tested_one() -> None:
    installed = tuple(int(number) for number in ray.__version__.split(".")[:2])
    assert installed == tune_internals.TESTED_VERSION, (
        "run the slow tests of this folder with this version, then set TESTED_VERSION and the bounds in pyproject.toml"
    )


def test_the_bounds_of_the_dependency_are_the_tested_versions() -> None:
    project = tomllib.loads((Path(__file__).parents[4] / "pyproject.toml").read_text())["project"]
    optional = [name for group in project["optional-dependencies"].values() for name in group]
    bounds = {name.partition("]")[2] for name in [*project["dependencies"], *optional] if name.startswith("ray[")}
    major, minor = tune_internals.TESTED_VERSION
    assert bounds == {f">={'.'.join(map(str, MIN_RAY_VERSION))},<{major}.{minor + 1}"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (worker, "print_to_stdstream"),
        (type(ray.util.client.ray), "is_connected"),
        (storage, "_get_ray_train_session_dir"),
        (TrialProgressCallback, "_print"),
        (TuneController, "get_live_trials"),
        (TuneController, "stop_trial"),
        (_ObjectCache, "increase_max"),
        (_ObjectCache, "decrease_max"),
        (Trial, "pickled_error_file"),
    ],
)
def test_a_function_exists(owner: Any, name: str) -> None:
    assert hasattr(owner, name), REMEDY


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (TuneController, "_actor_cache"),
        (TuneController, "_actor_force_cleanup_timeout"),
        (TuneController, "_started_actors"),
        (TuneController, "_trial_to_actor"),
        (Trial, "temporary_state"),
        (_TemporaryTrialState, "ray_actor"),
    ],
)
def test_an_attribute_is_set_by_the_constructor(owner: type, name: str) -> None:
    assert re.search(rf"self\.{name}(: [^=]+)? =", inspect.getsource(owner.__init__)), REMEDY  # type: ignore[misc]


def test_tune_calls_the_functions_that_are_replaced() -> None:
    assert worker.print_to_stdstream.__name__ == "log_lines" or list(
        inspect.signature(worker.print_to_stdstream).parameters
    ) == ["data", "ignore_prefix"], REMEDY
    assert "_remote" in inspect.signature(tune.run).parameters, REMEDY


def test_all_uses_are_in_one_module() -> None:
    """Names that begin with an underscore are used on `self` only, in all other modules of the package."""
    foreign = re.compile(r"(?<![\w\"'])(?!self\b)[\w\])]+\._(?!_)\w+|from ray\.\S*\b_\w+|\bray\.util\.client\.ray\b")
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "tune_internals.py":
            uses = [use for use in foreign.findall(path.read_text()) if use != "os._exit"]
            assert not uses, f"{path.name}: move to tune_internals.py"
