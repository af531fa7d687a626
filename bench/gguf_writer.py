"""Writes the weights of a Mixtral checkpoint in bf16 as a GGUF file.

Norms and the router are float32 there, as in llama.cpp's own conversions; both
are exact copies of bf16 numbers. Rows of q and k are put into the order that
llama.cpp's rotation of neighbours wants, where Hugging Face's rotates halves. A
mixture of one expert becomes a dense model. The vocabulary is made up: three
special tokens, the 256 bytes, and words that no text is ever cut into, so that a
text of N ASCII characters is N tokens.
"""

import json
import pathlib
import struct

import numpy as np

ALIGNMENT = 32
UINT32, INT32, FLOAT32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # types of metadata
TENSOR_F32, TENSOR_BF16 = 0, 30
FILE_TYPE_BF16 = 32
TOKEN_NORMAL, TOKEN_UNKNOWN, TOKEN_CONTROL, TOKEN_BYTE = 1, 2, 3, 6
WORD_START = "\u2581"


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def scalar(kind, value):
    if kind == STRING:
        return string(value)
    return struct.pack({UINT32: "<I", INT32: "<i", FLOAT32: "<f", BOOL: "<?"}[kind], value)


def entry(key, kind, value):
    """One key of the metadata; a list becomes an array of `kind`."""
    if isinstance(value, list):
        items = b"".join(scalar(kind, v) for v in value)
        return string(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    return string(key) + struct.pack("<I", kind) + scalar(kind, value)


def vocabulary(size):
    """[(text, type)]; every word is five characters none of whose parts is a token."""
    tokens = [("<unk>", TOKEN_UNKNOWN), ("<s>", TOKEN_CONTROL), ("</s>", TOKEN_CONTROL)]
    tokens += [(f"<0x{byte:02X}>", TOKEN_BYTE) for byte in range(256)]
    for i in range(size - len(tokens)):
        letters = (chr(ord("a") + i // 26**place % 26) for place in (3, 2, 1, 0))
        tokens.append((WORD_START + "".join(letters), TOKEN_NORMAL))
    return tokens


def metadata(config, name):
    tokens = vocabulary(config["vocab_size"])
    entries = [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, name),
        entry("general.file_type", UINT32, FILE_TYPE_BF16),
        entry("general.alignment", UINT32, ALIGNMENT),
        entry("llama.context_length", UINT32, config["max_position_embeddings"]),
        entry("llama.embedding_length", UINT32, config["hidden_size"]),
        entry("llama.block_count", UINT32, config["num_hidden_layers"]),
        entry("llama.feed_forward_length", UINT32, config["intermediate_size"]),
        entry("llama.attention.head_count", UINT32, config["num_attention_heads"]),
        entry("llama.attention.head_count_kv", UINT32, config["num_key_value_heads"]),
        entry("llama.attention.key_length", UINT32, config["head_dim"]),
        entry("llama.attention.value_length", UINT32, config["head_dim"]),
        entry("llama.attention.layer_norm_rms_epsilon", FLOAT32, config["rms_norm_eps"]),
        entry("llama.rope.dimension_count", UINT32, config["head_dim"]),
        entry("llama.rope.freq_base", FLOAT32, config["rope_theta"]),
        entry("llama.vocab_size", UINT32, config["vocab_size"]),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.tokens", STRING, [text for text, _ in tokens]),
        entry("tokenizer.ggml.scores", FLOAT32, [-float(i) for i in range(len(tokens))]),
        entry("tokenizer.ggml.token_type", INT32, [kind for _, kind in tokens]),
        entry("tokenizer.ggml.unknown_token_id", UINT32, 0),
        entry("tokenizer.ggml.bos_token_id", UINT32, config["bos_token_id"]),
        entry("tokenizer.ggml.eos_token_id", UINT32, config["eos_token_id"]),
        entry("tokenizer.ggml.add_bos_token", BOOL, False),
        entry("tokenizer.ggml.add_space_prefix", BOOL, False),
    ]
    if config["num_local_experts"] > 1:
        entries += [
            entry("llama.expert_count", UINT32, config["num_local_experts"]),
            entry("llama.expert_used_count", UINT32, config["num_experts_per_tok"]),
        ]
    return entries


def interleave_halves(rows, num_heads):
    """Row i and row i + D/2 of each head become rows 2i and 2i + 1."""
    halves = rows.reshape(num_heads, 2, -1, rows.shape[1])
    return np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(rows.shape)


class Checkpoint:
    """The tensors of a model.safetensors in bf16, as bits, without copying."""

    def __init__(self, path):
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            self.header = json.loads(file.read(length))
        self.data = np.memmap(path, np.uint8, "r", offset=8 + length)

    def shape(self, name):
        return tuple(self.header[name]["shape"])

    def bits(self, name):
        begin, end = self.header[name]["data_offsets"]
        return self.data[begin:end].view(np.uint16).reshape(self.shape(name))


def tensors(config, checkpoint):
    """Yields (GGUF name, shape, type, function that yields the arrays to write)."""
    num_experts = config["num_local_experts"]

    def plain(target, source, order=lambda bits: bits):
        def arrays():
            yield order(checkpoint.bits(source))

        return f"{target}.weight", checkpoint.shape(source), TENSOR_BF16, arrays

    def wide(target, source):
        def arrays():  # bf16 is the upper half of float32
            yield checkpoint.bits(source).astype(np.uint32) << 16

        return f"{target}.weight", checkpoint.shape(source), TENSOR_F32, arrays

    def merged(target, sources):
        def arrays():
            for source in sources:
                yield checkpoint.bits(source)

        shape = (len(sources), *checkpoint.shape(sources[0]))
        return f"{target}.weight", shape, TENSOR_BF16, arrays

    yield plain("token_embd", "model.embed_tokens.weight")
    for i in range(config["num_hidden_layers"]):
        block, layer = f"blk.{i}", f"model.layers.{i}"
        yield wide(f"{block}.attn_norm", f"{layer}.input_layernorm.weight")
        for letter, heads in (("q", "num_attention_heads"), ("k", "num_key_value_heads")):
            yield plain(
                f"{block}.attn_{letter}",
                f"{layer}.self_attn.{letter}_proj.weight",
                lambda bits, heads=config[heads]: interleave_halves(bits, heads),
            )
        yield plain(f"{block}.attn_v", f"{layer}.self_attn.v_proj.weight")
        yield plain(f"{block}.attn_output", f"{layer}.self_attn.o_proj.weight")
        yield wide(f"{block}.ffn_norm", f"{layer}.post_attention_layernorm.weight")
        moe = f"{layer}.block_sparse_moe"
        if num_experts > 1:
            yield wide(f"{block}.ffn_gate_inp", f"{moe}.gate.weight")
        for target, source in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            names = [f"{moe}.experts.{e}.{source}.weight" for e in range(num_experts)]
            if num_experts > 1:
                yield merged(f"{block}.ffn_{target}_exps", names)
            else:
                yield plain(f"{block}.ffn_{target}", names[0])
    yield wide("output_norm", "model.norm.weight")
    yield plain("output", "lm_head.weight")


def write(path, directory):
    """Writes the checkpoint in `directory` to `path`."""
    path, directory = pathlib.Path(path), pathlib.Path(directory)
    config = json.loads((directory / "config.json").read_text())
    plan = list(tensors(config, Checkpoint(directory / "model.safetensors")))
    entries = metadata(config, directory.name)
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(plan), len(entries)) + b"".join(entries)
    offset = 0
    for name, shape, kind, _ in plan:
        # Dimensions are listed from the innermost one outwards.
        header += string(name) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        header += struct.pack("<IQ", kind, offset)
        size = int(np.prod(shape)) * (4 if kind == TENSOR_F32 else 2)
        offset += size + -size % ALIGNMENT
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with open(unfinished, "wb") as file:
        file.write(header)
        file.write(bytes(-file.tell() % ALIGNMENT))
        for _, _, _, arrays in plan:
            for array in arrays():
                file.write(array.tobytes())
            file.write(bytes(-file.tell() % ALIGNMENT))
    unfinished.rename(path)
