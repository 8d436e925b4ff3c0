"""The official OpenAI SDK for Node."""

import json
import re
import subprocess

import pytest

from conftest import ROOT, secret

METHODS = ROOT / "tests/node/methods.mjs"
SECTIONS = re.findall(r"^  async (\w+)\(\) \{$", METHODS.read_text(), re.MULTILINE)


def node(honshu, *args):
    return subprocess.run(
        ["node", *args], cwd=ROOT / "tests/node", capture_output=True, text=True, timeout=120,
        env=honshu.environment(KEY=secret(honshu.key), BASE=honshu.url + "/v1"),
    )


def test_responses_chat_streams_and_models(scripted):
    done = node(scripted, "chat.mjs")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said.pop("usage") > 0
    assert said == {
        "response": "one two three", "streamed": "one two three", "last": "response.completed",
        "chat": "one two three", "chunks": "one two three", "models": ["honshu.scripted"],
        "unknown": "NotFoundError",
    }


@pytest.fixture(scope="module")
def permitted(shared):
    for name, resource in (("node-files", "generative-ai-file"), ("node-vectors", "generative-ai-text-embedding")):
        shared.run("policy", "create", "--compartment", "root", "--name", name, "--statement",
                   f"allow any-user to manage {resource} in tenancy where request.principal.type = 'generativeaiapikey'")
    return shared


def test_there_are_sections():
    assert len(SECTIONS) == 10


@pytest.mark.parametrize("section", SECTIONS)
def test_every_method(permitted, section):
    done = node(permitted, METHODS.name, section)
    assert done.returncode == 0, done.stderr
