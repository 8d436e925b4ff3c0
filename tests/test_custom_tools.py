"""Custom tools and vectors by the official SDK: on the scripted model, and on the built-in engine with the small real model,
which keeps to the grammar whatever it would say by itself.
"""

import base64
import os
import re
import shutil
import struct

import openai
import pytest
from openai import OpenAI

from conftest import SCRIPTED, SMALL_MODEL, at_home, free_port, secret

LARK = """
start: begin change~1..2 end
begin: "*** Begin Patch" LF
change: /[+-]/ /"[a-z ]{1,6}"/ LF
end: "*** End Patch"
%import common.LF
"""
PATCH = re.compile(r'\*\*\* Begin Patch\n(?:[+-]"[a-z ]{1,6}"\n){1,2}\*\*\* End Patch')
GRAMMAR = {"syntax": "lark", "definition": LARK}
FLAT = {"type": "custom", "name": "apply_patch", "description": "Changes files.", "format": {"type": "grammar", **GRAMMAR}}
NESTED = {"type": "custom", "custom": {
    "name": "apply_patch", "description": "Changes files.", "format": {"type": "grammar", "grammar": GRAMMAR}}}
CONFIG = SCRIPTED + """
[[model]]
id = "small.vectors"
capabilities = ["chat", "embeddings"]

[[model.deployment]]
provider = "engine"
upstream = "{model}"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory, models):
    with at_home(tmp_path_factory.mktemp("custom")) as home:
        shutil.copytree(models, home.data_dir / "models", copy_function=os.link)
        port = free_port()
        home.start(CONFIG.format(port=port, model=SMALL_MODEL), port=port)
        home.key = home.make_key()
        home.run(
            "policy", "create", "--compartment", "root", "--name", "vectors", "--statement",
            "allow any-user to use generative-ai-text-embedding in tenancy "
            "where request.principal.type = 'generativeaiapikey'")
        yield home


@pytest.fixture(scope="module")
def sdk(engine):
    return OpenAI(
        api_key=secret(engine.key), base_url=engine.url + "/v1", max_retries=0, timeout=300,
        _strict_response_validation=True,
    )


@pytest.fixture(scope="module")
def lenient(sdk):
    """Without strict validation: the SDK's types know streamed calls of functions only, and vectors as lists only."""
    return OpenAI(api_key=sdk.api_key, base_url=sdk.base_url, max_retries=0, timeout=300)


