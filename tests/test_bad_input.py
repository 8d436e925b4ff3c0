"""Requests that must be refused, over the wire and in both dialects: 400 or 413 with the JSON path, never a 5xx."""

import json
import socket

import httpx
import pytest

from conftest import DIALECTS, SMALL_MODEL, body_of, free_port, secret

# What stands beside a good model and input, and the path at fault.
BOTH = [
    ('"temperature": "hot"', "temperature"),
    ('"temperature": -1', "temperature"),
    ('"temperature": 2.5', "temperature"),
    ('"temperature": 1e400', "temperature"),
    ('"temperature": -1e400', "temperature"),
    ('"temperature": NaN', "temperature"),
    ('"temperature": Infinity', "temperature"),
    ('"temperature": true', "temperature"),
    ('"temperature": {"a": 1}', "temperature"),
    ('"top_p": 1.0001', "top_p"),
    ('"top_p": -0.5', "top_p"),
    ('"top_k": 123456789012345678901234567890', "top_k"),
    ('"seed": 1e300', "seed"),
    ('"seed": 1.5', "seed"),
    ('"frequency_penalty": -3', "frequency_penalty"),
    ('"presence_penalty": "x"', "presence_penalty"),
    ('"stream": 1', "stream"),
    ('"stream": "true"', "stream"),
    ('"tools": "all"', "tools"),
    ('"tools": [null]', "tools[0]"),
    ('"tools": [{}]', "tools[0].type"),
    ('"tool_choice": 3', "tool_choice"),
    ('"top_logprobs": -1', "top_logprobs"),
    ('"top_logprobs": 1000000', "top_logprobs"),
    ('"model": "again"', "model"),
    ('"x": {"a": 1, "b": 2, "a": 3}', "x.a"),
    ('"x": [[{"k": 1, "k": 1}]]', "x[0][0].k"),
    ('"x": ["\\ud800"]', "x[0]"),
    ('"x": "\\udc00\\ud800"', "x"),
    ('"x": {"\\ud83d": 1}', "x"),
    ('"x": 1e999', "x"),
]
ONE = {
    "responses": [
        ('"max_output_tokens": 0', "max_output_tokens"),
        ('"max_output_tokens": -1', "max_output_tokens"),
        ('"max_output_tokens": 99999999999999999999', "max_output_tokens"),
        ('"max_output_tokens": "many"', "max_output_tokens"),
        ('"instructions": 7', "instructions"),
        ('"text": {"format": {"type": "yaml"}}', "text.format.type"),
        ('"text": {"format": {"type": "json_schema", "name": "n", "schema": 5}}', "text.format.schema"),
        ('"reasoning": "much"', "reasoning"),
        ('"background": 1', "background"),
        ('"metadata": {"k": 1}', "metadata.k"),
        ('"previous_response_id": 5', "previous_response_id"),
    ],
    "chat": [
        ('"max_tokens": 0', "max_tokens"),
        ('"max_completion_tokens": -7', "max_completion_tokens"),
        ('"max_completion_tokens": 4294967296', "max_completion_tokens"),
        ('"n": 0', "n"),
        ('"n": 1000000', "n"),
        ('"n": "2"', "n"),
        ('"stop": ["a", "b", "c", "d", "e"]', "stop"),
        ('"stop": [null]', "stop[0]"),
        ('"logit_bias": {"1": 200}', "logit_bias.1"),
        ('"response_format": {"type": "json_schema"}', "response_format.json_schema"),
        ('"response_format": 1', "response_format"),
        ('"stream_options": []', "stream_options"),
    ],
}
# The whole input, and the path at fault.
INPUTS = {
    "responses": [
        ('""', "input"), ("[]", "input"), ("null", "input"), ("5", "input"), ("true", "input"), ("[5]", "input[0]"),
        ("[{}]", "input[0].type"), ('[{"role": "user"}]', "input[0].content"),
        ('[{"role": "king", "content": "x"}]', "input[0].role"),
        ('[{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "input_text"}]}]', "input[1].content[0].text"),
        ('[{"type": "function_call_output", "call_id": "c", "output": "x"}]', "input[0].call_id"),
        ('"\\ud83d"', "input"), ('"\\udc00"', "input"),
    ],
    "chat": [
        ("[]", "messages"), ("null", "messages"), ('"hi"', "messages"), ("{}", "messages"), ("[1]", "messages[0]"),
        ("[[]]", "messages[0]"), ('[{"content": "x"}]', "messages[0].role"), ('[{"role": "user"}]', "messages[0].content"),
        ('[{"role": "user", "content": 7}]', "messages[0].content"),
        ('[{"role": "user", "content": [{"type": "text"}]}]', "messages[0].content[0].text"),
        ('[{"role": "user", "content": "\\ud83d"}]', "messages[0].content"),
        ('[{"role": "tool", "content": "x"}]', "messages[0].tool_call_id"),
    ],
}
# Whole bodies that are no JSON object.
BODIES = [b"", b" ", b"\n", b"null", b"[]", b"1", b'"x"', b"{", b"}", b"{}}", b"{'model': 'x'}", b'{"model"}', b"\xff\xfe{",
          b'{"model": "\xc3"}', b'{"a": "\x01"}', b"\x00", b'{"a": tru}', b'{"a": 01}', b'{"a": +1}', b'{"a": .5}', b'{"a": 1,}',
          b"\xef\xbb\xbf[]", b"{" * 100_000, b"[" * 1_000_000]


