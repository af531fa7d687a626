"""Writes small tokenizers of the other formats below this folder and
other_goldens.json: what the reference libraries make of ugly texts with them,
and what ids at random decode to.
Needs: pip install tokenizers==0.23.3 sentencepiece==0.2.3 mistral-common==1.13.1

    python3 tests/text/data/make_other_tokenizers.py
"""

import base64
import io
import json
import pathlib
import random
import tempfile

import sentencepiece
from mistral_common.tokens.tokenizers.tekken import SpecialTokenPolicy, Tekkenizer
from sentencepiece import sentencepiece_model_pb2
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from make_tokenizers import SENTENCES, ugly_text

HERE = pathlib.Path(__file__).parent
NUM_TEXTS = 250
NUM_DECODES = 200
# What a charsmap rewrites: ligatures, wide letters, kinds of space, a
# character and its mark, characters to nothing.
RULES = {"ﬁ": "fi", "ﬀ": "ff", "Ａ": "A", "ｂ": "b", "１": "1", "２": "2", "３": "3", "½": "1/2", "\u00a0": " ",
         "\u3000": " ", "\t": " ", "\n": " ", "a\u0301": "á", "e\u0301": "é", "\u200b": "", "\u202e": "",
         "﷽": "bismillah", "\u2126": "Ω"}


def train_sentencepiece(name, **options):
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        if options.pop("has_rules", False):
            for source, target in RULES.items():
                rules.write(" ".join(f"{ord(c):X}" for c in source) + "\t" +
                            " ".join(f"{ord(c):X}" for c in target) + "\n")
            rules.flush()
            options["normalization_rule_tsv"] = rules.name
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(SENTENCES * 3), model_writer=model, hard_vocab_limit=False, minloglevel=2,
            num_threads=1, **options)
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(model.getvalue())
    proto.normalizer_spec.ClearField("normalization_rule_tsv")  # a path of this machine
    (HERE / name).mkdir(exist_ok=True)
    (HERE / name / "tokenizer.model").write_bytes(proto.SerializeToString(deterministic=True))
    return proto


def save_unigram(name, proto, byte_fallback):
    """The pieces of a Unigram tokenizer.model as a tokenizer.json."""
    tokenizer = Tokenizer(models.Unigram([(piece.piece, piece.score) for piece in proto.pieces],
                                         unk_id=0, byte_fallback=byte_fallback))
    charsmap = proto.normalizer_spec.precompiled_charsmap
    steps = [normalizers.Precompiled(charsmap)] if charsmap else [
        normalizers.Nmt(), normalizers.Strip(left=True, right=False), normalizers.NFKD(),
        normalizers.StripAccents(), normalizers.Lowercase()]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)]) if byte_fallback else decoders.Metaspace()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 1), trim_offsets=False)
    (HERE / name).mkdir(exist_ok=True)
    (HERE / name / "tokenizer.json").write_text(
        json.dumps(json.loads(tokenizer.to_str()), ensure_ascii=False) + "\n")


def save_tekken(name):
    """The vocabulary of llama3_style, its tokens by rank of merge."""
    spec = json.loads((HERE / "llama3_style/tokenizer.json").read_text())
    printable = [c for c in range(256) if 0x21 <= c <= 0x7E or 0xA1 <= c <= 0xAC or 0xAE <= c]
    byte_of = {chr(c): c for c in printable}
    byte_of.update({chr(0x100 + i): c for i, c in enumerate(c for c in range(256) if c not in printable)})
    spelled = lambda token: bytes(byte_of[c] for c in token)
    tokens = [bytes([i]) for i in range(256)]
    merges = [m.split(" ") if isinstance(m, str) else m for m in spec["model"]["merges"]]
    tokens += [spelled(left + right) for left, right in merges if not left.startswith("#version")]
    pattern = ("[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|"
               "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*|\\p{N}|"
               " ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+")
    (HERE / name).mkdir(exist_ok=True)
    vocab = [{"rank": i, "token_bytes": base64.b64encode(token).decode(), "token_str": None}
             for i, token in enumerate(tokens)]
    (HERE / name / "tekken.json").write_text(json.dumps(
        {"config": {"pattern": pattern, "num_vocab_tokens": len(vocab), "default_vocab_size": len(vocab) - 10 + 30,
                    "default_num_special_tokens": 30, "version": "v3"}, "vocab": vocab},
        separators=(",", ":")) + "\n")


