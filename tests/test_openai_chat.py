"""The whole of Chat Completions, the old Completions and embeddings, with the official SDK, strictly validated."""

import base64
import struct

import httpx
import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from conftest import SCRIPTED, SMALL_MODEL, secret

MODEL = "honshu.scripted"
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": SCHEMA}}
TIME = {"type": "function", "function": {"name": "get_time", "parameters": SCHEMA}}
TWO = 'Call the tool get_weather with {"city": "Osaka"}\nCall the tool get_time with {"city": "Kyoto"}'


@pytest.fixture(scope="module")
def sdk(shared):
    shared.run(
        "policy", "create", "--compartment", "root", "--name", "embeddings", "--statement",
        "allow any-user to use generative-ai-text-embedding in tenancy "
        "where request.principal.type = 'generativeaiapikey'")
    return OpenAI(
        api_key=secret(shared.key), base_url=shared.url + "/v1", max_retries=0, _strict_response_validation=True)


@pytest.fixture(scope="module")
def lax(shared, sdk):
    """Without strict validation, where OpenAI's own answers would fail it: chunks of the old Completions have no reason
    until the last, and base64 is no list of numbers before the SDK made one of it."""
    return OpenAI(api_key=secret(shared.key), base_url=shared.url + "/v1", max_retries=0)


def ask(sdk, text="hello", stream=False, **options):
    options = {"model": MODEL, "messages": [{"role": "user", "content": text}]} | options
    if not stream:
        return sdk.chat.completions.create(**options)
    # The SDK's own helper puts the chunks together.
    options.setdefault("stream_options", {"include_usage": True})
    with sdk.chat.completions.stream(**options) as events:
        return events.get_final_completion()


BOTH = pytest.mark.parametrize("stream", [False, True])


@BOTH
@pytest.mark.parametrize("choice,text,called", [
    ("auto", TWO, ["get_weather", "get_time"]),
    ("none", TWO, []),
    ("required", "hello", ["get_weather"]),
    ({"type": "function", "function": {"name": "get_time"}}, "hello", ["get_time"]),
    ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
        {"type": "function", "function": {"name": "get_time"}}]}}, "hello", ["get_time"]),
])
def test_tool_choice_in_all_its_forms(sdk, stream, choice, text, called):
    answer = ask(sdk, text, stream, tools=[WEATHER, TIME], tool_choice=choice).choices[0]
    assert [call.function.name for call in answer.message.tool_calls or []] == called
    assert answer.finish_reason == ("tool_calls" if called else "stop")
    assert len({call.id for call in answer.message.tool_calls or []}) == len(called)


@BOTH
def test_calls_are_one_when_they_may_not_be_parallel(sdk, stream):
    answer = ask(sdk, TWO, stream, tools=[WEATHER, TIME], parallel_tool_calls=False)
    assert [call.function.arguments for call in answer.choices[0].message.tool_calls] == ['{"city": "Osaka"}']


def test_the_old_functions_are_answered_in_their_own_form(sdk):
    function = WEATHER["function"]
    answer = ask(sdk, "hello", functions=[function], function_call={"name": "get_weather"}).choices[0]
    assert answer.message.function_call.name == "get_weather" and answer.message.tool_calls is None
    assert answer.finish_reason == "function_call"
    chunks = list(sdk.chat.completions.create(
        model=MODEL, functions=[function], stream=True,
        messages=[{"role": "user", "content": 'Call the tool get_weather with {"city": "Osaka"}'}]))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    calls = [delta.function_call for delta in deltas if delta.function_call]
    assert calls[0].name == "get_weather" and "".join(call.arguments for call in calls) == '{"city": "Osaka"}'
    assert all(delta.tool_calls is None for delta in deltas)
    assert chunks[-1].choices[0].finish_reason == "function_call"
    after = sdk.chat.completions.create(model=MODEL, functions=[function], messages=[
        {"role": "user", "content": 'Call the tool get_weather with {"city": "Osaka"}'},
        {"role": "assistant", "content": None, "function_call": {"name": "get_weather", "arguments": "{}"}},
        {"role": "function", "name": "get_weather", "content": "22 degrees"}])
    assert after.choices[0].message.content == "The tool said: 22 degrees"


@BOTH
def test_several_choices_each_end_and_are_counted_together(sdk, stream):
    answer = ask(sdk, "Reply with exactly: one two", stream, n=3)
    assert [(choice.index, choice.message.content, choice.finish_reason) for choice in answer.choices] == [
        (index, "one two", "stop") for index in range(3)]
    assert answer.usage.completion_tokens == 6


@BOTH
def test_log_probabilities_spell_the_answer(sdk, stream):
    answer = ask(sdk, "Reply with exactly: one two", stream, logprobs=True, top_logprobs=1).choices[0]
    tokens = answer.logprobs.content
    assert "".join(entry.token for entry in tokens) == "one two"
    assert all(bytes(entry.bytes).decode() == entry.token and len(entry.top_logprobs) == 1 for entry in tokens)
    assert all(entry.top_logprobs == [] for entry in ask(sdk, "hi", stream, logprobs=True).choices[0].logprobs.content)


