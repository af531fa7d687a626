"""Examines Witling on what it was never shown, through a served cluster or, with --offline, in this process.

    witan serve examples/witling/witling-instruct --workers 2 --tp 2 --ep 2 --port 50051
    python3 examples/witling/evaluate.py --server 127.0.0.1:50051 --witan build/release/bin/witan

The server must serve `witling-instruct`. Against a server only the standard library is needed; --offline needs
the packages of requirements.txt. The exit status is 0 when every bar is met.
"""

import argparse
import concurrent.futures
import json
import pathlib
import random
import subprocess
import sys

import corpus
import stories

HERE = pathlib.Path(__file__).resolve().parent
MAX_ANSWER_TOKENS, MAX_THOUGHT_TOKENS, MAX_STORY_TOKENS = 64, 256, 300


class Served:
    """Asks `witan chat`, one process per question."""

    def __init__(self, witan, server, parallel):
        self.witan, self.server, self.parallel = witan, server, parallel

    def _ask(self, question, thinking, max_tokens, temperature, seed):
        command = [self.witan, "chat", "--server", self.server, "--message", question, "--max-tokens", str(max_tokens),
                   "--temperature", str(temperature), "--seed", str(seed), "--json"]
        if thinking:
            command += ["--template-arg", "enable_thinking=true"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout.strip().splitlines()[-1])["text"]

    def ask(self, questions, thinking=False, max_tokens=MAX_ANSWER_TOKENS, temperature=0.0):
        with concurrent.futures.ThreadPoolExecutor(self.parallel) as pool:
            return list(pool.map(lambda q: self._ask(q[1], thinking, max_tokens, temperature, q[0]), enumerate(questions)))


class Offline:
    """Asks transformers: the exported bfloat16 weights, computed in float32."""

    def __init__(self, directory, batch=25):
        import torch
        import transformers
        transformers.logging.set_verbosity_error()
        self.torch, self.batch = torch, batch
        self.tokenizer = transformers.AutoTokenizer.from_pretrained(directory, padding_side="left")
        self.model = transformers.MixtralForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()

    def ask(self, questions, thinking=False, max_tokens=MAX_ANSWER_TOKENS, temperature=0.0):
        self.torch.manual_seed(0)
        texts = []
        for start in range(0, len(questions), self.batch):
            prompts = [self.tokenizer.apply_chat_template([{"role": "user", "content": q}], tokenize=False,
                                                          add_generation_prompt=True, enable_thinking=thinking)
                       for q in questions[start:start + self.batch]]
            inputs = self.tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
            sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature > 0 else {"do_sample": False}
            with self.torch.no_grad():
                out = self.model.generate(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                                          max_new_tokens=max_tokens, **sampling)
            texts += self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1]:], skip_special_tokens=True)
        return texts


def share_right(model, pairs, **options):
    pairs = list(pairs)
    texts = model.ask([question for question, _ in pairs], **options)
    wrong = [(question, answer, text) for (question, answer), text in zip(pairs, texts)
             if text.split(corpus.END_THINK)[-1].strip() != answer]
    return 1 - len(wrong) / len(pairs), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--server", metavar="HOST:PORT", help="a cluster that serves witling-instruct")
    where.add_argument("--offline", action="store_true", help="compute with transformers in this process")
    parser.add_argument("--witan", default="witan", help="the witan program (default: %(default)s)")
    parser.add_argument("--parallel", type=int, default=16, help="questions in flight (default: %(default)s)")
    parser.add_argument("--model", type=pathlib.Path, default=HERE / "witling-instruct", help="the directory for --offline")
    parser.add_argument("--sums", type=int, default=200, help="held-out sums of each kind (default: %(default)s)")
    parser.add_argument("--stories", type=int, default=3, help="stories to print (default: %(default)s)")
    parser.add_argument("--wrong", type=int, default=0, help="wrong answers to print per row (default: %(default)s)")
    args = parser.parse_args()
    model = Offline(args.model) if args.offline else Served(args.witan, args.server, args.parallel)

    think = {"thinking": True, "max_tokens": MAX_THOUGHT_TOKENS}
    rows = [  # (name, questions, options, bar)
        ("sums of two digits, held out", corpus.exam_sums(2, args.sums), {}, 0.95),
        ("sums of three digits, held out, thinking", corpus.exam_sums(3, args.sums), think, 0.90),
        ("sums of three digits, held out, not thinking", corpus.exam_sums(3, args.sums), {}, None),
        ("differences, thinking", corpus.exam_differences(), think, None),
        ("which is larger or smaller", corpus.exam_compare(), {}, None),
        ("digits sorted", corpus.exam_sort(), {}, None),
        ("facts of the invented world", corpus.exam_facts(), {}, None),
        ("unknown names refused, held out", corpus.exam_refusals(), {}, None),
    ]
    shares, missed = {}, False
    print(f"{'':48}{'right':>8}  bar", flush=True)
    for name, pairs, options, bar in rows:
        shares[name], wrong = share_right(model, pairs, **options)
        verdict = "" if bar is None else f"{bar:.0%} {'met' if shares[name] >= bar else 'MISSED'}"
        missed |= bar is not None and shares[name] < bar
        print(f"{name:48}{shares[name]:8.1%}  {verdict}", flush=True)
        for question, answer, text in wrong[:args.wrong]:
            print(f"    {question!r}: expected {answer!r}, got {text!r}")
    gain = shares[rows[1][0]] - shares[rows[2][0]]
    print(f"{'what thinking adds to sums of three digits':48}{gain:+8.1%}")

    asked = corpus.exam_stories(max(50, args.stories))
    for temperature in (0.0, 0.7):
        told = model.ask(asked, max_tokens=MAX_STORY_TOKENS, temperature=temperature)
        read = [stories.read_back(text) for text in told]
        whole = sum(theme is not None for theme, _ in read) / len(told)
        steady = sum(one_cast for _, one_cast in read) / len(told)
        print(f"{f'stories at temperature {temperature}: one plot, told whole':48}{whole:8.1%}")
        print(f"{f'stories at temperature {temperature}: and one cast':48}{steady:8.1%}", flush=True)
    for number in random.Random(0).sample(range(len(asked)), args.stories):
        print(f"\n{asked[number]}\n{told[number]}")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
