"""The techniques of a training, in the order in which their hooks are called."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from nbt.training.recipe.decay import Decay, StagePenalty
from nbt.training.recipe.ema import WeightEMA
from nbt.training.recipe.stall import Stall
from nbt.training.recipe.zapping import Zapping, ZapWarmup
from nbt.training.stage import StageContext
from nbt.transfer.layer_lr import ParameterGroup
from nbt.transfer.technique import HookChain, TrainingHooks, TrainingRun, registered_hooks


def training_hooks(
    run: TrainingRun, groups: Sequence[ParameterGroup], w0: Mapping[str, torch.Tensor], stage: StageContext
) -> HookChain:
    """Returns the hooks of the techniques that the settings of a training use, registered ones included.

    Args:
        run: The training.
        groups: Parameters with their rates and decay.
        w0: Pretrained weights by name.
        stage: The stage of a stream that the training is part of.
    """
    settings = run.settings
    hooks: dict[str, TrainingHooks] = {}
    if settings.zap_period:
        hooks["zapping"] = zapping = Zapping(run, stage.zap_classes)
        if settings.zap_warmup:
            hooks["zap warm-up"] = ZapWarmup(run, zapping)
    if settings.stall:
        hooks["stall"] = Stall(run)
    hooks["decay"] = Decay(run, groups, w0)
    if stage.penalty is not None:
        hooks["penalty"] = StagePenalty(run, stage.penalty)
    hooks |= registered_hooks(run)
    if settings.ema:
        # The average is of the weights after all other changes.
        hooks["EMA"] = WeightEMA(run.parameters, settings.ema)
    return HookChain(hooks)
