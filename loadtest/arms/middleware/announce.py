"""Runs inside a vLLM server (`--middleware announce.Announce`): says where its KV events are.

vLLM has the route from some version after 0.26 on. Here all servers share one address, so Hearth's
one `kv_events.port` cannot tell them apart.
"""

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
