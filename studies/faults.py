"""Study: does a search survive faults, and does nbt refuse bad inputs without harm?

Runs real searches of a few seconds (digits, and patches of two photographs), each in a folder and a process group of
its own, injects a fault at a random moment of a phase, runs the same command again, and checks: every finished trial is
kept, the budget is exact, no trial is left running and no epoch counted twice, with one worker the results equal those
of the undisturbed search of the same seed bit for bit, no process, lock or half-written file is left, report and model
can be read, and (in a quarter of the tries) the runs in MLflow equal the study after `nbt sync`. Then it gives nbt bad
inputs, of which none may cause a traceback, execute code, write outside, or show a password.

The sample is stratified by kind of fault and phase, so that any number of minutes gives all of them. Most searches are
forked from a process that has imported everything, half of those with a fault before the first phase are not.

    python studies/faults.py --seed 1 --minutes 60
    python studies/faults.py --seed 2 --minutes 5 --only "SIGINT once" --out /tmp/faults

Results: `studies/results/faults.{jsonl,md}`; rows accumulate over runs, and a run continues the sample of the same seed
and kinds; `--again`, after a fault of nbt has been mended, repeats the tries that found it. The exit code is 1 if a
check failed. It needs Linux; what needs root is left out without it, and the table says so.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

from faults.campaign import Campaign  # noqa: E402 - the number of threads must be set before NumPy is imported
from faults.inputs import INPUTS, BadInputs  # noqa: E402
from faults.kinds import KINDS  # noqa: E402
from faults.table import table  # noqa: E402
from study_rows import append_row, read_rows, write_rows  # noqa: E402


def run_again(campaign: Campaign, folder: Path, seed: int, file: Path) -> list[dict[str, Any]]:
    """Repeats the tries and inputs of a seed that had problems, and replaces their rows, which it returns."""
    rows, repeated = read_rows(file), []
    good = campaign.warm_up()
    inputs = BadInputs(folder, seed, good.report / "model", good.database)
    for index, row in enumerate(rows):
        if row["seed"] == seed and row["problems"]:
            run = inputs.attempt if row["kind"] == INPUTS else campaign.attempt
            rows[index] = {**run(row["try"]), "before": row["problems"]}
            repeated.append(rows[index])
            write_rows(file, rows)
            print(f"{row['try']:4} {row['kind']}: {'; '.join(rows[index]['problems']) or 'ok'}", flush=True)
    return repeated


def main() -> int:
    """Runs the campaign and writes rows and table; returns the exit code."""
    names = [*(kind.kind for kind in KINDS), INPUTS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--minutes", type=float, default=5.0, help="duration of the faults; the bad inputs follow")
    parser.add_argument(
        "--again", action="store_true", help="run again the tries with problems, in place of their rows"
    )
    parser.add_argument("--only", action="append", choices=names, metavar="KIND", help="; ".join(names))
    parser.add_argument("--inputs", type=int, default=500, help="number of bad inputs")
    parser.add_argument("--out", type=Path, default=HERE / "results", help="folder of the results")
    parser.add_argument("--keep", type=Path, help="folder of the searches, of which those with problems are kept")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    rows, out = [], args.out / "faults.jsonl"
    with tempfile.TemporaryDirectory(prefix="nbt-faults-") as temporary:
        folder = args.keep or Path(temporary)
        only = tuple(args.only or names)
        campaign = Campaign(folder, args.seed, only)
        if args.again:
            rows += run_again(campaign, folder, args.seed, out)
        elif campaign.kinds:
            done = [row["try"] for row in read_rows(out) if row["seed"] == args.seed and row["kind"] != INPUTS]
            for row in campaign.run(60.0 * args.minutes, first=max(done, default=-1) + 1):
                rows.append(row)
                append_row(out, row)
                print(f"{row['try']:4} {row['kind']}, {row['phase']}: {'; '.join(row['problems']) or 'ok'}", flush=True)
        if INPUTS in only and not args.again:
            good = campaign.warm_up()
            for row in BadInputs(folder, args.seed, good.report / "model", good.database).run(args.inputs):
                rows.append(row)
                append_row(out, row)
                if row["problems"]:
                    print(f"{row['try']:4} {row['input']}: {'; '.join(row['problems'])}", flush=True)
    (args.out / "faults.md").write_text(table(read_rows(out), campaign.skipped), encoding="utf-8")
    failed = [row for row in rows if row["problems"]]
    print(json.dumps({"tries": len(rows), "with problems": len(failed)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
