"""Measures `lamina serve`: start to healthy, peak resident memory of each process, decode speed at 1 and 8 streams.
Offloaded and colocated servers take turns, so that both see the same machine; figures are medians of ROUNDS rounds."""
import pathlib
import statistics
import sys
import threading
import time

from harness import Server

ROUNDS = 3
TOKENS = 128
PROMPT = list(range(100, 164))
STREAMS = (1, 8)
PLACEMENTS = {
    "colocated": ["--mode", "colocated"],
    "1 worker, in process": ["--attention-workers", "1", "--transport", "loopback"],
    "same, threads bound": ["--attention-workers", "1", "--transport", "loopback", "--cpu-bind", "auto"],
    "2 workers, shm": ["--attention-workers", "2"],
    "2 workers, tcp": ["--attention-workers", "2", "--transport", "tcp"],
}


def peak_mib(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return 0.0


def decode_tokens_per_second(server, num_streams):
    """Tokens a second of all streams together, between each one's first token and its last."""
    first, last, counts = [], [], []

    def run():
        times = []
        for event in server.stream("/v1/completions", {
                "prompt": PROMPT, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "return_token_ids": True}):
            times += [time.monotonic()] * sum(len(choice.get("token_ids") or []) for choice in event["choices"])
        first.append(times[0])
        last.append(times[-1])
        counts.append(len(times))

    threads = [threading.Thread(target=run) for _ in range(num_streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (sum(counts) - num_streams) / (max(last) - min(first))


def measure(model, options):
    begin = time.monotonic()
    with Server(model, *options) as server:
        result = {"start s": time.monotonic() - begin}
        server.complete_ids(PROMPT, 8)  # pages of weights are in memory now
        for streams in STREAMS:
            result[f"tokens/s, {streams} streams"] = decode_tokens_per_second(server, streams)
        result["peak MiB, server"] = peak_mib(server.process.pid)
        workers = server.worker_pids()
        if workers:
            result["peak MiB, worker"] = max(peak_mib(pid) for pid in workers)
        return result


def main():
    model = sys.argv[1]
    results = {name: [] for name in PLACEMENTS}
    for _ in range(ROUNDS):
        for name, options in PLACEMENTS.items():
            results[name].append(measure(model, options))
    medians = {name: {key: statistics.median(run[key] for run in runs) for key in runs[0]} for name, runs in results.items()}
    keys = list(dict.fromkeys(key for figures in medians.values() for key in figures))
    print(f"{'':24}" + "".join(f"{name:>24}" for name in medians))
    for key in keys:
        cells = [f"{figures[key]:.2f}" if key in figures else "-" for figures in medians.values()]
        print(f"{key:24}" + "".join(f"{cell:>24}" for cell in cells))
    for key in keys:
        if key.startswith("tokens"):
            baseline = medians["colocated"][key]
            cells = [f"{figures[key] / baseline:.2f}" for figures in medians.values()]
            print(f"{key + ' ratio':24}" + "".join(f"{cell:>24}" for cell in cells))


if __name__ == "__main__":
    main()
