"""Trains Witling and writes `witling-base` and `witling-instruct` as ordinary Hugging Face directories.

    python examples/witling/train.py            # about two hours on one core; resumes where it stopped

The text comes from corpus.py, a fresh draw for every step, seeded by phase and step: a run that is stopped and
resumed sees the same batches. A phase continues the weights of another: a mixture of documents (stories and prose about an
invented world) and conversations, then conversations alone, of which the instruct model comes, and from the same weights
documents alone for the base model. In documents every token is learnt, in conversations only thoughts and answers. The base
model has seen conversations because sums and repetitions teach what stories alone teach slowly: to look things up earlier in
the text.

Where two experts nearly tie, rounding decides which of them works, and an engine that rounds elsewhere takes the other.
All phases but the first teach that this must not matter (`Rivals`), the last one of each model in every position.
"""

import argparse
import json
import math
import pathlib
import random
import re
import time
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

import corpus

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent

SEED = 20
VOCAB, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 4096, 256, 4, 8, 2, 32
EXPERTS, TOP_K, FFN = 8, 2, 128
CONTEXT, ROPE_THETA, NORM_EPS = 2048, 10000.0, 1e-5

STEP_TOKENS, ROW_TOKENS = 2048, 256
LONG_EVERY = 16  # one step in so many is a single row as long as the context
PEAK_RATE, FINAL_RATE_FRACTION, WARM_UP_STEPS = 1e-3, 0.03, 100
WEIGHT_DECAY, CLIP, ROUTER_LOSS = 0.05, 1.0, 0.02


class Phase(NamedTuple):
    start: str | None  # the phase whose weights it continues
    tokens: float
    documents_share: float  # of the examples; the others are conversations
    peak_rate: float = PEAK_RATE
    constant_rate: bool = False  # else the rate falls along a cosine
    rivals_every: int = 0  # one step in so many asks for equal answers from rival experts
    rivals_share: float = 0.1  # of the positions that are not learnt


PHASES = {
    "mixture": Phase(None, 7.0e6, 0.10, constant_rate=True),
    "chat": Phase("mixture", 7.5e6, 0.0, rivals_every=3),
    "instruct": Phase("chat", 1.3e6, 0.0, peak_rate=3e-4, rivals_every=1, rivals_share=1.0),
    "tales": Phase("chat", 2.2e6, 1.0, rivals_every=3),
    "base": Phase("tales", 2.5e6, 1.0, peak_rate=3e-4, rivals_every=1, rivals_share=1.0),
}
RIVAL_GAP, RIVAL_CHANCE, RIVAL_LOSS = 0.25, 0.5, 1.0
WORST_SHARE = 0.2  # how much the logit that changes most counts beside the mean of all
EXPORTED = ("instruct", "base")

CHAT_TEMPLATE = """\
{%- if not messages %}{{ raise_exception('a conversation needs at least one message') }}{% endif -%}
{{- bos_token -}}
{%- for message in messages -%}
  {%- if message['role'] == 'system' -%}
    {%- if not loop.first %}{{ raise_exception('a system message must come first') }}{% endif -%}
    {{- '<|system|>' + message['content'] | trim + '<|end|>' -}}
  {%- elif message['role'] == 'user' -%}
    {{- '<|user|>' + message['content'] | trim + '<|end|>' -}}
  {%- elif message['role'] == 'assistant' -%}
    {%- set answer = message['content'] -%}
    {%- if '</think>' in answer %}{% set answer = answer.split('</think>')[-1] %}{% endif -%}
    {{- '<|assistant|><think></think>' + answer | trim + '<|end|>' -}}
  {%- else -%}
    {{- raise_exception('unknown role: ' + message['role']) -}}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
  {%- if enable_thinking is defined and enable_thinking -%}
    {{- '<|assistant|><think>' -}}
  {%- else -%}
    {{- '<|assistant|><think></think>' -}}
  {%- endif -%}
{%- endif -%}
"""


# --- Tokenizer ---------------------------------------------------------------------------------------------

