"""Tables of the summary, as cells for HTML and as Markdown."""

from figures import Spread

BEGIN = "<!-- compare: begin; written by `make compare BENCHMARKS=1`, not by hand -->"
END = "<!-- compare: end -->"
COST_HEADINGS = ["arm", "CPU × Envoy", "CPU µs", "added p50 ms", "added p99 ms", "requests/s",
                 "peak MB", "errors"]
QUALITY_HEADINGS = ["arm", "hits", "max/mean requests", "TTFT p50 ms", "TTFT p90 ms",
                    "TTFT p99 ms", "errors"]


def number(value: float) -> str:
    """Three digits that mean something."""
    if value == 0:
        return "0"
    size = abs(value)
    digits = 0 if size >= 99.5 else 1 if size >= 9.95 else 2
    return f"{value:.{digits}f}"


def spread(of: Spread | None, form=number) -> str:
    """`median (low–high)`; one number where all rounds agree."""
    if of is None:
        return ""
    median, low, high = form(of.median), form(of.low), form(of.high)
    return median if low == high else f"{median} ({low}–{high})"


def share(value: float) -> str:
    return f"{value:.3f}"


def cost(summary: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    """(title, headings, rows) of each cell."""
    figures = ("cpu_ratio", "cpu_us", "added_p50_ms", "added_p99_ms", "rps", "peak_rss_mb")
    return [(cell, COST_HEADINGS, [[arm, *(spread(row[figure]) for figure in figures),
                                    str(row["errors"])] for arm, row in arms.items()])
            for cell, arms in summary.items()]


def quality(summary: dict) -> list[tuple[str, list[str], list[list[str]]]]:
    times = ("ttft_p50_ms", "ttft_p90_ms", "ttft_p99_ms")
    return [(workload, QUALITY_HEADINGS, [
        [arm, spread(row["hit_rate"], share), spread(row["imbalance"]),
         *(spread(row[figure]) for figure in times), str(row["errors"])]
        for arm, row in arms.items()]) for workload, arms in summary.items()]


def wide(summary: dict, figure: str) -> str:
    """Arms down, cells across, one figure."""
    arms = list(dict.fromkeys(arm for rows in summary.values() for arm in rows))
    rows = [[arm, *(spread(summary[cell].get(arm, {}).get(figure)) for cell in summary)]
            for arm in arms]
    return markdown(["", *summary], [row for row in rows if any(row[1:])])


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def section(facts: dict, missing: list, verdicts: list, cost_of: dict, quality_of: dict) -> str:
    """The part of BENCHMARKS.md between the markers."""
    machine, versions, honest = facts["machine"], facts["versions"], facts["selftest"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    done = [f"{_times(cost_of)} of {facts['seconds']:g} s of each cell"] if cost_of else []
    done += [f"{_times(quality_of)} of each workload"] if quality_of else []
    text = [
        f"`make compare` on {facts['at']}: {machine['cores']} shared cores ({machine['cpu']}), "
        f"{machine['memory_gib']} GiB, load {machine['load_at_start']:.1f} at its start from other "
        f"work; {', '.join(done)}; medians (ranges). Versions: {named}. The "
        f"client measured {honest['client_ms']:.1f} ms where an upstream had taken "
        f"{honest['upstream_ms']:.1f} ms by its own clock.\n",
    ]
    if missing:
        text.append("Not run:\n")
        text += [f"- {arm}{f' ({where})' if where else ''}: {why}" for arm, where, why in missing]
        text.append("")
    if cost_of:
        text += ["CPU per request over plain Envoy's of the same round:\n",
                 wide(cost_of, "cpu_ratio"),
                 "Median latency added to direct, ms:\n", wide(cost_of, "added_p50_ms"),
                 "p99 added, ms:\n", wide(cost_of, "added_p99_ms"),
                 "Requests a second:\n", wide(cost_of, "rps"),
                 "Most memory so far in the arm's life, MB (cells in this order):\n",
                 wide(cost_of, "peak_rss_mb")]
        failed = [f"{arm} {row['errors']} ({cell})" for cell, arms in cost_of.items()
                  for arm, row in arms.items() if row["errors"]]
        doubtful = sum(row["doubtful"] for arms in cost_of.values() for row in arms.values())
        samples = sum(row["samples"] for arms in cost_of.values() for row in arms.values())
        text.append(f"Errors: {', '.join(failed) or 'none'}. Beside {doubtful} of {samples} samples "
                    "others used more than half a core.\n")
    if quality_of:
        text.append("Tokens found cached and busiest pod over the mean, by the engines' counters:\n")
        both = {name: {arm: f"{spread(row['hit_rate'], share)}, {spread(row['imbalance'])}"
                       for arm, row in arms.items()} for name, arms in quality_of.items()}
        arms = list(dict.fromkeys(arm for rows in both.values() for arm in rows))
        text += [markdown(["", *both], [[arm, *(both[name].get(arm, "") for name in both)]
                                        for arm in arms]),
                 "TTFT p99, ms:\n", wide(quality_of, "ttft_p99_ms")]
    if verdicts:
        text += ["Our goals:\n", markdown(
            ["workload", "arm", "hits", "wanted", "max/mean", "at most", ""],
            [[name, arm, share(hits), share(want), number(load), number(most),
              "reached" if ok else "**short**"]
             for name, arm, hits, want, load, most, ok in verdicts])]
    return "\n".join(text)


def _times(summary: dict) -> str:
    """How many samples the rows stand on."""
    counts = [row["samples"] for arms in summary.values() for row in arms.values()]
    low, high = min(counts), max(counts)
    return f"{low} samples" if low == high else f"{low}–{high} samples"


def renewed(page: str, text: str) -> str:
    """The page with what stands between the markers replaced."""
    before, found, rest = page.partition(BEGIN)
    _old, ended, after = rest.partition(END)
    if not found or not ended:
        raise RuntimeError("the page lacks the markers of the generated section")
    return f"{before}{BEGIN}\n\n{text.strip()}\n\n{END}{after}"
