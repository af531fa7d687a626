"""Writes a tiny random checkpoint of every family, and what transformers computes with it, into families/.

    python tests/goldens/make_family_goldens.py [NAME ...]   # the packages of examples/witling/requirements.txt

families/NAME/ is an ordinary Hugging Face directory (config.json, model.safetensors in bfloat16); NAME.safetensors
beside it has logits of some positions. The reference is transformers itself in float64, from the bfloat16 weights
(its norms and rotations keep float32, whose error is a thousandth of what is judged); the measure is transformers in
bfloat16. Prompts go past every window and every switch of a rotation. Where angles depend on the length of the
sequence, each row is computed from a sequence that ends there, as decoding without a cache would.

Tensors in each file (S sequences, N tokens of all together, R rows, V vocabulary):
  sequence_offsets  i32 [S + 1]  where each sequence starts in the N tokens
  token_ids         i32 [N]
  row_positions     i32 [R]      in 0..N-1, ascending: positions whose logits are stored
  logits            f32 [R, V]   the reference's
  bfloat16_error    f32 [R]      largest |transformers in bfloat16 - reference| of a row
  is_tie            i32 [R]      1 where rounding may choose other experts for the row: see TIE
"""

import functools
import json
import pathlib
import shutil
import sys

import torch
import transformers
from safetensors.torch import save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

OUT = pathlib.Path(__file__).resolve().parent / "families"
VOCAB = 320
LENGTHS = [1, 7, 40, 64, 65, 90, 150, 200]
NUM_ROWS_PER_SEQUENCE = {"phi3.5-moe": 20}  # its router often ties; 5 of the others
ORIGINAL_CONTEXT = 64  # of scaled rotations
# A row is a tie when in some layer the reference's choice of experts would be another one if router logits changed by
# TIE times the largest error that bfloat16 makes in the router logits of rows whose choices are the same.
TIE = 2

COMMON = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2, vocab_size=VOCAB,
              max_position_embeddings=512, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2, pad_token_id=0,
              tie_word_embeddings=False, attention_dropout=0.0)
DENSE = dict(intermediate_size=336)
WIDE = dict(num_attention_heads=4)  # heads of 16
EXPERTS = dict(intermediate_size=96, num_local_experts=8, num_experts_per_tok=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=10000.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=ORIGINAL_CONTEXT)
LINEAR = dict(rope_type="linear", rope_theta=10000.0, factor=4.0)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=ORIGINAL_CONTEXT)


def default_rope(theta):
    return dict(rope_type="default", rope_theta=theta)


def long_rope(size):
    return dict(rope_type="longrope", rope_theta=10000.0, original_max_position_embeddings=ORIGINAL_CONTEXT,
                short_factor=[1.0 + 0.05 * i for i in range(size)], long_factor=[1.0 + 0.7 * i for i in range(size)])


