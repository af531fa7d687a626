"""Writes the small tokenizers below this folder and goldens.json: what the
reference implementation makes of ugly texts with them and with the bundled
models, and what ids at random decode to. Also pattern_cases.json: how it cuts texts by regular expressions.
Needs: pip install tokenizers==0.23.3

    python3 tests/text/data/make_tokenizers.py
"""

import collections
import json
import pathlib
import random
import re

import tokenizers
from tokenizers import (AddedToken, Regex, Tokenizer, decoders, models,
                        normalizers, pre_tokenizers, processors, trainers)

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[2]
VOCAB_SIZE = 700
NUM_TEXTS = 300
NUM_DECODES = 200

LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

SENTENCES = """the quick brown fox jumps over the lazy dog and doesn't look back
she said that they'll come at 12:30 or maybe they've been here since 1999
numbers like 12345 and 3.14159 and 2024 are cut in many ways
def function(argument): return {"key": [1, 2, 3], "other": None}
über große Straßen fährt der Bäcker naïve café crème brûlée
ДОБРЫЙ день привет мир  日本語のテキスト 中文字符 한국어 텍스트
the house stood on the hill and the rain fell on the roof of the house
whether the weather be fine or whether the weather be not
spaces   and	tabs    and     more     spaces      here
emoji 😀 😃 👍🏽 are made of four bytes each and 🇩🇪 of eight""".split("\n")

WORDS = ("The quick don't I'LL we'Re 'S hello naïve café Straße ﬁ Ａｂ １２３ 1234567 "
         "3.14159 ½ ² ⅷ ٣٤٥ https://a.b/c?d=e __init__ {\"a\":[1,2]} <tag/> -- ... ?!?! €5 "
         "a\u0301 e\u0301\u0323 \u1100\u1161\u11a8 한국어 日本語 中文 العربية עברית हिन्दी ไทย "
         "👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☺️ \u212b \u2126 ﷽ ▁ ▁▁ Ġ <0x41> <0x0A> \u0000 \ufeff \ufffd \u202e "
         "\ud7ff \ue000 \U000f0000 \U0010ffff whether weather").split(" ")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000",
          "\u2028", "\u0085", "\u200b", "\u180e", "\x0b", "\x1c", "\u202f"]
MARKS = [chr(c) for c in [*range(0x300, 0x330), *range(0x591, 0x5A0)]]


def random_character(rng):
    # Assigned before Unicode 14, so that all libraries know the same about it.
    blocks = [(0x20, 0x7F), (0xA0, 0x250), (0x370, 0x378), (0x400, 0x500),
              (0x904, 0x939), (0x3041, 0x3097), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
              (0x10400, 0x1044F), (0x1D400, 0x1D455), (0x1F600, 0x1F64F),
              (0x20000, 0x2A6D6), (0xE0001, 0xE0002), (0xF0000, 0xFFFFD)]
    return chr(rng.randrange(*rng.choice(blocks)))


def ugly_text(rng, added):
    pieces = []
    for _ in range(rng.randrange(12)):
        pick = rng.randrange(10)
        if pick < 3:
            pieces.append(rng.choice(WORDS))
        elif pick == 3:
            pieces.append("".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 5))))
        elif pick == 4:
            pieces.append("".join(random_character(rng) for _ in range(rng.randrange(1, 6))))
        elif pick == 5:
            pieces.append(rng.choice("aeiouAEO") +
                          "".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 6))))
        elif pick == 6:
            pieces.append(rng.choice(added))
        elif pick == 7:
            token = rng.choice(added)
            pieces.append(token[:rng.randrange(len(token) + 1)])
        elif pick == 8:
            pieces.append(rng.choice(SENTENCES)[rng.randrange(20):])
        else:
            pieces.append(str(rng.randrange(10 ** rng.randrange(1, 12))))
        if rng.random() < 0.5:
            pieces.append(" ")
    return "".join(pieces)


ADDED = [AddedToken("<|end|>", special=True), AddedToken("<|pad|>", special=True),
         AddedToken("<think>", special=False), AddedToken("</think>", special=False)]
# Every switch of an added token.
ODD_ADDED = [AddedToken("[L]", lstrip=True, special=True),
             AddedToken("[R]", rstrip=True, special=True),
             AddedToken("[LR]", lstrip=True, rstrip=True, special=False),
             AddedToken("word", single_word=True, special=False),
             AddedToken("Straße wörd", normalized=True, special=False),
             AddedToken("e\u0301x", normalized=True, special=False)]


def train(tokenizer, **options):
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, show_progress=False, **options)
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)