def good(dialect):
    """The inside of a good body, without its braces."""
    return json.dumps(body_of(dialect, "hi"))[1:-1]


class Caller:
    def __init__(self, home):
        self.client = httpx.Client(
            base_url=home.url, timeout=60,
            headers={"authorization": f"Bearer {secret(home.key)}", "content-type": "application/json"})

    def post(self, dialect, body):
        body = body.encode() if isinstance(body, str) else body
        return self.client.post(DIALECTS[dialect], content=body)


@pytest.fixture(scope="module")
def caller(shared):
    return Caller(shared)


def problem(response, status=400):
    """The error object of a refusal, in both of its shapes."""
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "code", "message"} and set(body["error"]) == {"message", "type", "param", "code"}
    assert body["code"] == str(status) and body["message"] == body["error"]["message"]
    assert body["error"]["type"] == "invalid_request_error"
    assert response.headers["x-request-id"] and response.headers["opc-request-id"]
    return body["error"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_fields_out_of_type_or_range(caller, dialect):
    for extra, path in BOTH + ONE[dialect]:
        found = problem(caller.post(dialect, f"{{{good(dialect)}, {extra}}}"))
        assert found["param"] == path, extra
        # The message names the path as well, for those who read only that.
        assert path.split(".")[0].split("[")[0] in found["message"], (extra, found)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_inputs_of_the_wrong_form(caller, dialect):
    name = "input" if dialect == "responses" else "messages"
    for value, path in INPUTS[dialect]:
        found = problem(caller.post(dialect, f'{{"model": "honshu.scripted", "{name}": {value}}}'))
        assert found["param"] == path, value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_missing_model_or_input_is_named(caller, dialect):
    name = "input" if dialect == "responses" else "messages"
    assert problem(caller.post(dialect, "{}"))["param"] == "model"
    assert problem(caller.post(dialect, '{"model": "honshu.scripted"}'))["param"] == name
    for model in ("null", "5", '""', "[]"):
        assert problem(caller.post(dialect, f'{{{good(dialect)[good(dialect).index(",") + 1:]}, "model": {model}}}'))["param"] == "model"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_bodies_that_are_no_object(caller, dialect):
    for body in BODIES:
        found = problem(caller.post(dialect, body))
        assert found["message"], body[:20]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_depth(caller, dialect):
    def nested(levels, opening="[", closing="]"):
        return f'{{{good(dialect)}, "x": {opening * levels}{closing * levels}}}'

    # The body itself is the first level.
    assert caller.post(dialect, nested(120)).status_code == 200
    for levels in (128, 1_000, 100_000):
        found = problem(caller.post(dialect, nested(levels)))
        assert "128" in found["message"] or "deep" in found["message"], found
    problem(caller.post(dialect, f'{{{good(dialect)}, "x": {"{" + chr(34) + "a" + chr(34) + ":"}' + '{"a":' * 200 + "1" + "}" * 201 + "}"))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_body_of_11_mb_is_too_large(caller, shared, dialect):
    body = json.dumps(body_of(dialect, "x" * (11 * 1024 * 1024)))
    assert "10485760" in problem(caller.post(dialect, body), 413)["message"]

    # Without a length the bytes are counted as they come.
    def pieces():
        for at in range(0, len(body), 65536):
            yield body[at:at + 65536].encode()

    answer = httpx.post(shared.url + DIALECTS[dialect], content=pieces(), headers=caller.client.headers, timeout=60)
    assert answer.status_code == 413
    # A length that is announced and never sent costs nobody a wait.
    with socket.create_connection(("127.0.0.1", httpx.URL(shared.url).port), timeout=10) as raw:
        raw.sendall((
            f"POST {DIALECTS[dialect]} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {secret(shared.key)}\r\n"
            "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n").encode())
        assert raw.recv(4096).startswith(b"HTTP/1.1 413 ")
    # And 9 MB are no problem at all.
    assert caller.post(dialect, json.dumps(body_of(dialect, "x" * (9 * 1024 * 1024)))).status_code == 200


@pytest.mark.parametrize("dialect", DIALECTS)
def test_content_types_and_encodings(caller, shared, dialect):
    body = json.dumps(body_of(dialect, "hi"))
    for kind in ("image/png", "multipart/form-data; boundary=x", "application/xml"):
        assert problem(caller.client.post(DIALECTS[dialect], content=body, headers={"content-type": kind}), 415)
    squeezed = caller.client.post(DIALECTS[dialect], content=body, headers={"content-encoding": "gzip"})
    assert squeezed.status_code == 415
    # `curl -d` says form data and means JSON.
    form = caller.client.post(DIALECTS[dialect], content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert form.status_code == 200


def test_a_long_list_of_problems_is_bounded(caller):
    body = '{"model": "m", "messages": [' + "0," * 10_000 + "0]}"
    found = problem(caller.post("chat", body))
    assert found["param"] == "messages[0]" and len(found["message"]) < 10_000


def test_unknown_paths_and_methods(shared):
    for path, status in [("/nothing", 404), ("/v1/nothing", 404), ("/v1/responses/../models", 404), ("/20231130/nothing", 404)]:
        assert httpx.get(shared.url + path).status_code in (status, 401), path
    assert httpx.put(shared.url + "/v1/responses").status_code == 405
    assert httpx.delete(shared.url + "/v1/chat/completions").status_code == 405


def test_a_server_that_was_fed_all_of_this_is_well(caller, shared):
    assert shared.ask("Reply with exactly: fine").json()["output"][0]["content"][0]["text"] == "fine"
    log = (shared.data_dir / "server.log").read_text()
    assert "panicked" not in log and '"level":"ERROR"' not in log


def test_a_prompt_that_is_longer_than_the_context_names_both_numbers(honshu_with_model):
    honshu = honshu_with_model
    port = free_port()
    honshu.start(f'[server]\nlisten = "127.0.0.1:{port}"\n[engine]\ncontext_tokens = 512\n', port=port)
    honshu.key = honshu.make_key()
    for dialect in DIALECTS:
        for streams in (False, True):
            answer = honshu.ask("word " * 3000, dialect=dialect, model=SMALL_MODEL, stream=streams)
            found = problem(answer)
            assert found["code"] == "context_length_exceeded"
            numbers = [int(word) for word in found["message"].replace(",", "").split() if word.isdigit()]
            assert 512 in numbers and any(3000 <= number < 3200 for number in numbers), found["message"]
    # What fits is answered.
    assert honshu.ask("word " * 300, model=SMALL_MODEL, max_output_tokens=2).status_code == 200
