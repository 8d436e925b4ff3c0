"""The official OpenAI SDK for Python, with strict validation of every answer."""

import openai
import pytest
from openai import OpenAI

from conftest import SMALL_MODEL, secret


def client(honshu, base="/20231130/actions/v1", **options):
    return OpenAI(
        api_key=secret(honshu.key), base_url=honshu.url + base, max_retries=0,
        _strict_response_validation=True, **options,
    )


@pytest.mark.parametrize("base", ["/20231130/actions/v1", "/openai/v1", "/20231130/openai/v1", "/v1"])
def test_responses_and_chat_on_every_base(scripted, base):
    sdk = client(scripted, base)
    response = sdk.responses.create(model="honshu.scripted", input="Reply with exactly: 本州")
    assert response.output_text == "本州"
    assert response.status == "completed" and response.usage.total_tokens > 0
    assert response._request_id
    chat = sdk.chat.completions.create(
        model="honshu.scripted", messages=[{"role": "user", "content": "Reply with exactly: 本州"}])
    assert chat.choices[0].message.content == "本州"
    assert chat.choices[0].finish_reason == "stop"


def test_streams_end_completed_and_carry_gapless_sequence_numbers(scripted):
    sdk = client(scripted)
    numbers, text = [], ""
    with sdk.responses.stream(model="honshu.scripted", input="Reply with exactly: one two three") as stream:
        for event in stream:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text += event.delta
        final = stream.get_final_response()
    assert text == "one two three" == final.output_text
    assert numbers == list(range(len(numbers)))
    chunks = list(sdk.chat.completions.create(
        model="honshu.scripted", messages=[{"role": "user", "content": "Reply with exactly: one two three"}],
        stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "one two three"
    assert chunks[-1].usage.completion_tokens > 0 and chunks[-1].choices == []


def test_tools_and_schemas(scripted):
    sdk = client(scripted)
    tool = {"type": "function", "name": "get_weather", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}
    response = sdk.responses.create(
        model="honshu.scripted", input='Call the tool get_weather with {"city": "Osaka"}', tools=[tool])
    call = next(item for item in response.output if item.type == "function_call")
    assert call.name == "get_weather" and '"Osaka"' in call.arguments
    after = sdk.responses.create(model="honshu.scripted", tools=[tool], input=[
        {"role": "user", "content": 'Call the tool get_weather with {"city": "Osaka"}'},
        call.model_dump(exclude_none=True),
        {"type": "function_call_output", "call_id": call.call_id, "output": "22 degrees"},
    ])
    assert "22 degrees" in after.output_text


def test_models_are_listed_and_retrieved(scripted):
    sdk = client(scripted)
    assert [model.id for model in sdk.models.list()] == ["honshu.scripted"]
    assert sdk.models.retrieve("honshu.scripted").id == "honshu.scripted"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no/such")


def test_errors_are_the_sdks_own(scripted):
    sdk = client(scripted)
    with pytest.raises(openai.AuthenticationError):
        OpenAI(api_key="sk-garbage", base_url=scripted.url + "/v1", max_retries=0).responses.create(
            model="honshu.scripted", input="hi")
    with pytest.raises(openai.NotFoundError) as unknown:
        sdk.responses.create(model="no.such-model", input="hi")
    assert unknown.value.code == "model_not_found" and unknown.value.type == "not_found_error"
    assert "scripted" not in str(unknown.value)
    with pytest.raises(openai.BadRequestError) as bad:
        sdk.responses.create(model="honshu.scripted", input="hi", temperature=3)
    assert bad.value.param == "temperature"


def test_the_real_small_model_answers(honshu_with_model):
    honshu = honshu_with_model.start()
    honshu.key = honshu.make_key()
    sdk = client(honshu)
    response = sdk.responses.create(model=SMALL_MODEL, input="What is the capital of Japan?", temperature=0)
    assert "Tokyo" in response.output_text
    assert response.model == SMALL_MODEL
    streamed = "".join(
        event.delta for event in sdk.responses.create(
            model=SMALL_MODEL, input="What is the capital of Japan?", temperature=0, stream=True)
        if event.type == "response.output_text.delta")
    assert streamed == response.output_text
    chat = sdk.chat.completions.create(
        model=SMALL_MODEL, messages=[{"role": "user", "content": "What is the capital of Japan?"}],
        temperature=0, logprobs=True, top_logprobs=2, max_completion_tokens=8)
    assert chat.choices[0].finish_reason in ("length", "stop")
    assert "".join(t.token for t in chat.choices[0].logprobs.content) == chat.choices[0].message.content
    with pytest.raises(openai.BadRequestError) as long:
        sdk.responses.create(model=SMALL_MODEL, input="word " * 40000)
    assert long.value.code == "context_length_exceeded"