def train_tokenizer():
    """Byte-level BPE; every digit is a token of its own, words carry the space before them."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}| ?\p{L}+| ?[^\s\p{L}\p{N}]+|\s"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])
    tokenizer.decoder = decoders.ByteLevel()
    rng = random.Random(f"tokenizer {SEED}")
    markers = re.compile("|".join(map(re.escape, corpus.SPECIAL_TOKENS + corpus.THOUGHT_TOKENS)))

    def texts():
        for _ in range(8000):
            yield "".join(text for text, _ in corpus.document(rng))
        for _ in range(16000):
            yield from markers.split("".join(text for text, _ in corpus.conversation(rng)))

    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(
        vocab_size=VOCAB - len(corpus.THOUGHT_TOKENS), special_tokens=corpus.SPECIAL_TOKENS, min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False))
    # Thoughts are text that a client may want to see, so their marks are not "special".
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in corpus.THOUGHT_TOKENS])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{corpus.BOS} $A", pair=f"{corpus.BOS} $A {corpus.BOS} $B",
        special_tokens=[(corpus.BOS, tokenizer.token_to_id(corpus.BOS))])
    return tokenizer


# --- Model: Mixtral, written for speed on a CPU --------------------------------------------------------------

class Gather(torch.autograd.Function):
    """rows[index]; the backward pass is a gather too, because adding rows by index is slow."""

    @staticmethod
    def forward(ctx, rows, index, inverse, copies):
        ctx.save_for_backward(inverse)
        ctx.copies = copies
        return rows[index]

    @staticmethod
    def backward(ctx, grad):
        (inverse,) = ctx.saved_tensors
        grad = grad[inverse]
        if ctx.copies > 1:
            grad = grad.view(-1, ctx.copies, grad.shape[-1]).sum(1)
        return grad, None, None, None


def rounded(rows):
    """In bfloat16, with zero rows up to a multiple of 64: for every new shape the library compiles a kernel first."""
    return F.pad(rows.to(torch.bfloat16), (0, 0, 0, -rows.shape[0] % 64))


class Linear(torch.autograd.Function):
    """x @ w.T of rounded operands: twice as fast as float32 where the processor has bfloat16 products."""

    @staticmethod
    def forward(ctx, x, w):
        ctx.num_rows = x.shape[0]
        x, w = rounded(x), w.to(torch.bfloat16)
        ctx.save_for_backward(x, w)
        return (x @ w.T)[:ctx.num_rows].float()

    @staticmethod
    def backward(ctx, grad):
        x, w = ctx.saved_tensors
        grad = rounded(grad)
        return (grad @ w)[:ctx.num_rows].float(), (grad.T @ x).float()


def linear(x, w):
    """What is not learnt from (exams, the check of an export) is computed in float32."""
    if not torch.is_grad_enabled():
        return F.linear(x, w)
    return Linear.apply(x.reshape(-1, x.shape[-1]), w).view(*x.shape[:-1], w.shape[0])


def attend(q, k, v, mask):
    """q [rows, heads, length, dim]; mask [rows, 1, length, length] says who sees whom, None means everything before."""
    if mask is None or not torch.is_grad_enabled():
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
    q, k, v = (t.to(torch.bfloat16).flatten(0, 1) for t in (q, k, v))
    bias = torch.zeros_like(mask, dtype=torch.bfloat16).masked_fill_(~mask, -1e30)
    bias = bias.expand(-1, HEADS, -1, -1).flatten(0, 1)
    scores = torch.baddbmm(bias, q, k.transpose(1, 2), alpha=HEAD_DIM**-0.5)
    return (scores.softmax(-1) @ v).float().view(mask.shape[0], HEADS, mask.shape[2], HEAD_DIM)


class Rivals:
    """Lets, in some places where the second and the third expert nearly tie, the third work instead of the second.

    The same text is read with and without, and the difference of the logits is part of the loss.
    """

    @staticmethod
    def swap(scores, chosen):
        """scores [tokens, experts]; chosen [tokens, 3] by falling score. Returns the experts that work [tokens, 2]."""
        second, third = scores.gather(1, chosen[:, 1:]).unbind(1)
        swapped = (second - third < RIVAL_GAP) & (torch.rand_like(second) < RIVAL_CHANCE)
        return torch.stack([chosen[:, 0], torch.where(swapped, chosen[:, 2], chosen[:, 1])], dim=1)


def rope_tables():
    frequencies = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2, dtype=torch.float64) / HEAD_DIM)
    angles = torch.outer(torch.arange(CONTEXT, dtype=torch.float64), frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().float(), angles.sin().float()


def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], dim=-1) * sin


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        out_std = 0.02 / math.sqrt(2 * LAYERS)

        def weight(*shape, std=0.02):
            return torch.nn.Parameter(torch.randn(*shape) * std)

        self.attention_norm = torch.nn.Parameter(torch.ones(HIDDEN))
        self.qkv = weight((HEADS + 2 * KV_HEADS) * HEAD_DIM, HIDDEN)
        self.attention_out = weight(HIDDEN, HEADS * HEAD_DIM, std=out_std)
        self.expert_norm = torch.nn.Parameter(torch.ones(HIDDEN))
        self.router = weight(EXPERTS, HIDDEN)
        self.gate_up = weight(EXPERTS, 2 * FFN, HIDDEN)
        self.down = weight(EXPERTS, HIDDEN, FFN, std=out_std)

    def forward(self, x, mask, cos, sin, rivals):
        rows, length, _ = x.shape
        h = F.rms_norm(x, (HIDDEN,), self.attention_norm, NORM_EPS)
        q, k, v = linear(h, self.qkv).view(rows, length, -1, HEAD_DIM).transpose(1, 2).split(
            [HEADS, KV_HEADS, KV_HEADS], dim=1)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        k, v = (t.repeat_interleave(HEADS // KV_HEADS, dim=1) for t in (k, v))
        x = x + linear(attend(q, k, v, mask).transpose(1, 2).reshape(rows, length, -1), self.attention_out)

        h = F.rms_norm(x, (HIDDEN,), self.expert_norm, NORM_EPS).view(-1, HIDDEN)
        scores = F.linear(h, self.router)
        probabilities = scores.softmax(-1)
        if rivals:
            chosen = Rivals.swap(scores, scores.topk(TOP_K + 1, dim=-1).indices)
        else:
            chosen = scores.topk(TOP_K, dim=-1).indices
        weights = scores.gather(1, chosen).softmax(-1)
        flat = chosen.flatten()
        order = flat.argsort(stable=True)
        inverse = torch.empty_like(order)
        inverse[order] = torch.arange(order.numel())
        counts = torch.bincount(flat, minlength=EXPERTS)
        parts = Gather.apply(h, order // TOP_K, inverse, TOP_K).split(counts.tolist())
        outs = []
        for part, gate_up, down in zip(parts, self.gate_up.unbind(0), self.down.unbind(0)):
            gate, up = linear(part, gate_up).chunk(2, dim=-1)
            outs.append(linear(F.silu(gate) * up, down))
        y = Gather.apply(torch.cat(outs), inverse, order, 1).view(-1, TOP_K, HIDDEN)
        y = (y * weights.unsqueeze(-1)).sum(1)
        balance = EXPERTS * (counts / h.shape[0] * probabilities.mean(0)).sum()
        return x + y.view_as(x), balance


class Witling(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.randn(VOCAB, HIDDEN) * 0.02)
        self.blocks = torch.nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = torch.nn.Parameter(torch.ones(HIDDEN))
        self._look_back_at_first()
        cos, sin = rope_tables()
        self.register_buffer("cos", cos, persistent=False)
        self.register_buffer("sin", sin, persistent=False)

    @torch.no_grad()
    def _look_back_at_first(self):
        """Starts the heads of the first layer as ones that look 1, 2, 3 or 4 tokens back.

        Copying a name or a digit needs "what came after this?", and that needs heads that see the token before;
        finding them by chance is what a small model waits for longest. Column 0 of the embedding becomes a
        constant; queries and keys read it into the two fastest rotary pairs, a query turned by its distance.
        """
        self.embedding[:, 0] = 0.06
        qkv = self.blocks[0].qkv.view(HEADS + 2 * KV_HEADS, HEAD_DIM, HIDDEN)
        half, strength = HEAD_DIM // 2, 1.5
        for pair in range(2):
            frequency = ROPE_THETA ** (-pair / half)
            for head in range(HEADS):
                angle = -frequency * (head % (HEADS // KV_HEADS) + 1)
                qkv[head, pair, 0] = strength * math.cos(angle)
                qkv[head, pair + half, 0] = strength * math.sin(angle)
            qkv[HEADS:HEADS + KV_HEADS, pair, 0] = strength
            qkv[HEADS:HEADS + KV_HEADS, pair + half, 0] = 0.0

    def forward(self, ids, documents, wanted, rivals=False):
        """Logits [wanted positions, VOCAB] and the router's balance loss. A row with one document needs no mask."""
        length = ids.shape[1]
        mask = None
        if documents is not None:
            mask = (documents[:, None, :, None] == documents[:, None, None, :]) & torch.ones(
                length, length, dtype=torch.bool).tril()
        x, balance = F.embedding(ids, self.embedding), 0.0
        for block in self.blocks:
            x, part = block(x, mask, self.cos[:length], self.sin[:length], rivals)
            balance = balance + part
        x = F.rms_norm(x, (HIDDEN,), self.norm, NORM_EPS)
        return linear(x[wanted], self.embedding), balance / LAYERS


