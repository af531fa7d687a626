"""Writes what the tests of GGUF files compare with into gguf/.

    pip install gguf==0.19.0 safetensors==0.8.0 sentencepiece==0.2.3 tokenizers==0.23.3
    python tests/goldens/make_gguf_goldens.py

quants.safetensors     random blocks of every quantised type (NAME.blocks, as i32) and the float32 numbers that gguf-py
                       makes of them (NAME.numbers)
FAMILY.json            of each checkpoint in families/: the GGUF file that llama.cpp's convert_hf_to_gguf.py would make of
                       it, written by gguf-py, as a recipe: a header, then pieces of the checkpoint's own tensors (the
                       file itself would be as large as the checkpoint), and the SHA-256 of the whole
sentencepiece.gguf     a small SentencePiece vocabulary without tensors; sentencepiece.json has texts and the ids that
                       SentencePiece itself makes of them
byte_level_PRE.gguf    the vocabulary of examples/witling under a pre-tokenizer of that name; byte_level.json has texts
                       and the ids that tokenizers makes of them with the rules of that name's published tokenizer.json
"""

import hashlib
import io
import json
import math
import pathlib
import random
import struct

import gguf
import numpy as np
import sentencepiece
import tokenizers
from safetensors.numpy import save_file

HERE = pathlib.Path(__file__).resolve().parent
OUT = HERE / "gguf"
FAMILIES = HERE / "families"
WITLING = HERE.parent.parent / "examples" / "witling"
Type = gguf.GGMLQuantizationType
QUANTISED = [Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0, Type.Q2_K, Type.Q3_K, Type.Q4_K, Type.Q5_K, Type.Q6_K]
# Where blocks have halves that scale.
HALVES = {Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0], Type.Q2_K: [80, 82],
          Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208]}


def make_quants():
    generator = np.random.default_rng(11)
    tensors = {}
    for kind in QUANTISED:
        _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
        blocks = generator.integers(0, 256, (4, block_bytes), dtype=np.uint8)
        # Ordinary, negative, subnormal and zero scales.
        for number, scale in enumerate([0.0123, -1.75, 3e-7, 0.0]):
            for place, half in enumerate(HALVES[kind]):
                blocks[number, half:half + 2] = np.frombuffer(np.float16(scale * (place + 1)).tobytes(), np.uint8)
        numbers = gguf.quants.dequantize(blocks, kind)
        tensors[f"{kind.name}.blocks"] = np.frombuffer(blocks.tobytes(), np.int32)
        tensors[f"{kind.name}.numbers"] = numbers.astype(np.float32).reshape(-1)
    save_file(tensors, OUT / "quants.safetensors")


class Checkpoint:
    """The tensors of a model.safetensors in bf16, as bits."""

    def __init__(self, path):
        data = path.read_bytes()
        (length,) = struct.unpack("<Q", data[:8])
        self.header = json.loads(data[8:8 + length])
        self.header.pop("__metadata__", None)
        self.data = data[8 + length:]

    def shape(self, name):
        return tuple(self.header[name]["shape"])

    def bits(self, name):
        begin, end = self.header[name]["data_offsets"]
        return np.frombuffer(self.data[begin:end], np.uint16).reshape(self.shape(name))


def permute(weights, num_heads):
    """LlamaModel.permute of convert_hf_to_gguf.py; of biases as of rows."""
    halves = weights.reshape(num_heads, 2, weights.shape[0] // num_heads // 2, *weights.shape[1:])
    return halves.swapaxes(1, 2).reshape(weights.shape)


LAYER = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.qkv_proj": "attn_qkv",
    "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.gate_up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    "mlp.gate": "ffn_gate_inp", "block_sparse_moe.gate": "ffn_gate_inp",
}
EXPERT = {"w1": "gate", "w3": "up", "w2": "down", "gate_proj": "gate", "up_proj": "up", "down_proj": "down"}
MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
ARCHITECTURE = {"LlamaForCausalLM": "llama", "MistralForCausalLM": "llama", "MixtralForCausalLM": "llama",
                "Phi3ForCausalLM": "phi3", "PhimoeForCausalLM": "phimoe", "Qwen2ForCausalLM": "qwen2",
                "Qwen3ForCausalLM": "qwen3", "Qwen3MoeForCausalLM": "qwen3moe"}


def gguf_name(name):
    """"model.layers.3.mlp.experts.5.up_proj.weight" -> ("blk.3.ffn_up_exps.weight", 5)."""
    stem, kind = name.rsplit(".", 1)
    if stem in MODEL:
        return f"{MODEL[stem]}.{kind}", None
    _, _, layer, rest = stem.split(".", 3)
    if ".experts." in rest:
        _, _, expert, projection = rest.split(".")
        return f"blk.{layer}.ffn_{EXPERT[projection]}_exps.{kind}", int(expert)
    return f"blk.{layer}.{LAYER[rest]}.{kind}", None


