"""What Hearth says a pod holds is what its engine finds, while all goes well and while nothing does."""

import time

from harness import check, expect
from know.outcome import Confusion, Outcome
from know.pod import LORA
from know.workload import COMPLETIONS, Request
from know.world import Knowing
from processes import wait_until

REQUESTS = 400
EQUAL_SHARE = 0.99
CONCURRENT_EQUAL_SHARE = 0.9
FAULT_S = 5
LOSS = 0.05


def judged(world: Knowing, title: str, outcomes: list[Outcome]) -> Confusion:
    """Shows the table; whatever happened, `exact` has never claimed what was not there."""
    table = Confusion(outcomes)
    world.everything.append(table)
    table.show(title)
    over = table.of("exact", "over")
    expect(not over, f"{len(over)} predictions too high while exact: {over[0] if over else ''}")
    return table


def traffic(world: Knowing, count: int, seed: int) -> list[Outcome]:
    return world.send(world.fresh_workload(seed, lora=LORA).requests(count))


def behind_its_back(world: Knowing, count: int, seed: int) -> None:
    """Work that the gateway knows nothing of, on every pod; blocks come and go."""
    for pod in world.pods:
        world.send_past_the_gateway(pod, world.fresh_workload(seed, lora=LORA).requests(count))


@check("know/400-mixed-requests-are-predicted-exactly", stage="know", limit_s=600)
def mixed(world: Knowing) -> None:
    world.until_trust("exact")
    outcomes = traffic(world, REQUESTS, seed=1)
    table = judged(world, "mixed", outcomes)
    evicted = [pod.tap.kinds["BlockRemoved"] for pod in world.pods]
    print(f"#   blocks evicted: {evicted}")
    expect(all(evicted), "a pod that evicted nothing proves little")
    exact = [one for one in outcomes if one.trust == "exact"]
    expect(len(exact) >= EQUAL_SHARE * len(outcomes), f"only {len(exact)} of {len(outcomes)} exact")
    expect(table.share_equal() >= EQUAL_SHARE, f"{table.share_equal():.4f} equal")
    miscounted = [one for one in outcomes if one.prompt_said != one.prompt_tokens]
    expect(not miscounted, f"{len(miscounted)} prompts of another length: {miscounted[0] if miscounted else ''}")


@check("know/a-cut-stream-is-never-exact-and-is-caught-up", stage="know", limit_s=300)
def cut(world: Knowing) -> None:
    with world.cut():
        for pod in world.pods:
            wait_until(lambda: world.trust_of(pod) != "exact", 5, f"{pod.name} is not exact")
        ends = time.monotonic() + FAULT_S
        during = traffic(world, 20, seed=2)
        behind_its_back(world, 30, seed=3)
        time.sleep(max(0.0, ends - time.monotonic()))
    world.until_heard()
    rows = [world.kv_rows()[pod.address] for pod in world.pods]
    print(f"#   after the cut: {[(row['trust'], row['doubt']) for row in rows]}")
    after = traffic(world, 60, seed=2)
    judged(world, "cut for 5 s", during + after)


@check("know/lost-batches-are-noticed", stage="know", limit_s=400)
def lost(world: Knowing) -> None:
    # A last batch that was lost is looked for after this, instead of after half a minute.
    world.stop_gateway()
    world.start_gateway("--kv-events-idle", "1s")
    with world.losing(LOSS):
        outcomes = traffic(world, 120, seed=4)
    print(f"#   batches lost: {[pod.events.lost for pod in world.pods]}")
    expect(any(pod.events.lost for pod in world.pods), "none was lost")
    world.stop_gateway()
    world.start_gateway()
    judged(world, "5 % of batches lost", outcomes)


@check("know/batches-lost-for-good-are-doubted", stage="know", limit_s=400)
def lost_for_good(world: Knowing) -> None:
    with world.losing(LOSS, with_history=False):
        outcomes = traffic(world, 120, seed=9)
    judged(world, "5 % of batches lost, no history", outcomes)
    world.stop_gateway()
    world.start_gateway()


