#!/usr/bin/env python3
"""Measures Honshu's engine beside llama.cpp's own server: same model, threads and CPU code, both through HTTP streams.

    bench/engine.py --honshu target/release/honshu --llama-server llama-server --model small.gguf

Each round asks the two servers the same questions, one server after the other and the order turned each round, so that
whatever else the machine does meets both; rounds in which others used the processors are set aside while enough quiet
ones remain. What is reported is the median of the rounds' ratios, Honshu over llama-server, and the CPU seconds that
each server's process used. `bench/build-llama-server` makes the other server.
Only Python's own library is needed.
"""

import argparse
import asyncio
import contextlib
import json
import os
import pathlib
import random
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

WORDS = (
    "river stone letter garden music window winter market story doctor island engine basket candle "
    "forest harbour ladder mirror needle orchard pepper quarry ribbon saddle timber valley wagon"
).split()
# The small model's tokens that end an answer; banned, so that every answer has the asked length.
ENDS = {"0": -100, "2": -100}
SAMPLING = {
    "greedy": {"temperature": 0},
    # What OpenAI's clients send or mean; everything else is each server's own default.
    "temperature 1": {"temperature": 1, "top_p": 1},
}
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def machine_busy_seconds():
    fields = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    user, nice, system, _idle, _wait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / TICKS


class Server:
    """A running server and how to ask it."""

    def __init__(self, name, process, port, path, headers, model):
        self.name, self.process, self.port = name, process, port
        self.path, self.headers, self.model = path, headers, model

    async def ask(self, prompt, max_tokens, sampling, on_chunk=None):
        """One streamed chat completion; returns its usage and the time of each chunk with text."""
        body = json.dumps({
            "model": self.model, "stream": True, "stream_options": {"include_usage": True},
            "messages": [{"role": "user", "content": prompt}],
            "max_tokens": max_tokens, "logit_bias": ENDS, **sampling,
        }).encode()
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            head = f"POST {self.path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            writer.write((head + self.headers + f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n").encode() + body)
            status = await reader.readline()
            if b" 200 " not in status:
                rest = await reader.read(2000)
                raise RuntimeError(f"{self.name}: {status!r} {rest[-600:]!r}")
            times, usage = [], None
            while line := await reader.readline():
                if not line.startswith(b"data: {"):
                    continue
                if b'"usage":{' in line or b'"usage": {' in line:
                    usage = json.loads(line[6:]).get("usage") or usage
                if b'"content":"' in line:
                    times.append(time.monotonic())
                    if on_chunk:
                        on_chunk(len(times))
            if not usage:
                raise RuntimeError(f"{self.name}: the stream ended without usage")
            return usage, times
        finally:
            writer.close()


@contextlib.contextmanager
def run_honshu(binary, model, threads, context, log):
    home = pathlib.Path(tempfile.mkdtemp(prefix="honshu-bench-"))
    env = {k: v for k, v in os.environ.items() if not k.startswith("HONSHU")} | {"HONSHU_DATA_DIR": str(home), "LANG": "C.UTF-8"}

    def command(*args):
        done = subprocess.run([binary, *args], env=env, capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"{' '.join(args)}: {done.stderr}")
        return done.stdout

    process = None
    try:
        command("model", "pull", str(model))
        pulled = json.loads(command("model", "list", "--output", "json"))
        name = next(entry["id"] for entry in pulled if entry["pulled"])
        port = free_port()
        config = home / "bench.toml"
        config.write_text(
            f'[server]\nlisten = "127.0.0.1:{port}"\n\n[engine]\nthreads = {threads}\ncontext_tokens = {context}\n'
        )
        process = subprocess.Popen([binary, "serve", "--config", str(config)], env=env, stdout=log, stderr=log)
        wait_ready(process, f"http://127.0.0.1:{port}/readyz")
        key = json.loads(command(
            "api-key", "create", "--compartment", "root", "--display-name", "bench",
            "--key-one-name", "one", "--key-two-name", "two", "--output", "json",
        ))["keys"][0]["key"]
        command(
            "policy", "create", "--compartment", "root", "--name", "bench", "--statement",
            "allow any-user to use generative-ai-chat in tenancy where request.principal.type = 'generativeaiapikey'",
        )
        yield Server("honshu", process, port, "/20231130/actions/v1/chat/completions", f"Authorization: Bearer {key}\r\n", name)
    finally:
        stop(process)
        shutil.rmtree(home, ignore_errors=True)


@contextlib.contextmanager
def run_llama(binary, model, threads, options, log):
    port = free_port()
    process = subprocess.Popen(
        [binary, "-m", str(model), "-t", str(threads), "-tb", str(threads), "--host", "127.0.0.1", "--port", str(port), *options],
        stdout=log, stderr=log,
    )
    try:
        wait_ready(process, f"http://127.0.0.1:{port}/health")
        yield Server("llama-server", process, port, "/v1/chat/completions", "", "any")
    finally:
        stop(process)


