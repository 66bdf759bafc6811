"""Rows of a campaign, and their table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from faults.inputs import INPUTS
from faults.kinds import KINDS, NOT_BUILT
from faults.search import PHASES


def table(rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> str:
    """Returns the report: faults by kind and phase, bad inputs by kind, and every try with a problem.

    Args:
        rows: Rows of all runs.
        skipped: Kinds of faults that this machine does not allow, with the reason.
    """
    faults = [row for row in rows if row["kind"] != INPUTS]
    inputs = [row for row in rows if row["kind"] == INPUTS]
    met = [row for row in faults if row["hit"]]
    mended = sum("before" in row for row in rows)
    seeds = ", ".join(map(str, sorted({row["seed"] for row in rows})))
    return "\n".join(
        [
            "# Faults and bad inputs",
            "",
            f"{len(faults)} tries (seeds {seeds}), in {len(met)} of which the fault met the running search, and "
            f"{len(inputs)} bad inputs. `studies/faults.py` describes what is checked after each. "
            f"{mended} tries found a problem that has been mended since, and were run again.",
            "",
            "| kind of fault | tries | met | " + " | ".join(PHASES) + " | 2 workers | with problems |",
            "|---|---|---|" + "---|" * (len(PHASES) + 2),
            *(_fault_line(kind.kind, [row for row in faults if row["kind"] == kind.kind], skipped) for kind in KINDS),
            "",
            "The columns of the phases count the tries in which the fault met the search. Not tried here: "
            + "; ".join(f"{name} ({reason})" for name, reason in {**NOT_BUILT, **skipped}.items())
            + ".",
            "",
            "| bad input | inputs | exit codes | with problems |",
            "|---|---|---|---|",
            *_input_lines(inputs),
            "",
            *_problem_lines(rows),
        ]
    )


def _fault_line(kind: str, rows: Sequence[Mapping[str, Any]], skipped: Mapping[str, str]) -> str:
    if not rows:
        return f"| {kind} | {'not possible here' if kind in skipped else 0} |" + " |" * (len(PHASES) + 3)
    met = [row for row in rows if row["hit"]]
    phases = Counter(row["phase"] for row in met)
    cells = [len(rows), len(met), *(phases[phase] or "" for phase in PHASES)]
    cells += [sum(row["workers"] == 2 for row in met) or "", sum(bool(row["problems"]) for row in rows)]
    return f"| {kind} | " + " | ".join(map(str, cells)) + " |"


def _input_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for kind in dict.fromkeys(row["input"] for row in rows):
        of_kind = [row for row in rows if row["input"] == kind]
        codes = Counter(str(row["codes"][0]) for row in of_kind)
        text = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        lines.append(f"| {kind} | {len(of_kind)} | {text} | {sum(bool(row['problems']) for row in of_kind)} |")
    return lines


def _problem_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    found = [row for row in rows if row["problems"]]
    if not found:
        return ["No try had a problem.", ""]
    lines = ["| try with a problem | problem |", "|---|---|"]
    for row in found:
        where = row["name"] if row["kind"] == INPUTS else f"{row['kind']}, {row['phase']}"
        text = "; ".join(row["problems"]).replace("|", "/").replace("\n", " ")
        lines.append(f"| seed {row['seed']}, {row['try']}: {ascii(where)[1:-1]} | {ascii(text)[1:-1]} |")
    return [*lines, ""]
