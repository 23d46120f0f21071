#!/usr/bin/env python3
"""Lamina beside llama.cpp: the same GGUF file, the same cores and load, in turns. README.md says how to get llama.cpp.

  bench/peers/compare.py --llama-venv VENV [--points 1x512 16x128] [--rounds 3] [--mode colocated]

A point is BATCHxCONTEXT, decoding, or prefill-TOKENS; with q: before it, of the quantised model. Lamina is measured over
HTTP: the time between tokens of a stream while all sequences decode. llama.cpp is called through its C API, without a
server, and decodes at the context that Lamina's sequences had. In colocated mode Lamina's server is stopped while
llama.cpp runs and goes on in the next round; otherwise, since attention workers end a session whose engine is silent,
every round starts a server of its own.

The bound of a step is max(weights' bytes / bandwidth, products / FLOP/s), and the same of attention over each sequence's
keys and values, one after the other. Bandwidth and FLOP/s are lamina_bench_kernels', measured each round, or given."""
import argparse
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(ROOT / "bench"), str(ROOT / "bench/peers")]
import harness  # noqa: E402
from gguf_shape import Machine, read_shape  # noqa: E402
from random_model import ARCHITECTURES, write_gguf  # noqa: E402

POINTS = ["1x512", "16x128", "16x2048", "64x2048", "prefill-512", "q:1x512", "q:16x128", "q:prefill-512"]
RANDOM_MODEL = "TinyLlama-1.1B"
STEPS = 64           # measured
WARM_UP_STEPS = 8
PREFILL_REPEATS = 5
CHUNK = 512          # tokens of a step of Lamina, its default: prompts are run in such parts
TIMEOUT_S = 3600     # the prompts of 64 x 2048 take their time
ROOM = 1024          # tokens that sequences may go on for while the last prompts are run
QUIET_SHARE = 0.1    # of the cores' time that others may take


@dataclasses.dataclass(frozen=True)
class Point:
    text: str
    is_quantised: bool
    batch: int
    context: int
    is_prefill: bool