@check("know/a-frozen-stream-is-found-out", stage="know", limit_s=300)
def frozen(world: Knowing) -> None:
    # Whatever was lost before: a pod that says that it is empty is known from there on.
    empty(world)
    before = traffic(world, 30, seed=10)
    world.until_trust("exact")
    replays = {pod.address: world.kv_rows()[pod.address]["replays"] for pod in world.pods}
    with world.frozen():
        for pod in world.pods:
            push_out(world, pod)
        # Nothing can tell a silent line from an idle engine at once: its metrics do, seconds later.
        during = traffic(world, 10, seed=10)
        Confusion(during).show("while frozen")
        for pod in world.pods:
            wait_until(lambda: world.kv_rows()[pod.address]["replays"] > replays[pod.address], 30,
                       f"{pod.name} is asked for what it did not say")
        found_out = traffic(world, 10, seed=10)
        Confusion(found_out).show("still frozen, found out")
    world.until_heard()
    after = traffic(world, 30, seed=10)
    judged(world, "frozen: before and after", before + after)


def empty(world: Knowing) -> None:
    for pod in world.pods:
        # The engine tells of it with its next step, whatever that is for.
        pod.reset_prefix_cache()
        before = pod.tap.sequence
        pod.step()
        wait_until(lambda: pod.tap.sequence != before, 10, "the pod tells that it is empty")
    world.until_heard()


def push_out(world: Knowing, pod) -> None:
    """Prompts that nobody asks for again take most of the blocks."""
    workload = world.fresh_workload(pod.port)
    bodies = ({"model": world.model, "prompt": workload.ids(2500), "max_tokens": 1} for _ in range(3))
    world.send_past_the_gateway(pod, [Request("ids", COMPLETIONS, body) for body in bodies])


@check("know/three-at-a-time", stage="know", limit_s=300)
def concurrent(world: Knowing) -> None:
    requests = list(world.fresh_workload(11, lora=LORA).requests(150))
    outcomes = []
    for i in range(0, len(requests), 3):
        outcomes += world.send_at_once(requests[i:i + 3])
    table = Confusion(outcomes)
    table.show("three at a time")
    # Two of three fill or push out blocks between the third's decision and its first step.
    expect(table.share_equal() >= CONCURRENT_EQUAL_SHARE, f"{table.share_equal():.4f} equal")


@check("know/a-reset-cache-is-empty", stage="know", limit_s=300)
def reset(world: Knowing) -> None:
    warm = traffic(world, 40, seed=5)
    empty(world)
    after = traffic(world, 60, seed=5)
    judged(world, "reset", warm + after)


@check("know/a-reset-that-no-step-has-told-costs-one-request", stage="know", limit_s=120)
def untold_reset(world: Knowing) -> None:
    request = next(world.fresh_workload(12).requests(1))
    traffic(world, 10, seed=12)
    world.send([request, request])
    for pod in world.pods:
        pod.reset_prefix_cache()
    # The engine's next step is this very request: nobody can know before it.
    first, *others = world.send([request] * 3)
    Confusion([first, *others]).show("reset, not told yet")
    # While it ran, the engine told of the blocks that it filled again: these are to be kept.
    wrong = [one for one in others if one.pod == first.pod and one.verdict != "equal"]
    expect(not wrong, f"after {first}: {wrong[0] if wrong else ''}")


@check("know/a-gateway-that-starts-late-says-so", stage="know", limit_s=300)
def late(world: Knowing) -> None:
    before = traffic(world, 30, seed=6)
    world.stop_gateway()
    behind_its_back(world, 30, seed=7)
    world.start_gateway()
    forgetful = world.pods[1]
    wait_until(lambda: world.trust_of(forgetful) not in ("approximate", "catching-up"), 30, "replayed")
    row = world.kv_rows()[forgetful.address]
    expect((row["trust"], row["doubt"]) == ("uncertain", "late-start"), f"a late start is {row}")
    world.until_trust("exact", world.pods[:1])
    after = traffic(world, 80, seed=6)
    print(f"#   at the end: {[world.trust_of(pod) for pod in world.pods]}")
    judged(world, "late start", before + after)


@check("know/a-killed-pod-is-known-anew", stage="know", limit_s=600)
def killed(world: Knowing) -> None:
    before = traffic(world, 40, seed=8)
    victim = world.pods[0]
    victim.group.kill()
    meanwhile = traffic(world, 20, seed=8)
    victim.restart()
    # Not waited for: the first requests meet a gateway that is still finding out.
    after = traffic(world, 60, seed=8)
    world.until_trust("exact", [victim])
    after += traffic(world, 20, seed=8)
    expect(any(one.pod == victim.address for one in after), "nothing went to the pod that came back")
    judged(world, "SIGKILL and restart", before + meanwhile + after)


@check("know/all-together", stage="know")
def all_together(world: Knowing) -> None:
    judged(world, "all", [one for table in world.everything for one in table.outcomes])
