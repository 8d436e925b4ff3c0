"""Three thousand clients that are in no hurry: silent ones, halves of heads, a byte now and then. They cost little, others are
served, and all are shown the door."""

import asyncio

import httpx

from conftest import secret
from test_memory import resident_mib

EACH = 1000
# For the three thousand together.
MORE_MIB_MAX = 24
HALF = b"POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Le"


async def silent(reader, writer):
    try:
        return await asyncio.wait_for(reader.read(), 60)
    except TimeoutError:
        # Where a queue of the kernel was full, the server may never have heard of this connection. A word tells.
        writer.write(b"G")
        return (await reader.read())[:0]


async def half(reader, writer):
    writer.write(HALF)
    return await reader.read()


async def drip(reader, writer):
    answer = asyncio.create_task(reader.read())
    for at in range(len(HALF)):
        if writer.is_closing() or answer.done():
            break
        writer.write(HALF[at:at + 1])
        await asyncio.wait([answer], timeout=5)
    return await answer


async def until_closed(port, client, room):
    async with room:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        return await client(reader, writer)
    except ConnectionError:
        return b""
    finally:
        writer.close()


def test_slow_clients_cost_little_and_are_closed(scripted, capsys):
    port = int(scripted.url.rsplit(":", 1)[1])
    headers = {"authorization": f"Bearer {secret(scripted.key)}"}
    body = {"model": "honshu.scripted", "input": "Reply with exactly: yes", "store": False}

    async def run():
        async with httpx.AsyncClient(base_url=scripted.url, headers=headers, timeout=60) as client:
            # What comes with the first use is not the slow clients' share.
            for _ in range(50):
                assert (await client.post("/v1/responses", json=body)).status_code == 200
            before = resident_mib(scripted.process)
            kinds = [silent, half, drip]
            room = asyncio.Semaphore(50)
            tasks = [asyncio.create_task(until_closed(port, kind, room)) for kind in kinds for _ in range(EACH)]
            served, most = 0, before
            pending = set(tasks)
            while pending:
                answer = await client.post("/v1/responses", json=body)
                assert answer.status_code == 200, answer.text
                served += 1
                most = max(most, resident_mib(scripted.process))
                _, pending = await asyncio.wait(pending, timeout=0.5)
            return [task.result() for task in tasks], served, most - before

    # All of them end by the server's doing, or this does not end.
    answers, served, more = asyncio.run(asyncio.wait_for(run(), 300))
    with capsys.disabled():
        print(f"\n3,000 slow clients: {more:.1f} MiB more, {served} others served meanwhile")
    assert more <= MORE_MIB_MAX
    assert served > 1
    for answer in answers[:EACH]:
        assert answer == b"", "who says nothing is told nothing"
    for answer in answers[EACH:]:
        # A reset may have overtaken the answer to one that went on writing.
        assert answer == b"" or answer.startswith(b"HTTP/1.1 408 "), answer[:100]
    assert sum(answer.startswith(b"HTTP/1.1 408 ") for answer in answers) > EACH
