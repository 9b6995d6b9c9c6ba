"""The arithmetic between records and tables: pure functions, nothing measured here."""

import re
import statistics
from dataclasses import dataclass

SAMPLE = re.compile(r"^([a-zA-Z_:][\w:]*)(?:\{[^}]*\})? ([0-9.eE+-]+)$", re.MULTILINE)


@dataclass(frozen=True)
class Spread:
    """Some rounds' values of one figure: the median, and how far the others lie."""

    median: float
    low: float
    high: float

    @staticmethod
    def of(values) -> "Spread | None":
        known = [value for value in values if value is not None]
        if not known:
            return None
        return Spread(statistics.median(known), min(known), max(known))


def ratios(records: list[dict], base: list[dict], figure: str) -> list[float]:
    """A figure of each round over the base's in the same round; rounds that lack one are left out."""
    theirs = {record["round"]: record[figure] for record in base}
    return [record[figure] / theirs[record["round"]] for record in records
            if record[figure] is not None and theirs.get(record["round"])]


def added(records: list[dict], base: list[dict], figure: str) -> list[float]:
    """A figure of each round less the base's in the same round."""
    theirs = {record["round"]: record[figure] for record in base}
    return [record[figure] - theirs[record["round"]] for record in records
            if record[figure] is not None and theirs.get(record["round"]) is not None]


def counter(page: str, name: str) -> float:
    """The sum of a counter over all its labels on one page of metrics; 0 where it is not there."""
    return sum(float(value) for found, value in SAMPLE.findall(page) if found == name)


def pods(before: list[str], after: list[str]) -> dict:
    """What the engines' own counters say between two looks at each pod's metrics."""
    def grown(name: str) -> list[float]:
        return [counter(late, name) - counter(early, name)
                for early, late in zip(before, after, strict=True)]

    queries, hits = grown("vllm:prefix_cache_queries_total"), grown("vllm:prefix_cache_hits_total")
    requests = grown("vllm:request_success_total")
    return {
        "queries": sum(queries),
        "hits": sum(hits),
        "hit_rate": sum(hits) / sum(queries) if sum(queries) else None,
        "requests": requests,
        "imbalance": imbalance(requests),
    }


def imbalance(amounts: list[float]) -> float | None:
    """The largest over the mean: 1 is even, the number of pods is all on one."""
    total = sum(amounts)
    return max(amounts) * len(amounts) / total if total else None


def percentile(values: list[float], share: float) -> float | None:
    """The value that `share` of all are not above (nearest rank)."""
    if not values:
        return None
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * share // 1))
    return ordered[int(rank) - 1]


def by(records: list[dict], **wanted) -> list[dict]:
    return [record for record in records
            if all(record.get(key) == value for key, value in wanted.items())]
