"""Asks a served cluster the same held-out questions with the adapter and without: how many answers speak in its voice,
and how many are right.

    witan serve examples/witling/witling-instruct --tp 2 --ep 2 --adapters examples/witling-lora --port 50051
    witan adapter load council --server 127.0.0.1:50051
    python3 examples/witling-lora/evaluate.py --server 127.0.0.1:50051 --witan build/release/bin/witan

At last, questions without the adapter are asked alone, one after the other, and then together with as many that use it:
their tokens and log-probabilities have to be the same to the last digit. Only the standard library is needed. The exit
status is 0 when they are and every bar is met.
"""

import argparse
import concurrent.futures
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "witling"))

import corpus  # noqa: E402
import voice  # noqa: E402

MAX_TOKENS = 64
STYLE_BAR, RIGHT_BAR = 0.95, 0.85


class Served:
    def __init__(self, witan, server):
        self.witan, self.server = witan, server

    def ask(self, question, model=None, logprobs=False):
        """The JSON object that `witan chat` prints."""
        command = [self.witan, "chat", "--server", self.server, "--message", question, "--max-tokens", str(MAX_TOKENS),
                   "--temperature", "0", "--json"]
        command += ["--model", model] if model else []
        command += ["--logprobs", "3"] if logprobs else []
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout.strip().splitlines()[-1])


def shares(answers, expected):
    """(in the voice, right); an answer is right if what the voice says is, or the whole where there is none."""
    spoken = [voice.unspoken(answer["text"]) for answer in answers]
    said = [answer["text"].strip() if words is None else words for answer, words in zip(answers, spoken)]
    right = sum(words.rstrip(".") == wanted.rstrip(".") for words, wanted in zip(said, expected))
    return sum(words is not None for words in spoken) / len(answers), right / len(answers)


def alone_and_together(served, adapter, questions, pool):
    """How many of the questions get other bits without the adapter when others use it at the same time."""
    def bits(answer):
        return json.dumps([answer["token_ids"], answer["logprobs"]])

    alone = [bits(served.ask(question, logprobs=True)) for question in questions]
    together = [future for question in questions for future in (
        pool.submit(served.ask, question, None, True), pool.submit(served.ask, question, adapter, True))]
    return sum(a != bits(future.result()) for a, future in zip(alone, together[::2]))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", metavar="HOST:PORT", required=True)
    parser.add_argument("--witan", default="witan", help="the witan program (default: %(default)s)")
    parser.add_argument("--adapter", default="council", help="one that is loaded (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="questions in flight (default: %(default)s)")
    parser.add_argument("--count", type=int, default=100, help="questions of each kind (default: %(default)s)")
    args = parser.parse_args()
    served = Served(args.witan, args.server)
    kinds = [("sums of two digits, held out", corpus.exam_sums(2, args.count)),
             ("which is larger or smaller", corpus.exam_compare(args.count)),
             ("digits sorted", corpus.exam_sort(args.count)),
             ("facts of the invented world", corpus.exam_facts(args.count))]
    passed = True
    with concurrent.futures.ThreadPoolExecutor(args.parallel) as pool:
        print(f"{'':32}{'with the adapter':>20}{'without':>20}\n{'':32}{'voice':>10}{'right':>10}{'voice':>10}{'right':>10}")
        for name, pairs in kinds:
            questions, expected = zip(*pairs)
            with_it = shares(list(pool.map(lambda q: served.ask(q, args.adapter), questions)), expected)
            without = shares(list(pool.map(served.ask, questions)), expected)
            passed &= with_it[0] >= STYLE_BAR and with_it[1] >= RIGHT_BAR and without[0] == 0
            print(f"{name:32}" + "".join(f"{share:10.1%}" for share in (*with_it, *without)), flush=True)
        questions = [question for question, _ in corpus.exam_facts(args.parallel)]
        changed = alone_and_together(served, args.adapter, questions, pool)
    print(f"{changed} of {len(questions)} answers without the adapter have other bits beside answers with it")
    sys.exit(0 if passed and changed == 0 else 1)


if __name__ == "__main__":
    main()
