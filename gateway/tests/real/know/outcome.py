"""What was predicted of one request and what the engine then found; and the table of all of them."""

import json
from collections import Counter
from dataclasses import dataclass

from exchange import Answer


@dataclass(frozen=True)
class Outcome:
    number: int
    shape: str
    pod: str
    trust: str
    predicted: int
    cached: int
    prompt_said: int
    prompt_tokens: int
    completion_tokens: int
    text: str

    @property
    def verdict(self) -> str:
        if self.predicted == self.cached:
            return "equal"
        return "over" if self.predicted > self.cached else "under"

    def __str__(self) -> str:
        return (f"#{self.number} {self.shape} on {self.pod}, {self.trust}: predicted {self.predicted},"
                f" cached {self.cached} of {self.prompt_tokens} (said {self.prompt_said}), {self.verdict}")


def outcome_of(number: int, shape: str, answer: Answer) -> Outcome:
    usage, text = usage_of(answer)
    policy, *parameters = answer.headers["x-hearth-decision"].split(";")
    decision = dict(one.split("=") for one in parameters)
    return Outcome(number, shape, answer.headers["x-upstream-host"], decision["trust"],
                   int(decision["matched"]), usage["prompt_tokens_details"]["cached_tokens"],
                   int(decision["prompt"]), usage["prompt_tokens"], usage["completion_tokens"], text)


def usage_of(answer: Answer) -> tuple[dict, str]:
    """`usage` and the text of an answer, streamed or not."""
    if not answer.content_type.startswith("text/event-stream"):
        record = answer.json()
        return record["usage"], _text(record["choices"][0], "message")
    text, usage = "", {}
    for line in answer.body.splitlines():
        if line.startswith(b"data: {"):
            record = json.loads(line[6:])
            usage = record.get("usage") or usage
            text += "".join(_text(choice, "delta") for choice in record["choices"])
    return usage, text


def _text(choice: dict, key: str) -> str:
    return choice.get("text") or (choice.get(key) or {}).get("content") or ""


class Confusion:
    """Trust times verdict."""

    VERDICTS = ("equal", "over", "under")

    def __init__(self, outcomes: list[Outcome]):
        self.outcomes = outcomes
        self.cells = Counter((one.trust, one.verdict) for one in outcomes)

    def of(self, trust: str, verdict: str) -> list[Outcome]:
        return [one for one in self.outcomes if (one.trust, one.verdict) == (trust, verdict)]

    def share_equal(self, trust: str = "exact") -> float:
        total = sum(self.cells[trust, verdict] for verdict in self.VERDICTS)
        return self.cells[trust, "equal"] / total if total else 0.0

    def show(self, title: str) -> None:
        print(f"# {title:<28}" + "".join(f"{verdict:>8}" for verdict in self.VERDICTS))
        for trust in sorted({one.trust for one in self.outcomes}):
            print(f"#   {trust:<26}" + "".join(f"{self.cells[trust, v]:>8}" for v in self.VERDICTS))
        odd = [one for one in self.outcomes if one.verdict != "equal" and one.trust == "exact"]
        for one in odd[:6]:
            print(f"#     {one}")
        hits = sum(one.cached for one in self.outcomes)
        total = sum(one.prompt_tokens for one in self.outcomes)
        print(f"#   {hits} of {total} prompt tokens were cached", flush=True)
