"""Clients that send one request after the other until they are told to stop."""

import http.client
import json
import threading
import time
from collections import Counter
from urllib.parse import urlsplit

from fleet import MODEL


class Load:
    """`failures` is what no client may see; `last_seen` is when each pod was last chosen."""

    def __init__(self, url: str, clients: int = 4, pause_s: float = 0.01):
        self._netloc, self._pause_s = urlsplit(url).netloc, pause_s
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.sent, self.failures, self.by_pod = 0, [], Counter()
        self.last_seen: dict[str, float] = {}
        self._threads = [threading.Thread(target=self._client, args=(n,)) for n in range(clients)]

    def _client(self, number: int) -> None:
        connection, turn = None, 0
        while not self._stop.is_set():
            turn += 1
            began = time.monotonic()
            # Each prompt is new, so that no pod is the warm one.
            body = {"model": MODEL, "max_tokens": 4,
                    "prompt": f"client {number} turn {turn} " + "word " * 20}
            try:
                connection = connection or http.client.HTTPConnection(self._netloc, timeout=30)
                connection.request("POST", "/v1/completions", json.dumps(body),
                                   {"content-type": "application/json"})
                answer = connection.getresponse()
                text = answer.read()
                pod = answer.getheader("x-upstream-host", "")
                why = "" if answer.status == 200 else f"{answer.status} {text[:200]!r}"
            except OSError as error:
                connection, pod, why = None, "", f"{type(error).__name__}: {error}"
            except http.client.HTTPException as error:
                connection, pod, why = None, "", f"{type(error).__name__}: {error}"
            with self._lock:
                self.sent += 1
                self.by_pod[pod] += 1
                self.last_seen[pod] = max(began, self.last_seen.get(pod, 0))
                if why:
                    self.failures.append(why)
            self._stop.wait(self._pause_s)

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        for thread in self._threads:
            thread.join(40)
