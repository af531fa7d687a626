"""Compares Witan's tokenizers with the reference libraries on ugly texts.

    pip install tokenizers sentencepiece mistral-common
    ninja -C build/release text_encode_texts
    python3 tests/text/compare_tokenizers.py PATH...

PATH is a model directory, or one file: a tokenizer.json (also .xz), a
SentencePiece model or a tekken.json. The reference is tokenizers, sentencepiece
or mistral-common, by the file that Witan would load. With --transformers, in an
environment with transformers<5, a tokenizer.model is also compared with the
Python LlamaTokenizer, which parses special tokens, once with and once without
its switch `legacy`. Prints one line per comparison and exits with 1 when any
text differs.
"""

import argparse
import json
import lzma
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = ROOT / "build/release/tests/text_encode_texts"

WORDS = ("The quick don't I'LL we'Re 'S hello naïve café Straße ﬁ Ａｂ １２３ 1234567 3.14159 ½ ² ⅷ ٣٤٥ "
         "https://a.b/c?d=e __init__ {\"a\":[1,2]} <tag/> -- ... ?!?! €5 a\u0301 e\u0301\u0323 \u1100\u1161\u11a8 "
         "한국어 日本語 中文 العربية עברית हिन्दी ไทย 👩‍👩‍👧‍👦 🇩🇪 👍🏽 ☺️ \u212b \u2126 ﷽ ▁ ▁▁ Ġ <0x41> <0x0A> "
         "\u0000 \ufeff \ufffd \u202e \ud7ff \ue000 \U000f0000 \U0010ffff İ ǅ ẞ ﬀ ſ K whether weather def(x): "
         "x+=1; //comment /* */ SELECT * FROM t; camelCaseWord snake_case ALLCAPS").split(" ")
SPACES = [" ", "  ", "   ", "\t", "\n", "\r\n", "\n\n", "\u00a0", "\u3000", "\u2028", "\u0085", "\u200b",
          "\u180e", "\x0b", "\x0c", "\x1c", "\u202f", "\u205f", "\u1680", "\u2003", "\u2581"]
MARKS = [chr(c) for c in [*range(0x300, 0x370), *range(0x591, 0x5BE), *range(0x64B, 0x660),
                          0x93C, 0x94D, 0xE31, 0x1AB0, 0x20D0, 0x20E3, 0xFE0F, 0xFE20, 0x1D165, 0xE0100]]
JOINERS = ["\u200d", "\u200c", "\u2060", "\ufe0f", "\U0001f3fb", "\U0001f3ff"]
BLOCKS = [(0, 0x80), (0x80, 0x250), (0x250, 0x370), (0x370, 0x530), (0x530, 0x600), (0x600, 0x780),
          (0x780, 0xA00), (0xA00, 0xE00), (0xE00, 0x1100), (0x1100, 0x1200), (0x1200, 0x1800), (0x1800, 0x1E00),
          (0x1E00, 0x2000), (0x2000, 0x2100), (0x2100, 0x2C00), (0x2C00, 0x3100), (0x3100, 0x4E00),
          (0x4E00, 0xA000), (0xA000, 0xAC00), (0xAC00, 0xD7B0), (0xE000, 0xFB00), (0xFB00, 0x10000),
          (0x10000, 0x10800), (0x10800, 0x11000), (0x11000, 0x12000), (0x12000, 0x18000), (0x18000, 0x1D000),
          (0x1D000, 0x1F000), (0x1F000, 0x20000), (0x20000, 0x2FA20), (0x30000, 0x323B0), (0xE0000, 0xE0200),
          (0xF0000, 0xF0100), (0x10FF00, 0x110000)]


def any_character(rng):
    while True:
        character = rng.randrange(*rng.choice(BLOCKS))
        if not 0xD800 <= character < 0xE000:
            return chr(character)


def piece(rng, specials):
    pick = rng.randrange(14)
    if pick < 3:
        return rng.choice(WORDS)
    if pick == 3:
        return "".join(rng.choice(SPACES) for _ in range(rng.randrange(1, 8)))
    if pick == 4:
        return rng.choice(SPACES) * rng.randrange(1, 40)
    if pick == 5:
        return "".join(any_character(rng) for _ in range(rng.randrange(1, 8)))
    if pick == 6:
        return any_character(rng) + "".join(rng.choice(MARKS) for _ in range(rng.randrange(1, 6)))
    if pick == 7:
        return "".join(chr(rng.randrange(0x1F300, 0x1F700)) + rng.choice(JOINERS) for _ in range(rng.randrange(1, 5)))
    if pick == 8:
        block = rng.choice(BLOCKS)
        characters = [chr(c) for c in range(*block) if not 0xD800 <= c < 0xE000][:400]
        return "".join(rng.choice(characters) for _ in range(rng.randrange(1, 12)))
    if pick == 9 and specials:
        return rng.choice(specials)
    if pick == 10 and specials:
        special = rng.choice(specials)
        return special[:rng.randrange(len(special) + 1)]
    if pick == 11:
        return str(rng.randrange(10 ** rng.randrange(1, 14)))
    if pick == 12:
        return "".join(rng.choice("aeiourstnlAEdcm'") for _ in range(rng.randrange(1, 30)))
    return rng.choice("!?.,-_=*#/\\'\"`~@$%^&()[]{}<>|:;") * rng.randrange(1, 12)


