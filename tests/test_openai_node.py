"""The official OpenAI SDK for Node."""

import json
import subprocess

from conftest import ROOT, secret


def test_responses_chat_streams_and_models(scripted):
    done = subprocess.run(
        ["node", "chat.mjs"], cwd=ROOT / "tests/node", capture_output=True, text=True, timeout=120,
        env=scripted.environment(KEY=secret(scripted.key), BASE=scripted.url + "/v1"),
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("usage") > 0
    assert said == {
        "response": "one two three", "streamed": "one two three", "last": "response.completed",
        "chat": "one two three", "chunks": "one two three", "models": ["honshu.scripted"],
        "unknown": "NotFoundError",
    }