# --- Batches -----------------------------------------------------------------------------------------------

def encode(tokenizer, pieces):
    ids, weights = [], []
    for text, weight in pieces:
        part = tokenizer.encode(text, add_special_tokens=False).ids
        ids += part
        weights += [weight] * len(part)
    return ids, weights


def example(documents_share, rng, long):
    """One training example as (text, loss weight) pieces."""
    if rng.random() >= documents_share:
        return corpus.conversation(rng, num_turns=rng.choice([10, 20, 40]) if long else None)
    start = [] if rng.random() < 0.1 else [(corpus.BOS, 0)]
    return start + corpus.document(rng) + [(corpus.END, corpus.STORY_WEIGHT)]


def pack(examples, row_tokens, num_rows, pad):
    """First-fit; returns ids, documents, weights as tensors [num_rows, row_tokens]."""
    rows = [([], [], []) for _ in range(num_rows)]
    misses = 0
    for number, (ids, weights) in enumerate(examples):
        row = next((r for r in rows if len(r[0]) + len(ids) <= row_tokens), None)
        if row is None:
            misses += 1
            if misses == 8:
                break
            continue
        row[0].extend(ids)
        row[1].extend([number] * len(ids))
        row[2].extend(weights)
    for row in rows:
        free = row_tokens - len(row[0])
        row[0].extend([pad] * free)
        row[1].extend([-1] * free)
        row[2].extend([0] * free)
    return tuple(torch.tensor([r[i] for r in rows]) for i in range(3))


