"""A new technique: registering it, with its settings and its prior, is all that has to be done.

The technique is gradient noise (Neelakantan et al., arXiv 1511.06807): normal noise of a standard deviation that falls
with the steps is added to the gradients.
"""

from __future__ import annotations

import dataclasses
import json
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import nbt
from nbt.errors import UsageError
from nbt.report.settings_table import flat_settings, recipe_summary, setting_descriptions
from nbt.report.study.cards.recipe import setting_rows
from nbt.seeds import generator
from nbt.settings import SETTINGS, FieldRule, Setting, Technique, TransferSettings, register, repair, unregister
from nbt.task.task import Task
from nbt.training.fine_tune import fine_tune
from nbt.transfer.technique import TrainingHooks, TrainingRun
from nbt.tuning.experience.recorded_table import RecordedRun
from nbt.tuning.priors.activation import activate_priors
from nbt.tuning.priors.prior import Prior, PriorSuggestion
from nbt.tuning.priors.registry import register_prior, unregister_prior
from nbt.tuning.priors.statement import near, setting
from nbt.tuning.space.applicability import applicable_space
from nbt.tuning.space.encoding import coordinate_names, encode
from nbt.tuning.space.sampling import sample_many_params
from nbt.tuning.space.space import Space
from nbt.tuning.storage.codec import settings_hash
from nbt.tuning.target import Target

# --- The file of the technique in `nbt/transfer` -----------------------------------------------------------------


class GradientNoise(TrainingHooks):
    """Adds normal noise to the gradients."""

    def __init__(self, run: TrainingRun) -> None:
        self._run, self._step = run, 0
        self._scale, self._decay = run.settings.value("gradient_noise"), run.settings.value("gradient_noise_decay")

    def before_step(self, step: int) -> None:
        self._step = step

    def after_backward(self, factor: float) -> None:
        rng = generator(self._run.seed, "gradient noise", self._step)
        std = self._scale / (1 + self._step) ** self._decay
        for parameter in self._run.parameters:
            if parameter.grad is not None:
                parameter.grad += std * torch.randn(parameter.shape, generator=rng).to(parameter.grad)


def repair_gradient_noise(settings: TransferSettings) -> TransferSettings:
    return settings if settings.value("gradient_noise") else settings.replace(gradient_noise_decay=0.55)


GRADIENT_NOISE = Technique(
    name="gradient noise",
    source="Neelakantan et al. 2015, arXiv 1511.06807",
    settings=(
        Setting(
            name="gradient_noise",
            rule=FieldRule(0.0, 10.0),
            default=0.0,
            text="Standard deviation of the noise on the gradients at the first step; 0 disables it.",
            technique="gradient noise",
            label="noise {:g}",
            since="9.9",
        ),
        Setting(
            name="gradient_noise_decay",
            rule=FieldRule(0.0, 2.0),
            default=0.55,
            text="Exponent with which the noise falls with the steps.",
            technique="gradient noise",
            since="9.9",
        ),
    ),
    hooks=GradientNoise,
    repair=repair_gradient_noise,
    coordinates={"gradient_noise": lambda settings: settings.value("gradient_noise")},
    applies=lambda task: task.scenario is None,
)

# --- Its prior ---------------------------------------------------------------------------------------------------

PRIOR = Prior(
    name="little noise",
    source="Neelakantan et al. 2015, arXiv 1511.06807",
    dimensions=("gradient_noise",),
    needs=(),
    strength=0.5,
    suggest=lambda target: PriorSuggestion(
        (near(setting("gradient_noise", low=0.0), 0.01, 0.1),), "the paper starts at 0.01"
    ),
)

# --- Its test ----------------------------------------------------------------------------------------------------

SPACE = """
dimensions:
  head_lr: {kind: float, low: 0.001, high: 0.1, log: true, neutral: 0.01}
  gradient_noise: {kind: float, low: 0, high: 1, neutral: 0}
"""
QUICK = TransferSettings(epochs=2, head_lr=0.1, body_lr=0.05, batch_size=16)


@pytest.fixture(scope="module")
def digits() -> Task:
    return nbt.load_task("digits", backbone="conv3(width=8)", weights="none", shots=24)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(GRADIENT_NOISE)
    register_prior(PRIOR)
    yield
    unregister_prior(PRIOR)
    unregister(GRADIENT_NOISE.name)


