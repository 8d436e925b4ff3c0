"""Request smuggling against the real binary: alone, and behind haproxy and nginx, which read HTTP in their own ways.

The byte strings are those of `testdata/wire/smuggling.jsonl` and some for proxies. After each comes a request that may use
the model, so that one that gets through leaves an answer and a usage row behind. Behind a proxy a relay looks at what we
answer: the proxy marks each request that it passes on, so an answer to a request without a mark is one that it never saw."""

import asyncio
import collections
import contextlib
import json
import re
import shutil
import subprocess
import threading
import time

import httpx
import pytest

from conftest import ROOT, SCRIPTED, at_home, free_port, secret

MODEL = "honshu.scripted"
POISON = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
AT_ONCE = 48
RESPONSE = re.compile(rb"HTTP/1\.[01] (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")

Case = collections.namedtuple("Case", "name expect data")


def post(fields, body, line=b"POST /v1/chat/completions HTTP/1.1"):
    return line + b"\r\nHost: a\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


# What a proxy might take out, pass on or wait for differently than we do. `any`: whatever a server makes of it, the next
# request is the next request.
FOR_PROXIES = [
    Case("content-length named as the connection's", "any", post([b"Connection: Content-Length", b"Content-Length: 5"], b"hello")),
    Case("transfer-encoding named as the connection's", "any", post([b"Connection: Transfer-Encoding", b"Transfer-Encoding: chunked"], b"0\r\n\r\n")),
    Case("host named as the connection's", "any", post([b"Connection: Host"], b"", line=b"GET /x HTTP/1.1")),
    Case("te named as the connection's", "any", post([b"Connection: TE", b"TE: trailers, chunked"], b"", line=b"GET /x HTTP/1.1")),
    Case("a body that waits to be asked for", "any", post([b"Expect: 100-continue", b"Content-Length: 5"], b"hello")),
    Case("chunks that wait to be asked for", "any", post([b"Expect: 100-continue", b"Transfer-Encoding: chunked"], b"0\r\n\r\n")),
    Case("a WebSocket that is refused", "any", post(
        [b"Connection: upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="],
        b"", line=b"GET /v1/responses HTTP/1.1")),
    Case("another protocol that is refused", "any", post([b"Connection: upgrade, http2-settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"], b"", line=b"GET /x HTTP/1.1")),
    Case("a trailer that is a length", "any", post([b"Transfer-Encoding: chunked", b"Trailer: Content-Length"], b"0\r\nContent-Length: 50\r\n\r\n")),
    Case("a trailer that is a request", "any", post([b"Transfer-Encoding: chunked"], b"0\r\nX: " + POISON.replace(b"\r\n", b" ") + b"\r\n\r\n")),
    Case("an extension that is a request", "any", post([b"Transfer-Encoding: chunked"], b"0;" + POISON.replace(b"\r\n", b" ") + b"\r\n\r\n")),
    Case("a HEAD with a body", "any", post([b"Content-Length: 35"], POISON, line=b"HEAD /x HTTP/1.1")),
    Case("0.9", "any", b"GET /x\r\n"),
    Case("0.9 with a version", "any", post([], b"", line=b"GET /x HTTP/0.9")),
    Case("1.0 that stays", "any", post([b"Connection: keep-alive", b"Content-Length: 5"], b"hello", line=b"POST /x HTTP/1.0")),
    Case("two hosts in the target", "any", b"GET http://b/x HTTP/1.1\r\nHost: a\r\n\r\n"),
    Case("the connection's end, and then more", "any", post([b"Connection: close", b"Content-Length: 5"], b"hello")),
    Case("methods of others", "any", post([b"X-HTTP-Method-Override: DELETE", b"X-Original-URL: /smuggled"], b"", line=b"GET /x HTTP/1.1")),
]


def corpus():
    """The corpus without its last request, which is ours here, and without what only times out."""
    cases = []
    with open(ROOT / "testdata/wire/smuggling.jsonl") as file:
        for line in file:
            case = json.loads(line)
            if case["expect"] != "timeout":
                data = case["bytes"].encode("latin-1").removesuffix(POISON if case["expect"] == "refuse" else b"")
                cases.append(Case(case["name"], case["expect"], data))
    assert len(cases) > 480
    return cases


