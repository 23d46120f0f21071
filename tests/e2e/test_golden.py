"""Every fixture model through the whole program: offloaded over 2 and 3 workers and colocated, greedy ids equal the
goldens, whatever else is in the batch."""
import json

import pytest

from harness import FIXTURES, Server, in_parallel

CASES = sorted(path.name for path in (FIXTURES / "models").iterdir())
PLACEMENTS = {
    "2-workers": ["--attention-workers", "2"],
    "3-workers-tcp": ["--attention-workers", "3", "--transport", "tcp"],
    "colocated": ["--mode", "colocated"],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("placement", PLACEMENTS)
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
