"""The official Anthropic SDK for Python against the Messages dialect, with strict validation of every answer."""

import anthropic
import httpx
import pytest
from pydantic import BaseModel

from conftest import SMALL_MODEL, secret

MODEL = "honshu.scripted"
WEATHER = {
    "name": "get_weather", "description": "The weather in a city.",
    "input_schema": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False,
    },
}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


def client(honshu, base="", **options):
    options = {"api_key": secret(honshu.key), "max_retries": 0, "_strict_response_validation": True} | options
    return anthropic.Anthropic(base_url=honshu.url + base, **options)


def user(text):
    return [{"role": "user", "content": text}]


@pytest.mark.parametrize("base", ["", "/openai", "/20231130/actions", "/20231130/openai"])
def test_a_message_on_every_base(shared, base):
    message = client(shared, base).messages.create(
        model=MODEL, max_tokens=100, system="Be brief.", messages=user("Reply with exactly: 本州"))
    assert [block.text for block in message.content] == ["本州"]
    assert (message.type, message.role, message.model) == ("message", "assistant", MODEL)
    assert (message.stop_reason, message.stop_sequence) == ("end_turn", None)
    assert message.usage.input_tokens > 0 and message.usage.output_tokens == 1
    assert message.id.startswith("msg_")
    assert message._request_id


@pytest.mark.parametrize("headers", ["x-api-key", "authorization", "both"])
def test_each_of_its_credential_headers_is_taken(shared, headers):
    key = secret(shared.key)
    sent = {"anthropic-version": "2023-06-01"}
    if headers != "authorization":
        sent["x-api-key"] = key
    if headers != "x-api-key":
        sent["authorization"] = f"Bearer {key}"
    body = {"model": MODEL, "max_tokens": 9, "messages": user("Reply with exactly: yes")}
    answer = httpx.post(f"{shared.url}/v1/messages", headers=sent, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.json()["content"] == [{"type": "text", "text": "yes"}]


def test_two_different_credentials_are_refused_and_its_header_is_none_elsewhere(shared):
    key = secret(shared.key)
    body = {"model": MODEL, "max_tokens": 9, "messages": user("hi")}
    answer = httpx.post(f"{shared.url}/v1/messages", json=body, timeout=60, headers={
        "x-api-key": key, "authorization": "Bearer other"})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    chat = httpx.post(f"{shared.url}/v1/chat/completions", json=body, headers={"x-api-key": key}, timeout=60)
    assert chat.status_code == 401


def test_the_stream_helper_puts_the_same_message_together(shared):
    sdk = client(shared)
    with sdk.messages.stream(
        model=MODEL, max_tokens=100, messages=user("Reply with exactly: one two three")
    ) as stream:
        assert "".join(stream.text_stream) == "one two three"
        final = stream.get_final_message()
    assert final.content[0].text == "one two three"
    assert final.stop_reason == "end_turn"
    assert (final.usage.input_tokens, final.usage.output_tokens) == (9, 3)


def test_raw_events_come_in_the_dialects_order(shared):
    events = list(client(shared).messages.create(
        model=MODEL, max_tokens=100, messages=user("Reply with exactly: one two"), stream=True))
    assert [event.type for event in events] == [
        "message_start", "content_block_start", "content_block_delta", "content_block_delta", "content_block_stop",
        "message_delta", "message_stop",
    ]
    assert events[0].message.content == [] and events[0].message.usage.input_tokens == 8


@pytest.mark.parametrize("streamed", [False, True])
def test_tools_are_called_in_parallel_and_their_results_are_read(shared, streamed):
    sdk = client(shared)
    ask = user(
        'Call the tool get_weather with {"city": "Osaka"}\nCall the tool get_weather with {"city": "Kyoto"}')

    def turn(messages):
        options = {"model": MODEL, "max_tokens": 200, "tools": [WEATHER], "messages": messages}
        if not streamed:
            return sdk.messages.create(**options)
        with sdk.messages.stream(**options) as stream:
            return stream.get_final_message()

    message = turn(ask)
    assert message.stop_reason == "tool_use"
    assert [(block.type, block.name, block.input) for block in message.content] == [
        ("tool_use", "get_weather", {"city": "Osaka"}), ("tool_use", "get_weather", {"city": "Kyoto"}),
    ]
    results = [
        {"type": "tool_result", "tool_use_id": block.id, "content": text}
        for block, text in zip(message.content, ["22 degrees", [{"type": "text", "text": "19 degrees"}]])
    ]
    after = turn(ask + [{"role": "assistant", "content": message.content}, {"role": "user", "content": results}])
    assert after.stop_reason == "end_turn"
    assert after.content[0].text == "The tool said: 22 degrees | 19 degrees"


def test_tool_choice_in_all_its_forms(shared):
    sdk = client(shared)

    def blocks(choice, text="hello", tools=(WEATHER, WEATHER | {"name": "other"})):
        message = sdk.messages.create(
            model=MODEL, max_tokens=200, tools=list(tools), tool_choice=choice, messages=user(text))
        return [getattr(block, "name", block.type) for block in message.content]

    assert blocks({"type": "auto"}) == ["text"]
    assert blocks({"type": "none"}, tools=[WEATHER]) == ["text"]
    assert blocks({"type": "any"}) == ["get_weather"]
    assert blocks({"type": "tool", "name": "other"}) == ["other"]
    two = 'Call the tool other with {"city": "a"}\nCall the tool get_weather with {"city": "b"}'
    assert blocks({"type": "auto", "disable_parallel_tool_use": True}, two) == ["other"]
    with pytest.raises(anthropic.BadRequestError) as refused:
        blocks({"type": "tool", "name": "missing"})
    assert "tool_choice" in str(refused.value)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("how", [
    {"thinking": {"type": "enabled", "budget_tokens": 1024}}, {"output_config": {"effort": "high"}},
])
def test_thinking_comes_as_blocks_and_goes_back(shared, streamed, how):
    sdk = client(shared)
    options = {"model": MODEL, "max_tokens": 2048, "messages": user("Reply with exactly: done")} | how
    if streamed:
        with sdk.messages.stream(**options) as stream:
            message = stream.get_final_message()
    else:
        message = sdk.messages.create(**options)
    assert [block.type for block in message.content] == ["thinking", "text"]
    assert message.content[0].thinking and message.content[1].text == "done"
    assert message.usage.output_tokens_details.thinking_tokens > 0
    again = sdk.messages.create(model=MODEL, max_tokens=2048, messages=options["messages"] + [
        {"role": "assistant", "content": message.content}, {"role": "user", "content": "Reply with exactly: again"}])
    assert again.content[0].text == "again"


@pytest.mark.parametrize("streamed", [False, True])
def test_why_an_answer_ends(shared, streamed):
    sdk = client(shared)

    def ends(text, **options):
        options = {"model": MODEL, "max_tokens": 100, "messages": user(text)} | options
        if not streamed:
            message = sdk.messages.create(**options)
        else:
            with sdk.messages.stream(**options) as stream:
                message = stream.get_final_message()
        return message.stop_reason, message.stop_sequence, "".join(block.text for block in message.content)

    assert ends("Answer with 5 words", max_tokens=2) == ("max_tokens", None, "one island")
    assert ends("Reply with exactly: one two STOP three", stop_sequences=["STOP"]) == (
        "stop_sequence", "STOP", "one two ")
    assert ends("Reply with exactly: one two", stop_sequences=["STOP"]) == ("end_turn", None, "one two")


def test_a_schema_is_filled(shared):
    class Place(BaseModel):
        name: str
        people: int

    parsed = client(shared).messages.parse(
        model=MODEL, max_tokens=200, messages=user("Where?"), output_format=Place)
    assert isinstance(parsed.parsed_output, Place)


def test_images_are_passed_and_what_nobody_can_read_is_refused_by_name(shared):
    sdk = client(shared)

    def ask(*blocks):
        content = [*blocks, {"type": "text", "text": "Reply with exactly: seen"}]
        return sdk.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": content}])

    base64 = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}}
    url = {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}
    assert ask(base64, url).content[0].text == "seen"
    with pytest.raises(anthropic.BadRequestError, match="items of this type"):
        ask({"type": "search_result", "source": "x", "title": "x", "content": []})


