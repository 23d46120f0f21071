"""A model worker and three attention workers on hosts of their own, with shaped links between: network namespaces."""
import contextlib
import json
import time

import pytest

from harness import FIXTURES, AttentionWorker, Server, in_parallel
from namespaces import Network, Unavailable
from test_failures import LongRequest, serve_again, wait_workers_up

POOL = ["attention0", "attention1", "attention2"]
SECRET = {"LAMINA_CLUSTER_SECRET": "between hosts"}
OPTIONS = ["--dtype", "float32", "--skip-tokenizer-init", "--max-num-batched-tokens", "64"]
# Whole heads; one KV head of latent attention, which three workers share by sequence; sinks and windows with heads split.
CASES = {"llama-gqa": [], "deepseek_v2": ["--partition", "sequence"], "gpt_oss": ["--partition", "head-sequence"]}


@pytest.fixture(scope="module")
def network():
    try:
        network = Network(["model", *POOL], rate="1gbit")
    except Unavailable as reason:
        pytest.skip(str(reason))
    with network:
        yield network


@contextlib.contextmanager
def cluster(network, model, *options):
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(AttentionWorker(
            host=network.addresses[host], environment=SECRET, namespace=network.namespace(host))) for host in POOL]
        names = [argument for worker in workers for argument in ("--attention-worker", worker.address)]
        yield stack.enter_context(Server(FIXTURES / "models" / model, *OPTIONS, *names, *options, environment=SECRET,
                                         namespace=network.namespace("model")))


@pytest.mark.parametrize("model", CASES)
@pytest.mark.parametrize("pipelining", [[], ["--replicas", "2", "--micro-batches", "3"]], ids=["plain", "rotation"])
def test_same_tokens_as_colocated(network, model, pipelining):
    golden = json.loads((FIXTURES / "models" / model / "golden.json").read_text())
    prompts = golden["prompts"]
    with Server(FIXTURES / "models" / model, *OPTIONS, "--mode", "colocated") as colocated:
        expected = [colocated.complete_ids(prompt, 32) for prompt in prompts]
    assert expected == golden["greedy"]
    with cluster(network, model, *CASES[model], *pipelining) as server:
        assert in_parallel(lambda prompt: server.complete_ids(prompt, 32), prompts) == expected
        assert [server.complete_ids(prompt, 32) for prompt in prompts] == expected


def test_tensors_travel_between_the_hosts(network):
    with cluster(network, "llama-gqa") as server:
        before = {host: network.bytes_sent(host) for host in ("model", *POOL)}
        server.complete_ids(list(range(1, 50)), 64)
        deadline = time.monotonic() + 10
        while server.metric("lamina:worker_bytes_sent_total") == 0:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        sent = {host: network.bytes_sent(host) - before[host] for host in before}
        received = server.metric("lamina:worker_bytes_received_total")
        assert sent["model"] > server.metric("lamina:worker_bytes_sent_total") > 0
        assert sum(sent[host] for host in POOL) > received > 0
        assert all(sent[host] > 1000 for host in POOL)  # KV heads are shared by all


def test_a_pulled_cable_ends_requests_and_a_plugged_one_serves_again(network):
    with cluster(network, "llama-gqa") as server:
        expected = server.complete_ids([5, 6, 7], 20)
        request = LongRequest(server)
        network.set_link("attention1", up=False)
        try:
            assert "attention worker" in request.wait_for_error()["message"]
            assert serve_again(server, [5, 6, 7]) == expected  # by the two that are left
        finally:
            network.set_link("attention1", up=True)
        wait_workers_up(server, 3)
        assert serve_again(server, [5, 6, 7]) == expected
