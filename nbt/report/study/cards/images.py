"""The card "your images": a strip of test images per class, with the wrong predictions marked."""

from __future__ import annotations

import numpy as np

from nbt.report.formatting import TemplateData, one_line, percent
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.dataset_images import evenly_spaced
from nbt.tuning.finals.test_results import class_name

MAX_IMAGES = 240
"""Largest number of thumbnails, which bounds the size of the report whatever the number of classes."""

_MAX_PER_CLASS = 7
_SIZE = 80
_SHOWN = 10


class Images(Card):
    """What the classes look like."""

    name = "images"
    title = "Your images"
    style = "half"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the strips, the lowest recall first; before the test, in the order of the classes."""
        images = study.images
        if isinstance(images, NotApplicable):
            return images
        if not study.record.search_config().images:
            return NotApplicable("the images were left out (--no-images)")
        labels, wrong, tested = images.listing.labels, set(), np.empty(0, dtype=np.int64)
        predictions = study.record.test_predictions("recommended")
        if predictions is not None and len(predictions.index):
            tested = predictions.index.astype(np.int64)
            wrong = set(tested[predictions.predicted != predictions.labels].tolist())
        strips = []
        order = list(range(len(images.listing.class_names))) if predictions is None else _by_recall(study)
        per_class = max(1, min(_MAX_PER_CLASS, MAX_IMAGES // len(order)))
        for label in order[:MAX_IMAGES]:
            of_class = tested[labels[tested] == label]
            shown = evenly_spaced(of_class if len(of_class) else np.flatnonzero(labels == label), per_class)
            uris = images.thumbnails(shown, _SIZE)
            correct = sum(index not in wrong for index in of_class.tolist())
            strips.append(
                TemplateData(
                    name=one_line(class_name(label, images.listing.class_names)),
                    recall=f"{percent(correct / len(of_class), 0)} of {len(of_class)}" if len(of_class) else "",
                    images=[TemplateData(uri=uri, is_wrong=index in wrong) for index, uri in uris.items()],
                    n_wrong=sum(index in wrong for index in uris),
                )
            )
        return TemplateData(
            shown=strips[:_SHOWN],
            folded=strips[_SHOWN:],
            n_classes=len(order),
            n_left_out=len(order) - len(strips),
            is_tested=bool(len(tested)),
        )


def _by_recall(study: StudyView) -> list[int]:
    """Returns the labels of the classes, the lowest recall first, classes without test images last."""
    from nbt.tuning.finals.test_results import class_results

    predictions = study.record.test_predictions("recommended")
    assert predictions is not None
    return [result.label for result in class_results(predictions)]
