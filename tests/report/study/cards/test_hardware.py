from nbt.report.study.cards.hardware import Hardware
from tests.report.study.cards.views import content, reason, rendered
from tests.sample_study import sample_study, spread_study, trial


def test_several_locations() -> None:
    for kind in ("html", "md"):
        text = rendered(Hardware(), spread_study(), kind)
        assert "Trials of the search by the location where they ended." in text
        assert "0 (NVIDIA H200)" in text
        assert "Trial 8 lost a worker on beta, GPU 1: its node was lost." in text
    assert "in one place" in reason(Hardware(), sample_study())


def test_lost_worker_in_a_single_location_has_no_table() -> None:
    lost = [{"node": "alpha", "device": "cpu", "reason": "worker process died"}]
    record = sample_study(trials=(trial(0, facts={"node": "alpha", "device": "cpu", "lost_workers": lost}),))
    card = content(Hardware(), record)
    assert card.locations is None
    assert card.lost_workers == ("Trial 0 lost a worker on alpha: worker process died.",)


def test_many_locations_are_folded() -> None:
    listed = tuple(trial(i, facts={"node": f"node{i:02d}", "device": "cpu"}) for i in range(40))
    for kind in ("html", "md"):
        text = rendered(Hardware(), sample_study(trials=listed), kind)
        assert "<summary>25 more</summary>" in text and "node39" in text
