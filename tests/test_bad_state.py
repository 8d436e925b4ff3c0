"""Bad input to what is stored, to tools, images and the WebSocket: each a 4xx that names its place, none a 5xx."""

import base64
import json
import struct
import threading
import zlib

import httpx
import pytest
from websockets.sync.client import connect

from conftest import SMALL_MODEL, free_port, secret

MODEL = "honshu.scripted"
OTHER = "ocid1.generativeaiproject.oc1..aaaaother"
OPENAI = ("message", "type", "param", "code")


class Caller:
    def __init__(self, home, key=None, **headers):
        self.home = home
        headers = {"authorization": f"Bearer {secret(key or home.key)}"} | headers
        self.client = httpx.Client(base_url=home.url + "/v1", headers=headers, timeout=60)

    def ok(self, method, path, body=None, **options):
        answer = self.client.request(method, path, json=body, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def make(self, body):
        return self.ok("POST", "/responses", {"model": MODEL, "input": "Reply with exactly: x"} | body)

    def refused(self, method, path, body=None):
        """The status and the error; never a 5xx, and in the shape of the plane."""
        answer = self.client.request(method, path, json=body)
        assert 400 <= answer.status_code < 500, (path, answer.status_code, answer.text[:500])
        error = answer.json()["error"]
        assert set(error) == set(OPENAI) and len(error["message"]) < 10_000
        return answer.status_code, error


@pytest.fixture(scope="module")
def home(shared):
    shared.run("policy", "create", "--compartment", "root", "--name", "files", "--statement",
               "allow any-user to manage generative-ai-file in tenancy where request.principal.type = 'generativeaiapikey'")
    return shared


@pytest.fixture(scope="module")
def caller(home):
    return Caller(home)


@pytest.fixture(scope="module")
def strangers(home):
    """Callers who may chat, and own nothing of the first one's: another project, another compartment."""
    home.run("compartment", "create", "--name", "elsewhere")
    key = home.make_key("elsewhere", name="stranger")
    return [Caller(home, **{"openai-project": OTHER}), Caller(home, key=key)]


def upload(caller, content=b"secret", name="a.txt"):
    answer = caller.client.post("/files", files={"file": (name, content)}, data={"purpose": "user_data"})
    assert answer.status_code == 200, answer.text
    return answer.json()["id"]


def with_file(file_id):
    return [{"role": "user", "content": [{"type": "input_file", "file_id": file_id}]}]


def test_what_is_somebody_elses_is_answered_as_what_never_was(caller, strangers):
    response = caller.make({})["id"]
    item = caller.ok("GET", f"/responses/{response}/input_items")["data"][0]["id"]
    conversation = caller.ok("POST", "/conversations", {"items": [{"role": "user", "content": "x"}]})["id"]
    inner = caller.ok("GET", f"/conversations/{conversation}/items")["data"][0]["id"]
    file = upload(caller)
    completion = caller.ok("POST", "/chat/completions", {
        "model": MODEL, "store": True, "messages": [{"role": "user", "content": "x"}]})["id"]
    body = {"model": MODEL, "input": "x"}
    # What is asked with somebody else's id, the id, and the answer.
    table = [
        ("POST", "/responses", body | {"previous_response_id": "ID"}, response, 400, "previous_response_id"),
        ("POST", "/responses/input_tokens", body | {"previous_response_id": "ID"}, response, 400, "previous_response_id"),
        ("POST", "/responses/compact", {"model": MODEL, "previous_response_id": "ID"}, response, 400, "previous_response_id"),
        ("POST", "/responses", body | {"previous_response_id": "ID", "background": True}, response, 400, "previous_response_id"),
        ("POST", "/responses", body | {"conversation": "ID"}, conversation, 404, "conversation"),
        ("POST", "/responses", body | {"input": [{"type": "item_reference", "id": "ID"}]}, item, 400, "input[0].id"),
        ("POST", "/responses", body | {"input": with_file("ID")}, file, 400, "input[0].content[0].file_id"),
        ("GET", "/responses/ID", None, response, 404, None),
        ("GET", "/responses/ID?stream=true", None, response, 404, None),
        ("GET", "/responses/ID/input_items", None, response, 404, None),
        ("POST", "/responses/ID/cancel", None, response, 404, None),
        ("DELETE", "/responses/ID", None, response, 404, None),
        ("GET", "/conversations/ID", None, conversation, 404, None),
        ("POST", "/conversations/ID", {"metadata": {}}, conversation, 404, None),
        ("DELETE", "/conversations/ID", None, conversation, 404, None),
        ("GET", "/conversations/ID/items", None, conversation, 404, None),
        ("POST", "/conversations/ID/items", {"items": [{"role": "user", "content": "x"}]}, conversation, 404, None),
        ("GET", f"/conversations/ID/items/{inner}", None, conversation, 404, None),
        ("DELETE", f"/conversations/{conversation}/items/ID", None, inner, 404, None),
        ("GET", "/files/ID", None, file, 404, None),
        ("GET", "/files/ID/content", None, file, 404, None),
        ("DELETE", "/files/ID", None, file, 404, None),
        ("GET", "/chat/completions/ID", None, completion, 404, None),
        ("POST", "/chat/completions/ID", {"metadata": {}}, completion, 404, None),
        ("DELETE", "/chat/completions/ID", None, completion, 404, None),
        ("GET", "/chat/completions/ID/messages", None, completion, 404, None),
    ]
    for stranger in strangers:
        for method, path, asked, real, status, param in table:
            seen = []
            for named in (real, real[:-4] + "zzzz"):
                filled = json.loads(json.dumps(asked).replace('"ID"', json.dumps(named)))
                found, error = stranger.refused(method, path.replace("ID", named), filled)
                seen.append((found, error | {"message": error["message"].replace(named, "ID")}))
            assert seen[0] == seen[1], (method, path)
            assert (seen[0][0], seen[0][1]["param"]) == (status, param), (method, path, seen[0])
            if param == "previous_response_id":
                assert seen[0][1]["code"] == "previous_response_not_found"
    assert caller.ok("GET", f"/responses/{response}")["id"] == response


def test_a_chain_with_a_deleted_link(caller):
    first = caller.make({})
    second = caller.make({"previous_response_id": first["id"]})
    third = caller.make({"previous_response_id": second["id"]})
    caller.ok("DELETE", f"/responses/{second['id']}")
    for gone in (second, third):
        status, error = caller.refused("POST", "/responses", {
            "model": MODEL, "input": "x", "previous_response_id": gone["id"]})
        assert (status, error["code"], error["param"]) == (400, "previous_response_not_found", "previous_response_id")
    assert caller.make({"previous_response_id": first["id"]})["status"] == "completed"


def test_a_conversation_that_a_running_response_holds(caller):
    conversation = caller.ok("POST", "/conversations", {})["id"]
    body = {"model": MODEL, "input": "Answer with 9000 words [scripted: delay-ms=50]", "conversation": conversation}
    with caller.client.stream("POST", "/responses", json=body | {"stream": True}) as running:
        # The reader is kept: without it the stream would be closed, and the conversation free.
        reader = running.iter_bytes()
        next(reader)
        for method, path, asked in (
            ("POST", "/responses", {"model": MODEL, "input": "x", "conversation": conversation}),
            ("POST", "/responses", {"model": MODEL, "input": "x", "conversation": conversation, "background": True}),
            ("POST", f"/conversations/{conversation}/items", {"items": [{"role": "user", "content": "x"}]}),
            ("DELETE", f"/conversations/{conversation}", None),
        ):
            status, error = caller.refused(method, path, asked)
            assert (status, error["code"], error["param"]) == (409, "conversation_locked", "conversation"), path
        assert caller.ok("GET", f"/conversations/{conversation}")["id"] == conversation
        assert next(reader)


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 9)) + chunk(b"IEND", b"")


