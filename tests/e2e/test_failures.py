"""Attention workers that die, hang or come back: requests end with an error, the server lives on."""
import os
import signal
import threading
import time

import pytest

from harness import FIXTURES, AttentionWorker, Process, Refused, Server

MODEL = FIXTURES / "models/llama-gqa"
OPTIONS = ["--dtype", "float32", "--skip-tokenizer-init"]
DETECTION_S = 3.0


class LongRequest:
    """A stream that would run for long; collects what comes."""

    def __init__(self, server):
        self.events = []
        self.first = threading.Event()
        self.ended_at = None
        self.thread = threading.Thread(target=self._run, args=(server,))
        self.thread.start()
        assert self.first.wait(30)

    def _run(self, server):
        body = {"prompt": [1, 2, 3], "max_tokens": 500, "temperature": 0, "ignore_eos": True, "return_token_ids": True}
        # The tiny model is fast: many requests in a row keep steps running until the failure. The loss may be noticed
        # between two of them: then the second is refused.
        while self.ended_at is None:
            try:
                for event in server.stream("/v1/completions", body):
                    self.events.append(event)
                    self.first.set()
                    if "error" in event:
                        self.ended_at = time.monotonic()
            except Refused as refused:
                self.events.append(refused.answer)
                self.ended_at = time.monotonic()

    def wait_for_error(self):
        self.thread.join(timeout=30)
        assert not self.thread.is_alive(), "the stream never ended"
        return self.events[-1]["error"]


def serve_again(server, prompt, timeout=30):
    """The ids of a completion, once the server serves again; refusals and lost requests until then are errors that say so."""
    deadline = time.monotonic() + timeout
    while True:
        status, answer, _ = server.request("POST", "/v1/completions", {
            "prompt": prompt, "max_tokens": 20, "temperature": 0, "ignore_eos": True, "return_token_ids": True})
        if status == 200:
            return answer["choices"][0]["token_ids"]
        assert status == 503 and answer["error"]["message"], answer
        assert time.monotonic() < deadline, server.log
        time.sleep(0.05)


def wait_workers_up(server, count, timeout=30):
    deadline = time.monotonic() + timeout
    while server.metric("lamina:worker_up") < count:
        assert time.monotonic() < deadline, server.request("GET", "/metrics")[1] + server.log
        time.sleep(0.05)


@pytest.mark.parametrize("placement", [
    ["--transport", "auto"],
    ["--transport", "cuda_p2p"],
    ["--transport", "cuda_p2p", "--replicas", "2", "--micro-batches", "3"],
], ids=["auto", "cuda_p2p", "cuda_p2p-rotation"])
@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
def test_local_worker_lost(sign, placement):
    with Server(MODEL, *OPTIONS, *placement) as server:
        expected = server.complete_ids([5, 6, 7], 20)
        request = LongRequest(server)
        victim = server.worker_pids()[0]
        lost_at = time.monotonic()
        os.kill(victim, sign)
        error = request.wait_for_error()
        assert request.ended_at - lost_at < DETECTION_S + 0.5
        assert "attention worker" in error["message"]
        if sign == signal.SIGSTOP:
            os.kill(victim, signal.SIGCONT)
        assert serve_again(server, [5, 6, 7]) == expected
        wait_workers_up(server, 2)  # the restarted, or continued, worker is taken back
        assert server.complete_ids([5, 6, 7], 20) == expected
        server.wait_until_idle()


def test_remote_workers_restart_over_tcp():
    secret = {"LAMINA_CLUSTER_SECRET": "a secret of the test"}
    first = AttentionWorker(environment=secret)
    second = AttentionWorker(environment=secret)
    try:
        with Server(MODEL, *OPTIONS, "--transport", "tcp", "--attention-worker", first.address,
                    "--attention-worker", second.address, environment=secret) as server:
            expected = server.complete_ids([5, 6, 7], 20)
            second.kill()
            assert serve_again(server, [5, 6, 7]) == expected  # by the first worker alone
            second = AttentionWorker(port=second.port, environment=secret)
            wait_workers_up(server, 2)
            assert server.complete_ids([5, 6, 7], 20) == expected
    finally:
        first.kill()
        second.kill()


def test_worker_with_another_secret_is_refused():
    worker = AttentionWorker(environment={"LAMINA_CLUSTER_SECRET": "one"})
    try:
        with pytest.raises(AssertionError, match="(?i)unauthenticated|secret"):
            Server(MODEL, *OPTIONS, "--attention-worker", worker.address, environment={"LAMINA_CLUSTER_SECRET": "other"})
    finally:
        worker.kill()


def test_all_workers_gone_then_back():
    with Server(MODEL, *OPTIONS) as server:
        expected = server.complete_ids([5, 6, 7], 20)
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGKILL)
        assert serve_again(server, [5, 6, 7]) == expected


def test_sigterm_ends_server_and_workers():
    server = Server(MODEL, *OPTIONS)
    pids = server.worker_pids()
    assert len(pids) == 2
    server.stop()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < deadline, "workers outlive the server"
        time.sleep(0.02)


def test_killed_server_takes_its_workers_along():
    server = Server(MODEL, *OPTIONS)
    pids = server.worker_pids()
    server.kill()
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") and "Z" not in open(f"/proc/{pid}/stat").read().split(")")[1][:3]
              for pid in pids):
        assert time.monotonic() < deadline, "workers outlive the server"
        time.sleep(0.02)


def test_a_worker_that_cannot_take_part_does_not_disturb_the_others():
    secret = {"LAMINA_CLUSTER_SECRET": "a secret of the test"}
    good = AttentionWorker(environment=secret)
    poor = AttentionWorker("--kv-cache-memory-bytes", "1000", environment=secret)  # no room for one sequence
    try:
        with Server(MODEL, *OPTIONS, "--attention-worker", good.address, "--attention-worker", poor.address,
                    environment=secret) as server:
            first = server.complete_ids([5, 6, 7], 20)
            assert server.complete_ids([5, 6, 7], 20) == first
            assert server.metric("lamina:worker_up") == 1
    finally:
        good.kill()
        poor.kill()


def test_a_restarted_server_waits_for_the_lease_of_the_dead_one():
    secret = {"LAMINA_CLUSTER_SECRET": "a secret of the test"}
    worker = AttentionWorker(environment=secret)
    try:
        options = [*OPTIONS, "--attention-worker", worker.address]
        dead = Server(MODEL, *options, environment=secret)
        expected = dead.complete_ids([5, 6, 7], 20)
        dead.kill()
        with Server(MODEL, *options, environment=secret) as server:
            assert server.complete_ids([5, 6, 7], 20) == expected
    finally:
        worker.kill()


def test_sigterm_ends_a_server_that_is_still_starting():
    begin = time.monotonic()
    process = Process("serve", MODEL, *OPTIONS, "--port", "0", "--attention-worker", "127.0.0.1:9")  # nobody there
    process.wait_for_line("KV heads")
    process.stop(expect=128 + signal.SIGTERM)
    assert time.monotonic() - begin < 10
