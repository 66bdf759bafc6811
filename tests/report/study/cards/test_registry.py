from nbt.report.study.cards.registry import CARDS


def test_the_answer_comes_first() -> None:
    assert CARDS[0].name == "answer"
