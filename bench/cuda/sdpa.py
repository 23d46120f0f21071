"""PyTorch's scaled_dot_product_attention on dense keys, at the sizes of lamina_bench_cuda_attention: the best of its backends,
in a captured graph, over copies that the cache cannot hold. One line a size. Needs a GPU and PyTorch."""
import statistics

import torch
import torch.nn.functional as functional
from torch.nn.attention import SDPBackend, sdpa_kernel

NUM_HEADS = 64
HEAD_DIM = 128
SIZES = [(16, 4096), (64, 4096), (16, 16384), (128, 2048), (20, 1024)]
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION, SDPBackend.EFFICIENT_ATTENTION]
REPEATS = 7


def seconds_of(call, num_calls):
    """The median over replays of a graph of call(0) ... call(num_calls - 1), of one of them."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for i in range(3):
            call(i)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(num_calls):
            call(i)
    times = []
    for _ in range(REPEATS + 1):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) * 1e-3 / num_calls)
    return statistics.median(times[1:])


def bench(batch, context, num_kv_heads):
    size_bytes = batch * context * num_kv_heads * HEAD_DIM * 2 * 2
    copies = max(2, int(1e9 / size_bytes))
    shape = (batch, num_kv_heads, context, HEAD_DIM)
    keys = [torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(copies)]
    values = [torch.randn_like(key) for key in keys]
    query = torch.randn(batch, NUM_HEADS, 1, HEAD_DIM, device="cuda", dtype=torch.bfloat16)
    best = None
    for backend in BACKENDS:
        def call(i):
            functional.scaled_dot_product_attention(
                query, keys[i % copies], values[i % copies], enable_gqa=num_kv_heads != NUM_HEADS)
        try:
            with sdpa_kernel(backend):
                seconds = seconds_of(call, max(2 * copies, 20))
        except RuntimeError:  # not for these sizes
            continue
        if best is None or seconds < best[0]:
            best = (seconds, backend.name)
    if best is not None:
        print(f"torch    heads {NUM_HEADS}/{num_kv_heads:2} of {HEAD_DIM} {best[1]:17} B {batch:3} S {context:5}"
              f"  {1e6 * best[0]:8.1f} us  {size_bytes / best[0] / 1e9:6.0f} GB/s", flush=True)


if __name__ == "__main__":
    for kv_heads in (8, NUM_HEADS):
        for batch, context in SIZES:
            bench(batch, context, kv_heads)
