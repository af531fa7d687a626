"""The rows of the comparison: what each asks of an engine and what limits it."""

import statistics

import numpy as np

import client
import limits

DECODE_PROMPT, DECODE_TOKENS = 64, {1: 129, 8: 65, 32: 65}
PREFILL_TOKENS = 512
SERVE_PROMPT, SERVE_TOKENS = 128, 48
MIN_SECONDS = 2.0  # a run is repeated until it lasted so long: ticks are 10 ms
FIRST_TOKEN_ID = 3  # the ids before have a meaning


def engine_limit(work, probe):
    """The least seconds for `work`, and how long the machine's limits take for it."""
    read_s, compute_s = work.read_s(probe), work.compute_s(probe)
    return {
        "seconds": max(read_s, compute_s), "read_s": read_s, "compute_s": compute_s,
        "bytes": work.bytes, "flop": work.flop,
    }


class Row:
    """One line of the table. `index` and the round decide the prompts, which are new in
    every run, so that no cache of prompts helps, and the same for all engines."""

    def __init__(self, name, index, shape, vocab):
        self.name, self.index, self.shape, self.vocab = name, index, shape, vocab

    def prompts(self, round_index, repetition, count, length):
        # From 1 on: numpy takes [0, 0, 0] for the 0 that identity.py has.
        random = np.random.default_rng([1 + self.index, round_index, repetition])
        return random.integers(FIRST_TOKEN_ID, self.vocab, (count, length)).tolist()

    def repeat(self, once):
        """once(repetition) -> figures, until MIN_SECONDS; the medians of all figures."""
        collected = []
        while not collected or sum(f["seconds"] for f in collected) < MIN_SECONDS:
            collected.append(once(len(collected)))
        return {
            key: statistics.median(f[key] for f in collected) for key in collected[0]
        }


class DecodeRow(Row):
    """Time of a step of `batch` sequences, without their prompts."""

    unit = "a step"

    def __init__(self, batch, *rest):
        super().__init__(f"decode, {batch} sequence{'s' if batch > 1 else ''}", *rest)
        self.batch = batch
        self.num_tokens = DECODE_TOKENS[batch]

    def limit(self, probe):
        return engine_limit(self.shape.decode(self.batch, DECODE_PROMPT + self.num_tokens / 2), probe)

    def figures(self, seconds, num_tokens, tokens):
        # With equal tokens in several sequences fewer experts would be read.
        columns = list(zip(*tokens))
        distinct = statistics.mean(len(set(c)) for c in columns) / self.batch
        return {
            "seconds": seconds, "unit_s": seconds * self.batch / num_tokens,
            "tokens_per_s": num_tokens / seconds, "distinct": distinct,
        }

    def run_witan(self, engine, round_index):
        def once(repetition):
            prompts = self.prompts(round_index, repetition, self.batch, DECODE_PROMPT)
            streams = client.run_closed_loop(
                engine.transport, [[p] for p in prompts], self.num_tokens + 16 * (self.batch > 1)
            )
            num_tokens, seconds = client.steady_decode(streams)
            if num_tokens < self.batch * (self.num_tokens - 1) / 2:
                raise RuntimeError(f"{self.name}: the streams hardly overlapped")
            return self.figures(seconds, num_tokens, [s.tokens() for s in streams])

        return self.repeat(once)

    def run_library(self, engine, round_index):
        def once(repetition):
            prompts = self.prompts(round_index, repetition, self.batch, DECODE_PROMPT)
            done = engine.call("generate", prompts=prompts, num_tokens=self.num_tokens)
            num_tokens = self.batch * (self.num_tokens - 1)
            return self.figures(done["decode_seconds"], num_tokens, done["tokens"])

        return self.repeat(once)


class PrefillRow(Row):
    """Time until the first token after a prompt."""

    unit = "a prompt"

    def __init__(self, *rest):
        super().__init__(f"prefill, {PREFILL_TOKENS} tokens", *rest)

    def limit(self, probe):
        return engine_limit(self.shape.prefill(PREFILL_TOKENS), probe)

    def figures(self, seconds):
        return {
            "seconds": seconds, "unit_s": seconds, "tokens_per_s": PREFILL_TOKENS / seconds,
        }

    def run_witan(self, engine, round_index):
        def once(repetition):
            (prompt,) = self.prompts(round_index, repetition, 1, PREFILL_TOKENS)
            (stream,) = client.run_closed_loop(engine.transport, [[prompt]], 1)
            return self.figures(stream.events[0][0] - stream.begin)

        return self.repeat(once)

    def run_library(self, engine, round_index):
        def once(repetition):
            prompts = self.prompts(round_index, repetition, 1, PREFILL_TOKENS)
            done = engine.call("generate", prompts=prompts, num_tokens=1)
            return self.figures(done["prefill_seconds"])

        return self.repeat(once)


class ServeRow(Row):
    """Clients that each send one request after the other."""

    unit = "the run"

    def __init__(self, clients, *rest):
        super().__init__(f"server, {clients} client{'s' if clients > 1 else ''}", *rest)
        self.clients = clients
        self.requests_each = 4 if clients == 1 else 2

    def limit(self, probe):
        """Prompts and steps share what is read, but the steps of one client come one after
        the other, each with its own read of the weights, and after its prompt."""
        num_steps = self.requests_each * (SERVE_TOKENS - 1)
        context = SERVE_PROMPT + SERVE_TOKENS / 2
        prompt, step = self.shape.prefill(SERVE_PROMPT), self.shape.decode(self.clients, context)
        together = engine_limit(
            limits.Work(
                num_steps * step.bytes,
                num_steps * step.flop + self.clients * self.requests_each * prompt.flop,
            ),
            probe,
        )
        alone = self.shape.decode(1, context)
        in_turn_s = (
            self.requests_each * engine_limit(prompt, probe)["seconds"]
            + num_steps * engine_limit(alone, probe)["seconds"]
        )
        return {**together, "in_turn_s": in_turn_s, "seconds": max(together["seconds"], in_turn_s)}

    def run_server(self, engine, round_index, requests_each=None):
        requests_each = requests_each or self.requests_each
        prompts = self.prompts(round_index, 0, self.clients * requests_each, SERVE_PROMPT)
        streams = client.run_closed_loop(
            engine.transport, [prompts[c :: self.clients] for c in range(self.clients)], SERVE_TOKENS
        )
        figures = client.serving_figures(streams)
        figures["tokens_per_s"] = figures["num_tokens"] / figures["seconds"]
        # As if every request had been asked for as often as the row says.
        figures["unit_s"] = figures["seconds"] * self.requests_each / requests_each
        return figures

    def run_python_server(self, engine, round_index):
        """It computes one request at a time, so that fewer say the same."""
        return self.run_server(engine, round_index, self.requests_each if self.clients == 1 else 1)


def engine_rows(shape, vocab):
    """Of Witan against the library."""
    return [
        DecodeRow(1, 0, shape, vocab), PrefillRow(1, shape, vocab),
        DecodeRow(8, 2, shape, vocab), DecodeRow(32, 3, shape, vocab),
    ]


def serve_rows(shape, vocab):
    """Of server against server."""
    return [ServeRow(clients, 4 + i, shape, vocab) for i, clients in enumerate((1, 8, 32))]
