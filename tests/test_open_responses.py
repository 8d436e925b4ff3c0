"""The cases of the Open Responses compliance suite as scenarios of our own, all started at once as that suite does.

Every response and event is checked for the keys that its schema demands: present, never `null` where it must be absent.
"""

import asyncio
import json

import httpx
import pytest
import websockets
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from conftest import secret

MODEL = "honshu.scripted"
PNG = ("data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
       "AABJRU5ErkJggg==")
EVENTS = TypeAdapter(ResponseStreamEvent)
NUMBERS = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "top_logprobs", "created_at")
BOOLEANS = ("store", "background", "parallel_tool_calls")
TEXTS = ("id", "object", "status", "model", "service_tier", "truncation")
NULLABLE = ("completed_at", "error", "incomplete_details", "instructions", "previous_response_id", "reasoning",
            "usage", "max_output_tokens", "max_tool_calls", "safety_identifier", "prompt_cache_key")


def user(text):
    return {"type": "message", "role": "user", "content": text}


def check_response(body):
    for keys, kind in ((NUMBERS, (int, float)), (BOOLEANS, bool), (TEXTS, str)):
        for key in keys:
            assert isinstance(body[key], kind), (key, body[key])
    for key in NULLABLE:
        assert key in body, key
    assert isinstance(body["output"], list) and isinstance(body["tools"], list) and body["text"] and body["tool_choice"]
    for tool in body["tools"]:
        assert {"type", "name", "description", "parameters", "strict"} <= set(tool)
    for item in body["output"]:
        assert {"id", "type"} <= set(item)
        assert item.get("phase", "") is not None
    if body["usage"]:
        assert {"cached_tokens", "cache_write_tokens"} <= set(body["usage"]["input_tokens_details"])
    Response.model_validate(body)
    return body


def check_events(events):
    assert events
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        EVENTS.validate_python(event)
        if "response" in event:
            check_response(event["response"])
    return check_completed(events[-1]["response"])


def check_completed(body):
    check_response(body)
    assert body["status"] == "completed" and body["output"], body
    return body