@pytest.mark.parametrize("streamed", [False, True])
def test_a_forced_custom_tool_by_responses_keeps_to_its_grammar(sdk, streamed):
    options = dict(
        model=SMALL_MODEL, tools=[FLAT], temperature=1, max_output_tokens=200,
        input=[{"role": "user", "content": "Patch the file."}])
    choice = {"type": "custom", "name": "apply_patch"}
    if streamed:
        parts, done = [], None
        with sdk.responses.stream(tool_choice=choice, **options) as stream:
            for event in stream:
                if event.type == "response.custom_tool_call_input.delta":
                    parts.append(event.delta)
                if event.type == "response.custom_tool_call_input.done":
                    done = event.input
            response = stream.get_final_response()
        assert len(parts) > 1
    else:
        response = sdk.responses.create(tool_choice=choice, **options)
    assert response.status == "completed"
    (call,) = response.output
    assert (call.type, call.name, call.id[:4]) == ("custom_tool_call", "apply_patch", "ctc_")
    assert PATCH.fullmatch(call.input), call.input
    if streamed:
        assert "".join(parts) == done == call.input
    # The call and its result go back, and as a stored turn too.
    for more in (
        {"input": options["input"] + [
            {"type": "custom_tool_call", "call_id": call.call_id, "name": call.name, "input": call.input},
            {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Patched 7 files."}]},
        {"previous_response_id": response.id, "input": [
            {"type": "custom_tool_call_output", "call_id": call.call_id, "output": "Patched 7 files."}]},
    ):
        after = sdk.responses.create(tool_choice="none", **options | {"temperature": 0} | more)
        assert after.status in ("completed", "incomplete") and after.output_text


@pytest.mark.parametrize("streamed", [False, True])
def test_a_required_custom_tool_by_chat_keeps_to_its_grammar(sdk, lenient, streamed):
    messages = [{"role": "user", "content": "Patch the file."}]
    options = dict(model=SMALL_MODEL, tools=[NESTED], temperature=1, max_completion_tokens=200)
    if streamed:
        stream = lenient.chat.completions.create(messages=messages, tool_choice="required", stream=True, **options)
        name, text, finish = None, "", None
        for chunk in stream:
            choice = chunk.choices[0].model_dump()
            for call in choice["delta"].get("tool_calls") or []:
                assert call.get("function") is None
                name = call["custom"].get("name") or name
                text += call["custom"].get("input") or ""
            finish = choice["finish_reason"] or finish
    else:
        completion = sdk.chat.completions.create(messages=messages, tool_choice="required", **options)
        (call,) = completion.choices[0].message.tool_calls
        assert call.type == "custom"
        name, text, finish = call.custom.name, call.custom.input, completion.choices[0].finish_reason
        messages += [
            completion.choices[0].message.model_dump(exclude_none=True),
            {"role": "tool", "tool_call_id": call.id, "content": "Patched 7 files."}]
        after = sdk.chat.completions.create(messages=messages, tool_choice="none", **options)
        assert after.choices[0].message.content
    assert (name, finish) == ("apply_patch", "tool_calls")
    assert PATCH.fullmatch(text), text


@pytest.mark.parametrize("syntax, definition", [
    ("lark", "start: missing"), ("lark", "start: <|im_end|>"), ("lark", "start: \"a\n"), ("regex", "(?=a)b"), ("regex", "("),
    ("lark", "start: \"" + "x" * 70_000 + "\""), ("lark", "A: B\nB: A\nstart: A"),
], ids=["unknown", "token", "string", "look-around", "group", "huge", "circle"])
def test_a_grammar_that_cannot_be_enforced_is_refused_by_its_place(sdk, syntax, definition):
    grammar = {"syntax": syntax, "definition": definition}
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(
            model=SMALL_MODEL, input="x", tools=[{"type": "custom", "name": "c", "format": {"type": "grammar", **grammar}}])
    assert refused.value.param == "tools[0].format.definition"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.chat.completions.create(
            model=SMALL_MODEL, messages=[{"role": "user", "content": "x"}],
            tools=[{"type": "custom", "custom": {"name": "c", "format": {"type": "grammar", "grammar": grammar}}}])
    assert refused.value.param == "tools[0].custom.format.grammar.definition"


def test_the_scripted_model_calls_custom_tools_and_names_the_grammar_as_ignored(sdk):
    raw = sdk.responses.with_raw_response.create(
        model="honshu.scripted", tools=[FLAT], input='Call the tool apply_patch with "*** Begin Patch\\n*** End Patch"')
    (call,) = raw.parse().output
    assert (call.type, call.input) == ("custom_tool_call", "*** Begin Patch\n*** End Patch")
    assert "tools[0].format" in raw.headers["honshu-ignored"]


def test_vectors_of_the_engine_by_the_sdk(sdk, lenient):
    texts = ["A cat sits on the mat.", "The cat is sitting on a mat.", "Interest rates rose, and shares fell in New York."]
    # Without a word the SDK asks for base64 and gives lists of numbers.
    answer = lenient.embeddings.create(model="small.vectors", input=texts)
    assert [entry.index for entry in answer.data] == [0, 1, 2]
    assert answer.usage.prompt_tokens == answer.usage.total_tokens > 10
    vectors = [entry.embedding for entry in answer.data]
    near, far = (sum(a * b for a, b in zip(vectors[0], other)) for other in vectors[1:])
    assert near > far
    assert abs(sum(n * n for n in vectors[0]) - 1) < 1e-4
    coded = lenient.embeddings.create(model="small.vectors", input=texts[0], encoding_format="base64", dimensions=32)
    cut = struct.unpack("<32f", base64.b64decode(coded.data[0].embedding))
    assert abs(sum(n * n for n in cut) - 1) < 1e-4
    with pytest.raises(openai.BadRequestError) as refused:
        lenient.embeddings.create(model="small.vectors", input=["a", "word " * 9_000])
    assert refused.value.param == "input[1]"
    # The pulled model itself is for conversation alone.
    with pytest.raises(openai.BadRequestError, match="embeddings"):
        lenient.embeddings.create(model=SMALL_MODEL, input="a")
    assert sdk.responses.create(model="small.vectors", input="Say hello.", max_output_tokens=16).output
