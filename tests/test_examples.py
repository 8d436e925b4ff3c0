"""The examples of the repository run as they are, and curl by hand."""

import json
import shutil
import subprocess

import pytest

from conftest import ROOT, events_of, secret


@pytest.fixture
def environment(shared):
    return shared.environment(
        HONSHU_API_KEY=secret(shared.key), HONSHU_BASE_URL=shared.url + "/v1", HONSHU_MODEL="honshu.scripted")


def curl(*args):
    done = subprocess.run(["curl", "-sS", *args], capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_example(environment):
    done = subprocess.run([ROOT / "examples/curl/requests.sh"], env=environment, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    models, response = json.loads(lines[0]), json.loads(lines[1])
    assert [model["id"] for model in models["data"]] == ["honshu.scripted"]
    assert response["status"] == "completed" and response["usage"]["total_tokens"] > 0
    chat = next(json.loads(line) for line in lines[2:] if line.startswith('{"id":"chatcmpl-'))
    assert chat["choices"][0]["message"]["content"] == response["output"][0]["content"][0]["text"]
    assert done.stdout.count("event: response.completed\n") == 1
    assert done.stdout.rstrip().endswith("data: [DONE]")


def test_the_curl_example_says_what_went_wrong(environment):
    done = subprocess.run([ROOT / "examples/curl/requests.sh"], env=environment | {"HONSHU_API_KEY": "sk-wrong"},
                          capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode == 22 and "invalid_api_key" in done.stdout and "401" in done.stderr
    without = {name: value for name, value in environment.items() if name != "HONSHU_API_KEY"}
    done = subprocess.run([ROOT / "examples/curl/requests.sh"], env=without, capture_output=True, encoding="utf-8", timeout=60)
    assert done.returncode != 0 and "set HONSHU_API_KEY" in done.stderr


def test_curl_streams_frame_by_frame(shared):
    url, key = shared.url + "/v1/responses", f"Authorization: Bearer {secret(shared.key)}"
    body = json.dumps({"model": "honshu.scripted", "stream": True, "input": "Answer with 30 words [scripted: delay-ms=40]"})
    process = subprocess.Popen(["curl", "-sSN", url, "-H", key, "-d", body], stdout=subprocess.PIPE, text=True)
    # The first words are there while the last ones are still to come.
    seen = ""
    while "output_text.delta" not in seen:
        line = process.stdout.readline()
        assert line, seen
        seen += line
    assert process.poll() is None and "response.completed" not in seen
    *events, end = events_of(seen + process.stdout.read())
    assert process.wait(60) == 0
    assert end == "[DONE]"
    assert events[-1]["type"] == "response.completed"
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    head = curl("-D-", "-o/dev/null", url, "-H", key, "-d", body.replace("delay-ms=40", ""))
    assert head.startswith("HTTP/1.1 200") and "content-type: text/event-stream\n" in head
    assert "x-accel-buffering: no" in head and "x-request-id: " in head and "opc-request-id: " in head


def test_curl_by_http_2_and_by_hand(shared):
    url, key = shared.url + "/v1/chat/completions", f"Authorization: Bearer {secret(shared.key)}"
    body = '{"model": "honshu.scripted", "messages": [{"role": "user", "content": "Reply with exactly: 本州 🗾"}]}'
    for version in ("--http1.1", "--http2-prior-knowledge"):
        answer = json.loads(curl(version, url, "-H", key, "-d", body))
        assert answer["choices"][0]["message"]["content"] == "本州 🗾"
        # A large body is announced with `Expect: 100-continue`.
        large = body.replace("Reply", "x" * 2_000_000 + " Reply")
        answer = json.loads(subprocess.run(
            ["curl", "-sS", version, url, "-H", key, "-H", "Expect: 100-continue", "--data-binary", "@-"], input=large,
            capture_output=True, encoding="utf-8", timeout=60, check=True).stdout)
        assert answer["choices"][0]["message"]["content"] == "本州 🗾"
    assert curl("-I", shared.url + "/healthz").startswith("HTTP/1.1 200")


def test_the_node_example(shared, environment, tmp_path):
    shutil.copy(ROOT / "examples/node/chat.mjs", tmp_path)
    # As after `npm install openai` beside it.
    (tmp_path / "node_modules").symlink_to(ROOT / "tests/node/node_modules")
    done = subprocess.run(["node", "chat.mjs", "Reply with exactly: one two"], cwd=tmp_path, env=environment,
                          capture_output=True, encoding="utf-8", timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "one two\n", "")
