"""Linearised fine-tuning."""

from __future__ import annotations

from tests.tuning.priors.suggestions import BASE, suggestion
from tests.tuning.synthetic import target


class TestExpansionWhenFewImages:
    NAME = "the expansion when images are few"

    def loss(self, images: int) -> float:
        log_density = suggestion(self.NAME, target(train_images=images)).log_density
        linear = BASE.replace(linearized=True, target_scale=1.0)
        return log_density(BASE) - log_density(linear)

    def test_the_network_is_preferred_and_more_so_with_many_images(self) -> None:
        assert 0.0 < self.loss(40) < self.loss(400) < self.loss(4000)

    def test_squared_error_is_for_the_expansion(self) -> None:
        log_density = suggestion(self.NAME, target()).log_density
        assert log_density(BASE) > log_density(BASE.replace(target_scale=1.0))
        assert log_density(BASE.replace(linearized=True, target_scale=1.0)) > log_density(BASE.replace(linearized=True))
