"""The command line, whole: what each command prints where, and how it ends.

The transcripts are in `snapshots/`. `HONSHU_UPDATE_SNAPSHOTS=1` writes them anew. What differs from run to run is
checked for its form and then replaced by a name.
"""

import difflib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess

import httpx
import pytest

from conftest import BINARY, SCRIPTED, at_home, free_port, secret

SNAPSHOTS = pathlib.Path(__file__).parent / "snapshots"
ENGLISH, JAPANESE = "C.UTF-8", "ja_JP.UTF-8"
STATEMENT = "allow any-user to use generative-ai-chat in compartment {} where request.principal.type = 'generativeaiapikey'"
EXPIRES = "2099-01-02T03:04:05Z"

# What is replaced, each by its whole form: anything else stays in the transcript and is seen.
SHAPES = [
    ("ocid", re.compile(r"ocid1\.(?P<kind>[a-z]+)\.oc1\.[a-z0-9-]*\.[a-z2-7]{60}\b")),
    ("time", re.compile(r"\b20[2-3]\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")),
    ("secret", re.compile(r"\bsk-[0-9A-Za-z]{48}\b")),
    ("mask", re.compile(r"sk-\*{4}[0-9A-Za-z]{4}\b")),
    ("request-id", re.compile(r"\b[0-9A-F]{32}\b")),
]


class Redactor:
    """Replaces what differs by names that stay the same within a transcript, so that who is who can be read."""

    def __init__(self, home):
        self.home, self.names, self.counts = home, {}, {}

    def __call__(self, text):
        for name, shape in SHAPES:
            text = shape.sub(lambda match, name=name: self.name(name, match), text)
        if self.home.url:
            text = text.replace(self.home.url, "<url>")
        text = text.replace(str(self.home.data_dir), "<data-dir>")
        return re.sub(r"\b(process|pid) \d+", r"\1 <pid>", text)

    def name(self, kind, match):
        found = match.group(0)
        # Columns stay where they are.
        width = len(found) if match.string[match.end():match.end() + 2] == "  " else 0
        if kind == "time":
            # The only times that a test can foresee are those that it gave itself.
            return found if found.startswith("2099") else "<time>".ljust(width)
        if found not in self.names:
            kind = match.groupdict().get("kind") or kind
            self.counts[kind] = self.counts.get(kind, 0) + 1
            self.names[found] = f"<{kind}-{self.counts[kind]}>"
        return self.names[found].ljust(width)


class Transcript:
    """Runs commands and writes down what a person would see: `|` standard output, `!` standard error."""

    def __init__(self, home, lang=ENGLISH, form=None):
        self.home, self.lang, self.form = home, lang, form
        self.redact = Redactor(home)
        self.text = ""
        self.turn = 0

    def run(self, *args, code=0, input=None, form=None, env=None):
        args = [str(arg) for arg in args]
        form = form or self.form
        if form == "json":
            # Before and after the other flags, in turn.
            self.turn += 1
            args = ["--output", "json", *args] if self.turn % 2 else [*args, "--output", "json"]
        done = self.home.run(*args, check=False, input=input, env={"LANG": self.lang} | (env or {}))
        self.text += "$ honshu " + self.redact(shlex.join(args)) + "\n"
        for mark, stream in (("|", done.stdout), ("!", done.stderr)):
            assert "\x1b" not in stream, "there is colour where no terminal is"
            for line in self.redact(stream).splitlines():
                # A path is as long as the run's directory, and so is the padding behind it.
                self.text += f"{mark} {line}".rstrip() + "\n"
        self.text += f"[{done.returncode}]\n\n"
        assert done.returncode == code, f"{args}: {done.stdout}{done.stderr}"
        if form == "json" and done.stdout:
            return json.loads(done.stdout)
        return done

    def fails(self, *args, code=1, **options):
        """A command that must fail: nothing on standard output, an error and the next step on standard error."""
        done = self.run(*args, code=code, form="table", **options)
        error, hint = ("error: ", "hint: ") if self.lang == ENGLISH else ("エラー: ", "ヒント: ")
        assert done.stdout == ""
        assert done.stderr.startswith(error), done.stderr
        # The next step stands in a line of its own, or at the end of the error.
        assert f"\n{hint}" in done.stderr or "; " in done.stderr.splitlines()[0], done.stderr
        return done

    def compare(self, name):
        path = SNAPSHOTS / f"{name}.txt"
        if os.environ.get("HONSHU_UPDATE_SNAPSHOTS") == "1":
            path.write_text(self.text)
        expected = path.read_text() if path.exists() else ""
        difference = "".join(difflib.unified_diff(
            expected.splitlines(True), self.text.splitlines(True), str(path.name), "now"))
        assert difference == "", "\n" + difference


