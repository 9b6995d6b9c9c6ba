"""`hearth epp` behind a real Envoy, wired in each way that works, over simulated pods."""

import json
import os
import socket
import tempfile
import time
import unittest
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

from arms import hearth, pods
from arms.arm import fetch

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hearth"
CHAT = "/v1/chat/completions"
DEAF = ("--kv-events-mode", "off", "--pool-probe-interval", "1h",
        "--pool-engine-metrics-interval", "1h", "--pool-engine-metrics-idle-interval", "1h")
"""So that nothing but requests shows how a pod is."""
LONG = "What is said in every one of these is the same. " * 2_500


def chat(prompt: str, **more) -> bytes:
    message = {"role": "user", "content": prompt}
    return json.dumps({"messages": [message], "max_tokens": 8, **more}).encode()


def start(stack: ExitStack, scratch: Path, modes: dict[str, str], settings: tuple[str, ...]):
    """Three pods, and Envoy with Hearth before them."""
    loadtest = Path(os.environ["LOADTEST_BINARY"])
    fleet = stack.enter_context(pods.Simulated(loadtest, scratch, 3, 8192))
    [envoy] = CACHE.glob("envoy-1.40.0/lib/python3*/site-packages/envoy/_bin/envoy")
    binaries = (envoy, Path(os.environ["HEARTH_BINARY"]))
    arm = hearth.behind_envoy(binaries, fleet.addresses, scratch, settings, modes)
    return fleet, stack.enter_context(arm)


