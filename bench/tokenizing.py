"""Compares how fast Witan and the reference libraries encode, on one thread.

    pip install tokenizers sentencepiece mistral-common
    ninja -C build/release bench_tokenize
    python3 bench/tokenizing.py PATH...

PATH is as for tests/text/compare_tokenizers.py. The texts are paragraphs of
this repository (prose and code) and the ugly texts of that script. Rounds of
both programs alternate; the fastest of each counts. Exits with 1 where Witan
takes more than twice the time.
"""

import argparse
import os
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["RAYON_NUM_THREADS"] = "1"
ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests/text"))
import compare_tokenizers  # noqa: E402

BINARY = ROOT / "build/release/bin/bench_tokenize"
ROUNDS = 3


def binary():
    for path in (BINARY, ROOT / "build/release/bench_tokenize"):
        if path.exists():
            return str(path)
    sys.exit(f"{BINARY} is missing: ninja -C build/release bench_tokenize")


def paragraphs():
    texts = []
    for path in [*sorted(ROOT.glob("docs/*.md")), *sorted(ROOT.glob("coordinator/text/*.cc"))]:
        texts += [text for text in path.read_text().split("\n\n") if text]
    return texts


def ugly():
    rng = random.Random(1)
    return [compare_tokenizers.ugly_text(rng, []) for _ in range(2000)]


def encoder(directory, name):
    if name == "tokenizer.json":
        tokenizer = compare_tokenizers.HuggingFace(directory).tokenizer
        return "tokenizers", lambda text: tokenizer.encode(text, add_special_tokens=False)
    if name == "tokenizer.model":
        return "sentencepiece", compare_tokenizers.SentencePiece(directory).model.encode
    tokenizer = compare_tokenizers.Tekken(directory).tokenizer
    return "mistral-common", lambda text: tokenizer.encode(text, bos=False, eos=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=pathlib.Path, metavar="PATH")
    args = parser.parse_args()
    is_slow = False
    with tempfile.TemporaryDirectory() as scratch:
        for path in args.paths:
            directory, name = compare_tokenizers.prepare(path.resolve(), pathlib.Path(scratch))
            library, encode = encoder(directory, name)
            for kind, texts in (("prose and code", paragraphs()), ("ugly texts", ugly())):
                encoded = [text.encode() for text in texts]
                data = b"".join(struct.pack("<I", len(text)) + text for text in encoded)
                mine = theirs = float("inf")
                for _ in range(ROUNDS):
                    output = subprocess.run([binary(), str(directory), "2"], input=data, capture_output=True, check=True)
                    mine = min(mine, float(output.stdout.split()[0]))
                    begin = time.perf_counter()
                    for text in texts:
                        encode(text)
                    theirs = min(theirs, time.perf_counter() - begin)
                size = sum(map(len, encoded)) / 1e6
                is_slow = is_slow or mine > 2 * theirs
                print(f"{path.name}: {kind}, {size:.2f} MB: Witan {size / mine:.1f} MB/s, {library} "
                      f"{size / theirs:.1f} MB/s: {mine / theirs:.2f} of its time", flush=True)
    sys.exit(1 if is_slow else 0)


if __name__ == "__main__":
    main()
