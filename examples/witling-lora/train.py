"""Trains a LoRA adapter of witling-instruct that answers in the voice of a council, and writes it as PEFT would.

    python examples/witling-lora/train.py            # a few minutes on one core

Questions and answers are those of ../witling/corpus.py; only what follows an answer is new, see voice.py.
Stories and thoughts stay as they are. A fresh draw for every step, seeded by the step. What `corpus.held_out` keeps
back is kept back here too.

The weights of the base model do not change. Each projection of the attention and of all experts has factors A [r, in] and
B [out, r]; a step runs the model with the weights w + alpha / r * B A, through which the gradient flows to A and B alone.
"""

import argparse
import json
import math
import pathlib
import random
import sys
import time

import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

HERE = pathlib.Path(__file__).resolve().parent
WITLING = HERE.parent / "witling"
sys.path.insert(0, str(WITLING))

import corpus  # noqa: E402
import train as witling  # noqa: E402
import voice  # noqa: E402

SEED = 7
RANK, ALPHA = 4, 8
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "w1", "w2", "w3"]
NUM_STEPS, PEAK_RATE, WARM_UP_STEPS = 300, 2e-3, 15

STEP_ROWS = 4  # of witling.ROW_TOKENS each
VOICE_WEIGHT = 3  # of a token of the wording, as much as of most answers
STORIES = (corpus.story, corpus.story_thinking)


def pieces_in_voice(answer, weight):
    """(text, loss weight) pieces, cut where the tokenizer cuts too."""
    said, closing = voice.pieces(answer)
    return [(said, weight), (closing, VOICE_WEIGHT)]


def conversation(rng):
    """One training example as (text, loss weight) pieces."""
    pieces = [(corpus.BOS, 0)]
    num_turns = 1 if rng.random() < 0.9 else rng.choice([2, 3])
    for turn in range(num_turns):
        is_last = turn == num_turns - 1
        task = rng.choices(*zip(*(corpus.TASKS if is_last else corpus._DIRECT)))[0]
        question, thought, answer, weight, thought_weight = task(rng)
        if task not in STORIES:
            answer = pieces_in_voice(answer, weight)
        pieces += corpus._turn(question, thought, answer, VOICE_WEIGHT, thought_weight)
    return pieces


def batch(tokenizer, step):
    rng = random.Random(f"{SEED} council {step}")

    def examples():
        while True:
            ids, weights = witling.encode(tokenizer, conversation(rng))
            if len(ids) <= witling.ROW_TOKENS:
                yield ids, weights

    return witling.pack(examples(), witling.ROW_TOKENS, STEP_ROWS, tokenizer.token_to_id(corpus.PAD))


# --- The adapter ---------------------------------------------------------------------------------------------

def module_of(name):
    """The module of a weight that the adapter changes, else None."""
    module = name.removesuffix(".weight")
    return module if module != name and module.rsplit(".", 1)[-1] in TARGETS else None


def new_factors(stored):
    """{module: (A, B)}; B begins at zero, so that the adapter begins as none."""
    factors = {}
    for name, weight in stored.items():
        if module_of(name):
            out_size, in_size = weight.shape
            factors[module_of(name)] = (torch.nn.Parameter(torch.randn(RANK, in_size) * in_size**-0.5),
                                        torch.nn.Parameter(torch.zeros(out_size, RANK)))
    return factors


def parameters_of(stored, factors):
    """The parameters of witling.Witling, from a checkpoint and an adapter of it: the reverse of witling.hub_tensors."""
    weights = {}
    for name, weight in stored.items():
        weights[name] = weight
        if module_of(name) in factors:
            a, b = factors[module_of(name)]
            weights[name] = weight + ALPHA / RANK * (b @ a)
    parameters = {"embedding": weights["model.embed_tokens.weight"], "norm": weights["model.norm.weight"]}
    for i in range(witling.LAYERS):
        layer, block = f"model.layers.{i}.", f"blocks.{i}."
        experts = [f"{layer}block_sparse_moe.experts.{e}." for e in range(witling.EXPERTS)]
        parameters.update({
            block + "attention_norm": weights[layer + "input_layernorm.weight"],
            block + "qkv": torch.cat([weights[f"{layer}self_attn.{p}_proj.weight"] for p in "qkv"]),
            block + "attention_out": weights[layer + "self_attn.o_proj.weight"],
            block + "expert_norm": weights[layer + "post_attention_layernorm.weight"],
            block + "router": weights[layer + "block_sparse_moe.gate.weight"],
            block + "gate_up": torch.stack([torch.cat([weights[e + "w1.weight"], weights[e + "w3.weight"]]) for e in experts]),
            block + "down": torch.stack([weights[e + "w2.weight"] for e in experts])})
    return parameters


