"""What a GGUF file says of the work a token takes, and the bounds that follow from it."""
import dataclasses
import math
import struct

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
# By GGUF's number of a tensor type: elements and bytes of a block.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
          11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 30: (1, 2)}
KV_BYTES = 2  # of an element of the cache: f16 or bf16


@dataclasses.dataclass(frozen=True)
class Machine:
    bandwidth: float  # bytes a second
    flops: float      # a second, over all threads


@dataclasses.dataclass(frozen=True)
class Shape:
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    max_len: int
    layer_weights: int       # elements of matrices
    layer_weight_bytes: int
    head_weights: int        # of the output matrix, the embedding's where they are tied
    head_weight_bytes: int

    def _attention(self, num_queries, num_keys, machine):
        """Seconds of queries that attend to keys of their own sequence, whose cache is read once."""
        kv_bytes = num_keys * self.layers * 2 * self.kv_heads * self.head_dim * KV_BYTES
        flops = num_queries * num_keys * self.layers * self.heads * self.head_dim * 4
        return max(kv_bytes / machine.bandwidth, flops / machine.flops)

    def decode_bound(self, batch, context, machine):
        """Tokens a second of `batch` sequences."""
        weights = max((self.layer_weight_bytes + self.head_weight_bytes) / machine.bandwidth,
                      batch * 2 * (self.layer_weights + self.head_weights) / machine.flops)
        return batch / (weights + batch * self._attention(1, context, machine))

    def prefill_bound(self, num_tokens, machine):
        """Tokens a second of one prompt; only its last token meets the output matrix."""
        weights = max((self.layer_weight_bytes + self.head_weight_bytes) / machine.bandwidth,
                      2 * (num_tokens * self.layer_weights + self.head_weights) / machine.flops)
        return num_tokens / (weights + self._attention(num_tokens / 2, num_tokens, machine))  # causal: half of them


class _Reader:
    def __init__(self, file):
        self.file = file

    def numbers(self, code, count):
        layout = f"<{count}{code}"
        return struct.unpack(layout, self.file.read(struct.calcsize(layout)))

    def number(self, code):
        return self.numbers(code, 1)[0]

    def text(self):
        return self.file.read(self.number("Q")).decode(errors="replace")

    def value(self, value_type):
        if value_type == TEXT:
            return self.text()
        if value_type != ARRAY:
            return self.number(SCALARS[value_type])
        element_type, count = self.number("I"), self.number("Q")
        if element_type == TEXT:
            return [self.text() for _ in range(count)]
        return self.numbers(SCALARS[element_type], count)


def read_shape(path):
    with open(path, "rb") as file:
        reader = _Reader(file)
        if file.read(4) != b"GGUF" or reader.number("I") not in (2, 3):
            raise SystemExit(f"{path} is not a GGUF file of version 2 or 3")
        num_tensors, num_keys = reader.numbers("Q", 2)
        values = {}
        for _ in range(num_keys):
            key = reader.text()
            values[key] = reader.value(reader.number("I"))
        matrices = {}  # name: elements, bytes
        for _ in range(num_tensors):
            name = reader.text()
            extents = reader.numbers("Q", reader.number("I"))
            block_elements, block_bytes = BLOCKS[reader.number("I")]
            reader.number("Q")
            if len(extents) > 1:
                elements = math.prod(extents)
                matrices[name] = elements, elements // block_elements * block_bytes
    embedding = matrices.pop("token_embd.weight")
    head = matrices.pop("output.weight", embedding)
    kind = values["general.architecture"]
    heads = values[f"{kind}.attention.head_count"]
    return Shape(
        layers=values[f"{kind}.block_count"], heads=heads,
        kv_heads=values.get(f"{kind}.attention.head_count_kv", heads),
        head_dim=values.get(f"{kind}.attention.key_length", values[f"{kind}.embedding_length"] // heads),
        max_len=values[f"{kind}.context_length"],
        layer_weights=sum(elements for elements, _ in matrices.values()),
        layer_weight_bytes=sum(size for _, size in matrices.values()),
        head_weights=head[0], head_weight_bytes=head[1])
