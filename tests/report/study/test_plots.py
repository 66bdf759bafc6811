import re
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree

import pytest

from nbt.metrics import METRICS
from nbt.report.study import plots
from nbt.tuning.storage.records import StudyRecord
from tests.sample_study import (
    CREATED,
    curve,
    diverged_curve,
    empty_study,
    interrupted,
    sample_study,
    trial,
    unfinished_study,
    with_config,
)

ALL = (plots.learning_curves, plots.best_by_cost, plots.cost_front, plots.finalists, plots.importance_bars)
SVG = "{http://www.w3.org/2000/svg}"


def parsed(svg: str | None) -> ElementTree.Element:
    assert svg is not None
    return ElementTree.fromstring(svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def texts(svg: str | None) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}text")]


def tips(svg: str | None) -> list[str]:
    return [element.text or "" for element in parsed(svg).iter(f"{SVG}title")]


def all_drawings(record: StudyRecord) -> list[str]:
    return [svg for svg in (draw(record) for draw in ALL) if svg is not None]


def test_every_line_has_a_tooltip() -> None:
    found = tips(plots.learning_curves(sample_study()))
    assert len(found) == 17, "trial 5 has no epoch"
    assert "trial 12: 71.2 %, full length" in found
    assert "trial 7: \N{EN DASH}, diverged" in found
    assert found[-1].startswith("trial 12"), "the recommended trial is drawn last, on top of the others"


def test_line_styles_distinguish_kinds_of_trials() -> None:
    svg = plots.learning_curves(sample_study())
    assert {"stopped early", "full length", "default recipe", "trial 12, recommended"} <= set(texts(svg))
    for role in ("best", "full", "pruned", "default"):
        assert f"stroke: var(--{role})" in (svg or "")
    assert (svg or "").count("stroke-dasharray") >= 2, "kinds must differ by more than colour"


def test_best_by_cost_shows_the_best_so_far_with_its_noise() -> None:
    svg = plots.best_by_cost(sample_study())
    assert {"best so far", "± 1 standard error", "diverged or failed"} <= set(texts(svg))
    assert len(tips(svg)) == 18
    assert "± 1 standard error" not in texts(plots.best_by_cost(sample_study(noise=None)))


def test_the_front_has_the_trials_that_none_beats_in_value_and_time() -> None:
    quick, good, slow, bad = (
        trial(number, curve=curve(accuracy, seconds=seconds))
        for number, (accuracy, seconds) in enumerate(((0.5, 1.0), (0.7, 2.0), (0.69, 3.0), (0.4, 4.0)))
    )
    diverged = trial(4, curve=diverged_curve())
    stopped = trial(5, "pruned", curve=curve(0.9, epochs=2, seconds=0.1))
    record = sample_study(trials=(slow, bad, good, quick, diverged, stopped), finals=(), recommended=None)
    assert plots.pareto_front(record) == [quick, good]
    assert len(tips(plots.cost_front(record))) == 4
    assert plots.cost_front(sample_study(trials=(good,), finals=(), recommended=None)) is None
    assert {"Pareto front", "trial 12, recommended", "default recipe"} <= set(texts(plots.cost_front(sample_study())))


def test_the_cost_is_that_of_the_trials_that_ended_before() -> None:
    late, early = trial(0, curve=curve(0.5)), trial(1, "pruned", curve=curve(0.3, epochs=4))
    late = replace(late, finished=(early.finished or CREATED) + timedelta(minutes=5))
    trials, spent = plots._ended_trials(empty_study(trials=(late, early)))
    assert ([trial.number for trial in trials], [12 * cost for cost in spent]) == ([1, 0], [4, 16])


def test_interrupted_trial_is_not_drawn() -> None:
    svg = plots.best_by_cost(empty_study(trials=(trial(0, curve=curve(0.5)), interrupted(1))))
    assert tips(svg) == ["trial 0: 50.0 %, full length"]
    assert "diverged or failed" not in texts(svg)