def wait_ready(process, url):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            sys.exit(f"a server ended with {process.returncode}; see the log")
        with contextlib.suppress(OSError):
            if urllib.request.urlopen(url, timeout=2).status == 200:
                return
        time.sleep(0.1)
    sys.exit(f"{url} was not ready in 120 s")


def stop(process):
    if process and process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def words(seed, count):
    """Ordinary words, about one token each, unlike those of any other seed from the first word on."""
    draw = random.Random(seed)
    return f"{draw.randrange(10**6)} " + " ".join(draw.choice(WORDS) for _ in range(count))


class Meter:
    """Wall time, the server's CPU time, and what everybody else on the machine used meanwhile."""

    def __init__(self, server):
        self.server = server

    def __enter__(self):
        pid = self.server.process.pid
        self.start = (time.monotonic(), cpu_seconds(pid), cpu_seconds("self"), machine_busy_seconds())
        return self

    def __exit__(self, *_):
        pid = self.server.process.pid
        at, server, own, busy = self.start
        self.wall = time.monotonic() - at
        self.cpu = cpu_seconds(pid) - server
        self.others = max(0.0, machine_busy_seconds() - busy - self.cpu - (cpu_seconds("self") - own)) / self.wall


async def throughput(server, count, sampling, seed, new_tokens):
    with Meter(server) as meter:
        answers = await asyncio.gather(*(
            server.ask(words(f"{seed}-{i}", 18), new_tokens, SAMPLING[sampling] | {"seed": i}) for i in range(count)
        ))
    tokens = sum(usage["completion_tokens"] for usage, _ in answers)
    if tokens != count * new_tokens:
        raise RuntimeError(f"{server.name}: {tokens} tokens instead of {count * new_tokens}")
    return {"rate": tokens / meter.wall, "cpu": meter.cpu / tokens * 1000}


async def prefixes(server, seed, shared, at_once=True):
    """Eight requests with 1,024 tokens of beginning, the same one or each its own, and a few words of their own; all at
    once, or each alone, one after the other."""
    prompts = [
        words(f"{seed}-prefix-{0 if shared else i + 1}", 1000) + f" {i}: " + words(f"{seed}-own-{shared}-{i}", 24)
        for i in range(8)
    ]
    with Meter(server) as meter:
        if at_once:
            answers = await asyncio.gather(*(server.ask(p, 8, SAMPLING["greedy"]) for p in prompts))
        else:
            answers = [await server.ask(p, 8, SAMPLING["greedy"]) for p in prompts]
    return {"wall": meter.wall, "cpu": meter.cpu, "prompt": answers[0][0]["prompt_tokens"]}


async def worst_gap(server, seed):
    """Four streams run; a prompt of 1,500 tokens arrives; the longest wait of any of the four from then on."""
    started = asyncio.Event()
    ready = set()

    def running(i):
        def note(chunks):
            if chunks == 8:
                ready.add(i)
                if len(ready) == 4:
                    started.set()
        return note

    streams = [
        asyncio.create_task(server.ask(words(f"{seed}-stream-{i}", 18), 400, SAMPLING["temperature 1"], running(i)))
        for i in range(4)
    ]
    await started.wait()
    sent = time.monotonic()
    first = {}
    usage, times = await server.ask(words(f"{seed}-long", 1460), 4, SAMPLING["temperature 1"])
    first["at"] = times[0] - sent
    worst = 0.0
    for _, times in await asyncio.gather(*streams):
        worst = max([worst, *(b - a for a, b in zip(times, times[1:]) if b > sent and a < sent + first["at"] + 0.5)])
    return {"gap": worst, "first": first["at"], "prompt": usage["prompt_tokens"]}


def median(values):
    return statistics.median(values)


def ratio(pairs):
    """Median of the rounds' ratios and their range."""
    ratios = sorted(a / b for a, b in pairs)
    return f"{median(ratios):.2f} ({ratios[0]:.2f}–{ratios[-1]:.2f})"


async def quiet(args):
    """Waits until the rest of the machine is quiet, but not for ever."""
    deadline = time.monotonic() + args.wait
    while time.monotonic() < deadline:
        busy = machine_busy_seconds()
        await asyncio.sleep(0.5)
        if (machine_busy_seconds() - busy) / 0.5 <= args.others_max:
            return


async def measure(servers, args):
    counts = [int(n) for n in args.sequences.split(",") if n]
    results = {}
    for server in servers:
        await throughput(server, 2, "greedy", f"warm-{server.name}", 32)
    for number in range(args.rounds):
        order = servers if number % 2 == 0 else servers[::-1]

        async def each(key, what):
            pair = {}
            for server in order:
                await quiet(args)
                with Meter(server) as meter:
                    result = await what(server)
                pair[server.name] = result | {"others": meter.others}
                if args.verbose:
                    print(number + 1, key, server.name, {k: round(v, 2) for k, v in pair[server.name].items()}, file=sys.stderr, flush=True)
            results.setdefault(key, []).append(pair)

        for sampling in SAMPLING:
            for count in counts:
                seed = f"{args.seed}-{number}-{sampling}-{count}"
                await each(("tokens", sampling, count), lambda s: throughput(s, count, sampling, seed, args.tokens))
        if not args.only_throughput:
            seed = f"{args.seed}-{number}"
            await each("alone", lambda s: prefixes(s, seed + "-alone", False, at_once=False))
            await each("apart", lambda s: prefixes(s, seed + "-apart", False))
            await each("shared", lambda s: prefixes(s, seed + "-shared", True))
            await each("gap", lambda s: worst_gap(s, seed))
        print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
    return results


