"""The default chat model through the official OpenAI client."""
import pytest
from openai import OpenAI

from harness import DEFAULT_MODEL, IS_SANITIZED, Server, in_parallel

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPTS = [
    "What is the capital of France?", "Name three colours.", "Write a haiku about rain.", "What is 2 + 2?",
    "Who wrote Hamlet?", "Describe the sea in one sentence.", "What do bees make?", "Say hello in Spanish.",
]

pytestmark = pytest.mark.skipif(not DEFAULT_MODEL.exists(), reason="skipped: the default model is not there")


def client_of(server):
    return OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def ask(client, text, **options):
    answer = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": text}], temperature=0, max_tokens=48, **options)
    return answer.choices[0].message.content


def ask_streaming(client, text):
    stream = client.chat.completions.create(
        model="default", messages=[{"role": "user", "content": text}], temperature=0, max_tokens=48, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)


# Of 98 MB of weights each token multiplies all: two prompts are what a sanitized program has time for.
COMPARED = PROMPTS[3:5] if IS_SANITIZED else PROMPTS


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_offloaded_answers_equal_colocated_ones(dtype):
    options = ["--dtype", dtype, "--served-model-name", "default", "--max-model-len", "1024"]
    with Server(DEFAULT_MODEL, *options, "--mode", "colocated") as server:
        client = client_of(server)
        colocated = [ask(client, prompt) for prompt in COMPARED]
    with Server(DEFAULT_MODEL, *options) as server:
        client = client_of(server)
        assert "Shakespeare" in ask(client, PROMPTS[4])
        together = in_parallel(lambda prompt: ask(client, prompt), COMPARED)
        streamed = in_parallel(lambda prompt: ask_streaming(client, prompt), COMPARED)
        assert together == colocated
        assert streamed == colocated
        server.wait_until_idle()