def test_best_so_far_counts_full_length_trials_only() -> None:
    trials = (
        trial(0, "pruned", curve=curve(0.9, epochs=2)),
        trial(1, curve=curve(0.5)),
        trial(2, curve=diverged_curve()),
        trial(3, curve=curve(0.4)),
        trial(4, curve=curve(0.6)),
    )
    numbers, reached = plots._best_so_far(trials, [1, 2, 3, 4, 5], METRICS["accuracy"])
    assert numbers == [2, 3, 4, 5]
    assert reached == [0.5, 0.5, 0.5, 0.6]


def test_finalists_are_named_with_their_means() -> None:
    svg = plots.finalists(sample_study())
    assert {"trial 12", "default recipe", "trial 14"} <= set(texts(svg))
    assert tips(svg)[::-1] == ["trial 12: 70.6 %", "default recipe: 66.1 %", "trial 14: 67.3 %"]


def test_importance_has_one_bar_per_dimension() -> None:
    svg = plots.importance_bars(sample_study())
    assert {"transfer_depth", "41 %", "27 %"} <= set(texts(svg))
    bounds = {"transfer_depth": (0.2, 0.9)}
    assert plots.importance_bars(sample_study(load_importance_bounds=lambda: bounds)) != svg
    many = sample_study(importance={f"d{i}": 0.05 for i in range(20)})
    assert sum(text.startswith("d") for text in texts(plots.importance_bars(many))) == 12


def test_drawings_use_colours_and_fonts_of_the_page() -> None:
    for svg in all_drawings(sample_study()):
        assert not re.search(r"#[0-9a-fA-F]{6}\b", svg), "all colours must come from the page"
        assert "font-family" not in svg
        assert "<style" not in svg
        assert "<metadata" not in svg


def test_drawings_are_readable_on_a_phone() -> None:
    for svg in all_drawings(sample_study()):
        box = re.search(r'viewBox="0 0 ([\d.]+)', svg)
        assert box is not None
        sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", svg)]
        scale = (390 - 32) / float(box[1])
        assert min(sizes) * scale >= 9.0


def test_identifiers_do_not_clash_in_one_page() -> None:
    found = [name for svg in all_drawings(sample_study()) for name in re.findall(r'\bid="([^"]+)"', svg)]
    assert found
    assert len(set(found)) == len(found)
    everything = "".join(all_drawings(sample_study()))
    for used in re.findall(r'(?:url\(#|href="#)([^")]+)', everything):
        assert used in found


def test_drawings_are_reproducible() -> None:
    assert all_drawings(sample_study()) == all_drawings(sample_study())


@pytest.mark.parametrize("draw", ALL)
def test_empty_studies_have_no_drawings(draw: object) -> None:
    assert draw(empty_study()) is None  # type: ignore[operator]
    only_failed = empty_study(trials=(trial(0, "failed", reason="x"), trial(1, curve=diverged_curve()[1:])))
    assert draw(only_failed) is None  # type: ignore[operator]


def test_single_points_are_drawn() -> None:
    record = empty_study(trials=(trial(0, "running", curve=curve(0.4, epochs=1)),))
    assert plots.best_by_cost(record) is None
    assert len(tips(plots.learning_curves(record))) == 1
    assert plots.best_by_cost(empty_study(trials=(trial(0, "pruned", curve=curve(0.4, epochs=1)),))) is not None
    assert all_drawings(unfinished_study())


def test_hostile_names_are_escaped() -> None:
    name = '<script>"$\\frac{1}{0}$ &\n</script>' + "x" * 300
    record = with_config(sample_study(importance={name: 1.0}), name=name)
    for svg in all_drawings(record):
        parsed(svg)
        assert "<script" not in svg
    (label,) = [text for text in texts(plots.importance_bars(record)) if "frac" in text]
    assert label.startswith('<script>"$\\frac{1}{0}$ &')
    assert len(label) < 30


def test_importing_loads_no_matplotlib() -> None:
    code = (
        "import sys, nbt.report.study.plots, nbt.report.study.report_data;"
        "print('matplotlib' in sys.modules, 'pandas' in sys.modules)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]
