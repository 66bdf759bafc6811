"""The card "recommended recipe": what differs from the default recipe; all settings are folded."""

from __future__ import annotations

from collections.abc import Mapping

from nbt.report.formatting import DASH, TemplateData, difference_interval, difference_number, format_number
from nbt.report.settings_table import flat_settings, setting_descriptions
from nbt.report.stored_values import mappings_at
from nbt.report.study.cards.card import Card, NotApplicable, StudyView
from nbt.report.study.recommendation import default_recipe_settings
from nbt.report.study.sentences import recipe_sentence
from nbt.report.table import Cell, Column, row, table
from nbt.settings import SETTINGS, TransferSettings
from nbt.tuning.intervals import Interval

_VALUES = (Column("recommended", "n"), Column("default", "n"))


class Recipe(Card):
    """The recommended settings, as `recommended.yaml` contains them."""

    name = "recipe"
    title = "Recommended recipe"

    def content(self, study: StudyView) -> TemplateData | NotApplicable:
        """Returns the settings that differ from the default recipe, and all settings."""
        from nbt.tuning.setting_effects import MIN_TRIALS, setting_effects  # imports pandas

        recommendation, config = study.recommendation, study.record.config
        if recommendation is None:
            return NotApplicable("no trial has run to its full length")
        profile = study.record.profile_of(recommendation.settings.backbone)
        units = len(mappings_at(profile or {}, "layers")) or None
        weights = config.with_backbone_of(recommendation.settings).weights
        settings = config.per_task_settings(recommendation.settings)
        default = config.per_task_settings(default_recipe_settings(config))
        rows = setting_rows(settings, default, pretrained=weights != "none")
        effects = setting_effects(study.record, recommendation.settings, default_recipe_settings(study.record.config))
        changed = [
            row(Cell(r.meaning, note=r.name), r.value, r.default, *_effect(effects, r.setting, study))
            for r in rows
            if r.changed
        ]
        return TemplateData(
            sentence=recipe_sentence(recommendation.settings, units, pretrained=weights != "none"),
            is_final=recommendation.final is not None,
            n_changed=len(changed),
            has_effects=bool(effects),
            min_trials=MIN_TRIALS,
            changed=table(
                "Settings that differ from the default recipe",
                ("setting", *_VALUES, *(_effect_columns(study) if effects else ())),
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


def _effect_columns(study: StudyView) -> tuple[Column, ...]:
    return Column(f"effect, {study.metric.difference_unit}", "n"), Column("95 % interval", "n wide")


def _effect(effects: Mapping[str, Interval], setting: str, study: StudyView) -> tuple[str, ...]:
    """Returns the cells of the effect of a setting; dashes for a setting without effect alone."""
    if not effects:
        return ()
    effect = effects.get(setting)
    if effect is None:
        return DASH, DASH
    return difference_number(effect.mean, study.metric, 1.0), difference_interval(effect, study.metric, 1.0)


def setting_rows(
    settings: TransferSettings, default: TransferSettings, *, pretrained: bool = True
) -> tuple[TemplateData, ...]:
    """Returns name, setting, value, default value, meaning and whether both differ, for every entry of the settings.

    Args:
        settings: The settings.
        default: The default recipe.
        pretrained: Whether the backbone has pretrained weights, rather than `--weights none`.
    """
    base, meanings = flat_settings(default), setting_descriptions()
    settings_of = {column: item.name for item in SETTINGS.values() for column in item.columns}
    return tuple(
        TemplateData(
            name=name,
            setting=settings_of[name],
            value=format_number(value),
            default=format_number(base[name]),
            changed=value != base[name],
            meaning=meanings[name] if pretrained else meanings[name].replace("pretrained weights", "initial weights"),
        )
        for name, value in flat_settings(settings).items()
    )