def ugly_text(rng, specials):
    if rng.random() < 0.002:  # one very long word
        return "".join(rng.choice("abcdefghé日") for _ in range(rng.randrange(500, 5000)))
    if rng.random() < 0.002:
        return any_character(rng) * rng.randrange(500, 5000)
    pieces = []
    for _ in range(rng.randrange(12)):
        pieces.append(piece(rng, specials))
        if rng.random() < 0.4:
            pieces.append(" ")
    return "".join(pieces)


# --- References: each has specials() and result(text), the five values that
# text_encode_texts writes, with None for what the library does not do. ---


class HuggingFace:
    name = "tokenizers"

    def __init__(self, directory):
        import tokenizers
        self.tokenizer = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.plain = tokenizers.Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.plain.encode_special_tokens = True
        for tokenizer in (self.tokenizer, self.plain):
            tokenizer.no_padding()
            tokenizer.no_truncation()
        self.adds = json.loads(self.tokenizer.to_str())["post_processor"] is not None

    def specials(self):
        return [token.content for token in self.tokenizer.get_added_tokens_decoder().values()]

    def result(self, text):
        ids = self.tokenizer.encode(text, add_special_tokens=True).ids
        # Without a post-processor Witan adds what tokenizer_config.json says.
        return (ids if self.adds else None, self.tokenizer.encode(text, add_special_tokens=False).ids,
                self.plain.encode(text, add_special_tokens=False).ids,
                self.tokenizer.decode(ids, skip_special_tokens=False) if self.adds else None,
                self.tokenizer.decode(ids, skip_special_tokens=True))


class SentencePiece:
    name = "sentencepiece"

    def __init__(self, directory):
        import sentencepiece
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(directory / "tokenizer.model"))

    def specials(self):
        return [self.model.id_to_piece(i) for i in range(self.model.get_piece_size())
                if self.model.is_control(i) or self.model.id_to_piece(i).startswith("[")][:60]

    def result(self, text):
        ids = self.model.encode(text)
        return None, None, ids, None, None


class SentencePieceDecode(SentencePiece):
    """Texts without the spelling of a special token, so that ids are alike."""
    name = "sentencepiece, no specials"

    def __init__(self, directory):
        super().__init__(directory)
        self.parsed = [self.model.id_to_piece(i) for i in range(self.model.get_piece_size())
                       if self.model.is_control(i)]

    def specials(self):
        return []

    def result(self, text):
        ids = self.model.encode(text)
        if any(special in text for special in self.parsed):
            return None, None, ids, None, None
        bos = self.model.bos_id()
        return ([bos] if bos >= 0 else []) + ids, ids, ids, None, self.model.decode(ids)


class LlamaTokenizer:
    def __init__(self, directory, legacy):
        import transformers
        self.name = f"transformers, legacy={legacy}"
        self.tokenizer = transformers.LlamaTokenizer(str(directory / "tokenizer.model"), legacy=legacy)

    def specials(self):
        return ["<s>", "</s>", "<unk>"]

    def result(self, text):
        return (self.tokenizer.encode(text), self.tokenizer.encode(text, add_special_tokens=False), None, None, None)


class Tekken:
    name = "mistral-common"

    def __init__(self, directory):
        from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer
        self.policy = SpecialTokenPolicy
        self.tokenizer = Tekkenizer.from_file(str(directory / "tekken.json"))

    def specials(self):
        return ["<s>", "</s>", "[INST]", "[/INST]", "<unk>", "[TOOL_CALLS]"]

    def result(self, text):
        ids = self.tokenizer.encode(text, bos=False, eos=False)
        if any(special in text for special in self.tokenizer._special_tokens_reverse_vocab):
            return None, None, ids, None, None  # it never parses them
        with_bos = self.tokenizer.encode(text, bos=True, eos=False)
        return (with_bos, ids, ids, self.tokenizer.decode(with_bos, self.policy.KEEP),
                self.tokenizer.decode(with_bos, self.policy.IGNORE))


