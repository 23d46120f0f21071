"""llama.cpp's speed at one point, as a line of JSON. Run by compare.py with the Python of llama.cpp's own environment.

  llama_peer.py MODEL.gguf --threads 2 --decode BATCH CONTEXT --steps 64
  llama_peer.py MODEL.gguf --threads 2 --prefill 512

Flash attention is on, the cache f16. Every sequence has a cache of its own (kv_unified is off): the prompt is run once,
for sequence 0, and llama_memory_seq_cp then copies its bytes to the others, so attention reads separate memory."""
import argparse
import ctypes
import json
import statistics
import time

import llama_cpp as llama
import numpy

CHUNK = 512  # tokens of a prompt run at once
WARM_UP_STEPS = 4


@llama.llama_log_callback
def log_nothing(_level, _text, _data):
    pass


class Context:
    def __init__(self, path, threads, batch, length):
        model_options = llama.llama_model_default_params()
        model_options.n_gpu_layers = 0
        self.model = llama.llama_model_load_from_file(path.encode(), model_options)
        assert self.model, f"llama.cpp cannot load {path}"
        self.vocab_size = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(self.model))
        options = llama.llama_context_default_params()
        options.n_ctx = batch * (length + -length % 256)  # shared out evenly, in steps of 256
        options.n_batch = options.n_ubatch = CHUNK
        options.n_seq_max = batch
        options.n_threads = options.n_threads_batch = threads
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_ENABLED
        options.kv_unified = False
        self.context = llama.llama_init_from_model(self.model, options)
        assert self.context, "llama.cpp makes no context"
        self.memory = llama.llama_get_memory(self.context)
        self.tokens = llama.llama_batch_init(max(CHUNK, batch), 0, 1)

    def decode(self, entries):
        """Runs (token, position, sequence, has logits) entries; returns the most probable tokens of those with logits."""
        for i, (token, position, sequence, has_logits) in enumerate(entries):
            self.tokens.token[i] = token
            self.tokens.pos[i] = position
            self.tokens.n_seq_id[i] = 1
            self.tokens.seq_id[i][0] = sequence
            self.tokens.logits[i] = has_logits
        self.tokens.n_tokens = len(entries)
        code = llama.llama_decode(self.context, self.tokens)
        assert code == 0, f"llama_decode gives {code}"
        llama.llama_synchronize(self.context)
        return [int(numpy.ctypeslib.as_array(self.logits(i), (self.vocab_size,)).argmax())
                for i, entry in enumerate(entries) if entry[3]]

    def logits(self, i):
        return ctypes.cast(llama.llama_get_logits_ith(self.context, i), ctypes.POINTER(ctypes.c_float))

    def prefill(self, length):
        """The token after a prompt of `length` tokens, run as sequence 0."""
        for begin in range(0, length, CHUNK):
            end = min(length, begin + CHUNK)
            token = self.decode([(1000 + i, i, 0, i == length - 1) for i in range(begin, end)])
        return token[0]


def measure_decode(path, threads, batch, context, steps):
    """Tokens a second of `batch` sequences whose contexts are around `context` tokens."""
    begin = context - steps // 2
    run = Context(path, threads, batch, begin + steps + WARM_UP_STEPS)
    first = run.prefill(begin - WARM_UP_STEPS)
    for sequence in range(1, batch):
        llama.llama_memory_seq_cp(run.memory, 0, sequence, -1, -1)
    tokens = [first] * batch
    for position in range(begin - WARM_UP_STEPS, begin + steps):
        if position == begin:
            start = time.perf_counter()
        tokens = run.decode([(token, position, sequence, True) for sequence, token in enumerate(tokens)])
    return batch * steps / (time.perf_counter() - start)


def measure_prefill(path, threads, length, repeats):
    run = Context(path, threads, 1, length)
    seconds = []
    for _ in range(repeats + 1):
        llama.llama_memory_clear(run.memory, False)
        start = time.perf_counter()
        run.prefill(length)
        seconds.append(time.perf_counter() - start)
    return length / statistics.median(seconds[1:])  # the first one warms up


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--decode", type=int, nargs=2, metavar=("BATCH", "CONTEXT"))
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--prefill", type=int, metavar="TOKENS")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    llama.llama_log_set(log_nothing, ctypes.c_void_p())
    llama.llama_backend_init()
    if options.prefill:
        speed = measure_prefill(options.model, options.threads, options.prefill, options.repeats)
    else:
        speed = measure_decode(options.model, options.threads, *options.decode, options.steps)
    print(json.dumps({"tokens_per_s": speed, "system": llama.llama_print_system_info().decode()}))


if __name__ == "__main__":
    main()
