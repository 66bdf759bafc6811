"""A search whose database has many other studies."""

from __future__ import annotations

import shutil
from pathlib import Path

from faults.forked import call
from faults.kinds.base import Attempt
from faults.kinds.signals import KillDriver
from faults.search import STUDY

STUDIES = 50


class ManyStudies(KillDriver):
    """SIGKILL to a process whose database has 50 other studies, all of which must stay as they are."""

    kind = "SIGKILL beside 50 studies"
    phases = ("prepare", "trials", "finals", "train", "report")
    workers = (1,)
    goal = 1

    def arrange(self, attempt: Attempt) -> None:
        search = attempt.search
        template = search.folder.parent / "many.db"
        if not template.exists():
            call(_copy_study, search.folder.parent / "warm-up" / "work" / ".nbt" / "studies.db", template)
        search.database.parent.mkdir(exist_ok=True)
        shutil.copy(template, search.database)
        self._before = call(_contents, search.database)

    def finished(self, attempt: Attempt) -> list[str]:
        found = call(_contents, attempt.search.database)
        changed = [name for name, contents in self._before.items() if found.get(name) != contents]
        return [f"other studies were changed: {', '.join(changed)}"] if changed else []


def _copy_study(source: Path, target: Path) -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for number in range(STUDIES):
        optuna.copy_study(
            from_study_name=STUDY,
            from_storage=f"sqlite:///{source}",
            to_storage=f"sqlite:///{target}",
            to_study_name=f"other-{number}",
        )


def _contents(database: Path) -> dict[str, list[object]]:
    """Returns the trials of all other studies of a database, by name."""
    import optuna

    studies = optuna.get_all_study_names(f"sqlite:///{database}")
    return {
        name: [
            (trial.number, trial.state.name, trial.values, trial.params, trial.user_attrs)
            for trial in optuna.load_study(study_name=name, storage=f"sqlite:///{database}").trials
        ]
        for name in studies
        if name != STUDY
    }
