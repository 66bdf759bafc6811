"""The driver's side of the files that it exchanges with workers by content: checkpoints and the exported model."""

from __future__ import annotations

from nbt.files import atomic_file
from nbt.training.export.model_folder import replace_folder
from nbt.training.results import TrialSpec
from nbt.tuning.engines.protocol import WorkerMessage


def read_checkpoint(spec: TrialSpec) -> bytes | None:
    """Returns the content of a trial's checkpoint; None without one."""
    try:
        return None if spec.checkpoint is None else spec.checkpoint.read_bytes()
    except FileNotFoundError:
        return None


def store_files(spec: TrialSpec, message: WorkerMessage) -> None:
    """Writes the files of a message, and removes the checkpoint of a trial that has finished without an error.

    Raises:
        UsageError: The model would replace a folder that is no model folder.
    """
    if message.checkpoint is not None and spec.checkpoint is not None:
        spec.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(spec.checkpoint) as temporary:
            temporary.write_bytes(message.checkpoint)
    if message.export is not None and spec.export is not None:
        with replace_folder(spec.export) as temporary:
            for name, content in message.export.items():
                (temporary / name).write_bytes(content)
    if message.outcome is not None and message.outcome.error is None and spec.checkpoint is not None:
        # An earlier session may have left files whose names begin with the checkpoint's name.
        for file in spec.checkpoint.parent.glob(f"{spec.checkpoint.name}*"):
            file.unlink(missing_ok=True)