def test_tokens_are_counted_as_the_run_counts_them(shared):
    sdk = client(shared)
    asked = {"model": MODEL, "messages": user("Reply with exactly: one two"), "system": "Be brief."}
    counted = sdk.messages.count_tokens(**asked).input_tokens
    assert counted == sdk.messages.create(max_tokens=9, **asked).usage.input_tokens == 13


@pytest.mark.parametrize("raises,options", [
    (anthropic.AuthenticationError, {"api_key": "sk-wrong"}),
    (anthropic.NotFoundError, {"model": "no.such.model"}),
    (anthropic.BadRequestError, {"max_tokens": 0}),
    (anthropic.BadRequestError, {"messages": []}),
    (anthropic.BadRequestError, {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
    (anthropic.BadRequestError, {"messages": [
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_unknown", "content": "x"}]}]}),
])
def test_errors_are_the_sdks_own(shared, raises, options):
    sdk = client(shared, **({"api_key": options.pop("api_key")} if "api_key" in options else {}))
    asked = {"model": MODEL, "max_tokens": 9, "messages": user("hi")} | options
    with pytest.raises(raises) as raised:
        sdk.messages.create(**asked)
    body = raised.value.body
    assert body["type"] == "error" and body["error"]["message"]
    assert body["request_id"] == raised.value.request_id


@pytest.mark.parametrize("at,seen", [(0, []), (5, ["message_start", "content_block_start", "content_block_delta"])])
def test_a_failure_is_an_exception_before_and_within_the_stream(shared, at, seen):
    types = []
    with pytest.raises(anthropic.APIStatusError) as raised:
        for event in client(shared).messages.create(
            model=MODEL, max_tokens=99, stream=True,
            messages=user(f"Reply with exactly: one two three four [scripted: fail-at={at}]"),
        ):
            types.append(event.type)
    assert types[:3] == seen and "message_stop" not in types
    assert raised.value.body["error"]["type"] == "api_error"


@pytest.mark.parametrize("streamed", [False, True])
def test_the_engine_answers_counts_and_names_its_stop(honshu_with_model, streamed):
    home = honshu_with_model.start()
    home.key = home.make_key()
    sdk = client(home)
    asked = {"model": SMALL_MODEL, "messages": user("Count from one to twenty."), "temperature": 0}
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        sdk.post("/v1/messages", body=asked, cast_to=anthropic.types.Message)
    counted = sdk.messages.count_tokens(model=SMALL_MODEL, messages=asked["messages"]).input_tokens
    options = {
        "model": SMALL_MODEL, "messages": asked["messages"], "max_tokens": 30, "stop_sequences": ["e"],
        "extra_body": {"temperature": 0},
    }
    if streamed:
        with sdk.messages.stream(**options) as stream:
            message = stream.get_final_message()
    else:
        message = sdk.messages.create(**options)
    assert message.stop_reason == "stop_sequence" and message.stop_sequence == "e"
    assert counted == message.usage.input_tokens + message.usage.cache_read_input_tokens
