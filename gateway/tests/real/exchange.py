"""HTTP as bytes: what was sent back, exactly, and what of it is bound to differ."""

import http.client
import json
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# An id and a time are new with every answer; the rest has to be the same to the byte.
VARYING = [
    (re.compile(rb'("(?:id|item_id|call_id|response_id|request_id)":\s*)"[^"]*"'), rb'\1"*"'),
    (re.compile(rb'("(?:created|created_at|completed_at)":\s*)[0-9.]+'), rb"\g<1>0"),
]


@dataclass(frozen=True)
class Answer:
    status: int
    content_type: str
    body: bytes
    headers: dict[str, str]

    def masked(self) -> bytes:
        body = self.body
        for pattern, replacement in VARYING:
            body = pattern.sub(replacement, body)
        return body

    def json(self):
        return json.loads(self.body)


def post(base: str, path: str, body: dict | bytes, headers: dict[str, str] | None = None,
         timeout_s: float = 60) -> Answer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return send(base, "POST", path, data, {"content-type": "application/json"} | (headers or {}),
                timeout_s)


def send(base: str, method: str, path: str, body: bytes | None, headers: dict[str, str],
         timeout_s: float = 60) -> Answer:
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=timeout_s)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        lower = {name.lower(): value for name, value in answer.getheaders()}
        return Answer(answer.status, lower.get("content-type", ""), answer.read(), lower)
    finally:
        connection.close()


def events(base: str, path: str, body: dict, timeout_s: float = 60):
    """Yields every SSE `data:` of a streamed answer as it arrives. Closing the generator hangs up."""
    connection = http.client.HTTPConnection(urlsplit(base).netloc, timeout=timeout_s)
    try:
        connection.request("POST", path, json.dumps(body | {"stream": True}).encode(),
                           {"content-type": "application/json"})
        answer = connection.getresponse()
        if answer.status != 200:
            raise OSError(f"HTTP {answer.status}: {answer.read(300)!r}")
        yield answer
        for line in answer:
            if line.startswith(b"data: "):
                yield line[6:].strip()
    finally:
        connection.close()


def content_of(data: bytes) -> str:
    """The text that one chat or completion chunk carries, "" for the others."""
    if data == b"[DONE]":
        return ""
    record = json.loads(data)
    if "error" in record:
        raise OSError(f"error event: {record['error']}")
    for choice in record.get("choices", ()):
        return choice.get("text") or choice.get("delta", {}).get("content") or ""
    return ""
