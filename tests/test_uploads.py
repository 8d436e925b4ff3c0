"""Large, compressed, lying and slow bodies at the binary: they cost little memory and leave nothing behind."""

import concurrent.futures
import gzip
import hashlib
import signal
import socket
import time

import httpx
import pytest

from conftest import DIALECTS, SCRIPTED, free_port, secret

MIB = 1024 * 1024
UPLOAD_MIB_MORE_MAX = 8
BOMB_MIB_MORE_MAX = 4
BOUNDARY = "line"
PURPOSE = b'--line\r\ncontent-disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
FILE = b'--line\r\ncontent-disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
END = b"\r\n--line--\r\n"
# The largest file whose whole body is within 64 MiB.
LARGEST = 64 * MIB - len(PURPOSE + FILE + END)


class Peak:
    """The most memory that a process had from the beginning of the block to its end, over what it had then."""

    def __init__(self, process):
        self.path = f"/proc/{process.pid}"

    def read(self, name):
        with open(f"{self.path}/status") as status:
            return int(next(line for line in status if line.startswith(name)).split()[1]) / 1024

    def __enter__(self):
        with open(f"{self.path}/clear_refs", "w") as peak:
            peak.write("5")
        self.before = self.read("VmRSS:")
        return self

    def __exit__(self, *_):
        self.more = self.read("VmHWM:") - self.before


@pytest.fixture
def home(scripted):
    scripted.run("policy", "create", "--compartment", "root", "--name", "files", "--statement",
                 "allow any-user to manage generative-ai-file in tenancy where request.principal.type = 'generativeaiapikey'")
    # What comes with the first use of anything is not the bodies' share.
    for dialect in DIALECTS:
        assert scripted.ask(dialect=dialect).status_code == 200
    return scripted


@pytest.fixture
def client(home):
    headers = {"authorization": f"Bearer {secret(home.key)}"}
    with httpx.Client(base_url=home.url + "/v1", headers=headers, timeout=300) as client:
        yield client


def block(number):
    return hashlib.sha256(number.to_bytes(4, "big")).digest() * 2048


