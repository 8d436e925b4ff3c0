"""Every operation of the OpenAPI document by an official SDK, sync and async: each answer and event is constructed by the
SDK's types with strict validation and, like in every other test, held against the document."""

import asyncio
import io

import anthropic
import httpx
import openai
import pytest
from pydantic import BaseModel

from conftest import secret
from judge import Judge

MODEL = "honshu.scripted"
TEXT = "Reply with exactly: one two three"
CALL = 'Call the tool get_weather with {"city": "Osaka"}'
PARAMETERS = {
    "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
}
FLAT = {"type": "function", "name": "get_weather", "parameters": PARAMETERS, "strict": True}
NESTED = {"type": "function", "function": {"name": "get_weather", "parameters": PARAMETERS, "strict": True}}
ASKS = [{"role": "user", "content": TEXT}]
CALLS = [{"role": "user", "content": CALL}]


class Place(BaseModel):
    city: str


@pytest.fixture(scope="module")
def house(shared):
    shared.run(
        "policy", "create", "--compartment", "root", "--name", "everything", "--statement",
        "allow any-user to manage generative-ai-family in tenancy where request.principal.type = 'generativeaiapikey'")
    return shared


@pytest.fixture
def judge(judge):
    """A judge of its own for each test, so that what it saw is what the test did."""
    return Judge(judge.document)


def options(house):
    return {"api_key": secret(house.key), "max_retries": 0, "_strict_response_validation": True}


def loose(client):
    """The same client without strict validation, for what the SDK's own types do not allow for."""
    copy = client.copy()
    copy._strict_response_validation = False
    return copy


class Sdk:
    """The same calls by the sync and by the async client: what either gives is awaited and drained where it must be."""

    def __init__(self, client):
        self.client = client

    async def __call__(self, method, *args, **given):
        found = method(*args, **given)
        if asyncio.iscoroutine(found) or hasattr(found, "__await__"):
            found = await found
        return found

    async def drain(self, method, *args, **given):
        stream = await self(method, *args, **given)
        if hasattr(stream, "__aiter__"):
            return [one async for one in stream]
        return list(stream)

    async def helper(self, method, **given):
        """A stream by the SDK's helper, and what it puts together."""
        manager = method(**given)
        if hasattr(manager, "__aenter__"):
            async with manager as stream:
                events = [event async for event in stream]
                final = getattr(stream, "get_final_response", None) or stream.get_final_completion
                return events, await final()
        with manager as stream:
            events = list(stream)
            final = getattr(stream, "get_final_response", None) or stream.get_final_completion
            return events, final()


async def responses(sdk):
    api = sdk.client.responses
    made = await sdk(api.create, model=MODEL, input=TEXT, metadata={"a": "b"}, tools=[FLAT, {"type": "web_search"}],
                     reasoning={"effort": "low"}, include=["message.output_text.logprobs"], top_logprobs=2)
    assert made.output_text == "one two three" and made._request_id
    assert await sdk(api.retrieve, made.id) == made
    items = await sdk.drain(api.input_items.list, made.id)
    assert [item.type for item in items] == ["message"]
    for given, wanted in [
        ({"input": CALL, "tools": [FLAT]}, "response.function_call_arguments.done"),
        ({"input": "Refuse with: no"}, "response.refusal.done"),
        ({"input": TEXT, "reasoning": {"effort": "high"}}, "response.reasoning_summary_text.done"),
        ({"input": TEXT, "max_output_tokens": 2}, "response.incomplete"),
        ({"input": TEXT + " [scripted: fail-at=3]"}, "response.failed"),
        ({"input": TEXT, "background": True}, "response.queued"),
    ]:
        if wanted == "response.failed":
            # The SDK raises what the event says.
            with pytest.raises(openai.APIError):
                await sdk.drain(api.create, model=MODEL, stream=True, **given)
            continue
        events = await sdk.drain(api.create, model=MODEL, stream=True, **given)
        assert wanted in {event.type for event in events}
        assert [event.sequence_number for event in events] == list(range(len(events)))
    events, final = await sdk.helper(api.stream, model=MODEL, input=TEXT)
    assert final.output_text == "one two three"
    again = await sdk.drain(api.retrieve, final.id, stream=True, starting_after=1)
    assert [event.sequence_number for event in again] == [event.sequence_number for event in events][2:]
    parsed = await sdk(api.parse, model=MODEL, input="Where?", text_format=Place)
    assert isinstance(parsed.output_parsed, Place)
    waits = await sdk(api.create, model=MODEL, input="Answer with 60000 words [scripted: delay-ms=10]", background=True)
    assert (await sdk(api.cancel, waits.id)).status == "cancelled"
    # OpenAI's own answer holds user messages as well, which the SDK's type for it has no place for.
    shorter = await sdk(loose(sdk.client).responses.compact, model=MODEL, previous_response_id=made.id)
    assert shorter.output[-1].type == "compaction"
    count = await sdk(api.input_tokens.count, model=MODEL, input=TEXT)
    assert count.input_tokens > 0
    await sdk(api.delete, made.id)
    with pytest.raises(openai.NotFoundError):
        await sdk(api.retrieve, made.id)


