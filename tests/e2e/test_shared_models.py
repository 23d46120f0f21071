"""The tiny trained models reproduce their reference texts, offloaded over two workers."""
import json

import pytest

from harness import SHARED, Server, in_parallel

MODELS = ["stories260K", "stories260K-bf16-sharded", "tinystories-656K"]


@pytest.mark.parametrize("name", MODELS)
def test_reference_greedy(name):
    model = SHARED / "data/models" / name
    if not model.exists():
        pytest.skip(f"skipped: needs {name} of the shared folder")
    cases = json.loads((model / "reference_greedy.json").read_text())["cases"]
    with Server(model, "--dtype", "float32") as server:
        def check(case):
            by_ids = server.post("/v1/completions", {
                "prompt": case["prompt_ids"], "temperature": 0, "max_tokens": 256, "return_token_ids": True})
            choice = by_ids["choices"][0]
            assert choice["token_ids"] == case["generated_ids"]
            assert choice["finish_reason"] == ("stop" if case["finish"] == "eos" else "length")
            by_text = server.post("/v1/completions", {
                "prompt": case["prompt"], "temperature": 0, "max_tokens": 256, "return_token_ids": True})
            assert by_text["choices"][0]["token_ids"] == case["generated_ids"]
            text = by_text["choices"][0]["text"].removesuffix("<|end_story|>").strip()
            assert text == case["generated_text"].removesuffix("<|end_story|>").strip()
        in_parallel(check, cases)
        server.wait_until_idle()
