"""`lamina plan` answers as a table, JSON, a page and a drawing, all well formed; what it cannot use ends in one clear line."""
import html.parser
import json
import subprocess
import xml.etree.ElementTree

import pytest

from harness import BINARY, clean_environment

TRACE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:15:46.6805900,374,44
2023-11-16 18:15:50.9951690,396,109
2023-11-16 18:15:51.2224670,879,55
"""
SMALL = ["llama3-70b", "--max-model-devices", "4", "--max-attention-devices", "4"]


def plan(*arguments):
    return subprocess.run([BINARY, "plan", *arguments], capture_output=True, text=True, timeout=60,
                          env=clean_environment())


def answer_of(*arguments):
    done = plan(*arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_table_has_assumptions_gains_and_the_homogeneous_placements():
    text = answer_of(*SMALL)
    for part in "assumed", "tokens/s", "homogeneous\n", "homogeneous, 10 ms more of host", "tokens per dollar", \
            "other lengths of context":
        assert part in text, text


def test_json_has_the_same_and_a_replay(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    answer = json.loads(answer_of(*SMALL, "--trace", str(trace), "--replay", "--json"))
    assert answer["best_offloaded"]["dollars_per_h"] > 0
    assert answer["offloaded_replay"]["requests"] == 3
    assert answer["offloaded_replay"]["tokens"] == 44 + 109 + 55
    assert len(answer["homogeneous"]) == len(answer["homogeneous_with_10_ms_of_host"])
    assert answer["tokens_per_dollar_gain"][0]["gain"] > 0
    assert answer["tokens_per_dollar_gain"][0]["gain_when_full"] > 0
    assert not answer["best_offloaded"]["beyond_profile"]


TINY = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
        "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "vocab_size": 128, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": False}


def profile(*arguments):
    return subprocess.run([BINARY, "profile", *arguments], capture_output=True, text=True, timeout=60,
                          env=clean_environment())


def test_a_plan_by_a_profile_says_what_lies_beyond_it(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    output = str(tmp_path / "cpu.yaml")
    done = profile(str(tmp_path), "--max-batch", "2", "--max-context", "64", "--point-ms", "0.1", "--threads", "1",
                   "--output", output)
    assert done.returncode == 0, done.stderr
    assert "residual" in done.stdout
    by_profile = [str(tmp_path), "--profile", output, "--price", "cpu=1", "--model-device", "cpu", "--attention-device", "cpu",
                  "--max-model-devices", "1", "--max-attention-devices", "1", "--generated-tokens", "8"]
    beyond = answer_of(*by_profile, "--prompt-tokens", "200")
    assert "WARNING: the best homogeneous placement's steps" in beyond
    assert json.loads(answer_of(*by_profile, "--prompt-tokens", "200", "--json"))["best_homogeneous"]["beyond_profile"]


@pytest.mark.parametrize("arguments, message", [
    (["--device", "cuda:99"], "cuda:99"),
    (["--device", "abacus"], "--device"),
    (["--device", "cuda", "--attention-device", "cpu"], "of CPUs or of GPUs"),
])
def test_a_profile_of_what_is_not_there_is_refused(tmp_path, arguments, message):
    done = profile("llama-33b", *arguments, "--output", str(tmp_path / "gpu.yaml"))
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "gpu.yaml").exists()


def test_a_limit_on_the_first_token_replays_without_being_told(tmp_path):
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    kept = answer_of(*SMALL, "--trace", str(trace), "--max-ttft-ms", "10000")
    assert "to the first token" in kept and "MISSES" not in kept
    assert "MISSES" in answer_of(*SMALL, "--trace", str(trace), "--max-ttft-ms", "0.001")


def test_the_drawing_is_xml(tmp_path):
    output = tmp_path / "plan.svg"
    assert answer_of(*SMALL, "--svg", "--output", str(output)) == ""
    root = xml.etree.ElementTree.fromstring(output.read_text())
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5


class Tags(html.parser.HTMLParser):
    """Fails where a tag is closed that is not the last one open."""
    VOID = {"meta", "br", "link", "hr", "img"}

    def __init__(self):
        super().__init__()
        self.open = []

    def handle_starttag(self, tag, attrs):
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_well_formed():
    page = answer_of(*SMALL, "--html")
    tags = Tags()
    tags.feed(page)
    tags.close()
    assert tags.open == []
    assert "<svg" in page and "<script" not in page


@pytest.mark.parametrize("arguments, message", [
    (["no-such-model"], "no-such-model"),
    (["llama3-70b", "--model-device", "abacus"], "abacus"),
    (["llama3-70b", "--price", "h100"], "--price: 'h100' is not DEVICE=DOLLARS_PER_HOUR"),
    (["llama3-70b", "--prompt-tokens", "many"], "many"),
    (["llama3-70b", "--max-model-devices", "0"], "--max-model-devices"),
    (["llama3-70b", "--json", "--svg"], "excludes"),
    (["llama3-70b", "--max-model-devices", "1", "--max-attention-devices", "1"], "no placement fits"),
])
def test_what_cannot_be_used_is_named(arguments, message):
    done = plan(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("flag, name, text", [
    ("--trace", "trace.csv", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n"),
    ("--trace", "trace.jsonl", "{\n"),
    ("--devices", "devices.yaml", "h100: [1, 2]\n"),
    ("--profile", "profile.yaml", "machine: a\n"),
])
def test_files_with_mistakes_are_named(tmp_path, flag, name, text):
    path = tmp_path / name
    path.write_text(text)
    done = plan("llama3-70b", flag, str(path))
    assert done.returncode != 0
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_file_that_is_not_there_is_named(tmp_path):
    for flag in "--trace", "--devices", "--profile":
        done = plan("llama3-70b", flag, str(tmp_path / "absent.csv"))
        assert done.returncode != 0
        assert "absent.csv" in done.stderr
