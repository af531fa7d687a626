"""The least bytes read and FLOP done by any engine for one piece of work.

Weights count 2 bytes each, every weight that a step touches once; KV cache
entries too. Embedding rows, activations and norms are left out: they are below 1 %.
"""

import dataclasses

HEAD_DIM = 64  # as bench/make_model.py has it
BF16_BYTES = 2


@dataclasses.dataclass
class Work:
    bytes: float = 0
    flop: float = 0

    def read_s(self, probe):
        return self.bytes / probe["bytes_per_s"]

    def compute_s(self, probe):
        # 0 where the CPU has no vdpbf16ps and the probe knows no peak.
        return self.flop / probe["flop_per_s"] if probe["flop_per_s"] else 0.0


class Shape:
    def __init__(self, facts):
        self.layers, self.experts, self.top_k = facts["layers"], facts["experts"], facts["top_k"]
        self.query = facts["heads"] * HEAD_DIM
        self.key = facts["kv_heads"] * HEAD_DIM
        hidden = facts["hidden"]
        self.attention = hidden * (self.query + 2 * self.key) + self.query * hidden
        self.router = self.experts * hidden if self.experts > 1 else 0
        self.expert = 3 * hidden * facts["ffn"]
        self.head = facts["vocab"] * hidden

    def layer_bytes(self, num_tokens):
        """Weights of all layers that so many different tokens touch, as expected when each
        chooses its experts at random."""
        missed = (1 - self.top_k / self.experts) ** num_tokens
        touched = self.experts * (1 - missed) * self.expert
        return self.layers * (self.attention + self.router + touched) * BF16_BYTES

    def layer_flop(self):
        """Of all layers for one token, without attention scores."""
        return 2 * self.layers * (self.attention + self.router + self.top_k * self.expert)

    def decode(self, batch, context):
        """One step of `batch` sequences that hold `context` tokens each."""
        cache = batch * context * self.layers * 2 * self.key * BF16_BYTES
        scores = batch * context * self.layers * 4 * self.query
        return Work(
            self.layer_bytes(batch) + self.head * BF16_BYTES + cache,
            batch * (self.layer_flop() + 2 * self.head) + scores,
        )

    def prefill(self, num_tokens):
        """A prompt as a whole; only its last row needs the head."""
        scores = self.layers * 4 * self.query * num_tokens * (num_tokens + 1) / 2
        return Work(
            self.layer_bytes(num_tokens) + self.head * BF16_BYTES,
            num_tokens * self.layer_flop() + scores + 2 * self.head,
        )
