"""Small images and datasets on disk, for the tests of this package."""

from __future__ import annotations

import http.server
import io
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image


def save_image(path: Path, shade: int = 128, size: tuple[int, int] = (12, 10)) -> Path:
    """Writes an image (width, height) of one colour and creates its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 255 - shade, 40)).save(path)
    return path


def save_classes(folder: Path, counts: Mapping[str, int], suffix: str = ".png") -> Path:
    """Writes a folder of class folders with the given numbers of images."""
    for label, (name, count) in enumerate(counts.items()):
        for number in range(count):
            save_image(folder / name / f"{number:03d}{suffix}", shade=(37 * label + number) % 256)
    return folder


def save_cub(folder: Path, classes: int = 3, images: int = 4) -> Path:
    """Writes the official layout of CUB-200-2011 with every second image for test."""
    tables: dict[str, list[str]] = {
        name: [] for name in ("images", "image_class_labels", "train_test_split", "classes")
    }
    number = 0
    for label in range(1, classes + 1):
        name = f"{label:03d}.Bird_{label}"
        tables["classes"].append(f"{label} {name}")
        for image in range(images):
            number += 1
            save_image(folder / "images" / name / f"{image}.jpg", shade=number)
            tables["images"].append(f"{number} {name}/{image}.jpg")
            tables["image_class_labels"].append(f"{number} {label}")
            tables["train_test_split"].append(f"{number} {(image + 1) % 2}")
    for table, lines in tables.items():
        (folder / f"{table}.txt").write_text("\n".join(lines) + "\n")
    return folder


def pack(folder: Path) -> bytes:
    """Returns a .tgz archive of one folder."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return buffer.getvalue()


def gradient(width: int, height: int) -> np.ndarray:
    """Returns a smooth RGB image, uint8 (height, width, 3), different in every corner."""
    x = np.linspace(0, 255, width)[None, :].repeat(height, 0)
    y = np.linspace(0, 255, height)[:, None].repeat(width, 1)
    return np.stack([x, y, (x + y) / 2], axis=-1).astype(np.uint8)


class _Handler(http.server.BaseHTTPRequestHandler):
    files: Mapping[str, bytes] = {}
    announced_lengths: Mapping[str, int] = {}

    def do_GET(self) -> None:
        body = self.files.get(self.path)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(self.announced_lengths.get(self.path, len(body))))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serve(files: Mapping[str, bytes], announced_lengths: Mapping[str, int] | None = None) -> Iterator[str]:
    """Serves files on localhost; yields the base URL.

    Args:
        files: Contents by path, such as "/data.tgz".
        announced_lengths: Announced lengths by path where they differ from the real ones; the connection closes early.
    """
    handler = type("Handler", (_Handler,), {"files": files, "announced_lengths": announced_lengths or {}})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
