"""Stored responses, conversations, background and files, with the official SDK and through restarts."""

import json
import signal
import time

import httpx
import openai
import pytest
from openai import OpenAI

from conftest import SCRIPTED, events_of, secret

MODEL = "honshu.scripted"


def client(honshu, **options):
    return OpenAI(api_key=secret(honshu.key), base_url=honshu.url + "/v1", max_retries=0,
                  _strict_response_validation=True, **options)


def until(read, done, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if done(value := read()):
            return value
        time.sleep(0.02)
    raise AssertionError(f"still {value}")


def test_a_chain_of_responses(shared):
    sdk = client(shared)
    first = sdk.responses.create(model=MODEL, input="Reply with exactly: one", metadata={"a": "b"})
    second = sdk.responses.create(model=MODEL, input="Reply with exactly: two", previous_response_id=first.id)
    assert second.usage.input_tokens > first.usage.input_tokens
    assert sdk.responses.retrieve(second.id) == second
    items = sdk.responses.input_items.list(second.id)
    assert [item.content[0].text for item in items] == ["Reply with exactly: two"]
    sdk.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        sdk.responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model=MODEL, input="x", previous_response_id=second.id)
    assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_conversations(shared):
    sdk = client(shared)
    made = sdk.conversations.create(metadata={"topic": "sea"}, items=[{"role": "user", "content": "first"}])
    response = sdk.responses.create(model=MODEL, input="Reply with exactly: second", conversation=made.id)
    assert response.conversation.id == made.id
    sdk.conversations.items.create(made.id, items=[{"type": "message", "role": "user", "content": "third"}])
    items = list(sdk.conversations.items.list(made.id, order="asc", limit=1))
    assert [item.content[0].text for item in items] == ["first", "Reply with exactly: second", "second", "third"]
    assert sdk.conversations.items.retrieve(items[0].id, conversation_id=made.id).id == items[0].id
    assert sdk.conversations.items.delete(items[0].id, conversation_id=made.id).id == made.id
    assert sdk.conversations.update(made.id, metadata={"x": "y"}).metadata == {"x": "y"}
    assert sdk.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        sdk.conversations.retrieve(made.id)


def test_a_stream_is_resumed_with_the_sdk(shared):
    sdk = client(shared)
    stream = sdk.responses.create(model=MODEL, input="Answer with 40 words [scripted: delay-ms=5]",
                                  background=True, stream=True)
    seen = []
    for event in stream:
        seen.append(event)
        if len(seen) == 10:
            break
    stream.close()
    response_id = seen[0].response.id
    rest = list(sdk.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number))
    numbers = [event.sequence_number for event in seen + rest]
    assert numbers == list(range(len(numbers)))
    assert rest[-1].type == "response.completed"
    with sdk.responses.stream(response_id=response_id, starting_after=5) as again:
        assert again.get_final_response().output_text == rest[-1].response.output_text


def test_a_background_response_is_polled_and_cancelled(shared):
    sdk = client(shared)
    queued = sdk.responses.create(model=MODEL, input="Reply with exactly: done", background=True)
    assert queued.status == "queued"
    done = until(lambda: sdk.responses.retrieve(queued.id), lambda found: found.status == "completed")
    assert done.output_text == "done"
    slow = sdk.responses.create(model=MODEL, input="Answer with 9000 words [scripted: delay-ms=50]", background=True)
    assert sdk.responses.cancel(slow.id).status == "cancelled"
    assert sdk.responses.cancel(slow.id).status == "cancelled"
    with pytest.raises(openai.BadRequestError):
        sdk.responses.cancel(sdk.responses.create(model=MODEL, input="x").id)


def test_background_responses_survive_a_kill(scripted):
    """Finished ones are there, one that was silent runs again, one that had spoken has failed, none is stuck."""
    sdk = client(scripted)
    ask = lambda text: sdk.responses.create(model=MODEL, input=text, background=True)
    finished = ask("Reply with exactly: kept")
    until(lambda: sdk.responses.retrieve(finished.id), lambda found: found.status == "completed")
    silent = ask("Reply with exactly: again [scripted: first-ms=1500]")
    spoken = sdk.responses.create(model=MODEL, input="Answer with 9000 words [scripted: delay-ms=20]",
                                  background=True, stream=True)
    seen = []
    for event in spoken:
        seen.append(event.to_dict())
        if len(seen) > 20:
            break
    spoken_id = seen[0]["response"]["id"]
    port = int(scripted.url.rsplit(":", 1)[1])
    scripted.stop(signal.SIGKILL)
    scripted.start(SCRIPTED.format(port=port), port=port)
    assert sdk.responses.retrieve(finished.id).output_text == "kept"
    failed = until(lambda: sdk.responses.retrieve(spoken_id), lambda found: found.status not in ("queued", "in_progress"))
    assert failed.status == "failed" and "stopped" in failed.error.message
    again = until(lambda: sdk.responses.retrieve(silent.id), lambda found: found.status not in ("queued", "in_progress"))
    assert (again.status, again.output_text) == ("completed", "again")
    # What a reader had seen before the kill is there again, and it goes on with the next number.
    # The SDK turns an event that says why into an exception; the stream itself goes on to its end.
    headers = {"authorization": f"Bearer {secret(scripted.key)}"}
    answer = httpx.get(f"{scripted.url}/v1/responses/{spoken_id}?stream=true", headers=headers, timeout=60)
    events = [event for event in events_of(answer.text) if event != "[DONE]"]
    assert events[:len(seen)] == seen
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[-1]["type"] == "response.failed"