def a_life(home, models, lang, form):
    """Every command of the first release, once, as a person would use them one after the other."""
    said = Transcript(home, lang, form)
    said.run("init", "--tenancy-name", "acme")
    said.run("init")
    port = free_port()
    home.start(SCRIPTED.format(port=port), port=port)

    def made(*args):
        """The object that a command makes, by its id, whatever was printed."""
        done = said.run(*args)
        if form == "json":
            return done
        ocid = re.search(r"ocid1\.(generativeaiapikey|policy)\.\S+", done.stdout).group(0)
        values = re.findall(r"\bsk-[0-9A-Za-z]{48}\b", done.stdout)
        return {"id": ocid, "keys": [{"key": value} for value in values]}

    said.run("compartment", "create", "--name", "生成AI", "--description", "The article's")
    said.run("compartment", "create", "--name", "dev", "--parent", "生成AI")
    said.run("compartment", "list")
    said.run("compartment", "get", "--compartment", "生成AI:dev")

    key = made("api-key", "create", "--compartment", "生成AI", "--display-name", "article", "--description", "two secrets",
               "--key-one-name", "one", "--key-one-expires", EXPIRES, "--key-two-name", "two", "--key-two-expires", EXPIRES)
    assert len(key["keys"]) == 2
    ids = ("--api-key-id", key["id"])
    said.run("api-key", "list", "--compartment", "生成AI")
    said.run("api-key", "get", *ids)
    renewed = made("api-key", "renew", *ids, "--key-name", "two", "--expires", EXPIRES)
    fresh = [item["key"] for item in renewed["keys"] if item.get("key")]
    assert len(fresh) == 1 and fresh[0] not in [item["key"] for item in key["keys"]]
    said.run("api-key", "set-state", *ids, "--key-name", "one", "--state", "INACTIVE")
    said.run("api-key", "set-state", *ids, "--key-name", "one", "--state", "active")
    said.run("api-key", "update", *ids, "--display-name", "renamed")

    policy = made("policy", "create", "--compartment", "root", "--name", "article", "--statement", STATEMENT.format("生成AI"),
                  "--statement", "allow group Administrators to manage all-resources in compartment 生成AI:dev")
    assert home.ask(secret_value=fresh[0]).status_code == 200
    said.run("policy", "list")
    said.run("policy", "get", "--policy-id", policy["id"])
    said.run("policy", "check", "--statement", STATEMENT.format("生成AI"))
    said.run("policy", "check", "--statement", "allow any-user to fly in tenancy", code=1)
    said.run("policy", "check", "--file", "-", input="# one a line\nallow any-user to use generative-ai-chat in tenancy\n\n"
             "allow group A to inspect all-resources in tenancy where request.region = 'KIX'\n")
    said.run("policy", "update", "--policy-id", policy["id"], "--statement", STATEMENT.format("生成AI:dev"))

    said.run("chat", "Reply", "with", "exactly:", "本州 is", "an island")
    said.run("chat", "--model", "honshu.scripted", "--compartment", "生成AI", "--system", "Be brief.", "--temperature", "0",
             "--max-tokens", "3", "Answer with 5 words")
    if form != "json":
        said.run("chat", input="Reply with exactly: first\n\nReply with exactly: second\n")

    said.run("policy", "delete", "--policy-id", policy["id"])
    said.run("api-key", "delete", *ids)
    said.run("api-key", "list", "--compartment", "生成AI")
    said.run("compartment", "delete", "--compartment", "生成AI:dev")
    home.stop()

    # Models need no server.
    said.run("model", "list")
    said.run("model", "show", "smollm2-135m-instruct")
    shutil.copytree(models, home.data_dir / "models", copy_function=os.link, dirs_exist_ok=True)
    said.run("model", "list", "--pulled")
    said.run("model", "pull", "smollm2-135m-instruct")
    said.run("model", "show", "huggingfacetb.smollm2-135m-instruct")
    said.run("model", "remove", "smollm2-135m-instruct")
    said.run("model", "list", "--pulled")
    return said


