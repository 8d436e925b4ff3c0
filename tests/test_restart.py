"""kill -9 in the middle of everything: what was answered is recorded once, what was acknowledged is there."""

import collections
import itertools
import json
import random
import signal
import subprocess
import threading
import time

import httpx
import pytest

from conftest import BINARY, DIALECTS, SCRIPTED, SOAK, body_of, free_port, secret
from upstream import Upstream

ROUNDS = 50 if SOAK else 2
CLIENTS = 8
# A restart recovers two write-ahead logs of some megabytes; a minute would mean that something is broken.
RESTART_SECONDS_MAX = 15


class Load:
    """Clients that ask whole and streamed, in both dialects, of both backends, until they are stopped."""

    def __init__(self, url, value):
        self.url, self.value = url, value
        self.answered = {}
        self.refused = []
        self.over = threading.Event()
        self.threads = [threading.Thread(target=self.work, args=(n,)) for n in range(CLIENTS)]

    def start(self):
        for thread in self.threads:
            thread.start()
        return self

    def stop(self):
        self.over.set()
        for thread in self.threads:
            thread.join(30)
            assert not thread.is_alive()

    def work(self, first):
        ways = list(itertools.product(DIALECTS, (False, True), ("honshu.scripted", "mock.upstream")))
        with httpx.Client(timeout=20, headers={"authorization": f"Bearer {self.value}"}) as client:
            for turn in itertools.count(first):
                if self.over.is_set():
                    return
                try:
                    self.ask(client, *ways[turn % len(ways)])
                except httpx.HTTPError:
                    time.sleep(0.02)

    def ask(self, client, dialect, streams, model):
        body = body_of(dialect, "Answer with 12 words [scripted: delay-ms=3]", model, stream=streams)
        data = b""
        with client.stream("POST", self.url + DIALECTS[dialect], json=body) as response:
            if response.status_code != 200:
                self.refused.append((response.status_code, response.read()))
                return
            whole = False
            try:
                for piece in response.iter_raw():
                    data += piece
                whole = True
            except httpx.HTTPError:
                # The end may have arrived before the connection broke: then it counts.
                pass
            finally:
                if is_complete(data, dialect) if streams else whole and bool(json.loads(data)):
                    self.answered[response.headers["x-request-id"]] = model


def is_complete(data: bytes, dialect) -> bool:
    if dialect == "chat":
        return b"data: [DONE]\n\n" in data
    return b"event: response.completed\n" in data and data.endswith(b"\n\n")


@pytest.mark.passes_on
def test_kill_9_loses_no_row_doubles_no_row_and_keeps_what_was_acknowledged(honshu):
    port = free_port()
    with Upstream() as upstream:
        config = SCRIPTED.format(port=port) + upstream.config()
        honshu.start(config, port=port)
        key = honshu.make_key()
        answered, made = {}, ["root"]
        for turn in range(ROUNDS):
            load = Load(honshu.url, secret(key)).start()
            ends = time.monotonic() + random.uniform(0.8, 2.0)
            kill = threading.Timer(ends - time.monotonic(), honshu.process.send_signal, (signal.SIGKILL,))
            kill.start()
            for number in itertools.count():
                name = f"c{turn}-{number}"
                if honshu.run("compartment", "create", "--name", name, check=False).returncode != 0:
                    break
                made.append(name)
            kill.join()
            assert honshu.stop(signal.SIGKILL) == -signal.SIGKILL
            load.stop()
            assert load.answered, "no request was answered before the kill"
            assert not load.refused, load.refused[:3]
            answered |= load.answered

            began = time.monotonic()
            honshu.start(config, port=port)
            assert time.monotonic() - began < RESTART_SECONDS_MAX

            rows = honshu.usage_rows()
            counts = collections.Counter(row["request_id"] for row in rows)
            assert [count for count in counts.values() if count != 1] == []
            assert len({row["run_id"] for row in rows}) == len(rows)
            by_id = {row["request_id"]: row for row in rows}
            lost = [request_id for request_id in answered if request_id not in by_id]
            assert lost == [], f"{len(lost)} of {len(answered)} answers have no row"
            assert {by_id[request_id]["status"] for request_id in answered} == {"completed"}
            assert all(by_id[i]["output_tokens"] == 12 and by_id[i]["usage_exact"] for i in answered)
            assert all(by_id[i]["model_served"] == model for i, model in answered.items())
            # Nothing counts as completed that the upstream did not finish.
            completed = [r for r in rows if r["model_served"] == "mock.upstream" and r["status"] == "completed"]
            assert 0 < len(completed) <= upstream.finished
            names = {item["name"] for item in honshu.json("compartment", "list")}
            assert set(made) - {"root"} <= names
        assert len(made) > 1
        assert len(answered) >= ROUNDS

    # Nothing else was lost either: the key, its policy, and the way in.
    assert [item["id"] for item in honshu.json("api-key", "list")] == [key["id"]]
    assert "allow-test" in {item["name"] for item in honshu.json("policy", "list")}
    honshu.key = key
    assert honshu.ask("Reply with exactly: back").json()["output"][0]["content"][0]["text"] == "back"
    assert honshu.stop() == 0
    for file in ("honshu.db", "usage-spool.db"):
        assert honshu.query(file, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]
        assert honshu.query(file, "PRAGMA foreign_key_check") == []


def test_a_second_process_on_the_same_data_directory_is_refused(scripted):
    port = free_port()
    done = scripted.run("serve", "--listen", f"127.0.0.1:{port}", check=False)
    assert done.returncode == 78
    assert f"in use by process {scripted.process.pid}" in done.stderr and "hint:" in done.stderr
    assert scripted.run("init", check=False).returncode == 78
    # The first one does not notice.
    assert scripted.ask().status_code == 200
    # And its endpoint is still the one that commands find.
    assert scripted.json("compartment", "list")


def test_a_restart_finds_the_endpoint_of_the_new_process(honshu):
    first = honshu.start(port=free_port()).url
    honshu.stop(signal.SIGKILL)
    second = honshu.start(port=free_port()).url
    assert first != second
    assert honshu.json("compartment", "list")[0]["name"] == "root"
    assert honshu.stop() == 0
    gone = honshu.run("compartment", "list", check=False)
    assert gone.returncode == 1 and "no server runs" in gone.stderr and "hint:" in gone.stderr


def test_a_kill_during_the_first_start_is_made_good_by_the_next(honshu):
    """The first start makes keys, files and rows; wherever it is cut, the next start must find its way."""
    for delay in (0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.3):
        home = type(honshu)(honshu.data_dir / f"cut-{delay}")
        home.data_dir.mkdir()
        process = subprocess.Popen(
            [BINARY, "serve", "--listen", "127.0.0.1:0"], env=home.environment(),
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        process.kill()
        process.wait()
        try:
            home.start()
            assert [item["name"] for item in home.json("compartment", "list")] == ["root"], delay
            home.key = home.make_key(allow=False)
        finally:
            assert home.stop() == 0
