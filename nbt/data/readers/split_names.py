"""Which names of folders mean a split: train, validation or test."""

from __future__ import annotations

import re

from nbt.data.image_files import SPLIT_ALIASES

_SPLIT_WORDS = {
    **SPLIT_ALIASES,
    **dict.fromkeys(("trn", "tr", "trainval", "trainvalid", "learn", "learning"), "train"),
    **dict.fromkeys(("vali", "validate", "validating", "devel", "development"), "val"),
    **dict.fromkeys(("tst", "ts", "tests", "holdout"), "test"),
    **dict.fromkeys(("trainings", "entrenamiento", "treino", "entrainement", "apprentissage"), "train"),
    **dict.fromkeys(("validierung", "validierungs", "validacion", "validacao"), "val"),
    **dict.fromkeys(("prueba", "pruebas", "teste"), "test"),
}
_EVALUATION_WORDS = ("eval", "evaluation", "evaluate")
_JOINED = (
    "images",
    "image",
    "imgs",
    "img",
    "dataset",
    "data",
    "datas",
    "daten",
    "set",
    "folder",
    "dir",
    "split",
    "part",
)
_NEUTRAL = frozenset(
    (
        *_JOINED,
        "photos",
        "pictures",
        "pics",
        "files",
        "seg",
        "full",
        "all",
        "raw",
        "new",
        "final",
        "original",
        "the",
        "my",
    )
)
_UNLABELLED = frozenset(
    (
        "unlabelled",
        "unlabeled",
        "pred",
        "predict",
        "prediction",
        "predictions",
        "inference",
        "submission",
        "submissions",
    )
)


def split_of_name(name: str) -> str:
    """Returns the split that a folder name means: "train", "val", "test", or "evaluation" for either of the latter.

    A word of the name must mean a split, as in "seg_train", "Testing", "trainImages" or "val2017"; names with words of
    several splits, as "train_test_split", mean none, except for training and validation together.

    Returns:
        The split; "" where the name means none.
    """
    splits = {split for split in map(_split_of_word, _words(name)) if split}
    if splits == {"train", "val"}:
        return "train"
    return splits.pop() if len(splits) == 1 else ""


def other_words(name: str) -> tuple[str, ...]:
    """Returns the words of a folder name that neither mean a split nor occur in any name of a folder of images."""
    return tuple(word for word in _words(name) if not _split_of_word(word) and word not in _NEUTRAL)


def is_neutral_name(name: str) -> bool:
    """Returns whether a folder name says nothing about the images in it, such as "images" or "dataset"."""
    return not other_words(name)


def is_unlabelled_name(name: str) -> bool:
    """Returns whether a folder name means images without labels."""
    return any(word in _UNLABELLED for word in _words(name))


def _words(name: str) -> list[str]:
    """Returns the words of a name in lower case, divided at capital letters, digits and other characters."""
    return re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())


def _split_of_word(word: str) -> str:
    for end in ("", *_JOINED):
        stem = word.removesuffix(end)
        if word.endswith(end) and stem in _SPLIT_WORDS:
            return _SPLIT_WORDS[stem]
        if word.endswith(end) and stem in _EVALUATION_WORDS:
            return "evaluation"
    return ""
