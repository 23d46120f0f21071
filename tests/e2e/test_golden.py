"""Every fixture model through the whole program: offloaded, tensor-parallel and colocated, greedy ids equal the goldens,
whatever else is in the batch."""
import json

import pytest

from harness import FIXTURES, Server, in_parallel

CASES = sorted(path.name for path in (FIXTURES / "models").iterdir())
PLACEMENTS = {
    "2-workers": ["--attention-workers", "2"],
    "2-ranks-3-workers": ["--tensor-parallel-size", "2", "--attention-workers", "3"],
    "4-ranks-3-workers-tcp": ["--tensor-parallel-size", "4", "--attention-workers", "3", "--transport", "tcp"],
    "3-workers-tcp": ["--attention-workers", "3", "--transport", "tcp"],
    "sequence-split": ["--attention-workers", "3", "--partition", "sequence", "--no-overlap"],
    "head-sequence-split": ["--attention-workers", "5", "--partition", "head-sequence"],
    "request-split": ["--attention-workers", "3", "--partition", "request"],
    "2-micro-batches": ["--micro-batches", "2"],
    "rotation": ["--replicas", "2", "--micro-batches", "3", "--attention-workers", "3", "--transport", "shm"],
    "rotation-tcp": ["--replicas", "2", "--micro-batches", "3", "--attention-workers", "3", "--transport", "tcp"],
    "rotation-of-ranks": [
        "--replicas", "3", "--micro-batches", "4", "--tensor-parallel-size", "2", "--partition", "sequence"
    ],
    "in-process": ["--transport", "loopback", "--attention-workers", "1", "--threads", "2", "--cpu-bind", "auto"],
    "2-ranks-3-workers-in-process": [
        "--tensor-parallel-size", "2", "--attention-workers", "3", "--transport", "loopback", "--micro-batches", "2"
    ],
    "devices-2-workers": ["--transport", "cuda_p2p", "--attention-workers", "2"],
    "devices-2-ranks-3-workers": [
        "--transport", "cuda_p2p", "--tensor-parallel-size", "2", "--attention-workers", "3", "--micro-batches", "2"
    ],
    "devices-sequence-split": ["--transport", "cuda_p2p", "--attention-workers", "3", "--partition", "sequence"],
    "devices-rotation": [
        "--transport", "cuda_p2p", "--replicas", "2", "--micro-batches", "3", "--attention-workers", "2"
    ],
    "bound": ["--cpu-bind", "auto"],
    "colocated": ["--mode", "colocated"],
    "2-ranks-colocated": ["--mode", "colocated", "--tensor-parallel-size", "2"],
}
# Every model in the first two; the others with one model of each form of attention.
EVERYWHERE = ["llama-gqa", "bloom", "deepseek_v2", "gemma2", "gpt_oss", "qwen3_moe"]
PAIRS = [
    (case, placement)
    for i, placement in enumerate(PLACEMENTS)
    for case in (CASES if i < 2 else EVERYWHERE)
]


@pytest.mark.parametrize("case, placement", PAIRS)
def test_greedy_ids(case, placement):
    model = FIXTURES / "models" / case
    golden = json.loads((model / "golden.json").read_text())
    options = ["--dtype", "float32", "--skip-tokenizer-init", "--max-num-batched-tokens", "64", *PLACEMENTS[placement]]
    with Server(model, *options) as server:
        expected = golden["greedy"]
        together = in_parallel(lambda prompt: server.complete_ids(prompt, 32), golden["prompts"])
        assert together == expected
        alone = [server.complete_ids(prompt, 32) for prompt in golden["prompts"]]
        assert alone == expected


@pytest.mark.parametrize("kv_dtype", ["int8", "fp8"])
@pytest.mark.parametrize("case", EVERYWHERE)
def test_quantised_cache(case, kv_dtype):
    """A token's codes depend on the token alone: offloaded ids equal colocated ones, together and alone."""
    model = FIXTURES / "models" / case
    prompts = json.loads((model / "golden.json").read_text())["prompts"]
    options = ["--dtype", "float32", "--skip-tokenizer-init", "--max-num-batched-tokens", "64", "--kv-cache-dtype", kv_dtype]
    with Server(model, *options, *PLACEMENTS["colocated"]) as server:
        expected = [server.complete_ids(prompt, 32) for prompt in prompts]
    for placement in ("2-workers", "request-split", "rotation"):
        with Server(model, *options, *PLACEMENTS[placement]) as server:
            assert in_parallel(lambda prompt: server.complete_ids(prompt, 32), prompts) == expected
