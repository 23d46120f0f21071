"""Starts Lamina's programs for tests and talks to them over plain HTTP."""
import http.client
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import threading
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("LAMINA_BINARY", str(REPOSITORY / "build/release/bin/lamina"))
FIXTURES = REPOSITORY / "tests/fixtures"
SHARED = pathlib.Path(os.environ.get("LAMINA_SHARED_DIR", REPOSITORY.parent / "shared"))
DEFAULT_MODEL = REPOSITORY / "models/SmolLM2-135M-Instruct.Q4_1.gguf"
IS_SANITIZED = os.environ.get("LAMINA_IS_SANITIZED") == "1"
START_TIMEOUT_S = 60
KV_MEMORY = "256MiB"


def clean_environment():
    return {name: value for name, value in os.environ.items() if not name.startswith("LAMINA_")}


class Refused(Exception):
    """A request that was answered with an error instead of a stream."""

    def __init__(self, status, answer):
        super().__init__(status, answer)
        self.answer = answer


class Process:
    """A running program whose standard error is kept, for waiting on lines and for failures' messages. `namespace` is the
    network namespace that it runs in (namespaces.py), None for the machine's own; `prefix` a command before it."""

    def __init__(self, *arguments, environment=None, namespace=None, prefix=()):
        self.namespace = namespace
        command = [*map(str, prefix), BINARY, *map(str, arguments)]
        self.process = subprocess.Popen(
            namespace.command(command) if namespace else command, stderr=subprocess.PIPE, text=True, errors="replace",
            env=clean_environment() | (environment or {}))
        self.lines = []
        self._is_over = False  # the program closed its standard error
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._is_over = True
            self._changed.notify_all()

    @property
    def log(self):
        return "\n".join(self.lines)

    def wait_for_line(self, pattern, timeout=START_TIMEOUT_S, since=0):
        """The match of `pattern` in the first line from index `since` on that has it."""
        deadline = time.monotonic() + timeout
        position = since
        with self._changed:
            while True:
                for position in range(position, len(self.lines)):
                    found = re.search(pattern, self.lines[position])
                    if found:
                        return found
                position = len(self.lines)
                assert not self._is_over, f"ended before a line matched {pattern!r}:\n{self.log}"
                left = deadline - time.monotonic()
                assert left > 0, f"no line matches {pattern!r}:\n{self.log}"
                self._changed.wait(left)

    def stop(self, expect=0):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError(f"did not end within 20 s of SIGTERM:\n{self.log}")
        assert code == expect, f"ended with {code}, expected {expect}:\n{self.log}"

    def kill(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def __enter__(self):
        return self

    def __exit__(self, error_type, *_):
        if error_type is None:
            self.stop()
        else:
            self.kill()


class AttentionWorker(Process):
    """A remote attention worker, started by hand."""

    def __init__(self, *arguments, host="127.0.0.1", port=0, environment=None, namespace=None):
        super().__init__("attention-worker", "--listen", f"{host}:{port}",
                         "--kv-cache-memory-bytes", KV_MEMORY, *arguments, environment=environment, namespace=namespace)
        self.address = self.wait_for_line(r"listening on (\S+:\d+)").group(1).rstrip(",")
        self.port = int(self.address.rsplit(":", 1)[1])


class Server(Process):
    """`lamina serve`, waited for until it is healthy."""

    def __init__(self, model, *arguments, environment=None, api_key=None, namespace=None):
        self.api_key = api_key
        super().__init__("serve", model, "--port", 0, "--kv-cache-memory-bytes", KV_MEMORY, *arguments,
                         environment=environment, namespace=namespace)
        self.port = int(self.wait_for_line(r"ready after .*http://\S+:(\d+)").group(1))
        assert self.is_healthy(), self.log

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def is_healthy(self):
        return self.request("GET", "/health")[0] == 200

    def connect(self, timeout=120):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if self.namespace:
            connection.sock = self.namespace.connect(("127.0.0.1", self.port), timeout)
        return connection

    def request(self, method, path, body=None, headers=None):
        """Status, decoded JSON (or text), headers."""
        connection = self.connect()
        try:
            data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
            headers = {"Content-Type": "application/json"} | (headers or {})
            if self.api_key:
                headers = {"Authorization": f"Bearer {self.api_key}"} | headers
            connection.request(method, path, data, headers)
            answer = connection.getresponse()
            text = answer.read().decode()
            is_json = "json" in (answer.getheader("Content-Type") or "")
            return answer.status, json.loads(text) if is_json and text else text, dict(answer.getheaders())
        finally:
            connection.close()

    def post(self, path, body, expect=200):
        status, answer, _ = self.request("POST", path, body)
        assert status == expect, (status, answer)
        return answer

    def complete_ids(self, prompt_ids, max_tokens, **options):
        """Greedy token ids of a completion of token ids."""
        answer = self.post("/v1/completions", {
            "prompt": prompt_ids, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True} | options)
        return answer["choices"][0]["token_ids"]

    def stream(self, path, body):
        """Yields each event's JSON of a streamed answer; the connection closes when the generator does."""
        connection = self.connect()
        try:
            connection.request("POST", path, json.dumps(body | {"stream": True}), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            if answer.status != 200:
                raise Refused(answer.status, json.loads(answer.read()))
            for line in answer:
                if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                    yield json.loads(line[len(b"data: "):])
        finally:
            connection.close()

    def metrics(self):
        """Values of /metrics by name and labels, as the text has them."""
        values = {}
        for line in self.request("GET", "/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                values[name] = float(value)
        return values

    def metric(self, name):
        """The sum of a metric over its labels."""
        return sum(value for key, value in self.metrics().items() if key.split("{")[0] == name)

    def wait_until_idle(self, timeout=30):
        """Waits until nothing runs or waits and every KV block is free."""
        deadline = time.monotonic() + timeout
        names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc")
        while any(self.metric(name) for name in names):
            assert time.monotonic() < deadline, self.request("GET", "/metrics")[1]
            time.sleep(0.02)

    def worker_pids(self):
        """Pids of the local attention workers."""
        children = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True).stdout
        return [int(pid) for pid in children.split()]


def in_parallel(function, items):
    """Results of function(item) for all items at once, in order; the first error is raised."""
    results = [None] * len(items)
    errors = []

    def run(index, item):
        try:
            results[index] = function(item)
        except BaseException as error:  # noqa: BLE001: raised again below
            errors.append(error)

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(items)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def temporary_directory():
    return tempfile.TemporaryDirectory(prefix="lamina-test-")
