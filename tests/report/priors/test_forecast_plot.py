from xml.etree import ElementTree

from nbt.report.priors.forecast_plot import unpromising_trials
from tests.sample_study import empty_study, forecast, sample_study, study_with_priors, trial

SVG = "{http://www.w3.org/2000/svg}"


def element_texts(svg: str | None, kind: str) -> list[str]:
    assert svg is not None
    page = ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))
    return [element.text or "" for element in page.iter(f"{SVG}{kind}")]


def test_every_trial_has_a_tooltip_with_its_outcome() -> None:
    svg = unpromising_trials(study_with_priors())
    tips = element_texts(svg, "title")
    assert len(tips) == 10
    assert "trial 4, stopped: forecast 50.0 % after epoch 2, to beat 66.1 %" in tips
    assert "trial 10, control: forecast 58.0 % after epoch 4, to beat 65.0 %, reached 65.5 %" in tips


def test_decisions_are_distinguished_by_dashes() -> None:
    svg = unpromising_trials(study_with_priors())
    names = {"stopped: 80 % interval", "control, not stopped", "baseline recipe", "accuracy to beat"}
    assert names | {"accuracy reached"} <= set(element_texts(svg, "text"))
    assert (svg or "").count("stroke-dasharray") >= 9


def test_without_forecasts_there_is_nothing_to_draw() -> None:
    assert unpromising_trials(sample_study()) is None
    assert unpromising_trials(empty_study()) is None
    promising = trial(0, facts={"forecast": forecast(0.7, last=4)})
    assert unpromising_trials(empty_study(trials=(promising,))) is None


def test_labels_of_many_trials_do_not_overlap() -> None:
    stopped = {"forecast": forecast(0.5, last=2, would_stop=2)}
    svg = unpromising_trials(empty_study(trials=tuple(trial(i, "pruned", facts=stopped) for i in range(100))))
    numbers = [text for text in element_texts(svg, "text") if text.isdigit()]
    assert numbers[0] == "0"
    assert len(numbers) <= 12
