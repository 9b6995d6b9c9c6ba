"""Runs inside a vLLM server (`--middleware announce.Announce`): the pod's own word on where its
KV events are names the relay in front of its publisher."""

import os


class Announce:
    def __init__(self, app):
        self.app = app
        self.body = os.environ["KV_EVENT_SOURCES"].encode()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] != "/kv_event_sources":
            return await self.app(scope, receive, send)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})