@BOTH
def test_a_schema_is_filled_and_parsed(sdk, stream):
    class Place(BaseModel):
        name: str
        people: int

    if stream:
        answer = ask(sdk, "Where?", stream, response_format=Place)
    else:
        answer = sdk.chat.completions.parse(
            model=MODEL, messages=[{"role": "user", "content": "Where?"}], response_format=Place)
    assert isinstance(answer.choices[0].message.parsed, Place)


@BOTH
def test_stops_and_limits_end_an_answer(sdk, stream):
    stopped = ask(sdk, "Reply with exactly: one two STOP three", stream, stop=["none", "STOP"]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == ("one two ", "stop")
    for name in ("max_tokens", "max_completion_tokens"):
        if stream:
            with pytest.raises(openai.LengthFinishReasonError):
                ask(sdk, "Answer with 5 words", stream, **{name: 2})
        else:
            limited = ask(sdk, "Answer with 5 words", **{name: 2}).choices[0]
            assert (limited.message.content, limited.finish_reason) == ("one island", "length")


def test_usage_comes_only_when_it_was_asked_for(sdk):
    messages = [{"role": "user", "content": "Reply with exactly: one two"}]
    without = list(sdk.chat.completions.create(model=MODEL, messages=messages, stream=True))
    assert all(chunk.usage is None and chunk.choices for chunk in without)
    chunks = list(sdk.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}))
    assert [bool(chunk.choices) for chunk in chunks] == [True] * (len(chunks) - 1) + [False]
    assert chunks[-1].usage.completion_tokens == 2


def test_hints_are_taken_and_those_without_effect_are_named(sdk):
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Reply with exactly: yes"}],
        seed=7, logit_bias={"1": -100}, temperature=0.5, top_p=0.9, presence_penalty=1, frequency_penalty=1,
        prediction={"type": "content", "content": "yes"}, reasoning_effort="low", verbosity="low", user="u",
        safety_identifier="s", prompt_cache_key="k", metadata={"a": "b"}, service_tier="flex")
    message = raw.parse().choices[0].message
    assert message.content == "yes" and message.reasoning_content
    ignored = raw.headers["honshu-ignored"].split(", ")
    assert set(ignored) == {
        "prediction", "verbosity", "user", "safety_identifier", "prompt_cache_key", "metadata", "service_tier"}


def test_images_are_passed_on(sdk):
    content = [
        {"type": "text", "text": "Reply with exactly: seen"},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png", "detail": "low"}},
    ]
    answer = sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": content}])
    assert answer.choices[0].message.content == "seen"


@pytest.mark.parametrize("param,options", [
    ("metadata", {"metadata": {str(n): "x" for n in range(17)}}),
    ("metadata.a", {"metadata": {"a": 1}}),
    ("metadata.a", {"metadata": {"a": "x" * 513}}),
    ("prediction", {"prediction": "yes"}),
    ("n", {"n": 0}),
    ("n", {"n": 129}),
    ("top_logprobs", {"logprobs": True, "top_logprobs": 21}),
    ("top_logprobs", {"top_logprobs": 3}),
    ("logit_bias.x", {"logit_bias": {"x": 1}}),
    ("logit_bias.1", {"logit_bias": {"1": 101}}),
    ("stop", {"stop": ["a", "b", "c", "d", "e"]}),
    ("response_format.type", {"response_format": {"type": "xml"}}),
    ("tool_choice", {"tool_choice": "required"}),
    ("audio", {"audio": {"voice": "alloy", "format": "wav"}}),
    ("modalities[1]", {"modalities": ["text", "audio"]}),
    ("messages[0].content[0]", {"messages": [{"role": "user", "content": [
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}]}]}),
    ("functions", {"functions": [{"name": f"f{n}"} for n in range(129)]}),
])
def test_what_cannot_be_is_a_400_that_names_it(sdk, param, options):
    options = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]} | options
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/chat/completions", body=options, cast_to=object)
    assert refused.value.param == param, refused.value


def test_an_engine_refuses_images_and_audio_by_name_and_continues_a_text(honshu_with_model):
    home = honshu_with_model.start()
    home.key = home.make_key()
    sdk = OpenAI(api_key=secret(home.key), base_url=home.url + "/v1", max_retries=0)
    for what, part in [
        ("image input", {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}),
        ("audio", {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}}),
    ]:
        with pytest.raises(openai.BadRequestError, match=what) as refused:
            sdk.chat.completions.create(model=SMALL_MODEL, messages=[{"role": "user", "content": [part]}])
        assert refused.value.code == "unsupported_value" and refused.value.param == "messages[0].content[0]"
    home.run(
        "policy", "create", "--compartment", "root", "--name", "embeddings", "--statement",
        "allow any-user to use generative-ai-text-embedding in tenancy "
        "where request.principal.type = 'generativeaiapikey'")
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        sdk.post("/embeddings", body={"model": SMALL_MODEL, "input": "hi"}, cast_to=object)

    asked = {"model": SMALL_MODEL, "prompt": "1, 2, 3, 4, 5, 6,", "temperature": 0, "max_tokens": 8}
    whole = sdk.completions.create(logprobs=2, **asked)
    choice = whole.choices[0]
    assert choice.text.startswith(" 7, 8"), choice.text
    assert choice.finish_reason == "length" and whole.usage.completion_tokens == 8
    # No template went around it.
    assert whole.usage.prompt_tokens < 30
    assert "".join(choice.logprobs.tokens) == choice.text
    assert choice.logprobs.text_offset[1] == len(choice.logprobs.tokens[0])
    assert [len(top) <= 2 for top in choice.logprobs.top_logprobs] == [True] * 8
    chunks = list(sdk.completions.create(stream=True, stream_options={"include_usage": True}, **asked))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == choice.text
    assert chunks[-2].choices[0].finish_reason == "length" and chunks[-1].usage.completion_tokens == 8
    assert len(sdk.completions.create(n=2, **asked).choices) == 2


