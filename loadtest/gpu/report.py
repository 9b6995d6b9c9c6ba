#!/usr/bin/env python3
"""Tables (Markdown, on stdout) and plots (SVG) of what main.py wrote.

usage: report.py OUT [OUT...]     folders of several calls count as one
"""

import json
import statistics
import sys
from pathlib import Path

import plot
import truth

# Of a pod, so many answers are the time in which its rates are learned.
LEARNING = 10


def rows(outs: list[Path], name: str) -> list[dict]:
    found = []
    for out in outs:
        for file in sorted(out.glob(name)):
            found += [json.loads(line) for line in file.read_text().splitlines()]
    return found


def table(found: list[dict], columns: list[str]) -> None:
    if not found:
        return
    print("| " + " | ".join(columns) + " |\n|" + "---|" * len(columns))
    for row in found:
        print("| " + " | ".join(str(row.get(column, "")) for column in columns) + " |")
    print()


def predictions(outs: list[Path]) -> list[dict]:
    """Every decision of Hearth's own policy that was answered with a first token, oldest first."""
    found = []
    for out in outs:
        for page in sorted(out.glob("*/why")):
            decisions = json.loads(page.read_text())
            decisions = decisions.get("decisions", decisions) if isinstance(decisions, dict) else decisions
            seen: dict[str, int] = {}
            for one in reversed(decisions):
                predicted, came = one.get("predicted_ttft_ms"), one["came"]["ttft_ms"]
                pod = one["pick"]
                number = seen[pod] = seen.get(pod, 0) + 1
                if predicted and came and one["policy"] == "warm":
                    found.append({"run": page.parent.name, "pod": pod, "number": number,
                                  "predicted": predicted, "measured": came})
    return found


def error_of(found: list[dict]) -> dict:
    """Absolute errors in percent of what was measured; the median beside the mean, which tails rule."""
    errors = [abs(one["predicted"] - one["measured"]) / one["measured"] * 100 for one in found]
    bias = [one["predicted"] / one["measured"] for one in found]
    if not errors:
        return {"n": 0}
    return {"n": len(errors), "mape": round(statistics.mean(errors), 1),
            "median_ape": round(statistics.median(errors), 1),
            "predicted_over_measured": round(statistics.median(bias), 2)}


def cost_model(outs: list[Path]) -> None:
    found = predictions(outs)
    lines = []
    for run in sorted({one["run"] for one in found}):
        of_run = [one for one in found if one["run"] == run]
        for label, part in (("learning", [one for one in of_run if one["number"] <= LEARNING]),
                            ("after", [one for one in of_run if one["number"] > LEARNING])):
            lines.append({"run": run, "answers": label, **error_of(part)})
    print("## Predicted time to the first token\n")
    table(lines, ["run", "answers", "n", "mape", "median_ape", "predicted_over_measured"])
    points = {label: [(one["measured"], one["predicted"]) for one in found if (one["number"] > LEARNING) == after]
              for label, after in (("after", True), (f"a pod's first {LEARNING} answers", False))}
    if found:
        plot.scatter(outs[0] / "predicted.svg", points, "measured TTFT, ms", "predicted, ms")


def truths(outs: list[Path]) -> None:
    lines = []
    for out in outs:
        for file in sorted(out.glob("*/access.jsonl")):
            access = [json.loads(line) for line in file.read_text().splitlines() if line.startswith("{")]
            if any(line["policy"] == "warm" for line in access):
                pool = file.with_name("pool")
                lines.append({"run": file.parent.name, **truth.verdicts(access),
                              **(truth.judged(json.loads(pool.read_text())) if pool.exists() else {})})
    columns = sorted({key for line in lines for key in line} - {"run"})
    print("## Predicted against cached tokens\n")
    table(lines, ["run", *columns])


def regret(outs: list[Path]) -> None:
    """Own decision against the better of always and never, request by request at the same load."""
    found = rows(outs, "split.jsonl")
    by_key = {(one["arm"], one["rate"], one["session"]): one for one in found if one["ttft"]}
    lines = []
    for rate in sorted({one["rate"] for one in found}):
        lost = []
        for (arm, at, session), own in by_key.items():
            pair = [by_key.get((other, rate, session)) for other in ("always", "never")]
            if arm == "own" and at == rate and all(pair):
                lost.append((own["ttft"] - min(one["ttft"] for one in pair)) * 1e3)
        if lost:
            lines.append({"rate": rate, "requests": len(lost), "mean_ms": round(statistics.mean(lost), 1),
                          "median_ms": round(statistics.median(lost), 1)})
    print("## Regret of the own decision, TTFT\n")
    table(lines, ["rate", "requests", "mean_ms", "median_ms"])


def recovery(outs: list[Path]) -> None:
    """The share of prompt tokens that were cached, in steps of three seconds."""
    found = [one for one in rows(outs, "survive.jsonl") if one["cached_tokens"] is not None]
    if not found:
        return
    step, points = 3.0, []
    for slot in range(int(max(one["sent"] for one in found) / step) + 1):
        inside = [one for one in found if slot * step <= one["sent"] < (slot + 1) * step]
        if inside:
            points.append((slot * step + step / 2, 100 * sum(one["cached_tokens"] for one in inside)
                           / sum(one["prompt_tokens"] for one in inside)))
    marks = [(one["at"], one["event"]) for one in rows(outs, "survive-events.figures.jsonl")]
    plot.line(outs[0] / "recovery.svg", points, "seconds", "prompt tokens from cache, %", marks)


def main() -> None:
    outs = [Path(name) for name in sys.argv[1:]]
    if not outs:
        sys.exit(__doc__)
    for name in ("warmth", "truth", "documents", "trace", "cost", "split", "split-kill", "survive", "survive-equal", "survive-events"):
        found = rows(outs, f"{name}.figures.jsonl")
        if found:
            print(f"## {name}\n")
            table(found, list(dict.fromkeys(key for row in found for key in row)))
    truths(outs)
    cost_model(outs)
    regret(outs)
    recovery(outs)


if __name__ == "__main__":
    main()
