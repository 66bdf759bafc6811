"""The card "recommended recipe": what differs from the default recipe; all settings are folded."""

from __future__ import annotations

from nbt.report.formatting import TemplateData, format_number
from nbt.report.settings_table import flat_settings, setting_descriptions
from nbt.report.stored_values import mappings_at
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.recommendation import default_recipe_settings
from nbt.report.study.sentences import recipe_sentence
from nbt.report.table import Cell, Column, row, table
from nbt.settings import TransferSettings

_VALUES = (Column("recommended", "n"), Column("default", "n"))


class Recipe(Card):
    """The recommended settings, as `recommended.yaml` contains them."""

    name = "recipe"
    title = "Recommended recipe"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the settings that differ from the default recipe, and all settings."""
        recommendation, config = study.recommendation, study.record.config
        if recommendation is None:
            return NotApplicable("no trial has run to its full length")
        units = len(mappings_at(study.record.profile or {}, "layers")) or None
        settings = config.per_task_settings(recommendation.settings)
        rows = setting_rows(settings, config.per_task_settings(default_recipe_settings(config)))
        changed = [row(Cell(r.meaning, note=r.name), r.value, r.default) for r in rows if r.changed]
        return TemplateData(
            sentence=recipe_sentence(recommendation.settings, units, pretrained=config.weights != "none"),
            is_final=recommendation.final is not None,
            n_changed=len(changed),
            changed=table(
                "Settings that differ from the default recipe",
                ("setting", *_VALUES),
                changed,
                n_shown=len(changed),
            ),
            all=table(
                "All settings",
                (
                    Column("setting", "code"),
                    Column("recommended", "n"),
                    Column("default", "n"),
                    Column("meaning", "wide"),
                ),
                [row(r.name, r.value, r.default, r.meaning, chosen=r.changed) for r in rows],
                n_shown=len(rows),
            ),
        )


def setting_rows(settings: TransferSettings, default: TransferSettings) -> tuple[TemplateData, ...]:
    """Returns name, value, default value, meaning and whether both differ, for every setting."""
    base, meanings = flat_settings(default), setting_descriptions()
    return tuple(
        TemplateData(
            name=name,
            value=format_number(value),
            default=format_number(base[name]),
            changed=value != base[name],
            meaning=meanings[name],
        )
        for name, value in flat_settings(settings).items()
    )