def add_metadata(writer, arch, config):
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    rope = config["rope_parameters"]
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1)))
    if config.get("head_dim"):
        writer.add_key_length(head_dim)
        writer.add_value_length(head_dim)
    for field in ("num_local_experts", "num_experts"):
        if field in config:
            writer.add_expert_count(config[field])
            writer.add_expert_used_count(config["num_experts_per_tok"])
    if "moe_intermediate_size" in config:
        writer.add_expert_feed_forward_length(config["moe_intermediate_size"])
    if config.get("sliding_window") and not arch.startswith("qwen"):
        writer.add_sliding_window(config["sliding_window"])
    if rope["rope_type"] in ("linear", "yarn"):
        writer.add_rope_scaling_type(gguf.RopeScalingType(rope["rope_type"]))
        writer.add_rope_scaling_factor(rope["factor"])
    if rope["rope_type"] in ("yarn", "longrope"):
        writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
    if rope["rope_type"] == "longrope":
        original = rope["original_max_position_embeddings"]
        scale = config["max_position_embeddings"] / original
        writer.add_rope_scaling_attn_factors(math.sqrt(1 + math.log(scale) / math.log(original)))
    writer.add_tokenizer_model("gpt2")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_BF16)


def rope_tensors(config):
    """The tensors that say how frequencies are divided, {name: float32}."""
    rope = config["rope_parameters"]
    if rope["rope_type"] == "longrope":
        return {f"rope_factors_{length}.weight": np.array(rope[f"{length}_factor"], np.float32)
                for length in ("long", "short")}
    if rope["rope_type"] != "llama3":
        return {}
    dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    original = rope["original_max_position_embeddings"]
    factors = []
    for frequency in 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim):
        wavelength = 2 * math.pi / frequency
        if wavelength < original / rope["high_freq_factor"]:
            factors.append(1)
        elif wavelength > original / rope["low_freq_factor"]:
            factors.append(rope["factor"])
        else:
            smooth = ((original / wavelength - rope["low_freq_factor"]) /
                      (rope["high_freq_factor"] - rope["low_freq_factor"]))
            factors.append(1 / ((1 - smooth) / rope["factor"] + smooth))
    return {"rope_freqs.weight": np.array(factors, np.float32)}