@BOTH
def test_the_old_completions(sdk, lax, stream):
    options = {"model": MODEL, "prompt": "Reply with exactly: one two three", "stop": "three"}
    if stream:
        chunks = list(lax.completions.create(stream=True, **options))
        assert chunks[-1].choices[0].finish_reason == "stop"
        assert {chunk.object for chunk in chunks} == {"text_completion"}
        text = "".join(chunk.choices[0].text for chunk in chunks)
    else:
        answer = sdk.completions.create(**options)
        assert answer.id.startswith("cmpl-")
        text = answer.choices[0].text
    assert text == "one two "


@pytest.mark.parametrize("param,options", [
    ("prompt", {"prompt": ["a", "b"]}), ("prompt", {"prompt": [1, 2]}), ("echo", {"echo": True}),
    ("suffix", {"suffix": "x"}), ("best_of", {"best_of": 2}), ("prompt", {"prompt": []}), ("prompt", {"prompt": {}}),
    ("logprobs", {"logprobs": 6}),
])
def test_old_options_that_nobody_meets_are_refused_by_name(sdk, param, options):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/completions", body={"model": MODEL, "prompt": "hi"} | options, cast_to=object)
    assert refused.value.param == param


def test_embeddings_as_numbers_and_as_base64(shared, lax):
    sdk = lax
    texts = ["the sea and its islands", "islands of the sea", "tax law"]
    answer = sdk.embeddings.create(model=MODEL, input=texts)
    assert (answer.object, answer.model, answer.usage.prompt_tokens) == ("list", MODEL, 11)
    first, second, third = (entry.embedding for entry in answer.data)
    assert [entry.index for entry in answer.data] == [0, 1, 2] and len(first) == 64

    def near(a, b):
        return sum(x * y for x, y in zip(a, b))

    assert near(first, first) == pytest.approx(1) and near(first, second) > 0.5 > near(first, third)
    plain = sdk.embeddings.create(model=MODEL, input=texts[0], encoding_format="float", dimensions=8)
    assert len(plain.data[0].embedding) == 8
    raw = httpx.post(
        f"{shared.url}/v1/embeddings", headers={"authorization": f"Bearer {secret(shared.key)}"}, timeout=60,
        json={"model": MODEL, "input": texts[0], "encoding_format": "base64", "dimensions": 8}).json()
    packed = base64.b64decode(raw["data"][0]["embedding"])
    assert struct.unpack("<8f", packed) == pytest.approx(plain.data[0].embedding)
    assert len(sdk.embeddings.create(model=MODEL, input=[[1, 2], [3]]).data) == 2
    assert len(sdk.embeddings.create(model=MODEL, input=[1, 2]).data) == 1


@pytest.mark.parametrize("param,options", [
    ("input", {"input": None}), ("input", {"input": []}), ("input", {"input": ""}), ("input[1]", {"input": ["a", ""]}),
    ("input[0]", {"input": [{}]}), ("input", {"input": ["a"] * 2049}), ("input[0]", {"input": [[]]}),
    ("dimensions", {"dimensions": 0}), ("encoding_format", {"encoding_format": "int8"}),
])
def test_bad_embedding_requests_name_the_place(sdk, param, options):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.post("/embeddings", body={"model": MODEL, "input": "hi"} | options, cast_to=object)
    assert refused.value.param == param


def test_embeddings_need_a_permission_of_their_own_and_leave_a_usage_row(scripted):
    sdk = OpenAI(api_key=secret(scripted.key), base_url=scripted.url + "/v1", max_retries=0)
    with pytest.raises(openai.NotFoundError):
        sdk.embeddings.create(model=MODEL, input="a b c")
    scripted.run(
        "policy", "create", "--compartment", "root", "--name", "embeddings", "--statement",
        "allow any-user to use generative-ai-text-embedding in tenancy "
        "where request.principal.type = 'generativeaiapikey'")
    sdk.embeddings.create(model=MODEL, input="a b c")
    row = scripted.usage_rows()[-1]
    assert (row["operation"], row["status"], row["input_tokens"], row["output_tokens"]) == ("embeddings", "completed", 3, 0)
