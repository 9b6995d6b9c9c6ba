"""The ids that Hearth makes of a prompt are the pod's own."""

from exchange import post
from harness import check, expect, expect_equal
from know.pod import BLOCK_TOKENS
from know.workload import CHAT, COMPLETIONS, Request
from know.world import Knowing

# With the ids of /tokenize the pod is made to hold exactly these blocks; if Hearth, asked with the
# messages, then finds every whole block of them, its own ids are the same, up to the last tokens, of
# which the count is compared.
CONVERSATIONS = 100


def ids_of(world: Knowing, body: dict) -> list[int]:
    wanted = ("model", "messages", "tools", "chat_template_kwargs")
    answer = post(world.pods[0].url, "/tokenize", {key: body[key] for key in wanted if key in body})
    expect_equal(answer.status, 200, f"/tokenize: {answer.body[:200]!r}")
    return answer.json()["tokens"]


def compare(world: Knowing, scale: float) -> None:
    world.until_trust("exact")
    workload = world.fresh_workload(99, scale=scale)
    compared = 0
    for request in workload.requests(10_000):
        if request.path != CHAT or "cache_salt" in request.body:
            continue
        if request.conversation:
            request.conversation.heard(workload.text(30))
        ids = ids_of(world, request.body)
        by_ids = Request("ids", COMPLETIONS, {"model": world.model, "prompt": ids, "max_tokens": 1})
        for pod in world.pods:
            world.send_past_the_gateway(pod, [by_ids])
        world.until_heard()
        [outcome] = world.send([request])
        expect_equal(outcome.prompt_said, len(ids), f"length of {request.body}")
        if outcome.trust == "exact":
            whole = (len(ids) - 1) // BLOCK_TOKENS * BLOCK_TOKENS
            expect_equal((outcome.predicted, outcome.cached), (whole, whole), f"blocks of {request.body}")
            compared += 1
        if compared == CONVERSATIONS:
            break
    print(f"#   {compared} conversations")


@check("tokens/qwen3-ids-are-the-pods-own", stage="know", limit_s=300)
def qwen3(world: Knowing) -> None:
    compare(world, 0.7)


@check("tokens/smollm2-ids-are-the-pods-own", stage="know-smol", limit_s=400)
def smollm2(world: Knowing) -> None:
    compare(world, 0.3)
