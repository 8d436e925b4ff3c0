"""What a server takes that has nothing to do."""

import time

import httpx

from conftest import SCRIPTED, free_port

IDLE_MIB_MAX = 40


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
    for number in range(200):
        assert honshu.ask(dialect=("responses", "chat")[number % 2]).status_code == 200
    httpx.get(honshu.url + "/v1/models")
    time.sleep(2)
    used = resident_mib(honshu.process)
    with capsys.disabled():
        print(f"\nidle server: {fresh:.1f} MiB after its start, {used:.1f} MiB after 200 requests")
    assert fresh < IDLE_MIB_MAX and used < IDLE_MIB_MAX
