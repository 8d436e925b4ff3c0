#!/usr/bin/env python3
"""The gateway path beside nginx as a plain proxy and, if asked for, LiteLLM's proxy.

    make bench-gateway                      # builds what it needs and runs this
    bench/gateway.py --honshu target/release/honshu --kit target/release [--litellm VENV]

Every server stands in front of the same upstream (`bench-upstream`) and gets the same load (`bench-load`), in
rounds that go through all of them in turn, so that a busy neighbour hurts each alike. Honshu runs with keys,
policy and usage record on. The figure to compare is CPU time; the table shows medians and ratios to nginx.
"""

import argparse
import contextlib
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

# name, arguments of bench-load, the figure, its unit
CASES = [
    ("chat, 300 tokens", ["--api", "chat"], "cpu_seconds_per_1000_answers", "CPU-s / 1,000"),
    ("responses, 300 tokens", ["--api", "responses"], "cpu_seconds_per_1000_answers", "CPU-s / 1,000"),
    ("chat, 100 kB prompt", ["--api", "chat", "--pad", "100000", "--callers", "16"],
     "cpu_seconds_per_1000_answers", "CPU-s / 1,000"),
    ("chat stream, 20 ms a piece", ["--api", "chat", "--stream", "--model", "mock-c100-d20"],
     "cpu_us_per_piece", "CPU-µs / piece"),
    ("responses stream, 20 ms a piece", ["--api", "responses", "--stream", "--model", "mock-c100-d20"],
     "cpu_us_per_piece", "CPU-µs / piece"),
    ("chat stream, unpaced", ["--api", "chat", "--stream", "--model", "mock-c100"],
     "cpu_us_per_piece", "CPU-µs / piece"),
    ("chat stream, a piece on its way, median", ["--api", "chat", "--stream", "--model", "mock-c100-d20", "--callers", "4"],
     "transit_p50_ms", "ms"),
    ("chat stream, a piece on its way, p99", ["--api", "chat", "--stream", "--model", "mock-c100-d20", "--callers", "4"],
     "transit_p99_ms", "ms"),
]
MODELS = ["mock", "mock-c100-d20", "mock-c100"]
# Streams that say nothing for a minute: what an open one costs in memory.
SILENT_MODEL = "mock-c1-l60000"
SILENT_STREAMS = 2000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url, key=None, seconds=60):
    deadline = time.monotonic() + seconds
    while True:
        request = urllib.request.Request(url, headers={"authorization": f"Bearer {key}"} if key else {})
        try:
            return urllib.request.urlopen(request, timeout=2)
        except urllib.error.HTTPError as answered:
            return answered
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


class Server:
    def __init__(self, name, process, url, key=None):
        self.name, self.process, self.url, self.key = name, process, url, key

    @property
    def resident_kib(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])


def start_nginx(stack, work, upstream_port):
    port, directory = free_port(), work / "nginx"
    directory.mkdir()
    config = directory / "nginx.conf"
    config.write_text(f"""
daemon off; {"user root;" if os.geteuid() == 0 else ""} pid {directory}/pid; error_log {directory}/error.log;
worker_processes 2;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_max_body_size 20m; keepalive_requests 100000000;
  client_body_temp_path {directory}; proxy_temp_path {directory};
  fastcgi_temp_path {directory}; uwsgi_temp_path {directory}; scgi_temp_path {directory};
  upstream provider {{ server 127.0.0.1:{upstream_port}; keepalive 256; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location / {{ proxy_pass http://provider; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 300s; }}
  }}
}}
""")
    process = spawn(stack, [shutil.which("nginx") or "/usr/sbin/nginx", "-c", config, "-p", directory])
    wait_for(f"http://127.0.0.1:{port}/v1/models")
    return Server("nginx", process, f"http://127.0.0.1:{port}/v1")