@pytest.mark.parametrize("name,lang,form", [
    ("life-en", ENGLISH, None), ("life-ja", JAPANESE, "table"), ("life-json", ENGLISH, "json"),
])
def test_a_whole_life(tmp_path, models, name, lang, form):
    with at_home(tmp_path) as home:
        a_life(home, models, lang, form).compare(name)


@pytest.mark.parametrize("name,lang", [("errors-en", ENGLISH), ("errors-ja", JAPANESE)])
def test_every_failure_says_what_to_do_next(tmp_path, name, lang):
    with at_home(tmp_path) as home:
        said = Transcript(home, lang)
        # 78: the surroundings are wrong.
        said.fails("compartment", "list", code=78)
        said.fails("chat", "hi", code=78)
        said.run("init")
        said.fails("api-key", "list")
        (tmp_path / "bad.toml").write_text("[server]\nlistn = 1\n")
        said.fails("serve", "--config", tmp_path / "bad.toml", code=78)
        said.fails("--profile", "NOBODY", "compartment", "list", code=78)
        said.fails("--config-file", tmp_path / "none", "compartment", "list", code=78)
        said.fails("--endpoint", "http://127.0.0.1:9", "compartment", "list")
        port = free_port()
        home.start(SCRIPTED.format(port=port), port=port)
        # 1: it failed.
        absent = "ocid1.generativeaiapikey.oc1.local-1." + "a" * 60
        said.fails("api-key", "get", "--api-key-id", absent)
        said.fails("api-key", "delete", "--api-key-id", absent)
        said.fails("api-key", "create", "--compartment", "nowhere", "--display-name", "x", "--key-one-name", "a")
        said.fails("api-key", "create", "--compartment", "root", "--display-name", "x", "--key-one-name", "a",
                   "--key-one-expires", "2001-01-01T00:00:00Z")
        said.fails("api-key", "create", "--compartment", "root", "--display-name", "x", "--key-one-name", "a",
                   "--key-one-expires", "tomorrow")
        said.run("compartment", "create", "--name", "twice", form="json")
        said.fails("compartment", "create", "--name", "TWICE")
        said.fails("policy", "create", "--compartment", "root", "--name", "p", "--statement", "allow any-user to fly in tenancy")
        said.fails("policy", "get", "--policy-id", "nonsense")
        said.fails("chat", "--model", "no.such-model", "hi")
        said.fails("chat", "Answer with 9 words [scripted: fail-at=0 status=400]")
        said.fails("--region", "eu-nowhere-1", "compartment", "list", code=2)
        said.fails("model", "show", "no-such-model")
        said.fails("model", "remove", "no-such-model")
        said.fails("model", "pull", "no-such-model", code=2)
        said.fails("model", "pull", tmp_path / "bad.toml")
        # 2: the command line itself is wrong. The argument parser speaks English only.
        said.fails("api-key", "create", "--compartment", "root", "--display-name", "x", "--key-one-name", "a",
                   "--key-two-expires", EXPIRES, code=2)
        said.fails("api-key", "update", "--api-key-id", absent, code=2)
        said.fails("policy", "check", code=2)
        for args in (["frobnicate"], ["api-key", "create"], ["--output", "xml", "compartment", "list"], ["api-key", "lst"],
                     ["api-key", "set-state", "--api-key-id", absent, "--key-name", "a", "--state", "GONE"], [],
                     ["serve", "--listen", "here"]):
            done = said.run(*args, code=2)
            assert done.stdout == "" and done.stderr
            assert "engine-self-test" not in done.stderr
        said.compare(name)


