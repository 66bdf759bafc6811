"""Part of `bench_engines.py`: one way of running trials, in a separate process that receives requests.

Each arm has its own driver process, so that arms do not share their environment, imports or threads. `Arm` starts the
process and requests blocks of trials. Workers are kept between blocks, as in a search.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ANSWER = "ANSWER "


class Arm:
    """Driver process of an arm.

    Args:
        name: Name of the arm, see `ARMS`.
        options: Options of the arm.
    """

    def __init__(self, name: str, **options: Any) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "engines_arm.py"), name, json.dumps(options)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=worker_environment(),
        )

    def request(self, **arguments: Any) -> Any:
        """Runs a block of trials; returns the measurements."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith(ANSWER):
                return json.loads(line.removeprefix(ANSWER))
        raise RuntimeError(f"{self.name} ended with code {self._process.wait()}")

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)

    def __enter__(self) -> Arm:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()


def worker_environment() -> dict[str, str]:
    """Returns the environment of all drivers and their workers: the import path and one thread each."""
    path = os.pathsep.join([str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0"}


class TimedSource:
    """A source that supplies a list of trials and records the time of each end.

    Attributes:
        ended: Times of the ends, by `time.perf_counter`.
    """

    def __init__(self, specs: Sequence[Any], *, one_at_a_time: bool = False) -> None:
        self._waiting, self._one_at_a_time, self._running = list(specs), one_at_a_time, 0
        self.ended: list[float] = []

    def next_trial(self) -> Any:
        """Returns the next trial."""
        if not self._waiting or (self._one_at_a_time and self._running):
            return None
        self._running += 1
        return self._waiting.pop(0)

    def on_placed(self, spec: Any, location: Any) -> None:
        """Does nothing: the location is not measured."""

    def on_epoch(self, spec: Any, result: Any) -> str | None:
        """Returns None: no trial is stopped."""
        return None

    def on_done(self, spec: Any, outcome: Any) -> None:
        """Records the time; raises an error for a failed trial."""
        if outcome.error is not None:
            raise RuntimeError(f"{spec.key}: {outcome.error}")
        self._running -= 1
        self.ended.append(time.perf_counter())

    def on_abandoned(self, spec: Any) -> None:
        """Raises an error: no trial may be abandoned here."""
        raise RuntimeError(f"{spec.key} was abandoned")


@contextmanager
def engine(options: Mapping[str, Any], task: Any, runner: str | None = None) -> Any:
    """Opens the engine of the options "engine" (ray or local) and "workers"."""
    runner_option: dict[str, Any] = {} if runner is None else {"runner": runner}
    if options["engine"] == "local":
        from nbt.tuning.engines.local import LocalEngine

        engine_instance: Any = LocalEngine(task, workers=options["workers"], **runner_option)
    else:
        from nbt.tuning.engines.ray.engine import RayEngine
        from nbt.tuning.engines.ray.options import RayOptions

        cpus = options.get("cpus_per_trial", 1)
        cluster = RayOptions(address=options["address"], cpus_per_trial=cpus)
        # Without a limit, the rate that the driver can handle is measured.
        unlimited: dict[str, Any] = {"checkpoint_bytes_per_second": math.inf}
        engine_instance = RayEngine(task, workers=options["workers"], options=cluster, **runner_option, **unlimited)
    with engine_instance:
        yield engine_instance


def serve_noop(options: Mapping[str, Any], answer: Callable[[Callable[..., Any]], None]) -> None:
    """Runs trials without training one after another with an engine of nbt."""
    from engines_noop import RUNNER, NoopTask

    from nbt.settings import TransferSettings
    from nbt.training.results import TrialSpec

    size = options.get("checkpoint_bytes", 0)
    with (
        tempfile.TemporaryDirectory() as folder,
        engine(options, NoopTask(Path(folder), size), RUNNER) as engine_instance,
    ):
        checkpoint = Path(folder) / "checkpoint.pt" if size else None

        def block(trials: int, epochs: int) -> list[float]:
            settings = TransferSettings(epochs=epochs)
            specs = [TrialSpec(key=f"t{n}", settings=settings, checkpoint=checkpoint) for n in range(trials + 1)]
            source = TimedSource(specs, one_at_a_time=True)
            engine_instance.run(source)
            return intervals(source.ended)

        answer(block)


def serve_plain(options: Mapping[str, Any], answer: Callable[[Callable[..., Any]], None]) -> None:
    """Runs trials without training with Ray Tune as in its documentation; their resources allow one at a time."""
    import ray
    from ray import tune

    ray.init(address=options["address"], log_to_driver=False)

    class Clock(tune.Callback):
        def __init__(self) -> None:
            self.ended: list[float] = []

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended.append(time.perf_counter())

    def function(config: dict[str, Any]) -> None:
        for _ in range(config["epochs"]):
            tune.report({"accuracy": 0.5})

    class Trainable(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self.left = config["epochs"]

        def step(self) -> dict[str, Any]:
            self.left -= 1
            return {"accuracy": 0.5, "done": not self.left}

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.left = new_config["epochs"]
            return True

        def save_checkpoint(self, checkpoint_dir: str) -> None:
            """Does nothing; Tune requires the method."""

    trainable = function if options["trainable"] == "function" else Trainable

    def block(trials: int, epochs: int) -> list[float]:
        clock = Clock()
        with tempfile.TemporaryDirectory() as folder:
            tune.Tuner(
                tune.with_resources(trainable, {"cpu": 1, options["trainable"]: 1}),
                param_space={"epochs": epochs, "rate": tune.uniform(0, 1)},
                tune_config=tune.TuneConfig(num_samples=trials + 1, reuse_actors=options["reuse"]),
                run_config=tune.RunConfig(storage_path=folder, verbose=0, callbacks=[clock]),
            ).fit()
        return intervals(clock.ended)

    answer(block)
    ray.shutdown()


def serve_frozen(options: Mapping[str, Any], answer: Callable[[Callable[..., Any]], None]) -> None:
    """Trains heads on frozen features with an engine of nbt."""
    from engines_frozen import frozen_specs, frozen_task

    task = frozen_task(Path(options["shared"]), options["image_size"])
    with engine(options, task) as engine_instance:

        def block(trials: int, epochs: int) -> float:
            source = TimedSource(frozen_specs(task, trials, epochs))
            started = time.perf_counter()
            engine_instance.run(source)
            return time.perf_counter() - started

        answer(block)


def intervals(moments: Sequence[float]) -> list[float]:
    """Returns the seconds between consecutive ends, one per trial but the first."""
    return [after - before for before, after in pairwise(moments)]


def serve_concurrent(options: Mapping[str, Any], answer: Callable[[Callable[..., Any]], None]) -> None:
    """Runs waves of concurrent trials; see `engines_concurrency`."""
    from engines_concurrency import serve_waves

    serve_waves(options, answer)


ARMS = {"noop": serve_noop, "plain": serve_plain, "frozen": serve_frozen, "crowd": serve_concurrent}


def main() -> None:
    """Runs the requested blocks until stdin ends."""

    def answer(block: Callable[..., Any]) -> None:
        for line in sys.stdin:
            result = block(**json.loads(line))
            print(f"\n{ANSWER}{json.dumps(result)}", flush=True)

    ARMS[sys.argv[1]](json.loads(sys.argv[2]), answer)


if __name__ == "__main__":
    main()