def start_honshu(stack, work, binary, upstream_port):
    port, directory = free_port(), work / "honshu"
    directory.mkdir()
    models = "".join(f"""
[[model]]
id = "{name}"
[[model.deployment]]
provider = "bench"
""" for name in [*MODELS, SILENT_MODEL])
    config = directory / "config.toml"
    config.write_text(f"""
[server]
listen = "127.0.0.1:{port}"
[limits]
runs_max = 5000
runs_per_principal_max = 5000
first_event_timeout_seconds = 300
[[provider]]
name = "bench"
kind = "openai"
base_url = "http://127.0.0.1:{upstream_port}/v1"
{models}""")
    environment = os.environ | {"HONSHU_DATA_DIR": str(directory / "data")}

    def honshu(*args):
        done = subprocess.run([binary, *args, "--output", "json"], env=environment, check=True,
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return json.loads(done.stdout)

    log = open(directory / "log", "wb")
    process = spawn(stack, [binary, "serve", "--config", config], env=environment, stderr=log, stdout=log)
    wait_for(f"http://127.0.0.1:{port}/readyz")
    idle = Server("honshu", process, f"http://127.0.0.1:{port}/v1")
    print(f"idle process without a model: {idle.resident_kib / 1024:.1f} MiB", file=sys.stderr)
    key = honshu("api-key", "create", "--compartment", "root", "--display-name", "bench",
                 "--key-one-name", "one", "--key-two-name", "two")
    honshu("policy", "create", "--compartment", "root", "--name", "bench", "--statement",
           "allow any-user to use generative-ai-chat in tenancy where request.principal.type = 'generativeaiapikey'")
    idle.key = key["keys"][0]["key"]
    return idle


def start_litellm(stack, work, venv, upstream_port):
    port = free_port()
    config = work / "litellm.yaml"
    models = "".join(f"""
  - model_name: {name}
    litellm_params: {{model: openai/{name}, api_base: http://127.0.0.1:{upstream_port}/v1, api_key: none}}""" for name in MODELS)
    config.write_text(f"model_list:{models}\ngeneral_settings: {{master_key: sk-bench-0123456789abcdef}}\n")
    log = open(work / "litellm.log", "wb")
    process = spawn(stack, [f"{venv}/bin/litellm", "--config", config, "--host", "127.0.0.1", "--port", str(port)],
                    env=os.environ | {"LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR",
                                      "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NO_DOCS": "True"},
                    stdout=log, stderr=log)
    wait_for(f"http://127.0.0.1:{port}/health/liveliness", seconds=120)
    return Server("litellm", process, f"http://127.0.0.1:{port}/v1", "sk-bench-0123456789abcdef")


def spawn(stack, command, **options):
    process = subprocess.Popen([str(part) for part in command], **options)

    def stop():
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()

    stack.callback(stop)
    return process


def measure(kit, server, arguments, seconds):
    done = subprocess.run(
        [f"{kit}/bench-load", "--name", server.name, "--url", server.url, "--pids", str(server.process.pid),
         "--seconds", str(seconds), "--warm-seconds", "1.5", *arguments],
        env=os.environ | ({"BENCH_KEY": server.key} if server.key else {}), stdout=subprocess.PIPE, check=True)
    report = json.loads(done.stdout)
    if report["failures"]:
        print(f"  {server.name}: {report['failures']} failures, first: {report['first_failure']}", file=sys.stderr)
    return report


def silent_streams(server):
    """KiB that each open stream costs the server while it waits for its first event."""
    host, port = server.url.removeprefix("http://").removesuffix("/v1").split(":")
    body = json.dumps({"model": SILENT_MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]})
    head = (f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\nauthorization: Bearer {server.key}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}").encode()
    before, sockets = server.resident_kib, []
    for _ in range(SILENT_STREAMS):
        sockets.append(socket.create_connection((host, int(port))))
        sockets[-1].sendall(head)
    time.sleep(5)
    each = (server.resident_kib - before) / SILENT_STREAMS
    for open_socket in sockets:
        open_socket.close()
    time.sleep(1)
    return each


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--honshu", default="target/release/honshu")
    parser.add_argument("--kit", default="target/release", help="where bench-load and bench-upstream are")
    parser.add_argument("--litellm", metavar="VENV", help="a virtual environment with litellm[proxy]")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--only", help="cases whose name contains this")
    parser.add_argument("--without", default="", help="servers that are left out, by comma")
    parser.add_argument("--json", type=pathlib.Path, help="also write every report here, a line each")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        work = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="honshu-bench-")))
        upstream_port = free_port()
        upstream = spawn(stack, [f"{options.kit}/bench-upstream", "--listen", f"127.0.0.1:{upstream_port}"])
        wait_for(f"http://127.0.0.1:{upstream_port}/v1/models")
        servers = [
            Server("upstream alone", upstream, f"http://127.0.0.1:{upstream_port}/v1"),
            start_nginx(stack, work, upstream_port),
            start_honshu(stack, work, options.honshu, upstream_port),
        ]
        if options.litellm:
            servers.append(start_litellm(stack, work, options.litellm, upstream_port))
        servers = [server for server in servers if server.name not in options.without.split(",")]
        print("| case | unit | " + " | ".join(f"{s.name}" for s in servers) + " | honshu / nginx | failures |")
        print("|---|---|" + "---:|" * (len(servers) + 2))
        for name, arguments, figure, unit in CASES:
            if options.only and options.only not in name:
                continue
            reports = {server.name: [] for server in servers}
            for _ in range(options.rounds):
                for server in servers:
                    report = measure(options.kit, server, arguments, options.seconds) | {"case": name}
                    reports[server.name].append(report)
                    if options.json:
                        with options.json.open("a") as lines:
                            lines.write(json.dumps(report) + "\n")
            middle = {s: statistics.median(r[figure] or float("nan") for r in rows) for s, rows in reports.items()}
            failures = sum(r["failures"] for rows in reports.values() for r in rows)
            cells = " | ".join(f"{middle[s.name]:.4g}" for s in servers)
            print(f"| {name} | {unit} | {cells} | {middle['honshu'] / middle.get('nginx', float('nan')):.2f} | {failures} |", flush=True)
        if not options.only:
            honshu = next(server for server in servers if server.name == "honshu")
            print(f"\nan open silent stream: {silent_streams(honshu):.1f} KiB; "
                  f"after it all: {honshu.resident_kib / 1024:.0f} MiB resident")


main()