def test_help_and_version_are_data(honshu):
    for args in (["--help"], ["--version"], ["api-key", "create", "--help"], ["help", "policy"]):
        done = honshu.run(*args)
        assert done.stdout and not done.stderr and "\x1b" not in done.stdout
    commands = honshu.run("--help").stdout
    for command in ("serve", "init", "quickstart", "chat", "model", "api-key", "policy", "compartment"):
        assert f"\n  {command} " in commands
        assert honshu.run(command, "--help").stdout
    for shell in ("bash", "zsh", "fish"):
        assert "honshu" in honshu.run("completions", shell).stdout


def test_control_codes_of_an_answer_do_not_reach_the_terminal(shared):
    evil = "a\x1b[31mb\x1b]0;title\x07c\x9b2Jd\x00e\x08f\x7fg"
    # By standard input, since an argument cannot hold every code.
    done = shared.run("chat", input=f"Reply with exactly: {evil}\n")
    assert done.stdout == "a[31mb]0;titlec2Jdefg\n"
    # JSON is for programs: nothing is lost, and what a terminal would obey is escaped.
    text = shared.run("chat", "--output", "json", input=f"Reply with exactly: {evil}\n").stdout
    assert json.loads(text)["text"] == evil
    assert not [char for char in text if ord(char) < 32 and char != "\n"]
    # Descriptions come from elsewhere as well.
    key = shared.json("api-key", "create", "--compartment", "root", "--display-name", "evil", "--key-one-name", "a",
                      "--description", "d\x1b[2Je\x07f")
    assert key["description"] == "d\x1b[2Je\x07f"
    shown = shared.run("api-key", "get", "--api-key-id", key["id"]).stdout
    assert "d\ufffd[2Je\ufffdf" in shown and "\x1b" not in shown


def test_flags_before_and_after_are_the_same(shared):
    for command in (["compartment", "list"], ["policy", "list"], ["api-key", "list"], ["model", "list"],
                    ["policy", "check", "--statement", "allow any-user to use generative-ai-chat in tenancy"]):
        before = shared.run("--output", "json", *command).stdout
        assert before == shared.run(*command, "--output", "json").stdout == shared.run(command[0], "--output=json", *command[1:]).stdout
        assert json.loads(before)
        table = shared.run(*command).stdout
        assert table == shared.run("--output", "table", *command).stdout and not table.startswith(("[", "{"))


def test_a_reader_that_leaves_is_no_error(shared):
    done = subprocess.run(
        f"{shlex.quote(BINARY)} model list | true; echo ${{PIPESTATUS[0]}}", shell=True, executable="/bin/bash",
        capture_output=True, encoding="utf-8", env=shared.environment(), timeout=60)
    assert "panicked" not in done.stderr and "error" not in done.stderr


def test_an_answer_that_breaks_off_is_an_error(shared):
    done = shared.run("chat", "Answer with 9 words [scripted: cut-at=6]", check=False)
    assert done.returncode == 1 and "error: " in done.stderr
    done = shared.run("chat", "--output", "json", "Answer with 9 words [scripted: fail-at=6]", check=False)
    assert done.returncode == 1 and done.stdout == "" and "error: " in done.stderr


def test_what_the_command_makes_is_what_the_api_shows(shared):
    """The JSON of a key is OCI's object, and its secrets are shown this once."""
    key = shared.json("api-key", "create", "--compartment", "root", "--display-name", "shape", "--key-one-name", "one",
                      "--key-one-expires", EXPIRES, "--key-two-name", "two")
    assert {"id", "displayName", "compartmentId", "lifecycleState", "timeCreated", "keys"} <= set(key)
    assert [item["keyName"] for item in key["keys"]] == ["one", "two"]
    assert key["keys"][0]["timeExpiry"].startswith("2099-01-02T03:04:05")
    again = shared.json("api-key", "get", "--api-key-id", key["id"])
    assert [item.get("key") for item in again["keys"]] == [None, None]
    for item in key["keys"]:
        answer = httpx.get(shared.url + "/v1/models", headers={"authorization": f"Bearer {secret(key, item['keyName'])}"})
        assert answer.status_code == 200
