// Every method of the official OpenAI SDK for Node on the endpoints that Honshu serves. Runs the section that its
// argument names, and fails where an answer is not what it has to be.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const model = "honshu.scripted";
const options = { apiKey: process.env.KEY, baseURL: process.env.BASE, maxRetries: 0 };
const client = new OpenAI(options);
const user = (content) => ({ role: "user", content });

async function all(list) {
  const found = [];
  for await (const one of await list) found.push(one);
  return found;
}

async function ended(response) {
  while (["queued", "in_progress"].includes(response.status)) {
    await new Promise((resolve) => setTimeout(resolve, 20));
    response = await client.responses.retrieve(response.id);
  }
  return response;
}

const refused = (call, kind) => assert.rejects(call, (error) => {
  assert.ok(error instanceof kind && error.requestID, `${error}`);
  return true;
});

const schema = {
  type: "object", properties: { city: { type: "string" } }, required: ["city"], additionalProperties: false,
};

const sections = {
  async responses() {
    const input = ["one", "two", "Reply with exactly: three"].map(user);
    const made = await client.responses.create({ model, input, metadata: { a: "b" }, max_tool_calls: 3 });
    assert.equal(made.output_text, "three");
    assert.equal(made.max_tool_calls, 3);
    const read = await client.responses.retrieve(made.id);
    assert.deepEqual(read.output, made.output);
    const items = await all(client.responses.inputItems.list(made.id, { order: "asc", limit: 1 }));
    assert.deepEqual(items.map((item) => item.content[0].text), ["one", "two", "Reply with exactly: three"]);
    const next = await client.responses.create({
      model, input: "Reply with exactly: next", previous_response_id: made.id,
    });
    assert.ok(next.usage.input_tokens > 10);
    await client.responses.delete(made.id);
    await refused(client.responses.retrieve(made.id), OpenAI.NotFoundError);
    await refused(client.responses.delete(made.id), OpenAI.NotFoundError);
    await refused(all(client.responses.inputItems.list(made.id)), OpenAI.NotFoundError);
    await refused(
      client.responses.create({ model, input: "x", previous_response_id: next.id }), OpenAI.BadRequestError);
  },

  async background() {
    const slow = await client.responses.create({
      model, input: "Answer with 9000 words [scripted: delay-ms=50]", background: true,
    });
    assert.equal(slow.status, "queued");
    assert.equal((await client.responses.cancel(slow.id)).status, "cancelled");
    const quick = await client.responses.create({ model, input: "Reply with exactly: x", background: true });
    const done = await ended(quick);
    assert.deepEqual([done.status, done.output_text], ["completed", "x"]);
  },

  async compaction() {
    const compacted = await client.responses.compact({ model, input: [user("My name is Aiko.")] });
    assert.deepEqual(compacted.output.map((item) => item.type), ["message", "compaction"]);
    const input = [...compacted.output, user("Reply with exactly: on")];
    assert.equal((await client.responses.create({ model, input })).output_text, "on");
    const counted = await client.responses.inputTokens.count({ model, input: "one two" });
    const used = await client.responses.create({ model, input: "one two" });
    assert.equal(counted.input_tokens, used.usage.input_tokens);
    const within = await client.responses.create({
      model, input: [user("word ".repeat(2000)), { role: "assistant", content: "Understood." }, user("Go on.")],
      context_management: [{ type: "compaction", compact_threshold: 1000 }],
    });
    assert.deepEqual(within.output.map((item) => item.type), ["compaction", "message"]);
  },

  async streams() {
    const ask = { model, input: "Reply with exactly: one two three" };
    for (const include_obfuscation of [false, true]) {
      const events = await all(client.responses.create({
        ...ask, stream: true, stream_options: { include_obfuscation },
      }));
      assert.deepEqual(events.map((event) => event.sequence_number), events.map((_, number) => number));
      for (const event of events.filter((event) => event.type.endsWith(".delta"))) {
        assert.equal(typeof event.obfuscation === "string", include_obfuscation);
      }
      const { id } = events[0].response;
      assert.deepEqual(await all(client.responses.retrieve(id, { stream: true })), events);
      const rest = await all(client.responses.retrieve(id, { stream: true, starting_after: 3 }));
      assert.deepEqual(rest, events.slice(4));
      const resumed = await client.responses.stream({ response_id: id, starting_after: 3 }).finalResponse();
      assert.equal(resumed.output[0].content[0].text, "one two three");
    }
    const stream = client.responses.stream(ask);
    let text = "";
    stream.on("response.output_text.delta", (event) => (text += event.delta));
    assert.equal((await stream.finalResponse()).output[0].content[0].text, "one two three");
    assert.equal(text, "one two three");
  },

  async parsing() {
    const response = await client.responses.parse({
      model, input: "Where?", text: { format: { type: "json_schema", name: "city", strict: true, schema } },
    });
    assert.equal(typeof response.output_parsed.city, "string");
    const completion = await client.chat.completions.parse({
      model, messages: [user("Where?")],
      response_format: { type: "json_schema", json_schema: { name: "city", strict: true, schema } },
    });
    assert.equal(typeof completion.choices[0].message.parsed.city, "string");
    const runner = client.chat.completions.runTools({
      model, messages: [user('Call the tool where with {"city": "Osaka"}')],
      tools: [{ type: "function", function: {
        name: "where", description: "d", parameters: schema, parse: JSON.parse, function: ({ city }) => `in ${city}`,
      } }],
    });
    assert.match(await runner.finalContent(), /in Osaka/);
  },

  async conversations() {
    const made = await client.conversations.create({ metadata: { topic: "sea" }, items: [user("first")] });
    assert.deepEqual({ ...(await client.conversations.retrieve(made.id)) }, { ...made });
    const updated = await client.conversations.update(made.id, { metadata: { x: "y" } });
    assert.deepEqual(updated.metadata, { x: "y" });
    await client.responses.create({ model, input: "Reply with exactly: second", conversation: made.id });
    const added = await client.conversations.items.create(made.id, { items: [user("third")] });
    assert.equal(added.data[0].content[0].text, "third");
    const items = await all(client.conversations.items.list(made.id, { order: "asc", limit: 1 }));
    assert.deepEqual(
      items.map((item) => item.content[0].text), ["first", "Reply with exactly: second", "second", "third"]);
    const at = { conversation_id: made.id };
    assert.equal((await client.conversations.items.retrieve(items[0].id, at)).id, items[0].id);
    assert.equal((await client.conversations.items.delete(items[0].id, at)).id, made.id);
    await refused(client.conversations.items.retrieve(items[0].id, at), OpenAI.NotFoundError);
    assert.ok((await client.conversations.delete(made.id)).deleted);
    await refused(client.conversations.retrieve(made.id), OpenAI.NotFoundError);
  },

  async files() {
    const file = await client.files.create({
      file: await toFile(Buffer.from("The password is melon."), "notes.txt"), purpose: "user_data",
      expires_after: { anchor: "created_at", seconds: 3600 },
    });
    assert.equal((await client.files.retrieve(file.id)).expires_at, file.created_at + 3600);
    assert.equal(await (await client.files.content(file.id)).text(), "The password is melon.");
    const listed = await all(client.files.list({ purpose: "user_data", limit: 1 }));
    assert.ok(listed.some((one) => one.id === file.id));
    assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
    const response = await client.responses.create({ model, input: [{ role: "user", content: [
      { type: "input_file", file_id: file.id }, { type: "input_text", text: "Reply with exactly: read" },
    ] }] });
    assert.equal(response.output_text, "read");
    assert.ok((await client.files.delete(file.id)).deleted);
    await refused(client.files.content(file.id), OpenAI.NotFoundError);
  },

  async chat() {
    const mark = { test: `${process.hrtime.bigint()}` };
    const ask = (n, more) => client.chat.completions.create({
      model, messages: [user(`Reply with exactly: ${n}`)], store: true, metadata: { ...mark, n }, ...more,
    });
    const made = [await ask("0"), await ask("1")];
    const chunks = await all(ask("2", { stream: true, stream_options: { include_obfuscation: true } }));
    assert.ok(chunks.every((chunk) => chunk.id === chunks[0].id && typeof chunk.obfuscation === "string"));
    const ids = [...made.map((one) => one.id), chunks[0].id];
    const listed = await all(client.chat.completions.list({ metadata: mark, model, limit: 1 }));
    assert.deepEqual(listed.map((one) => one.id), ids);
    assert.deepEqual(
      (await all(client.chat.completions.list({ metadata: mark, order: "desc" }))).map((one) => one.id),
      ids.toReversed());
    const read = await client.chat.completions.retrieve(ids[2]);
    assert.equal(read.choices[0].message.content, "2");
    assert.deepEqual(read.metadata, { ...mark, n: "2" });
    const updated = await client.chat.completions.update(ids[0], { metadata: { x: "y" } });
    assert.deepEqual(updated.metadata, { x: "y" });
    const messages = await all(client.chat.completions.messages.list(ids[1], { limit: 1 }));
    assert.deepEqual(messages.map((one) => [one.id, one.content]), [[`${ids[1]}-0`, "Reply with exactly: 1"]]);
    for (const id of ids) assert.ok((await client.chat.completions.delete(id)).deleted);
    await refused(client.chat.completions.retrieve(ids[0]), OpenAI.NotFoundError);
    await refused(all(client.chat.completions.messages.list(ids[0])), OpenAI.NotFoundError);
    const stream = client.chat.completions.stream({ model, messages: [user("Reply with exactly: one two")], store: true });
    const final = await stream.finalChatCompletion();
    assert.equal(final.choices[0].message.content, "one two");
    assert.equal((await client.chat.completions.retrieve(final.id)).id, final.id);
  },

  async others() {
    const prompt = "Reply with exactly: one two";
    assert.equal((await client.completions.create({ model, prompt })).choices[0].text, "one two");
    const parts = await all(client.completions.create({ model, prompt, stream: true }));
    assert.equal(parts.map((part) => part.choices[0].text).join(""), "one two");
    const numbers = await client.embeddings.create({ model, input: ["one"], encoding_format: "float" });
    const decoded = await client.embeddings.create({ model, input: ["one"] });
    const far = numbers.data[0].embedding.map((number, at) => Math.abs(number - decoded.data[0].embedding[at]));
    assert.ok(Math.max(...far) < 1e-6);
    assert.ok((await all(client.models.list())).some((one) => one.id === model));
    assert.equal((await client.models.retrieve(model)).id, model);
    await refused(client.models.retrieve("no/such model"), OpenAI.NotFoundError);
    const { data, response, request_id } = await client.responses
      .create({ model, input: "Reply with exactly: x" }).withResponse();
    assert.deepEqual([data.output_text, response.headers.get("x-request-id")], ["x", request_id]);
    const raw = await client.responses.create({ model, input: "x" }).asResponse();
    assert.equal(raw.status, 200);
  },

  async retries() {
    for (const [text, tries] of [["[scripted: fail-at=0 status=500]", 3], ["Answer with 9 words [scripted: cut-at=5]", 1]]) {
      const counts = [];
      const patient = new OpenAI({ ...options, maxRetries: 2, fetch: (url, init) => {
        counts.push(new Headers(init.headers).get("x-stainless-retry-count"));
        return fetch(url, init);
      } });
      await refused(patient.responses.create({ model, input: text }), OpenAI.InternalServerError);
      assert.deepEqual(counts, [...Array(tries).keys()].map(String), text);
    }
    const broken = client.chat.completions.create({
      model, messages: [user("Answer with 9 words [scripted: cut-at=4]")], stream: true,
    });
    await assert.rejects(all(broken), OpenAI.APIError);
  },
};

await sections[process.argv[2]]();
