"""One short table of what the benchmarks of the GPU bundle printed, beside what they should reach.
    gpu_table.py FOLDER     with attention.log, sdpa.log, slice.log, model.log, pool.log and transport.log, as far as they are there"""
import pathlib
import re
import sys

ATTENTION = re.compile(
    r"^(?P<kind>even|ragged) +heads +64/ *(?P<kv_heads>\d+) .*block +(?P<block>\d+) +B +(?P<batch>\d+) +S +(?P<context>\d+)"
    r" +(?P<us>[\d.]+) us.*: (?P<share>[\d.]+)$")
SDPA = re.compile(r"torch +heads 64/ *(\d+) .* B +(\d+) S +(\d+) +([\d.]+) us")
SLICE = re.compile(r"^B +(\d+) +a slice .* ([\d.]+)$", re.MULTILINE)
STEP = re.compile(r"B +(\d+) S +(\d+) .* ms +([\d.]+)x +(\d+) tokens/s")
# Tokens per second of llama.cpp of August 2026 (CUDA, flash attention) with the Llama-3-8B shape in bf16, on an H100.
LLAMA_CPP = {(1, 512): 159, (16, 1024): 1687, (64, 1024): 4295, (64, 2048): 3469, (128, 1024): 5409, (256, 1024): 6925,
             (16, 8192): 1056, (16, 16384): 738}
WANTED_MODEL = {(1, 1024), (64, 2048), (256, 1024)}


def mark(value, wanted, at_most=False):
    """The value; * where it is short of what is wanted."""
    is_short = value > wanted if at_most else value < wanted
    return f"{value:.2f}" + ("*" if is_short else " ")


def attention_shares(text):
    """{(KV heads, batch, context): {(kind, block): (share of the bandwidth, us)}}; ragged ones under the even case before."""
    cases, at = {}, None
    for found in map(ATTENTION.match, text.splitlines()):
        if not found:
            continue
        if found["kind"] == "even":
            at = int(found["kv_heads"]), int(found["batch"]), int(found["context"])
        cases.setdefault(at, {})[found["kind"], int(found["block"])] = float(found["share"]), float(found["us"])
    return cases


def print_attention(text, sdpa_text):
    cases = attention_shares(text)
    peers = {tuple(map(int, found[:3])): float(found[3]) for found in SDPA.findall(sdpa_text)}
    print("decode attention, bf16, 64 heads: share of the read bandwidth   even   ragged   cuDNN's time / ours")
    for (kv_heads, batch, context), shares in cases.items():
        wanted = 0.7 if (batch, context) == (20, 1024) else 0.9
        peer = peers.get((kv_heads, batch, context))
        beside = mark(peer / shares["even", 64][1], 0.97) if peer else "-"
        print(f"  {kv_heads:2} KV heads, {batch:3} x {context:5}, blocks of 64          "
              f"{mark(shares['even', 64][0], wanted)}    {mark(shares['ragged', 64][0], wanted)}    {beside}")


def print_slice(text):
    shares = [f"{batch}: {mark(float(share), 0.9)}" for batch, share in SLICE.findall(text)]
    print("a layer of Llama-3-70B, bare cuBLASLt products / slice, by rows\n  " + "  ".join(shares))


def print_model(text, is_h100):
    print("Llama-3-8B shape, a decoding step: time / bound, tokens/s" + (", and llama.cpp's" if is_h100 else ""))
    for batch, context, over, rate in STEP.findall(text):
        at = int(batch), int(context)
        peer = f"  {int(rate) / LLAMA_CPP[at]:.2f}x" if is_h100 and at in LLAMA_CPP else ""
        wanted = 1.2 if at in WANTED_MODEL else float("inf")
        print(f"  {at[0]:3} x {at[1]:5}   {mark(float(over), wanted, at_most=True)}  {rate:>6}{peer}")


def main(folder):
    texts = {path.stem: path.read_text(errors="replace") for path in pathlib.Path(folder).glob("*.log")}
    if "attention" in texts:
        print(texts["attention"].splitlines()[0])
        print_attention(texts["attention"], texts.get("sdpa", ""))
    if "slice" in texts:
        print_slice(texts["slice"])
    if "model" in texts:
        print_model(texts["model"], "H100" in texts.get("attention", ""))
    if "pool" in texts:
        print("33B shape on the GPU, keys and values there or in host memory\n" + texts["pool"].strip())
    if "transport" in texts:
        print(texts["transport"].strip())
    print("*: short of what is wanted")


if __name__ == "__main__":
    main(sys.argv[1])
