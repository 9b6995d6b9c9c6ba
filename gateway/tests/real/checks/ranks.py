"""A data-parallel server: the rank that holds a prompt is named, and its cache is hit."""

import json
import re

from exchange import post
from harness import check, expect, expect_equal
from processes import get, wait_until
from ranks import Ranked

CONVERSATIONS = 6
BLOCK_TOKENS = 32
PROMPT_TOKENS = 400


def rows(world: Ranked) -> list[dict]:
    return json.loads(get(f"{world.hearth.admin_url}/pool")[1])["pods"]


def ask(world: Ranked, conversation: int) -> tuple[str, int, int]:
    """The rank that was chosen, the tokens that it was said to hold, and those that it found."""
    ids = [1000 + (conversation * 7919 + at * 31) % 100_000 for at in range(PROMPT_TOKENS)]
    body = {"model": world.model, "prompt": ids, "max_tokens": 1}
    # A client has no say in it.
    answer = post(world.gateway, "/v1/completions", body, {"X-data-parallel-rank": "7"})
    expect_equal(answer.status, 200, answer.body[:200].decode(errors="replace"))
    said = re.search(r"matched=(\d+);.*rank=(\d+)", answer.headers["x-hearth-decision"])
    expect(said, f"no rank in {answer.headers['x-hearth-decision']}")
    cached = answer.json()["usage"]["prompt_tokens_details"]["cached_tokens"]
    return said[2], int(said[1]), cached


@check("ranks/each-is-a-pod-with-a-story-of-its-own", stage="ranks")
def pods(world: Ranked) -> None:
    names = [row["name"] for row in rows(world)]
    first = world.pods[0].address
    expect_equal(names, [first, f"{first}/1"], "pods")


@check("ranks/the-one-that-holds-the-prompt-is-chosen-and-hit", stage="ranks")
def hit(world: Ranked) -> None:
    told = {conversation: ask(world, conversation)[0] for conversation in range(CONVERSATIONS)}
    expect_equal(set(told.values()), {"0", "1"}, "ranks used")
    blocks = CONVERSATIONS * (PROMPT_TOKENS // BLOCK_TOKENS)
    wait_until(lambda: sum(row["kv_events"]["blocks"]["stored"] for row in rows(world)) >= blocks, 20,
               "both ranks have told")
    whole = (PROMPT_TOKENS - 1) // BLOCK_TOKENS * BLOCK_TOKENS
    for conversation, rank in told.items():
        expect_equal(ask(world, conversation), (rank, whole, whole), f"conversation {conversation}")
