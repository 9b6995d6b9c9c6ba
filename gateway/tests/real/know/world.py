"""Pods that tell, a gateway that hears them, and requests of which each is held against both."""

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from exchange import Answer, post
from harness import Failed, World
from hearth import Hearth
from know.outcome import Confusion, Outcome, outcome_of, usage_of
from know.pod import BLOCK_TOKENS, KnownPod
from know.workload import Request, Workload
from pods import MODELS
from processes import get, wait_until

DRAINED_WITHIN_S = 20


@dataclass
class Knowing(World):
    binary: Path = Path()
    hearth: Hearth | None = None
    # Whether the gateway can hear of a batch at all.
    is_heard: bool = True
    # Whether batches are being lost: only of a pod that it calls exact must it then know the last,
    is_lossy: bool = False
    # and, if that one was lost, only if it can ask for it.
    has_history: bool = True
    number: int = 0
    # The tables of all checks that were judged.
    everything: list[Confusion] = field(default_factory=list)

    def start_gateway(self, *more: str) -> None:
        flags = ("--tokenizers", json.dumps({self.model: str(MODELS[self.model])}),
                 "--drain-linger", "0s", "--log-access=false", *more)
        self.hearth = Hearth(self.binary, [pod.url for pod in self.pods], flags)
        self.hearth.wait_ready()
        self.gateway = self.hearth.url

    def stop_gateway(self) -> None:
        if self.hearth:
            self.hearth.__exit__()
            self.hearth = None

    def kv_rows(self) -> dict[str, dict]:
        """The gateway's word on each pod's stream, by `ip:port`."""
        page = json.loads(get(f"{self.hearth.admin_url}/pool")[1])
        return {row["address"]: row["kv_events"] for row in page["pods"]}

    def trust_of(self, pod: KnownPod) -> str:
        return self.kv_rows()[pod.address]["trust"]

    def until_trust(self, trust: str, pods: list[KnownPod] | None = None, deadline_s: float = 30) -> None:
        for pod in pods or self.pods:
            wait_until(lambda: self.trust_of(pod) == trust, deadline_s,
                       f"{pod.name} {trust}; it is {self.kv_rows()[pod.address]}")

    def send(self, requests) -> list[Outcome]:
        """One after the other, each when all that the pods told of the one before was heard."""
        return [one for request in requests for one in self.send_at_once([request])]

    def send_at_once(self, requests: list[Request]) -> list[Outcome]:
        """All at the same time; returns when everything that the pods told of them was heard."""
        before = {pod.address: pod.tap.stored for pod in self.pods}
        if len(requests) == 1:
            answers = [self._posted(self.gateway, requests[0])]
        else:
            with ThreadPoolExecutor(len(requests)) as threads:
                answers = list(threads.map(lambda one: self._posted(self.gateway, one), requests))
        outcomes = []
        for request, answer in zip(requests, answers):
            self.number += 1
            outcome = outcome_of(self.number, request.shape, answer)
            if request.conversation:
                request.conversation.heard(outcome.text)
            outcomes.append(outcome)
        for pod in self.pods:
            usages = [usage_of(answer)[0] for answer, outcome in zip(answers, outcomes)
                      if outcome.pod == pod.address]
            if usages:
                self._until_told(pod, before[pod.address], usages)
                self.until_heard([pod])
        return outcomes

    def send_past_the_gateway(self, pod: KnownPod, requests) -> None:
        for request in requests:
            before = pod.tap.stored
            usage, text = usage_of(self._posted(pod.url, request))
            if request.conversation:
                request.conversation.heard(text)
            self._until_told(pod, before, [usage])
        self.until_heard([pod])

    def _posted(self, base: str, request: Request) -> Answer:
        answer = post(base, request.path, request.body)
        if answer.status != 200:
            raise Failed(f"{request.shape}: HTTP {answer.status}: {answer.body[:300]!r}")
        return answer

    def _until_told(self, pod: KnownPod, stored_before: int, usages: list[dict]) -> None:
        """The pod has announced every block that these answers filled."""
        filled = sum(map(blocks_filled, usages))
        wait_until(lambda: pod.tap.stored >= stored_before + filled, DRAINED_WITHIN_S,
                   f"{pod.name} announces {filled} blocks after {usages}", 0.002)

    def until_heard(self, pods: list[KnownPod] | None = None) -> None:
        """The gateway has applied the last batch that the pods told."""
        if not self.is_heard or not self.hearth:
            return
        for pod in pods or self.pods:
            wait_until(lambda: self._has_heard(pod), DRAINED_WITHIN_S,
                       f"batch {pod.tap.sequence} of {pod.name} at the gateway", 0.002)

    def _has_heard(self, pod: KnownPod) -> bool:
        row = self.kv_rows()[pod.address]
        is_last_lost = pod.events.lost_sequence == pod.tap.sequence
        excused = self.is_lossy and (row["trust"] != "exact" or is_last_lost and not self.has_history)
        return excused or row["last_sequence"] == pod.tap.sequence

    def cut(self):
        """No stream, no history: nothing can be heard until the end of the block."""
        return self._unheard(lambda pod: pod.cut())

    def frozen(self):
        """The streams stay open and silent until the end of the block, then all of it comes."""
        return self._unheard(lambda pod: pod.events.freeze())

    @contextlib.contextmanager
    def _unheard(self, silence):
        self.is_heard = False
        try:
            for pod in self.pods:
                silence(pod)
            yield
        finally:
            for pod in self.pods:
                pod.mend()
            self.is_heard = True

    @contextlib.contextmanager
    def losing(self, share: float, with_history: bool = True):
        """That share of the batches never arrives; the history, if there is one, has them."""
        self.is_lossy, self.has_history = True, with_history
        try:
            for pod in self.pods:
                pod.events.loss = share
                if not with_history:
                    pod.replay.cut()
            yield
        finally:
            for pod in self.pods:
                pod.mend()
            self.is_lossy, self.has_history = False, True

    def fresh_workload(self, seed: int, **more) -> Workload:
        return Workload(self.model, seed, **more)


def blocks_filled(usage: dict) -> int:
    """The last token that was generated has not been computed."""
    computed = usage["prompt_tokens"] + usage["completion_tokens"] - 1
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    return computed // BLOCK_TOKENS - cached // BLOCK_TOKENS
