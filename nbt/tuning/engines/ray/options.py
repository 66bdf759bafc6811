"""The options of the Ray engine, checked without importing Ray."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import re
from dataclasses import dataclass
from pathlib import Path

from nbt.errors import UsageError
from nbt.option import check_gpus_per_trial, check_ray_address

MIN_RAY_VERSION = (2, 60)
CLIENT_PREFIX = "ray://"


@dataclass(frozen=True)
class RayOptions:
    """The address of the Ray cluster and the resources per trial.

    Attributes:
        address: "auto", "ray://HOST:PORT" or "HOST:PORT"; None starts Ray on this machine and ends it with the search.
        gpus_per_trial: One GPU, a share of one, or 0; "auto" computes the share from the memory that trials use; None
            is one GPU if the cluster has any, or a share of one if there are more workers than GPUs.
        cpus_per_trial: Number of CPUs, above 0; None is the largest number with which all workers fit.

    Raises:
        UsageError: A value is invalid.
    """

    address: str | None = None
    gpus_per_trial: float | str | None = None
    cpus_per_trial: float | None = None

    def __post_init__(self) -> None:
        gpus, cpus = self.gpus_per_trial, self.cpus_per_trial
        if self.address is not None:
            check_ray_address("--ray-address", self.address)
        if gpus is not None:
            check_gpus_per_trial("--gpus-per-trial", gpus)
        if cpus is not None and not (math.isfinite(cpus) and cpus > 0):
            raise UsageError(f"--cpus-per-trial {cpus}: expected a number above 0")

    def given_options(self) -> list[str]:
        """Returns the command-line names of the options that are set."""
        values = {
            "--ray-address": self.address,
            "--gpus-per-trial": self.gpus_per_trial,
            "--cpus-per-trial": self.cpus_per_trial,
        }
        return [name for name, value in values.items() if value is not None]


def check_ray_installed() -> None:
    """Checks that Ray with Ray Tune is installed and recent enough.

    Raises:
        UsageError: It is not.
    """
    required = ".".join(map(str, MIN_RAY_VERSION))
    remedy = f'pip install "ray[tune]>={required}" on this machine and on all nodes, or use --engine local'
    try:
        version = importlib.metadata.version("ray")
    except importlib.metadata.PackageNotFoundError as error:
        raise UsageError(f"--engine ray: Ray is not installed; {remedy}") from error
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if numbers < MIN_RAY_VERSION:
        raise UsageError(f"--engine ray: Ray {version} is too old; {remedy}")
    spec = importlib.util.find_spec("ray")
    folders = spec.submodule_search_locations if spec is not None else None
    if not any((Path(folder) / "tune").is_dir() for folder in folders or ()):
        raise UsageError(f"--engine ray: Ray {version} is installed without Tune; {remedy}")


def check_ray_client_installed(address: str | None) -> None:
    """Checks that grpcio is installed if the address is one of Ray Client.

    Raises:
        UsageError: It is not.
    """
    if address is not None and address.startswith(CLIENT_PREFIX) and importlib.util.find_spec("grpc") is None:
        raise UsageError(
            f'--ray-address {address}: Ray Client needs grpcio; pip install "ray[client]", or run nbt on a machine '
            "of the cluster with --ray-address HOST:6379"
        )
