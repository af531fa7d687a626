"""llama.cpp as a library, in a process of its own: one JSON object per line.

Driven by engines.py; not for people. The low-level calls of llama_cpp are used,
so that several sequences can share a step, as llama.cpp's own batched benchmark
does it: greedy choice in numpy, no server and no sampler chain in the way.
"""

import ctypes
import json
import sys
import time

import llama_cpp
import numpy as np

MAX_BATCH = 2048


@llama_cpp.llama_log_callback
def drop_log(_level, _text, _data):
    pass


class Library:
    def __init__(self, path, num_threads):
        llama_cpp.llama_log_set(drop_log, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            path.encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"llama.cpp does not load {path}")
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(
            llama_cpp.llama_model_get_vocab(self.model)
        )
        self.num_threads = num_threads
        self.contexts = {}
        # The rows of a call, filled through numpy; Python loops would be seen in the figures.
        self.tokens, self.positions, self.sequences, ones = np.zeros((4, MAX_BATCH), np.int32)
        self.wanted = np.zeros(MAX_BATCH, np.int8)
        ones[:] = 1
        self.ones = ones
        addresses = self.sequences.ctypes.data + 4 * np.arange(MAX_BATCH, dtype=np.uintp)
        self.addresses = addresses.astype(np.uintp)
        self.batch = llama_cpp.llama_batch()
        for name, array in (
            ("token", self.tokens), ("pos", self.positions), ("n_seq_id", self.ones),
            ("seq_id", self.addresses), ("logits", self.wanted),
        ):
            kind = dict(llama_cpp.llama_batch._fields_)[name]
            setattr(self.batch, name, ctypes.cast(array.ctypes.data, kind))

    def context(self, num_sequences, tokens_each):
        """A fresh cache for so many sequences; contexts are kept, as a server keeps its own."""
        # Contexts come in few sizes, so that few are made.
        tokens_each += -tokens_each % 256
        key = num_sequences, tokens_each
        if key not in self.contexts:
            params = llama_cpp.llama_context_default_params()
            params.n_ctx = num_sequences * tokens_each
            params.n_seq_max = num_sequences
            params.n_batch, params.n_ubatch = MAX_BATCH, 512
            params.n_threads = params.n_threads_batch = self.num_threads
            made = llama_cpp.llama_init_from_model(self.model, params)
            if not made:
                raise SystemExit(f"llama.cpp makes no context for {key}")
            self.contexts[key] = made
        context = self.contexts[key]
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
        return context

    def decode(self, context, tokens, positions, sequences, wanted):
        """Computes one row per token; the logits of the rows that are `wanted`."""
        num_rows = len(tokens)
        self.tokens[:num_rows] = tokens
        self.positions[:num_rows] = positions
        self.sequences[:num_rows] = sequences
        self.wanted[:num_rows] = wanted
        self.batch.n_tokens = num_rows
        status = llama_cpp.llama_decode(context, self.batch)
        if status != 0:
            raise SystemExit(f"llama_decode answers {status} to {num_rows} rows")
        logits = llama_cpp.llama_get_logits(context)
        num_wanted = int(self.wanted[:num_rows].sum())
        return np.ctypeslib.as_array(logits, (num_wanted, self.vocabulary))

    def generate(self, prompts, num_tokens):
        """Greedy, all prompts together; seconds until the first tokens and for the others."""
        context = self.context(len(prompts), max(map(len, prompts)) + num_tokens)
        lengths = np.array([len(prompt) for prompt in prompts])
        everyone = np.arange(len(prompts))
        begin = time.monotonic()
        chosen = np.zeros(len(prompts), np.int32)
        for sequence, prompt in enumerate(prompts):
            positions = np.arange(len(prompt))
            last = positions == len(prompt) - 1
            chosen[sequence] = self.decode(context, prompt, positions, sequence, last)[0].argmax()
        prefilled = time.monotonic()
        tokens = [chosen]
        for step in range(num_tokens - 1):
            logits = self.decode(context, tokens[-1], lengths + step, everyone, True)
            tokens.append(logits.argmax(axis=1))
        ended = time.monotonic()
        return {
            "prefill_seconds": prefilled - begin,
            "decode_seconds": ended - prefilled,
            "tokens": np.array(tokens).T.tolist(),
        }

    def logprobs(self, tokens, num_prompt, wanted):
        """log p(token i | tokens before) for the `wanted` ids of each i >= num_prompt."""
        context = self.context(1, len(tokens))
        positions = np.arange(len(tokens) - 1)
        logits = self.decode(context, tokens[:-1], positions, 0, positions >= num_prompt - 1)
        logits = logits.astype(np.float64)
        logits -= logits.max(axis=1, keepdims=True)
        logits -= np.log(np.exp(logits).sum(axis=1, keepdims=True))
        best = np.sort(logits, axis=1)
        return {
            "logprobs": [row[ids].tolist() for row, ids in zip(logits, wanted)],
            "greedy": logits.argmax(axis=1).tolist(),
            "margins": (best[:, -1] - best[:, -2]).tolist(),
        }


def main():
    library = Library(sys.argv[1], int(sys.argv[2]))
    calls = {"generate": library.generate, "logprobs": library.logprobs}
    system = llama_cpp.llama_print_system_info().decode()
    print(json.dumps({"system": system, "version": llama_cpp.__version__}), flush=True)
    for line in sys.stdin:
        call = json.loads(line)
        print(json.dumps(calls[call.pop("call")](**call)), flush=True)


if __name__ == "__main__":
    main()