# Name -> architecture, config class, fields.
FAMILIES = {
    "llama": ("LlamaForCausalLM", transformers.LlamaConfig,
              dict(DENSE, rope_parameters=default_rope(500000.0))),
    "llama-3.1": ("LlamaForCausalLM", transformers.LlamaConfig,
                  dict(DENSE, rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "llama-linear": ("LlamaForCausalLM", transformers.LlamaConfig,
                     dict(DENSE, rope_parameters=LINEAR, attention_bias=True)),
    "mistral": ("MistralForCausalLM", transformers.MistralConfig,
                dict(DENSE, rope_parameters=default_rope(10000.0), sliding_window=48)),
    "mixtral": ("MixtralForCausalLM", transformers.MixtralConfig,
                dict(EXPERTS, rope_parameters=default_rope(1000000.0), sliding_window=None)),
    "phi3": ("Phi3ForCausalLM", transformers.Phi3Config,
             dict(DENSE, rope_parameters=default_rope(10000.0), sliding_window=48, num_key_value_heads=8)),
    "phi3-long": ("Phi3ForCausalLM", transformers.Phi3Config,
                  dict(DENSE, **WIDE, rope_parameters=long_rope(8), sliding_window=400,
                       original_max_position_embeddings=ORIGINAL_CONTEXT)),
    "phi3-partial": ("Phi3ForCausalLM", transformers.Phi3Config,
                     dict(DENSE, **WIDE, rope_parameters=dict(long_rope(6), partial_rotary_factor=0.75), sliding_window=400,
                          original_max_position_embeddings=ORIGINAL_CONTEXT, tie_word_embeddings=True)),
    "phi3.5-moe": ("PhimoeForCausalLM", transformers.PhimoeConfig,
                   dict(EXPERTS, **WIDE, rope_parameters=dict(long_rope(8), short_mscale=1.1, long_mscale=1.25),
                        sliding_window=400, attention_bias=True, lm_head_bias=True, router_jitter_noise=0.01,
                        input_jitter_noise=0.0)),
    "qwen2": ("Qwen2ForCausalLM", transformers.Qwen2Config,
              dict(DENSE, rope_parameters=default_rope(1000000.0), use_sliding_window=True, sliding_window=40,
                   max_window_layers=1, tie_word_embeddings=True)),
    "qwen3": ("Qwen3ForCausalLM", transformers.Qwen3Config,
              dict(DENSE, rope_parameters=YARN, head_dim=24)),
    "qwen3-moe": ("Qwen3MoeForCausalLM", transformers.Qwen3MoeConfig,
                  dict(rope_parameters=default_rope(1000000.0), head_dim=16, intermediate_size=336,
                       moe_intermediate_size=96, num_experts=8, num_experts_per_tok=3, norm_topk_prob=True)),
    "qwen3-moe-raw": ("Qwen3MoeForCausalLM", transformers.Qwen3MoeConfig,
                      dict(rope_parameters=default_rope(1000000.0), head_dim=16, intermediate_size=336,
                           moe_intermediate_size=96, num_experts=8, num_experts_per_tok=3, norm_topk_prob=False)),
}


def randomise(model):
    """Weights that keep the scale of their input, lively biases, norms around 1."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.3)
            elif "norm" in name:
                parameter.normal_(1, 0.1)
            elif "embed_tokens" in name:
                parameter.normal_(0, 2 / 64**0.5 if model.config.tie_word_embeddings else 1)
            elif "lm_head" in name:
                parameter.normal_(0, 2 / 64**0.5)
            else:
                parameter.normal_(0, parameter.shape[-1]**-0.5)


def write_checkpoint(name, architecture, config_class, fields, directory):
    shutil.rmtree(directory, ignore_errors=True)
    torch.manual_seed(sum(name.encode()))
    model = getattr(transformers, architecture)(config_class(**{**COMMON, **fields}))
    randomise(model)
    model.to(torch.bfloat16).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    for path in directory.iterdir():
        path.chmod(0o644)


def margin_of_choice(logits, config):
    """How much router logits [E] may change before other experts, or other weights of the sparse mixer, are chosen."""
    ordered = logits.sort(descending=True).values
    chosen = config.num_experts_per_tok
    if config.model_type != "phimoe":
        return (ordered[chosen - 1] - ordered[chosen]).item()
    margins = [ordered[0] - ordered[1], ordered[1] - ordered[2]]
    for best in (0, 1):  # the mask of logits that are not close to the best one
        rest = ordered[best + 1:]
        factor = torch.maximum(rest.abs(), ordered[best])
        margins.append((((ordered[best] - rest) / factor - 2 * config.router_jitter_noise) * factor).abs().min())
    return min(margins).item()


def choice_of(logits, config):
    ordered, indices = logits.sort(descending=True)
    if config.model_type != "phimoe":
        return set(indices[:config.num_experts_per_tok].tolist())
    choice = indices[:2].tolist()
    for best in (0, 1):
        rest = ordered[best + 1:]
        is_close = (ordered[best] - rest) / torch.maximum(rest.abs(), ordered[best]) <= 2 * config.router_jitter_noise
        choice.append(set(indices[best + 1:][is_close].tolist()))
    return choice


def last_logits(model, ids, router_logits=None):
    """Of the last position; the router logits of every layer are appended to the list."""
    rotary = model.model.rotary_emb
    if type(rotary).__name__ == "PhimoeRotaryEmbedding" and rotary.rope_type == "longrope":
        # transformers 5.23 forgets the length here and so never takes the long factors, as the code that Microsoft
        # published with the model does (Phi3LongRoPEScaledRotaryEmbedding in its modeling_phimoe.py).
        rotary.rope_init_fn = functools.partial(ROPE_INIT_FUNCTIONS["longrope"], seq_len=len(ids))
    hooks = []
    if router_logits is not None:
        def keep(_, __, output):
            logits = output[0] if isinstance(output, tuple) else output
            router_logits.append(logits.reshape(-1, logits.shape[-1])[-1].double())
        for name, module in model.named_modules():
            if name.endswith((".gate", ".router")):
                hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, -1].double()
    for hook in hooks:
        hook.remove()
    return logits


def ties(config, exact, rounded):
    """For router logits [rows][layers] of the reference and of bfloat16."""
    errors = [(a - b).abs().max().item() for e, r in zip(exact, rounded) for a, b in zip(e, r)
              if all(choice_of(x, config) == choice_of(y, config) for x, y in zip(e, r))]
    margins = [min((margin_of_choice(layer, config) for layer in row), default=1e9) for row in exact]
    return [int(margin <= TIE * max(errors, default=0)) for margin in margins]


def make(name, architecture, config_class, fields):
    directory = OUT / name
    write_checkpoint(name, architecture, config_class, fields, directory)
    load = getattr(transformers, architecture).from_pretrained
    plain = dict(attn_implementation="eager", experts_implementation="eager")  # float64 has no other
    reference = load(directory, dtype=torch.float64, **plain).eval()
    theirs = load(directory, dtype=torch.bfloat16, **plain).eval()
    generator = torch.Generator().manual_seed(7)
    offsets, token_ids, positions, logits, errors = [0], [], [], [], []
    exact_routers, rounded_routers = [], []
    num_rows = NUM_ROWS_PER_SEQUENCE.get(name, 5)
    for length in LENGTHS:
        ids = torch.randint(VOCAB, (length,), generator=generator).tolist()
        ends = {length} | set((torch.randperm(length, generator=generator)[:num_rows - 1] + 1).tolist())
        for end in sorted(ends):
            exact_routers.append([])
            rounded_routers.append([])
            exact = last_logits(reference, ids[:end], exact_routers[-1])
            positions.append(offsets[-1] + end - 1)
            logits.append(exact.float())
            errors.append((last_logits(theirs, ids[:end], rounded_routers[-1]) - exact).abs().max().float())
        token_ids += ids
        offsets.append(len(token_ids))
    is_tie = ties(reference.config, exact_routers, rounded_routers)
    save_file({
        "sequence_offsets": torch.tensor(offsets, dtype=torch.int32),
        "token_ids": torch.tensor(token_ids, dtype=torch.int32),
        "row_positions": torch.tensor(positions, dtype=torch.int32),
        "logits": torch.stack(logits), "bfloat16_error": torch.stack(errors),
        "is_tie": torch.tensor(is_tie, dtype=torch.int32),
    }, OUT / f"{name}.safetensors", metadata={"format": "witan-family-goldens", "torch": torch.__version__,
                                              "transformers": transformers.__version__})
    (OUT / f"{name}.safetensors").chmod(0o644)
    print(f"{name}: {len(positions)} rows, {sum(is_tie)} ties, largest error of bfloat16 {max(errors):.4f}, standard deviation of the logits "
          f"{torch.stack(logits).std():.2f}", flush=True)
    return json.loads((directory / "config.json").read_text())


def main():
    OUT.mkdir(exist_ok=True)
    for name, (architecture, config_class, fields) in FAMILIES.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        make(name, architecture, config_class, fields)


if __name__ == "__main__":
    main()
