// Responses and Chat Completions, whole and streamed, by the official SDK for Node. Prints one JSON object.
import OpenAI from "openai";

const client = new OpenAI({ apiKey: process.env.KEY, baseURL: process.env.BASE, maxRetries: 0 });
const model = "honshu.scripted";
const ask = "Reply with exactly: one two three";

const response = await client.responses.create({ model, input: ask });
let streamed = "";
let last = "";
for await (const event of await client.responses.create({ model, input: ask, stream: true })) {
  if (event.type === "response.output_text.delta") streamed += event.delta;
  last = event.type;
}
const chat = await client.chat.completions.create({ model, messages: [{ role: "user", content: ask }] });
let chunks = "";
for await (const chunk of await client.chat.completions.create({
  model,
  messages: [{ role: "user", content: ask }],
  stream: true,
})) {
  chunks += chunk.choices[0]?.delta?.content ?? "";
}
const models = [];
for await (const entry of client.models.list()) models.push(entry.id);
let unknown = "";
try {
  await client.get("/_stainless_unknown_path");
} catch (error) {
  unknown = error.constructor.name;
}
console.log(JSON.stringify({
  response: response.output_text, usage: response.usage.total_tokens, streamed, last,
  chat: chat.choices[0].message.content, chunks, models, unknown,
}));