def losses(task: Task, settings: TransferSettings, **options: Any) -> list[float]:
    return [epoch.train_loss for epoch in fine_tune(task, settings, **options)]


class TestSettings:
    def test_yaml_and_errors(self) -> None:
        settings = TransferSettings.from_yaml("gradient_noise: 0.5\nhead_lr: 0.1")
        assert settings.value("gradient_noise") == 0.5 and settings.value("gradient_noise_decay") == 0.55
        assert TransferSettings.from_yaml(settings.to_yaml()) == settings != TransferSettings(head_lr=0.1)
        with pytest.raises(UsageError, match=r"gradient_noise: -1 is outside 0 \.\.\. 10"):
            TransferSettings.from_yaml("gradient_noise: -1")
        with pytest.raises(UsageError, match="did you mean gradient_noise"):
            TransferSettings.from_yaml("gradient_nois: 1")

    def test_neutral_settings_are_stored_nowhere(self) -> None:
        neutral = TransferSettings(gradient_noise=0.1).replace(gradient_noise=0.0)
        unregister(GRADIENT_NOISE.name)
        before = TransferSettings()
        assert neutral == before and neutral.to_dict() == before.to_dict()
        assert settings_hash(neutral) == settings_hash(before) == "8eea6e92b2a3ab7a"
        register(GRADIENT_NOISE)

    def test_repair(self) -> None:
        assert repair(TransferSettings(gradient_noise_decay=1.0)) == TransferSettings()
        used = TransferSettings(gradient_noise=0.1, gradient_noise_decay=1.0)
        assert repair(used) == used

    def test_pickling_imports_the_module_that_registers_the_technique(self, tmp_path: Path) -> None:
        """As in a worker process, which knows nothing of the technique."""
        (tmp_path / "noise_technique.py").write_text(
            "from nbt.settings import FieldRule, Setting, Technique, register\n"
            "def hooks(run): ...\n"
            "NOISE = Setting(name='noise', rule=FieldRule(0, 1), default=0.0, text='Noise.', technique='n')\n"
            "register(Technique(name='n', source='', settings=(NOISE,), hooks=hooks))\n"
        )
        paths = [str(tmp_path), *sys.path]
        write = "import sys, pickle, noise_technique; from nbt.settings import TransferSettings as T;"
        read = "import sys, pickle;"
        common = {"check": True, "capture_output": True, "env": {"PYTHONPATH": ":".join(paths)}}
        pickled = subprocess.run(
            [sys.executable, "-c", f"{write} sys.stdout.buffer.write(pickle.dumps(T(noise=0.5)))"], **common
        ).stdout
        code = f"{read} print(pickle.loads(bytes.fromhex('{pickled.hex()}')).value('noise'))"
        assert subprocess.run([sys.executable, "-c", code], **common).stdout.decode().strip() == "0.5"

    def test_a_name_that_exists_is_refused(self) -> None:
        taken = dataclasses.replace(GRADIENT_NOISE.settings[0], name="head_lr", technique="other")
        with pytest.raises(UsageError, match="head_lr: the name is already taken"):
            register(dataclasses.replace(GRADIENT_NOISE, name="other", settings=(taken,)))
        with pytest.raises(UsageError, match="already registered"):
            register(GRADIENT_NOISE)


class TestSearchSpace:
    def test_a_space_varies_the_setting_and_describes_it_with_its_text(self, digits: Task) -> None:
        space = Space.parse(SPACE, source="noise.yaml")
        assert space.dimensions[1].description == GRADIENT_NOISE.settings[0].text
        proposals = [space.settings(params, 2) for params in sample_many_params(space, np.random.default_rng(0), 50)]
        values = [settings.value("gradient_noise") for settings in proposals]
        assert min(values) < 0.2 and max(values) > 0.8
        assert all(space.settings(space.params(settings), 2) == settings for settings in proposals)
        assert applicable_space(space, digits) is space
        stream = dataclasses.replace(digits, scenario="data", tasks=2)
        assert [d.name for d in applicable_space(space, stream).dimensions] == ["head_lr"]

    def test_the_encoding_has_its_coordinate_last(self) -> None:
        points = encode([TransferSettings(), TransferSettings(gradient_noise=0.5)])
        assert coordinate_names()[-1] == "gradient_noise"
        assert points[:, -1].tolist() == [0.0, 0.5]
        assert np.array_equal(points[0, :-1], points[1, :-1])

    def test_its_prior_suggests_it(self) -> None:
        [activation] = activate_priors(Target(epochs=2), ["gradient_noise"])
        assert activation.suggestion is not None
        words = "gradient_noise is about 0.01 (0 to 0.11): the paper starts at 0.01"
        assert activation.suggestion.words == words
        little, much = (activation.suggestion.log_density(QUICK.replace(gradient_noise=x)) for x in (0.01, 0.5))
        assert little > much