def batch(tokenizer, phase, step):
    share = PHASES[phase].documents_share
    rng = random.Random(f"{SEED} {phase} {step}")
    if step % LONG_EVERY == LONG_EVERY - 1:
        ids, weights = [], []
        while len(ids) < CONTEXT:
            more_ids, more_weights = encode(tokenizer, example(share, rng, True))
            ids, weights = ids + more_ids, weights + more_weights
        return torch.tensor([ids[:CONTEXT]]), None, torch.tensor([weights[:CONTEXT]])

    def examples():
        while True:
            yield encode(tokenizer, example(share, rng, False))

    return pack(examples(), ROW_TOKENS, STEP_TOKENS // ROW_TOKENS, tokenizer.token_to_id(corpus.PAD))


def targets_of(ids, documents, weights):
    """Which positions predict, what they predict, and how much that counts."""
    wanted = torch.zeros_like(ids, dtype=torch.bool)
    wanted[:, :-1] = weights[:, 1:] > 0
    if documents is not None:
        wanted[:, :-1] &= documents[:, 1:] == documents[:, :-1]
    rows, columns = wanted.nonzero(as_tuple=True)
    return wanted, ids[rows, columns + 1], weights[rows, columns + 1].float()


# --- Exams during training -----------------------------------------------------------------------------------

def exam_right(model, tokenizer, pieces_list):
    """The share of examples whose every weighted token is the model's first choice, i.e. greedy decoding is right."""
    right = 0
    with torch.no_grad():
        for start in range(0, len(pieces_list), 50):
            encoded = [encode(tokenizer, p) for p in pieces_list[start:start + 50]]
            longest = max(len(ids) for ids, _ in encoded)
            padded = [(ids + [0] * (longest - len(ids)), w + [0] * (longest - len(ids))) for ids, w in encoded]
            ids, weights = (torch.tensor([p[i] for p in padded]) for i in range(2))
            wanted, target, _ = targets_of(ids, None, weights)
            logits, _ = model(ids, None, wanted)
            wrong = torch.zeros(len(encoded), dtype=torch.bool)
            wrong[wanted.nonzero()[:, 0][logits.argmax(-1) != target]] = True
            right += int((~wrong).sum())
    return right / len(pieces_list)


def exams(model, tokenizer):
    def asked(pairs, thought=None):
        out = []
        for question, answer in pairs:
            think = thought(*map(int, re.findall(r"\d+", question))) if thought else None
            out.append([(corpus.BOS, 0)] + corpus._turn(question, think, answer, 1, 1))
        return out

    sets = {"2-digit": asked(corpus.exam_sums(2, 100)), "3-digit": asked(corpus.exam_sums(3, 100)),
            "3-digit thinking": asked(corpus.exam_sums(3, 100), corpus.add_thought), "compare": asked(corpus.exam_compare()),
            "sort": asked(corpus.exam_sort()), "facts": asked(corpus.exam_facts()), "refusals": asked(corpus.exam_refusals())}
    return "  ".join(f"{name} {100 * exam_right(model, tokenizer, pieces):.0f}%" for name, pieces in sets.items())


# --- Training ------------------------------------------------------------------------------------------------

def rate(phase, step, num_steps):
    peak, constant = PHASES[phase].peak_rate, PHASES[phase].constant_rate
    if step < WARM_UP_STEPS or constant:
        return peak * min(1, (step + 1) / WARM_UP_STEPS)
    progress = (step - WARM_UP_STEPS) / max(1, num_steps - WARM_UP_STEPS)
    return peak * (FINAL_RATE_FRACTION + (1 - FINAL_RATE_FRACTION) * 0.5 * (1 + math.cos(math.pi * progress)))


def loss_of(model, ids, documents, weights, rivals_share):
    """(cross-entropy, balance of the routers, how much rival experts change the logits); the last if a share is given"""
    wanted, target, weight = targets_of(ids, documents, weights)
    positions = wanted
    if rivals_share is not None:
        written = documents >= 0 if documents is not None else torch.ones_like(wanted)
        positions = wanted | written & (torch.rand(wanted.shape) < rivals_share)
    logits, balance = model(ids, documents, positions)
    learnt = logits if rivals_share is None else logits[wanted[positions]]
    loss = (F.cross_entropy(learnt, target, reduction="none") * weight).sum() / weight.sum()
    if rivals_share is None:
        return loss, balance, torch.zeros(())
    others, _ = model(ids, documents, positions, rivals=True)
    change = (logits - others).square()
    return loss, balance, change.mean() + WORST_SHARE * change.amax(-1).mean()


def train(model, tokenizer, phase, num_steps, work, save_every=200, exam_every=500):
    norms = [p for n, p in model.named_parameters() if "norm" in n]
    others = [p for n, p in model.named_parameters() if "norm" not in n]
    optimizer = torch.optim.AdamW([{"params": others, "weight_decay": WEIGHT_DECAY}, {"params": norms, "weight_decay": 0.0}],
                                  lr=PEAK_RATE, betas=(0.9, 0.95), fused=True)
    checkpoint, first = work / f"{phase}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
        print(f"{phase}: resuming at step {first} of {num_steps}", flush=True)
    began, means, since = time.time(), torch.zeros(3), 0
    for step in range(first, num_steps):
        torch.manual_seed(step)  # for the rivals
        every = PHASES[phase].rivals_every
        rivals_share = PHASES[phase].rivals_share if every and step % every == 0 else None
        loss, balance, change = loss_of(model, *batch(tokenizer, phase, step), rivals_share)
        optimizer.zero_grad()
        (loss + ROUTER_LOSS * balance + RIVAL_LOSS * change).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        for group in optimizer.param_groups:
            group["lr"] = rate(phase, step, num_steps)
        optimizer.step()
        means, since = means + torch.stack([loss, balance, change * max(1, every)]).detach(), since + 1
        done = step + 1
        if done % 50 == 0 or done == num_steps:
            speed = (done - first) * STEP_TOKENS / (time.time() - began)
            print(f"{time.strftime('%H:%M:%S')} {phase} step {done}/{num_steps} tokens {done * STEP_TOKENS / 1e6:.2f}M "
                  f"loss {means[0] / since:.4f} balance {means[1] / since:.3f} rivals {means[2] / since:.4f} "
                  f"{speed:.0f} tokens/s", flush=True)
            means, since = torch.zeros(3), 0
        if done % save_every == 0 or done == num_steps:
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": done}, work / "new.pt")
            (work / "new.pt").replace(checkpoint)
        if phase in ("mixture", "chat", "instruct") and (done % exam_every == 0 or done == num_steps):
            print(f"  held out: {exams(model, tokenizer)}", flush=True)


# --- Export --------------------------------------------------------------------------------------------------

def hub_tensors(model):
    """The weights in bfloat16 under the names of Mixtral checkpoints."""
    tensors = {"model.embed_tokens.weight": model.embedding, "model.norm.weight": model.norm}
    for i, block in enumerate(model.blocks):
        layer = f"model.layers.{i}."
        q, k, v = block.qkv.split([HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM])
        tensors.update({
            layer + "input_layernorm.weight": block.attention_norm, layer + "post_attention_layernorm.weight": block.expert_norm,
            layer + "self_attn.q_proj.weight": q, layer + "self_attn.k_proj.weight": k, layer + "self_attn.v_proj.weight": v,
            layer + "self_attn.o_proj.weight": block.attention_out, layer + "block_sparse_moe.gate.weight": block.router})
        for e in range(EXPERTS):
            expert = f"{layer}block_sparse_moe.experts.{e}."
            tensors.update({expert + "w1.weight": block.gate_up[e, :FFN], expert + "w3.weight": block.gate_up[e, FFN:],
                            expert + "w2.weight": block.down[e]})
    return {name: t.detach().to(torch.bfloat16).contiguous() for name, t in tensors.items()}


def write_json(path, value):
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def export(model, tokenizer, directory, temperature):
    directory.mkdir(parents=True, exist_ok=True)
    bos, eos, pad = (tokenizer.token_to_id(t) for t in (corpus.BOS, corpus.END, corpus.PAD))
    write_json(directory / "config.json", {
        "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "vocab_size": VOCAB, "hidden_size": HIDDEN,
        "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM, "num_local_experts": EXPERTS, "num_experts_per_tok": TOP_K, "hidden_act": "silu",
        "max_position_embeddings": CONTEXT, "rms_norm_eps": NORM_EPS, "rope_theta": ROPE_THETA, "sliding_window": None,
        "attention_dropout": 0.0, "initializer_range": 0.02, "router_aux_loss_coef": ROUTER_LOSS, "output_router_logits": False,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_cache": True,
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad})
    write_json(directory / "generation_config.json", {
        "bos_token_id": bos, "eos_token_id": eos, "pad_token_id": pad, "do_sample": True, "temperature": temperature})
    special = {"bos_token": corpus.BOS, "eos_token": corpus.END, "pad_token": corpus.PAD}
    write_json(directory / "special_tokens_map.json", special)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True, "add_eos_token": False,
              "clean_up_tokenization_spaces": False, "model_max_length": CONTEXT, **special,
              "chat_template": CHAT_TEMPLATE}
    write_json(directory / "tokenizer_config.json", config)
    tokenizer.save(str(directory / "tokenizer.json"), pretty=False)
    save_file(hub_tensors(model), str(directory / "model.safetensors"), metadata={"format": "pt"})
    (directory / "model.safetensors").chmod(0o644)


