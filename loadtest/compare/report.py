"""The report of a run: one HTML file that opens offline, and the generated part of BENCHMARKS.md.

Both are made of the folder's records alone: `python report.py FOLDER [BENCHMARKS.md]` makes them anew.
"""

import sys
from pathlib import Path

import jinja2

import plots
import summary
import tables
from quality import BEST, WORKLOADS
from record import Folder

HERE = Path(__file__).parent


def goals() -> dict[str, tuple[float | None, float]]:
    return {workload.name: (None if workload.goal_hits == BEST else float(workload.goal_hits),
                            workload.goal_imbalance) for workload in WORKLOADS}


def pictures(cost: dict, quality: dict) -> dict[str, str]:
    """Title to SVG, for whatever was measured."""
    def panels(figure: str, cells: dict) -> dict:
        return {cell: {arm: row[figure] for arm, row in arms.items() if row[figure]}
                for cell, arms in cells.items()
                if any(row[figure] for row in arms.values())}

    made = {}
    ratio, late = panels("cpu_ratio", cost), panels("added_p50_ms", cost)
    if ratio:
        made["CPU per request over plain Envoy's of the same round"] = plots.dots(
            ratio, "times Envoy", log=True, one=1)
    if late:
        made["Median latency added to direct"] = plots.dots(late, "ms", log=False)
    both = {workload: {arm: (row["imbalance"], row["hit_rate"]) for arm, row in arms.items()
                       if row["hit_rate"] and row["imbalance"]}
            for workload, arms in quality.items()}
    if any(both.values()):
        made["Hits and balance"] = plots.trade(
            both, {workload: goals()[workload][1] for workload in both})
        made["Time to first token, p99"] = plots.dots(
            panels("ttft_p99_ms", quality), "ms", log=True)
    return made


def write(folder: Folder, benchmarks: Path | None) -> None:
    facts, records = folder.facts(), folder.records()
    cost, quality = summary.cost(records), summary.quality(records)
    parts = {
        "facts": facts, "not_run": summary.not_run(facts, records),
        "verdicts": list(summary.verdicts(quality, goals())),
        "cost": tables.cost(cost), "quality": tables.quality(quality),
    }
    drawn = pictures(cost, quality)
    environment = jinja2.Environment(loader=jinja2.FileSystemLoader(HERE), autoescape=True,
                                     trim_blocks=True, lstrip_blocks=True)
    page = environment.get_template("report.html").render(**parts, plots=drawn)
    (folder.path / "report.html").write_text(page)
    if benchmarks:
        text = tables.section(facts, parts["not_run"], parts["verdicts"], cost, quality)
        benchmarks.write_text(tables.renewed(benchmarks.read_text(), text))


if __name__ == "__main__":
    write(Folder(Path(sys.argv[1])), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
