"""Study of search methods on TaskSet: six tables of 1000 settings each, which have nothing to do with transfer.

It judges the search alone (Gaussian process, curve forecasts, stopping), without fit profile, priors and recorded
fine-tunings (`nbt replay --metric`). "guided" knows the other five tables, which hold the same 1000 settings: its first
proposal is the best setting of other tasks, not one that it has to find. "without tables" knows nothing.

    nice -n 10 python studies/taskset.py [--seeds 3]     # about 20 minutes of one core

Results: `studies/results/taskset.json` and `studies/results/taskset.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from machine import machine

from nbt import api

HERE = Path(__file__).parent
DATA = HERE.parent.parent / "shared" / "data" / "taskset"
BUDGET = 20


def main() -> None:
    """Runs the study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="Searches of each method on each task.")
    parser.add_argument("--data", type=Path, default=DATA, help="Folder of the tables.")
    options = parser.parse_args()
    started = time.process_time()
    result = api.replay_curves(
        sorted(options.data.glob("*.parquet")),
        metric="valid_loss",
        judge="test_loss",
        minimize=True,
        initial=True,
        seeds=options.seeds,
        budget=BUDGET,
        on_progress=lambda done, total: print(f"\r{done}/{total}", end="", flush=True),
    )
    report = {
        "machine": machine(),
        "cpu_minutes": round((time.process_time() - started) / 60, 1),
        **result.to_json(),
    }
    out = HERE / "results" / "taskset"
    out.with_suffix(".json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    out.with_suffix(".md").write_text(format_report(report), encoding="utf-8")


def format_report(report: dict[str, Any]) -> str:
    """Returns the report in Markdown."""
    amounts = (5, 10, 20)
    return "\n".join(
        [
            "# Search methods on TaskSet",
            "",
            f"{len(report['tasks'])} tasks, {report['seeds']} seeds, {report['cpu_minutes']} CPU minutes on "
            f"{report['machine']}. Regret of the incumbent's last test loss after so many full runs in epochs: 0 is "
            "the best setting of the table, 1 the median one. Every epoch costs the same. See `studies/taskset.py`.",
            "",
            "| method | " + " | ".join(f"regret {n}" for n in amounts) + " | rank 5, 10, 20 |",
            "|---|---|---|---|---|",
            *(
                f"| {row['method']} | "
                + " | ".join(f"{row[f'regret_{n}']:.3f}" for n in amounts)
                + " | "
                + ", ".join(f"{row[f'rank_{n}']:.1f}" for n in amounts)
                + " |"
                for row in report["overall"]
            ),
            "",
            f"Difference to {report['reference']} (negative: better), paired by task and seed, with 95 % interval:",
            "",
            "| method | " + " | ".join(f"after {n}" for n in amounts) + " |",
            "|---|---|---|---|",
            *(
                f"| {row['method']} | "
                + " | ".join(
                    f"{row[f'difference_{n}']:+.3f} [{row[f'difference_{n}_low']:+.3f}, "
                    f"{row[f'difference_{n}_high']:+.3f}]"
                    for n in amounts
                )
                + " |"
                for row in report["overall"]
                if row["method"] != report["reference"]
            ),
            "",
        ]
    )


if __name__ == "__main__":
    main()
