"""The clients that people use, unmodified, told nothing but a base URL."""

import json
import os
import subprocess
from pathlib import Path

import anthropic
import openai
from pydantic import BaseModel

from harness import Failed, World, check, expect, expect_equal
from processes import REAL

# Neither library may phone home or look for prices while it is being tested.
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_TELEMETRY": "False",
               "LANGSMITH_TRACING": "false"}
KEY = "sk-test"
MESSAGES = [{"role": "user", "content": "Hello! What is 2+2?"}]
CLIENTS_MJS = Path(__file__).with_name("clients.mjs")
JS_CALLS = ("chat", "stream", "abort", "completions", "responses", "models", "retrieve", "error")


class City(BaseModel):
    city: str
    people: int


def openai_client(world: World) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{world.gateway}/v1", api_key=KEY, max_retries=0)


def refused(call, kind: type[Exception]) -> Exception:
    try:
        call()
    except kind as error:
        return error
    raise Failed(f"no {kind.__name__}")


@check("openai-python/chat")
def openai_chat(world: World) -> None:
    answer = openai_client(world).chat.completions.create(
        model=world.model, messages=MESSAGES, max_tokens=8)
    expect_equal(answer.usage.completion_tokens, 8, "completion tokens")


@check("openai-python/stream-with-usage")
def openai_stream(world: World) -> None:
    chunks = list(openai_client(world).chat.completions.create(
        model=world.model, messages=MESSAGES, max_tokens=8, stream=True,
        stream_options={"include_usage": True}))
    expect_equal(chunks[-1].usage.completion_tokens, 8, "completion tokens in the last chunk")
    expect_equal([c.choices[0].finish_reason for c in chunks if c.choices][-1], "length", "finish")


@check("openai-python/stream-helper")
def openai_stream_helper(world: World) -> None:
    with openai_client(world).chat.completions.stream(
            model=world.model, messages=MESSAGES, max_tokens=8) as stream:
        kinds = {event.type for event in stream}
    expect("content.delta" in kinds, f"events: {kinds}")


@check("openai-python/json-schema")
def openai_json_schema(world: World) -> None:
    schema = City.model_json_schema()
    # A random model never closes a string or a number by itself: let the grammar do it.
    schema["properties"] = {"city": {"enum": ["Oslo", "Rome"]}, "people": {"enum": [1, 2]}}
    answer = openai_client(world).chat.completions.create(
        model=world.model, messages=MESSAGES, max_tokens=200, temperature=0,
        response_format={"type": "json_schema", "json_schema": {"name": "city", "schema": schema}})
    City.model_validate_json(answer.choices[0].message.content)


@check("openai-python/abort")
def openai_abort(world: World) -> None:
    stream = openai_client(world).chat.completions.create(
        model=world.model, messages=MESSAGES, max_tokens=500, stream=True,
        extra_body={"ignore_eos": True})
    next(iter(stream))
    stream.close()
    openai_chat(world)


@check("openai-python/completions")
def openai_completions(world: World) -> None:
    client = openai_client(world)
    one = client.completions.create(model=world.model, prompt="Once", max_tokens=4)
    expect_equal(one.usage.completion_tokens, 4, "completion tokens")
    indices = {chunk.choices[0].index for chunk in client.completions.create(
        model=world.model, prompt=["Once", "Twice"], max_tokens=4, stream=True)}
    expect_equal(indices, {0, 1}, "choices of a streamed prompt list")


@check("openai-python/responses")
def openai_responses(world: World) -> None:
    client = openai_client(world)
    answer = client.responses.create(model=world.model, input="Say hi", max_output_tokens=8)
    expect_equal(answer.usage.output_tokens, 8, "output tokens")
    kinds = [event.type for event in client.responses.create(
        model=world.model, input="Say hi", max_output_tokens=8, stream=True)]
    expect_equal(kinds[0], "response.created", "first event")
    expect(kinds[-1] in ("response.completed", "response.incomplete"), f"last event {kinds[-1]}")


@check("openai-python/models")
def openai_models(world: World) -> None:
    client = openai_client(world)
    expect_equal([model.id for model in client.models.list()], [world.model], "models")
    expect_equal(client.models.retrieve(world.model).id, world.model, "retrieved")
    refused(lambda: client.models.retrieve("no-such-model"), openai.NotFoundError)


@check("openai-python/embeddings-of-a-chat-model")
def openai_embeddings(world: World) -> None:
    client = openai_client(world)
    refused(lambda: client.embeddings.create(model=world.model, input="hi"), openai.NotFoundError)


@check("openai-python/unknown-model")
def openai_unknown_model(world: World) -> None:
    error = refused(lambda: openai_client(world).chat.completions.create(
        model="no-such-model", messages=MESSAGES), openai.NotFoundError)
    expect_equal(error.code, "model_not_found", "code")


def anthropic_client(world: World) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=world.gateway, api_key=KEY, max_retries=0)


@check("anthropic/messages")
def anthropic_messages(world: World) -> None:
    answer = anthropic_client(world).messages.create(
        model=world.model, messages=MESSAGES, max_tokens=8)
    expect_equal(answer.usage.output_tokens, 8, "output tokens")


