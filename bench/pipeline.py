#!/usr/bin/env python3
"""Micro-batches and overlap, measured on the whole program: a model worker and one attention worker, each pinned to
a core of its own.

  bench/pipeline.py [--rounds 3] [--batch 64] [--link 1gbit] [--binary build/release/bin/lamina]

A context is sought at which attention takes as long as a slice (t_a near t_m). Then, in rounds, so that every figure
is a ratio within one round on one machine: one micro-batch of B, two of B, one of 2 B, each with and without the overlap
inside a layer, which hides some of what pipelining hides; and one of B with and without overlap, for a model with as many
KV heads as heads (MHA) and one with few (GQA).

With --link the two are on hosts of their own, network namespaces with a link of that rate between; what is measured is
then the time between tokens with 1, 2 and 3 micro-batches, with and without overlap.

Bounds of a step are max(n t_a, n t_m, t_m + t_a' + t_n) a layer, t_a' being what of attention comes after k and v; those
in brackets behind model and attention are what reading and computing take at the rates measured at the start."""
import argparse
import http.client
import json
import os
import pathlib
import statistics
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests/e2e"), str(ROOT / "bench")]
import harness  # noqa: E402
from namespaces import Network  # noqa: E402
from random_model import write_random_model  # noqa: E402

SHAPE = {"layers": 4, "hidden": 768, "intermediate": 2048, "heads": 12}
WINDOW_S = 2.0
TIMEOUT_S = 300
MAX_MODEL_LEN = 8192


def pinned(core, *arguments, namespace=None):
    """The program on one core."""
    return harness.Process(*arguments, environment={"LAMINA_CLUSTER_SECRET": "bench"}, namespace=namespace,
                           prefix=("taskset", "-c", core))


