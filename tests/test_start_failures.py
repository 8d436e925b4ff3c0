"""What keeps a server from starting, or a model from being pulled: one clear line with the next step, and nothing
half-written, so that the same command works once the cause is gone."""

import os
import pathlib
import socket
import subprocess

import pytest

from conftest import SCRIPTED, SMALL_MODEL, Honshu, free_port


def refused(honshu, *args, code, words, env=None):
    """Runs a command that must fail at once with `words`, one error and a hint. Gives what it said."""
    done = honshu.run(*args, check=False, timeout=60, env=env)
    said = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    assert len([line for line in said if line.startswith("error: ")]) == 1, done.stderr
    # The next step stands in a line of its own or at the end of the error's.
    assert said[-1].startswith("hint: ") or (said[-1].startswith("error: ") and "; " in said[-1]), done.stderr
    for word in words:
        assert word in done.stderr, done.stderr
    assert "panicked" not in done.stderr
    return said


def works(honshu, port=None):
    """The data directory serves as if nothing had happened."""
    port = port or free_port()
    try:
        honshu.start(SCRIPTED.format(port=port), port=port)
        honshu.key = honshu.make_key()
        assert honshu.ask().status_code == 200
    finally:
        assert honshu.stop() == 0


@pytest.fixture
def disk(tmp_path):
    """Mounts small file systems; whoever runs this must be root, as in CI."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options, remount=False):
        if not remount and os.path.ismount(folder):
            subprocess.run(["umount", folder], check=True)
        options = f"remount,{options}" if remount else options
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True)
        return folder

    yield mount
    if os.path.ismount(folder):
        subprocess.run(["umount", "-l", folder], check=True)


def test_the_port_is_taken(honshu):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said = refused(honshu, "serve", "--listen", f"127.0.0.1:{port}", code=1,
                       words=[f"127.0.0.1:{port}", "in use", "--listen"])
        assert len(said) == 2
    works(honshu, port)


CONFIGURATIONS = [
    ("[server]\nlisten = \n", ["config.toml", "line 2"]),
    ("[server]\nlistn = '127.0.0.1:0'\n", ["config.toml", "line 2", "unknown field `listn`", "listen"]),
    ("[server]\nlisten = 'here'\n", ["server.listen", "here"]),
    ("[[model]]\nid = 'a.b'\n[[model.deployment]]\nprovider = 'nobody'\n", ["model[0].deployment[0]", "nobody"]),
    ("[[provider]]\nname = 'p'\nkind = 'openai'\n", ["provider[0]", "base_url"]),
    ("[[provider]]\nname = 'p'\nkind = 'magic'\n", ["provider[0].kind", "magic"]),
    ("[[provider]]\nname = 'p'\nkind = 'openai'\nbase_url = 'http://127.0.0.1:1/v1'\ncredential = 'env:NOT_THERE'\n",
     ["provider `p`", "NOT_THERE"]),
    ("[[alias]]\nname = 'a.b'\nmodel = 'a.b'\n", ["alias[0]", "alias of itself"]),
    ("[limits]\nruns_max = 0\n", ["limits.runs_max"]),
    ("[limits]\nruns_max = -1\n", ["runs_max", "line 2"]),
    ("[telemetry]\nlog_format = 'xml'\n", ["telemetry.log_format", "json"]),
    ("[database]\nurl = 'postgres://u:hunter2@h/d'\n", ["database.url", "postgres"]),
    ("[tls]\ncertificate = 'none.pem'\nkey = 'none.key'\n", ["none.pem"]),
    ("[[region]]\nname = 'ap-osaka-1'\nlisten = '127.0.0.1:0'\n" * 2, ["ap-osaka-1", "twice"]),
]


@pytest.mark.parametrize("text,words", CONFIGURATIONS, ids=[words[0] + f"-{n}" for n, (_, words) in enumerate(CONFIGURATIONS)])
def test_the_configuration_is_wrong(honshu, text, words):
    path = honshu.data_dir / "config.toml"
    path.write_text(text)
    home = Honshu(honshu.data_dir / "home")
    said = refused(home, "serve", "--config", path, code=78, words=words)
    assert "hunter2" not in "".join(said)
    # Nothing of the data directory was made on the way.
    assert not (home.data_dir / "honshu.db").exists() or text.startswith("[tls]")


def test_the_configuration_is_not_there(honshu):
    refused(honshu, "serve", "--config", honshu.data_dir / "nowhere.toml", code=78, words=["nowhere.toml"])


def test_every_problem_of_a_configuration_is_named_at_once(honshu):
    path = honshu.data_dir / "config.toml"
    path.write_text("[limits]\nruns_max = 0\n[telemetry]\nlog_format = 'xml'\n[engine]\nthreads = 0\n")
    refused(honshu, "serve", "--config", path, code=78,
            words=["limits.runs_max", "telemetry.log_format", "engine.threads"])


def test_only_loopback_is_served_before_init(honshu):
    port = free_port()
    refused(honshu, "serve", "--listen", f"0.0.0.0:{port}", code=78, words=["0.0.0.0", "honshu init"])
    assert not (honshu.data_dir / "honshu.db").exists()
    honshu.run("init")
    honshu.start(f'[server]\nlisten = "0.0.0.0:{port}"\n', port=port)
    assert honshu.json("compartment", "list")[0]["name"] == "root"


def test_the_data_directory_cannot_be_written(disk):
    folder = disk("size=64m")
    home = Honshu(folder)
    disk("ro", remount=True)
    refused(home, "init", code=78, words=[str(folder), "Read-only"])
    refused(home, "serve", "--listen", "127.0.0.1:0", code=78, words=[str(folder), "Read-only"])
    disk("rw", remount=True)
    assert os.listdir(folder) == []
    home.run("init")
    disk("ro", remount=True)
    refused(home, "serve", "--listen", "127.0.0.1:0", code=78, words=[str(folder), "Read-only"])
    disk("rw", remount=True)
    works(home)


def test_the_data_directory_is_a_file(honshu):
    path = honshu.data_dir / "file"
    path.write_text("")
    refused(Honshu(path), "init", code=78, words=[str(path)])


def test_the_disk_is_full_at_any_point_of_the_first_start(disk):
    """The first start is cut by a full disk at each of its steps; with room it then goes through."""
    failed = 0
    for size in (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384):
        folder = disk(f"size={size}k")
        home = Honshu(folder)
        done = home.run("init", check=False)
        if done.returncode != 0:
            failed += 1
            disk(f"size={size}k", remount=True)
            said = refused(home, "init", code=done.returncode, words=["has room"])
            assert len(said) == 2 and ("full" in said[0] or "space" in said[0]), said
            assert done.returncode in (1, 78)
            disk("size=64m", remount=True)
            home.run("init")
        disk("size=64m", remount=True)
        works(home)
    assert failed >= 3


def test_the_disk_fills_up_while_the_server_runs(disk):
    folder = disk("size=24m")
    home = Honshu(folder)
    port = free_port()
    try:
        home.start(SCRIPTED.format(port=port), port=port)
        home.key = home.make_key()
        answered = [home.ask().headers["x-request-id"]]
        with open(folder / "ballast", "wb", buffering=0) as ballast:
            with pytest.raises(OSError):
                while True:
                    ballast.write(bytes(4096))
        refusals = 0
        # The write-ahead log may still have room of its own for a while.
        for _ in range(3000):
            response = home.ask()
            if response.status_code == 200:
                answered.append(response.headers["x-request-id"])
            else:
                refusals += 1
                assert response.status_code == 503, response.text
                # The answer was made and paid for, so no program should ask for it again by itself.
                assert response.headers["x-should-retry"] == "false" or response.headers["retry-after"]
                assert "recorded" in response.json()["message"] or "space" in response.json()["message"]
                if refusals == 3:
                    break
        assert refusals == 3
        done = home.run("compartment", "create", "--name", "x", check=False)
        assert done.returncode == 1 and "503" in done.stderr and "space" in done.stderr, done.stderr
        (folder / "ballast").unlink()
        # It goes on by itself, and nothing that was answered is lost.
        assert home.ask().status_code == 200
        home.run("compartment", "create", "--name", "x")
        rows = [row["request_id"] for row in home.usage_rows() if row["status"] == "completed"]
        assert sorted(rows) == sorted(set(rows)) and set(answered) <= set(rows)
    finally:
        assert home.stop() == 0


# ---- Models --------------------------------------------------------------------------------------------------------


def blob_of(models) -> pathlib.Path:
    return max((models / "blobs").iterdir(), key=lambda path: path.stat().st_size)


def test_a_corrupt_model_file_is_not_pulled(honshu, models):
    whole = blob_of(models).read_bytes()
    for name, content, words in [
        ("garbage.gguf", b"this is no model" * 4096, ["garbage.gguf", "GGUF"]),
        ("empty.gguf", b"", ["empty.gguf", "GGUF"]),
        ("short.gguf", whole[: len(whole) // 2], ["short.gguf"]),
        ("header.gguf", whole[:4] + b"\xff" * 60 + whole[64:100_000], ["header.gguf"]),
    ]:
        path = honshu.data_dir / name
        path.write_bytes(content)
        refused(honshu, "model", "pull", path, code=1, words=words)
        assert honshu.json("model", "list", "--pulled") == []
        assert [p for p in (honshu.data_dir / "models").rglob("*") if p.is_file() and p.stat().st_size] == []


def test_a_disk_without_room_for_a_model_says_how_much_is_missing(disk, models):
    folder = disk("size=16m")
    home = Honshu(folder)
    said = refused(home, "model", "pull", blob_of(models), code=1, words=["not enough disk space", "available", "free some"])
    assert len(said) == 1
    assert home.json("model", "list", "--pulled") == []
    disk("size=200m", remount=True)
    home.run("model", "pull", blob_of(models))
    assert len(home.json("model", "list", "--pulled")) == 1


ENGINE = """
[server]
listen = "127.0.0.1:{port}"
[engine]
{engine}
[[model]]
id = "file.model"
[[model.deployment]]
provider = "engine"
upstream = "{path}"
"""


def test_a_corrupt_model_of_the_configuration_keeps_the_server_from_starting(honshu, models):
    path = honshu.data_dir / "broken.gguf"
    path.write_bytes(blob_of(models).read_bytes()[:1_000_000])
    config = honshu.data_dir / "config.toml"
    config.write_text(ENGINE.format(port=free_port(), path=path, engine=""))
    refused(honshu, "serve", "--config", config, code=78, words=["broken.gguf", "file.model"])


def test_a_model_that_does_not_fit_in_memory_keeps_the_server_from_starting(honshu, models):
    config = honshu.data_dir / "config.toml"
    config.write_text(ENGINE.format(port=free_port(), path=blob_of(models), engine="memory_mib_max = 40"))
    refused(honshu, "serve", "--config", config, code=78, words=["file.model", "memory", "MiB"])
    port = free_port()
    honshu.start(ENGINE.format(port=port, path=blob_of(models), engine="memory_mib_max = 2000"), port=port)
    honshu.key = honshu.make_key()
    assert honshu.ask(model="file.model", max_output_tokens=2).status_code == 200


def test_pulled_models_that_cannot_be_served_leave_the_others_alone(honshu, models):
    """The server starts without them, and says why: a model that does not fit is refused, a damaged one is not there."""
    port = free_port()
    (honshu.data_dir / "models").mkdir()
    subprocess.run(["cp", "-r", f"{models}/.", honshu.data_dir / "models"], check=True)
    config = SCRIPTED.format(port=port)
    honshu.start(config + "[engine]\nmemory_mib_max = 40\n", port=port)
    honshu.key = honshu.make_key()
    answer = honshu.ask(model=SMALL_MODEL)
    assert answer.status_code == 503 and "memory" in answer.json()["message"], answer.text
    assert honshu.ask().status_code == 200
    assert honshu.stop() == 0
    with open(blob_of(honshu.data_dir / "models"), "r+b") as file:
        file.truncate(1_000_000)
    honshu.start(config, port=port)
    answer = honshu.ask(model=SMALL_MODEL)
    assert answer.status_code == 404 and str(honshu.data_dir) not in answer.text
    assert "a pulled model cannot be used" in honshu.server_log()
    assert honshu.ask().status_code == 200
