from __future__ import annotations

import numpy as np
import pytest

from nbt.report.study.calibration import calibration_sentence, study_calibration, study_temperature
from nbt.training.calibration import fit_temperature
from nbt.training.metrics import Predictions
from tests.sample_study import sample_study
from tests.training.test_calibration import drawn


def test_the_temperature_is_that_of_the_recommended_final_runs() -> None:
    keys: list[str] = []

    def load(key: str) -> Predictions:
        keys.append(key)
        return drawn(300, 2.0, seed=len(keys))

    assert study_temperature(sample_study(load_predictions=load)) == fit_temperature(
        [drawn(300, 2.0, seed=seed) for seed in range(1, 6)]
    )
    assert len(set(keys)) == 5
    assert all(key.startswith("final:") for key in keys)


def test_the_sentence_has_both_errors() -> None:
    record = sample_study(load_predictions=lambda _: drawn(500, 2.5))
    calibration = study_calibration(record)
    assert calibration is not None
    assert calibration.ece > calibration.ece_calibrated
    sentence = calibration_sentence(record)
    assert f"temperature {calibration.temperature:.2f}, fitted on the validation images of 5 final runs" in sentence
    assert f"{100 * calibration.ece:.1f} %" in sentence


def test_studies_without_predictions_have_temperature_1() -> None:
    record = sample_study()
    assert study_temperature(record) == 1.0
    assert study_calibration(record) is None
    assert "temperature 1" in calibration_sentence(record)
    assert calibration_sentence(sample_study(test=())) == ""


def test_without_final_predictions_the_test_error_is_still_given() -> None:
    record = sample_study(load_predictions=lambda key: drawn(300, 2.0) if key.startswith("test:") else None)
    calibration = study_calibration(record)
    assert calibration is not None
    assert calibration.temperature == 1.0
    assert calibration.ece == pytest.approx(calibration.ece_calibrated)
    assert "not calibrated" in calibration_sentence(record)
    assert np.isfinite(calibration.ece)
