"""Every method of the official OpenAI SDK for Python on the endpoints that Honshu serves, by its synchronous and its
asynchronous client."""

import json
import threading
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from blocking import Blocking, Loop
from conftest import secret

MODEL = "honshu.scripted"
DONE = ("completed", "failed", "cancelled", "incomplete")


@pytest.fixture(scope="module")
def home(shared):
    for name, resource in (("method-files", "generative-ai-file"), ("method-vectors", "generative-ai-text-embedding")):
        shared.run("policy", "create", "--compartment", "root", "--name", name, "--statement",
                   f"allow any-user to manage {resource} in tenancy where request.principal.type = 'generativeaiapikey'")
    return shared


@pytest.fixture(params=["sync", "async"])
def connect(request, home):
    """Makes clients of one kind. `seen` is given every request that leaves."""
    loop = Loop()

    def make(seen=None, **options):
        def note(sent):
            seen.append(sent)

        async def note_later(sent):
            seen.append(sent)

        options = {"api_key": secret(home.key), "base_url": home.url + "/v1", "max_retries": 0,
                   "_strict_response_validation": True} | options
        if request.param == "sync":
            hooks = {"request": [note]} if seen is not None else {}
            return OpenAI(http_client=httpx.Client(event_hooks=hooks, timeout=60), **options)
        hooks = {"request": [note_later]} if seen is not None else {}
        return Blocking(loop, AsyncOpenAI(http_client=httpx.AsyncClient(event_hooks=hooks, timeout=60), **options))

    yield make
    loop.loop.close()


@pytest.fixture
def sdk(connect):
    return connect()


@pytest.fixture
def lax(connect):
    """For answers that the SDK's own types know no better: users' messages, chunks of the old Completions, base64."""
    return connect(_strict_response_validation=False)


class City(BaseModel):
    city: str


def ended(sdk, response):
    deadline = time.monotonic() + 60
    while response.status not in DONE:
        assert time.monotonic() < deadline, response
        time.sleep(0.02)
        response = sdk.responses.retrieve(response.id)
    return response


