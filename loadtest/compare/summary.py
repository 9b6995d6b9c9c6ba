"""From records to what is shown: for each cell or workload a row an arm, medians with ranges."""

from figures import Spread, added, by, ratios

COST_FIGURES = ("cpu_ratio", "cpu_us", "added_p50_ms", "added_p99_ms", "rps", "peak_rss_mb",
                "errors")
# A sample beside which others used more of the machine than this is doubtful.
FOREIGN_CORES = 0.5


def cost(records: list[dict]) -> dict[str, dict[str, dict]]:
    """cell -> arm -> figure -> Spread; ratios are to plain Envoy of the same round."""
    samples = [record for record in by(records, kind="cost") if not record.get("not_run")]
    table: dict[str, dict[str, dict]] = {}
    for cell, arm in dict.fromkeys((record["cell"], record["arm"]) for record in samples):
        here = by(samples, cell=cell, arm=arm)
        envoy, direct = by(samples, cell=cell, arm="envoy"), by(samples, cell=cell, arm="direct")
        table.setdefault(cell, {})[arm] = {
            "cpu_ratio": Spread.of(ratios(here, envoy, "cpu_us")),
            "cpu_us": Spread.of(record["cpu_us"] for record in here),
            "added_p50_ms": Spread.of(us / 1e3 for us in added(here, direct, "p50_us")),
            "added_p99_ms": Spread.of(us / 1e3 for us in added(here, direct, "p99_us")),
            "rps": Spread.of(record["rps"] for record in here),
            "peak_rss_mb": Spread.of(record["peak_rss_mb"] for record in here),
            "errors": sum(record["errors"] for record in here),
            "doubtful": sum(record["foreign_cores"] > FOREIGN_CORES for record in here),
            "samples": len(here),
        }
    return table


def quality(records: list[dict]) -> dict[str, dict[str, dict]]:
    """workload -> arm -> figure -> Spread."""
    samples = [record for record in by(records, kind="quality") if not record.get("not_run")]
    table: dict[str, dict[str, dict]] = {}
    for workload, arm in dict.fromkeys((record["workload"], record["arm"]) for record in samples):
        here = by(samples, workload=workload, arm=arm)
        table.setdefault(workload, {})[arm] = {
            **{figure: Spread.of(record[figure] for record in here)
               for figure in ("hit_rate", "imbalance", "ttft_p50_ms", "ttft_p90_ms",
                              "ttft_p99_ms")},
            "errors": sum(record["errors"] for record in here),
            "samples": len(here),
        }
    return table


def verdicts(table: dict[str, dict[str, dict]], goals: dict[str, tuple[float | None, float]]):
    """(workload, arm, hits, hits to reach, imbalance, most allowed, reached) of each arm of ours.

    `goals`: workload to hits (None: the best peer's) and imbalance.
    """
    for workload, arms in table.items():
        known = {arm: row for arm, row in arms.items() if row["hit_rate"]}
        peers = [row["hit_rate"].median for arm, row in known.items() if not is_ours(arm)]
        if not peers:
            continue
        hits, most = goals[workload]
        hits = max(peers) if hits is None else hits
        for arm, row in known.items():
            if is_ours(arm):
                found, load = row["hit_rate"].median, row["imbalance"].median
                # To the digits that are shown.
                reached = round(found, 3) >= round(hits, 3) and round(load, 2) <= most
                yield workload, arm, found, hits, load, most, reached


def is_ours(arm: str) -> bool:
    return "hearth" in arm


def not_run(facts: dict, records: list[dict]) -> list[tuple[str, str, str]]:
    """(arm, where, why) of everything that was not measured."""
    rows = [(arm["name"], "", arm["not_run"]) for arm in facts["arms"] if arm["not_run"]]
    for record in records:
        if record.get("not_run"):
            where = record.get("workload") or record["kind"]
            row = (record["arm"], where, record["not_run"].strip().splitlines()[0][:160])
            if row not in rows:
                rows.append(row)
    return rows