def byte_level(pattern, normalizer=None, ignore_merges=False, added=ADDED):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    train(tokenizer, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_special_tokens([AddedToken("<|bos|>", special=True)])
    tokenizer.add_tokens(added)
    bos = tokenizer.token_to_id("<|bos|>")
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", bos)])])
    return tokenizer


def gpt2():
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation(),
        pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    train(tokenizer, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.add_tokens(ADDED + ODD_ADDED)
    return tokenizer


def frequent_characters(number):
    """The trainer breaks ties at random if it chooses the alphabet itself."""
    counts = collections.Counter("".join("▁" + line.replace(" ", "▁") for line in SENTENCES))
    return sorted(sorted(counts, key=lambda c: (-counts[c], c))[:number])


def sentencepiece(metaspace, scheme="always", unknown_only=False):
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True,
                                     byte_fallback=not unknown_only))
    special = ["<unk>", "<s>", "</s>"]
    if not unknown_only:
        special += [f"<0x{byte:02X}>" for byte in range(256)]
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    train(tokenizer, special_tokens=special, limit_alphabet=70, initial_alphabet=frequent_characters(70))
    spec = json.loads(tokenizer.to_str())
    # Byte tokens are ordinary tokens of the model, not added ones.
    spec["added_tokens"] = spec["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=scheme != "first")
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        if scheme == "first":
            tokenizer.decoder = decoders.Sequence([
                decoders.Replace("▁", " "), decoders.ByteFallback(),
                decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    else:
        tokenizer.pre_tokenizer = None
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence([
            decoders.Replace("▁", " "), decoders.ByteFallback(),
            decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_tokens([AddedToken("<think>", special=False),
                          AddedToken("[LR]", lstrip=True, rstrip=True, special=False),
                          AddedToken("norm al", normalized=True, special=False)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def save(name, tokenizer, pair_merges):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    spec = json.loads(tokenizer.to_str())
    if not pair_merges:  # the older spelling of the same
        spec["model"]["merges"] = ["#version: 0.2", *map(" ".join, spec["model"]["merges"])]
    (folder / "tokenizer.json").write_text(json.dumps(spec, ensure_ascii=False) + "\n")
    bos = "<|bos|>" if tokenizer.token_to_id("<|bos|>") is not None else "<s>"
    config = {"bos_token": bos} if tokenizer.token_to_id(bos) is not None else {}
    (folder / "tokenizer_config.json").write_text(json.dumps(config) + "\n")
    return str(folder.relative_to(ROOT))


def random_ids(rng, tokenizer):
    size = tokenizer.get_vocab_size()
    added = list(tokenizer.get_added_tokens_decoder())
    ids = []
    for _ in range(rng.randrange(8)):
        pick = rng.randrange(8)
        if pick < 3:
            ids.append(rng.randrange(size))
        elif pick < 5:  # low ids are bytes in most of these vocabularies
            ids.append(rng.randrange(min(size, 260)))
        elif pick == 5:
            ids.append(rng.choice(added))
        else:
            character = random_character(rng)
            spelled = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in character.encode()]
            if None in spelled:
                spelled = tokenizer.encode(character, add_special_tokens=False).ids
            ids += spelled[:rng.choice([1, 2, 3, 4, 4, 4, 4])]
    return ids


def has_mixed_run(tokenizer, ids):
    """Whether some byte tokens in a row hold both whole characters and bytes
    that form none. The reference replaces all of them then, Witan does not."""
    run = bytearray()
    for token in [*map(tokenizer.id_to_token, ids), ""]:
        if re.fullmatch("<0x[0-9A-F]{2}>", token):
            run.append(int(token[3:5], 16))
            continue
        repaired = run.decode(errors="replace")
        if "\ufffd" in repaired and repaired.strip("\ufffd"):
            return True
        run.clear()
    return False


def decodes(tokenizer, rng):
    special = {token for token, added in tokenizer.get_added_tokens_decoder().items() if added.special}
    cases = []
    while len(cases) < NUM_DECODES:
        ids = random_ids(rng, tokenizer)
        without_special = [token for token in ids if token not in special]
        if not has_mixed_run(tokenizer, ids) and not has_mixed_run(tokenizer, without_special):
            cases.append([ids, tokenizer.decode(ids, skip_special_tokens=False),
                          tokenizer.decode(ids, skip_special_tokens=True)])
    return cases


def goldens(path, seed):
    tokenizer = Tokenizer.from_file(str(ROOT / path / "tokenizer.json"))
    rng = random.Random(seed)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    cases = []
    for index in range(NUM_TEXTS):
        text = ugly_text(rng, added)
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        case = {"text": text, "ids": ids,
                "decoded": tokenizer.decode(ids, skip_special_tokens=False)}
        if index % 4 == 0:
            case["with_special"] = tokenizer.encode(text, add_special_tokens=True).ids
            case["decoded_skip"] = tokenizer.decode(case["with_special"], skip_special_tokens=True)
            tokenizer.encode_special_tokens = True
            case["special_as_text"] = tokenizer.encode(text, add_special_tokens=False).ids
            tokenizer.encode_special_tokens = False
        cases.append(case)
    return {"path": path, "cases": cases, "decodes": decodes(tokenizer, rng)}


# By what they try: matches of nothing, lines, flags, classes, repetitions, and
# what models use.
PATTERNS = [
    r"(?=(\d{3})+(?!\d))", r"(?=b)", r"x*", r"\d{0,2}", r"(?<=a)|b", r"b|", r"(?!\s)",
    r"^", r"$", r"^a", r"a$", r"\s+$", r"a\Z", r"a\z", r"\Aa", r"a.b", r"(?m)a.b", r"(?m:a.)b|\n", r"(?m-i:.)+",
    r"(?i:a|B)c?", r"(?i)k+", r"(?i:'s|'t)|x", r"(?-i:a)", r"\N+",
    r"\w+|[^\w\s]+", r"\w", r"\W", r"[\w]", r"\s", r"\S+", r"\h+", r"\v", r"\u00e9|\x61|\x{31}", r"[[:alpha:]]+",
    r"[[:space:][:digit:]]", r"[]a]", r"[^]a]", r"[a\-z]", r"[a-]", r"[\d-]", r"[-a]", r"\p{Han}+", r"\p{^L}+", r"\P{L}",
    r"a{,2}", r"a{2}?", r"\d{1,3}+", r"a{1,2}+b", r"\d{1,2}?", r"a{x", r"(?>a+)b", r"a++|\d?+", r"(?>[^a]+?|b)_",
    LLAMA3, QWEN, r"\d{1,3}(?=(?:\d{3})*$)", r"[0-9][0-9][0-9]", r"\s?[!-/:-~！-／：-～‘-‟　-。]+", r"[一-龥ࠀ-一가-퟿]+",
    (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
     r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")]
PATTERN_TEXTS = [
    "a1234567b", "aabxb", "b1234ba", "a\na\n", "a\n\nb\r\na", "Kk's 'T x ſ", "aaaaab aé31", "word\u200dword ² x½",
    "日本 語。(a-b) ]_", "it's 12345 a{x {,2}", "\x0b_ab_b \n", "é"]
BEHAVIORS = ["removed", "isolated", "merged_with_previous", "merged_with_next", "contiguous"]


def cut(pre_tokenizer, texts):
    spec = json.loads(pre_tokenizer.__getstate__())
    return {"pre_tokenizer": spec,
            "texts": [[text, [word for word, _ in pre_tokenizer.pre_tokenize_str(text)]] for text in texts]}


def pattern_cases():
    cuts = []
    replacements = []
    for index, pattern in enumerate(PATTERNS):
        for behavior in BEHAVIORS if index < 7 else ["isolated"]:
            for invert in [False, True] if index < 7 else [False]:
                cuts.append(cut(pre_tokenizers.Split(Regex(pattern), behavior, invert), PATTERN_TEXTS))
        replace = normalizers.Replace(Regex(pattern), "-")
        replacements.append({"normalizer": json.loads(replace.__getstate__()),
                             "texts": [[text, replace.normalize_str(text)] for text in PATTERN_TEXTS]})
    for pre_tokenizer in [pre_tokenizers.Whitespace(), pre_tokenizers.WhitespaceSplit(),
                          pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Digits(),
                          *[pre_tokenizers.Punctuation(behavior) for behavior in BEHAVIORS]]:
        cuts.append(cut(pre_tokenizer, PATTERN_TEXTS + WORDS + ["a\u200c\u200d!", "\u200d", "a\u00b2\u2150_"]))
    return {"cuts": cuts, "replacements": replacements}


def main():
    nfc = normalizers.NFC()
    folders = [
        save("llama3_style", byte_level(LLAMA3, ignore_merges=True), False),
        save("qwen_style", byte_level(QWEN, normalizer=nfc, added=ADDED + ODD_ADDED), True),
        save("gpt2_style", gpt2(), True),
        save("nfkc_style", byte_level(QWEN, normalizer=normalizers.NFKC()), True),
        save("llama2_style", sentencepiece(metaspace=False), False),
        save("metaspace_style", sentencepiece(metaspace=True), True),
        save("metaspace_first_style", sentencepiece(metaspace=True, scheme="first"), True),
        save("unknown_style", sentencepiece(metaspace=False, unknown_only=True), True),
        "examples/witling/witling-base", "examples/witling/witling-instruct"]
    tables = [goldens(path, seed) for seed, path in enumerate(folders)]
    (HERE / "goldens.json").write_text(
        json.dumps({"tokenizers": tokenizers.__version__, "tables": tables},
                   separators=(",", ":")) + "\n")
    (HERE / "pattern_cases.json").write_text(json.dumps(pattern_cases(), separators=(",", ":")) + "\n")
    for table in tables:
        print(table["path"], len(table["cases"]), "texts")


if __name__ == "__main__":
    main()
