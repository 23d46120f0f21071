"""A model worker and three attention workers on hosts of their own, with shaped links between: network namespaces."""
import contextlib
import json
import threading
import time

import pytest

from harness import FIXTURES, AttentionWorker, Server, in_parallel
from namespaces import Network, Unavailable
from test_failures import DETECTION_S, LongRequest, serve_again, wait_workers_up

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


def data_connections(network, host):
    """(local address, peer address) of a host's TCP connections, those of the control plane left out: gRPC listens for both
    address families, so its addresses are written as IPv6."""
    lines = network.exec(host, ["ss", "-H", "-t", "-n", "state", "established"]).splitlines()
    pairs = [line.split()[2:4] for line in lines]
    return [(local.rsplit(":", 1)[0], peer.rsplit(":", 1)[0]) for local, peer in pairs if not local.startswith("[")]


def test_the_data_plane_is_tcp_between_the_hosts_addresses(network):
    with cluster(network, "llama-gqa") as server:
        server.complete_ids([5, 6, 7], 20)
        for host in POOL:
            found = set(data_connections(network, host))
            assert found == {(network.addresses[host], network.addresses["model"])}, host


def test_links_are_shaped_both_ways():
    megabits = 50
    try:
        network = Network(["here", "there"], rate=f"{megabits}mbit", burst="16kb")
    except Unavailable as reason:
        pytest.skip(str(reason))
    with network, network.namespace("there").make_socket() as listener:
        listener.settimeout(10)
        listener.bind((network.addresses["there"], 0))
        listener.listen()
        with network.namespace("here").connect(listener.getsockname(), 10) as here, listener.accept()[0] as there:
            there.settimeout(10)
            for source, sink in ((here, there), (there, here)):
                data = bytes(1_500_000)
                begin = time.monotonic()
                thread = threading.Thread(target=source.sendall, args=(data,))
                thread.start()
                left = len(data)
                while left:
                    received = len(sink.recv(1 << 16))
                    assert received, "the connection closed early"
                    left -= received
                thread.join()
                # A busy machine is slower, never faster than the link.
                assert len(data) * 8 / (time.monotonic() - begin) < 1.1 * megabits * 1e6


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
        cut_at = time.monotonic()
        network.set_link("attention1", up=False)
        try:
            assert "attention worker" in request.wait_for_error()["message"]
            assert request.ended_at - cut_at < DETECTION_S + 0.5
            assert serve_again(server, [5, 6, 7]) == expected  # by the two that are left
        finally:
            network.set_link("attention1", up=True)
        wait_workers_up(server, 3)
        assert serve_again(server, [5, 6, 7]) == expected
