"""Writes witling-base.safetensors and witling-instruct.safetensors beside this file.

    python tests/goldens/make_goldens.py        # the packages of examples/witling/requirements.txt

The reference is Mixtral written out below in float64, from the exported bfloat16 weights: nothing is rounded
between the embedding and the logits. 50 prompts per model are continued greedily by the reference itself, up to the
token that ends a text. For a judge's measure, transformers computes the same sequences in bfloat16.

Where two experts nearly tie, rounding changes the choice and with it every logit, so errors are looked at in every
position: in some columns everywhere, in all columns of some rows.

Tensors in each file (P prompts, N positions of all sequences together, C columns, R rows, V vocabulary):
  sequence_offsets  i32 [P + 1]  where each sequence (prompt, then continuation) starts in the N positions
  prompt_lengths    i32 [P]      how many of its tokens are the prompt
  token_ids         i32 [N]      every sequence, one after the other
  top_token         i32 [N]      the reference's first choice for the token after each position
  margin            f32 [N]      its logit minus that of the second choice
  columns           i32 [N, C]   the reference's first choices, then columns drawn at random
  column_logits     f32 [N, C]   the reference's logits there
  row_positions     i32 [R]      the positions, in 0..N-1, whose logits are stored whole, ascending
  logits            f32 [R, V]   the reference's logits there: the last prompt token of every prompt, and every
                                 position of the six shortest sequences
  bfloat16_error    f32 [N]      largest |transformers in bfloat16 - reference| over what is stored of a position
Metadata names the weights by SHA-256.
"""

import argparse
import hashlib
import json
import pathlib
import random
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "examples/witling"))
import corpus  # noqa: E402
import stories  # noqa: E402

NUM_PROMPTS, NUM_WHOLE, MAX_NEW_TOKENS = 50, 6, 48
NUM_TOP_COLUMNS, NUM_RANDOM_COLUMNS = 32, 32
MAX_STORED_ROWS = 200  # keeps a file small


# --- The reference -----------------------------------------------------------------------------------------

