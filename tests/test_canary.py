"""Secrets, credentials and prompts are looked for where they must not be: the log at its most talkative, and every
file of the data directory, whole or encoded."""

import base64
import urllib.parse

import httpx
import pytest

from conftest import DIALECTS, SCRIPTED, SMALL_MODEL, body_of, free_port, secret
from upstream import Upstream

PROMPT = "canary-prompt-7f3a"
SYSTEM = "canary-system-91bc"
ANSWER = "canary-answer-44de"
# Of a response that its caller let us store.
STORED = "canary-stored-c0de"
UPSTREAM_KEY = "upstream-canary-credential-5521"
GARBAGE = "sk-canary-garbage-000111222333"


def forms(text: str):
    """A text as it may be written: plain, in hexadecimal, in base 64 (without the ends, which depend on neighbours)."""
    data = text.encode()
    return [data, data.hex().encode(), data.hex().upper().encode(), base64.b64encode(data)[4:-4],
            base64.b64encode(b" " + data)[4:-4], base64.b64encode(b"  " + data)[4:-4]]


@pytest.mark.passes_on
def test_nothing_that_must_stay_secret_is_written_anywhere(honshu_with_model):
    honshu = honshu_with_model
    port = free_port()
    credential = honshu.data_dir.parent / "credential-of-the-operator"
    credential.write_text(UPSTREAM_KEY + "\n")
    with Upstream() as upstream:
        config = SCRIPTED.format(port=port) + upstream.config(f'credential = "file:{credential}"')
        honshu.start(config, port=port, env={"HONSHU_LOG": "trace", "RUST_LOG": "trace"})
        key = honshu.key = honshu.make_key()
        renewed = honshu.json("api-key", "renew", "--api-key-id", key["id"], "--key-name", "two")
        secrets = [secret(key, "one"), secret(key, "two"), secret(renewed, "two")]
        signatures = []
        for model in ("honshu.scripted", "mock.upstream", SMALL_MODEL):
            for dialect in DIALECTS:
                for streams in (False, True):
                    limit = {"max_output_tokens": 4, "store": False} if dialect == "responses" else {"max_completion_tokens": 4}
                    answer = honshu.ask(
                        f"{PROMPT}\nReply with exactly: {ANSWER}", dialect=dialect, model=model, stream=streams,
                        user=PROMPT, metadata={"canary": PROMPT}, **limit)
                    assert answer.status_code == 200, answer.text
        stored = honshu.ask(f"{STORED}\nReply with exactly: {STORED}", user=STORED, metadata={"canary": STORED})
        assert stored.status_code == 200, stored.text
        # Failures are where logs grow careless.
        honshu.ask(PROMPT, secret_value=GARBAGE, store=False)
        honshu.ask(PROMPT, model="no.such-model", store=False)
        honshu.ask(PROMPT, temperature=PROMPT, store=False)
        honshu.ask(f"{PROMPT} [scripted: fail-at=3]", store=False)
        honshu.ask(f"{PROMPT} [scripted: fail-at=0 status=503]", stream=True, store=False)
        httpx.post(honshu.url + DIALECTS["chat"], content=f'{{"model": "honshu.scripted", "messages": "{PROMPT}', headers={"authorization": f"Bearer {secrets[0]}"})
        httpx.get(honshu.url + "/v1/models", headers={"authorization": f"Basic {secrets[0]}", "x-api-key": secrets[0]})
        system = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": PROMPT}]
        httpx.post(honshu.url + DIALECTS["chat"], json={"model": "honshu.scripted", "messages": system},
                   headers={"authorization": f"Bearer {secrets[0]}"})
        honshu.run("chat", "--model", "honshu.scripted", "--system", SYSTEM, PROMPT)
        log = (honshu.data_dir / "server.log").read_text(errors="replace")
        assert upstream.authorizations == {f"Bearer {UPSTREAM_KEY}"}
    assert '"level":"TRACE"' in log or '"level":"DEBUG"' in log, "the log was not at its most talkative"
    assert 'signature=\\"' not in log and "Signature version" not in log
    honshu.stop()

    key_pem = (honshu.data_dir / "admin/key.pem").read_text()
    key_body = "".join(line for line in key_pem.splitlines() if "-" not in line)[100:160]
    pepper = (honshu.data_dir / "pepper").read_text().strip()
    forbidden = {
        "secret": secrets, "prompt": [PROMPT, urllib.parse.quote(PROMPT)], "system": [SYSTEM], "answer": [ANSWER], "stored": [STORED],
        "upstream key": [UPSTREAM_KEY], "garbage key": [GARBAGE], "signing key": [key_body], "pepper": [pepper],
    }
    home = {
        "signing key": ["admin/key.pem"], "pepper": ["pepper"],
        "stored": ["responses.db", "responses.db-wal", "responses.db-shm"],
    }
    files = [path for path in honshu.data_dir.rglob("*") if path.is_file() and path.suffix != ".gguf" and "blobs" not in path.parts]
    assert {"honshu.db", "usage-spool.db", "server.log", "config.toml"} <= {path.name for path in files}
    found = []
    for path in files:
        data = path.read_bytes()
        name = str(path.relative_to(honshu.data_dir))
        for what, texts in forbidden.items():
            if name in home.get(what, []):
                continue
            for text in texts:
                for form in forms(text):
                    at = data.find(form)
                    if at >= 0:
                        found.append(f"{what} in {name}: …{data[max(0, at - 200):at + 40]!r}")
    assert found == []
    # Files that hold secrets, and those that say who may do what, are their owner's alone.
    for name in ("pepper", "admin/key.pem", "admin/config", "honshu.db", "usage-spool.db", "responses.db"):
        assert (honshu.data_dir / name).stat().st_mode & 0o077 == 0, name
