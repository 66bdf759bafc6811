"""Matching of two architectures by order-preserving dynamic programming, and their similarity.

Czyzewski, "Transfer learning between different architectures via weights injection", arXiv 2101.02757; the dynamic
programming is that of the follow-up (Czyzewski, Nowak and Piechowiak, DPIAT, arXiv 2212.13970), applied to the outlines
of `nbt.transfer.injection.outline`. Student and teacher are traversed from input to output; layers are paired only
within a family; one teacher layer may be the source of a run of L consecutive student layers, whose gain is the sum of
their scores divided by sqrt(L); layers of both may be skipped. The score of two units is the value of the same program
on their layers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from nbt.transfer.injection.outline import Block, Layer, Signature

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerPair:
    """A student layer, the teacher layer whose weights it gets, and their score, above 0 ... 1.

    Their normalisations are paired by position, if they are of the same kind.
    """

    student: Layer
    teacher: Layer
    score: float


@dataclass(frozen=True, eq=False)
class Matching:
    """The result of a matching.

    Attributes:
        layers: Pairs in the student's order; each student layer occurs at most once.
        blocks: Pairs of (student, teacher) blocks whose contents were matched: the networks, and units.
        value: Value of the dynamic programming; for random pairs the sum of their scores.
    """

    layers: tuple[LayerPair, ...]
    blocks: tuple[tuple[Block, Block], ...]
    value: float


def layer_score(student: Sequence[int], teacher: Sequence[int]) -> float:
    """Returns the product over dimensions of min(a/b, b/a) for two shapes; 0 if their ranks differ."""
    if len(student) != len(teacher):
        return 0.0
    return math.prod(min(a, b) / max(a, b) if a != b else 1.0 for a, b in zip(student, teacher, strict=True))


def align_sequences(scores: Scores) -> tuple[float, npt.NDArray[np.int64]]:
    """Matches two sequences in order.

    Args:
        scores: Score of every student element with every teacher element, 0 for pairs that are not allowed, (S, T).

    Returns:
        The maximum sum of gains, and for every student element the index of its teacher element, -1 for none, (S,). The
        teacher's indices never decrease, and student elements with the same teacher element are consecutive.
    """
    values, starts = _solve_alignment(scores)
    partner = np.full(len(scores), -1, dtype=np.int64)
    end, teacher = len(scores), scores.shape[1]
    while end and teacher:
        if values[teacher, end] == values[teacher - 1, end]:
            teacher -= 1
        elif values[teacher, end] == values[teacher, end - 1]:
            end -= 1
        else:
            start = starts[teacher - 1, end]
            partner[start:end] = teacher - 1
            end, teacher = start, teacher - 1
    return float(values[-1, -1]), partner


def _solve_alignment(scores: Scores) -> tuple[Scores, npt.NDArray[np.int64]]:
    """Solves a batch of alignment problems by dynamic programming.

    Args:
        scores: (..., S, T).

    Returns:
        The maximum value of the first i student elements with the first j teacher elements, (T + 1, ..., S + 1); and
        the start of the best run of student elements that ends before i and is paired with teacher element j, (T, ...,
        S + 1).
    """
    *problems, n, n_teacher = scores.shape
    values = np.zeros((n_teacher + 1, *problems, n + 1))
    starts = np.zeros((n_teacher, *problems, n + 1), dtype=np.int64)
    position = np.arange(n + 1)
    length = position[:, None] - position[None, :]
    weight = 1.0 / np.sqrt(np.maximum(length, 1))
    for j in range(n_teacher):
        column = scores[..., j]
        sums, n_forbidden = _prefix_sums(column), _prefix_sums(column <= 0.0)
        gains = (sums[..., :, None] - sums[..., None, :]) * weight
        # Runs of length 1 use the score itself, because differences of sums would make self-similarity inexact.
        gains[..., position[1:], position[:-1]] = column
        allowed = (length > 0) & (n_forbidden[..., :, None] == n_forbidden[..., None, :])
        totals = np.where(allowed, values[j][..., None, :] + gains, -np.inf)
        starts[j] = totals.argmax(axis=-1)
        values[j + 1] = np.maximum.accumulate(np.maximum(values[j], totals.max(axis=-1)), axis=-1)
    return values, starts


def _prefix_sums(column: npt.NDArray[Any]) -> Scores:
    """Returns the sums of the first 0 ... S elements, (..., S + 1)."""
    sums = np.zeros((*column.shape[:-1], column.shape[-1] + 1))
    np.cumsum(column, axis=-1, out=sums[..., 1:])
    return sums


def matching_value(student: Block, teacher: Block) -> float:
    """Returns the value of the dynamic programming, from 0 to the number of student layers."""
    return float(_solve_alignment(_unit_scores(student, teacher))[0][-1, -1])


def match_in_order(student: Block, teacher: Block) -> Matching:
    """Returns the best order-preserving matching, with deterministic tie-breaking."""
    pairs: list[LayerPair] = []
    blocks = [(student, teacher)]
    value, partner = align_sequences(_unit_scores(student, teacher))
    for unit, teacher_index in zip(student.children, partner.tolist(), strict=True):
        counterpart = teacher.children[teacher_index]
        if teacher_index >= 0 and isinstance(unit, Block) and isinstance(counterpart, Block):
            blocks.append((unit, counterpart))
            pairs += _match_layers(list(unit.layers()), list(counterpart.layers()))
    return Matching(tuple(pairs), tuple(blocks), value)


def _match_layers(student: list[Layer], teacher: list[Layer]) -> Iterator[LayerPair]:
    table = _score_table([layer.signature for layer in student], [layer.signature for layer in teacher])
    _, partner = align_sequences(table[:-1, :-1])
    for index, teacher_index in enumerate(partner.tolist()):
        if teacher_index >= 0:
            yield LayerPair(student[index], teacher[teacher_index], float(table[index, teacher_index]))


def match_at_random(student: Block, teacher: Block, generator: torch.Generator | None = None) -> Matching:
    """Pairs every student layer with a random teacher layer of its family and rank.

    This is the control, without order and scores.

    Args:
        student: Outline of the student.
        teacher: Outline of the teacher.
        generator: Random generator; PyTorch's global one when None.
    """
    by_kind: dict[tuple[str, int], list[Layer]] = {}
    for layer in teacher.layers():
        by_kind.setdefault((layer.family, len(layer.shape)), []).append(layer)
    pairs = []
    for layer in student.layers():
        counterparts = by_kind.get((layer.family, len(layer.shape)))
        if counterparts:
            counterpart = counterparts[int(torch.randint(len(counterparts), (), generator=generator))]
            pairs.append(LayerPair(layer, counterpart, layer_score(layer.shape, counterpart.shape)))
    return Matching(tuple(pairs), (), sum(pair.score for pair in pairs))


def normalised_similarity(value: float, student: Block) -> float:
    """Normalises a matching value to a similarity, 0 ... 1.

    A network matched with itself pairs every layer with itself with a score of 1, and no run of several layers has a
    larger gain, so DP(student, student) is the number of its layers.

    Args:
        value: Result of `matching_value`.
        student: Outline of the student.
    """
    return min(1.0, value / sum(1 for _ in student.layers()))


def _unit_scores(student: Block, teacher: Block) -> Scores:
    """Returns the value of every student unit with every teacher unit, (S, T), computed once for equal units."""
    student_units, teacher_units = list(dict.fromkeys(student.signature)), list(dict.fromkeys(teacher.signature))
    student_layers, teacher_layers = _distinct_layers(student_units), _distinct_layers(teacher_units)
    table = _score_table(student_layers, teacher_layers)
    rows = _layer_index_table(student_units, student_layers)
    columns = _layer_index_table(teacher_units, teacher_layers)
    values, _ = _solve_alignment(table[rows[:, None, :, None], columns[None, :, None, :]])
    indices = (
        [student_units.index(unit) for unit in student.signature],
        [teacher_units.index(unit) for unit in teacher.signature],
    )
    return np.asarray(values[-1][..., -1][np.ix_(*indices)])


def _score_table(student: Sequence[Signature], teacher: Sequence[Signature]) -> Scores:
    """Returns the scores of layer pairs, (S + 1, T + 1), with 0 across families and in the last row and column."""
    table = np.zeros((len(student) + 1, len(teacher) + 1))
    for i, (family, shape) in enumerate(student):
        for j, (teacher_family, teacher_shape) in enumerate(teacher):
            if family == teacher_family:
                table[i, j] = layer_score(shape, teacher_shape)
    return table


def _distinct_layers(units: Sequence[Signature]) -> list[Signature]:
    return list(dict.fromkeys(layer for unit in units for layer in unit))


def _layer_index_table(units: Sequence[Signature], layers: Sequence[Signature]) -> npt.NDArray[np.int64]:
    """Returns the indices of the units' layers among `layers`, padded with -1, (units, maximum number of layers)."""
    index_of = {layer: index for index, layer in enumerate(layers)}
    padded = np.full((len(units), max(map(len, units), default=0)), -1, dtype=np.int64)
    for row, unit in zip(padded, units, strict=True):
        row[: len(unit)] = [index_of[layer] for layer in unit]
    return padded