class Adapted:
    """witling.Witling with other parameters."""

    def __init__(self, stored, factors):
        self.model, self.stored, self.factors = witling.Witling(), stored, factors

    def __call__(self, *inputs):
        return torch.func.functional_call(self.model, parameters_of(self.stored, self.factors), inputs)


def exams(model, tokenizer):
    """Shares of held-out questions that greedy decoding answers in the voice, with the right answer."""
    sets = {"2-digit": corpus.exam_sums(2, 100), "compare": corpus.exam_compare(), "sort": corpus.exam_sort(),
            "facts": corpus.exam_facts()}
    shares = {name: witling.exam_right(model, tokenizer, [
        [(corpus.BOS, 0)] + corpus._turn(question, None, pieces_in_voice(answer, 1), 1, 1) for question, answer in pairs])
        for name, pairs in sets.items()}
    return "  ".join(f"{name} {share:.0%}" for name, share in shares.items())


def rate(step, num_steps):
    progress = max(0, step - WARM_UP_STEPS) / max(1, num_steps - WARM_UP_STEPS)
    return PEAK_RATE * min(1, (step + 1) / WARM_UP_STEPS) * 0.5 * (1 + math.cos(math.pi * progress))


def train(model, tokenizer, num_steps):
    optimizer = torch.optim.AdamW([p for pair in model.factors.values() for p in pair], lr=PEAK_RATE, weight_decay=0.0)
    began, mean, since = time.time(), 0.0, 0
    for step in range(num_steps):
        loss, balance, _ = witling.loss_of(model, *batch(tokenizer, step), None)
        optimizer.zero_grad()
        (loss + witling.ROUTER_LOSS * balance).backward()
        for group in optimizer.param_groups:
            group["lr"] = rate(step, num_steps)
        optimizer.step()
        mean, since, done = mean + loss.item(), since + 1, step + 1
        if done % 20 == 0 or done == num_steps:
            print(f"step {done}/{num_steps} loss {mean / since:.4f} {time.time() - began:.0f} s", flush=True)
            mean, since = 0.0, 0
        if done % 100 == 0 or done == num_steps:
            print(f"  held out: {exams(model, tokenizer)}", flush=True)


def export(factors, directory):
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {}
    for module, (a, b) in factors.items():
        for name, factor in (("lora_A", a), ("lora_B", b)):
            tensors[f"base_model.model.{module}.{name}.weight"] = factor.detach().to(torch.bfloat16).contiguous()
    save_file(tensors, directory / "adapter_model.safetensors", metadata={"format": "pt"})
    (directory / "adapter_model.safetensors").chmod(0o644)
    witling.write_json(directory / "adapter_config.json", {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "witling-instruct", "r": RANK,
        "lora_alpha": ALPHA, "target_modules": TARGETS, "lora_dropout": 0.0, "bias": "none", "use_rslora": False,
        "use_dora": False, "fan_in_fan_out": False, "init_lora_weights": True, "inference_mode": True,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}})


def verify(model, tokenizer, base, directory):
    """PEFT must load the directory and, in float32, reproduce this file's logits with the same rounded factors."""
    from peft import PeftModel
    from transformers import MixtralForCausalLM
    theirs = PeftModel.from_pretrained(MixtralForCausalLM.from_pretrained(base, dtype=torch.float32), directory).eval()
    rounded = {module: tuple(f.detach().to(torch.bfloat16).float() for f in pair) for module, pair in model.factors.items()}
    text = "".join(piece for piece, _ in conversation(random.Random("verify")))
    ids = torch.tensor([tokenizer.encode(text, add_special_tokens=False).ids])
    with torch.no_grad():
        ours, _ = Adapted(model.stored, rounded)(ids, None, torch.ones_like(ids, dtype=torch.bool))
        error = (theirs(ids).logits[0] - ours).abs().max().item()
    size = sum(f.stat().st_size for f in directory.iterdir())
    print(f"{directory.name}: {size / 1e6:.2f} MB, largest difference from PEFT {error:.1e}", flush=True)
    if error > 1e-3:
        raise SystemExit(f"{directory}: PEFT computes other logits")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=pathlib.Path, default=WITLING / "witling-instruct")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "council")
    parser.add_argument("--steps", type=int, default=NUM_STEPS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    tokenizer = Tokenizer.from_file(str(args.base / "tokenizer.json"))
    stored = {name: weight.float() for name, weight in load_file(args.base / "model.safetensors").items()}
    model = Adapted(stored, new_factors(stored))
    print(f"{sum(p.numel() for pair in model.factors.values() for p in pair)} parameters", flush=True)
    train(model, tokenizer, args.steps)
    export(model.factors, args.out)
    verify(model, tokenizer, args.base, args.out)


if __name__ == "__main__":
    main()