def data_url(content, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


BAD_IMAGES = [
    "", "nonsense", "file:///etc/passwd", "data:", "data:image/png;base64,", "data:image/png;base64,%%%",
    "data:image/png,abc", "data:text/html;base64,PGI+", data_url(b"this is no image"), data_url(b"MZ" * 1000, "image/jpeg"),
    data_url(png(50_000, 50_000)), data_url(png(2**31, 2**31)), data_url(b"GIF89a\xff\xff\xff\xff", "image/gif"),
]


def test_images_that_are_none_or_bombs(caller):
    for url in BAD_IMAGES:
        for path, body, param in (
            ("/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": url}]}]},
             "input[0].content[0].image_url"),
            ("/chat/completions", {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]},
             "messages[0].content[0].image_url.url"),
        ):
            status, error = caller.refused("POST", path, {"model": MODEL} | body)
            assert (status, error["param"]) == (400, param), url[:80]
    good = {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": data_url(png(3, 3))}]}]}
    caller.make(good)
    for content, name in ((png(50_000, 50_000), "bomb.png"), (b"\0\1\2\xff" * 10, "a.bin"), (b"x" * (3 << 20), "long.txt")):
        file_id = upload(caller, content, name)
        status, error = caller.refused("POST", "/responses", {"model": MODEL, "input": with_file(file_id)})
        assert (status, error["param"]) == (400, "input[0].content[0].file_id") and name in error["message"]


def test_tool_outputs_that_answer_no_call(caller):
    call = {"type": "function_call", "call_id": "a", "name": "f", "arguments": "{}"}
    output = lambda call_id: {"type": "function_call_output", "call_id": call_id, "output": "1"}
    previous = caller.make({})["id"]
    for body, param in (
        ({"input": [output("a")]}, "input[0].call_id"),
        ({"input": [call, output("b")]}, "input[1].call_id"),
        ({"input": [output("a"), {"role": "user", "content": "x"}], "previous_response_id": previous}, "input[0].call_id"),
        ({"input": [output("")], "previous_response_id": previous}, "input[0].call_id"),
    ):
        status, error = caller.refused("POST", "/responses", {"model": MODEL} | body)
        assert (status, error["param"]) == (400, param), body


def nested(levels):
    schema = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"], "additionalProperties": False}
    return schema


# Schemas, and whether one may be answered all the same.
SCHEMAS = [
    (5, False), ("x", False), ([], False), (None, False),
    ({"type": "nonsense"}, False),
    ({"type": "object", "properties": []}, False),
    ({"type": "object", "properties": {"a": {"type": 7}}}, False),
    ({"$ref": "#/$defs/nothing"}, False),
    ({"$ref": "https://example.org/schema.json"}, False),
    ({"$ref": "#"}, False),
    ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, False),
    ({"type": "string", "pattern": "(((("}, False),
    ({"type": "string", "enum": []}, False),
    ({"type": "array", "items": {"type": "string"}, "minItems": 10**12}, True),
    ({"type": "string", "pattern": "(a{1000}){1000}"}, True),
    ({"$defs": {"n": {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]}},
                      "required": ["next"], "additionalProperties": False}}, "$ref": "#/$defs/n"}, True),
    (nested(60), True), (nested(200), False),
    ({"type": "string", "enum": [f"word{n}" for n in range(100_000)]}, True),
    ({"type": "object", "properties": {f"p{n}": {"type": "string"} for n in range(20_000)}, "additionalProperties": False}, True),
]


