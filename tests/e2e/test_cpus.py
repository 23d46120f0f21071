"""Where the threads of the programs run: read from the kernel, and from what they say."""
import os
import pathlib
import re

import pytest

from harness import FIXTURES, Server

MODEL = FIXTURES / "models/llama-gqa"
OPTIONS = ["--dtype", "float32", "--skip-tokenizer-init", "--transport", "loopback", "--attention-workers", "1"]
CPUS = sorted(os.sched_getaffinity(0))
NUM_TOKENS = 4

pytestmark = pytest.mark.skipif(len(CPUS) < 2, reason="skipped: one hardware thread")


def masks(server):
    """The hardware threads that each thread of the server may use; the main thread first."""
    pid = server.process.pid
    tasks = sorted(int(task.name) for task in pathlib.Path(f"/proc/{pid}/task").iterdir())
    return [sorted(os.sched_getaffinity(task)) for task in sorted(tasks, key=lambda task: task != pid)]


@pytest.mark.parametrize("bind, bound", [("none", []), (f"{CPUS[1]},{CPUS[0]}", [CPUS[1], CPUS[1], CPUS[0]])])
def test_bound_threads(bind, bound):
    """The pool's own thread, and with it both of those that submit: the model worker's and the attention worker's. No
    other is bound: not the main thread, which starts all others."""
    with Server(MODEL, *OPTIONS, "--threads", 2, "--cpu-bind", bind) as server:
        server.complete_ids([5, 6, 7], NUM_TOKENS)
        of_threads = masks(server)
    assert of_threads[0] == CPUS
    assert sorted(mask[0] for mask in of_threads if mask != CPUS) == sorted(bound)


def test_refuses_a_hardware_thread_that_is_not_there():
    with pytest.raises(AssertionError, match="--cpu-bind 0-1000: .*may not use"):
        Server(MODEL, *OPTIONS, "--cpu-bind", "0-1000")


def test_local_workers_take_nodes_in_turn():
    """On a machine that hwloc is told of: what cannot be bound there runs all the same."""
    machine = {"HWLOC_SYNTHETIC": "numa:2 core:2 pu:1"}
    with Server(MODEL, "--dtype", "float32", "--skip-tokenizer-init", "--attention-workers", 3, "--threads", 4, "--cpu-bind", "auto",
                environment=machine) as server:
        places = [re.search(r"(\d) threads on (\S+) of node (\d)", line) for line in server.lines]
        assert [place.groups() for place in places if place] == [("1", "0", "0"), ("2", "2-3", "1"), ("1", "1", "0")]
        assert len(server.complete_ids([5, 6, 7], NUM_TOKENS)) == NUM_TOKENS
