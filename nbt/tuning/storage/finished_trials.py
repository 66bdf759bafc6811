"""The trials of a study that have finished since they were last asked for."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.trial import FrozenTrial


class FinishedTrials:
    """Returns every finished trial of a growing study once.

    A call takes time in proportion to the number of new and unfinished trials, not to that of all trials.

    Attributes:
        unfinished: The trials that had not finished at the last call, in the order of their numbers.
    """

    def __init__(self) -> None:
        self.unfinished: list[FrozenTrial] = []
        self._n_known = 0

    def update(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Returns the trials that have finished since the last call, in the order of their numbers.

        Args:
            trials: All trials of the study, in the order of their numbers.
        """
        open_trials = [trials[trial.number] for trial in self.unfinished]
        open_trials += trials[self._n_known :]
        self._n_known = len(trials)
        self.unfinished = [trial for trial in open_trials if not trial.state.is_finished()]
        return [trial for trial in open_trials if trial.state.is_finished()]
