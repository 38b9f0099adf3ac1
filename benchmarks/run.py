"""Speed and memory against peers, side by side in one run.

    python benchmarks/run.py                            # all rows, to build/benchmark
    python benchmarks/run.py --only processor query     # some of them
    python benchmarks/run.py --quick                    # a smoke test: tiny sizes, figures that say nothing

`make benchmark` also exports the encoders and puts the tables into docs/performance.md. Run it on a machine that
does nothing else.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

import limits
import processor
import product
import query
import report
import torch
from workload import QUICK, Sizes, Workload

import training

ROWS = {
    "limits": ("The machine's own limit", limits.measure),
    "processor": ("Processor", processor.measure),
    "query": ("Query encoding", query.measure),
    "product": ("Product encoding", product.measure),
    "training": ("Fine-tuning", training.measure),
}
BUSY = 0.5  # of the system's load, from which on other work is in the way


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model_name_or_path", default=".")
    parser.add_argument("--export", type=Path, help="Folder that `acebert export-onnx` wrote.")
    parser.add_argument("--only", nargs="+", choices=list(ROWS), help="Rows to run.")
    parser.add_argument("--quick", action="store_true", help="Tiny sizes and peers: shows that all rows run.")
    parser.add_argument("--output_dir", type=Path, default=Path("build/benchmark"))
    parser.add_argument("--page", type=Path, help="Page to put the tables of a whole run into, between its markers.")
    args = parser.parse_args(argv)
    if args.page and (args.only or args.quick):
        parser.error("--page holds the tables of one whole run: leave --only and --quick out")

    torch.set_num_threads(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    workload = Workload(args.model_name_or_path, args.export, QUICK if args.quick else Sizes())
    machine = report.describe_machine(workload)
    if machine["load_before"] > BUSY:
        print(f"The system's load is {machine['load_before']}: other work is running, so the figures will be too low.")
    groups = {}
    for name in args.only or ROWS:
        title, measure = ROWS[name]
        print(f"{title} ...", flush=True)
        groups[title] = measure(workload)
    tables = report.write(args.output_dir, machine, groups)
    print(tables)
    if args.page:
        report.replace_tables(args.page, tables)
    else:
        (args.output_dir / "performance.md").write_text(tables, encoding="utf-8")


if __name__ == "__main__":
    main()
