import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nbt.report.study.render import render_html, render_markdown
from nbt.report.study.report_data import build_report
from nbt.report.templating import escape_markdown, fenced
from nbt.tuning.storage.records import StudyRecord
from tests.fit_profiles import profile_dict
from tests.sample_study import (
    config,
    empty_study,
    evaluated_study,
    finals,
    forecast,
    sample_study,
    source,
    spread_study,
    stored_diagnostics,
    study_with_priors,
    trial,
    unfinished_study,
    with_config,
)

HOSTILE = '"><script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)> `x` |a|b| *c* [d](http://e)'
VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects tags, attributes and text of a page, and checks that every element is closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split()).replace("\N{NO-BREAK SPACE}", " ")


def html(record: StudyRecord, *, has_model: bool = False) -> str:
    return render_html(build_report(record, Path("reports/x"), has_model=has_model))


def markdown(record: StudyRecord, *, has_model: bool = False) -> str:
    return render_markdown(build_report(record, Path("reports/x"), has_model=has_model))


@pytest.mark.parametrize("record", [sample_study(), unfinished_study(), empty_study()])
def test_headline_comes_first(record: StudyRecord) -> None:
    answer = build_report(record, Path("x")).headline
    page = Page(html(record))
    before, _, _ = page.text.partition(answer)
    assert answer in page.text
    assert "Validation accuracy" not in before
    text = markdown(record)
    assert text.splitlines()[4] == f"**{escape_markdown(answer)}**"


def test_both_reports_contain_the_same_facts() -> None:
    page, text = Page(html(sample_study())).text, markdown(sample_study())
    for fact in (
        "4.5 points better than the default recipe (95 % interval +4.1 to +4.9)",
        "69.5 % test accuracy (95 % interval 66.8–72.1 %, 1174 images)",  # noqa: RUF001 - a range
        "evaluated once, after the final selection",
        "14 full-length trials = 168 epochs",
        "130 of 168 (77 %)",
        "selected among 10 full-length trials",
        "worse than trial 12 after 3 seeds",
        "rank 5 of 6 after 4 epochs",
        "OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB",
        "1 image could not be read and was left out: birds/broken.jpg (truncated)",
        "a hint, not a finding",
        "--settings reports/x/recommended.yaml",
    ):
        assert fact in page, fact
        assert fact in text, fact


def test_the_result_by_class_is_in_both_reports() -> None:
    few = evaluated_study(classes=4)
    for text in (Page(html(few)).text, markdown(few)):
        for fact in ("always guessing the largest class 25.0 %", "macro F1", "bird 3", "by true class (rows)"):
            assert fact in text, fact
        assert "test_confusion.csv has all" not in text
    many = evaluated_study(classes=100, images=4000)
    for text in (Page(html(many)).text, markdown(many).replace("`", "")):
        for fact in ("weakest of 100 classes; test_classes.csv has all", "errors; test_confusion.csv has all"):
            assert fact in text, fact
        assert "by true class (rows)" not in text
    assert len(html(many)) < len(html(sample_study())) + 25_000


def test_hardware_section_for_several_locations() -> None:
    page, text = Page(html(spread_study())).text, markdown(spread_study())
    assert "## Hardware" in text
    table = "Trials of the search by the location where they ended."
    for fact in (table, "0 (NVIDIA H200)", "Trial 8 lost a worker on beta, GPU 1: its node was lost."):
        assert fact in page, fact
        assert fact in text, fact
    assert text.count("| beta, GPU 0 |") == 6
    assert page.count("beta, GPU 0 ") >= 6
    assert "NVIDIA H200, bf16 on 3 GPUs of 2 nodes" in page
    for render in (html, markdown):
        assert "Trials of the search by the location" not in render(sample_study())
        assert "ran on |" not in render(sample_study()) and ">ran on<" not in render(sample_study())


def test_lost_worker_in_a_single_location_has_no_table() -> None:
    lost = [{"node": "alpha", "device": "cpu", "reason": "worker process died"}]
    record = sample_study(trials=(trial(0, facts={"node": "alpha", "device": "cpu", "lost_workers": lost}),))
    for text in (Page(html(record)).text, markdown(record)):
        assert "Trial 0 lost a worker on alpha: worker process died." in text
        assert "workers lost" not in text