# --- Witan ---


def witan_results(directory, texts):
    data = b"".join(struct.pack("<I", len(text)) + text for text in texts)
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        output = subprocess.run([str(BINARY), str(directory)], stdin=file, capture_output=True, check=False)
    if output.returncode != 0:
        sys.exit(f"{BINARY} {directory}: {output.stderr.decode()}")
    out, offset, results = output.stdout, 0, []

    def number():
        nonlocal offset
        offset += 4
        return struct.unpack_from("<i", out, offset - 4)[0]

    for _ in texts:
        lists = []
        for _ in range(3):
            count = number()
            lists.append(None if count < 0 else list(struct.unpack_from(f"<{count}i", out, offset)))
            offset += 4 * max(count, 0)
        for _ in range(2):
            count = number()
            lists.append(out[offset:offset + count].decode())
            offset += count
        results.append(lists)
    return results


VALUES = ["ids with special tokens", "ids", "ids of specials as text", "decoded", "decoded without specials"]


def compare(directory, reference, label, num_texts, seed, num_shown):
    rng = random.Random(seed)
    specials = reference.specials()
    texts = [ugly_text(rng, specials) for _ in range(num_texts)]
    # Bytes that are not UTF-8 never reach a library; Witan must refuse them.
    broken = [text.encode() + rng.choice([b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xe2\x82", b"\xf4\x90\x80\x80"])
              for text in texts[:200]]
    results = witan_results(directory, [text.encode() for text in texts] + broken)
    num_compared = 0
    num_different = 0
    for text, got in zip(texts, results):
        for name, mine, theirs in zip(VALUES, got, reference.result(text)):
            if theirs is None:
                continue
            num_compared += 1
            if mine == theirs:
                continue
            num_different += 1
            if num_different <= num_shown:
                print(f"  {name} of {ascii(text)}\n    Witan     {ascii(mine)}\n    reference {ascii(theirs)}")
    num_accepted = sum(got[0] is not None for got in results[num_texts:])
    print(f"{label}: {reference.name}: {num_texts} texts, {num_compared} values, {num_different} different; "
          f"{len(broken)} not UTF-8, {num_accepted} accepted")
    return num_different + num_accepted


def prepare(path, scratch):
    """A directory with the one file that Witan loads, and that file's name."""
    target = scratch / path.name
    target.mkdir(parents=True)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    companions = {"tokenizer_config.json", "special_tokens_map.json"}
    for file in files:
        name = file.name.removesuffix(".xz")
        if not path.is_dir():
            name = ("tekken.json" if name.startswith("tekken") else
                    "tokenizer.json" if name.endswith(".json") else "tokenizer.model")
        if name not in {"tokenizer.json", "tokenizer.model", "tekken.json"} | companions:
            continue
        if file.name.endswith(".xz"):
            (target / name).write_bytes(lzma.decompress(file.read_bytes()))
        else:
            shutil.copy(file, target / name)
    for name in ("tokenizer.json", "tokenizer.model", "tekken.json"):
        if (target / name).exists():
            return target, name
    sys.exit(f"{path}: holds none of tokenizer.json, tokenizer.model and tekken.json")


def references(directory, name, with_transformers):
    if name == "tokenizer.json":
        yield HuggingFace(directory)
    elif name == "tekken.json":
        yield Tekken(directory)
    elif not with_transformers:
        yield SentencePiece(directory)
        yield SentencePieceDecode(directory)
    else:
        for legacy in (True, False):
            (directory / "tokenizer_config.json").write_text(json.dumps(
                {"legacy": legacy, "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                 "added_tokens_decoder": {str(i): {"content": token, "special": True}
                                          for i, token in enumerate(["<unk>", "<s>", "</s>"])}}))
            yield LlamaTokenizer(directory, legacy)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, metavar="PATH")
    parser.add_argument("--texts", type=int, default=20000, help="per comparison (default 20000)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--show", type=int, default=3, help="differences to print per comparison (default 3)")
    parser.add_argument("--transformers", action="store_true")
    args = parser.parse_args()
    if not BINARY.exists():
        sys.exit(f"{BINARY} is missing: ninja -C build/release text_encode_texts")
    bad = 0
    with tempfile.TemporaryDirectory() as scratch:
        for path in args.paths:
            directory, name = prepare(path.resolve(), pathlib.Path(scratch))
            for reference in references(directory, name, args.transformers):
                bad += compare(directory, reference, path.name, args.texts, args.seed, args.show)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
