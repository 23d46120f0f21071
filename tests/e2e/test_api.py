"""The HTTP interface on a real engine: endpoints, options and access, beyond what the server's own tests fake."""
import math

from harness import FIXTURES, Server

MODEL = FIXTURES / "models/qwen3"
OPTIONS = ["--dtype", "float32", "--skip-tokenizer-init", "--served-model-name", "tiny"]


def test_endpoints_and_options():
    with Server(MODEL, *OPTIONS) as server:
        assert server.request("GET", "/v1/models")[1]["data"][0]["id"] == "tiny"
        assert "version" in server.request("GET", "/version")[1]

        whole = server.complete_ids([1, 2, 3], 12)
        events = list(server.stream("/v1/completions", {
            "prompt": [1, 2, 3], "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True,
            "stream_options": {"include_usage": True}}))
        assert [i for event in events for choice in event["choices"] for i in choice.get("token_ids") or []] == whole
        assert events[-1]["usage"] == {"prompt_tokens": 3, "completion_tokens": 12, "total_tokens": 15} | {
            key: value for key, value in events[-1]["usage"].items() if key == "prompt_tokens_details"}

        many = server.post("/v1/completions", {
            "prompt": [[1, 2, 3], [4, 5]], "n": 2, "max_tokens": 5, "temperature": 0, "ignore_eos": True,
            "return_token_ids": True})
        assert [choice["index"] for choice in many["choices"]] == [0, 1, 2, 3]
        assert many["choices"][0]["token_ids"] == many["choices"][1]["token_ids"] == whole[:5]

        stopped = server.post("/v1/completions", {
            "prompt": [1, 2, 3], "max_tokens": 12, "temperature": 0, "ignore_eos": True, "return_token_ids": True,
            "stop_token_ids": [whole[4]]})["choices"][0]
        assert stopped["finish_reason"] == "stop" and stopped["stop_reason"] == whole[4]
        assert stopped["token_ids"] == whole[:whole.index(whole[4]) + 1]

        server.wait_until_idle()


def test_seeded_sampling_repeats():
    with Server(MODEL, *OPTIONS) as server:
        body = {"prompt": [1, 2, 3], "max_tokens": 20, "temperature": 1.5, "ignore_eos": True, "return_token_ids": True}
        draws = [server.post("/v1/completions", body | {"seed": seed})["choices"][0]["token_ids"]
                 for seed in (1, 1, 2)]
        assert draws[0] == draws[1] != draws[2]


def test_echo_scores_the_prompt():
    with Server(MODEL, *OPTIONS) as server:
        prompt = [7, 8, 9, 10, 11]
        answer = server.post("/v1/completions", {
            "prompt": prompt, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 2, "return_token_ids": True})
        logprobs = answer["choices"][0]["logprobs"]
        assert logprobs["token_logprobs"][0] is None
        assert len(logprobs["token_logprobs"]) == len(prompt) + 1
        assert all(value <= 0 and math.isfinite(value) for value in logprobs["token_logprobs"][1:])
        # Scoring the same prompt in one token more gives the sampled token's own score as a prompt token.
        longer = prompt + answer["choices"][0]["token_ids"][-1:]
        again = server.post("/v1/completions", {
            "prompt": longer, "max_tokens": 0, "echo": True, "logprobs": 2})["choices"][0]["logprobs"]
        assert len(again["token_logprobs"]) == len(longer)
        for first, second in zip(logprobs["token_logprobs"][1:], again["token_logprobs"][1:]):
            assert abs(first - second) < 1e-4


def test_api_key_guards_all_but_health():
    with Server(MODEL, *OPTIONS, "--api-key", "open sesame", api_key="open sesame") as server:
        for path in ("/v1/models", "/metrics", "/version"):
            assert server.request("GET", path)[0] == 200
            assert server.request("GET", path, headers={"Authorization": "Bearer wrong"})[0] == 401
        assert server.request("GET", "/health", headers={"Authorization": ""})[0] == 200


def test_echo_of_a_long_prompt_comes_whole():
    # Scores come in chunks of at most 64 rows; the answer must hold them all, for each choice.
    prompt = [(7 * i) % 500 for i in range(200)]
    body = {"prompt": prompt, "max_tokens": 2, "temperature": 0, "echo": True, "logprobs": 1, "n": 2, "ignore_eos": True}
    with Server(MODEL, *OPTIONS, "--max-num-seqs", "4") as server:
        answer = server.post("/v1/completions", body)
        both = [choice["logprobs"]["token_logprobs"] for choice in answer["choices"]]
        assert [len(values) for values in both] == [202, 202]
        assert both[0] == both[1]
        assert all(value is not None for value in both[0][1:])
        short = server.post("/v1/completions", body | {"prompt": prompt[:20], "n": 1})["choices"][0]["logprobs"]
        for first, second in zip(both[0][1:20], short["token_logprobs"][1:20]):
            assert abs(first - second) < 1e-4


def test_a_request_that_forbids_every_token_fails_alone():
    with Server(FIXTURES / "models/llama-gqa", *OPTIONS) as server:
        status, answer, _ = server.request("POST", "/v1/completions", {
            "prompt": [1, 2], "max_tokens": 4, "min_tokens": 2, "stop_token_ids": list(range(512))})
        assert status in (400, 500), answer
        assert len(server.complete_ids([1, 2, 3], 8)) == 8
        server.wait_until_idle()
