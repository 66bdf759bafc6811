"""Images to be classified: files, folders, and images in memory; imports neither PyTorch nor NumPy for files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nbt.data.formats import HIDDEN
from nbt.data.image_files import PassedOver, describe_passed_over, scan_files
from nbt.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Pixels: TypeAlias = npt.NDArray[np.uint8]

_EXPECTED = (
    "expected paths of files or folders, arrays of uint8 (H, W, 3) or (N, H, W, 3), tensors of uint8 or of floats in "
    "0 ... 1, (3, H, W) or (N, 3, H, W), or Pillow images"
)


@dataclass(frozen=True, eq=False)
class ImageSource:
    """Images to be classified.

    Attributes:
        items: N image files, or N RGB images in memory, uint8 (H, W, 3) each.
        passed_over: Files in the given folders that are not images.
        numbers: Number of each image in its dataset, by which images in memory are named; 0, 1, ... when None.
    """

    items: Sequence[Path | Pixels]
    passed_over: tuple[PassedOver, ...] = ()
    numbers: Sequence[int] | None = None

    @property
    def names(self) -> list[str]:
        """Path of each image; "image 0", ... by their numbers for images in memory."""
        numbers = range(len(self.items)) if self.numbers is None else self.numbers
        named = zip(numbers, self.items, strict=True)
        return [str(item) if isinstance(item, Path) else f"image {number}" for number, item in named]


def find_images(images: Any, *, recursive: bool = True) -> ImageSource:
    """Returns images in the given order, with each folder replaced by the images in it in a fixed order.

    Args:
        images: One or several paths of files and folders; or images in memory: arrays, tensors or Pillow images.
        recursive: Whether to search folders recursively.

    Raises:
        UsageError: A path does not exist, a folder contains no images, or a value is of another type.
    """
    if isinstance(images, ImageSource):
        return images
    if isinstance(images, (str, Path)):
        return _find_files([images], recursive)
    if not hasattr(images, "shape") and isinstance(images, Iterable):
        images = list(images)
        if all(isinstance(image, (str, Path)) for image in images):
            return _find_files(images, recursive)
        return ImageSource([pixels for image in images for pixels in _to_pixels(image)])
    return ImageSource(_to_pixels(images))


def _find_files(names: Iterable[str | Path], recursive: bool) -> ImageSource:
    files: list[Path | Pixels] = []
    passed_over: list[PassedOver] = []
    for name in names:
        path = Path(name)
        if path.is_dir():
            found = list(scan_files(path, recursive=recursive))
            images = [file for file in found if isinstance(file, Path)]
            others = [file for file in found if isinstance(file, PassedOver) and file.reason != HIDDEN]
            if not images:
                instead = f"; found {describe_passed_over(others)}" if others else ""
                raise UsageError(f"{name}: the folder contains no images{instead}")
            files += images
            passed_over += others
        elif path.exists():
            files.append(path)
        else:
            raise UsageError(f"{name}: no such file or folder")
    return ImageSource(files, tuple(passed_over))


def _to_pixels(value: Any) -> list[Pixels]:
    """Returns images in memory as RGB, uint8 (H, W, 3) each.

    Raises:
        UsageError: The value is of another type, shape or range.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps

    from nbt.data.image_reading import to_rgb

    if isinstance(value, Image.Image):
        if value.mode.startswith(("I", "F")):
            raise UsageError(f"Pillow image of mode {value.mode}: give the path of its file, or 8-bit values")
        return [np.asarray(to_rgb(ImageOps.exif_transpose(value)))]
    if isinstance(value, torch.Tensor):
        value = _tensor_to_array(value)
    if not isinstance(value, np.ndarray):
        raise UsageError(f"images of type {type(value).__name__}: {_EXPECTED}")
    if value.dtype != np.uint8 or value.ndim not in (3, 4) or value.shape[-1] != 3 or 0 in value.shape[-3:]:
        raise UsageError(f"array of {value.dtype} {value.shape}: {_EXPECTED}")
    return list(value if value.ndim == 4 else value[None])


def _tensor_to_array(tensor: Any) -> npt.NDArray[Any]:
    """Returns a tensor, (3, H, W) or (N, 3, H, W), as an array with the channels last and 8-bit values."""
    if tensor.ndim not in (3, 4) or tensor.shape[-3] != 3:
        raise UsageError(f"tensor of shape {tuple(tensor.shape)}: {_EXPECTED}")
    if tensor.is_floating_point():
        if tensor.numel() and not 0.0 <= float(tensor.min()) <= float(tensor.max()) <= 1.0:
            raise UsageError("tensor of floats outside 0 ... 1: give images as they are, because the model normalises")
        tensor = (255.0 * tensor.float()).round().byte()
    array: npt.NDArray[Any] = tensor.detach().movedim(-3, -1).cpu().numpy()
    return array
