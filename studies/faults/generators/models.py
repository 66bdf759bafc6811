"""Weights, models, recorded tables and databases."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import struct
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from faults.generators.case import CANARY, Case, Sandbox
from faults.generators.images import encoded


class _RunsCode:
    """An object whose loading by pickle runs a command."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {CANARY}",)


def bad_weights(sandbox: Sandbox) -> Case:
    """A file of weights with code, of wrong shapes, with NaN, with a huge tensor, or damaged."""
    rng, ending = sandbox.rng, sandbox.rng.choice(("pt", "pth", "safetensors"))
    path = sandbox.folder / f"weights.{ending}"
    kind = rng.choice(
        ("code", "code beside", "shapes", "NaN", "huge", "empty", "bytes", "keys", "list", "numbers", "bomb")
    )
    state = {f"units.{i}.0.weight": torch.ones(8, 8 if i else 3, 3, 3) for i in range(3)}
    match kind:
        case "code":
            torch.save(_RunsCode(), path)
        case "code beside":
            torch.save({**state, "metadata": _RunsCode()}, path)
        case "shapes":
            torch.save({name: tensor[:, :, :1] for name, tensor in state.items()}, path)
        case "NaN":
            torch.save({name: tensor * float("nan") for name, tensor in state.items()}, path)
        case "huge":
            header = json.dumps({"units.0.0.weight": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}})
            path = path.with_suffix(".safetensors")
            path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + b"\0" * 64)
        case "empty":
            path.write_bytes(b"")
        case "bytes":
            path.write_bytes(rng.randbytes(3000))
        case "keys":
            torch.save({f"other.{name}\x1b[31m\n": tensor for name, tensor in state.items()}, path)
        case "list":
            torch.save([1, 2, 3], path)
        case "numbers":
            torch.save(dict.fromkeys(state, 3.0), path)
        case _:
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
                file.writestr("archive/data.pkl", b"\0" * 50_000_000)
    command = rng.choice((("fit",), ("train", "--epochs", "1"), ("search", "--budget", "1")))
    task = ("--dataset", "digits", "--shots", "6", "--backbone", "conv3(width=8)", "--weights", str(path))
    return Case(f"weights for {command[0]}: {kind}", (*command, *task))


def bad_models(sandbox: Sandbox) -> Case:
    """A model folder of another version, with a damaged card, or with other weights."""
    rng, folder = sandbox.rng, sandbox.folder / "model"
    shutil.copytree(sandbox.model, folder)
    card_file, weights = folder / "model.json", folder / "weights.safetensors"
    card = json.loads(card_file.read_text())
    changes: dict[str, Any] = {
        "format 99": {"format": 99},
        "no format": {"format": None},
        "another backbone": {"backbone": "resnet18"},
        "code as backbone": {"backbone": f"__import__('os').system('touch {CANARY}')"},
        "wrong mean": {"mean": [1]},
        "text as mean": {"mean": ["a", "b", "c"]},
        "no classes": {"class_names": []},
        "fewer classes": {"class_names": card["class_names"][:1]},
        "numbers as classes": {"class_names": [1, 2, {"a": 3}]},
        "huge images": {"image_size": 10**9},
        "negative size": {"image_size": -1},
        "settings of another version": {"settings": {**card["settings"], "made_up": 1}},
        "settings as list": {"settings": [1]},
        "zero standard deviation": {"std": [0, 0, 0]},
        "temperature as text": {"temperature": "hot"},
    }
    name = rng.choice(
        [*changes, "card is no JSON", "card is a list", "no weights", "half of the weights", "empty weights"]
    )
    if name in changes:
        card_file.write_text(json.dumps({**card, **changes[name]}))
    elif name.startswith("card"):
        card_file.write_text("{" if name.endswith("JSON") else "[1, 2]")
    elif name == "no weights":
        weights.unlink()
    else:
        content = weights.read_bytes()
        weights.write_bytes(content[: len(content) // 2] if name.startswith("half") else b"")
    image = sandbox.folder / "image.png"
    image.write_bytes(encoded(rng))
    command = rng.choice(
        (("predict", str(folder), str(image)), ("export", str(folder), "--out", str(sandbox.folder / "m.safetensors")))
    )
    # What only `nbt predict` uses is not read by `nbt export`, and a changed scale of the pixels is a model, too.
    lenient = name in (
        "zero standard deviation",
        "temperature as text",
        "huge images",
        "text as mean",
        "numbers as classes",
        "settings of another version",
    )
    return Case(f"model for {command[0]}: {name}", command, (0, 2) if lenient else (2,))


def bad_tables(sandbox: Sandbox) -> Case:
    """A recorded table that is damaged or of another version."""
    rng, path = sandbox.rng, sandbox.folder / "tables" / "table.parquet"
    path.parent.mkdir()
    good = Path(__file__).resolve().parents[2] / "recorded" / "digits.parquet"
    kind = rng.choice(("version", "half", "bytes", "empty", "other columns", "no header", "header is no JSON"))
    if kind in ("half", "bytes", "empty"):
        content = good.read_bytes()
        path.write_bytes({"half": content[: len(content) // 2], "bytes": rng.randbytes(2000), "empty": b""}[kind])
    else:
        _rewrite_table(good, path, kind)
    commands = (
        ("replay", str(path)),
        ("search", "--dataset", "digits", "--budget", "1", "--experience", str(path.parent)),
    )
    command = rng.choice(commands)
    return Case(f"table for {command[0]}: {kind}", command)


def _rewrite_table(good: Path, path: Path, kind: str) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(good)
    metadata = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
    [key] = [key for key in metadata if "schema" in metadata[key] and key != "ARROW:schema"][:1]
    match kind:
        case "version":
            metadata[key] = json.dumps({**json.loads(metadata[key]), "schema": 99})
        case "header is no JSON":
            metadata[key] = "{"
        case "no header":
            metadata = {}
        case _:
            table = table.drop_columns(table.column_names[:3])
    pq.write_table(table.replace_schema_metadata(metadata), path)


def other_stores(sandbox: Sandbox) -> Case:
    """A database of a later version of nbt or Optuna, of another program, or damaged."""
    rng, path = sandbox.rng, sandbox.folder / "studies.db"
    shutil.copy(sandbox.store, path)
    kind = rng.choice(("nbt schema 99", "Optuna schema 99", "other tables", "half", "bytes", "text", "values"))
    if kind in ("half", "bytes", "text"):
        content = path.read_bytes()
        path.write_bytes({"half": content[: len(content) // 2], "bytes": rng.randbytes(9000), "text": b"hello"}[kind])
    else:
        statements = {
            "nbt schema 99": "UPDATE nbt_schema SET version = 99",
            "Optuna schema 99": "UPDATE alembic_version SET version_num = 'v99.0.0.a'",
            "other tables": "DROP TABLE studies",
            "values": "UPDATE study_user_attributes SET value_json = '{'",
        }
        with closing(sqlite3.connect(path)) as connection:
            connection.execute(statements[kind])
            connection.commit()
    command = rng.choice((("studies",), ("report", "s"), ("sync", "s")))
    # A database without studies is empty for those that list them, and half of one may hold what is asked for.
    codes = (0, 1, 2) if kind in ("half", "values", "other tables") else (2,)
    return Case(f"database for {command[0]}: {kind}", (*command, "--storage", f"sqlite:///{path}"), codes)
