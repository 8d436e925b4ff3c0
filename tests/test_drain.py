"""SIGTERM: first the server says that it goes, then running answers end or are told why they cannot, then it is gone."""

import json
import signal
import socket
import threading
import time

import httpx
import pytest

from conftest import DIALECTS, SCRIPTED, body_of, events_of, free_port, secret

DRAIN_SECONDS = 3


def config(port, drain=DRAIN_SECONDS):
    return SCRIPTED.format(port=port).replace("[server]", f"[server]\ndrain_seconds = {drain}")


@pytest.fixture
def draining(honshu):
    port = free_port()
    honshu.start(config(port), port=port)
    honshu.key = honshu.make_key()
    return honshu


class Stream(threading.Thread):
    """One stream, read to whatever end it has."""

    def __init__(self, honshu, words, dialect="responses", streams=True):
        super().__init__()
        self.url, self.dialect, self.streams = honshu.url, dialect, streams
        self.headers = {"authorization": f"Bearer {secret(honshu.key)}"}
        self.text = f"Answer with {words} words [scripted: delay-ms=20]"
        self.data, self.error, self.started = "", None, threading.Event()
        self.start()
        assert self.started.wait(20)

    def run(self):
        body = body_of(self.dialect, self.text, stream=self.streams)
        if not self.streams:
            threading.Timer(0.3, self.started.set).start()
        try:
            with httpx.stream("POST", self.url + DIALECTS[self.dialect], json=body, headers=self.headers, timeout=60) as response:
                self.status = response.status_code
                for piece in response.iter_text():
                    self.data += piece
                    self.started.set()
        except httpx.HTTPError as error:
            self.error = error
        self.ended = time.monotonic()

    def events(self):
        """Without the marker after them, which some clients of Responses wait for and others do not know."""
        events = events_of(self.data)
        return events[:-1] if self.dialect == "responses" and events[-1] == "[DONE]" else events


def test_running_streams_end_and_nobody_new_comes_in(draining):
    honshu = draining
    streams = [Stream(honshu, 60, dialect, streams) for dialect in DIALECTS for streams in (True, False)]
    began = time.monotonic()
    honshu.process.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + 2
    while (ready := httpx.get(honshu.url + "/readyz")).status_code == 200 and time.monotonic() < deadline:
        time.sleep(0.01)
    # Who looks is told so, as long as answers are still under way.
    assert ready.status_code == 503 and ready.headers["connection"] == "close"
    late = honshu.ask()
    assert late.status_code == 503 and late.headers["retry-after"]
    for stream in streams:
        stream.join(20)
    assert [stream.error for stream in streams] == [None] * 4
    for stream in streams:
        if not stream.streams:
            assert stream.status == 200 and json.loads(stream.data)["usage"]
        elif stream.dialect == "responses":
            assert stream.events()[-1]["type"] == "response.completed"
        else:
            assert stream.events()[-1] == "[DONE]"
    assert honshu.process.wait(10) == 0
    assert time.monotonic() - began < DRAIN_SECONDS + 2
    assert [row["status"] for row in honshu.usage_rows()] == ["completed"] * 4
    with pytest.raises(httpx.ConnectError):
        httpx.get(honshu.url + "/readyz")


def test_what_does_not_end_in_time_is_told_server_shutdown(draining):
    honshu = draining
    streams = [Stream(honshu, 5000, dialect) for dialect in DIALECTS for _ in range(20)]
    whole = [Stream(honshu, 5000, dialect, streams=False) for dialect in DIALECTS]
    began = time.monotonic()
    honshu.process.send_signal(signal.SIGTERM)
    assert honshu.process.wait(DRAIN_SECONDS + 10) == 0
    assert time.monotonic() - began < DRAIN_SECONDS + 2
    for stream in streams + whole:
        stream.join(10)
    for stream in streams:
        last = stream.events()[-1]
        if stream.dialect == "responses":
            assert stream.error is None
            assert last["type"] == "response.failed" and last["response"]["status"] == "failed"
            assert last["response"]["error"]["code"] == "server_shutdown", last
            kinds = [event["type"] for event in stream.events()]
            assert sum(kind in ("response.completed", "response.failed", "response.incomplete") for kind in kinds) == 1
        else:
            # A clean end would read as success, so the connection breaks after the error.
            assert last["error"]["code"] == "server_shutdown", last
            assert "[DONE]" not in stream.data and stream.error is not None
    for answer in whole:
        assert answer.status == 503 and json.loads(answer.data)["error"]["code"] == "server_shutdown", answer.data
    rows = honshu.usage_rows()
    assert len(rows) == 42 and {row["status"] for row in rows} == {"failed"}
    assert {row["reason"] for row in rows} == {"shutdown"}
    assert all(row["output_tokens"] > 0 for row in rows)


def test_idle_connections_are_closed_at_once(draining):
    honshu = draining
    address = ("127.0.0.1", httpx.URL(honshu.url).port)
    running = Stream(honshu, 5000)
    silent = socket.create_connection(address)
    half = socket.create_connection(address)
    half.sendall(b"GET /readyz HT")
    kept = socket.create_connection(address)
    kept.sendall(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert kept.recv(4096).startswith(b"HTTP/1.1 200")
    began = time.monotonic()
    honshu.process.send_signal(signal.SIGTERM)
    for connection in (silent, half, kept):
        connection.settimeout(DRAIN_SECONDS)
        assert connection.recv(4096) == b""
        connection.close()
    assert time.monotonic() - began < 2
    assert honshu.process.poll() is None and running.is_alive()
    assert honshu.process.wait(DRAIN_SECONDS + 10) == 0
    running.join(10)


def test_a_second_signal_ends_at_once(honshu):
    port = free_port()
    honshu.start(config(port, drain=60), port=port)
    honshu.key = honshu.make_key()
    streams = [Stream(honshu, 5000, dialect) for dialect in DIALECTS]
    honshu.process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert honshu.process.poll() is None
    began = time.monotonic()
    honshu.process.send_signal(signal.SIGTERM)
    assert honshu.process.wait(20) == 0
    assert time.monotonic() - began < 5
    for stream in streams:
        stream.join(10)
        if stream.dialect == "responses":
            assert "response.completed" not in [event["type"] for event in stream.events()]
        else:
            assert "[DONE]" not in stream.data
    rows = honshu.usage_rows()
    assert len(rows) == 2 and {row["status"] for row in rows} <= {"failed", "cancelled"}


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_server_at_rest_ends_at_once(scripted, how):
    began = time.monotonic()
    assert scripted.stop(how) == 0
    assert time.monotonic() - began < 5
    assert not (scripted.data_dir / "run/endpoints.json").exists()