def check_schemas(caller, model):
    for schema, may_pass in SCHEMAS:
        text = {"format": {"type": "json_schema", "name": "n", "strict": True, "schema": schema}}
        tool = {"type": "function", "name": "f", "strict": True, "parameters": schema}
        shown = json.dumps(schema)[:100]
        for path, body, place in (
            ("/responses", {"input": "x", "max_output_tokens": 16, "text": text}, "text.format"),
            ("/responses", {"input": "x", "max_output_tokens": 16, "tools": [tool], "tool_choice": "required"}, "tools[0]"),
            ("/chat/completions", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 16,
                                   "response_format": {"type": "json_schema", "json_schema": text["format"] | {"type": None}}},
             "response_format"),
        ):
            answer = caller.client.post(path, json={"model": model} | body)
            assert answer.status_code < 500, (path, shown, answer.text[:300])
            if answer.status_code == 200:
                # Whether a schema makes sense is the backend's to say; the scripted model fills what it can.
                assert may_pass or model == MODEL or schema is None, (path, shown, answer.text[:300])
            else:
                assert answer.status_code == 400, (path, shown, answer.text[:300])
                param = answer.json()["error"]["param"]
                assert param and (param.startswith(place) or model == MODEL), (path, shown, param)


def test_schemas_that_are_invalid_recursive_or_huge(caller):
    check_schemas(caller, MODEL)


def test_schemas_that_the_engine_would_have_to_enforce(honshu_with_model):
    port = free_port()
    honshu_with_model.start(f'[server]\nlisten = "127.0.0.1:{port}"\n', port=port)
    honshu_with_model.key = honshu_with_model.make_key()
    caller = Caller(honshu_with_model)
    check_schemas(caller, SMALL_MODEL)
    many = [{"type": "function", "name": f"tool{n}", "parameters": {"type": "object", "properties": {}}} for n in range(10_000)]
    status, error = caller.refused("POST", "/responses", {"model": SMALL_MODEL, "input": "x", "tools": many})
    assert status == 400 and error["param"], error
    status, error = caller.refused("POST", "/responses", {
        "model": SMALL_MODEL, "input": "x", "tools": many, "tool_choice": "required"})
    assert status == 400 and error["param"], error
    assert caller.client.post("/responses", json={
        "model": SMALL_MODEL, "input": "x", "max_output_tokens": 4}).status_code == 200


