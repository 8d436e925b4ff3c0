"""What a server takes that has nothing to do."""

import time

import httpx

from conftest import DIALECTS, SCRIPTED, body_of, free_port, secret

IDLE_MIB_MAX = 40
# After work, SQLite's page caches and the allocator keep some; it levels off, as more requests show.
USED_MIB_MAX = 50


def resident_mib(process) -> float:
    with open(f"/proc/{process.pid}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def test_an_idle_server_without_a_model_stays_below_40_mib(honshu, capsys):
    port = free_port()
    honshu.start(SCRIPTED.format(port=port), port=port)
    time.sleep(2)
    fresh = resident_mib(honshu.process)
    honshu.key = honshu.make_key()
    with httpx.Client(base_url=honshu.url, headers={"authorization": f"Bearer {secret(honshu.key)}"}) as client:
        for number in range(1500):
            dialect = ("responses", "chat")[number % 2]
            assert client.post(DIALECTS[dialect], json=body_of(dialect, "hi")).status_code == 200
    time.sleep(2)
    used = resident_mib(honshu.process)
    with capsys.disabled():
        print(f"\nidle server: {fresh:.1f} MiB after its start, {used:.1f} MiB after 1,500 requests")
    assert fresh < IDLE_MIB_MAX and used < USED_MIB_MAX
