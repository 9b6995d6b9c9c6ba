"""Requests of mixed shapes, the same for the same seed: what shares blocks and what must not."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
WORDS = ("river stone cloud garden silver window morning paper bridge yellow winter market forest candle"
         " letter harbour simple quiet naïve café Straße 東京 привет мир 안녕 😀 👩‍👩‍👧 e\u0301 don't re-use"
         " 3.14159 1,000,000 C++ foo_bar() => {} https://example.com/?q=1 \t tab   spaces").split(" ")
TOOL = {"type": "function", "function": {
    "name": "weather", "description": "The weather in a city",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}


@dataclass
class Request:
    shape: str
    path: str
    body: dict
    # Told of the answer's text, so that a conversation can go on with it.
    conversation: "Conversation | None" = None


@dataclass
class Conversation:
    messages: list[dict]
    limit: int
    more: dict = field(default_factory=dict)

    def heard(self, text: str) -> None:
        self.messages.append({"role": "assistant", "content": text})


class Workload:
    """`lora` is an adapter's name, if there is one; `scale` shortens every text (1: as it is)."""

    def __init__(self, model: str, seed: int, lora: str | None = None, scale: float = 1):
        self.model, self.lora, self.scale = model, lora, scale
        self.random = random.Random(seed)
        self.systems = [self.text(150 + 60 * i) for i in range(4)]
        self.stories = [self.text(300) for _ in range(3)]
        self.id_prefixes = [self.ids(200 + 100 * i) for i in range(3)]
        self.conversations: list[Conversation] = []

    def text(self, words: int) -> str:
        return " ".join(self.random.choice(WORDS) for _ in range(max(1, int(words * self.scale))))

    def ids(self, count: int) -> list[int]:
        return [self.random.randrange(1000, 40_000) for _ in range(int(count * self.scale))]

    def requests(self, count: int) -> Iterator[Request]:
        shapes = [(self.chat, 4), (self.talk, 6), (self.salted, 2), (self.story, 2), (self.by_ids, 3),
                  (self.tools, 1), (self.parts, 1), (self.repeated, 2)]
        if self.lora:
            shapes.append((self.adapted, 3))
        makers, weights = zip(*shapes)
        self._last: Request | None = None
        for _ in range(count):
            request = self.random.choices(makers, weights)[0]()
            self._last = request
            request.body = self._dressed(request)
            yield request

    def _dressed(self, request: Request) -> dict:
        body = {"model": self.model, "temperature": 0, "ignore_eos": True,
                "max_tokens": self.random.choice((1, 1, 2, 8, 40))} | request.body
        if self.random.random() < 0.3 and "stream" not in body:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body

    def _system(self) -> dict:
        return {"role": "system", "content": self.random.choice(self.systems)}

    def _user(self, words: int = 40) -> dict:
        return {"role": "user", "content": self.text(self.random.randrange(1, words))}

    def chat(self) -> Request:
        return Request("chat", CHAT, {"messages": [self._system(), self._user()]})

    def salted(self) -> Request:
        salt = self.random.choice(("tenant-a", "tenant-b", "tenant ü"))
        body = {"messages": [self._system(), self._user()], "cache_salt": salt}
        return Request("salt", CHAT, body)

    def adapted(self) -> Request:
        if self.random.random() < 0.3:
            return Request("lora", COMPLETIONS, self.by_ids().body | {"model": self.lora})
        body = {"messages": [self._system(), self._user()], "model": self.lora}
        return Request("lora", CHAT, body)

    def talk(self) -> Request:
        """Goes on with a conversation, or begins one."""
        self.conversations = [c for c in self.conversations if len(c.messages) < c.limit]
        if len(self.conversations) < 6:
            more = {"cache_salt": "tenant-a"} if self.random.random() < 0.2 else {}
            self.conversations.append(
                Conversation([self._system()], self.random.choice((5, 9, 15)), more))
        talk = self.random.choice(self.conversations)
        talk.messages.append(self._user(60))
        body = {"messages": list(talk.messages)} | talk.more
        return Request("conversation", CHAT, body, talk)

    def story(self) -> Request:
        text = self.random.choice(self.stories) + self.text(self.random.randrange(40))
        return Request("text", COMPLETIONS, {"prompt": text})

    def by_ids(self) -> Request:
        prefix = self.random.choice(self.id_prefixes)
        # Cut anywhere, block borders included: a hit never reaches the last token.
        cut = self.random.choice((len(prefix), len(prefix) // 32 * 32, self.random.randrange(1, len(prefix))))
        more = self.ids(self.random.choice((0, 0, 31, 32, 33, 90)))
        return Request("ids", COMPLETIONS, {"prompt": prefix[:cut] + more})

    def tools(self) -> Request:
        body = {"messages": [self._system(), self._user()], "tools": [TOOL]}
        return Request("tools", CHAT, body)

    def parts(self) -> Request:
        parts = [{"type": "text", "text": self.text(20)} for _ in range(2)]
        body = {"messages": [self._system(), {"role": "user", "content": parts}],
                "chat_template_kwargs": {"enable_thinking": self.random.random() < 0.5}}
        return Request("parts", CHAT, body)

    def repeated(self) -> Request:
        """The one before, once more."""
        if self._last is None:
            return self.chat()
        return Request("repeated", self._last.path, dict(self._last.body))
