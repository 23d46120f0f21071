"""`lamina bench transport` prints a row for each backend and size, ends in order when its other process dies, and leaves
nothing behind."""
import json
import os
import pathlib
import signal
import subprocess
import time

from harness import BINARY, clean_environment

QUICK = ["bench", "transport", "--seconds", "0.02", "--sizes", "8,64KiB"]


def run(*arguments):
    return subprocess.run([BINARY, *arguments], capture_output=True, text=True, timeout=60, env=clean_environment())


def start(*arguments):
    return subprocess.Popen([BINARY, "bench", "transport", "--seconds", "30", *arguments], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, env=clean_environment())


def wait_until(condition, timeout=10):
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def peer_of(process):
    """The pid of the other process, once it is there."""
    children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    wait_until(lambda: children.read_text().split())
    pid = int(children.read_text().split()[0])
    wait_until(lambda: b"transport-peer" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())
    return pid


def test_the_table_has_a_line_for_each_backend_and_size():
    done = run(*QUICK)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()[2:]]
    for backend, by in ("loopback", "put"), ("shm", "put"), ("tcp", "put"), ("cuda_p2p", "lines"), ("cuda_p2p", "pushed"):
        of_backend = [line for line in lines if line[0] == backend and by in line]
        assert len(of_backend) >= 2, done.stdout
    assert any(line[0] == "nccl" for line in lines), done.stdout
    assert "error" not in done.stdout


def test_json_says_the_same():
    done = run(*QUICK, "--backends", "shm,cuda_p2p", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert not answer["errors"]
    trips = answer["round_trips"]
    assert {trip["backend"] for trip in trips} == {"shm", "cuda_p2p"}
    assert {trip["size_bytes"] for trip in trips} == {8, 65536}
    assert all(0 < trip["p50_us"] <= trip["p99_us"] and trip["gb_per_s"] >= 0 for trip in trips)


def test_an_unknown_backend_is_refused():
    done = run(*QUICK, "--backends", "shm,semaphore")
    assert done.returncode not in (0, -6, -11)
    assert "semaphore" in done.stderr and "loopback" in done.stderr


def test_a_peer_that_dies_is_an_error_of_its_row():
    for backend in "shm", "tcp", "cuda_p2p":
        process = start("--backends", backend, "--sizes", "64KiB")
        os.kill(peer_of(process), signal.SIGKILL)
        out, _ = process.communicate(timeout=20)
        assert process.returncode == 1, out
        assert "error: " in out and backend in out.splitlines()[2], out


def test_peers_die_with_their_parent():
    process = start("--backends", "tcp", "--sizes", "64KiB")
    pid = peer_of(process)
    process.kill()
    process.communicate(timeout=20)
    wait_until(lambda: not pathlib.Path(f"/proc/{pid}").exists() or
               " Z " in pathlib.Path(f"/proc/{pid}/stat").read_text())