async def conversations(sdk):
    api = sdk.client.conversations
    made = await sdk(api.create, metadata={"a": "b"}, items=[{"role": "user", "content": "first"}])
    await sdk(sdk.client.responses.create, model=MODEL, input=CALL, tools=[FLAT], conversation=made.id)
    added = await sdk(api.items.create, made.id, items=[
        {"type": "reasoning", "id": "rs_1", "summary": []},
        {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c", "output": "r"},
    ])
    assert [item.type for item in added.data] == ["reasoning", "function_call", "function_call_output"]
    items = await sdk.drain(api.items.list, made.id, order="asc", limit=2)
    assert len(items) == 6
    for item in items:
        assert (await sdk(api.items.retrieve, item.id, conversation_id=made.id)).id == item.id
    assert (await sdk(api.items.delete, items[0].id, conversation_id=made.id)).id == made.id
    assert (await sdk(api.retrieve, made.id)).metadata == {"a": "b"}
    assert (await sdk(api.update, made.id, metadata={"c": "d"})).metadata == {"c": "d"}
    assert (await sdk(api.delete, made.id)).deleted


async def files(sdk):
    api = sdk.client.files
    made = await sdk(api.create, file=("a.txt", io.BytesIO(b"island")), purpose="user_data",
                     expires_after={"anchor": "created_at", "seconds": 3600})
    assert (made.bytes, made.filename) == (6, "a.txt")
    assert await sdk(api.retrieve, made.id) == made
    assert made.id in [file.id for file in await sdk.drain(api.list, purpose="user_data")]
    content = await sdk(api.content, made.id)
    assert content.content == b"island"
    assert (await sdk(api.delete, made.id)).deleted


async def chat(sdk):
    api = sdk.client.chat.completions
    made = await sdk(api.create, model=MODEL, messages=ASKS, logprobs=True, top_logprobs=2, n=2)
    assert [choice.message.content for choice in made.choices] == ["one two three"] * 2
    called = await sdk(api.create, model=MODEL, messages=CALLS, tools=[NESTED])
    assert called.choices[0].message.tool_calls[0].function.name == "get_weather"
    refused = await sdk(api.create, model=MODEL, messages=[{"role": "user", "content": "Refuse with: no"}])
    assert refused.choices[0].message.refusal == "no"
    old = await sdk(api.create, model=MODEL, messages=CALLS, functions=[{"name": "get_weather", "parameters": PARAMETERS}])
    assert old.choices[0].message.function_call.name == "get_weather"
    parsed = await sdk(api.parse, model=MODEL, messages=[{"role": "user", "content": "Where?"}], response_format=Place)
    assert isinstance(parsed.choices[0].message.parsed, Place)
    kept = await sdk(api.create, model=MODEL, messages=ASKS, store=True, metadata={"a": "b"}, tools=[NESTED])
    assert (await sdk(api.retrieve, kept.id)).choices == kept.choices
    assert kept.id in [one.id for one in await sdk.drain(api.list, metadata={"a": "b"}, model=MODEL)]
    assert (await sdk(api.update, kept.id, metadata={"c": "d"})).metadata == {"c": "d"}
    # The SDK's type for what was asked is that of answers.
    asked = await sdk.drain(loose(sdk.client).chat.completions.messages.list, kept.id)
    assert [message.content for message in asked] == [TEXT]
    assert (await sdk(api.delete, kept.id)).deleted
    for given in [
        {"messages": ASKS, "logprobs": True, "top_logprobs": 1, "stream_options": {"include_usage": True}},
        {"messages": CALLS, "tools": [NESTED]}, {"messages": ASKS, "reasoning_effort": "high"},
    ]:
        chunks = await sdk.drain(api.create, model=MODEL, stream=True, **given)
        assert any(chunk.choices and chunk.choices[0].finish_reason for chunk in chunks)
    with pytest.raises(openai.APIError):
        failing = [{"role": "user", "content": TEXT + " [scripted: fail-at=3]"}]
        await sdk.drain(api.create, model=MODEL, messages=failing, stream=True)
    events, final = await sdk.helper(api.stream, model=MODEL, messages=ASKS)
    assert final.choices[0].message.content == "one two three"


async def others(sdk):
    client = sdk.client
    made = await sdk(client.completions.create, model=MODEL, prompt=TEXT, logprobs=2, n=2)
    assert [choice.text for choice in made.choices] == ["one two three"] * 2
    vectors = await sdk(client.embeddings.create, model=MODEL, input=["a", "b"], dimensions=4, encoding_format="float")
    assert len(vectors.data) == 2
    # Unless told otherwise the SDK asks for base64, and validates before it reads it.
    again = await sdk(loose(client).embeddings.create, model=MODEL, input=["a", "b"], dimensions=4)
    for one, other in zip(again.data, vectors.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding)
    assert [model.id for model in await sdk.drain(client.models.list)] == [MODEL]
    assert (await sdk(client.models.retrieve, MODEL)).id == MODEL


async def messages(client):
    sdk = Sdk(client)
    asks = {"model": MODEL, "max_tokens": 100}
    made = await sdk(client.messages.create, messages=ASKS, thinking={"type": "enabled", "budget_tokens": 1024}, **asks)
    assert [block.type for block in made.content] == ["thinking", "text"]
    tool = {"name": "get_weather", "input_schema": PARAMETERS}
    called = await sdk(client.messages.create, messages=CALLS, tools=[tool], **asks)
    assert called.content[0].input == {"city": "Osaka"}
    for more in {}, {"tools": [tool], "messages": CALLS}, {"thinking": {"type": "enabled", "budget_tokens": 1024}}:
        events = await sdk.drain(client.messages.create, stream=True, **({"messages": ASKS} | asks | more))
        assert events[-1].type == "message_stop"
    count = await sdk(client.messages.count_tokens, model=MODEL, messages=ASKS)
    assert count.input_tokens > 0
    with pytest.raises(anthropic.NotFoundError):
        await sdk(client.messages.create, messages=ASKS, **(asks | {"model": "no/such"}))


async def socket(client):
    async with client.responses.connect() as connection:
        for given in {}, {"stream_id": "a"}, {"model": "no/such"}:
            await connection.response.create(**({"model": MODEL, "input": TEXT} | given))
            async for event in connection:
                if event.type in ("response.completed", "error"):
                    break


def everything(openai_client, anthropic_client):
    async def run():
        sdk = Sdk(openai_client)
        for part in responses, conversations, files, chat, others:
            await part(sdk)
        await messages(anthropic_client)
        for client in openai_client, anthropic_client:
            closing = client.close()
            if closing:
                await closing

    asyncio.run(run())


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_every_operation(house, judge, kind):
    base = {"base_url": house.url + "/v1"} | options(house)
    if kind == "sync":
        everything(openai.OpenAI(**base), anthropic.Anthropic(base_url=house.url, **options(house)))
    else:
        everything(openai.AsyncOpenAI(**base), anthropic.AsyncAnthropic(base_url=house.url, **options(house)))
    # Not by an SDK, and the only ones that are left.
    headers = {"authorization": f"Bearer {secret(house.key)}"}
    for path in "/healthz", "/readyz", "/openapi.json":
        assert httpx.get(house.url + path, headers=headers).status_code == 200
    done = {operation for operation, status, _ in judge.seen if status == 200}
    named = {
        method["operationId"] for path in judge.document["paths"].values() for method in path.values()
        if isinstance(method, dict) and "operationId" in method
    }
    assert done == named - {"openResponsesSocket"}
    # Every event that the scripted model can bring about.
    schemas = judge.document["components"]["schemas"]
    kinds = {
        schemas[branch["$ref"].split("/")[-1]]["properties"]["type"].get("const")
        for stream in ("ResponseStreamEvent", "MessagesStreamEvent") for branch in schemas[stream]["oneOf"]
    }
    # Reasoning as it is comes from engines and upstreams; the last one stands for those of upstreams' own tools.
    rare = {"response.reasoning_text.delta", "response.reasoning_text.done", None}
    assert kinds - judge.kinds <= rare | {f"response.custom_tool_call_input.{end}" for end in ("delta", "done")}


def test_the_socket_of_the_sdk(house, judge):
    asyncio.run(socket(openai.AsyncOpenAI(base_url=house.url + "/v1", **options(house))))
    kinds = [kind for operation, _, kind in judge.seen if operation == "openResponsesSocket"]
    assert kinds.count("response.completed") == 2 and kinds.count("error") == 1
