"""Holds answers of the real binary against its own OpenAPI document, as the in-process tests do."""

import json

import httpx
import httpx2
import jsonschema_rs
import websockets.asyncio.client
import websockets.sync.client

BASES = ("/20231130/actions/v1/", "/openai/v1/", "/20231130/openai/v1/", "/v1/")


class Judge:
    def __init__(self, document: dict):
        self.document = document
        self.validators = {}
        # What was held against the document, so that a test can say that nothing escaped.
        self.seen = []
        self.kinds = set()

    def template(self, path: str):
        """The path of the document that a request's path means, or None."""
        base = next((base for base in BASES if path.startswith(base)), "/")
        below = "/" + path.removeprefix(base)
        if below.startswith("/models/") and below != "/models/":
            # A model's name may hold slashes.
            return "/models/{id}"
        given = below.split("/")
        matching = [
            template for template in self.document["paths"]
            if len(parts := template.split("/")) == len(given)
            and all(part == word or part.startswith("{") and word for part, word in zip(parts, given))
        ]
        return min(matching, key=lambda template: template.count("{"), default=None)

    def resolve(self, node):
        while "$ref" in node:
            node = self.at(node["$ref"])
        return node

    def at(self, reference: str):
        node = self.document
        for key in reference.removeprefix("#/").split("/"):
            node = node[key.replace("~1", "/").replace("~0", "~")]
        return node

    def hold(self, schema, value, what):
        """Fails if the value is not what the schema says."""
        # Of a union the branch that is meant by the value's type, so that mistakes are named in its words.
        named = {}
        for branch in self.resolve(schema).get("oneOf", []):
            kind = self.resolve(branch).get("properties", {}).get("type", {}).get("const")
            named[kind] = branch
        if isinstance(value, dict) and named.get(value.get("type")) and value.get("type"):
            schema = named[value["type"]]
        key = json.dumps(schema, sort_keys=True)
        if key not in self.validators:
            # References start at the root, so the document is the root of every schema.
            self.validators[key] = jsonschema_rs.Draft202012Validator(self.document | {"allOf": [schema]})
        problems = [str(error) for error in self.validators[key].iter_errors(value)]
        assert not problems, f"{what}: {problems[0]}\n{json.dumps(value)[:2000]}"

    def answer(self, method, path, status, headers, body: bytes, is_whole=True):
        """Fails if an answer is not what the document says about its operation."""
        what = f"{method} {path} {status}"
        template = self.template(path)
        operation = self.document["paths"].get(template, {}).get(method.lower())
        if operation is None:
            if not path.startswith(BASES):
                return
            kind = "MessagesError" if "/messages" in path else "Error"
            assert status in (404, 405), f"{what}: not in the document"
            self.hold({"$ref": f"#/components/schemas/{kind}"}, json.loads(body), what)
            return
        described = operation["responses"].get(str(status))
        assert described, f"{what}: this status is not in the document: {body[:500]}"
        described = self.resolve(described)
        for name, header in described.get("headers", {}).items():
            header = self.resolve(header)
            assert name in headers or not header.get("required"), f"{what}: no {name}"
            if name in headers:
                self.hold(header["schema"], headers[name], what)
        content = described.get("content")
        if content is None:
            return
        media = headers["content-type"].split(";")[0]
        assert media in content, f"{what}: {media} is not in the document"
        self.seen.append((operation["operationId"], status, media))
        if media == "application/json":
            self.hold(content[media]["schema"], json.loads(body), what)
        elif media == "text/event-stream":
            self.events(content[media]["x-event-schema"], body, is_whole, what)

    def events(self, schema, body: bytes, is_whole, what):
        *frames, rest = body.decode().split("\n\n")
        assert not (rest and is_whole), f"{what}: the end of an event is missing"
        for frame in frames:
            lines = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
            if lines.get("data", "[DONE]") == "[DONE]":
                continue
            data = json.loads(lines["data"])
            assert lines.get("event", data.get("type")) == data.get("type"), what
            self.hold(schema, data, what)
            self.kinds.add(data.get("type"))
        if "[DONE]" in body.decode():
            assert frames[-1] == "data: [DONE]", f"{what}: an event after the end"

    def message(self, data: dict):
        """A message of a WebSocket connection."""
        socket = self.document["paths"]["/responses"]["get"]["x-websocket"]
        # An error before a turn began and one within it have the same type.
        kind = "ResponsesSocketError" if data["type"] == "error" and "status" in data else "ResponseStreamEvent"
        assert {"$ref": f"#/components/schemas/{kind}"} in self.resolve(socket["server"])["oneOf"]
        self.hold({"$ref": f"#/components/schemas/{kind}"}, data, "a message")
        self.seen.append(("openResponsesSocket", 101, data["type"]))


class Tee(httpx.SyncByteStream, httpx.AsyncByteStream, httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """Passes a body on and gives what passed to the judge at its end."""

    def __init__(self, stream, judge):
        self.stream, self.judge, self.body, self.is_whole = stream, judge, b"", False

    def end(self):
        # What was not read to its end can be judged only where each piece stands for itself.
        if self.is_whole or b"\n\n" in self.body:
            self.judge(self.body, self.is_whole)

    def __iter__(self):
        for chunk in self.stream:
            self.body += chunk
            yield chunk
        self.is_whole = True

    async def __aiter__(self):
        async for chunk in self.stream:
            self.body += chunk
            yield chunk
        self.is_whole = True

    def close(self):
        self.stream.close()
        self.end()

    async def aclose(self):
        await self.stream.aclose()
        self.end()


def is_ours(response) -> bool:
    """Upstreams of the tests and other servers have no such pair of ids."""
    return response.headers.get("opc-request-id", "").endswith(response.headers.get("x-request-id", "?"))


def watch(monkeypatch, judge: Judge, problems: list):
    """From here on every answer of ours that a client gets is judged: `httpx` is what the tests use, `httpx2` the official
    SDKs. Problems are kept rather than raised: a client would take them for a broken connection."""
    def end(request, response):
        def judged(body, is_whole):
            try:
                judge.answer(request.method, request.url.path, response.status_code, response.headers, body, is_whole)
            except Exception as problem:
                problems.append(f"{type(problem).__name__}: {problem}")

        return judged

    for library in httpx, httpx2:
        watch_library(monkeypatch, library, end)

    def message(text):
        try:
            judge.message(json.loads(text))
        except Exception as problem:
            problems.append(f"{type(problem).__name__}: {problem}")
        return text

    recv = websockets.sync.client.ClientConnection.recv
    recv_async = websockets.asyncio.client.ClientConnection.recv

    async def receive(self, *args, **options):
        return message(await recv_async(self, *args, **options))

    monkeypatch.setattr(websockets.sync.client.ClientConnection, "recv", lambda *args, **options: message(recv(*args, **options)))
    monkeypatch.setattr(websockets.asyncio.client.ClientConnection, "recv", receive)


def watch_library(monkeypatch, library, end):
    handle, handle_async = library.HTTPTransport.handle_request, library.AsyncHTTPTransport.handle_async_request

    def sync(self, request):
        response = handle(self, request)
        if is_ours(response):
            response.stream = Tee(response.stream, end(request, response))
        return response

    async def asynchronous(self, request):
        response = await handle_async(self, request)
        if is_ours(response):
            response.stream = Tee(response.stream, end(request, response))
        return response

    monkeypatch.setattr(library.HTTPTransport, "handle_request", sync)
    monkeypatch.setattr(library.AsyncHTTPTransport, "handle_async_request", asynchronous)
