"""Streamed chats, and what a client saw of each: one record a request."""

import asyncio
import json
import time
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field

import aiohttp

from fleet import MODEL

REQUEST_LIMIT_S = 120
# What counts as good: seconds to the first token, and between tokens on average.
GOOD_TTFT_S, GOOD_TPOT_S = 1.0, 0.05


@dataclass
class Record:
    """Times are seconds since `sent`, which is seconds since the load's start."""

    session: int
    turn: int
    sent: float
    status: int = 0
    ttft: float | None = None
    total: float = 0.0
    largest_gap: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int | None = None
    output_tokens: int = 0
    upstream: str = ""
    decision: str = ""
    request_id: str = ""
    finish: str = ""
    error: str = ""
    text: str = field(default="", repr=False)

    @property
    def ok(self) -> bool:
        """A whole answer: 200, a reason to finish, and `[DONE]`."""
        return self.status == 200 and not self.error and bool(self.finish)

    @property
    def tpot(self) -> float | None:
        if self.ttft is None or self.output_tokens < 2:
            return None
        return (self.total - self.ttft) / (self.output_tokens - 1)

    @property
    def good(self) -> bool:
        return self.ok and self.ttft <= GOOD_TTFT_S and (self.tpot or 0) <= GOOD_TPOT_S


class Load:
    """Sends to one URL and gathers the records."""

    def __init__(self, url: str, client: aiohttp.ClientSession, with_session: bool = False):
        self.url, self.client, self.with_session = url, client, with_session
        self.began = time.monotonic()
        self.records: list[Record] = []

    async def chat(self, session: int, turn: int, messages: list[dict], max_tokens: int,
                   **more) -> Record:
        body = {"model": MODEL, "messages": messages, "max_tokens": max_tokens, "temperature": 0,
                "ignore_eos": True, "stream": True, "stream_options": {"include_usage": True}, **more}
        headers = {"content-type": "application/json"}
        if self.with_session:
            headers["x-session-id"] = f"session-{session}"
        data = json.dumps(body).encode()
        start = time.monotonic()
        record = Record(session, turn, start - self.began)
        self.records.append(record)
        try:
            async with self.client.post(f"{self.url}/v1/chat/completions", data=data,
                                        headers=headers) as answer:
                record.status = answer.status
                record.upstream = answer.headers.get("x-upstream-host", "")
                record.decision = answer.headers.get("x-hearth-decision", "")
                record.request_id = answer.headers.get("x-request-id", "")
                if answer.status != 200:
                    record.error = (await answer.text())[:300]
                else:
                    await self._read(answer, record, start)
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError, ValueError) as error:
            record.error = f"{type(error).__name__}: {error}"[:300]
        record.total = record.total or time.monotonic() - start
        return record

    async def _read(self, answer: aiohttp.ClientResponse, record: Record, start: float) -> None:
        last, done = None, False
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic() - start
            if line.startswith(b"data: [DONE]"):
                done = True
                continue
            event = json.loads(line[6:])
            if "error" in event:
                record.error = json.dumps(event["error"])[:300]
                continue
            if event.get("usage"):
                _count(record, event["usage"])
            for choice in event.get("choices", ()):
                # vLLM sends its first event when the first token is there, not before.
                record.ttft = now if record.ttft is None else record.ttft
                record.largest_gap = max(record.largest_gap, now - (last or now))
                record.total = last = now
                record.text += choice.get("delta", {}).get("content") or ""
                record.finish = choice.get("finish_reason") or record.finish
        if not done and not record.error:
            record.error = "cut without [DONE]"


def _count(record: Record, usage: dict) -> None:
    record.prompt_tokens = usage["prompt_tokens"]
    record.output_tokens = usage["completion_tokens"]
    details = usage.get("prompt_tokens_details") or {}
    record.cached_tokens = details.get("cached_tokens")


@asynccontextmanager
async def loading(url: str, with_session: bool = False):
    timeout = aiohttp.ClientTimeout(total=REQUEST_LIMIT_S)
    # A line is one event; a usage event with many ids is longer than aiohttp's 64 KiB.
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout,
                                     read_bufsize=1 << 20) as client:
        yield Load(url, client, with_session)


def as_row(record: Record, **more) -> dict:
    row = asdict(record) | more
    row.pop("text")
    return {key: round(value, 6) if isinstance(value, float) else value for key, value in row.items()}
