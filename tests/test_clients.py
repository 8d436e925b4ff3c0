"""Libraries that programs use instead of an SDK: each whole and streamed, with a tool call and its result."""

import json
import os
import pathlib
import subprocess

import pytest

from conftest import ROOT, secret

PYTHON = pathlib.Path(os.environ.get("HONSHU_CLIENTS", ROOT / ".cache/venv-clients")) / "bin/python"


def run(shared, tmp_path, *command, cwd):
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, encoding="utf-8", timeout=240,
        # Some of them look for settings and caches of their own at home.
        env=shared.environment(
            KEY=secret(shared.key), BASE=shared.url + "/v1", HOME=str(tmp_path),
            LITELLM_LOCAL_MODEL_COST_MAP="True", AI_SDK_LOG_WARNINGS="false"),
    )
    assert done.returncode == 0, done.stderr[-4000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said.pop("usage") == 3
    return said


@pytest.mark.parametrize("script", [
    ("langchain_client.py", "chat"), ("langchain_client.py", "responses"), ("llamaindex_client.py",),
    ("litellm_client.py", "openai"), ("litellm_client.py", "anthropic"),
], ids="-".join)
def test_a_python_library(shared, tmp_path, script):
    called = ["get_weather", {"city": "Osaka"}, "The tool said: 22 degrees in Osaka"]
    assert run(shared, tmp_path, PYTHON, *script, cwd=ROOT / "tests/clients") == {
        "text": "one two three", "streamed": "one two three", "pieces": True, "called": called,
        "called_streamed": called,
    }


@pytest.mark.parametrize("api", ["responses", "chat", "compatible"])
def test_the_ai_sdk(shared, tmp_path, api):
    called = [2, "The tool said: 22 degrees in Osaka"]
    assert run(shared, tmp_path, "node", "ai-sdk.mjs", api, cwd=ROOT / "tests/agents") == {
        "text": "one two three", "streamed": "one two three", "pieces": True, "called": called,
        "called_streamed": called, "calls": ["Osaka", "Osaka"],
    }
