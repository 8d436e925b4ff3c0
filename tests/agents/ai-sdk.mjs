// The AI SDK: by Responses, by Chat Completions, and by its provider for servers that are like OpenAI.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const { BASE: baseURL, KEY: apiKey } = process.env;
const openai = createOpenAI({ baseURL, apiKey });
const model = {
  responses: () => openai.responses("honshu.scripted"),
  chat: () => openai.chat("honshu.scripted"),
  compatible: () => createOpenAICompatible({ name: "honshu", baseURL, apiKey })("honshu.scripted"),
}[process.argv[2]]();
const calls = [];
const tools = {
  get_weather: tool({
    description: "The weather in a city.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      calls.push(city);
      return `22 degrees in ${city}`;
    },
  }),
};
const common = { model, maxRetries: 0 };
const say = { ...common, prompt: "Reply with exactly: one two three" };
const call = {
  ...common, tools, stopWhen: stepCountIs(3), prompt: 'Call the tool get_weather with {"city": "Osaka"}',
};
const whole = await generateText(say);
const pieces = [];
for await (const piece of streamText(say).textStream) pieces.push(piece);
const called = await generateText(call);
const streamed = streamText(call);
await streamed.consumeStream();
console.log(JSON.stringify({
  text: whole.text, streamed: pieces.join(""), pieces: pieces.length > 1, usage: whole.usage.outputTokens,
  called: [called.steps.length, called.text], called_streamed: [(await streamed.steps).length, await streamed.text],
  calls,
}));