def ask(arm, path: str = CHAT, body: bytes | None = None, **headers):
    """Status, headers, body."""
    headers["content-type"] = "application/json"
    request = urllib.request.Request(f"http://{arm.address}{path}", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


class BehindEnvoy:
    """The checks; each wiring below runs all of them."""

    modes: dict[str, str] = {}
    settings: tuple[str, ...] = ()

    @classmethod
    def setUpClass(cls):
        stack = ExitStack()
        cls.addClassCleanup(stack.close)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        settings = ("--limits-body", "1MiB", *cls.settings)
        cls.pods, cls.arm = start(stack, scratch, cls.modes, settings)

    def tearDown(self):
        self.wait_for("hearth_bookings", 0)
        self.wait_for("hearth_requests_in_flight", 0)
        self.wait_for("hearth_request_body_bytes_held", 0)

    def ask(self, path: str = CHAT, body: bytes | None = None, **headers):
        return ask(self.arm, path, body, **headers)

    def metric(self, name: str) -> float:
        page = fetch(f"http://{self.arm.admin}/metrics").decode()
        lines = [line for line in page.splitlines() if line.startswith(name)]
        self.assertTrue(lines, f"no metric is called {name}")
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    def wait_for(self, name: str, value: float):
        end = time.monotonic() + 30
        while self.metric(name) != value:
            self.assertLess(time.monotonic(), end, f"{name} is {self.metric(name)}")

    def received(self, address: str) -> list[dict]:
        return json.loads(fetch(f"http://{address}/sim/requests"))["requests"]

    def test_a_prompt_goes_back_to_where_it_was_and_its_bytes_are_its_own(self):
        body = chat(LONG + self.id(), seed=2**63 - 1)
        homes, ids = set(), []
        for turn in range(3):
            status, headers, answer = self.ask(body=body)
            self.assertEqual(status, 200, answer)
            ids.append(headers["x-request-id"])
            homes.add(headers["x-upstream-host"])
            if turn:
                self.assertNotIn("matched=0;", headers["x-hearth-decision"])
        [home] = homes
        mine = [request for request in self.received(home) if request["body"] == body.decode()]
        self.assertEqual([dict(request["headers"])["x-request-id"] for request in mine], ids)

    def test_a_place_is_held_as_long_as_its_answer_lasts(self):
        body = chat("A long story", stream=True, max_tokens=2_000, ignore_eos=True)
        request = urllib.request.Request(f"http://{self.arm.address}{CHAT}", body,
                                         {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            for _ in range(20):
                self.assertTrue(answer.readline())
            self.assertEqual(self.metric("hearth_bookings"), 1)
        # The client has hung up.
        self.wait_for("hearth_bookings", 0)

    def test_a_stream_comes_whole(self):
        status, headers, answer = self.ask(body=chat(
            "hi", stream=True, max_tokens=300, ignore_eos=True,
            stream_options={"include_usage": True}))
        self.assertEqual((status, headers["content-type"].split(";")[0]),
                         (200, "text/event-stream"))
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"))
        self.assertIn(b'"completion_tokens":300', answer)

    def test_errors_are_ours(self):
        for path, body, code, word in (
                (CHAT, b"{", 400, "invalid_json"),
                (CHAT, chat("hi", model="other"), 404, "model_not_found"),
                ("/sleep", b"{}", 404, "unknown_url"),
                (CHAT, chat("x" * (1 << 20)), 413, "body_too_large")):
            status, headers, answer = self.ask(path, body)
            self.assertEqual((status, json.loads(answer)["error"]["code"]), (code, word))
            self.assertEqual(headers["content-type"], "application/json")
            self.assertEqual(headers["x-hearth-decision"], f"none;reason={word}")

    def test_what_has_no_body_is_answered(self):
        status, _, answer = self.ask("/v1/models")
        self.assertEqual((status, len(json.loads(answer)["data"])), (200, 1))
        status, headers, _ = self.ask("/version")
        self.assertEqual(status, 200)
        self.assertIn(headers["x-upstream-host"], self.pods.addresses)

    def test_a_client_that_leaves_before_its_end_leaves_nothing(self):
        host, port = self.arm.address.split(":")
        head = f"POST {CHAT} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n".encode()
        for sent in (head, head + b"{" * 500):
            with socket.create_connection((host, int(port))) as client:
                client.sendall(sent)
                self.wait_for("hearth_requests_in_flight", 1)
            self.wait_for("hearth_requests_in_flight", 0)

    def test_clients_do_not_steer(self):
        before = sum(len(self.received(pod)) for pod in self.pods.addresses)
        status, _, _ = self.ask(body=chat("hi"), **{
            "x-gateway-destination-endpoint": "127.0.0.1:1", "x-prefiller-host-port": "127.0.0.1:1",
            "x-data-parallel-rank": "7"})
        self.assertEqual(status, 200)
        all_of_them = [request for pod in self.pods.addresses for request in self.received(pod)]
        self.assertEqual(len(all_of_them), before + 1)
        for request in all_of_them:
            names = {name for name, _ in request["headers"]}
            self.assertFalse(names & {"x-data-parallel-rank", "x-prefiller-host-port"})


class Lean(BehindEnvoy, unittest.TestCase):
    """As README advises."""

    modes = {"response_body_mode": "NONE"}


class AsAnEndpointPicker(BehindEnvoy, unittest.TestCase):
    """The wiring of an Endpoint Picker, untouched: all of every answer goes through."""

    settings = ("--epp-answers",)

    def test_answers_are_learned_from(self):
        before = self.metric("hearth_time_to_first_token_seconds_count")
        self.ask(body=chat("hi", stream=True))
        self.wait_for("hearth_time_to_first_token_seconds_count", before + 1)


class Buffered(BehindEnvoy, unittest.TestCase):
    """Envoy holds requests itself, and is told to keep answers."""

    modes = {"request_body_mode": "BUFFERED", "response_body_mode": "STREAMED",
             "message_timeout": "1000s\n              allow_mode_override: true",
             "per_connection_buffer_limit_bytes": "4194304"}


class PodThatIsGone(unittest.TestCase):
    """Envoy says whom it did not reach (`response_attributes`), and nobody else is sent there."""

    def test_it_gets_no_more_requests(self):
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            fleet, arm = start(stack, scratch, {
                "response_body_mode": "NONE",
                "message_timeout":
                    "1000s\n              response_attributes: [response.code_details]",
            }, ("--routing-policy", "round-robin", *DEAF))
            fleet.programs[0].stop()
            statuses = [ask(arm, body=chat(f"{turn}"))[0] for turn in range(30)]
            self.assertEqual(set(statuses), {200, 503}, statuses)
            # As many as it takes to believe it (`pool.health.failed_requests`).
            self.assertLessEqual(statuses.count(503), 3, statuses)


if __name__ == "__main__":
    unittest.main()