def content(length):
    """Blocks of 64 KiB of which no two are alike."""
    for number in range(-(-length // 65536)):
        yield block(number)[:min(65536, length - number * 65536)]


def form(length):
    yield PURPOSE + FILE
    yield from content(length)
    yield END


def upload(client, body):
    return client.post("/files", content=body, headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}"})


def is_content(client, file, length):
    expected = hashlib.sha256()
    for piece in content(length):
        expected.update(piece)
    found = hashlib.sha256()
    with client.stream("GET", f"/files/{file}/content") as answer:
        assert answer.status_code == 200 and answer.headers["content-length"] == str(length)
        for piece in answer.iter_bytes():
            found.update(piece)
    return found.digest() == expected.digest()


def leftovers(home):
    return [home.query("responses.db", f"SELECT count(*) AS n FROM {table}")[0]["n"]
            for table in ("files", "uploads", "file_pieces")]


def wait_for(found, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found():
            return
        time.sleep(0.05)
    raise AssertionError("it did not come")


def connection(home):
    return socket.create_connection(("127.0.0.1", httpx.URL(home.url).port), timeout=120)


def head(home, path, *fields):
    lines = [f"POST {path} HTTP/1.1", "Host: a", f"Authorization: Bearer {secret(home.key)}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def test_64_mib_pass_through_8(home, client, capsys):
    with Peak(home.process) as sent:
        made = upload(client, form(LARGEST))
    assert made.status_code == 200, made.text
    file = made.json()
    assert file["bytes"] == LARGEST
    with Peak(home.process) as read:
        assert is_content(client, file["id"], LARGEST)
    # Four at once are four times nothing much.
    with Peak(home.process) as four, concurrent.futures.ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: upload(client, form(16 * MIB)), range(4)))
    assert [answer.status_code for answer in made] == [200] * 4
    with capsys.disabled():
        print(f"\n64 MiB up: {sent.more:.1f} MiB more, down: {read.more:.1f}, four of 16 at once: {four.more:.1f}")
    assert sent.more <= UPLOAD_MIB_MORE_MAX and read.more <= UPLOAD_MIB_MORE_MAX and four.more <= UPLOAD_MIB_MORE_MAX
    for answer in made:
        assert is_content(client, answer.json()["id"], 16 * MIB)
    for one in client.get("/files").json()["data"]:
        assert client.delete(f"/files/{one['id']}").status_code == 200
    assert leftovers(home) == [0, 0, 0]


def test_hostile_forms_cost_no_memory_and_leave_nothing(home, client):
    """A body that is too large by a byte, one without a boundary, and a field's head without an end."""
    many = [b"x" * 65536] * 1000

    def bodies():
        yield form(LARGEST + 1), 413
        yield iter(many), 400
        yield iter([b"--line\r\nx: ", *many]), 400
        yield iter([PURPOSE.replace(b"user_data", b"x" * 65536), *many]), 400

    with Peak(home.process) as peak:
        for body, status in bodies():
            try:
                answer = upload(client, body)
            except httpx.NetworkError:
                # The server had answered and gone before the client had sent everything.
                continue
            assert answer.status_code == status, answer.text
    assert peak.more <= UPLOAD_MIB_MORE_MAX
    wait_for(lambda: leftovers(home) == [0, 0, 0])


@pytest.mark.parametrize("end", ["client", "kill"])
def test_an_upload_that_is_cut_leaves_nothing(home, client, end):
    assert upload(client, form(MIB)).status_code == 200
    before = leftovers(home)
    with connection(home) as raw:
        raw.sendall(head(home, "/v1/files", f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
                         f"Content-Length: {20 * MIB}") + PURPOSE + FILE)
        for piece in content(4 * MIB):
            raw.sendall(piece)
        wait_for(lambda: leftovers(home)[2] >= before[2] + 32)
        assert len(client.get("/files").json()["data"]) == 1, "what has not ended is no file"
        if end == "kill":
            home.stop(signal.SIGKILL)
    if end == "kill":
        port = free_port()
        home.start(SCRIPTED.format(port=port), port=port)
        client = httpx.Client(base_url=home.url + "/v1", headers=client.headers, timeout=60)
    wait_for(lambda: leftovers(home) == before)
    (file,) = client.get("/files").json()["data"]
    assert is_content(client, file["id"], MIB)


def test_a_bomb_is_refused_without_a_look_into_it(home, capsys):
    # 100 members of 100 MiB each: 10 GB in 10 MB.
    member = gzip.compress(bytes(100 * MIB))
    bomb = member * 100
    assert 8 * MIB < len(bomb) < 10 * MIB
    headers = {"authorization": f"Bearer {secret(home.key)}", "content-type": "application/json"}
    paths = [*DIALECTS.values(), "/v1/files"]
    with Peak(home.process) as peak:
        for encoding in ("gzip", "br", "zstd", "deflate", "gzip, gzip"):
            for path in paths:
                try:
                    answer = httpx.post(home.url + path, content=bomb, timeout=60,
                                        headers=headers | {"content-encoding": encoding})
                except httpx.NetworkError:
                    continue
                assert answer.status_code == 415, (encoding, path, answer.text)
        # The answer comes before the body does, so that this client sees it whatever the kernel buffers.
        for encoding in ("gzip", "br", "zstd"):
            for path in paths:
                with connection(home) as raw:
                    raw.sendall(head(home, path, f"Content-Encoding: {encoding}", f"Content-Length: {len(bomb)}"))
                    assert raw.recv(4096).startswith(b"HTTP/1.1 415 "), (encoding, path)
    with capsys.disabled():
        print(f"\nbodies that inflate to 10 GB: {peak.more:.1f} MiB more")
    assert peak.more <= BOMB_MIB_MORE_MAX
    assert home.ask().status_code == 200


def test_bodies_that_lie_drip_or_never_end_get_a_408(home):
    """With the limits of a real server. The clock of the test is the server's: none of these ends by itself."""
    kinds = {
        "/v1/responses": "Content-Type: application/json",
        "/v1/files": f"Content-Type: multipart/form-data; boundary={BOUNDARY}",
    }
    lengths = ["Content-Length: 1000000", "Transfer-Encoding: chunked"]

    def client(path, length, drips):
        is_chunked = "chunked" in length
        with connection(home) as raw:
            raw.sendall(head(home, path, kinds[path], length))
            raw.sendall(b"1\r\n-\r\n" if is_chunked else b"-")
            raw.settimeout(1 if drips else 300)
            while True:
                try:
                    return raw.recv(4096)
                except TimeoutError:
                    raw.sendall(b"1\r\n-\r\n" if is_chunked else b"-")

    cases = [(path, length, drips) for path in kinds for length in lengths for drips in (False, True)]
    with concurrent.futures.ThreadPoolExecutor(len(cases)) as pool:
        for case, answer in zip(cases, pool.map(lambda case: client(*case), cases)):
            assert answer.startswith(b"HTTP/1.1 408 "), (case, answer[:100])
    assert leftovers(home) == [0, 0, 0]


def test_heads_have_limits(home):
    """32 KiB, 100 fields, a target of 8 KiB, and no name that a proxy could confuse with another."""
    ok = ["Host: a", f"Authorization: Bearer {secret(home.key)}"]

    def status(target="/v1/models", fields=()):
        with connection(home) as raw:
            raw.sendall("\r\n".join([f"GET {target} HTTP/1.1", *ok, *fields, "Connection: close", "", ""]).encode())
            return int(raw.recv(4096).split()[1])

    def long(length):
        return "/v1/models?" + "x" * (length - len("/v1/models?"))

    room = 100 - len(ok) - 1
    assert status(long(8 * 1024)) != 414 and status(long(8 * 1024 + 1)) == 414
    assert status(fields=["X: y"] * room) == 200 and status(fields=["X: y"] * (room + 1)) == 431
    rest = len("\r\n".join(["GET /v1/models HTTP/1.1", *ok, "X: ", "Connection: close", "", ""]))
    most = 32 * 1024 - rest
    assert status(fields=["X: " + "y" * most]) == 200 and status(fields=["X: " + "y" * (most + 1)]) == 431
    for name in ("X_Forwarded_For", "Content_Length", "opc_compartment_id", "_", "X-A_"):
        assert status(fields=[f"{name}: 1"]) == 400, name
    assert home.ask().status_code == 200
