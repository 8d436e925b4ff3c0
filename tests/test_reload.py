"""The configuration and the models directory are followed while the server runs."""

import json
import os
import shutil
import signal
import time

import httpx
import pytest

from conftest import SCRIPTED, SMALL_MODEL, free_port, secret

SECOND = """
[[model]]
id = "second.scripted"
[[model.deployment]]
provider = "scripted"
"""


def models(honshu):
    answer = httpx.get(honshu.url + "/v1/models", headers={"authorization": f"Bearer {secret(honshu.key)}"})
    return [model["id"] for model in answer.json()["data"]]


def comes_true(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.05)
    return False


def log_lines(honshu):
    lines = (honshu.data_dir / "server.log").read_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


@pytest.mark.parametrize("signalled", [True, False])
def test_a_new_model_is_served_without_a_restart(honshu, signalled):
    port = free_port()
    first = SCRIPTED.format(port=port)
    honshu.start(first, port=port)
    honshu.key = honshu.make_key()
    path = honshu.data_dir / "config.toml"
    assert models(honshu) == ["honshu.scripted"]

    def change(text):
        if signalled:
            # The file looks as it did, so that only the signal can tell.
            stamp = os.stat(path)
            path.write_text(text)
            os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            honshu.process.send_signal(signal.SIGHUP)
        else:
            path.write_text(text)

    change(first + SECOND)
    assert comes_true(lambda: models(honshu) == ["honshu.scripted", "second.scripted"])
    assert honshu.ask(model="second.scripted").status_code == 200

    for broken, said in [("[[model]\n", "config.toml"), (first + "\n[nonsense]\n", "nonsense"),
                         (first.replace('provider = "scripted"', 'provider = "nobody"'), "nobody")]:
        change(broken)
        assert comes_true(lambda: any(
            line["level"] == "ERROR" and said in line.get("error", "") and "last good one" in line["message"]
            for line in log_lines(honshu))), honshu.server_log()
        assert models(honshu) == ["honshu.scripted", "second.scripted"]
        assert honshu.ask(model="second.scripted").status_code == 200

    change(first)
    assert comes_true(lambda: models(honshu) == ["honshu.scripted"])
    assert honshu.ask(model="second.scripted").status_code == 404


def test_a_change_of_address_is_taken_at_the_next_start_and_says_so(honshu):
    port, other = free_port(), free_port()
    honshu.start(SCRIPTED.format(port=port), port=port)
    honshu.key = honshu.make_key()
    (honshu.data_dir / "config.toml").write_text(SCRIPTED.format(port=other))
    honshu.process.send_signal(signal.SIGHUP)
    assert comes_true(lambda: any("next start" in line["message"] for line in log_lines(honshu)))
    assert honshu.ask().status_code == 200


def test_a_stream_goes_on_while_its_model_is_taken_away(honshu):
    port = free_port()
    honshu.start(SCRIPTED.format(port=port) + SECOND, port=port)
    honshu.key = honshu.make_key()
    headers = {"authorization": f"Bearer {secret(honshu.key)}"}
    body = {"model": "second.scripted", "input": "Answer with 150 words [scripted: delay-ms=20]", "stream": True}
    with httpx.stream("POST", honshu.url + "/v1/responses", json=body, headers=headers, timeout=60) as response:
        lines = response.iter_lines()
        next(lines)
        (honshu.data_dir / "config.toml").write_text(SCRIPTED.format(port=port))
        honshu.process.send_signal(signal.SIGHUP)
        assert comes_true(lambda: models(honshu) == ["honshu.scripted"])
        assert "event: response.completed" in list(lines)


def test_a_model_that_is_pulled_beside_the_server_is_there_and_goes_again(scripted, models):
    seen = lambda: {model["id"] for model in httpx.get(
        scripted.url + "/v1/models", headers={"authorization": f"Bearer {secret(scripted.key)}"}).json()["data"]}
    blob = max((models / "blobs").iterdir(), key=lambda path: path.stat().st_size)
    source = scripted.data_dir / "smollm2.gguf"
    shutil.copy(blob, source)
    pulled = scripted.json("model", "pull", source)["id"]
    assert comes_true(lambda: seen() == {"honshu.scripted", pulled})
    answer = scripted.ask(model=pulled, max_output_tokens=2)
    assert answer.status_code == 200 and answer.json()["model"] == pulled
    scripted.run("model", "remove", pulled)
    assert comes_true(lambda: seen() == {"honshu.scripted"})
    assert SMALL_MODEL not in seen()
