#!/usr/bin/env python3
"""Every router beside each other: same pods, same load, in rotation; leaves a folder with a report.

Lines with # are for people. What cannot be started is a row that says so.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import cost
import quality
import record
import report
import selftest
from catalogue import entries

REPOSITORY = Path(__file__).parents[2]


def path_of(variable: str) -> Path | None:
    return Path(os.environ[variable]) if os.environ.get(variable) else None


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name in ("--hearth", "--loadtest", "--envoy", "--cache", "--out"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("--epp-bin", type=Path, default=path_of("EPP_BIN"))
    parser.add_argument("--agw-bin", type=Path, default=path_of("AGW_BIN"))
    parser.add_argument("--quick", action="store_true", help="one round of two sizes")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the cost cells")
    parser.add_argument("--quality-rounds", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3, help="of each sample")
    parser.add_argument("--arms", nargs="*", help="only these")
    parser.add_argument("--loads", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--only", choices=("cost", "quality"), help="one half of it")
    parser.add_argument("--benchmarks", type=Path, help="file whose generated section is renewed")
    options = parser.parse_args()
    options.tokenizer = REPOSITORY / "loadtest/assets/tokenizer"
    options.cells, options.workloads = cost.CELLS, quality.WORKLOADS
    if options.quick:
        options.rounds = options.quality_rounds = 1
        options.seconds = 1.0
        options.cells, options.workloads = cost.QUICK_CELLS, quality.QUICK_WORKLOADS
    if options.loads:
        for kind in ("cells", "workloads"):
            kept = [load for load in getattr(options, kind)
                    if any(word in load.name for word in options.loads)]
            setattr(options, kind, kept)
    return options


def main() -> int:
    options = parse()
    folder = record.Folder(options.out)
    known = entries(options)
    unknown = set(options.arms or ()) - {entry.name for entry in known}
    if unknown:
        sys.exit(f"no such arm: {', '.join(sorted(unknown))}")
    chosen = [entry for entry in known if not options.arms or entry.name in options.arms]
    ready = [entry for entry in chosen if not entry.missing]
    folder.write_facts({
        "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": " ".join(sys.argv[1:]),
        "machine": record.machine(), "versions": record.versions(options),
        "rounds": options.rounds, "quality_rounds": options.quality_rounds,
        "seconds": options.seconds, "quick": options.quick,
        "arms": [{"name": entry.name, "flags": entry.flags, "not_run": entry.missing}
                 for entry in chosen],
        "selftest": selftest.run(options),
    })
    if options.only != "quality":
        cost.run(options, ready, folder)
    if options.only != "cost":
        quality.run(options, ready, folder)
    report.write(folder, options.benchmarks)
    print(f"The report is {folder.path / 'report.html'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