def test_many_locations_are_collapsed() -> None:
    listed = tuple(trial(i, facts={"node": f"node{i:02d}", "device": "cpu"}) for i in range(40))
    for text in (html(sample_study(trials=listed)), markdown(sample_study(trials=listed))):
        assert text.count("<summary>25 more</summary>") == 2
        assert "node39" in text


def test_page_is_self_contained() -> None:
    text = html(sample_study())
    for tag, attributes in Page(text).tags:
        assert tag not in ("script", "iframe", "object", "embed", "img", "image")
        for name in ("src", "href", "xlink:href", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith(("#", "data:")), f"{tag} {name}={value}"
    assert "url(http" not in text
    assert "@import" not in text
    policy = next(a["content"] for t, a in Page(text).tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'")


def test_page_contains_drawings_and_tables() -> None:
    page = Page(html(sample_study()))
    labels = [a.get("aria-label") for tag, a in page.tags if tag == "svg"]
    assert labels == [
        "Finalists with their intervals",
        "Validation accuracy of each trial",
        "Learning curves of all trials",
        "Importance of the settings",
    ]
    assert sum(tag == "table" for tag, _ in page.tags) == 6


def test_many_trials_are_collapsed() -> None:
    record = sample_study(trials=tuple(trial(i, "failed", reason=f"reason {i}") for i in range(40)), finals=())
    page = html(record)
    assert "25 more" in page
    assert page.count('<span class="badge failed">failed</span>') == 40
    text = markdown(record)
    assert "<summary>25 more</summary>" in text
    assert "| 39 | failed |" in text


def test_model_is_mentioned_only_if_it_exists() -> None:
    for render in (html, markdown):
        assert "nbt predict" in render(sample_study(), has_model=True)
        assert "nbt predict" not in render(sample_study())


def test_hostile_text_is_escaped() -> None:
    hostile = {"device": HOSTILE, "node": HOSTILE, "gpu_index": HOSTILE, "gpu": HOSTILE}
    hostile["lost_workers"] = [{"node": HOSTILE, "reason": HOSTILE}]  # type: ignore[assignment]
    failed = trial(3, "failed", reason=HOSTILE, origin=HOSTILE, facts={"traceback": HOSTILE, **hostile})
    last_forecast = forecast(0.5, last=4, would_stop=4)
    stopped = trial(6, "pruned", reason=HOSTILE, facts={"forecast": last_forecast})
    diagnostics = {
        "sources": [source(HOSTILE, 0.3, 0.6)],
        "silent": [{"name": HOSTILE, "reason": HOSTILE}],
        "tables": [HOSTILE],
    }
    record = sample_study(
        trials=(*sample_study().trials[:3], failed, stopped),
        prior_diagnostics=diagnostics,
        pruner=HOSTILE,
        notes=(HOSTILE,),
        importance={HOSTILE: 1.0},
        verdict=HOSTILE,
        finals=(finals()[0], finals()[1].__class__(**{**vars(finals()[1]), "dropped": HOSTILE})),
    )
    record = with_config(record, name=HOSTILE, dataset=HOSTILE, backbone=HOSTILE, space=HOSTILE, weights=HOSTILE)
    page = Page(html(record))
    assert HOSTILE in " ".join(page.words)
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    text = markdown(record)
    outside = re.sub(r"^(`{3,})\n.*?^\1\n", "", text, flags=re.S | re.M)
    assert not re.search(r"(?<!\\)<(script|img)", outside)
    assert not re.search(r"(?<!\\)\]\(http", outside)


def test_tables_in_markdown_keep_their_columns() -> None:
    stopped = trial(1, "pruned", reason="c | d", facts={"forecast": forecast(0.5, last=2, would_stop=2)})
    listed = (trial(0, "failed", reason="a | b\nc", origin="x|y"), stopped)
    diagnostics = {"sources": [source("a | b", 0.1, 0.2)]}
    record = sample_study(trials=listed, prior_diagnostics=diagnostics)
    lines = markdown(record).splitlines()
    blocks: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("|"):
            blocks[-1].append(line)
        elif blocks[-1]:
            blocks.append([])
    tables = [block for block in blocks if block]
    assert len(tables) == 8
    for table in tables:
        assert set(table[1]) <= set("|-: ")
        columns = {len(re.findall(r"(?<!\\)\|", row)) for row in table}
        assert len(columns) == 1, table


def test_markdown_escapes_markup() -> None:
    assert escape_markdown("a|b `c` *d* <e> [f] \\") == "a\\|b \\`c\\` \\*d\\* \\<e\\> \\[f\\] \\\\"
    assert escape_markdown("val_accuracy _x_") == "val_accuracy \\_x\\_"
    assert escape_markdown("a\n# b & c") == "a # b &amp; c"
    assert escape_markdown(3) == 3


def test_fences_are_longer_than_those_inside() -> None:
    assert fenced("a") == "```\na\n```"
    assert fenced("a\n```\nb") == "````\na\n```\nb\n````"


def test_fit_section_requires_a_profile() -> None:
    record = sample_study(profile=profile_dict(left_out={"leep": "no <head>"}))
    page, text = Page(html(record)), markdown(record)
    for rendered in (page.text, text):
        assert "Fit of the pretrained weights" in rendered
        assert "the profile suggests transferring all units" in rendered
        assert "60.0 % ± 1.5" in rendered
        assert "Uncertainty: ± is one binomial standard error over 1000 training images" in rendered
        assert "fit.json" in rendered
    assert "Not measured: LEEP: no <head>" in page.text
    assert "Not measured: LEEP: no \\<head\\>" in text
    assert "unit 5, features.4: 60.0 % ± 1.5, pretrained weights" in page.text
    random = sample_study(profile=profile_dict(), config=config(weights="none"))
    for rendered in (Page(html(random)).text, markdown(random)):
        assert "Fit of the initial weights" in rendered
        assert "It starts from random weights" in rendered
    for rendered in (Page(html(sample_study())).text, markdown(sample_study())):
        assert "Fit of the" not in rendered
        assert "fit.json" not in rendered


def test_both_reports_contain_priors_and_pruning() -> None:
    record = study_with_priors(profile=profile_dict())
    page, text = Page(html(record)), markdown(record)
    for fact in (
        "Priors",
        "3 priors were active, 1 was inactive.",
        "The experience consisted of 2 recorded tasks: sketch7 and digits.",
        "transfer up to the knee: proposal of transfer up to the knee",
        "+0.30 ± 0.40",
        "+0.62 (n = 10)",
        "contradicted",
        "rates by shift: not measured: statistics shift by unit",
        "Pruning",
        "7 trials were stopped early (pruner fit), which saved 64 epochs",
        "a false-stop rate of 50.0 % (95 % Wilson interval 9.5–90.5 %)",  # noqa: RUF001 - a range
        "5 of 6 full-length trials",
        "rank 5 of 6 after 4 epochs",
        "45.0–55.0 %",  # noqa: RUF001 - a range
        "control, not stopped",
        "65.5 %, beat it",
        "last forecast",
        "Correlation of the measures with accuracy",
        "at frozen depth",
        "not a random sample of settings",
    ):
        assert fact in page.text, fact
        assert fact in text, fact
    labels = [attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg"]
    assert "Forecasts of the unpromising trials" in labels


def test_study_without_priors_has_no_empty_tables() -> None:
    for rendered in (Page(html(sample_study())).text, markdown(sample_study())):
        assert "The search used no priors" in rendered
        assert "7 trials were stopped early (pruner asha), which saved 64 epochs" in rendered
        assert "last forecast" not in rendered
        assert "weight before" not in rendered


def test_many_unpromising_trials_are_collapsed() -> None:
    stopped = {"forecast": forecast(0.5, last=2, would_stop=2)}
    record = sample_study(
        trials=tuple(trial(i, "pruned", facts=stopped) for i in range(40)),
        finals=(),
        prior_diagnostics=stored_diagnostics(),
    )
    assert html(record).count("<td>stopped</td>") == 40
    assert markdown(record).count("| stopped |") == 40
    assert html(record).count("25 more") == markdown(record).count("25 more") == 2


@pytest.mark.parametrize("stored", [{"sources": [{}], "silent": [{}], "tables": [None]}, {"sources": 3}, {"x": 1}])
def test_damaged_diagnostics_do_not_prevent_the_report(stored: dict[str, object]) -> None:
    damaged = trial(0, "pruned", facts={"forecast": {"rows": [[None]], "control": "x"}})
    record = sample_study(prior_diagnostics=stored, trials=(*sample_study().trials[1:], damaged))
    for rendered in (Page(html(record)).text, markdown(record)):
        assert "Priors" in rendered
        assert "nan" not in rendered
