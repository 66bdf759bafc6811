"""The card "hardware": where the trials ran, and the workers that were lost."""

from __future__ import annotations

from nbt.report.formatting import TemplateData
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.hardware import hardware_section
from nbt.report.table import Column, table_of


class Hardware(Card):
    """Nodes and GPUs of the search."""

    name = "hardware"
    title = "Hardware"
    is_folded = True

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns a table of the locations, and the lost workers."""
        section = hardware_section(study.record)
        if not section.rows and not section.lost_workers:
            return NotApplicable("all trials ran in one place and lost no worker")
        locations = table_of(
            "Locations of the trials",
            section.rows,
            node=Column("node", "w"),
            gpu=Column("GPU", "w"),
            trials=Column("trials", "n"),
            failed=Column("failed", "n wide"),
            workers_lost=Column("workers lost", "n wide"),
            epochs=Column("epochs", "n wide"),
            training=Column("training", "n"),
            utilisation=Column("utilisation", "n"),
        )
        return TemplateData(locations=locations if section.rows else None, lost_workers=section.lost_workers)