class SentencePiece:
    def __init__(self, path):
        self.model = sentencepiece.SentencePieceProcessor(model_file=str(path / "tokenizer.model"))
        self.size = self.model.get_piece_size()

    def encode(self, text):
        return self.model.encode(text)

    def decode(self, ids):
        return self.model.decode(ids)


class HuggingFace:
    def __init__(self, path):
        self.tokenizer = Tokenizer.from_file(str(path / "tokenizer.json"))
        self.tokenizer.encode_special_tokens = True
        self.size = self.tokenizer.get_vocab_size()

    def encode(self, text):
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def decode(self, ids):
        return self.tokenizer.decode(ids, skip_special_tokens=True)


class Tekken:
    def __init__(self, path):
        self.tokenizer = Tekkenizer.from_file(str(path / "tekken.json"))
        self.size = self.tokenizer.n_words

    def encode(self, text):
        return self.tokenizer.encode(text, bos=False, eos=False)

    def decode(self, ids):
        return self.tokenizer.decode(ids, SpecialTokenPolicy.IGNORE)


def goldens(name, reference, seed, has_decodes):
    rng = random.Random(seed)
    specials = ["<s>", "</s>", "<unk>", "[INST]", "<ud>", "a▁b", "<ud2>", "\U00011f02\U00031350\U0001e4f0"]
    texts = [ugly_text(rng, specials) for _ in range(NUM_TEXTS)]
    cases = [[text, ids := reference.encode(text), reference.decode(ids)] for text in texts]
    # Special tokens between others and skipped are left out: mistral-common
    # decodes what is before and behind them apart.
    decodes = []
    while has_decodes and len(decodes) < NUM_DECODES:
        ids = [rng.randrange(3 if seed != 4 else 30, min(reference.size, rng.choice([264, 100000])))
               for _ in range(rng.randrange(8))]
        decodes.append([ids, reference.decode(ids)])
    return {"path": f"tests/text/data/{name}", "cases": cases, "decodes": decodes}


def main():
    train_sentencepiece("sentencepiece_bpe", model_type="bpe", vocab_size=560, byte_fallback=True,
                        normalization_rule_name="identity", remove_extra_whitespaces=False,
                        user_defined_symbols=["<ud>", "<ud2>", "a▁b"], control_symbols=["[INST]"],
                        character_coverage=0.98)
    unigram = train_sentencepiece("sentencepiece_unigram", model_type="unigram", vocab_size=260, has_rules=True,
                                  user_defined_symbols=["<ud>", "the"], character_coverage=0.98)
    unigram_bytes = train_sentencepiece("sentencepiece_unigram_bytes", model_type="unigram", vocab_size=430,
                                        byte_fallback=True, normalization_rule_name="identity",
                                        treat_whitespace_as_suffix=True, character_coverage=0.98)
    save_unigram("unigram_style", unigram, False)
    save_unigram("unigram_bytes_style", unigram_bytes, True)
    save_tekken("tekken_style")
    tables = [goldens("sentencepiece_bpe", SentencePiece(HERE / "sentencepiece_bpe"), 1, True),
              goldens("sentencepiece_unigram", SentencePiece(HERE / "sentencepiece_unigram"), 2, True),
              goldens("sentencepiece_unigram_bytes", SentencePiece(HERE / "sentencepiece_unigram_bytes"), 3, True),
              goldens("tekken_style", Tekken(HERE / "tekken_style"), 4, True),
              goldens("unigram_style", HuggingFace(HERE / "unigram_style"), 5, False),
              goldens("unigram_bytes_style", HuggingFace(HERE / "unigram_bytes_style"), 6, False)]
    (HERE / "other_goldens.json").write_text(json.dumps({"tables": tables}, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