def marker(key: str, number: int, more=b"") -> bytes:
    """A whole and good request that would be answered with its number, and then ends the connection if no more comes."""
    body = json.dumps({"model": MODEL, "messages": [{"role": "user", "content": f"Reply with exactly: marker {number}"}]})
    return (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        f"Connection: {'keep-alive' if more else 'close'}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    ).encode() + more


async def talk(port: int, data: bytes, patience: float) -> tuple[bytes, bool]:
    """What comes back until the connection ends, or until there is an answer and nothing more came for so many seconds; and
    whether it ended."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer, closed = b"", False
    try:
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        while True:
            piece = await asyncio.wait_for(reader.read(65536), patience if RESPONSE.search(answer) else 30)
            if not piece:
                closed = True
                break
            answer += piece
    except ConnectionError:
        closed = True
    except TimeoutError:
        pass
    writer.close()
    return answer, closed


def send_all(port: int, jobs, patience: float = 30):
    async def run():
        room = asyncio.Semaphore(AT_ONCE)

        async def one(job):
            async with room:
                return await talk(port, job, patience)

        return await asyncio.gather(*(one(job) for job in jobs))

    return asyncio.run(run())


def responses(data: bytes):
    """Status and headers of each answer among some bytes. Our bodies are JSON, in which a line cannot end."""
    found = []
    for match in RESPONSE.finditer(data):
        fields = (line.split(b": ", 1) for line in match[2].split(b"\r\n")[:-1])
        found.append((int(match[1]), {name.decode().lower(): value.decode("latin-1") for name, value in fields}))
    return found


def rows(home):
    return len(home.usage_rows())


def test_alone_every_byte_string_is_refused_or_is_what_it_says(scripted):
    port, key = int(scripted.url.rsplit(":", 1)[1]), secret(scripted.key)
    cases = corpus()
    problems = []

    def check(case, answer, is_good):
        statuses = [status for status, _ in responses(answer) if status != 100]
        if not is_good(statuses) or b"marker" in answer:
            problems.append((case.name, statuses, answer[:300]))

    bad = [case for case in cases if case.expect == "refuse"]
    said = send_all(port, [case.data + marker(key, number) for number, case in enumerate(bad)])
    for case, (answer, closed) in zip(bad, said, strict=True):
        check(case, answer, lambda statuses: closed and len(statuses) == 1 and statuses[0] >= 400)
    # Nothing is behind these, or they would be two. They may keep the connection, so that silence is their end.
    good = [case for case in cases if case.expect != "refuse"]
    for case, (answer, _) in zip(good, send_all(port, [case.data for case in good], patience=1), strict=True):
        check(case, answer, lambda statuses: len(statuses) == (2 if case.expect == "two" else 1))
    assert not problems, f"{len(problems)} of {len(cases)}, such as {problems[:3]}"
    assert rows(scripted) == 0, "a request that was hidden behind a refused one was run"

    for case, (answer, _) in zip(FOR_PROXIES, send_all(port, [case.data + marker(key, 1) for case in FOR_PROXIES]), strict=True):
        statuses = [status for status, _ in responses(answer) if status != 100]
        assert 1 <= len(statuses) <= 2, (case.name, answer)

    # And the marker can be seen where it is honest.
    before = rows(scripted)
    [(answer, _)] = send_all(port, [marker(key, 7, more=marker(key, 8))])
    assert b"marker 7" in answer and b"marker 8" in answer
    assert rows(scripted) == before + 2


class Relay:
    """Stands between a proxy and us, and keeps what we answered on each connection."""

    def __init__(self, to: int):
        self.to, self.answers = to, []
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(self.serve, "127.0.0.1", 0), self.loop).result()
        self.port = server.sockets[0].getsockname()[1]

    async def serve(self, reader, writer):
        answers = bytearray()
        self.answers.append(answers)
        try:
            to_us, from_us = await asyncio.open_connection("127.0.0.1", self.to)
        except OSError:
            writer.close()
            return
        tasks = [asyncio.create_task(self.pump(reader, from_us)), asyncio.create_task(self.pump(to_us, writer, answers))]
        await asyncio.wait(tasks)

    async def pump(self, reader, writer, kept=None):
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(65536):
                if kept is not None:
                    kept += piece
                writer.write(piece)
                await writer.drain()
        with contextlib.suppress(ConnectionError, RuntimeError):
            writer.close()

    def stop(self):
        async def end():
            rest = asyncio.all_tasks() - {asyncio.current_task()}
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self.loop).result()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()


def haproxy(directory, port, upstream):
    config = directory / "haproxy.cfg"
    config.write_text(f"""
global
  maxconn 1000
  log stdout format raw local0
defaults
  mode http
  log global
  timeout connect 10s
  timeout client 60s
  timeout server 60s
  retries 0
frontend front
  bind 127.0.0.1:{port}
  unique-id-format front-%rt-%pid-%cp-%Ts
  http-request set-header opc-request-id %[unique-id]
  log-format "id=%ID status=%ST server=%s %HM %HP"
  default_backend us
backend us
  http-reuse always
  server honshu 127.0.0.1:{upstream}
""")
    return ["haproxy", "-db", "-f", str(config)], directory / "log"


def nginx(directory, port, upstream):
    config, log = directory / "nginx.conf", directory / "access.log"
    temporary = "".join(f"{kind}_temp_path {directory};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    config.write_text(f"""
daemon off; user root; pid {directory}/pid; error_log {directory}/error.log; worker_processes 1;
events {{ worker_connections 4096; }}
http {{
  log_format ids "id=front-$request_id status=$status server=$upstream_addr $request_method $uri"; access_log {log} ids; {temporary}
  upstream us {{ server 127.0.0.1:{upstream}; keepalive 32; }}
  server {{
    listen 127.0.0.1:{port} default_server; merge_slashes off; proxy_next_upstream off;
    location / {{
      proxy_pass http://us; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
      proxy_set_header opc-request-id front-$request_id; proxy_buffering off; proxy_request_buffering off;
    }}
  }}
}}
""")
    return ["nginx", "-c", str(config), "-p", str(directory)], log


@contextlib.contextmanager
def in_front(kind, directory, upstream):
    """A proxy that passes on to `upstream` and marks what it passes on. Gives its port and the marks that it has logged."""
    port = free_port()
    command, log = kind(directory, port, upstream)
    program = shutil.which(command[0], path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    assert program, f"{command[0]} is not installed: make installs it"
    with open(directory / "log", "wb") as out:
        process = subprocess.Popen([program, *command[1:]], stdout=out, stderr=out)
        try:
            deadline = time.monotonic() + 30
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200:
                        break
                assert process.poll() is None and time.monotonic() < deadline, (directory / "log").read_text()
                time.sleep(0.05)
            yield port
        finally:
            process.terminate()
            process.wait(30)
    passed_on = re.findall(r"id=(\S+) status=\S+ server=(?!-|<NOSRV>)\S+ (.*)", log.read_text(errors="replace"))
    in_front.marks = collections.Counter(mark for mark, _ in passed_on)
    in_front.runs_max = sum(what == "POST /v1/chat/completions" for _, what in passed_on)


@pytest.mark.parametrize("kind", [haproxy, nginx])
def test_behind_a_proxy_nothing_arrives_that_the_proxy_did_not_see(tmp_path_factory, kind):
    with at_home(tmp_path_factory.mktemp("home")) as home:
        own = free_port()
        home.start(SCRIPTED.format(port=own), port=own)
        key = secret(home.make_key())
        relay = Relay(own)
        cases = corpus() + FOR_PROXIES
        with in_front(kind, tmp_path_factory.mktemp("front"), relay.port) as port:
            # Some wait for more than comes; what they say is not what is judged.
            send_all(port, [case.data + marker(key, number) for number, case in enumerate(cases)], patience=2)
            # Markers and proxies work: this one is answered.
            [(answer, _)] = send_all(port, [marker(key, 4711)])
            assert b"marker 4711" in answer
        found = answered(relay)
        assert strangers(found, in_front.marks) == []
        assert sum("/" in mark for mark, *_ in found) > 50, "the proxy passes the good ones on"
        assert 0 < rows(home) <= in_front.runs_max
        # A request that comes past the proxy is one that this test finds.
        [(answer, _)] = send_all(relay.port, [marker(key, 4712)])
        assert b"marker 4712" in answer
        assert len(strangers(answered(relay), in_front.marks)) == 1
        relay.stop()


def answered(relay):
    """What we answered, other than that a body may come: the id, the status, the headers."""
    found = [found for answers in relay.answers for found in responses(bytes(answers))]
    return [(headers["opc-request-id"], status, headers) for status, headers in found if status != 100]


def strangers(found, marks):
    """Answers to requests that the proxy did not pass on, or passed on once and were answered twice."""
    seen, unknown = collections.Counter(), []
    for name, status, headers in found:
        mark, _, _ = name.rpartition("/")
        if mark:
            seen[mark] += 1
        elif status < 400 or headers["connection"] != "close":
            # Not what the edge refuses before it is a request.
            unknown.append((name, status))
    return unknown + list((seen - marks).elements())
