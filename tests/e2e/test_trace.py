"""`lamina serve --trace`: what Perfetto will load."""
import bisect
import collections
import json

import pytest

from harness import FIXTURES, Server, in_parallel, temporary_directory

MODEL = FIXTURES / "models/llama-gqa"
NUM_LAYERS = json.loads((MODEL / "config.json").read_text())["num_hidden_layers"]


@pytest.fixture(scope="module")
def events():
    """Of a server with two replicas, three micro-batches and two attention workers, after six requests at once,
    long enough that all micro-batches have some."""
    with temporary_directory() as folder:
        path = f"{folder}/trace.json"
        with Server(MODEL, "--dtype", "float32", "--skip-tokenizer-init", "--replicas", 2, "--micro-batches", 3,
                    "--attention-workers", 2, "--trace", path) as server:
            in_parallel(lambda i: server.complete_ids([5 + i] * 9, 40), range(6))
        with open(path) as file:
            return json.load(file)["traceEvents"]


def rows_of(events):
    """Names of pools and rows by their ids."""
    pools = {event["pid"]: event["args"]["name"] for event in events if event["name"] == "process_name"}
    return {(event["pid"], event["tid"]): (pools[event["pid"]], event["args"]["name"])
            for event in events if event["name"] == "thread_name"}


def spans_by_row(events):
    """Begins and ends of the spans of each row, in order."""
    by_row = collections.defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            by_row[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for spans in by_row.values():
        spans.sort(key=lambda span: (span[0], -span[1]))
    return by_row


def test_a_row_for_each_replica_and_worker(events):
    rows = collections.Counter(pool for pool, _ in rows_of(events).values())
    assert rows == {"model replicas": 2, "attention workers": 2}
    assert len(set(rows_of(events).values())) == 4


def test_spans_say_what_they_are(events):
    rows = rows_of(events)
    spans = [event for event in events if event["ph"] == "X"]
    assert {(event["pid"], event["tid"]) for event in spans} == set(rows)  # nobody is idle all the time
    seen = collections.defaultdict(set)
    for event in spans:
        pool, _ = rows[event["pid"], event["tid"]]
        assert event["dur"] >= 0
        assert 0 <= event["args"]["micro_batch"] < 3, event
        assert 0 <= event["args"]["layer"] < NUM_LAYERS, event
        seen[pool].add((event["args"]["micro_batch"], event["args"].get("slice", event["args"]["layer"])))
    # Slices stand before, between and after the attention of the layers.
    for pool, count in (("model replicas", NUM_LAYERS + 1), ("attention workers", NUM_LAYERS)):
        assert seen[pool] == {(j, i) for j in range(3) for i in range(count)}, pool


def test_spans_of_a_row_do_not_overlap_in_part(events):
    for spans in spans_by_row(events).values():
        open_ends = []
        for begin, end in spans:
            while open_ends and open_ends[-1] <= begin + 1e-3:
                open_ends.pop()
            assert not open_ends or end <= open_ends[-1] + 1e-3
            open_ends.append(end)


def test_every_arrow_has_both_ends_in_spans(events):
    spans = spans_by_row(events)

    def is_inside(event):
        of_row = spans[event["pid"], event["tid"]]
        last = bisect.bisect_right(of_row, (event["ts"] + 1e-3, float("inf")))
        return any(end >= event["ts"] - 1e-3 for _, end in of_row[max(0, last - 3):last])

    begins = {event["id"]: event for event in events if event["ph"] == "s"}
    ends = {event["id"]: event for event in events if event["ph"] == "f"}
    assert begins and begins.keys() == ends.keys()
    kinds = collections.Counter(event["name"] for event in begins.values())
    assert kinds.keys() >= {"q", "k, v", "carried"}, kinds
    outside = [begin for key, begin in begins.items() if not is_inside(begin) or not is_inside(ends[key])]
    assert not outside, (len(outside), len(begins), outside[:3])
    # A worker's clock is its own: how it differs from the server's is an estimate.
    assert all(ends[key]["ts"] >= begin["ts"] - 5000 for key, begin in begins.items())
    assert all(ends[key]["ts"] >= begin["ts"] for key, begin in begins.items() if begin["name"] == "carried")
