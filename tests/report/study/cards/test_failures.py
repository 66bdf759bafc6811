from nbt.report.study.cards.failures import Failures
from tests.report.study.cards.views import content, reason, rendered
from tests.sample_study import curve, empty_study, interrupted, trial


def test_failures_are_grouped_by_reason() -> None:
    failed = [trial(i, "failed", reason="ValueError: x", facts={"traceback": f"T{i}"}) for i in (1, 3)]
    record = empty_study(trials=(failed[0], trial(2, "failed", reason=""), failed[1]))
    assert [(f.reason, f.trials, f.traceback) for f in content(Failures(), record).failures] == [
        ("ValueError: x", "1 and 3", "T3"),
        ("no reason recorded", "2", ""),
    ]
    for kind in ("html", "md"):
        assert "ValueError: x" in rendered(Failures(), record, kind)


def test_interrupted_trial_is_no_failure() -> None:
    record = empty_study(trials=(interrupted(0), trial(1, curve=curve(0.5)), interrupted(2)))
    assert reason(Failures(), record) == "no trial failed"