def test_ten_thousand_tools(caller):
    tool = lambda n: {"type": "function", "name": f"tool{n}", "parameters": {"type": "object", "properties": {}}}
    many = [tool(n) for n in range(10_000)]
    nested = [{"type": "function", "function": {"name": f"tool{n}"}} for n in range(10_000)]
    for path, body in (
        ("/responses", {"input": "x", "tools": many}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "x"}], "tools": nested}),
        ("/messages", {"messages": [{"role": "user", "content": "x"}], "max_tokens": 9,
                       "tools": [{"name": f"tool{n}", "input_schema": {"type": "object"}} for n in range(10_000)]}),
        ("/chat/completions", {"messages": [{"role": "user", "content": "x"}], "functions": [one["function"] for one in nested]}),
    ):
        if path == "/messages":
            # The dialect's errors name the place in their text.
            answer = caller.client.post(path, json={"model": MODEL} | body)
            assert answer.status_code == 400 and "tools" in answer.json()["error"]["message"]
            continue
        status, error = caller.refused("POST", path, {"model": MODEL} | body)
        assert status == 400 and error["param"] in ("tools", "functions"), error
    for wrong, param in (
        (many[:2] + [{"type": "function"}], "tools[2].name"),
        ([{"type": "function", "name": "f", "parameters": 5}], "tools[0].parameters"),
    ):
        status, error = caller.refused("POST", "/responses", {"model": MODEL, "input": "x", "tools": wrong})
        assert (status, error["param"]) == (400, param)


def test_websocket_frames_out_of_order(home):
    url = home.url.replace("http", "ws", 1) + "/v1/responses"
    headers = {"authorization": f"Bearer {secret(home.key)}"}
    good = {"type": "response.create", "model": MODEL, "input": "Reply with exactly: fine"}
    for frame, param in (
        ("", None), ("[]", None), ("{", None), (b"\0\1", None),
        ({}, "type"), ({"type": "response.cancel"}, "type"), ({"type": 5}, "type"), ({"type": "response.created"}, "type"),
        ({"type": "response.create"}, "model"), (good | {"input": 5}, "input"),
        (good | {"previous_response_id": "resp_nothing"}, "previous_response_id"),
        (good | {"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "input[0].call_id"),
        (good | {"stream_id": 5}, "stream_id"),
        (good | {"background": True}, "background"),
    ):
        with connect(url, additional_headers=headers) as socket:
            socket.send(frame if isinstance(frame, (str, bytes)) else json.dumps(frame))
            answer = json.loads(socket.recv(timeout=30))
            assert answer["type"] == "error" and 400 <= answer["status"] < 500, (frame, answer)
            assert param is None or answer["error"]["param"] == param, (frame, answer)
            # The connection lives and takes the next turn.
            socket.send(json.dumps(good))
            events = []
            while not events or events[-1]["type"] not in ("response.completed", "error"):
                events.append(json.loads(socket.recv(timeout=30)))
            assert events[-1]["type"] == "response.completed", frame


def test_more_turns_than_may_wait_end_the_connection_and_nothing_else(home):
    url = home.url.replace("http", "ws", 1) + "/v1/responses"
    headers = {"authorization": f"Bearer {secret(home.key)}"}
    slow = json.dumps({"type": "response.create", "model": MODEL, "input": "Answer with 9000 words [scripted: delay-ms=50]"})
    with pytest.raises(Exception), connect(url, additional_headers=headers) as socket:
        for _ in range(40):
            socket.send(slow)
        while True:
            socket.recv(timeout=30)
    assert Caller(home).make({})["status"] == "completed"


def test_many_callers_with_bad_input_leave_a_server_that_is_well(caller, home):
    def ask():
        for url in BAD_IMAGES[:4]:
            caller.refused("POST", "/responses", {"model": MODEL, "input": [
                {"role": "user", "content": [{"type": "input_image", "image_url": url}]}]})
    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert caller.make({})["status"] == "completed"
    log = (home.data_dir / "server.log").read_text()
    assert "panicked" not in log and '"level":"ERROR"' not in log
