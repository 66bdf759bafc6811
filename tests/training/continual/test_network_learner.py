"""Methods of a stream: theoretical properties of curvatures, heads and the incremental ridge regression."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from nbt.settings.continual import ContinualSettings
from nbt.task.load import load_task
from nbt.task.task import Task
from nbt.training.continual.incremental_ridge import IncrementalRidge
from nbt.training.continual.learner import Learner, TaskStream
from nbt.training.continual.linear_probe import ProbeLearner
from nbt.training.continual.network_learner import NetworkLearner, make_learner
from nbt.training.continual.scenarios import ContinualStage, make_stages
from nbt.training.worker.context import WorkerContext
from tests.training.continual.streams import make_stream_settings

EXACT = {
    "curvature": "exact", "frozen_depth": 0.67, "target_scale": 1.0, "optimizer": "sgd", "momentum": 0.95,
    "head_lr": 0.01, "body_lr": 0.01, "batch_size": 512, "epochs": 100,
}  # fmt: skip


@pytest.fixture(scope="module")
def context(digits: Task) -> WorkerContext:
    return WorkerContext(digits)


def learn(
    task: Task,
    context: WorkerContext,
    settings: ContinualSettings,
    stages: Sequence[ContinualStage] | None = None,
    seed: int = 0,
) -> Any:
    """Returns a learner after the whole stream; its last stage is not consolidated."""
    stages = tuple(stages or make_stages(task, settings.scenario, settings.tasks, seed))
    learner = make_learner(TaskStream(task, settings, seed, stages, context))
    for stage in stages:
        learner.learn(stage, lambda epoch: None, None, 30.0)
        if stage.number < len(stages):
            learner.consolidate(stage)
    return learner


def renumbered(stages: Sequence[ContinualStage]) -> list[ContinualStage]:
    return [dataclasses.replace(stage, number=number) for number, stage in enumerate(stages, start=1)]


@torch.no_grad()
def logits(learner: Learner, index: np.ndarray) -> torch.Tensor:
    return torch.cat([learner.classify(inputs, learner.frozen) for inputs, _ in learner.inputs.batches(index)])


def gap(result: torch.Tensor, reference: torch.Tensor) -> float:
    return float((result - reference).norm() / reference.norm())


def jacobian_norms(learner: NetworkLearner) -> list[float]:
    """Returns the norm of the Jacobian of each logit with respect to the backbone, at theta0, for one image."""
    learner.model.load_state_dict(learner.origin)
    body = list(learner.model.units.requires_grad_(True).parameters())
    outputs = learner.model(learner.stream.task.load_images(learner.stream.stages[0].train[:1], torch.device("cpu")))[0]
    gradients = [torch.autograd.grad(logit, body, retain_graph=True) for logit in outputs]
    return [float(torch.cat([part.flatten() for part in gradient]).norm()) for gradient in gradients]


@pytest.mark.parametrize("head", [None, "fitted", "random"])
@pytest.mark.parametrize("tasks", [2, 5])
def test_the_logit_of_every_class_depends_on_the_backbone(
    digits: Task, context: WorkerContext, head: str | None, tasks: int
) -> None:
    """In version 0.1 the rows of classes still to come were 0, and these classes got a linear probe."""
    learner = start(digits, context, make_stream_settings("dlcft", "class", tasks=tasks, head=head))
    first, second, *_ = learner.stream.stages
    learner.learn(first, lambda epoch: None, None, 30.0)
    assert min(jacobian_norms(learner)) > 0.0
    origin = learner.origin["head.weight"].clone()
    learner.consolidate(first)
    learner.learn(second, lambda epoch: None, None, 30.0)
    assert torch.equal(learner.origin["head.weight"], origin), "theta0 is fixed for the whole stream"


def test_a_class_without_images_in_the_first_part_has_a_row_too(digits: Task, context: WorkerContext) -> None:
    settings = make_stream_settings("dlcft", "data")
    first, second = make_stages(digits, "data", 2, 0)
    few = dataclasses.replace(first, train=first.train[digits.labels[first.train] != 3])
    learner = NetworkLearner(TaskStream(digits, settings, 0, (few, second), context))
    learner.learn(few, lambda epoch: None, None, 30.0)
    assert min(jacobian_norms(learner)) > 0.0


def test_the_default_head_knows_every_class(digits: Task) -> None:
    assert make_stream_settings("dlcft", "class").head == "random"
    assert {make_stream_settings("dlcft", scenario).head for scenario in ("data", "task")} == {"fitted"}
    assert make_stream_settings("ewc", "class").head == "fitted", "it has no effect; stored streams have this value"


@pytest.mark.parametrize("head", ["fitted", "random"])
def test_with_exact_curvature_a_stream_equals_joint_training_for_both_heads(
    digits: Task, context: WorkerContext, head: str
) -> None:
    joint, sequential, unpenalised = (
        logits(learn(digits, context, make_stream_settings("dlcft", "class", recipe={**EXACT, **change}, head=head)),
               digits.split.test)
        for change in ({"method": "joint"}, {}, {"penalty_strength": 0.0})
    )  # fmt: skip
    assert gap(sequential, joint) < 0.2
    assert gap(unpenalised, joint) > 0.5


def test_with_exact_curvature_a_stream_equals_joint_training(digits: Task, context: WorkerContext) -> None:
    """Training stops before the minimum, so the gap is not 0."""
    joint = logits(learn(digits, context, make_stream_settings("dlcft", "class", recipe={**EXACT, "method": "joint"})),
                   digits.split.test)  # fmt: skip
    gaps = {}
    for name, change in {
        "exact": {},
        "kfac": {"curvature": "kfac"},
        "diagonal": {"curvature": "diagonal"},
        "none": {"penalty_strength": 0.0},
    }.items():
        recipe = {**EXACT, **change}
        learner = learn(digits, context, make_stream_settings("dlcft", "class", recipe=recipe))
        gaps[name] = gap(logits(learner, digits.split.test), joint)
    assert gaps["exact"] < 0.2
    assert gaps["exact"] < gaps["kfac"] < gaps["diagonal"] < gaps["none"]
    assert gaps["none"] > 0.5


def test_with_exact_curvature_the_order_of_tasks_has_little_effect(digits: Task, context: WorkerContext) -> None:
    def both_orders(**change: Any) -> float:
        settings = make_stream_settings("dlcft", "class", recipe={**EXACT, **change}, head="random")
        stages = make_stages(digits, "class", 2, 0)
        # The second stream uses the same model, so the logits of the first are computed before.
        forward = logits(learn(digits, context, settings, stages), digits.split.test)
        backward = learn(digits, context, settings, renumbered(stages[::-1]))
        return gap(forward, logits(backward, digits.split.test))

    assert both_orders() < 0.4 * both_orders(penalty_strength=0.0)


@pytest.mark.parametrize("scenario", ["data", "class"])
def test_the_probe_equals_the_joint_ridge_for_any_order(digits: Task, context: WorkerContext, scenario: str) -> None:
    settings = make_stream_settings("probe", scenario, tasks=3)
    stages = make_stages(digits, scenario, 3, 0)
    forward = learn(digits, context, settings, stages)
    assert isinstance(forward, ProbeLearner) and forward.share is not None
    joint = IncrementalRidge(context.model.feature_dim, 5)
    labels = torch.from_numpy(digits.labels)
    for features, truth in forward.inputs.feature_batches(digits.split.train):
        joint.add(features, torch.eye(5)[truth])
    weight, bias = joint.solve(forward.share)
    torch.testing.assert_close(forward.weight, weight, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(forward.bias, bias, rtol=1e-8, atol=1e-10)
    assert joint.n == len(digits.split.train) and labels.max() == 4
    backward = make_learner(TaskStream(digits, settings, 0, tuple(renumbered(stages[::-1])), context))
    assert isinstance(backward, ProbeLearner)
    backward.share = forward.share  # the strength is chosen on the first task, which is a different one here
    for stage in backward.stream.stages:
        backward.learn(stage, lambda epoch: None, None, 30.0)
    torch.testing.assert_close(backward.weight, forward.weight, rtol=1e-8, atol=1e-10)


def test_a_task_incremental_probe_has_one_ridge_per_task(digits: Task, context: WorkerContext) -> None:
    stages = make_stages(digits, "task", 2, 0)
    learner = learn(digits, context, make_stream_settings("probe", "task"), stages)
    for stage in stages:
        ridge = IncrementalRidge(context.model.feature_dim, 5)
        for features, truth in learner.inputs.feature_batches(stage.train):
            ridge.add(features, torch.eye(5)[truth])
        rows = list(stage.classes)
        torch.testing.assert_close(learner.weight[rows], ridge.solve(learner.share)[0][rows], rtol=1e-8, atol=1e-10)


def head_rows(learner: NetworkLearner, classes: Sequence[int]) -> torch.Tensor:
    return torch.cat([learner.state["head.weight"], learner.state["head.bias"][:, None]], dim=1)[list(classes)]


def start(task: Task, context: WorkerContext, settings: ContinualSettings) -> NetworkLearner:
    learner = make_learner(
        TaskStream(task, settings, 0, make_stages(task, settings.scenario, settings.tasks, 0), context)
    )
    assert isinstance(learner, NetworkLearner)
    return learner


def test_rows_of_later_tasks_do_not_change(digits: Task, context: WorkerContext) -> None:
    learner = start(digits, context, make_stream_settings("dlcft", "task"))
    first, second = learner.stream.stages
    learner.learn(first, lambda epoch: None, None, 30.0)
    learner.consolidate(first)
    assert not head_rows(learner, second.classes).any()
    assert bool(head_rows(learner, first.classes).any(dim=1).all())
    origin = {name: tensor.clone() for name, tensor in learner.origin.items()}
    learner.learn(second, lambda epoch: None, None, 30.0)
    changed = {name for name, tensor in learner.origin.items() if not torch.equal(tensor, origin[name])}
    assert changed == {"head.weight", "head.bias"}
    rows = list(first.classes)
    assert torch.equal(learner.origin["head.weight"][rows], origin["head.weight"][rows]), "theta0 is unchanged"
    assert bool(head_rows(learner, second.classes).any(dim=1).all())


def test_new_rows_have_the_curvature_of_all_past_images(digits: Task, context: WorkerContext) -> None:
    learner = start(digits, context, make_stream_settings("dlcft", "class"))
    first, second = learner.stream.stages
    learner.learn(first, lambda epoch: None, None, 30.0)
    learner.consolidate(first)
    zero = {name: torch.zeros(shape) for name, shape in learner.curvatures[0].shapes.items()}
    curvatures = []
    for label in (first.classes[0], second.classes[0]):
        vector = {**zero, "head.bias": torch.nn.functional.one_hot(torch.tensor(label), 5).float()}
        curvatures.append(float(learner.curvatures[0].multiply(vector)["head.bias"][label]))
    assert curvatures == pytest.approx([len(first.train)] * 2, rel=1e-4), "the Jacobian of a bias is 1 for every image"


def test_a_task_of_one_class_has_a_fitted_head_that_is_not_zero(digits: Task, context: WorkerContext) -> None:
    learner = start(digits, context, make_stream_settings("dlcft", "class", tasks=5, head="fitted"))
    learner.learn(learner.stream.stages[0], lambda epoch: None, None, 30.0)
    assert bool(learner.origin["head.weight"].any(dim=1).all())


@pytest.mark.parametrize(
    ("factors", "curvature", "count"), [("keep", "kfac", 2), ("merge", "kfac", 1), ("keep", "diagonal", 1)]
)
def test_curvatures_are_stored_separately_or_summed(
    digits: Task, context: WorkerContext, factors: str, curvature: str, count: int
) -> None:
    settings = make_stream_settings("dlcft", "data", tasks=3, recipe={"curvature": curvature}, factors=factors)
    learner = learn(digits, context, settings)
    assert len(learner.curvatures) == count
    past = learner.stream.train_images_up_to(2)
    assert sum(curvature.samples for curvature in learner.curvatures) == len(past)


def test_decay_and_zaps_do_not_change_rows_of_other_tasks(digits: Task, context: WorkerContext) -> None:
    recipe = {"decay_strength": 0.1, "sp_mix": 0.0, "zap_period": 1}
    learner = start(digits, context, make_stream_settings("finetune", "task", recipe=recipe))
    first, second = learner.stream.stages
    fresh = head_rows(learner, second.classes)
    learner.learn(first, lambda epoch: None, None, 30.0)
    assert torch.equal(head_rows(learner, second.classes), fresh)
    trained = head_rows(learner, first.classes)
    learner.learn(second, lambda epoch: None, None, 30.0)
    assert torch.equal(head_rows(learner, first.classes), trained)
    assert not torch.equal(head_rows(learner, second.classes), fresh)


def test_the_feature_cache_does_not_change_the_result(digits: Task) -> None:
    settings = make_stream_settings("dlcft", "class", recipe={"frozen_depth": 0.34})
    learners = [learn(digits, WorkerContext(digits, cache_frozen_features=on), settings) for on in (True, False)]
    assert torch.allclose(logits(learners[0], digits.split.test), logits(learners[1], digits.split.test), atol=1e-3)


@pytest.mark.parametrize("method", ["dlcft", "ewc", "finetune"])
def test_batchnorm_and_dropout(digits_batchnorm: Task, method: str) -> None:
    """A linearised stream keeps the statistics of theta0; other streams update those of the previous task."""
    context = WorkerContext(digits_batchnorm)
    learner = start(
        digits_batchnorm, context, make_stream_settings(method, "class", recipe={"epochs": 1, "frozen_depth": 0.8})
    )
    for stage in learner.stream.stages:
        learner.learn(stage, lambda epoch: None, None, 30.0)
        learner.consolidate(stage)
    means = [name for name in learner.state if name.endswith("running_mean")]
    assert means
    changed = any(not torch.equal(learner.state[name], learner.origin[name]) for name in means)
    assert changed == (method != "dlcft")


@pytest.mark.parametrize("norm", ["batch", "target"])
def test_features_can_be_standardised(digits: Task, context: WorkerContext, norm: str) -> None:
    learner = learn(
        digits, context, make_stream_settings("dlcft", "class", recipe={"feature_norm": norm, "linearized": False})
    )
    assert bool(logits(learner, digits.split.test).isfinite().all())
    assert "feature_norm.mean" in learner.state
    linear = learn(digits, context, make_stream_settings("dlcft", "class", recipe={"feature_norm": norm}))
    assert torch.equal(linear.state["feature_norm.mean"], linear.origin["feature_norm.mean"])


def test_a_stream_with_a_library_backbone(tmp_path: Any) -> None:
    task = load_task("digits", backbone="squeezenet1_1", weights="none", shots=6, image_size=33)
    learner = learn(
        task, WorkerContext(task), make_stream_settings("dlcft", "class", recipe={"epochs": 1, "frozen_depth": 0.8})
    )
    assert len(learner.curvatures) == 1