class TestTraining:
    def test_it_changes_the_training_and_neutral_settings_do_not(self, digits: Task) -> None:
        plain, noisy = losses(digits, QUICK), losses(digits, QUICK.replace(gradient_noise=1.0))
        assert losses(digits, QUICK.replace(gradient_noise=0.0)) == plain != noisy
        unregister(GRADIENT_NOISE.name)
        assert losses(digits, QUICK) == plain
        register(GRADIENT_NOISE)

    def test_a_resumed_training_is_equal(self, digits: Task, tmp_path: Path) -> None:
        settings, path = QUICK.replace(gradient_noise=0.1), tmp_path / "trial.pt"
        whole = losses(digits, settings)
        next(fine_tune(digits, settings, checkpoint=path, checkpoint_seconds=0))
        assert losses(digits, settings, checkpoint=path) == whole[1:]

    def test_settings_of_a_technique_that_is_not_registered_are_refused(self, digits: Task) -> None:
        settings = QUICK.replace(gradient_noise=0.1)
        unregister(GRADIENT_NOISE.name)
        with pytest.raises(UsageError, match=r"gradient_noise: .*not registered"):
            next(fine_tune(digits, settings))
        register(GRADIENT_NOISE)


class TestRecords:
    def test_tables_and_summaries_have_it(self) -> None:
        settings = TransferSettings(gradient_noise=0.25)
        assert flat_settings(settings)["gradient_noise"] == 0.25
        assert setting_descriptions()["gradient_noise"] == GRADIENT_NOISE.settings[0].text
        assert recipe_summary(settings).endswith("noise 0.25")
        run = RecordedRun(setting=0, seed=0, origin="", settings=settings, curve=(), setup_seconds=0.0)
        assert run.to_row()["gradient_noise"] == 0.25

    def test_a_search_varies_reports_and_tracks_it(
        self, digits: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "noise.yaml").write_text(SPACE)
        (tmp_path / "none").mkdir()
        uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
        result = nbt.search(
            digits, space="noise.yaml", budget=4, epochs=2, final_seeds=2, study="s", experience=tmp_path / "none",
            tracking_uri=uri,
        )  # fmt: skip
        values = {trial.settings.value("gradient_noise") for trial in result.record.trials}
        assert set(result.trials["gradient_noise"]) == values
        assert len(values) > 1
        # The report has the settings of the recommendation, which may be the default recipe.
        rows = {row.name: row.meaning for row in setting_rows(TransferSettings(gradient_noise=0.1), TransferSettings())}
        assert GRADIENT_NOISE.settings[0].text in rows["gradient_noise"]
        with sqlite3.connect(tmp_path / "mlflow.db") as database:
            tracked = database.execute("select value from params where key = 'gradient_noise'").fetchall()
        assert {value for (value,) in tracked} == {str(value) for value in values}


def test_it_unregisters_without_a_trace() -> None:
    names, coordinates = tuple(SETTINGS), coordinate_names()
    unregister(GRADIENT_NOISE.name)
    assert tuple(SETTINGS) == names[:-2] and coordinate_names() == coordinates[:-1]
    with pytest.raises(TypeError, match="gradient_noise"):
        TransferSettings(gradient_noise=0.1)
    assert json.loads(json.dumps(TransferSettings().to_dict())).keys() <= set(SETTINGS)
    assert pickle.loads(pickle.dumps(TransferSettings())) == TransferSettings()
    register(GRADIENT_NOISE)
