// Streams one answer with the OpenAI SDK for Node.
//
//     npm install openai
//     HONSHU_API_KEY=sk-… node chat.mjs "Why is the sky blue?"

import OpenAI from "openai";

const client = new OpenAI({
  apiKey: process.env.HONSHU_API_KEY,
  baseURL: process.env.HONSHU_BASE_URL ?? "http://127.0.0.1:8080/v1",
});

const stream = await client.chat.completions.create({
  model: process.env.HONSHU_MODEL ?? "huggingfacetb.smollm2-135m-instruct",
  messages: [{ role: "user", content: process.argv[2] ?? "Hello!" }],
  stream: true,
});

for await (const chunk of stream) {
  process.stdout.write(chunk.choices[0]?.delta?.content ?? "");
}
process.stdout.write("\n");
