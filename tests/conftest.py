"""Fixtures for the tests that run the real binary with real clients.

`HONSHU` names the binary. Each server gets a data directory of its own and free ports. `HONSHU_SOAK=1` asks for the
full counts.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
import urllib.error
import urllib.request

import httpx
import pytest

from judge import Judge, watch

ROOT = pathlib.Path(__file__).resolve().parent.parent
BINARY = os.environ.get("HONSHU", str(ROOT / "target/release/honshu"))
SOAK = os.environ.get("HONSHU_SOAK") == "1"
SMALL_MODEL = "huggingfacetb.smollm2-135m-instruct"
ARTICLE_STATEMENT = (
    "allow any-user to use generative-ai-chat in compartment {} "
    "where request.principal.type = 'generativeaiapikey'"
)


# The inference paths by dialect, and what a body calls its input.
DIALECTS = {"responses": "/v1/responses", "chat": "/v1/chat/completions"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Honshu:
    """The command line on one data directory, and the servers that run on it."""

    def __init__(self, data_dir: pathlib.Path):
        self.data_dir = data_dir
        self.process = None
        self.url = None

    def environment(self, **more):
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("HONSHU", "LANG", "LC_"))}
        return kept | {"HONSHU_DATA_DIR": str(self.data_dir), "LANG": "C.UTF-8"} | more

    def run(self, *args, check=True, input=None, timeout=120, env=None):
        done = subprocess.run(
            [BINARY, *map(str, args)],
            capture_output=True,
            encoding="utf-8",
            input=input,
            timeout=timeout,
            env=self.environment(**(env or {})),
        )
        if check and done.returncode != 0:
            raise AssertionError(f"honshu {' '.join(map(str, args))}: exit {done.returncode}\n{done.stderr}")
        return done

    def json(self, *args, **options):
        return json.loads(self.run(*args, "--output", "json", **options).stdout)

    def start(self, config: str | None = None, port: int | None = None, wait=True, env=None):
        args = [BINARY, "serve"]
        if config is None:
            port = port or free_port()
            args += ["--listen", f"127.0.0.1:{port}"]
        else:
            path = self.data_dir / "config.toml"
            path.write_text(config)
            args += ["--config", str(path)]
        self.log = open(self.data_dir / "server.log", "ab")
        self.process = subprocess.Popen(
            args, stderr=self.log, stdout=self.log, env=self.environment(**(env or {}))
        )
        if port:
            self.url = f"http://127.0.0.1:{port}"
            if wait:
                self.wait_ready(self.url)
        return self

    def wait_ready(self, url: str, seconds=60):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}\n{self.server_log()}")
            with contextlib.suppress(OSError, urllib.error.URLError):
                if urllib.request.urlopen(url + "/readyz", timeout=2).status == 200:
                    return
            time.sleep(0.05)
        raise AssertionError(f"{url} was not ready in {seconds} s\n{self.server_log()}")

    def server_log(self) -> str:
        return (self.data_dir / "server.log").read_text(errors="replace")[-4000:]

    def stop(self, how=signal.SIGTERM, timeout=60):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout)
        code = self.process.returncode if self.process else None
        if self.process:
            self.log.close()
        self.process = None
        return code

    def ask(self, text="hi", secret_value=None, dialect="responses", model="honshu.scripted", timeout=60, **more):
        """One whole answer, with the first secret of `self.key` unless another is given."""
        value = secret(self.key) if secret_value is None else secret_value
        return httpx.post(
            self.url + DIALECTS[dialect], headers={"authorization": f"Bearer {value}"},
            json=body_of(dialect, text, model, **more), timeout=timeout,
        )

    def usage_rows(self, seconds=20):
        """Every usage row, once the spool has been shipped to the database."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.query("usage-spool.db", "SELECT count(*) AS n FROM batches")[0]["n"] == 0:
                return self.query("honshu.db", "SELECT * FROM usage ORDER BY arrival")
            time.sleep(0.1)
        raise AssertionError(f"usage rows stayed in the spool for {seconds} s\n{self.server_log()}")

    def query(self, file: str, sql: str):
        with contextlib.closing(sqlite3.connect(f"file:{self.data_dir / file}?mode=ro", uri=True, timeout=10)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute(sql)]

    def make_key(self, compartment="root", name="test", allow=True, **options):
        """An API key that may chat, with its two secrets."""
        flags = [item for flag, value in options.items() for item in (f"--{flag.replace('_', '-')}", value)]
        key = self.json(
            "api-key", "create", "--compartment", compartment, "--display-name", name,
            "--key-one-name", "one", "--key-two-name", "two", *flags,
        )
        if allow:
            where = "tenancy" if compartment == "root" else f"compartment {compartment}"
            self.run(
                "policy", "create", "--compartment", "root", "--name", f"allow-{name}", "--statement",
                f"allow any-user to use generative-ai-chat in {where} "
                "where request.principal.type = 'generativeaiapikey'",
            )
        return key


def secret(key, name="one"):
    return next(item["key"] for item in key["keys"] if item["keyName"] == name)


def body_of(dialect, text, model="honshu.scripted", **more):
    """A request body that asks `text`."""
    if dialect == "responses":
        return {"model": model, "input": text} | more
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def events_of(text: str):
    """The data of each server-sent event, parsed where it is JSON."""
    found = []
    for line in text.splitlines():
        if line.startswith("data:"):
            data = line.removeprefix("data:").strip()
            found.append(json.loads(data) if data.startswith("{") else data)
    return found


@pytest.fixture(scope="session")
def judge(tmp_path_factory):
    """Holds answers against the binary's own OpenAPI document."""
    return Judge(Honshu(tmp_path_factory.mktemp("document")).json("openapi"))


@pytest.fixture(autouse=True)
def judged(request, monkeypatch):
    """Every answer that a client of a test gets is one that the OpenAPI document describes. A test whose upstream makes
    answers of its own kind, which are passed on as they are, says so by the mark `passes_on`."""
    problems = []
    if "passes_on" not in request.keywords:
        watch(monkeypatch, request.getfixturevalue("judge"), problems)
    yield
    assert not problems, problems[0]


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A models directory with the small model, pulled as a user would."""
    home = Honshu(tmp_path_factory.mktemp("models"))
    home.run("model", "pull", "smollm2-135m-instruct", timeout=900)
    return home.data_dir / "models"


@contextlib.contextmanager
def at_home(path):
    """A data directory; whatever server was started on it is stopped."""
    home = Honshu(path)
    try:
        yield home
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            home.stop(timeout=10)
        if home.process:
            home.stop(signal.SIGKILL)


@pytest.fixture
def honshu(tmp_path):
    """An empty data directory; whatever server was started on it is stopped."""
    with at_home(tmp_path) as home:
        yield home


@pytest.fixture
def honshu_with_model(honshu, models):
    shutil.copytree(models, honshu.data_dir / "models", copy_function=os.link)
    return honshu


SCRIPTED = """
[server]
listen = "127.0.0.1:{port}"

[[provider]]
name = "scripted"
kind = "scripted"

[[model]]
id = "honshu.scripted"

[[model.deployment]]
provider = "scripted"
"""


@pytest.fixture
def scripted(honshu):
    """A server with the scripted model, and a key that may use it."""
    port = free_port()
    honshu.start(SCRIPTED.format(port=port), port=port)
    honshu.key = honshu.make_key()
    return honshu


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The same for tests of one file that do not get in each other's way."""
    with at_home(tmp_path_factory.mktemp("shared")) as home:
        port = free_port()
        home.start(SCRIPTED.format(port=port), port=port)
        home.key = home.make_key()
        yield home
