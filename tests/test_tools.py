"""Tools, structured answers and custom schemas with the real small model, by the official SDK in both dialects.

The small model's template knows no tools: it is told of them in words, and what is required of it is enforced.
"""

import json
import os
import shutil
from typing import Literal

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel, Field

from conftest import SMALL_MODEL, at_home, free_port, secret

PARAMETERS = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "maxLength": 20},
        "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
    },
    "required": ["city", "unit"],
    "additionalProperties": False,
}
FLAT = {"type": "function", "name": "get_weather", "description": "The weather in a city.", "parameters": PARAMETERS, "strict": True}
NESTED = {"type": "function", "function": {key: FLAT[key] for key in ("name", "description", "parameters", "strict")}}
QUESTION = "What is the weather in Paris?"


class Weather(BaseModel):
    city: str = Field(max_length=20)
    sky: Literal["clear", "cloudy", "rain"]
    degrees: int = Field(ge=-50, le=60)


@pytest.fixture(scope="module")
def engine(tmp_path_factory, models):
    with at_home(tmp_path_factory.mktemp("tools")) as home:
        shutil.copytree(models, home.data_dir / "models", copy_function=os.link)
        port = free_port()
        home.start(f'[server]\nlisten = "127.0.0.1:{port}"\n', port=port)
        home.key = home.make_key()
        yield home


@pytest.fixture(scope="module")
def sdk(engine):
    return OpenAI(
        api_key=secret(engine.key), base_url=engine.url + "/v1", max_retries=0, timeout=300,
        _strict_response_validation=True,
    )


def checked(arguments):
    value = json.loads(arguments)
    assert set(value) == {"city", "unit"} and value["unit"] in ("celsius", "fahrenheit")
    assert isinstance(value["city"], str) and len(value["city"]) <= 20
    return value


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("choice", ["required", {"type": "function", "name": "get_weather"}])
def test_a_required_call_its_result_and_an_answer_by_responses(sdk, streamed, choice):
    options = dict(
        model=SMALL_MODEL, tools=[FLAT], temperature=0, max_output_tokens=200,
        input=[{"role": "user", "content": QUESTION}],
    )
    if streamed:
        parts = []
        with sdk.responses.stream(tool_choice=choice, **options) as stream:
            for event in stream:
                if event.type == "response.function_call_arguments.delta":
                    parts.append(event.delta)
            response = stream.get_final_response()
        assert len(parts) > 1
    else:
        response = sdk.responses.create(tool_choice=choice, **options)
    assert response.status == "completed"
    (call,) = response.output
    assert call.type == "function_call" and call.name == "get_weather" and call.status == "completed"
    checked(call.arguments)
    if streamed:
        assert "".join(parts) == call.arguments
    options["input"] += [
        {"type": "function_call", "call_id": call.call_id, "name": call.name, "arguments": call.arguments},
        {"type": "function_call_output", "call_id": call.call_id, "output": "It is sunny and 21 degrees."},
    ]
    after = sdk.responses.create(tool_choice="none", **options)
    assert after.status == "completed" and "21" in after.output_text


@pytest.mark.parametrize("streamed", [False, True])
def test_a_required_call_its_result_and_an_answer_by_chat(sdk, streamed):
    messages = [{"role": "user", "content": QUESTION}]
    options = dict(model=SMALL_MODEL, tools=[NESTED], temperature=0, max_completion_tokens=200)
    if streamed:
        pieces = 0
        with sdk.chat.completions.stream(messages=messages, tool_choice="required", **options) as stream:
            for event in stream:
                pieces += event.type == "tool_calls.function.arguments.delta"
            completion = stream.get_final_completion()
        assert pieces > 1
    else:
        completion = sdk.chat.completions.create(messages=messages, tool_choice="required", **options)
    choice = completion.choices[0]
    assert choice.finish_reason == "tool_calls" and not choice.message.content
    (call,) = choice.message.tool_calls
    assert call.function.name == "get_weather"
    checked(call.function.arguments)
    messages += [
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}}]},
        {"role": "tool", "tool_call_id": call.id, "content": "It is sunny and 21 degrees."},
    ]
    after = sdk.chat.completions.create(messages=messages, tool_choice="none", **options)
    assert after.choices[0].finish_reason == "stop" and "21" in after.choices[0].message.content


def test_only_allowed_tools_are_called(sdk):
    other = FLAT | {"name": "get_time", "parameters": {"type": "object", "properties": {}, "additionalProperties": False, "required": []}}
    response = sdk.responses.create(
        model=SMALL_MODEL, input=QUESTION, tools=[FLAT, other], temperature=0, max_output_tokens=100,
        tool_choice={"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "get_time"}]},
    )
    (call,) = response.output
    assert (call.name, json.loads(call.arguments)) == ("get_time", {})


def test_tools_that_need_not_be_called_leave_a_whole_answer(sdk):
    """What the model chooses is its own; whatever it is, it is well formed."""
    response = sdk.responses.create(
        model=SMALL_MODEL, input="Say hello.", tools=[FLAT], temperature=0, max_output_tokens=60)
    assert response.output
    for item in response.output:
        if item.type == "function_call" and response.status == "completed":
            checked(item.arguments)
    assert "<tool_call>" not in response.output_text or response.status == "incomplete"


def test_structured_answers_are_parsed_by_the_sdk(sdk):
    question = "Describe the weather in Paris as JSON."
    response = sdk.responses.parse(
        model=SMALL_MODEL, input=question, text_format=Weather, temperature=0, max_output_tokens=200)
    assert isinstance(response.output_parsed, Weather)
    completion = sdk.chat.completions.parse(
        model=SMALL_MODEL, messages=[{"role": "user", "content": question}],
        response_format=Weather, temperature=0, max_completion_tokens=200)
    assert isinstance(completion.choices[0].message.parsed, Weather)
    with sdk.chat.completions.stream(
        model=SMALL_MODEL, messages=[{"role": "user", "content": question}],
        response_format=Weather, temperature=0, max_completion_tokens=200,
    ) as stream:
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Weather)


def test_tools_of_pydantic_models_are_parsed_by_the_sdk(sdk):
    class Forecast(BaseModel):
        days: list[Weather] = Field(min_length=1, max_length=2)

    completion = sdk.chat.completions.parse(
        model=SMALL_MODEL, messages=[{"role": "user", "content": QUESTION}], temperature=0, max_completion_tokens=300,
        tools=[openai.pydantic_function_tool(Forecast)], tool_choice="required")
    (call,) = completion.choices[0].message.tool_calls
    assert isinstance(call.function.parsed_arguments, Forecast)


@pytest.mark.parametrize("schema", [
    {"type": "object", "properties": {"a": {"$ref": "https://example.invalid/x.json"}}},
    {"type": "array", "items": {"type": "null"}, "minItems": 1_000_000_000},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "rubbish"},
], ids=["remote", "huge", "look-around", "unknown"])
def test_a_schema_that_cannot_be_enforced_is_refused_by_its_place(sdk, schema):
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(
            model=SMALL_MODEL, input="x",
            text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}})
    assert refused.value.param == "text.format"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(
            model=SMALL_MODEL, messages=[{"role": "user", "content": "x"}], tool_choice="required",
            tools=[NESTED, {"type": "function", "function": {"name": "bad", "strict": True, "parameters": {
                "type": "object", "properties": {"p": schema}, "required": ["p"], "additionalProperties": False}}}])
    assert refused.value.param == "tools[1].function.parameters"