class Reference:
    def __init__(self, directory, config):
        self.config = config
        self.weights = {name: t.double() for name, t in load_file(directory / "model.safetensors").items()}

    def _norm(self, x, name):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.config["rms_norm_eps"]).sqrt() * self.weights[name]

    def _rotate(self, x):
        """x [heads, positions, head_dim]; pairs (i, i + head_dim / 2) turn by position * theta^(-2 i / head_dim)."""
        half = x.shape[-1] // 2
        turns = self.config["rope_theta"] ** (-torch.arange(half, dtype=torch.float64) / half)
        angle = torch.outer(torch.arange(x.shape[1], dtype=torch.float64), turns)
        first, second = x[..., :half], x[..., half:]
        return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)

    def _attention(self, x, layer):
        heads, kv_heads, dim = (self.config[k] for k in ("num_attention_heads", "num_key_value_heads", "head_dim"))
        q, k, v = ((x @ self.weights[f"{layer}.self_attn.{p}_proj.weight"].T).view(len(x), -1, dim).transpose(0, 1)
                   for p in "qkv")
        q, k = self._rotate(q), self._rotate(k)
        k, v = (t.repeat_interleave(heads // kv_heads, 0) for t in (k, v))
        scores = q @ k.transpose(1, 2) / dim**0.5
        scores = scores.masked_fill(torch.ones(len(x), len(x), dtype=torch.bool).triu(1), float("-inf"))
        out = (scores.softmax(-1) @ v).transpose(0, 1).reshape(len(x), heads * dim)
        return out @ self.weights[f"{layer}.self_attn.o_proj.weight"].T

    def _experts(self, x, layer):
        probabilities = (x @ self.weights[f"{layer}.block_sparse_moe.gate.weight"].T).softmax(-1)
        chosen_weights, chosen = probabilities.topk(self.config["num_experts_per_tok"], -1)
        chosen_weights = chosen_weights / chosen_weights.sum(-1, keepdim=True)
        out = torch.zeros_like(x)
        for expert in range(self.config["num_local_experts"]):
            rows, slots = (chosen == expert).nonzero(as_tuple=True)
            w1, w2, w3 = (self.weights[f"{layer}.block_sparse_moe.experts.{expert}.w{i}.weight"] for i in (1, 2, 3))
            gate = x[rows] @ w1.T
            hidden = gate / (1 + (-gate).exp()) * (x[rows] @ w3.T)
            out[rows] += chosen_weights[rows, slots, None] * (hidden @ w2.T)
        return out

    def logits(self, ids):
        """[positions, vocabulary] in float64."""
        embedding = self.weights["model.embed_tokens.weight"]
        x = embedding[torch.tensor(ids)]
        for i in range(self.config["num_hidden_layers"]):
            layer = f"model.layers.{i}"
            x = x + self._attention(self._norm(x, f"{layer}.input_layernorm.weight"), layer)
            x = x + self._experts(self._norm(x, f"{layer}.post_attention_layernorm.weight"), layer)
        return self._norm(x, "model.norm.weight") @ embedding.T


# --- Prompts -------------------------------------------------------------------------------------------------

def base_prompts(rng):
    """Texts; all but the first get <|bos|> from the tokenizer."""
    yield corpus.BOS
    yield from ["Once", "One", "Mara", "The", "7", " "]
    yield from ["Once there was a", "Long ago", "The flag of Tarn", "Ada and Finn", "1 + 1 =", "Zürich, 東京, naïve 🦊"]
    for length in (4, 6, 8, 10, 12, 16, 20, 24, 32, 40, 48, 56, 64, 72, 80, 90, 100, 110):
        yield " ".join(stories.tell(rng, stories.cast(rng)).split(" ")[:length])
    for length in (3, 5, 8, 12, 16, 20, 24, 30, 36):
        yield " ".join(describe(rng).split(" ")[:length])
    for documents in (2, 2, 2, 2, 3, 3, 3, 3):
        texts = ["".join(piece for piece, _ in corpus.document(rng)) for _ in range(documents)]
        yield f"{corpus.END}{corpus.BOS}".join(texts[:-1] + [texts[-1][:len(texts[-1]) // 2]])
    yield "{\n  \"name\": [1, 2, 3]\n}\n"
    yield "the the the the the the the the the the the the the the the the"


def describe(rng):
    town, person = rng.choice(corpus.TOWN_NAMES), rng.choice(corpus.PEOPLE_NAMES)
    return corpus.describe_town(town) + " " + corpus.describe_person(person)


def instruct_prompts(rng):
    """Texts rendered for chat, cut before the last answer or inside it, and a few raw ones."""
    yield corpus.BOS
    yield from ["Hello", corpus.BOS + corpus.USER, "Once there was a"]
    kinds = [(corpus.sum_two_digits, 8), (corpus.sum_thinking, 6), (corpus.difference_thinking, 3), (corpus.compare, 4),
             (corpus.sort_digits, 4), (corpus.fact, 6), (corpus.refusal, 3), (corpus.small_talk, 3), (corpus.story, 5)]
    for task, count in kinds:
        for _ in range(count):
            question, thought, _, _, _ = task(rng)
            yield (f"{corpus.BOS}{corpus.USER}{question}{corpus.END}{corpus.ASSISTANT}{corpus.THINK}"
                   f"{corpus.END_THINK if thought is None else ''}")
    for turns in (3, 6, 9, 12):
        pieces = [text for text, _ in corpus.conversation(rng, num_turns=turns)]
        yield "".join(pieces[:-1])


# --- Goldens -------------------------------------------------------------------------------------------------

def make(directory, out, prompts):
    name = directory.name
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    theirs = transformers.MixtralForCausalLM.from_pretrained(directory, dtype=torch.bfloat16).eval()
    reference = Reference(directory, json.loads((directory / "config.json").read_text()))

    def encode(text):
        return tokenizer(text, add_special_tokens=not text.startswith(corpus.BOS)).input_ids

    prompts = [encode(text) for text in prompts]
    assert len(prompts) == NUM_PROMPTS, len(prompts)
    end = tokenizer.convert_tokens_to_ids(corpus.END)
    sequences, references, roundeds = [], [], []
    for prompt in prompts:
        ids = list(prompt)
        while len(ids) < len(prompt) + MAX_NEW_TOKENS:
            ids.append(int(reference.logits(ids)[-1].argmax()))
            if ids[-1] == end:
                break
        sequences.append(ids)
        references.append(reference.logits(ids))
        with torch.no_grad():
            roundeds.append(theirs(torch.tensor([ids])).logits[0].double())

    offsets = [0]
    for ids in sequences:
        offsets.append(offsets[-1] + len(ids))
    rows = {offsets[i] + len(prompt) - 1 for i, prompt in enumerate(prompts)}
    for i in sorted(range(NUM_PROMPTS), key=lambda i: len(sequences[i]))[:NUM_WHOLE]:
        rows |= set(range(offsets[i], offsets[i + 1]))
    rows = sorted(rows)
    assert len(rows) <= MAX_STORED_ROWS, len(rows)
    exact = torch.cat(references)
    difference = (torch.cat(roundeds) - exact).abs()
    top = exact.topk(NUM_TOP_COLUMNS, dim=-1)
    torch.manual_seed(0)
    columns = torch.cat([top.indices, torch.randint(exact.shape[1], (len(exact), NUM_RANDOM_COLUMNS))], dim=1)
    error = difference.gather(1, columns).amax(-1)
    error[rows] = difference[rows].amax(-1)
    margin = top.values[:, 0] - top.values[:, 1]
    tensors = {
        "sequence_offsets": torch.tensor(offsets, dtype=torch.int32),
        "prompt_lengths": torch.tensor([len(p) for p in prompts], dtype=torch.int32),
        "token_ids": torch.tensor([t for ids in sequences for t in ids], dtype=torch.int32),
        "top_token": top.indices[:, 0].to(torch.int32).contiguous(), "margin": margin.float(), "bfloat16_error": error.float(),
        "columns": columns.to(torch.int32), "column_logits": exact.gather(1, columns).float(),
        "row_positions": torch.tensor(rows, dtype=torch.int32), "logits": exact[rows].float().contiguous(),
    }
    digest = hashlib.sha256((directory / "model.safetensors").read_bytes()).hexdigest()
    path = out / f"{name}.safetensors"
    save_file(tensors, path, metadata={"format": "witan-goldens", "model": name, "model_sha256": digest,
                                       "torch": torch.__version__, "transformers": transformers.__version__})
    path.chmod(0o644)
    chosen = torch.cat([torch.arange(offsets[i] + len(prompt) - 1, offsets[i + 1] - 1) for i, prompt in enumerate(prompts)])
    largest = error.max().item()
    print(f"{path.name}: {path.stat().st_size / 1e6:.2f} MB, {len(error)} positions, {len(chosen)} of them choose a greedy token, "
          f"longest prompt {max(map(len, prompts))}, {len(rows)} rows; bfloat16 error: largest {largest:.4f}, "
          f"mean {error.mean():.4f}; margin above the largest error at {(margin[chosen] > largest).float().mean():.1%} of the "
          f"greedy tokens, {(margin > largest).float().mean():.1%} of all positions", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=pathlib.Path, default=ROOT / "examples/witling", help="where the two models lie")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)  # the matrices are small
    make(args.models / "witling-base", args.out, base_prompts(random.Random("goldens base")))
    make(args.models / "witling-instruct", args.out, instruct_prompts(random.Random("goldens instruct")))


if __name__ == "__main__":
    main()
