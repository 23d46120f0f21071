"""Bad models and flags end in one clear line; bad requests in a 4xx with OpenAI's error body, the server unharmed."""
import json
import shutil
import struct
import subprocess

import pytest

from harness import BINARY, FIXTURES, Server, clean_environment, temporary_directory

MODEL = FIXTURES / "models/llama-gqa"


def start_error(*arguments):
    """What a `serve` that must not start says last: one line, and for a wrong flag the pointer to --help after it."""
    done = subprocess.run([BINARY, "serve", *map(str, arguments), "--port", "0"], capture_output=True, text=True,
                          timeout=60, env=clean_environment())
    assert done.returncode not in (0, -6, -11), (done.returncode, done.stderr)
    assert "internal error" not in done.stderr and "terminate called" not in done.stderr, done.stderr
    lines = done.stderr.strip().removesuffix("Run with --help for more information.").strip().splitlines()
    return lines[-1]


@pytest.fixture
def copy():
    """A copy of the fixture model to be damaged."""
    with temporary_directory() as folder:
        target = shutil.copytree(MODEL, f"{folder}/model")
        yield __import__("pathlib").Path(target)


def edit_config(model, **changes):
    config = json.loads((model / "config.json").read_text()) | changes
    (model / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("arguments, expected", [
    (["/nonexistent"], "/nonexistent"),
    ([MODEL, "--skip-tokenizer-init", "--max-model-len", "100000"], "--max-model-len"),
    ([MODEL, "--skip-tokenizer-init", "--kv-cache-memory-bytes", "1000"], "--kv-cache-memory-bytes"),
    ([MODEL, "--skip-tokenizer-init", "--kv-cache-memory-bytes", "lots"], "lots"),
    ([MODEL, "--skip-tokenizer-init", "--host", "0.0.0.0"], "--api-key"),
    ([MODEL, "--skip-tokenizer-init", "--attention-worker", "nowhere"], "nowhere"),
    ([MODEL, "--skip-tokenizer-init", "--dtype", "int3"], "--dtype"),
    ([MODEL], "tokenizer"),
])
def test_start_errors(arguments, expected):
    assert expected in start_error(*arguments)


@pytest.mark.parametrize("changes, expected", [
    ({"model_type": "mamba"}, "mamba"),
    ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "rope type 'longrope' is not supported"),
    ({"num_attention_heads": 7}, "7"),
    ({"hidden_size": -1}, "hidden_size"),
    ({"hidden_act": "gelu_10"}, "gelu_10"),
    ({"vocab_size": 1000}, "embed_tokens"),
])
def test_config_errors(copy, changes, expected):
    edit_config(copy, **changes)
    assert expected in start_error(copy, "--skip-tokenizer-init")


def test_truncated_weights(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(data[:-100])
    assert "model.safetensors" in start_error(copy, "--skip-tokenizer-init")


def test_lying_weight_header(copy):
    data = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 62) + data[8:])
    assert "model.safetensors" in start_error(copy, "--skip-tokenizer-init")


def test_garbage_gguf(copy):
    (copy / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1 << 60))
    assert "model.gguf" in start_error(copy / "model.gguf")


GOOD = {"prompt": [1, 2, 3], "max_tokens": 2}
BAD_BODIES = [
    "", "{", "[]", "null", '"text"', b"\xff\xfe", "{" * 5000, '{"prompt": ' + "[" * 5000,
    {}, GOOD | {"prompt": []}, GOOD | {"prompt": "text without a tokenizer"}, GOOD | {"prompt": [512]},
    GOOD | {"prompt": [-1]}, GOOD | {"prompt": [1.5]}, GOOD | {"prompt": [[1], "x"]}, GOOD | {"prompt": {"a": 1}},
    GOOD | {"prompt": [1] * 600}, GOOD | {"max_tokens": -1}, GOOD | {"max_tokens": 100000}, GOOD | {"max_tokens": "1"},
    GOOD | {"temperature": -1}, GOOD | {"temperature": "hot"}, GOOD | {"top_p": 0}, GOOD | {"top_p": 2},
    GOOD | {"top_k": -5}, GOOD | {"min_p": 2}, GOOD | {"n": 0}, GOOD | {"n": 100000}, GOOD | {"logprobs": 1000},
    GOOD | {"presence_penalty": 3}, GOOD | {"frequency_penalty": -3}, GOOD | {"repetition_penalty": 0},
    GOOD | {"logit_bias": {"x": 1}}, GOOD | {"logit_bias": {"600": 1}}, GOOD | {"stop": 5}, GOOD | {"stop": ["a"] * 50},
    GOOD | {"stream": "yes"}, GOOD | {"model": "another-model"}, GOOD | {"seed": "x"},
    GOOD | {"max_tokens": 10 ** 30},
]


def test_bad_requests_are_answered_and_harmless():
    with Server(MODEL, "--skip-tokenizer-init", "--dtype", "float32", "--served-model-name", "tiny") as server:
        expected = server.complete_ids([1, 2, 3], 8)
        for body in BAD_BODIES:
            status, answer, _ = server.request("POST", "/v1/completions", body)
            assert 400 <= status < 500, (status, body, answer)
            assert set(answer["error"]) == {"message", "type", "param", "code"}, answer
        for path in ("/", "/v1/nothing", "/v1/completions/1", "/%00", "/../etc/passwd"):
            status, answer, _ = server.request("GET", path)
            assert status in (400, 404, 405), (path, status)
        assert server.request("DELETE", "/v1/completions")[0] == 405
        status, answer, _ = server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]})
        assert status == 400, answer
        assert server.complete_ids([1, 2, 3], 8) == expected
        server.wait_until_idle()
