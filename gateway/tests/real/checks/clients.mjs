// One call of the unmodified openai package. usage: clients.mjs BASE_URL MODEL CALL
// Exit 0 if it did what the package promises; else the reason on stderr.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { join } from "node:path";

const [baseURL, model, call] = process.argv.slice(2);
const OpenAI = createRequire(join(process.env.HEARTH_NODE, "package.json"))("openai");
const client = new OpenAI({ baseURL, apiKey: "sk-test", maxRetries: 0 });
const messages = [{ role: "user", content: "Hello! What is 2+2?" }];

const calls = {
  async chat() {
    const answer = await client.chat.completions.create({ model, messages, max_tokens: 8 });
    assert.equal(answer.usage.completion_tokens, 8);
  },
  async stream() {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 8, stream: true, stream_options: { include_usage: true },
    });
    let last;
    for await (const chunk of stream) last = chunk;
    assert.equal(last.usage.completion_tokens, 8);
  },
  async abort() {
    const stream = await client.chat.completions.create({
      model, messages, max_tokens: 500, stream: true, ignore_eos: true,
    });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    stream.controller.abort();
    await calls.chat();
  },
  async completions() {
    const answer = await client.completions.create({ model, prompt: ["One", "Two"], max_tokens: 4 });
    assert.equal(answer.choices.length, 2);
  },
  async responses() {
    const stream = await client.responses.create({
      model, input: "Say hi", max_output_tokens: 8, stream: true,
    });
    const kinds = [];
    for await (const event of stream) kinds.push(event.type);
    assert.equal(kinds[0], "response.created");
    assert.match(kinds.at(-1), /^response\.(completed|incomplete)$/);
  },
  async models() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    assert.deepEqual(ids, [model]);
  },
  async retrieve() {
    assert.equal((await client.models.retrieve(model)).id, model);
  },
  async error() {
    const unknown = client.chat.completions.create({ model: "no-such-model", messages });
    await assert.rejects(unknown, (error) => error.status === 404 && error.code === "model_not_found");
  },
};

await calls[call]();