def test_stored_chat_completions_survive_a_kill_and_those_of_callers_that_left_are_not_kept(scripted):
    sdk = client(scripted)
    ask = lambda text, **more: sdk.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": text}], store=True, **more)
    whole = ask("Reply with exactly: kept")
    chunks = list(ask("Reply with exactly: kept too", stream=True))
    left = ask("Answer with 9000 words [scripted: delay-ms=20]", stream=True)
    next(iter(left))
    left.close()
    until(lambda: [row for row in scripted.usage_rows() if row["status"] == "cancelled"], lambda rows: len(rows) == 1)
    port = int(scripted.url.rsplit(":", 1)[1])
    scripted.stop(signal.SIGKILL)
    scripted.start(SCRIPTED.format(port=port), port=port)
    found = [(one.id, one.choices[0].message.content) for one in sdk.chat.completions.list()]
    assert found == [(whole.id, "kept"), (chunks[0].id, "kept too")]
    assert sdk.chat.completions.delete(whole.id).deleted
    assert [one.id for one in sdk.chat.completions.list()] == [chunks[0].id]


def test_background_responses_wait_for_the_next_start(scripted):
    sdk = client(scripted)
    waiting = sdk.responses.create(
        model=MODEL, input="Reply with exactly: later [scripted: first-ms=60000]", background=True)
    sdk.responses.create(model=MODEL, input="x")
    port = int(scripted.url.rsplit(":", 1)[1])
    scripted.stop(signal.SIGKILL)
    config = SCRIPTED.format(port=port) + "\n[limits]\nresponse_retention_hours = 1\n"
    scripted.start(config, port=port)
    assert sdk.responses.retrieve(waiting.id).status in ("queued", "in_progress")
    assert sdk.responses.cancel(waiting.id).status == "cancelled"


def test_compaction_in_a_response_and_by_itself(shared):
    sdk = client(shared)
    body = {"model": MODEL, "store": False, "stream": True, "include": ["reasoning.encrypted_content"], "input": [
        {"role": "user", "content": "My name is Alice."}, {"type": "compaction_trigger"}]}
    headers = {"authorization": f"Bearer {secret(shared.key)}"}
    answer = httpx.post(shared.url + "/v1/responses", json=body, headers=headers)
    events = [json.loads(line[6:]) for line in answer.text.split("\n") if line.startswith("data: {")]
    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert [item["type"] for item in done] == ["compaction"]
    assert events[-1]["type"] == "response.completed" and events[-1]["response"]["output"] == done
    following = [*done, {"role": "user", "content": "Reply with exactly: on"}]
    assert sdk.responses.create(model=MODEL, input=following).output_text == "on"
    altered = done[0]["encrypted_content"][:-4] + "AAAA"
    with pytest.raises(openai.BadRequestError) as refused:
        sdk.responses.create(model=MODEL, input=[done[0] | {"encrypted_content": altered}])
    assert refused.value.param == "input[0].encrypted_content"
    # The SDK's own types know no users' messages in an output, which OpenAI sends as well.
    lax = OpenAI(api_key=secret(shared.key), base_url=shared.url + "/v1")
    compacted = lax.responses.compact(model=MODEL, input=[{"role": "user", "content": "hello"}])
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert sdk.responses.input_tokens.count(model=MODEL, input="one two").input_tokens == 5


def test_sealed_reasoning_is_taken_again(shared):
    sdk = client(shared)
    response = sdk.responses.create(
        model=MODEL, input="hi", store=False, reasoning={"effort": "low"}, include=["reasoning.encrypted_content"])
    reasoning = next(item for item in response.output if item.type == "reasoning")
    assert reasoning.encrypted_content
    again = sdk.responses.create(model=MODEL, store=False, input=[
        {"role": "user", "content": "hi"}, *[item.to_dict() for item in response.output],
        {"role": "user", "content": "Reply with exactly: fine"}])
    assert again.output_text == "fine"


@pytest.fixture
def with_files(scripted):
    scripted.run("policy", "create", "--compartment", "root", "--name", "files", "--statement",
                 "allow any-user to manage generative-ai-file in tenancy")
    return scripted


def test_files(with_files):
    sdk = client(with_files)
    file = sdk.files.create(file=("notes.txt", b"The password is melon."), purpose="user_data")
    assert (file.filename, file.bytes, file.purpose) == ("notes.txt", 22, "user_data")
    assert sdk.files.retrieve(file.id) == file
    assert sdk.files.content(file.id).read() == b"The password is melon."
    assert [found.id for found in sdk.files.list(purpose="user_data")] == [file.id]
    ask = lambda file_id, text: sdk.responses.create(model=MODEL, input=[{"role": "user", "content": [
        {"type": "input_file", "file_id": file_id}, {"type": "input_text", "text": text}]}])
    short = sdk.responses.create(model=MODEL, input="Reply with exactly: read")
    response = ask(file.id, "Reply with exactly: read")
    assert response.output_text == "read"
    assert response.usage.input_tokens > short.usage.input_tokens, "the text is in the prompt"
    binary = sdk.files.create(file=("a.bin", b"\x00\x01\x02\xff"), purpose="user_data")
    with pytest.raises(openai.BadRequestError) as refused:
        ask(binary.id, "x")
    assert "a.bin" in refused.value.message
    assert sdk.files.delete(file.id).deleted
    for call in (lambda: sdk.files.retrieve(file.id), lambda: sdk.files.content(file.id), lambda: sdk.files.delete(file.id)):
        with pytest.raises(openai.NotFoundError):
            call()
    with pytest.raises(openai.BadRequestError) as gone:
        ask(file.id, "x")
    assert gone.value.param == "input[0].content[0].file_id"
    with pytest.raises(openai.BadRequestError):
        sdk.files.create(file=b"x", purpose="nonsense")


def test_files_need_a_policy(shared):
    with pytest.raises(openai.NotFoundError):
        client(shared).files.create(file=b"x", purpose="user_data")
