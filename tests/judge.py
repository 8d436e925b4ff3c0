"""Holds answers of the real binary against its own OpenAPI document, as the in-process tests do."""

import json

import httpx
import jsonschema_rs

BASES = ("/20231130/actions/v1", "/openai/v1", "/20231130/openai/v1", "/v1")


class Judge:
    def __init__(self, document: dict):
        self.document = document
        self.validators = {}
        # What was held against the document, so that a test can say that nothing escaped.
        self.seen = []

    def template(self, path: str):
        """The path of the document that a request's path means, or None."""
        base = next((base for base in BASES if path.startswith(base + "/")), None)
        below = path.removeprefix(base) if base else path
        given = below.split("/")
        matching = [
            template for template in self.document["paths"]
            if (len(parts := template.split("/")) == len(given) or template == "/models/{id}" and len(given) > 3)
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


class Tee(httpx.SyncByteStream, httpx.AsyncByteStream):
    """Passes a body on and gives what passed to the judge at its end."""

    def __init__(self, stream, judge):
        self.stream, self.judge, self.body, self.is_whole = stream, judge, b"", False

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
        self.judge(self.body, self.is_whole)

    async def aclose(self):
        await self.stream.aclose()
        self.judge(self.body, self.is_whole)


class JudgingTransport(httpx.HTTPTransport):
    """A transport for the official SDKs whose answers are all held against the document."""

    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    def handle_request(self, request):
        response = super().handle_request(request)
        response.stream = Tee(response.stream, at_end(self.judge, request, response))
        return response


class AsyncJudgingTransport(httpx.AsyncHTTPTransport):
    def __init__(self, judge: Judge):
        super().__init__()
        self.judge = judge

    async def handle_async_request(self, request):
        response = await super().handle_async_request(request)
        response.stream = Tee(response.stream, at_end(self.judge, request, response))
        return response


def at_end(judge, request, response):
    def end(body, is_whole):
        judge.answer(request.method, request.url.path, response.status_code, response.headers, body, is_whole)

    return end
