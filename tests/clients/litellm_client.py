"""LiteLLM as a client: `openai/` speaks Chat Completions, `anthropic/` speaks Messages."""

import json
import sys

import litellm
from common import BASE, CALL, KEY, MODEL, SAY, say

is_openai = sys.argv[1] == "openai"
options = {
    "model": f"{sys.argv[1]}/{MODEL}", "api_key": KEY, "num_retries": 0, "max_tokens": 200,
    "api_base": BASE if is_openai else BASE.removesuffix("/v1"),
}
tools = [{"type": "function", "function": {
    "name": "get_weather", "description": "The weather in a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}}]
ask = {"role": "user", "content": CALL}


def use(message):
    call = message.tool_calls[0]
    result = {"role": "tool", "tool_call_id": call.id, "content": "22 degrees in Osaka"}
    after = litellm.completion(messages=[ask, message.model_dump(), result], tools=tools, **options)
    return call.function.name, json.loads(call.function.arguments), after.choices[0].message.content


whole = litellm.completion(messages=[{"role": "user", "content": SAY}], **options)
chunks = list(litellm.completion(messages=[{"role": "user", "content": SAY}], stream=True, **options))
texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
called = litellm.completion(messages=[ask], tools=tools, **options)
rebuilt = litellm.stream_chunk_builder(
    list(litellm.completion(messages=[ask], tools=tools, stream=True, **options)), messages=[ask])
say(
    text=whole.choices[0].message.content, streamed="".join(texts), pieces=len(texts) > 1,
    usage=whole.usage.completion_tokens,
    called=use(called.choices[0].message), called_streamed=use(rebuilt.choices[0].message),
)