def verify(model, tokenizer, directory):
    """transformers must load the directory and, in float32, reproduce this file's logits on the same rounded weights."""
    from transformers import MixtralForCausalLM
    theirs = MixtralForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    rounded = Witling()
    rounded.load_state_dict({n: p.to(torch.bfloat16).float() for n, p in model.state_dict().items()})
    text = "".join(piece for piece, _ in corpus.document(random.Random("verify")))
    ids = torch.tensor([tokenizer.encode(text).ids])
    with torch.no_grad():
        ours, _ = rounded(ids, None, torch.ones_like(ids, dtype=torch.bool))
        error = (theirs(ids).logits[0] - ours).abs().max().item()
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{directory.name}: {size / 1e6:.2f} MB, largest difference from transformers {error:.1e}", flush=True)
    if error > 1e-3:
        raise SystemExit(f"{directory}: transformers computes other logits")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=pathlib.Path, default=ROOT / "build/witling", help="tokenizer and checkpoints")
    parser.add_argument("--out", type=pathlib.Path, default=HERE, help="where the two model directories are written")
    parser.add_argument("--tokens-percent", type=float, default=100, help="of the tokens of every phase")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--export-only", action="store_true", help="export the newest checkpoints, whatever their step")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(SEED)
    args.work.mkdir(parents=True, exist_ok=True)
    tokenizer_file = args.work / "tokenizer.json"
    if not tokenizer_file.exists():
        train_tokenizer().save(str(tokenizer_file))
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    model = Witling()
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}M parameters, {tokenizer.get_vocab_size()} tokens", flush=True)
    for name, phase in PHASES.items():
        if phase.start:
            model.load_state_dict(torch.load(args.work / f"{phase.start}.pt")["model"])
        if not args.export_only:
            train(model, tokenizer, name, int(phase.tokens * args.tokens_percent / 100 / STEP_TOKENS), args.work)
        elif (args.work / f"{name}.pt").exists():
            model.load_state_dict(torch.load(args.work / f"{name}.pt")["model"])
        if name in EXPORTED:
            directory = args.out / f"witling-{name}"
            # Stories want some chance, answers little.
            export(model, tokenizer, directory, temperature=0.4 if name == "base" else 0.2)
            verify(model, tokenizer, directory)


if __name__ == "__main__":
    main()
