"""Runs inside a vLLM server (`--middleware announce.Announce`): says where its KV events are.

For servers before vLLM has the route (after 0.26), of which several share one address so that Hearth's
one `kv_events.port` cannot tell them apart; and for those before whose publisher something stands.
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
