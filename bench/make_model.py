#!/usr/bin/env python3
"""Writes a random-weight Mixtral checkpoint to measure speed with.

    bench/make_model.py --shape M1 --out build/bench/M1
    bench/make_model.py --shape M1 --out build/bench/M1 --gguf build/bench/M1.gguf

The result is an ordinary Hugging Face directory in bf16 with the tokenizer of
examples/witling/witling-base; ids beyond that tokenizer's are never decoded.
Only the shapes are real: the text that comes out is noise. With --gguf the same
weights are also written for llama.cpp. Needs numpy.

    shape  hidden  ffn  layers  heads/kv  experts, top-k  vocab  parameters
    M1       1024 3584       8      16/4            8, 2  32000     791.2 M
    M2        512 1792       8       8/4            8, 2   8192     190.9 M
    M3       1024 2816      16      16/4        1, 1 (*)  32000     245.9 M
    tiny      256  256       2       4/2            8, 2   4096       5.6 M
    tiny1     256  256       2       4/2        1, 1 (*)   4096       2.9 M

(*) A dense model, as Llama's. Witan serves only Mixtral today, so the directory
holds a mixture of one expert, which is the dense model exactly: a softmax over
one router logit is 1. The GGUF is dense, without a router. The tiny shapes are
for comparing two engines number by number.
"""

import argparse
import json
import pathlib
import shutil
import struct

import numpy as np

import gguf_writer

SHAPES = {
    name: dict(zip(("hidden", "ffn", "layers", "heads", "kv_heads", "experts", "top_k", "vocab"), row))
    for name, row in {
        "M1": (1024, 3584, 8, 16, 4, 8, 2, 32000),
        "M2": (512, 1792, 8, 8, 4, 8, 2, 8192),
        "M3": (1024, 2816, 16, 16, 4, 1, 1, 32000),
        "tiny": (256, 256, 2, 4, 2, 8, 2, 4096),
        "tiny1": (256, 256, 2, 4, 2, 1, 1, 4096),
    }.items()
}
HEAD_DIM = 64
CONTEXT_TOKENS = 4096
NORM_EPSILON = 1e-05
ROPE_THETA = 10000.0
TOKENIZER = pathlib.Path(__file__).parent.parent / "examples/witling/witling-base"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

# Drawing 800 million numbers would take longer than writing them. Tensors are
# cut out of one pool instead, at odd places, so that no two rows are equal.
POOL_SIZE = 2**22 + 2**10 + 7


def config_of(shape):
    return {
        "architectures": ["MixtralForCausalLM"],
        "model_type": "mixtral",
        "hidden_act": "silu",
        "hidden_size": shape["hidden"],
        "intermediate_size": shape["ffn"],
        "num_hidden_layers": shape["layers"],
        "num_attention_heads": shape["heads"],
        "num_key_value_heads": shape["kv_heads"],
        "head_dim": HEAD_DIM,
        "num_local_experts": shape["experts"],
        "num_experts_per_tok": shape["top_k"],
        "vocab_size": shape["vocab"],
        "max_position_embeddings": CONTEXT_TOKENS,
        "sliding_window": None,
        "rms_norm_eps": NORM_EPSILON,
        "rope_theta": ROPE_THETA,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }


def tensors_of(shape):
    """Yields (name, shape, standard deviation); None stands for a norm, around one."""
    hidden, ffn, vocab = shape["hidden"], shape["ffn"], shape["vocab"]
    query, key = shape["heads"] * HEAD_DIM, shape["kv_heads"] * HEAD_DIM

    def matrix(name, rows, columns, gain=1.0):
        return f"{name}.weight", (rows, columns), gain / columns**0.5

    yield "model.embed_tokens.weight", (vocab, hidden), 1.0
    for i in range(shape["layers"]):
        layer = f"model.layers.{i}"
        yield f"{layer}.input_layernorm.weight", (hidden,), None
        yield matrix(f"{layer}.self_attn.q_proj", query, hidden)
        yield matrix(f"{layer}.self_attn.k_proj", key, hidden)
        yield matrix(f"{layer}.self_attn.v_proj", key, hidden)
        yield matrix(f"{layer}.self_attn.o_proj", hidden, query)
        yield f"{layer}.post_attention_layernorm.weight", (hidden,), None
        moe = f"{layer}.block_sparse_moe"
        yield matrix(f"{moe}.gate", shape["experts"], hidden)
        for expert in range(shape["experts"]):
            yield matrix(f"{moe}.experts.{expert}.w1", ffn, hidden)
            yield matrix(f"{moe}.experts.{expert}.w3", ffn, hidden)
            yield matrix(f"{moe}.experts.{expert}.w2", hidden, ffn)
    yield "model.norm.weight", (hidden,), None
    yield matrix("lm_head", vocab, hidden, gain=2.0)


def bf16(values):
    """float32 -> bf16 bits, rounded to nearest even."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def write_weights(path, tensors, seed):
    random = np.random.default_rng(seed)
    normal = random.standard_normal(POOL_SIZE, dtype=np.float32)
    pools = {}  # standard deviation -> bf16 bits
    header, offset = {}, 0
    for name, shape, _ in tensors:
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, shape, deviation in tensors:
            count = int(np.prod(shape))
            if deviation is None:
                norm = 1 + 0.1 * random.standard_normal(count, dtype=np.float32)
                file.write(bf16(norm).tobytes())
                continue
            if deviation not in pools:
                pools[deviation] = bf16(normal * np.float32(deviation))
            at = int(random.integers(POOL_SIZE))
            while count > 0:
                piece = pools[deviation][at : at + count]
                file.write(piece.tobytes())
                count -= len(piece)
                at = 0
    return offset // 2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="directory to write")
    parser.add_argument("--gguf", type=pathlib.Path, help="also write the same weights for llama.cpp")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    shape = SHAPES[args.shape]
    args.out.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copyfile(TOKENIZER / name, args.out / name)
    (args.out / "config.json").write_text(json.dumps(config_of(shape), indent=2) + "\n")
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    (args.out / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    # Written under another name first: a run that was cut short leaves no
    # directory that looks complete.
    unfinished = args.out / "model.safetensors.part"
    num_parameters = write_weights(unfinished, list(tensors_of(shape)), args.seed)
    unfinished.rename(args.out / "model.safetensors")
    print(f"{args.out}: {args.shape}, {num_parameters / 1e6:.1f} million parameters")
    if args.gguf:
        gguf_writer.write(args.gguf, args.out)
        print(f"{args.gguf}: the same weights")


if __name__ == "__main__":
    main()
