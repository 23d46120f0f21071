"""Random requests of random lengths with random disconnects: no block leaks, no wrong text, no deadlock; the same with
so few blocks that sequences must be preempted."""
import json
import random
import threading

import pytest

from harness import FIXTURES, Server

MODEL = FIXTURES / "models/llama-gqa"
NUM_REQUESTS = 200
NUM_CLIENTS = 12
VOCAB = 512


def make_requests(seed):
    rng = random.Random(seed)
    return [{
        "prompt": [rng.randrange(VOCAB) for _ in range(rng.randint(1, 60))],
        "max_tokens": rng.randint(1, 60),
        "leave_after": rng.randint(0, 20) if rng.random() < 0.3 else None,  # tokens, then the client hangs up
    } for _ in range(NUM_REQUESTS)]


def run_request(server, request):
    """Streams a request; the ids received, all of them unless the client left."""
    ids = []
    body = {"prompt": request["prompt"], "max_tokens": request["max_tokens"], "temperature": 0, "ignore_eos": True,
            "return_token_ids": True}
    events = server.stream("/v1/completions", body)
    for event in events:
        assert "error" not in event, event
        for choice in event["choices"]:
            ids += choice.get("token_ids") or []
        if request["leave_after"] is not None and len(ids) >= request["leave_after"]:
            events.close()
            break
    return ids


# 128 tokens at most in a sequence, 16 tokens a block, f32, 3 layers, 2 KV heads of 8: 2 x 3 x 16 x 8 x 4 = 3072 bytes a
# block and head. 12 blocks hold one and a half sequences of full length.
@pytest.mark.parametrize("kv_bytes", ["256MiB", str(12 * 3072)], ids=["plenty", "preempting"])
def test_soak(kv_bytes):
    requests = make_requests(seed=7)
    with Server(MODEL, "--mode", "colocated", "--dtype", "float32", "--skip-tokenizer-init",
                "--max-model-len", "128") as colocated:
        expected = [colocated.complete_ids(request["prompt"], request["max_tokens"]) for request in requests]

    with Server(MODEL, "--dtype", "float32", "--skip-tokenizer-init", "--max-model-len", "128", "--max-num-seqs", "8",
                "--max-num-batched-tokens", "32", "--kv-cache-memory-bytes", kv_bytes) as server:
        received = [None] * NUM_REQUESTS
        errors = []
        waiting = iter(range(NUM_REQUESTS))
        lock = threading.Lock()

        def client():
            while True:
                with lock:
                    index = next(waiting, None)
                if index is None or errors:
                    return
                try:
                    received[index] = run_request(server, requests[index])
                except BaseException as error:  # noqa: BLE001: reported below
                    errors.append(f"request {index}: {error!r}")

        threads = [threading.Thread(target=client) for _ in range(NUM_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=240)
            assert not thread.is_alive(), f"deadlock:\n{server.log}"
        assert not errors, errors[0]
        for request, ids, whole in zip(requests, received, expected):
            if request["leave_after"] is None:
                assert ids == whole
            else:
                assert ids == whole[:len(ids)]
        server.wait_until_idle()
        if kv_bytes != "256MiB":
            assert server.metric("vllm:num_preemptions_total") > 0
        assert json.dumps(server.post("/v1/completions", {"prompt": [1], "max_tokens": 1}))
