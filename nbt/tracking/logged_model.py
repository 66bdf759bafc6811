"""Models in MLflow: logged with the flavours pyfunc and pytorch, registered, and loaded again.

`mlflow.pyfunc.load_model(uri).predict(images)` takes an array of images, uint8 (N, H, W, 3), the content of an image
file as bytes, or a sequence of such contents, and returns a table with one row per image.
`mlflow.pytorch.load_model(uri)` maps images, uint8 (N, 3, H, H), to probabilities, and needs no nbt; models that
PyTorch cannot trace, such as linearised ones, do not have it. MLflow stores the files of the model folder, the program
of PyTorch and the name of this module, and no pickled objects.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nbt._version import __version__
from nbt.errors import UsageError
from nbt.training.export.model_folder import CARD_FILE

if TYPE_CHECKING:
    import pandas as pd
    from mlflow.tracking import MlflowClient

    from nbt.inference.model import TransferModel

_log = logging.getLogger("nbt")

_CONTENT = "nbt.content"
_MODEL_NAME, _PROGRAM = "model", "pytorch"


def log_model(client: MlflowClient, experiment: str, run_id: str, folder: Path, register: str | None) -> None:
    """Logs a model folder as the model of a run, and registers it.

    The model of an earlier call with other content is deleted; with the same content nothing is written again. Any
    exception of MLflow may be raised.

    Args:
        client: MLflow client.
        experiment: Identifier of the experiment.
        run_id: The run.
        folder: Folder of an exported model.
        register: Name under which the model is registered, or None.
    """
    content, model_id = _content_hash(folder), None
    for model in client.search_logged_models([experiment], f"source_run_id = '{run_id}'"):
        if model.tags.get(_CONTENT) == content and str(model.status) == "READY":
            model_id = model.model_id
        else:
            client.delete_logged_model(model.model_id)
    if model_id is None:
        model_id = _write_model(client, experiment, run_id, folder, content)
    if register is not None:
        _register(client, register, run_id, model_id, content)


def _write_model(client: MlflowClient, experiment: str, run_id: str, folder: Path, content: str) -> str:
    """Writes the files of a model and returns its identifier; the model is ready when all files are written."""
    import mlflow.pyfunc
    import torch
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
    params = {name: str(card[name]) for name in ("backbone", "image_size", "dataset")}
    model_id: str = client.create_logged_model(
        experiment, _MODEL_NAME, run_id, tags={_CONTENT: content}, params=params, model_type="image classifier"
    ).model_id
    client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
    with tempfile.TemporaryDirectory() as temporary:
        files, program = Path(temporary) / _MODEL_NAME, Path(temporary) / _PROGRAM
        description = Model(run_id=run_id, model_id=model_id, model_uuid=model_id)
        if _write_program(folder, program / "model.pt2"):  # the name that mlflow.pytorch expects
            description.add_flavor(_PROGRAM, model_data=_PROGRAM, pytorch_version=str(torch.__version__))
        mlflow.pyfunc.save_model(
            files,
            loader_module=__name__,
            data_path=str(folder),
            mlflow_model=description,
            pip_requirements=[f"nbt-transfer=={__version__}"],
        )
        if program.is_dir():
            program.rename(files / _PROGRAM)
        client.log_model_artifacts(model_id, str(files))
    client.finalize_logged_model(model_id, "READY")
    # The metrics of the run, as MLflow's page of models shows them.
    data = client.get_run(run_id).data
    metrics = [Metric(m.key, m.value, m.timestamp, m.step, model_id=model_id) for m in data._metric_objs]
    client.log_batch(run_id, metrics=[metric for metric in metrics if metric.key.startswith(("test_", "final_val_"))])
    return model_id


def _write_program(folder: Path, file: Path) -> bool:
    """Writes a model as a program of PyTorch; returns False if it cannot be traced."""
    from nbt.inference.export import export_file
    from nbt.inference.model import load_model

    try:
        export_file(load_model(folder, "cpu"), file, "torch")
    except UsageError as error:
        _log.debug("no flavour pytorch: %s", error)
        shutil.rmtree(file.parent, ignore_errors=True)
        return False
    return True


def _register(client: MlflowClient, name: str, run_id: str, model_id: str, content: str) -> None:
    """Registers a model as a new version of a registered model, unless it has one already."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    versions = client.search_model_versions(f"run_id = '{run_id}'")
    if not any(version.name == name and version.tags.get(_CONTENT) == content for version in versions):
        # The form "models:/ID" would be looked up in MLflow's global store instead of the client's.
        location = client.get_logged_model(model_id).artifact_location
        client.create_model_version(name, location, run_id, tags={_CONTENT: content}, model_id=model_id)


def _content_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for name in sorted(file.name for file in folder.iterdir() if file.is_file()):
        digest.update(name.encode())
        with (folder / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


class PyfuncModel:
    """A trained model behind MLflow's interface."""

    def __init__(self, model: TransferModel) -> None:
        self._model = model

    def predict(self, model_input: Any, params: Any = None) -> pd.DataFrame:
        """Classifies images.

        Args:
            model_input: An array, uint8 (N, H, W, 3) or (H, W, 3), the content of an image file as bytes, or a sequence
                of such contents.
            params: Not used; part of MLflow's interface.

        Raises:
            UsageError: The input is of another type.
        """
        contents = [model_input] if isinstance(model_input, bytes) else model_input
        if not isinstance(contents, (list, tuple)) or not all(isinstance(item, bytes) for item in contents):
            return self._model.predict(model_input)
        with tempfile.TemporaryDirectory() as folder:  # files are decoded by their content, with all of its checks
            files = [Path(folder) / f"{index}.png" for index in range(len(contents))]
            for file, content in zip(files, contents, strict=True):
                file.write_bytes(content)
            return self._model.predict(files).assign(path=[f"image {index}" for index in range(len(files))])


def _load_pyfunc(data_path: str) -> PyfuncModel:
    """Loads a model of MLflow; MLflow calls this function by its name."""
    from nbt.inference.model import load_model

    return PyfuncModel(load_model(data_path))