def parse_point(text):
    found = re.fullmatch(r"(q:)?(?:(\d+)x(\d+)|prefill-(\d+))", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is no point: 16x128, prefill-512, q:1x512")
    quantised, batch, context, prefill = found.groups()
    return Point(text, quantised is not None, int(batch or 1), int(context or prefill), prefill is not None)


def pin(threads):
    return "taskset", "-c", f"0-{threads - 1}"


class Lamina(harness.Process):
    """`lamina serve` on the first cores."""

    def __init__(self, model, threads, batch, max_model_len, mode):
        super().__init__("serve", model, "--port", 0, "--mode", mode, "--threads", threads, "--skip-tokenizer-init",
                         "--max-num-seqs", batch, "--max-num-batched-tokens", CHUNK, "--max-model-len", max_model_len,
                         prefix=pin(threads))
        self.port = int(self.wait_for_line(r"ready after .*http://\S+:(\d+)", timeout=300).group(1))
        self.ended_early = []  # answers of requests that should still be running
        self.events = None     # of the request that started last

    api_key = None
    request = harness.Server.request
    metrics = harness.Server.metrics
    metric = harness.Server.metric
    stream = harness.Server.stream

    def connect(self):
        return harness.Server.connect(self, TIMEOUT_S)

    def __exit__(self, *_):
        self.kill()  # sequences are still decoding

    def body(self, prompt_len, max_tokens):
        return {"prompt": [1000 + i for i in range(prompt_len)], "max_tokens": max_tokens, "temperature": 0,
                "ignore_eos": True, "return_token_ids": True}

    def start_in_background(self, body):
        def ask():
            try:
                status, answer, _ = self.request("POST", "/v1/completions", body)
                self.ended_early.append(f"{status} {str(answer)[:200]}")
            except (OSError, http.client.HTTPException):
                pass  # the server is killed at the end

        threading.Thread(target=ask, daemon=True).start()

    def mean_context(self, batch):
        return (self.metric("vllm:prompt_tokens_total") + self.metric("vllm:generation_tokens_total")) / batch

    def start_decoding(self, batch, context):
        """Starts `batch` sequences, whose contexts will be about `context`."""
        # While later prompts are run, a part a step, the earlier sequences go on.
        drift = batch * context // (2 * CHUNK) + WARM_UP_STEPS + STEPS // 2
        body = self.body(max(1, context - drift), context + ROOM - (context - drift))
        for _ in range(batch - 1):
            self.start_in_background(body)
        deadline = time.monotonic() + TIMEOUT_S
        while self.metric("vllm:num_requests_running") + self.metric("vllm:num_requests_waiting") < batch - 1:
            assert not self.ended_early, f"a request ended early: {self.ended_early[0]}"
            assert time.monotonic() < deadline, "the requests did not arrive"
            time.sleep(0.05)  # only the metrics tell
        # The last one to come is the last to start, and from then on has a token of every step.
        self.events = self.stream("/v1/completions", body)

    def decode(self, batch, context):
        """Tokens a second of `batch` sequences, and their mean context, which is about `context`."""
        if self.events is None:
            self.start_decoding(batch, context)
        times = []
        for event in self.events:
            now = time.perf_counter()
            times += [now] * sum(len(choice.get("token_ids") or []) for choice in event["choices"])
            if len(times) > WARM_UP_STEPS + STEPS:
                break
        assert not self.ended_early, f"a request ended early: {self.ended_early[0]}"
        assert self.metric("vllm:num_requests_running") == batch, "the sequences do not decode together"
        assert self.metric("vllm:num_preemptions_total") == 0, "the KV cache is too small"
        step = (times[WARM_UP_STEPS + STEPS] - times[WARM_UP_STEPS]) / STEPS
        return batch / step, round(self.mean_context(batch) - STEPS / 2)

    @contextlib.contextmanager
    def stopped(self):
        os.kill(self.process.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.process.pid, signal.SIGCONT)

    def prefill(self, num_tokens):
        """Tokens a second of a prompt, until its first token."""
        seconds = []
        for _ in range(PREFILL_REPEATS + 1):
            start = time.perf_counter()
            status, answer, _ = self.request("POST", "/v1/completions", self.body(num_tokens, 1))
            seconds.append(time.perf_counter() - start)
            assert status == 200, answer
        return num_tokens / statistics.median(seconds[1:])  # the first one warms up


def busy_share(cores, seconds=0.5):
    """The share of the first cores' time that somebody takes, measured over so many seconds."""
    def read():
        lines = pathlib.Path("/proc/stat").read_text().splitlines()[1:1 + cores]
        times = [[int(number) for number in line.split()[1:]] for line in lines]
        return sum(map(sum, times)), sum(row[3] + row[4] for row in times)  # all; idle and waiting for disks

    total, idle = read()
    time.sleep(seconds)
    total_after, idle_after = read()
    return 1 - (idle_after - idle) / max(1, total_after - total)


def wait_for_quiet(options):
    """Threads that wait for each other by spinning, as llama.cpp's do, get nowhere beside another program."""
    deadline = time.monotonic() + options.patience
    while (share := busy_share(options.threads)) > QUIET_SHARE:
        if time.monotonic() > deadline:
            print(f"  other programs take {share:.0%} of the cores: the next figure is worth little", flush=True)
            return


def start_lamina(point, models, options):
    # Every round goes on from where the one before ended.
    room = ROOM + options.rounds * (WARM_UP_STEPS + STEPS)
    return Lamina(models[point.is_quantised], options.threads, point.batch, point.context + room, options.mode)


def measure_lamina(server, point):
    if point.is_prefill:
        return server.prefill(point.context), point.context
    return server.decode(point.batch, point.context)


def measure_llama(model, point, context, options):
    what = ("--prefill", context, "--repeats", PREFILL_REPEATS) if point.is_prefill else (
        "--decode", point.batch, context, "--steps", STEPS)
    command = [*pin(options.threads), options.llama_venv / "bin/python", ROOT / "bench/peers/llama_peer.py", model,
               "--threads", options.threads, *what]
    output = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output)["tokens_per_s"]


def bench_kernels():
    return pathlib.Path(harness.BINARY).parent / "lamina_bench_kernels"


def measure_machine(options):
    """What the machine gives now, or None."""
    if options.bandwidth and options.flops:
        return Machine(options.bandwidth * 1e9, options.flops * 1e9)
    if not bench_kernels().exists():
        return None
    wait_for_quiet(options)
    with subprocess.Popen([*pin(options.threads), bench_kernels(), str(options.threads)], stdout=subprocess.PIPE, text=True) as run:
        # Its first line; the kernels after it are not wanted here.
        found = re.search(r"reads ([\d.]+) GB/s.* ([\d.]+) GFLOP/s", run.stdout.readline())
        run.kill()
    bandwidth, flops = (1e9 * float(number) for number in found.groups())
    print(f"  reads {bandwidth / 1e9:.1f} GB/s, multiplies and adds {flops / 1e9:.0f} GFLOP/s", flush=True)
    return Machine(options.bandwidth * 1e9 if options.bandwidth else bandwidth,
                   options.flops * 1e9 if options.flops else flops)