def runs(name, indices):
    """Indices of elements as [name, first, count] of ascending neighbours."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    return [[name, int(run[0]), len(run)] for run in np.split(indices, breaks)]


def make_family(directory):
    config = json.loads((directory / "config.json").read_text())
    arch = ARCHITECTURE[config["architectures"][0]]
    checkpoint = Checkpoint(directory / "model.safetensors")
    merged = {}  # GGUF name -> [(Hugging Face name, indices of its elements in the file's order)]
    for name in sorted(checkpoint.header):
        target, expert = gguf_name(name)
        indices = np.arange(math.prod(checkpoint.shape(name))).reshape(checkpoint.shape(name))
        for projection, heads in (("attn_q.", "num_attention_heads"), ("attn_k.", "num_key_value_heads")):
            if arch == "llama" and projection in target:
                indices = permute(indices, config[heads])
        merged.setdefault(target, []).append((expert or 0, name, indices))

    path = OUT / "family.gguf"
    writer = gguf.GGUFWriter(path, arch)
    add_metadata(writer, arch, config)
    pieces = []
    for target, numbers in rope_tensors(config).items():
        writer.add_tensor(target, numbers)
        pieces.append((numbers.nbytes, [["", numbers.tobytes().hex()]]))
    for target, parts in merged.items():
        parts.sort()
        bits = np.stack([checkpoint.bits(name).reshape(-1)[indices] for _, name, indices in parts])
        if len(parts) == 1:
            bits = bits[0]
        is_wide = bits.ndim == 1 or "ffn_gate_inp" in target
        if is_wide:
            writer.add_tensor(target, (bits.astype(np.uint32) << 16).view(np.float32))
        else:
            writer.add_tensor(target, bits.view(np.uint8), raw_dtype=Type.BF16)
        pieces.append((bits.size * (4 if is_wide else 2),
                       [[*run, is_wide] for _, name, indices in parts for run in runs(name, indices.reshape(-1))]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    data = path.read_bytes()
    path.unlink()
    padded = sum(size + -size % gguf.GGUF_DEFAULT_ALIGNMENT for size, _ in pieces)
    recipe = {"header": data[:len(data) - padded].hex(), "sha256": hashlib.sha256(data).hexdigest(),
              "tensors": [tensor_pieces for _, tensor_pieces in pieces]}
    assert assemble(recipe, checkpoint) == data
    (OUT / f"{directory.name}.json").write_text(json.dumps(recipe, separators=(",", ":")) + "\n")


def assemble(recipe, checkpoint):
    """What the test does with a recipe."""
    file = io.BytesIO()
    file.write(bytes.fromhex(recipe["header"]))
    for pieces in recipe["tensors"]:
        for name, *rest in pieces:
            if not name:
                file.write(bytes.fromhex(rest[0]))
                continue
            first, count, is_wide = rest
            bits = checkpoint.bits(name).reshape(-1)[first:first + count]
            file.write((bits.astype(np.uint32) << 16 if is_wide else bits).tobytes())
        file.write(bytes(-file.tell() % gguf.GGUF_DEFAULT_ALIGNMENT))
    return file.getvalue()


TEXTS = [
    "", " ", "Hello world", "  two  spaces ", "Once upon a time, there was a fox.", "don't WE'LL 1234567 12 345",
    "tab\tnew\n\n\r\nline", "naïve café — “quotes” … ½", "日本語のテキスト", "😀👍🏽", "a_b-c+d=e<f>$g^h|i~`j",
    "x\u0301 e\u0301", "HTTPServer fooBar ÄÖÜß", "<s>", "</s> is the end", "<unk>", "\u2581already",
]


def make_sentencepiece():
    stories = [line for line in (WITLING / "stories.py").read_text().splitlines() if line.strip()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(stories), model_writer=model, model_type="bpe", vocab_size=600, byte_fallback=True,
        character_coverage=0.999, normalization_rule_name="identity", remove_extra_whitespaces=False,
        max_sentencepiece_length=16, split_digits=True, add_dummy_prefix=True, minloglevel=2)
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    tokens, scores, types = [], [], []
    for i in range(processor.vocab_size()):
        tokens.append(processor.id_to_piece(i))
        scores.append(processor.get_score(i))
        types.append(gguf.TokenType.UNKNOWN if processor.is_unknown(i) else
                     gguf.TokenType.CONTROL if processor.is_control(i) else
                     gguf.TokenType.BYTE if processor.is_byte(i) else gguf.TokenType.NORMAL)
    writer = gguf.GGUFWriter(OUT / "sentencepiece.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(processor.bos_id())
    writer.add_eos_token_id(processor.eos_id())
    writer.add_unk_token_id(processor.unk_id())
    writer.add_chat_template("{{ bos_token }}{{ messages[0].content }}")
    finish(writer)
    # Spellings of control tokens mean the tokens, to transformers as to llama.cpp; SentencePiece itself never finds them.
    texts = [text for text in TEXTS if "<" not in text] + ["a < b > c"]
    cases = [{"text": text, "ids": processor.encode(text), "decoded": processor.decode(processor.encode(text))}
             for text in texts]
    write_json("sentencepiece.json", cases)


def finish(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
REST = r"|\s*[\r\n]+|\s+(?!\S)|\s+"


def split(pattern):
    return tokenizers.pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")


def byte_level(use_regex):
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=use_regex)


# The pre-tokenizers of the tokenizer.json that are published with GPT-2, Llama 3, Qwen 2, SmolLM 2, Mistral Nemo and
# GPT-4o (Phi-4-mini); "default" is llama.cpp's own.
PRE_TOKENIZERS = {
    "gpt-2": [byte_level(True)],
    "llama-bpe": [split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST),
                  byte_level(False)],
    "qwen2": [split(CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*" + REST),
              byte_level(False)],
    "smollm": [tokenizers.pre_tokenizers.Digits(individual_digits=True), byte_level(True)],
    "tekken": [split(rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*|\p{{N}}"
                     r"| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST), byte_level(False)],
    "gpt-4o": [split(rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+{CONTRACTIONS}?|[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*"
                     rf"{CONTRACTIONS}?" r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*" + REST), byte_level(False)],
    "default": [split(r"[\p{P}\$\+<=>\^~\|]+"), byte_level(True)],
}


def make_byte_level():
    source = json.loads((WITLING / "witling-instruct" / "tokenizer.json").read_text())
    added = {token["content"]: token for token in source["added_tokens"]}
    vocabulary = dict(source["model"]["vocab"], **{token["content"]: token["id"] for token in added.values()})
    tokens = [text for text, _ in sorted(vocabulary.items(), key=lambda item: item[1])]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in source["model"]["merges"]]
    writer = gguf.GGUFWriter(OUT / "byte_level.gguf", "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("PRETOKENIZER")
    writer.add_token_list(tokens)
    writer.add_token_types([gguf.TokenType.CONTROL if text in added else gguf.TokenType.NORMAL for text in tokens])
    writer.add_token_merges(merges)
    finish(writer)
    cases = {}
    for name, stages in PRE_TOKENIZERS.items():
        source["pre_tokenizer"] = None
        source["normalizer"] = {"type": "NFC"} if name == "qwen2" else None
        source["model"]["ignore_merges"] = name in ("llama-bpe", "tekken")
        tokenizer = tokenizers.Tokenizer.from_str(json.dumps(source))
        tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(stages)
        cases[name] = [{"text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}
                       for text in TEXTS + words()]
    write_json("byte_level.json", cases)


def words():
    generator = random.Random(5)
    alphabet = "aAbB zZ'19 0.,!?\n\r\t éÉ日-_/ "
    return ["".join(generator.choices(alphabet, k=24)) for _ in range(12)]


def write_json(name, value):
    (OUT / name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def main():
    OUT.mkdir(exist_ok=True)
    make_quants()
    for directory in sorted(FAMILIES.iterdir()):
        if directory.is_dir():
            make_family(directory)
    make_sentencepiece()
    make_byte_level()


if __name__ == "__main__":
    main()
