"""What Hearth hands over is what the pod said, to the byte, ids and times aside."""

import difflib

from exchange import post
from harness import World, check, expect, expect_equal

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
HELLO = [{"role": "system", "content": "You are terse. ünïcödé 😀"},
         {"role": "user", "content": "Hello! What is 2+2?"}]
WEATHER = [{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "enum": ["Oslo", "Rome"]}},
            "required": ["city"],
        },
    },
}]


def chat(**more):
    return CHAT, {"messages": HELLO, "max_tokens": 12, "temperature": 0} | more


def completion(**more):
    return COMPLETIONS, {"prompt": "Once upon a time", "max_tokens": 12, "temperature": 0} | more


USAGE = {"stream": True, "stream_options": {"include_usage": True}}
NAMED = {"type": "function", "function": {"name": "weather"}}
CASES = {
    "chat": chat(),
    "chat-stream": chat(**USAGE),
    "chat-stream-usage-in-every-chunk": chat(
        stream=True, stream_options={"include_usage": True, "continuous_usage_stats": True}),
    "chat-logprobs": chat(logprobs=True, top_logprobs=3),
    "chat-stream-logprobs": chat(logprobs=True, top_logprobs=2, **USAGE),
    "chat-n2": chat(n=2, temperature=0.8, seed=7),
    "chat-tools-auto": chat(tools=WEATHER),
    "chat-tools-named": chat(tools=WEATHER, tool_choice=NAMED, max_tokens=24),
    "chat-tools-named-stream": chat(tools=WEATHER, tool_choice=NAMED, max_tokens=24, stream=True),
    "chat-stop": chat(stop=["ation", "zzz"]),
    "chat-token-ids": chat(return_token_ids=True),
    "chat-token-ids-stream": chat(return_token_ids=True, stream=True),
    "chat-unknown-fields": chat(an_unknown_field={"deep": [1, 2.50, 1e3]}, user="someone"),
    "completion": completion(),
    "completion-stream": completion(**USAGE),
    "completion-logprobs": completion(logprobs=2),
    "completion-n2-stream": completion(n=2, temperature=0.8, seed=7, stream=True),
    "completion-prompt-list": completion(prompt=["One", "Two"]),
    "completion-prompt-ids": completion(prompt=[9707, 0, 3555, 374]),
    "completion-echo": completion(echo=True),
    "responses": ("/v1/responses", {"input": "Say hi", "max_output_tokens": 12, "temperature": 0}),
    "messages": ("/v1/messages", {"messages": HELLO[1:], "max_tokens": 12, "temperature": 0}),
    "tokenize": ("/tokenize", {"messages": HELLO}),
    "detokenize": ("/detokenize", {"tokens": [9707, 0, 3555]}),
    "error-context-length": chat(max_tokens=100_000),
    "error-context-length-stream": chat(max_tokens=100_000, stream=True),
    "error-field-type": chat(temperature="hot"),
    "error-field-range": chat(temperature=-1),
    "error-no-messages": (CHAT, {"max_tokens": 3}),
    "error-stream-options-without-stream": chat(stream_options={"include_usage": True}),
    "error-token-id-range": completion(prompt=[999_999_999]),
    "error-embeddings": ("/v1/embeddings", {"input": "hi"}),
}
# Under load vLLM joins deltas that its own HTTP side had no time for, so two equal streams may be
# cut differently. One equal pair in five proves that the gateway changes nothing; a gateway that
# changes a byte never makes one.
ATTEMPTS = 5


def same_bytes(world: World, path: str, body: dict) -> None:
    body = {"model": world.model} | body
    for pod in world.pods:  # from here on every pod answers from its prefix cache
        post(pod.url, path, body)
    for _ in range(ATTEMPTS):
        direct = post(world.pods[0].url, path, body)
        through = post(world.gateway, path, body)
        if direct.masked() == through.masked():
            break
    expect_equal(through.status, direct.status, "status")
    expect_equal(through.content_type, direct.content_type, "content-type")
    expect(direct.masked() == through.masked(), _difference(direct.masked(), through.masked()))
    if direct.status == 200:
        for header in ("x-request-id", "x-upstream-host", "x-hearth-decision"):
            expect(header in through.headers, f"no {header} in {sorted(through.headers)}")


def _difference(direct: bytes, through: bytes) -> str:
    a, b = direct.decode(errors="replace"), through.decode(errors="replace")
    for tag, a0, a1, b0, b1 in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes():
        if tag != "equal":
            return f"at byte {a0}: pod {a[a0:a1][:120]!r}, gateway {b[b0:b1][:120]!r}"
    return "equal"


for _name, (_path, _body) in CASES.items():
    check(f"bytes/{_name}", limit_s=90)(
        lambda world, path=_path, body=_body: same_bytes(world, path, body))


@check("errors/not-json")
def not_json(world: World) -> None:
    answer = post(world.gateway, CHAT, b'{"model": "tiny", "messages": [')
    expect_equal(answer.status, 400, "status")
    expect_equal(sorted(answer.json()["error"]), ["code", "message", "param", "type"], "keys")


@check("errors/unknown-model")
def unknown_model(world: World) -> None:
    answer = post(world.gateway, *chat(model="no-such-model"))
    expect_equal(answer.status, 404, "status")
    expect_equal(answer.json()["error"]["code"], "model_not_found", "code")
