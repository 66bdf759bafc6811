"""The injection of a teacher."""

from __future__ import annotations

import pytest

from nbt.tuning.storage.codec import TLI_SIMILARITIES, TLI_SIMILARITY
from nbt.tuning.target import Target
from tests.tuning.priors.suggestions import NO_REASON, best, grid, inactivity_reason, suggestion
from tests.tuning.synthetic import target


class TestInjectBySimilarity:
    NAME = "inject by similarity"

    def on(self, similarity: float) -> Target:
        return target(**{TLI_SIMILARITY: similarity})

    @pytest.mark.parametrize(("similarity", "init"), [(0.9, "inject"), (0.45, "inject"), (0.3, "pretrained")])
    def test_similar_teachers_are_injected_and_others_not(self, similarity: float, init: str) -> None:
        assert best(self.NAME, self.on(similarity), grid("init", "pretrained", "inject")) == init

    def test_in_between_it_is_not_active(self) -> None:
        """The published threshold .5 is .38 on the scale of nbt."""
        assert inactivity_reason(self.NAME, self.on(0.38)) == NO_REASON


class TestInjectTheMostSimilar:
    NAME = "inject the most similar"

    def on(self, **similarities: float) -> Target:
        return target(**{TLI_SIMILARITIES: similarities})

    def test_the_most_similar_teacher_is_preferred(self) -> None:
        injections = grid("teacher", "a", "b", "c", init="inject")
        assert best(self.NAME, self.on(a=0.2, b=0.7, c=0.5), injections) == "b"

    def test_its_statement_names_the_teacher_and_none(self) -> None:
        (statement,) = suggestion(self.NAME, self.on(a=0.2, b=0.7)).statements
        assert statement.text == "teacher is none or b"

    def test_its_statement_names_files_without_their_folder(self) -> None:
        names = ("conv3=/home/me/a.pth", "conv3=/home/me/b.pth")
        (statement,) = suggestion(self.NAME, self.on(**dict(zip(names, (0.2, 0.7), strict=True)))).statements
        assert statement.text == "teacher is none or conv3=b.pth"
        dissimilar, similar = grid("teacher", *names, init="inject").values()
        assert not statement.holds(dissimilar) and statement.holds(similar)
        assert statement.value_text(dissimilar) == "conv3=a.pth"

    def test_teachers_of_equal_similarity_are_not_told_apart(self) -> None:
        assert inactivity_reason(self.NAME, self.on(a=0.7, b=0.69)) == NO_REASON