class Placement:
    """A server on core 0 with an attention worker on core 1, on one host or at the ends of a network's link."""

    def __init__(self, model, batch, *options, network=None):
        self.namespace = network and network.namespace("model")
        host = network.addresses["attention"] if network else "127.0.0.1"
        self.worker = pinned(1, "attention-worker", "--listen", f"{host}:0", "--threads", 1,
                             "--kv-cache-memory-bytes", "4GiB", namespace=network and network.namespace("attention"))
        address = self.worker.wait_for_line(r"listening on (\S+:\d+)").group(1).rstrip(",")
        self.server = pinned(0, "serve", model, "--port", 0, "--threads", 1, "--attention-worker", address,
                             "--skip-tokenizer-init", "--max-num-seqs", batch, "--max-model-len", MAX_MODEL_LEN, *options,
                             namespace=self.namespace)
        self.port = int(self.server.wait_for_line(r"ready after .*http://\S+:(\d+)").group(1))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.kill()
        self.worker.kill()

    connect = harness.Server.connect
    request = harness.Server.request
    metrics = harness.Server.metrics
    api_key = None

    def read(self):
        return {name.split("{")[0]: value for name, value in self.metrics().items()}

    def decode(self, batch, context, num_micro_batches):
        """Tokens a second and the pipeline's gauges, while `batch` sequences of about `context` tokens decode."""
        body = json.dumps({"prompt": [5] * context, "max_tokens": MAX_MODEL_LEN - context, "temperature": 0,
                           "ignore_eos": True})
        refusals = []

        def ask():
            connection = self.connect(TIMEOUT_S)
            try:
                connection.request("POST", "/v1/completions", body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                answer = response.read()
                if response.status != 200:
                    refusals.append(answer)
            except (OSError, http.client.HTTPException):
                pass  # the server is killed at the end

        for _ in range(batch):
            threading.Thread(target=ask, daemon=True).start()
        deadline = time.monotonic() + TIMEOUT_S
        before = self.read()
        while True:  # until every step brings a token of every sequence of its micro-batch
            time.sleep(0.5)
            now = self.read()
            steps = now["lamina:steps_total"] - before["lamina:steps_total"]
            tokens = now["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
            if steps and abs(tokens / steps - batch / num_micro_batches) < 0.01 * batch:
                break
            assert not refusals, refusals[0]
            assert time.monotonic() < deadline, "the sequences do not decode together"
            before = now
        time.sleep(1.0)  # the gauges' last window has no prompt in it then
        begin, before = time.monotonic(), self.read()
        time.sleep(WINDOW_S)
        end, after = time.monotonic(), self.read()
        tokens = after["vllm:generation_tokens_total"] - before["vllm:generation_tokens_total"]
        return {"tokens_per_s": tokens / (end - begin)} | {
            name.removeprefix("lamina:"): after[name] for name in after
            if name.startswith("lamina:decode") or name.endswith("idle_share")}


def measure(model, batch, context, num_micro_batches, *options, network=None):
    with Placement(model, batch, "--micro-batches", num_micro_batches, *options, network=network) as placement:
        return placement.decode(batch, context, num_micro_batches)


def seek_context(model, batch):
    """A context at which attention takes as long as the slices."""
    context = 256
    for _ in range(3):
        figures = measure(model, batch, context, 1)
        ratio = figures["decode_model_seconds"] / figures["decode_attention_seconds"]
        print(f"  context {context}: t_m / t_a = {ratio:.2f}", flush=True)
        if 0.92 < ratio < 1.08:
            break
        context = max(16, min(6000, int(context * ratio)))
    return context


def show(name, figures):
    ms = {key: 1e3 * figures[f"decode_{key}_seconds"] for key in (
        "step", "step_bound", "model", "model_bound", "attention", "attention_bound", "wire")}
    print(f"  {name:<36} {figures['tokens_per_s']:6.0f} tokens/s, step {ms['step']:6.2f} ms (bound "
          f"{ms['step_bound']:6.2f}), model {ms['model']:6.2f} ({ms['model_bound']:.2f}), attention "
          f"{ms['attention']:6.2f} ({ms['attention_bound']:.2f}), wire {ms['wire']:5.2f}, "
          f"idle {100 * figures['model_idle_share']:.0f} % / {100 * figures['attention_idle_share']:.0f} %", flush=True)


WAYS = {"overlap": [], "no overlap": ["--no-overlap"]}


def compare_micro_batches(model, batch, context, rounds):
    results = {way: {"ratio": [], "of bound": [], "doubled": []} for way in WAYS}
    for i in range(rounds):
        print(f"round {i + 1}")
        for way, flags in WAYS.items():
            one = measure(model, batch, context, 1, *flags)
            two = measure(model, 2 * batch, context, 2, *flags)
            one_doubled = measure(model, 2 * batch, context, 1, *flags)
            show(f"n = 1, {batch} sequences, {way}", one)
            show(f"n = 2, 2 x {batch} sequences, {way}", two)
            show(f"n = 1, {2 * batch} sequences, {way}", one_doubled)
            of_way = results[way]
            of_way["ratio"].append(two["tokens_per_s"] / one["tokens_per_s"])
            of_way["doubled"].append(one_doubled["tokens_per_s"] / one["tokens_per_s"])
            of_way["of bound"].append(two["tokens_per_s"] * two["decode_step_bound_seconds"] / (2 * batch))
    for way, of_way in results.items():
        ratio, of_bound, doubled = (statistics.median(of_way[key]) for key in ("ratio", "of bound", "doubled"))
        print(f"{way}: n = 2 over n = 1: {ratio:.2f} x; of its own bound: {of_bound:.2f}; n = 1 with the doubled batch: "
              f"{doubled:.2f} x (medians of {rounds})")


def compare_overlap(models, batch, context, rounds):
    for name, model in models.items():
        speeds = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way, flags in WAYS.items():
                figures = measure(model, batch, context, 1, *flags)
                speeds[way].append(figures["tokens_per_s"])
                show(f"{name}, {way}", figures)
        gain = statistics.median(speeds["overlap"]) / statistics.median(speeds["no overlap"]) - 1
        print(f"{name}: overlap gives {100 * gain:.1f} % more tokens a second (medians of {rounds})")


def show_link(model, batch, context, rate, rounds):
    """The time between tokens over a link of that rate."""
    results = {}
    # A small burst: a layer's tensors are to take their time on the wire.
    with Network(["model", "attention"], rate=rate, burst="10kb") as network:
        for _ in range(rounds):
            for n in (1, 2, 3):
                for way, flags in WAYS.items():
                    figures = measure(model, n * batch, context, n, *flags, network=network)
                    show(f"n = {n}, {way}", figures)
                    results.setdefault((n, way), []).append(figures)
    print(f"{batch} sequences a micro-batch, context {context}, {rate}: medians of {rounds}\n"
          "| n | overlap | time between tokens | bound | tokens/s |\n|---|---|---|---|---|")
    for (n, way), rows in results.items():
        step, bound, speed = (statistics.median(row[name] for row in rows) for name in (
            "decode_step_seconds", "decode_step_bound_seconds", "tokens_per_s"))
        print(f"| {n} | {way} | {1e3 * step:.2f} ms | {1e3 * bound:.2f} ms | {speed:.0f} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--link", help="rate of a link between the two, as tc has it: 1gbit")
    parser.add_argument("--context", type=int, help="instead of seeking one")
    parser.add_argument("--binary", default=harness.BINARY)
    options = parser.parse_args()
    harness.BINARY = os.path.abspath(options.binary)
    with tempfile.TemporaryDirectory() as folder:
        models = {"MHA": pathlib.Path(folder) / "mha", "GQA": pathlib.Path(folder) / "gqa"}
        write_random_model(models["MHA"], kv_heads=12, **SHAPE)
        write_random_model(models["GQA"], kv_heads=2, **SHAPE)
        context = options.context
        if context is None:
            print(f"seeking a context where t_a is near t_m, {options.batch} sequences")
            context = seek_context(models["MHA"], options.batch)
        if options.link:
            show_link(models["MHA"], options.batch, context, options.link, options.rounds)
            return
        compare_micro_batches(models["MHA"], options.batch, context, options.rounds)
        compare_overlap(models, options.batch, context, options.rounds)


if __name__ == "__main__":
    main()
