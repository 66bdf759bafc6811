"""Images of 14 classes of ImageNet in the shared data: birds of CUB-50 crop and the test images of the monkeys."""

from __future__ import annotations

import csv
from pathlib import Path

# Folder -> class of ImageNet.
BIRDS = {
    "001.Black_footed_Albatross": "albatross",
    "004.Indigo_Bunting": "indigo bunting",
    "011.American_Goldfinch": "goldfinch",
    "018.Anna_Hummingbird": "hummingbird",
    "019.Rufous_Hummingbird": "hummingbird",
    "020.Blue_Jay": "jay",
    "026.Red_breasted_Merganser": "red-breasted merganser",
    "030.White_Pelican": "pelican",
}
MONKEYS = {
    "common_squirrel_monkey": "squirrel monkey",
    "japanese_macaque": "macaque",
    "mantled_howler": "howler monkey",
    "nilgiri_langur": "langur",
    "patas_monkey": "patas",
    "pygmy_marmoset": "marmoset",
    "white_headed_capuchin": "capuchin",
}
N_PER_FOLDER = 20


def write_imagenet_manifest(path: Path, shared: Path) -> None:
    """Writes the list of the images, with their classes, as a CSV file."""
    folders = {shared / "data" / "CUB_200_2011" / "images" / name: label for name, label in BIRDS.items()}
    folders |= {shared / "data" / "monkeys10" / "test" / name: label for name, label in MONKEYS.items()}
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for folder, label in folders.items():
            writer.writerows((image.resolve(), label) for image in sorted(folder.iterdir())[:N_PER_FOLDER])
