from __future__ import annotations

import dataclasses

import pytest

from nbt.errors import UsageError
from nbt.models.backbone_spec import parse_backbone
from nbt.models.teacher import Teacher
from nbt.settings import TransferSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.tuning.space.applicability import applicable_space, unconditional_space
from nbt.tuning.space.space import Space

CONDITIONAL = {"init", "blend", "pretrain_scheme", "pretrain_zap_period"}


@pytest.fixture(scope="module")
def plain() -> Task:
    return load_task("digits", backbone="conv3(width=8)", weights="none", shots=4)


def names(space: Space) -> set[str]:
    return {dimension.name for dimension in space.dimensions}


def with_teachers(task: Task, *others: str) -> Task:
    names = ("conv4", *others)
    return dataclasses.replace(task, teachers=tuple(Teacher(name, parse_backbone(name), {}) for name in names))


def test_without_a_teacher_nothing_is_injected(plain: Task) -> None:
    space = Space.load("non_binary")
    assert names(space) - names(applicable_space(space, plain)) == {"init", "blend"}
    assert applicable_space(space, plain).default(5) == space.default(5)


def test_with_a_teacher_its_name_is_fixed(plain: Task) -> None:
    space = applicable_space(Space.load("non_binary"), with_teachers(plain))
    params = {**space.params(TransferSettings(epochs=5)), "init": "inject"}
    source = space.settings(params, 5).source
    assert (source.init, source.teacher) == ("inject", "conv4")
    assert space.can_express(TransferSettings(epochs=5)), "settings without injection have no teacher"
    assert not space.can_express(TransferSettings(epochs=5, init="inject", teacher="conv3"))


def test_several_teachers_are_a_dimension(plain: Task) -> None:
    space = applicable_space(Space.load("non_binary"), with_teachers(plain, "conv3"))
    assert "teacher" in names(space)
    params = space.params(TransferSettings(epochs=5))
    assert params["teacher"] == "conv3"
    assert space == applicable_space(
        Space.load("non_binary"), dataclasses.replace(plain, teachers=with_teachers(plain, "conv3").teachers[::-1])
    )
    assert space.settings(params, 5) == TransferSettings(epochs=5), "settings without injection have no teacher"
    for name in ("conv4", "conv3"):
        settings = TransferSettings(epochs=5, init="inject", teacher=name)
        assert space.settings(space.params(settings), 5) == settings
    assert not space.can_express(TransferSettings(epochs=5, init="inject", teacher="vgg11"))
    assert not space.can_express(TransferSettings(epochs=5, init="inject"))


def test_the_injection_space_needs_a_teacher(plain: Task) -> None:
    with pytest.raises(UsageError, match=r"space injection.*--teacher"):
        applicable_space(Space.load("injection"), plain)
    assert "init" in names(applicable_space(Space.load("injection"), with_teachers(plain)))


def test_pretraining_varies_only_if_nbt_trains_the_source_model(plain: Task) -> None:
    space = Space.load("zapping")
    with_nbt_source = dataclasses.replace(plain, weights="default")
    assert names(space) - names(applicable_space(space, plain)) == {"pretrain_scheme", "pretrain_zap_period"}
    assert applicable_space(space, with_nbt_source) is space


def test_other_spaces_are_unchanged(plain: Task) -> None:
    for name in ("binary", "fast"):
        space = Space.load(name)
        assert applicable_space(space, plain) is space and unconditional_space(space) is space


@pytest.mark.parametrize("name", ["non_binary", "zapping", "injection"])
def test_unconditional_spaces_have_no_conditional_dimensions(name: str) -> None:
    assert not names(unconditional_space(Space.load(name))) & CONDITIONAL