class Suite:
    def __init__(self, honshu):
        self.url = honshu.url
        self.headers = {"authorization": f"Bearer {secret(honshu.key)}"}

    async def post(self, path="/v1/responses", **body):
        async with httpx.AsyncClient(timeout=60, headers=self.headers) as client:
            return await client.post(self.url + path, json=body)

    async def respond(self, *items, **more):
        answer = await self.post(model=MODEL, input=list(items), **more)
        assert answer.status_code == 200, answer.text
        return check_completed(answer.json())

    def socket(self):
        url = self.url.replace("http", "ws") + "/v1/responses"
        return websockets.connect(url, additional_headers=self.headers, max_size=None)

    async def turn(self, socket, **body):
        """The events of one turn, to the terminal one or an error."""
        await socket.send(json.dumps({"type": "response.create", "model": MODEL} | body))
        events = []
        while True:
            events.append(json.loads(await asyncio.wait_for(socket.recv(), 60)))
            kind = events[-1]["type"]
            if kind in ("response.completed", "response.incomplete", "response.failed"):
                return events
            if kind == "error" and "status" in events[-1]:
                return events

    # The cases, by their names in the suite.

    async def basic_response(self):
        await self.respond(user("Say hello in exactly 3 words."))

    async def assistant_phase(self):
        parts = [{"type": "output_text", "text": "Thinking"}]
        await self.respond(
            {"type": "message", "role": "assistant", "phase": "commentary", "content": parts},
            {"type": "message", "role": "assistant", "phase": "final_answer", "content": "Done."},
            user("And now?"))

    async def streaming_response(self):
        answer = await self.post(model=MODEL, input=[user("Count from 1 to 5.")], stream=True)
        assert answer.headers["content-type"].startswith("text/event-stream")
        data = [line[6:] for line in answer.text.split("\n") if line.startswith("data: ")]
        assert data[-1] == "[DONE]"
        check_events([json.loads(item) for item in data[:-1]])

    async def system_prompt(self):
        await self.respond({"type": "message", "role": "system", "content": "You are a pirate."}, user("Say hello."))

    async def tool_calling(self):
        tool = {"type": "function", "name": "get_weather", "description": "Current weather", "parameters": {
            "type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]}}
        body = await self.respond(user("What's the weather like in San Francisco?"), tools=[tool])
        assert [item["type"] for item in body["output"]] == ["function_call"]

    async def image_input(self):
        await self.respond({"type": "message", "role": "user", "content": [
            {"type": "input_text", "text": "What is this?"}, {"type": "input_image", "image_url": PNG}]})

    async def multi_turn(self):
        await self.respond(user("My name is Alice."), {"type": "message", "role": "assistant", "content": "Hello!"},
                           user("What is my name?"))

    async def compact_response(self):
        body = await self.compact()
        assert body["object"] == "response.compaction"
        assert [item["type"] for item in body["output"]].count("compaction") == 1
        assert body["usage"]["total_tokens"] > 0

    async def compact(self):
        answer = await self.post("/v1/responses/compact", model=MODEL, prompt_cache_key="k", input=[
            user("My name is Alice."), {"type": "message", "role": "assistant", "content": "Hello!"}])
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def compact_missing_model(self):
        answer = await self.post("/v1/responses/compact", input=[user("hi")])
        assert answer.status_code == 400 and answer.json()["error"]["param"] == "model"

    async def websocket_response(self):
        async with self.socket() as socket:
            check_events(await self.turn(socket, input=[user("hi")]))

    async def websocket_sequential_responses(self):
        async with self.socket() as socket:
            for _ in range(2):
                check_events(await self.turn(socket, store=False, input="hi"))

    async def websocket_continuation(self):
        async with self.socket() as socket:
            first = check_events(await self.turn(socket, store=False, input="My name is Alice."))
            again = check_events(await self.turn(
                socket, store=False, input="What is my name?", previous_response_id=first["id"]))
            assert again["previous_response_id"] == first["id"]
            assert again["usage"]["input_tokens"] > first["usage"]["input_tokens"]

    async def websocket_reconnect_store_false_recovery(self):
        async with self.socket() as socket:
            first = check_events(await self.turn(socket, store=False, input="hi"))
        async with self.socket() as socket:
            events = await self.turn(socket, store=False, input="again", previous_response_id=first["id"])
            assert events[-1]["error"]["code"] == "previous_response_not_found"
            check_events(await self.turn(socket, store=False, input="again"))

    async def websocket_previous_response_not_found(self):
        async with self.socket() as socket:
            event, = await self.turn(socket, store=False, input="hi", previous_response_id="resp_unknown")
            assert event["status"] == 400 and event["error"]["code"] == "previous_response_not_found"

    async def websocket_failed_continuation_evicts_cache(self):
        async with self.socket() as socket:
            first = check_events(await self.turn(socket, store=False, input="hi"))
            orphan = {"type": "function_call_output", "call_id": "call_unknown", "output": "1"}
            failed = await self.turn(socket, store=False, input=[orphan], previous_response_id=first["id"])
            assert failed[-1]["type"] in ("error", "response.failed")
            assert isinstance(failed[-1]["error"]["code"], str)
            gone = await self.turn(socket, store=False, input="hi", previous_response_id=first["id"])
            assert gone[-1]["error"]["code"] == "previous_response_not_found"

    async def websocket_compact_new_chain(self):
        compacted = await self.compact()
        async with self.socket() as socket:
            check_events(await self.turn(socket, tools=[], input=[*compacted["output"], user("What is my name?")]))

    async def websocket_generate_false(self):
        async with self.socket() as socket:
            await socket.send(json.dumps({
                "type": "response.create", "model": MODEL, "store": False, "stream": True, "generate": False,
                "instructions": "Be brief.", "input": []  # as agents warm up a connection
            }))
            while (event := json.loads(await socket.recv()))["type"] != "response.completed":
                assert event["type"] != "error", event
            assert event["response"]["output"] == []
            check_events(await self.turn(
                socket, store=False, input="hi", previous_response_id=event["response"]["id"]))


def test_all_cases_at_once(shared):
    suite = Suite(shared)
    names = [name for name in vars(Suite) if name not in ("post", "respond", "socket", "turn", "compact")
             and not name.startswith("_")]
    # `response-output-phase-schema` looks at a fixture of the suite's own and asks no server; one case is of a newer
    # edition.
    assert len(names) == 17

    async def run():
        return await asyncio.gather(*(getattr(suite, name)() for name in names), return_exceptions=True)

    results = dict(zip(names, asyncio.run(run())))
    failed = {name: repr(result) for name, result in results.items() if isinstance(result, BaseException)}
    assert not failed, json.dumps(failed, indent=2)


@pytest.mark.parametrize("message, code, param", [
    ("no json", None, None),
    ("[]", None, None),
    ('{"type":"response.steer","model":"honshu.scripted","input":"x"}', None, "type"),
    ('{"type":"response.create","input":"x"}', None, "model"),
    ('{"type":"response.create","model":"none","input":"x"}', "model_not_found", "model"),
    ('{"type":"response.create","model":"honshu.scripted","input":"x","background":true}', None, "background"),
])
def test_what_is_no_turn_is_told_and_the_connection_goes_on(shared, message, code, param):
    suite = Suite(shared)

    async def run():
        async with suite.socket() as socket:
            await socket.send(message)
            event = json.loads(await socket.recv())
            assert event["type"] == "error" and 400 <= event["status"] < 500, event
            assert event["error"]["param"] == param and isinstance(event["error"]["code"], str), event
            assert code is None or event["error"]["code"] == code
            await socket.send(b"\x00\x01")
            assert json.loads(await socket.recv())["type"] == "error"
            check_events(await suite.turn(socket, input="hi", store=False))

    asyncio.run(run())


def test_turns_of_one_connection_run_in_order_and_carry_their_lane(shared):
    suite = Suite(shared)

    async def run():
        async with suite.socket() as socket:
            for lane in ("a", "b", "c"):
                await socket.send(json.dumps({
                    "type": "response.create", "model": MODEL, "store": False, "stream_id": lane,
                    "input": f"Reply with exactly: {lane} [scripted: delay-ms=5]"}))
            seen = []
            while seen.count("response.completed") < 3:
                event = json.loads(await asyncio.wait_for(socket.recv(), 60))
                seen.append(event["type"])
                if event["type"] == "response.completed":
                    lane = "abc"[seen.count("response.completed") - 1]
                    assert event["stream_id"] == lane
                    assert event["response"]["output"][0]["content"][0]["text"].startswith(lane)

    asyncio.run(run())


def test_a_websocket_needs_a_credential_that_stays_good(scripted):
    suite = Suite(scripted)

    async def run():
        url = scripted.url.replace("http", "ws") + "/v1/responses"
        with pytest.raises(websockets.InvalidStatus) as refused:
            async with websockets.connect(url, additional_headers={"authorization": "Bearer sk-wrong"}):
                pass
        assert refused.value.response.status_code == 401
        async with suite.socket() as socket:
            check_events(await suite.turn(socket, input="hi"))
            scripted.run("api-key", "set-state", "--api-key-id", scripted.key["id"], "--key-name", "one", "--state", "REVOKED")
            event, = await suite.turn(socket, input="hi")
            assert event["status"] == 401
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()

    asyncio.run(run())


def test_a_stored_turn_after_turns_that_were_not_stored_has_its_whole_chain(shared):
    suite = Suite(shared)

    async def run():
        async with suite.socket() as socket:
            first = check_events(await suite.turn(socket, store=False, input="one"))
            second = check_events(await suite.turn(socket, store=True, input="two", previous_response_id=first["id"]))
            on_socket = check_events(await suite.turn(socket, store=False, input="three", previous_response_id=second["id"]))
        elsewhere = await suite.respond(user("three"), previous_response_id=second["id"])
        assert elsewhere["usage"]["input_tokens"] == on_socket["usage"]["input_tokens"]

    asyncio.run(run())
