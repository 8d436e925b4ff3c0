"""Coding agents as their registries ship them, run without a person in front of them against the binary.

The scripted model leads each through the same work: read a file, change it, say so. That they all do it shows that our
streamed tool calls are in the form that they read. They run at the same time, two by two, because each is mostly
start-up.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess

import pytest

from conftest import ROOT, SCRIPTED, SMALL_MODEL, at_home, free_port, secret

AGENTS = ROOT / "tests/agents/node_modules"
MODEL = "honshu.scripted"
# Seconds for one agent. They need a few on an idle machine; this is for a busy one.
PATIENCE = 240

# How each calls reading and changing a file. `{path}` is the file's absolute path.
SCRIPTS = {
    "cline": (
        'read_files with {"files": [{"path": "{path}"}]}',
        'editor with {"path": "{path}", "old_text": "beta", "new_text": "gamma"}',
    ),
    "codex": (
        'exec_command with {"cmd": "cat notes.txt"}',
        'exec_command with {"cmd": "sed -i s/beta/gamma/ notes.txt"}',
    ),
    "opencode": (
        'read with {"filePath": "{path}"}',
        'edit with {"filePath": "{path}", "oldString": "beta", "newString": "gamma"}',
    ),
    "claude": (
        'Read with {"file_path": "{path}"}',
        'Edit with {"file_path": "{path}", "old_string": "beta", "new_string": "gamma"}',
    ),
    "continue": (
        'Read with {"filepath": "{path}"}',
        'Edit with {"file_path": "{path}", "old_string": "beta", "new_string": "gamma"}',
    ),
}


class Agent:
    """A folder with one file, a home of its own, and the server that the agent is to use."""

    def __init__(self, folder: pathlib.Path, url: str, key: str, model: str = MODEL):
        self.url, self.key, self.model = f"{url}/v1", key, model
        self.home, self.work = folder / "home", folder / "work"
        (self.home / "codex").mkdir(parents=True)
        self.work.mkdir()
        self.notes = self.work / "notes.txt"
        self.notes.write_text("alpha\nbeta\n")

    def prompt(self, name):
        read, change = (text.replace("{path}", str(self.notes)) for text in SCRIPTS[name])
        return (
            f"Do as told here:\nCall the tool {read}\nThen call the tool {change}\n"
            "Then reply with exactly: notes changed\n"
        )

    def run(self, *args, input=None, patience=PATIENCE, **env):
        # Agents ask their environment who they are; nothing of ours is in it.
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR") if name in os.environ}
        return subprocess.run(
            # Some ignore a polite request to end.
            ["timeout", "-k", "3", str(patience), *map(str, args)],
            cwd=self.work, input=input or "", capture_output=True, encoding="utf-8",
            env=kept | {"HOME": str(self.home), "PWD": str(self.work), "CI": "1"} | env,
        )

    def cline(self, prompt, *options, **limits):
        cline, data = AGENTS / ".bin/cline", ("--data-dir", self.home / "cline")
        signed_in = self.run(
            cline, "auth", "-p", "openai-compatible", "-k", self.key, "-m", self.model, "-b", self.url, *data)
        assert signed_in.returncode == 0, signed_in.stderr
        return self.run(cline, "--json", *data, "-P", "openai-compatible", "-m", self.model, *options, prompt, **limits)

    def codex(self, prompt, *options):
        provider = "model_providers.honshu"
        settings = {
            "model_provider": "honshu", f"{provider}.name": "Honshu", f"{provider}.base_url": self.url,
            f"{provider}.env_key": "HONSHU_KEY", f"{provider}.wire_api": "responses",
        }
        return self.codex_with(settings, *options, prompt, HONSHU_KEY=self.key)

    def codex_by_its_own_provider(self, prompt, *options):
        return self.codex_with({"openai_base_url": self.url}, *options, prompt, CODEX_API_KEY=self.key)

    def codex_with(self, settings, *words, **env):
        flags = [item for name, value in settings.items() for item in ("-c", f"{name}={json.dumps(value)}")]
        return self.run(
            AGENTS / ".bin/codex", "exec", "--json", "--skip-git-repo-check",
            "--dangerously-bypass-approvals-and-sandbox", "-m", self.model, *flags, *words,
            CODEX_HOME=str(self.home / "codex"), **env,
        )

    def opencode(self, prompt):
        (self.work / "opencode.json").write_text(json.dumps({"provider": {"honshu": {
            "npm": "@ai-sdk/openai-compatible", "name": "Honshu",
            "options": {"baseURL": self.url, "apiKey": self.key}, "models": {self.model: {"name": self.model}},
        }}}))
        # The package's own start script needs an install script to have run; the program itself does not. Which of
        # the two builds runs depends on the processor.
        builds = sorted(AGENTS.glob("opencode-linux-*-baseline/bin/opencode"))
        assert builds, "the program of `opencode-ai` is not installed"
        # As an argument it would be quoted.
        return self.run(
            builds[0], "run", "--format", "json", "-m", f"honshu/{self.model}", input=prompt,
            OPENCODE_DISABLE_MODELS_FETCH="1", OPENCODE_DISABLE_AUTOUPDATE="1",
        )

    def claude(self, prompt):
        # As with opencode, the package's start script needs an install script to have run.
        builds = sorted(AGENTS.glob("@anthropic-ai/claude-code-linux-*/claude"))
        assert builds, "the program of `@anthropic-ai/claude-code` is not installed"
        return self.run(
            builds[0], "-p", "--output-format", "json", "--model", self.model, "--allowedTools=Read,Edit", prompt,
            ANTHROPIC_BASE_URL=self.url.removesuffix("/v1"), ANTHROPIC_API_KEY=self.key,
            ANTHROPIC_DEFAULT_HAIKU_MODEL=self.model, CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
            DISABLE_AUTOUPDATER="1",
        )

    def cn(self, prompt):
        config = self.home / "config.yaml"
        config.write_text(
            "name: honshu\nversion: 0.0.1\nschema: v1\nmodels:\n  - name: honshu\n    provider: openai\n"
            f"    model: {self.model}\n    apiBase: {self.url}\n    apiKey: {self.key}\n"
            "    roles: [chat]\n    capabilities: [tool_use]\n")
        return self.run(AGENTS / ".bin/cn", "-p", "--auto", "--config", config, prompt)


@pytest.fixture(scope="module")
def finished(shared, tmp_path_factory):
    """Every agent with its finished run, by name."""
    def work(name):
        agent = Agent(tmp_path_factory.mktemp(name), shared.url, secret(shared.key))
        ask = {
            "cline": agent.cline, "codex": agent.codex, "opencode": agent.opencode, "claude": agent.claude,
            "continue": agent.cn,
        }[name]
        return agent, ask(agent.prompt(name))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        return dict(zip(SCRIPTS, pool.map(work, SCRIPTS)))


def json_lines(text):
    return [json.loads(line) for line in text.splitlines() if line.startswith("{")]


@pytest.mark.parametrize("name", SCRIPTS)
def test_an_agent_reads_a_file_changes_it_and_says_so(finished, name):
    agent, done = finished[name]
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert agent.notes.read_text() == "alpha\ngamma\n", done.stdout[-4000:]
    assert "notes changed" in done.stdout


def test_cline_counts_our_tokens_and_ends_by_itself(finished):
    events = json_lines(finished["cline"][1].stdout)
    result = next(event for event in events if event["type"] == "run_result")
    assert (result["finishReason"], result["iterations"], result["text"]) == ("completed", 3, "notes changed")
    assert result["usage"]["inputTokens"] > 0 and result["usage"]["outputTokens"] > 0


def test_codex_ran_both_commands_and_saw_their_output(finished):
    events = json_lines(finished["codex"][1].stdout)
    done = [
        event["item"] for event in events
        if event["type"] == "item.completed" and event["item"]["type"] == "command_execution"
    ]
    assert [(item["exit_code"], item["aggregated_output"]) for item in done] == [(0, "alpha\nbeta\n"), (0, "")]
    assert next(event for event in events if event["type"] == "turn.completed")["usage"]["output_tokens"] > 0


def test_claude_code_speaks_messages_and_counts_our_tokens(finished):
    result = json_lines(finished["claude"][1].stdout)[-1]
    assert (result["num_turns"], result["result"], result["is_error"]) == (3, "notes changed", False)
    assert result["usage"]["input_tokens"] > 0 and result["usage"]["output_tokens"] > 0


def test_cline_yolo_ends_by_the_tool_that_it_waits_for(shared, tmp_path):
    agent = Agent(tmp_path, shared.url, secret(shared.key))
    done = agent.cline(
        f'Do as told here:\nCall the tool read_files with {{"files": [{{"path": "{agent.notes}"}}]}}\n'
        'Then call the tool submit_and_exit with {"summary": "all was read", "verified": true}\n', "--yolo", patience=90)
    assert done.returncode == 0, done.stdout[-3000:]
    result = next(event for event in json_lines(done.stdout) if event["type"] == "run_result")
    assert (result["finishReason"], result["iterations"]) == ("completed", 2), done.stdout[-3000:]


def test_codex_by_its_own_provider_speaks_websocket(shared, tmp_path):
    agent = Agent(tmp_path, shared.url, secret(shared.key))
    done = agent.codex_by_its_own_provider(agent.prompt("codex"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert agent.notes.read_text() == "alpha\ngamma\n"


@pytest.mark.parametrize("provider", ["own", "ours"])
def test_codex_goes_through_its_compaction(shared, tmp_path, provider):
    agent = Agent(tmp_path, shared.url, secret(shared.key))
    ask = agent.codex_by_its_own_provider if provider == "own" else agent.codex
    # A session that is resumed and has more tokens than its limit is compacted before it goes on.
    steps = [
        ask("Reply with exactly: the first is done"),
        ask("Reply with exactly: the second is done", "-c", "model_auto_compact_token_limit=100", "resume", "--last"),
    ]
    for step, word in zip(steps, ("first", "second"), strict=True):
        assert step.returncode == 0, f"{step.stdout[-3000:]}\n{step.stderr[-2000:]}"
        assert f"the {word} is done" in step.stdout
    sessions = list((agent.home / "codex/sessions").rglob("*.jsonl"))
    assert len(sessions) == 1
    lines = json_lines(sessions[0].read_text())
    compacted = [line["payload"] for line in lines if line["type"] == "compacted"]
    assert len(compacted) == 1
    if provider == "own":
        # By a `compaction_trigger` over the WebSocket: the item that we sealed stands in place of the history.
        kept = [item for item in compacted[0]["replacement_history"] if item["type"] == "compaction"]
        assert len(kept) == 1 and kept[0]["encrypted_content"].startswith("hsealed1.")
    else:
        # By asking in plain words: the model's answer is the summary.
        assert "This is the scripted model" in compacted[0]["message"]


def test_codex_changes_a_file_by_its_custom_tool(honshu, tmp_path):
    # Codex offers `apply_patch`, a custom tool with a grammar, to models that it knows for it.
    port = free_port()
    honshu.start(SCRIPTED.format(port=port) + f'[[alias]]\nname = "gpt-5.5"\nmodel = "{MODEL}"\n', port=port)
    agent = Agent(tmp_path / "agent", honshu.url, secret(honshu.make_key()), "gpt-5.5")
    patch = "*** Begin Patch\n*** Update File: notes.txt\n@@\n alpha\n-beta\n+gamma\n*** End Patch"
    done = agent.codex(
        f"Do as told here:\nCall the tool apply_patch with {json.dumps(patch)}\nThen reply with exactly: notes changed\n")
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert agent.notes.read_text() == "alpha\ngamma\n", done.stdout[-3000:]
    items = [event["item"] for event in json_lines(done.stdout) if event["type"] == "item.completed"]
    assert [item["status"] for item in items if item["type"] == "file_change"] == ["completed"]
    assert "notes changed" in done.stdout


def test_codex_acts_on_a_prompt_that_is_longer_than_the_context(honshu_with_model, tmp_path):
    home = honshu_with_model.start()
    key = secret(home.make_key())
    agent = Agent(tmp_path, home.url, key, SMALL_MODEL)
    done = agent.codex("hello " * 9_000)
    # These are its own words, said only on the code `context_length_exceeded`; ours would be shown raw otherwise.
    assert "ran out of room in the model's context window" in done.stdout, f"{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def test_cline_speaks_with_a_real_model(honshu_with_model, tmp_path):
    home = honshu_with_model.start()
    agent = Agent(tmp_path, home.url, secret(home.make_key()), SMALL_MODEL)
    # So small a model does nothing useful and may go on until its context is full: that the protocol holds is what
    # shows. The turn after a full context is refused, and Cline must have understood why.
    done = agent.cline("Say hello in one short sentence.", patience=180)
    events = [event["event"] for event in json_lines(done.stdout) if event["type"] == "agent_event"]
    kinds = [event["type"] for event in events]
    assert "iteration_end" in kinds, done.stdout[-3000:]
    assert "error" not in kinds[:kinds.index("iteration_end")], done.stdout[-3000:]
    errors = {event["errorClass"] for event in events if event["type"] == "error"}
    assert errors <= {"context_window_exceeded"}, done.stdout[-3000:]
    usage = next(event for event in events if event["type"] == "usage")
    assert usage["inputTokens"] > 0 and usage["outputTokens"] > 0
    assert "content_end" in kinds, done.stdout[-3000:]