def test_responses_are_made_read_listed_and_deleted(sdk):
    made = sdk.responses.create(model=MODEL, metadata={"a": "b"}, instructions="Be brief.", input=[
        {"role": "user", "content": text} for text in ("one", "two", "Reply with exactly: three")])
    assert made.output_text == "three" and sdk.responses.retrieve(made.id) == made
    pages = sdk.responses.input_items.list(made.id, order="asc", limit=1)
    assert [item.content[0].text for item in pages] == ["one", "two", "Reply with exactly: three"]
    newest = sdk.responses.input_items.list(made.id, limit=2)
    assert [item.content[0].text for item in newest.data] == ["Reply with exactly: three", "two"] and newest.has_more
    sdk.responses.delete(made.id)
    for call in (sdk.responses.retrieve, sdk.responses.delete, sdk.responses.cancel, sdk.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_background_responses_are_cancelled(sdk):
    slow = sdk.responses.create(model=MODEL, input="Answer with 9000 words [scripted: delay-ms=50]", background=True)
    assert slow.status == "queued"
    assert sdk.responses.cancel(slow.id).status == "cancelled"
    assert ended(sdk, sdk.responses.retrieve(slow.id)).status == "cancelled"


def test_responses_are_compacted_and_counted(sdk, lax):
    compacted = lax.responses.compact(model=MODEL, input=[{"role": "user", "content": "My name is Aiko."}])
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    following = [item.model_dump(exclude_none=True) for item in compacted.output]
    following.append({"role": "user", "content": "Reply with exactly: on"})
    assert sdk.responses.create(model=MODEL, input=following).output_text == "on"
    counted = sdk.responses.input_tokens.count(model=MODEL, input="one two")
    used = sdk.responses.create(model=MODEL, input="one two").usage
    assert counted.input_tokens == used.input_tokens


def test_a_long_input_is_compacted_within_the_response(sdk):
    # What no model has answered yet is not summed up.
    long = [{"role": "user", "content": "word " * 2000}, {"role": "assistant", "content": "Understood."}]
    ask = lambda text, before=(), **options: sdk.responses.create(
        model=MODEL, input=[*before, {"role": "user", "content": text}],
        context_management=[{"type": "compaction", "compact_threshold": 1000}], **options)
    first = ask(long[0]["content"])
    assert [item.type for item in first.output] == ["message"]
    response = ask("Reply with exactly: done", before=long)
    assert [item.type for item in response.output] == ["compaction", "message"]
    assert response.output_text == "done"
    following = ask("Reply with exactly: next", previous_response_id=response.id)
    assert [item.type for item in following.output] == ["message"]
    with sdk.responses.stream(
            model=MODEL, input=[*long, long[0]], context_management=[{"type": "compaction", "compact_threshold": 1000}]) as events:
        assert [item.type for item in events.get_final_response().output] == ["compaction", "message"]


@pytest.mark.parametrize("padded", [False, True])
def test_response_streams_and_their_resumption(sdk, padded):
    ask = {"model": MODEL, "input": "Reply with exactly: one two three", "stream_options": {"include_obfuscation": padded}}
    events = list(sdk.responses.create(stream=True, **ask))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert "".join(event.delta for event in deltas) == "one two three"
    assert all(("obfuscation" in event.to_dict()) == padded for event in deltas)
    response_id = events[0].response.id
    again = list(sdk.responses.retrieve(response_id, stream=True))
    assert again == events
    assert list(sdk.responses.retrieve(response_id, stream=True, starting_after=3)) == events[4:]
    with sdk.responses.stream(response_id=response_id, starting_after=3) as stream:
        assert [event.sequence_number for event in stream] == list(range(4, len(events)))
        assert stream.get_final_response().output_text == "one two three"
    with sdk.responses.stream(**ask) as stream:
        stream.until_done()
        assert stream.get_final_response().output_text == "one two three"


def test_responses_are_parsed(sdk):
    ask = {"model": MODEL, "input": "Where?", "text_format": City}
    assert isinstance(sdk.responses.parse(**ask).output_parsed, City)
    with sdk.responses.stream(**ask) as stream:
        assert isinstance(stream.get_final_response().output_parsed, City)
    tool = openai.pydantic_function_tool(City, name="where")["function"] | {"type": "function"}
    called = sdk.responses.parse(
        model=MODEL, input='Call the tool where with {"city": "Osaka"}', tools=[tool], tool_choice="required")
    assert called.output[0].parsed_arguments["city"] == "Osaka"


def test_conversations_and_their_items(sdk):
    made = sdk.conversations.create(metadata={"topic": "sea"}, items=[{"role": "user", "content": "first"}])
    assert sdk.conversations.retrieve(made.id) == made
    assert sdk.conversations.update(made.id, metadata={"x": "y"}).metadata == {"x": "y"}
    sdk.responses.create(model=MODEL, input="Reply with exactly: second", conversation=made.id)
    added = sdk.conversations.items.create(made.id, items=[{"role": "user", "content": "third"}])
    assert [item.content[0].text for item in added.data] == ["third"]
    items = list(sdk.conversations.items.list(made.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["first", "Reply with exactly: second", "second", "third"]
    assert sdk.conversations.items.retrieve(items[3].id, conversation_id=made.id) == items[3]
    assert sdk.conversations.items.delete(items[3].id, conversation_id=made.id).id == made.id
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.items.retrieve(items[3].id, conversation_id=made.id)
    assert sdk.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.retrieve(made.id)


def test_files(sdk):
    made = [sdk.files.create(file=(f"{n}.txt", b"x" * n), purpose="user_data",
                             expires_after={"anchor": "created_at", "seconds": 3600}) for n in (1, 2)]
    assert sdk.files.retrieve(made[0].id) == made[0] and made[0].expires_at == made[0].created_at + 3600
    found = [file.id for file in sdk.files.list(purpose="user_data", limit=1, order="asc")]
    assert [file_id for file_id in found if file_id in {file.id for file in made}] == [file.id for file in made]
    assert sdk.files.content(made[1].id).read() == b"xx"
    assert sdk.files.wait_for_processing(made[0].id).status == "processed"
    for file in made:
        assert sdk.files.delete(file.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.files.content(made[0].id)


def chat(sdk, text="Reply with exactly: one two three", **options):
    return sdk.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}], **options)


def test_stored_chat_completions(sdk, lax):
    mark = {"test": f"{time.monotonic_ns()}"}
    made = [chat(sdk, f"Reply with exactly: {n}", store=True, metadata=mark | {"n": str(n)}) for n in range(3)]
    chat(sdk, store=False)
    listed = list(sdk.chat.completions.list(metadata=mark, model=MODEL, limit=1))
    assert [one.id for one in listed] == [one.id for one in made]
    newest = sdk.chat.completions.list(metadata=mark, order="desc", limit=2)
    assert [one.id for one in newest.data] == [made[2].id, made[1].id]
    assert [one.id for one in sdk.chat.completions.list(metadata=mark | {"n": "1"})] == [made[1].id]
    assert [one.id for one in sdk.chat.completions.list(metadata=mark, after=made[1].id)] == [made[2].id]
    read = sdk.chat.completions.retrieve(made[0].id)
    assert (read.choices, read.usage, read.metadata) == (made[0].choices, made[0].usage, mark | {"n": "0"})
    assert sdk.chat.completions.update(made[0].id, metadata={"new": "x"}).metadata == {"new": "x"}
    messages = list(lax.chat.completions.messages.list(made[0].id, limit=1))
    assert [(one.id, one.role, one.content) for one in messages] == [
        (f"{made[0].id}-0", "user", "Reply with exactly: 0")]
    for one in made:
        deleted = sdk.chat.completions.delete(one.id)
        assert deleted.deleted and deleted.id == one.id
    assert list(sdk.chat.completions.list(metadata=mark)) == []
    for call in (lambda: sdk.chat.completions.retrieve(made[0].id), lambda: sdk.chat.completions.delete(made[0].id),
                 lambda: sdk.chat.completions.update(made[0].id, metadata={}),
                 lambda: lax.chat.completions.messages.list(made[0].id)):
        with pytest.raises(openai.NotFoundError):
            call()


def test_chat_streams_are_stored_and_put_together(sdk):
    with sdk.chat.completions.stream(
            model=MODEL, messages=[{"role": "user", "content": "Reply with exactly: one two"}], store=True,
            stream_options={"include_usage": True, "include_obfuscation": True}) as events:
        final = events.get_final_completion()
    assert final.choices[0].message.content == "one two"
    read = sdk.chat.completions.retrieve(final.id)
    assert (read.choices[0].message.content, read.usage, read.created) == ("one two", final.usage, final.created)
    chunks = list(chat(sdk, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "one two three"


def test_chat_completions_are_parsed(sdk):
    parsed = sdk.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Where?"}], response_format=City)
    assert isinstance(parsed.choices[0].message.parsed, City)


@pytest.mark.parametrize("stream", [False, True])
def test_the_old_completions(lax, stream):
    answer = lax.completions.create(model=MODEL, prompt="Reply with exactly: one two", stream=stream, max_tokens=50)
    parts = list(answer) if stream else [answer]
    assert "".join(part.choices[0].text for part in parts) == "one two"


def test_embeddings(sdk, lax):
    # The SDK asks for base64 unless told otherwise, and makes numbers of it.
    numbers = sdk.embeddings.create(model=MODEL, input=["one", "two"], encoding_format="float")
    decoded = lax.embeddings.create(model=MODEL, input=["one", "two"])
    for one, other in zip(numbers.data, decoded.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


def test_models(sdk):
    assert MODEL in [model.id for model in sdk.models.list()]
    assert sdk.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError):
        sdk.models.retrieve("no/such model")


def test_raw_answers_and_streams(sdk):
    raw = sdk.responses.with_raw_response.create(model=MODEL, input="Reply with exactly: x")
    assert raw.status_code == 200 and raw.headers["x-request-id"] == raw.request_id
    assert raw.parse().output_text == "x" and raw.parse()._request_id == raw.request_id
    raw = sdk.chat.completions.with_raw_response.create(
        model=MODEL, messages=[{"role": "user", "content": "Reply with exactly: x"}], store=True, user="u")
    made = raw.parse()
    assert "store" not in raw.headers.get("honshu-ignored", "")
    assert sdk.chat.completions.with_raw_response.retrieve(made.id).parse().id == made.id
    with sdk.responses.with_streaming_response.create(model=MODEL, input="Reply with exactly: x", stream=True) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line.startswith("data: {")]
    assert json.loads(lines[-1][6:])["type"] == "response.completed"


def test_what_can_be_tried_again_is_and_nothing_else(connect):
    for text, error, tries in (
        ("[scripted: fail-at=0 status=500]", openai.InternalServerError, 3),
        ("Answer with 9 words [scripted: cut-at=5]", openai.InternalServerError, 1),
    ):
        for call in ("responses", "chat"):
            seen = []
            sdk = connect(seen, max_retries=2)
            with pytest.raises(error) as failed:
                if call == "responses":
                    sdk.responses.create(model=MODEL, input=text)
                else:
                    chat(sdk, text)
            assert failed.value.request_id
            assert [sent.headers["x-stainless-retry-count"] for sent in seen] == [str(n) for n in range(tries)], (text, call)
    seen = []
    with pytest.raises(openai.BadRequestError):
        connect(seen, max_retries=2).responses.create(model=MODEL, input="x", temperature=3)
    assert len(seen) == 1


def test_a_locked_conversation_is_tried_again_until_it_is_free(connect, home):
    seen = []
    sdk = connect(seen, max_retries=20)
    made = sdk.conversations.create()
    slow = OpenAI(api_key=secret(home.key), base_url=home.url + "/v1", max_retries=0)
    stream = slow.responses.create(
        model=MODEL, input="Answer with 30 words [scripted: delay-ms=50]", conversation=made.id, stream=True)
    next(iter(stream))
    reader = threading.Thread(target=lambda: [None for _ in stream])
    reader.start()
    sent = len(seen)
    answer = sdk.responses.create(model=MODEL, input="Reply with exactly: free", conversation=made.id)
    reader.join()
    assert answer.output_text == "free" and len(seen) > sent
