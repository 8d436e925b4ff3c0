"""A client that leaves in the middle of a stream: the work ends, the place is free, the row says so."""

import contextlib
import socket
import threading
import time

import httpx
import pytest

from conftest import DIALECTS, SCRIPTED, SMALL_MODEL, body_of, free_port, secret
from upstream import Upstream

LONG = "Write a very long story about the sea, with many chapters."


def leave_after(honshu, pieces, dialect, model, text, how="close", **more):
    """Reads some events of a stream and goes away. Gives the request's id."""
    headers = {"authorization": f"Bearer {secret(honshu.key)}"}
    body = body_of(dialect, text, model, stream=True, **more)
    with httpx.Client(timeout=60) as client:
        with client.stream("POST", honshu.url + DIALECTS[dialect], json=body, headers=headers) as response:
            assert response.status_code == 200, response.read()
            request_id = response.headers["x-request-id"]
            if how == "reset":
                stream = response.extensions["network_stream"].get_extra_info("socket")
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            deltas = (line for line in response.iter_lines() if line.startswith("data:") and '"delta":' in line)
            # In Chat the first delta has only the role.
            for number, _ in enumerate(deltas, start=0 if dialect == "chat" else 1):
                if number >= pieces:
                    break
    return request_id


def row_of(honshu, request_id, seconds=20):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [row for row in honshu.usage_rows() if row["request_id"] == request_id]
        if found:
            assert len(found) == 1
            return found[0]
        time.sleep(0.1)
    raise AssertionError(f"no usage row of {request_id}")


@pytest.fixture
def engine(honshu_with_model):
    """One model with one place, so that a place that is not given back is seen at once."""
    port = free_port()
    honshu_with_model.start(f'[server]\nlisten = "127.0.0.1:{port}"\n[engine]\nsequences_max = 1\n', port=port)
    honshu_with_model.key = honshu_with_model.make_key()
    assert honshu_with_model.ask(model=SMALL_MODEL, max_output_tokens=1).status_code == 200
    return honshu_with_model


def test_the_engines_place_is_free_at_once(engine):
    more = {"ignore_eos": True}
    ids = []
    for dialect in DIALECTS:
        limit = {"max_output_tokens": 6000} if dialect == "responses" else {"max_completion_tokens": 6000}
        for how in ("close", "reset"):
            ids.append(leave_after(engine, 5, dialect, SMALL_MODEL, LONG, how, **limit, **more))
            began = time.monotonic()
            assert engine.ask("hi", model=SMALL_MODEL, max_output_tokens=1).status_code == 200
            # 6,000 tokens would have taken minutes here; a decode step takes milliseconds.
            assert time.monotonic() - began < 10
    for request_id in ids:
        row = row_of(engine, request_id)
        assert (row["status"], row["model_served"]) == ("cancelled", SMALL_MODEL)
        assert row["input_tokens"] > 0 and 5 <= row["output_tokens"] < 3000


def test_who_leaves_the_queue_is_not_served(engine):
    running = threading.Thread(
        target=leave_after, args=(engine, 60, "responses", SMALL_MODEL, LONG), kwargs={"max_output_tokens": 6000})
    running.start()
    time.sleep(0.3)
    with contextlib.suppress(httpx.ReadTimeout):
        engine.ask(LONG, model=SMALL_MODEL, max_output_tokens=6000, timeout=0.2)
        pytest.fail("the only place is taken, so nobody can have answered")
    running.join(120)
    began = time.monotonic()
    assert engine.ask("hi", model=SMALL_MODEL, max_output_tokens=1).status_code == 200
    assert time.monotonic() - began < 10
    statuses = [row["status"] for row in engine.usage_rows()]
    assert statuses.count("cancelled") == 2


@pytest.mark.passes_on
def test_the_work_of_an_upstream_ends(honshu):
    port = free_port()
    with Upstream(pause=0.3) as upstream:
        honshu.start(SCRIPTED.format(port=port) + upstream.config(), port=port)
        honshu.key = honshu.make_key()
        for dialect in DIALECTS:
            request_id = leave_after(honshu, 2, dialect, "mock.upstream", "hi")
            assert row_of(honshu, request_id)["status"] == "cancelled"
        deadline = time.monotonic() + 10
        while upstream.broken < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert (upstream.broken, upstream.finished) == (2, 0)


def test_a_scripted_stream_and_a_whole_answer_that_nobody_waits_for(scripted):
    ids = [leave_after(scripted, 3, dialect, "honshu.scripted", "Answer with 5000 words [scripted: delay-ms=20]") for dialect in DIALECTS]
    with contextlib.suppress(httpx.ReadTimeout):
        scripted.ask("Answer with 5000 words [scripted: delay-ms=20]", timeout=0.5)
        pytest.fail("this answer takes longer than its caller waits")
    for request_id in ids:
        row = row_of(scripted, request_id)
        assert row["status"] == "cancelled" and 3 <= row["output_tokens"] < 5000 and row["input_tokens"] > 0
    deadline = time.monotonic() + 10
    while len(rows := scripted.usage_rows()) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [row["status"] for row in rows] == ["cancelled"] * 3