@check("anthropic/stream")
def anthropic_stream(world: World) -> None:
    with anthropic_client(world).messages.stream(
            model=world.model, messages=MESSAGES, max_tokens=8) as stream:
        text = "".join(stream.text_stream)
    expect(text, "no text")


@check("anthropic/count-tokens")
def anthropic_count(world: World) -> None:
    count = anthropic_client(world).messages.count_tokens(model=world.model, messages=MESSAGES)
    expect(count.input_tokens > 5, f"{count.input_tokens} tokens")


@check("anthropic/models")
def anthropic_models(world: World) -> None:
    expect_equal([m.id for m in anthropic_client(world).models.list()], [world.model], "models")


@check("anthropic/unknown-model")
def anthropic_unknown_model(world: World) -> None:
    error = refused(lambda: anthropic_client(world).messages.create(
        model="no-such-model", messages=MESSAGES, max_tokens=1), anthropic.NotFoundError)
    expect_equal(error.body["type"], "error", "the body's type")


def langchain_client(world: World, **more):
    from langchain_openai import ChatOpenAI  # two seconds of imports, only where needed

    return ChatOpenAI(base_url=f"{world.gateway}/v1", api_key=KEY, model=world.model,
                      max_retries=0, **more)


@check("langchain-openai/invoke-and-stream")
def langchain_invoke(world: World) -> None:
    llm = langchain_client(world, max_tokens=8)
    expect_equal(llm.invoke("Hi").usage_metadata["output_tokens"], 8, "output tokens")
    expect("".join(str(chunk.content) for chunk in llm.stream("Hi")), "no streamed text")


@check("langchain-openai/responses")
def langchain_responses(world: World) -> None:
    llm = langchain_client(world, max_tokens=8, use_responses_api=True)
    expect_equal(llm.invoke("Hi").usage_metadata["output_tokens"], 8, "output tokens")


@check("langchain-openai/structured")
def langchain_structured(world: World) -> None:
    llm = langchain_client(world, max_tokens=200, temperature=0)
    schema = {"title": "answer", "type": "object", "additionalProperties": False,
              "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
    answer = llm.with_structured_output(schema, method="json_schema").invoke("Is it?")
    expect_equal(list(answer), ["yes"], "keys of the answer")


@check("litellm/openai-hosted_vllm-anthropic", limit_s=120)
def litellm_calls(world: World) -> None:
    import litellm  # five seconds of imports

    litellm.suppress_debug_info = True
    for provider, base in (("openai", "/v1"), ("hosted_vllm", "/v1"), ("anthropic", "")):
        answer = litellm.completion(
            model=f"{provider}/{world.model}", api_base=world.gateway + base, api_key=KEY,
            messages=MESSAGES, max_tokens=8, num_retries=0)
        expect_equal(answer.usage.completion_tokens, 8, f"{provider}: completion tokens")


def javascript(world: World, call: str) -> None:
    done = subprocess.run(
        ["node", str(CLIENTS_MJS), f"{world.gateway}/v1", world.model, call],
        env=os.environ | {"HEARTH_NODE": str(REAL / "node")},
        capture_output=True, text=True, timeout=50, check=False)
    expect(done.returncode == 0, (done.stderr or done.stdout)[-400:])


for _call in JS_CALLS:
    check(f"openai-javascript/{_call}")(lambda world, call=_call: javascript(world, call))


def curl(world: World, *arguments: str, data: str | None = None) -> str:
    command = ["curl", "-sS", "--fail-with-body", "--max-time", "30", *arguments,
               f"{world.gateway}/v1/chat/completions", "-H", "content-type: application/json",
               "--data-binary", "@-"]
    body = data or json.dumps({"model": world.model, "messages": MESSAGES, "max_tokens": 4})
    done = subprocess.run(command, input=body, capture_output=True, text=True, check=False)
    expect(done.returncode == 0, f"curl ended with {done.returncode}: {done.stderr} {done.stdout[:200]}")
    return done.stdout


@check("curl/chat")
def curl_chat(world: World) -> None:
    expect_equal(json.loads(curl(world))["usage"]["completion_tokens"], 4, "completion tokens")


@check("curl/http2-prior-knowledge")
def curl_h2c(world: World) -> None:
    out = curl(world, "--http2-prior-knowledge", "-w", "\n%{http_version}")
    expect_equal(out.splitlines()[-1], "2", "HTTP version")


@check("curl/chunked-upload-and-expect-continue")
def curl_chunked(world: World) -> None:
    padded = json.dumps({"model": world.model, "messages": MESSAGES, "max_tokens": 4,
                         "padding": "x" * 300_000})
    for header in ("Transfer-Encoding: chunked", "Expect: 100-continue"):
        answer = json.loads(curl(world, "-H", header, data=padded))
        expect_equal(answer["usage"]["completion_tokens"], 4, header)


@check("curl/stream")
def curl_stream(world: World) -> None:
    body = json.dumps({"model": world.model, "messages": MESSAGES, "max_tokens": 4, "stream": True})
    out = curl(world, "-N", data=body)
    expect_equal(out.strip().splitlines()[-1], "data: [DONE]", "last line")