def report(results, args):
    first, second = "honshu", "llama-server"

    def column(pairs, name, field):
        return [pair[name][field] for pair in pairs]

    def clean(pairs):
        """The pairs in which the machine was quiet for both; all of them if those are too few, and how many."""
        good = [p for p in pairs if max(p[first]["others"], p[second]["others"]) <= args.others_max]
        chosen = good if len(good) >= min(3, len(pairs)) else pairs
        return chosen, f"{len(good)}/{len(pairs)}" + ("" if chosen is good else ", all taken")

    print("| sequences, sampling | honshu tokens/s | llama-server tokens/s | ratio of speed (range) | CPU s per 1,000 tokens, both | ratio of CPU (range) | quiet rounds |")
    print("|---|---|---|---|---|---|---|")
    for key, pairs in results.items():
        if key[0] != "tokens":
            continue
        pairs, count = clean(pairs)
        rates = [column(pairs, name, "rate") for name in (first, second)]
        cpus = [column(pairs, name, "cpu") for name in (first, second)]
        print(
            f"| {key[2]}, {key[1]} | {median(rates[0]):.0f} | {median(rates[1]):.0f} | {ratio(zip(*rates))} "
            f"| {median(cpus[0]):.2f}, {median(cpus[1]):.2f} | {ratio(zip(*cpus))} | {count} |"
        )
    if "apart" not in results:
        return
    print()
    for name in (first, second):
        shared, gap = results["shared"], results["gap"]
        gaps = column(gap, name, "gap")
        print(
            f"{name}: 8 requests with a shared beginning ({shared[0][name]['prompt']} tokens) "
            f"{median(column(shared, name, 'wall')):.2f} s"
        )
        for key, what in (("alone", "each alone, beginnings of their own"), ("apart", "at once, beginnings of their own")):
            pairs = [
                [column(runs, name, field) for runs in (results[key], shared)] for field in ("wall", "cpu")
            ]
            print(
                f"{name}: {what} {median(pairs[0][0]):.2f} s: sharing is {ratio(zip(*pairs[0]))} times faster, "
                f"{ratio(zip(*pairs[1]))} times less CPU"
            )
        print(
            f"{name}: worst gap of 4 streams beside a prompt of {gap[0][name]['prompt']} tokens: median {median(gaps) * 1e3:.0f} ms, "
            f"worst round {max(gaps) * 1e3:.0f} ms; its first token after {median(column(gap, name, 'first')):.2f} s"
        )
    others = [pair[name]["others"] for runs in (results[key] for key in ("alone", "apart", "shared", "gap")) for pair in runs for name in pair]
    print(f"others meanwhile: {median(others):.2f} cores, at most {max(others):.2f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--honshu", required=True)
    parser.add_argument("--llama-server", required=True)
    parser.add_argument("--llama-options", default="-np 16 -c 32768", help="its options beside model and threads (default: %(default)s)")
    parser.add_argument("--model", required=True, type=pathlib.Path, help="the small test model, SmolLM2-135M-Instruct Q4_1")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--context", type=int, default=16384, help="cells of Honshu's context")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--sequences", default="1,4,8,16")
    parser.add_argument("--only-throughput", action="store_true")
    parser.add_argument("--seed", default="1")
    parser.add_argument("--others-max", type=float, default=0.25, help="cores that others may use in a round that counts (default: %(default)s)")
    parser.add_argument("--wait", type=float, default=60, help="seconds to wait for such quiet before each measurement (default: %(default)s)")
    parser.add_argument("--verbose", action="store_true", help="print every run as it ends")
    parser.add_argument("--json", type=pathlib.Path, help="write every run there")
    args = parser.parse_args()
    # Whoever ends this ends the servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    with contextlib.ExitStack() as stack:
        log = stack.enter_context(open(os.environ.get("BENCH_LOG", os.devnull), "ab"))
        servers = [
            stack.enter_context(run_honshu(args.honshu, args.model.resolve(), args.threads, args.context, log)),
            stack.enter_context(run_llama(args.llama_server, args.model.resolve(), args.threads, shlex.split(args.llama_options), log)),
        ]
        results = asyncio.run(measure(servers, args))
    report(results, args)
    if args.json:
        args.json.write_text(json.dumps({" ".join(map(str, k)) if isinstance(k, tuple) else k: v for k, v in results.items()}, indent=1))


if __name__ == "__main__":
    main()
