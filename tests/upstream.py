"""An OpenAI-compatible upstream that counts what it began and what it finished."""

import http.server
import json
import threading
import time

PIECES = [f" word{n}" for n in range(12)]
USAGE_CHAT = {"prompt_tokens": 5, "completion_tokens": len(PIECES), "total_tokens": 5 + len(PIECES)}
USAGE_RESPONSES = {
    "input_tokens": 5, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": len(PIECES),
    "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 5 + len(PIECES),
}


class Upstream:
    """Serves on a free port between `with` and its end. Each piece of an answer takes `pause` seconds."""

    def __init__(self, pause=0.003):
        self.pause = pause
        self.began = 0
        self.finished = 0
        self.broken = 0
        self.authorizations = set()
        self.lock = threading.Lock()

    def __enter__(self):
        upstream = self

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                # A gateway that was killed breaks connections; that is what is tested.
                pass

        class Handler(_Handler):
            owner = upstream

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def config(self, credential=""):
        """The provider and its model `mock.upstream`, for a configuration file."""
        return f"""
[[provider]]
name = "mock"
kind = "openai"
base_url = "{self.url}"
{credential}

[[model]]
id = "mock.upstream"

[[model.deployment]]
provider = "mock"
upstream = "upstream-1"
"""

    def count(self, name):
        with self.lock:
            setattr(self, name, getattr(self, name) + 1)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        upstream = self.owner
        upstream.count("began")
        upstream.authorizations.add(self.headers.get("authorization"))
        chat = self.path.endswith("/chat/completions")
        try:
            if body.get("stream"):
                self.streamed(chat_events() if chat else responses_events())
            else:
                time.sleep(upstream.pause * len(PIECES))
                self.whole(chat_object() if chat else response_object("completed"))
        except OSError:
            upstream.count("broken")
            raise
        upstream.count("finished")

    def whole(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def streamed(self, events):
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for event in events:
            time.sleep(self.owner.pause)
            data = event.encode()
            self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


def chat_object():
    return {
        "id": "chatcmpl-mock", "object": "chat.completion", "created": 1, "model": "upstream-1",
        "choices": [{
            "index": 0, "message": {"role": "assistant", "content": "".join(PIECES), "refusal": None},
            "finish_reason": "stop", "logprobs": None,
        }],
        "usage": USAGE_CHAT,
    }


def chat_events():
    def chunk(delta, finish=None, **more):
        return "data: " + json.dumps({
            "id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "upstream-1",
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}],
        } | more) + "\n\n"

    yield chunk({"role": "assistant", "content": ""})
    for piece in PIECES:
        yield chunk({"content": piece})
    yield chunk({}, "stop")
    yield chunk({}, choices=[], usage=USAGE_CHAT)
    yield "data: [DONE]\n\n"


def message(status, text):
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": "msg_mock", "type": "message", "role": "assistant", "status": status, "content": content}


def response_object(status):
    done = status == "completed"
    return {
        "id": "resp_mock", "object": "response", "created_at": 1, "status": status, "model": "upstream-1",
        "output": [message("completed", "".join(PIECES))] if done else [], "usage": USAGE_RESPONSES if done else None,
        "error": None, "incomplete_details": None, "instructions": None, "metadata": {}, "parallel_tool_calls": True,
        "temperature": 1.0, "top_p": 1.0, "tools": [], "tool_choice": "auto",
    }


def responses_events():
    number = 0

    def event(kind, **fields):
        nonlocal number
        data = {"type": kind, "sequence_number": number} | fields
        number += 1
        return f"event: {kind}\ndata: {json.dumps(data)}\n\n"

    place = {"item_id": "msg_mock", "output_index": 0, "content_index": 0}
    text = "".join(PIECES)
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    yield event("response.created", response=response_object("in_progress"))
    yield event("response.in_progress", response=response_object("in_progress"))
    yield event("response.output_item.added", output_index=0, item=message("in_progress", ""))
    yield event("response.content_part.added", part=part, **place)
    for piece in PIECES:
        yield event("response.output_text.delta", delta=piece, logprobs=[], **place)
    yield event("response.output_text.done", text=text, logprobs=[], **place)
    yield event("response.content_part.done", part=part | {"text": text}, **place)
    yield event("response.output_item.done", output_index=0, item=message("completed", text))
    yield event("response.completed", response=response_object("completed"))
