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

    most = {workload: wanted[1] for workload, wanted in goals().items()}
    wanted = [
        ("CPU per request over plain Envoy's of the same round", cost, "cpu_ratio", "times Envoy",
         True, dict.fromkeys(cost, 1)),
        ("Median latency added to direct", cost, "added_p50_ms", "ms", False, {}),
        ("Share of prompt tokens found cached", quality, "hit_rate", "share", False, {}),
        ("Busiest pod's requests over the mean (dotted: the most that we want)", quality,
         "imbalance", "max/mean", False, most),
        ("Time to first token, p99", quality, "ttft_p99_ms", "ms", False, {}),
    ]
    drawn = ((title, panels(figure, cells), *style) for title, cells, figure, *style in wanted)
    return {title: plots.dots(shown, *style) for title, shown, *style in drawn if shown}


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
