#!/usr/bin/env python3
"""Writes a model of a known shape with random weights: for measuring, where only sizes count. Needs nothing but Python.

  bench/random_model.py TinyLlama-1.1B --format gguf --type q4_0 tinyllama.gguf
  bench/random_model.py Qwen3-0.6B --format safetensors --type bf16 qwen3/

Weights are a tile of random blocks over and over, beginning elsewhere in every tensor. The tile's length is a prime, so
rows differ. Magnitudes are about 1 / sqrt(row length), norms are ones: activations stay finite. The same seed gives the
same weights in both formats. A GGUF file has a vocabulary of made-up words; a safetensors folder has none and is served
with --skip-tokenizer-init."""
import argparse
import dataclasses
import functools
import json
import math
import pathlib
import random
import struct

TILE_BLOCKS = 262_147  # a prime above every vocabulary below
ALIGNMENT = 32         # of a GGUF file's tensors


@dataclasses.dataclass(frozen=True)
class Architecture:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    max_len: int
    model_type: str = "llama"
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5
    tied: bool = True
    bos: int = 1
    eos: int = 2
    llama3_scaling: dict | None = None

    @property
    def has_head_norms(self):
        return self.model_type == "qwen3"


ARCHITECTURES = {
    "TinyLlama-1.1B": Architecture(
        hidden=2048, intermediate=5632, layers=22, heads=32, kv_heads=4, head_dim=64, vocab=32000, max_len=2048, tied=False),
    "Qwen3-0.6B": Architecture(
        model_type="qwen3", hidden=1024, intermediate=3072, layers=28, heads=16, kv_heads=8, head_dim=128, vocab=151936,
        max_len=40960, rope_theta=1e6, norm_eps=1e-6, bos=151643, eos=151645),
    "Llama-3.2-1B": Architecture(
        hidden=2048, intermediate=8192, layers=16, heads=32, kv_heads=8, head_dim=64, vocab=128256, max_len=131072,
        rope_theta=500000.0, bos=128000, eos=128001, llama3_scaling={
            "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}),
}


@dataclasses.dataclass(frozen=True)
class WeightType:
    gguf_id: int
    block_elements: int
    block_bytes: int
    safetensors: str | None = None  # dtype there
    torch: str | None = None
    # 16-bit floats: bits of the exponent. Blocks of integers: the f16 numbers at a block's begin, of a model whose weights
    # have a root mean square of 1.
    exponent_bits: int = 0
    block_head: tuple = ()


TYPES = {
    "f32": WeightType(0, 1, 4),  # norms in GGUF only
    "f16": WeightType(1, 1, 2, "F16", "float16", exponent_bits=5),
    "bf16": WeightType(30, 1, 2, "BF16", "bfloat16", exponent_bits=8),
    "q8_0": WeightType(8, 32, 34, block_head=(1 / 73.9,)),
    "q4_0": WeightType(2, 32, 18, block_head=(1 / 4.6,)),
    "q4_1": WeightType(3, 32, 20, block_head=(1 / 4.6, -7.5 / 4.6)),
    "q4_k": WeightType(12, 256, 144, block_head=(1 / 259, 7.5 / 259)),
}


@dataclasses.dataclass(frozen=True)
class Tensor:
    name: str  # Hugging Face's
    gguf_name: str
    shape: tuple

    @property
    def num_elements(self):
        return math.prod(self.shape)

    @property
    def is_norm(self):
        return len(self.shape) == 1

    def num_bytes(self, weight_type):
        return self.num_elements // weight_type.block_elements * weight_type.block_bytes


def list_tensors(arch):
    q, kv = arch.heads * arch.head_dim, arch.kv_heads * arch.head_dim
    layer_tensors = [
        ("input_layernorm", "attn_norm", (arch.hidden,)),
        ("self_attn.q_proj", "attn_q", (q, arch.hidden)),
        ("self_attn.k_proj", "attn_k", (kv, arch.hidden)),
        ("self_attn.v_proj", "attn_v", (kv, arch.hidden)),
        ("self_attn.o_proj", "attn_output", (arch.hidden, q)),
        ("post_attention_layernorm", "ffn_norm", (arch.hidden,)),
        ("mlp.gate_proj", "ffn_gate", (arch.intermediate, arch.hidden)),
        ("mlp.up_proj", "ffn_up", (arch.intermediate, arch.hidden)),
        ("mlp.down_proj", "ffn_down", (arch.hidden, arch.intermediate)),
    ]
    if arch.has_head_norms:
        layer_tensors += [("self_attn.q_norm", "attn_q_norm", (arch.head_dim,)),
                          ("self_attn.k_norm", "attn_k_norm", (arch.head_dim,))]
    tensors = [Tensor("model.embed_tokens.weight", "token_embd.weight", (arch.vocab, arch.hidden))]
    for layer in range(arch.layers):
        tensors += [Tensor(f"model.layers.{layer}.{name}.weight", f"blk.{layer}.{gguf_name}.weight", shape)
                    for name, gguf_name, shape in layer_tensors]
    tensors.append(Tensor("model.norm.weight", "output_norm.weight", (arch.hidden,)))
    if not arch.tied:
        tensors.append(Tensor("lm_head.weight", "output.weight", (arch.vocab, arch.hidden)))
    return tensors


def random_bytes(count, rng, base, mask):
    """Bytes of `base` but for the bits of `mask`, which are random."""
    return rng.randbytes(count).translate(bytes(base | byte & mask for byte in range(256)))


@functools.cache
def make_tile(type_name, row_length, seed):
    """TILE_BLOCKS blocks of weights of about 1 / sqrt(row_length)."""
    rng = random.Random(f"{seed} {type_name} {row_length}")
    weight_type = TYPES[type_name]
    scale = row_length ** -0.5
    if not weight_type.exponent_bits:
        tile = bytearray(rng.randbytes(TILE_BLOCKS * weight_type.block_bytes))
        head = struct.pack(f"<{len(weight_type.block_head)}e", *(scale * number for number in weight_type.block_head))
        for i, byte in enumerate(head):
            tile[i::weight_type.block_bytes] = bytes([byte]) * TILE_BLOCKS
        return bytes(tile)
    # One exponent, so magnitudes in [2^e, 2^(e + 1)), which have a root mean square of 1.53 * 2^e; either sign.
    exponent = round(math.log2(scale / 1.53))
    mantissa_bits = 15 - weight_type.exponent_bits
    base = (exponent + 2 ** (weight_type.exponent_bits - 1) - 1) << mantissa_bits
    mask = 1 << 15 | (1 << mantissa_bits) - 1
    tile = bytearray(2 * TILE_BLOCKS)
    tile[0::2] = random_bytes(TILE_BLOCKS, rng, base & 255, mask & 255)
    tile[1::2] = random_bytes(TILE_BLOCKS, rng, base >> 8, mask >> 8)
    return bytes(tile)


def tensor_parts(tensor, type_name, seed):
    """A tensor's bytes, in parts."""
    size = tensor.num_bytes(TYPES[type_name])
    if tensor.is_norm:
        ones = {"f32": b"\x00\x00\x80\x3f", "bf16": b"\x80\x3f", "f16": b"\x00\x3c"}
        yield ones[type_name] * tensor.num_elements
        return
    tile = memoryview(make_tile(type_name, tensor.shape[1], seed))
    begin = random.Random(f"{seed} {tensor.name}").randrange(TILE_BLOCKS) * TYPES[type_name].block_bytes
    while size > 0:
        part = tile[begin:begin + size]
        yield part
        size -= len(part)
        begin = 0


def interleave_heads(data, num_rows, head_dim):
    """Rows in the order that GGUF's llama has those of q and k: the halves of a head by turns."""
    size = len(data) // num_rows
    order = [head + i // 2 + i % 2 * (head_dim // 2) for head in range(0, num_rows, head_dim) for i in range(head_dim)]
    return b"".join(data[row * size:(row + 1) * size] for row in order)


def config_json(arch, torch_dtype):
    class_name = {"llama": "LlamaForCausalLM", "qwen3": "Qwen3ForCausalLM"}[arch.model_type]
    config = {
        "architectures": [class_name], "model_type": arch.model_type, "hidden_act": "silu", "rms_norm_eps": arch.norm_eps,
        "hidden_size": arch.hidden, "intermediate_size": arch.intermediate, "num_hidden_layers": arch.layers,
        "num_attention_heads": arch.heads, "num_key_value_heads": arch.kv_heads, "head_dim": arch.head_dim,
        "vocab_size": arch.vocab, "max_position_embeddings": arch.max_len, "rope_theta": arch.rope_theta,
        "tie_word_embeddings": arch.tied, "bos_token_id": arch.bos, "eos_token_id": arch.eos, "torch_dtype": torch_dtype,
    }
    if arch.llama3_scaling:
        config["rope_scaling"] = {"rope_type": "llama3"} | arch.llama3_scaling
    return config


def write_safetensors(folder, arch, type_name, seed=1):
    weight_type = TYPES[type_name]
    if weight_type.safetensors is None:
        raise SystemExit(f"safetensors has no {type_name}: use bf16 or f16, or --format gguf")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_json(arch, weight_type.torch), indent=2))
    tensors = list_tensors(arch)
    header, offset = {}, 0
    for tensor in tensors:
        end = offset + tensor.num_bytes(weight_type)
        header[tensor.name] = {"dtype": weight_type.safetensors, "shape": tensor.shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    with open(folder / "model.safetensors", "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors:
            file.writelines(tensor_parts(tensor, type_name, seed))


def gguf_text(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def gguf_value(value):
    """A value's type and bytes; integers are u32 alone and i32 in a list, as others write them."""
    if isinstance(value, bool):
        return 7, struct.pack("<B", value)
    if isinstance(value, int):
        return 4, struct.pack("<I", value)
    if isinstance(value, float):
        return 6, struct.pack("<f", value)
    if isinstance(value, str):
        return 8, gguf_text(value)
    if isinstance(value[0], str):
        element_type, data = 8, b"".join(map(gguf_text, value))
    elif isinstance(value[0], float):
        element_type, data = 6, struct.pack(f"<{len(value)}f", *value)
    else:
        element_type, data = 5, struct.pack(f"<{len(value)}i", *value)
    return 9, struct.pack("<IQ", element_type, len(value)) + data


def gguf_vocabulary(arch):
    """SentencePiece style: three special tokens, every byte, made-up words."""
    normal, unknown, control, byte = 1, 2, 3, 6
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)]
    types = [unknown, control, control] + [byte] * 256
    tokens += [f"▁w{i}" for i in range(len(tokens), arch.vocab)]
    types += [normal] * (arch.vocab - len(types))
    for token, default_id, special_id in (("<s>", 1, arch.bos), ("</s>", 2, arch.eos)):
        if special_id != default_id:
            tokens[default_id], types[default_id] = f"▁w{default_id}", normal
            tokens[special_id], types[special_id] = token, control
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [-float(i) for i in range(arch.vocab)],
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": arch.bos,
        "tokenizer.ggml.eos_token_id": arch.eos,
        "tokenizer.ggml.unknown_token_id": 0,
    }


def gguf_metadata(name, arch):
    kind = arch.model_type
    return {
        "general.architecture": kind,
        "general.name": name,
        "general.quantization_version": 2,
        f"{kind}.vocab_size": arch.vocab,
        f"{kind}.context_length": arch.max_len,
        f"{kind}.embedding_length": arch.hidden,
        f"{kind}.block_count": arch.layers,
        f"{kind}.feed_forward_length": arch.intermediate,
        f"{kind}.attention.head_count": arch.heads,
        f"{kind}.attention.head_count_kv": arch.kv_heads,
        f"{kind}.attention.key_length": arch.head_dim,
        f"{kind}.attention.value_length": arch.head_dim,
        f"{kind}.attention.layer_norm_rms_epsilon": arch.norm_eps,
        f"{kind}.rope.dimension_count": arch.head_dim,
        f"{kind}.rope.freq_base": arch.rope_theta,
    } | gguf_vocabulary(arch)


def llama3_divisors(arch):
    """What GGUF has for llama3 scaling: the divisor of each rotary frequency."""
    scaling = arch.llama3_scaling
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    divisors = []
    for i in range(arch.head_dim // 2):
        wave = 2 * math.pi * arch.rope_theta ** (2 * i / arch.head_dim)
        smooth = min(1.0, max(0.0, (original / wave - low) / (high - low)))  # 1: a short wave, which stays
        divisors.append(1 / ((1 - smooth) / factor + smooth))
    return struct.pack(f"<{len(divisors)}f", *divisors)


def write_gguf(path, name, arch, type_name, seed=1):
    tensors = [(tensor, "f32" if tensor.is_norm else type_name) for tensor in list_tensors(arch)]
    if arch.llama3_scaling:  # a vector as norms are
        tensors.insert(0, (Tensor("", "rope_freqs.weight", (arch.head_dim // 2,)), "f32"))
    metadata = gguf_metadata(name, arch)
    head = bytearray(b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata)))
    for key, value in metadata.items():
        value_type, data = gguf_value(value)
        head += gguf_text(key) + struct.pack("<I", value_type) + data
    offset = 0
    for tensor, tensor_type in tensors:
        weight_type = TYPES[tensor_type]
        head += gguf_text(tensor.gguf_name)
        head += struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *reversed(tensor.shape))
        head += struct.pack("<IQ", weight_type.gguf_id, offset)
        offset += tensor.num_bytes(weight_type) + -tensor.num_bytes(weight_type) % ALIGNMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(head)
        for tensor, tensor_type in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT))
            if tensor.gguf_name == "rope_freqs.weight":
                file.write(llama3_divisors(arch))
                continue
            parts = tensor_parts(tensor, tensor_type, seed)
            if arch.model_type == "llama" and tensor.gguf_name.endswith(("attn_q.weight", "attn_k.weight")):
                parts = [interleave_heads(b"".join(parts), tensor.shape[0], arch.head_dim)]
            file.writelines(parts)
        file.write(bytes(-file.tell() % ALIGNMENT))


def write_random_model(folder, *, layers, hidden, intermediate, heads, kv_heads, vocab=1024, max_len=8192):
    """A Llama of any shape in bf16, as a safetensors folder."""
    write_safetensors(folder, Architecture(
        hidden=hidden, intermediate=intermediate, layers=layers, heads=heads, kv_heads=kv_heads, head_dim=hidden // heads,
        vocab=vocab, max_len=max_len), "bf16")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=ARCHITECTURES)
    parser.add_argument("--format", choices=("safetensors", "gguf"), default="safetensors")
    parser.add_argument("--type", choices=[name for name in TYPES if name != "f32"], default="bf16")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--layers", type=int, help="instead of the architecture's")
    parser.add_argument("--max-len", type=int, help="longest sequence, instead of the architecture's")
    parser.add_argument("output", type=pathlib.Path, help="a GGUF file, or the folder of a safetensors model")
    options = parser.parse_args()
    changes = {"layers": options.layers, "max_len": options.max_len}
    arch = dataclasses.replace(ARCHITECTURES[options.name], **{key: value for key, value in changes.items() if value})
    if options.format == "gguf":
        write_gguf(options.output, options.name, arch, options.type, options.seed)
    else:
        write_safetensors(options.output, arch, options.type, options.seed)


if __name__ == "__main__":
    main()