def measure(server, point, models, options):
    """One round."""
    lamina, context = measure_lamina(server, point)
    with server.stopped() if options.mode == "colocated" else server:
        machine = measure_machine(options)
        wait_for_quiet(options)
        llama = measure_llama(models[point.is_quantised], point, context, options)
        wait_for_quiet(options)
    figures = {"lamina": lamina, "llama.cpp": llama, "ratio": lamina / llama, "context": context}
    if machine:
        shape = read_shape(models[point.is_quantised])
        figures["bound"] = (shape.prefill_bound(context, machine) if point.is_prefill
                            else shape.decode_bound(point.batch, context, machine))
        figures["of bound"] = lamina / figures["bound"]
    print(f"  {point.text:14} " + ", ".join(f"{name} {value:.4g}" for name, value in figures.items()), flush=True)
    return figures


def measure_rounds(point, models, options):
    """Figures of every round."""
    if options.mode == "colocated":
        with start_lamina(point, models, options) as server:
            return [measure(server, point, models, options) for _ in range(options.rounds)]
    return [measure(start_lamina(point, models, options), point, models, options) for _ in range(options.rounds)]


def print_table(results, rounds):
    print(f"\ntokens/s, medians of {rounds}\n\n"
          "| point | context | Lamina | llama.cpp | Lamina / llama.cpp | bound | Lamina / bound |\n|---|---|---|---|---|---|---|")
    for text, rows in results.items():
        median = {name: statistics.median(row[name] for row in rows) for name in rows[0]}
        bound = f"{median['bound']:.1f} | {median['of bound']:.2f}" if "bound" in median else "- | -"
        print(f"| {text} | {median['context']:.0f} | {median['lamina']:.1f} | {median['llama.cpp']:.1f} "
              f"| {median['ratio']:.2f} | {bound} |")


def check(options):
    if options.llama_venv is None or not (options.llama_venv / "bin/python").exists():
        raise SystemExit("llama.cpp is missing: make an environment with it as bench/peers/README.md says, and name it with "
                         "--llama-venv or in LLAMA_CPP_VENV")
    if not pathlib.Path(harness.BINARY).exists():
        raise SystemExit(f"{harness.BINARY} is missing: scripts/run builds it, or name another with --binary")
    if any(point.is_quantised for point in options.points) and not options.quantised.exists():
        raise SystemExit(f"{options.quantised} is missing: scripts/run fetches the default model, or name another with "
                         "--quantised")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", nargs="+", type=parse_point, default=[parse_point(text) for text in POINTS],
                        help=" ".join(POINTS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--mode", choices=("disaggregated", "colocated"), default="disaggregated")
    parser.add_argument("--model", type=pathlib.Path, help="GGUF file (default: a random TinyLlama-1.1B, bf16)")
    parser.add_argument("--quantised", type=pathlib.Path, default=harness.DEFAULT_MODEL,
                        help="GGUF file of the points with q:")
    parser.add_argument("--bandwidth", type=float, help="GB/s, instead of measuring it")
    parser.add_argument("--flops", type=float, help="GFLOP/s of all threads, instead of measuring it")
    parser.add_argument("--llama-venv", type=pathlib.Path, default=os.environ.get("LLAMA_CPP_VENV"))
    parser.add_argument("--layers", type=int, help="fewer layers of the random model: a quicker look")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait for other programs to leave the cores")
    parser.add_argument("--binary", type=pathlib.Path, default=pathlib.Path(harness.BINARY))
    return parser.parse_args()


def random_model(layers):
    """The file of the random model, written if it is not there."""
    arch = ARCHITECTURES[RANDOM_MODEL]
    # Room beyond its own 2048 tokens, so that contexts of that length can go on.
    arch = dataclasses.replace(arch, max_len=8192, layers=layers or arch.layers)
    path = ROOT / f"build/peers/{RANDOM_MODEL}-{arch.layers}-layers-bf16.gguf"
    if not path.exists():
        part = path.with_suffix(".part")
        write_gguf(part, RANDOM_MODEL, arch, "bf16")
        part.rename(path)
    return path


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the server ends with this program
    options = parse_options()
    harness.BINARY = str(options.binary.resolve())
    check(options)
    if options.model is None:
        options.model = random_model(options.layers)
    models = {False: options.model, True: options.quantised}
    if not options.flops and not bench_kernels().exists():
        print("no bound: build lamina_bench_kernels beside lamina, or give --bandwidth and --flops")
    results = {point.text: measure_rounds(point, models, options) for point in options.points}
    print_table(results, options.rounds)


if __name__ == "__main__":
    main()
