"""Writes sampling_cases.json beside it: what transformers' logits processors make of random logits, for
tests/worker/sampling_test.cc.
Needs: pip install torch transformers==5.23.0

    python3 tests/worker/data/make_sampling_cases.py

The processors are applied in Witan's order: repetition penalty, bad words, minimum of new tokens, temperature, top_k, min_p,
top_p. A case holds what went in and the probability of every token.
"""

import json
import pathlib
import random

import torch
from transformers.generation import logits_process as lp

HERE = pathlib.Path(__file__).parent
VOCAB_SIZE, NUM_CASES = 48, 36


def draw_case(rng, index):
    case = {"logits": [round(rng.gauss(0, 2.5), 4) for _ in range(VOCAB_SIZE)],
            "prompt": [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(1, 12))],
            "output": [rng.randrange(VOCAB_SIZE) for _ in range(rng.randint(0, 6))],
            "temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "bad_words": [],
            "min_tokens": 0, "end_token_ids": []}
    if index % 2:
        case["temperature"] = rng.choice([0.3, 0.7, 1.3, 2.0])
    if index % 3 == 1:
        case["top_k"] = rng.randint(1, 30)
    if index % 4 == 2:
        case["top_p"] = rng.choice([0.3, 0.6, 0.9, 0.95])
    if index % 5 == 3:
        case["min_p"] = rng.choice([0.02, 0.1, 0.3])
    if index % 3 == 2:
        case["repetition_penalty"] = rng.choice([0.7, 1.2, 2.0])
    history = case["prompt"] + case["output"]
    best = max(range(VOCAB_SIZE), key=lambda i: case["logits"][i])
    if index % 4 in (1, 2):
        # A word of one token, some that the history begins (over the end of the prompt, too), some that it does not.
        case["bad_words"].append([rng.randrange(VOCAB_SIZE)])
        for length in (1, 2, 3, len(history)):
            if length <= len(history):
                case["bad_words"].append(history[-length:] + [best if length == 2 else rng.randrange(VOCAB_SIZE)])
        case["bad_words"].append([(history[-1] + 1) % VOCAB_SIZE, best])
        case["bad_words"].append([rng.randrange(VOCAB_SIZE)] * (len(history) + 2))
    if index % 4 in (2, 3):
        case["min_tokens"] = len(case["output"]) + rng.randint(0, 2)  # 0: they may come again
        case["end_token_ids"] = sorted({best, rng.randrange(VOCAB_SIZE)})
    return case


def probabilities(case):
    processors = lp.LogitsProcessorList()
    if case["repetition_penalty"] != 1:
        processors.append(lp.RepetitionPenaltyLogitsProcessor(case["repetition_penalty"]))
    if case["bad_words"]:
        processors.append(lp.NoBadWordsLogitsProcessor(case["bad_words"]))
    if case["end_token_ids"]:
        processors.append(lp.MinNewTokensLengthLogitsProcessor(len(case["prompt"]), case["min_tokens"],
                                                               case["end_token_ids"]))
    if case["temperature"] != 1:
        processors.append(lp.TemperatureLogitsWarper(case["temperature"]))
    if case["top_k"]:
        processors.append(lp.TopKLogitsWarper(case["top_k"]))
    if case["min_p"]:
        processors.append(lp.MinPLogitsWarper(case["min_p"]))
    if case["top_p"] != 1:
        processors.append(lp.TopPLogitsWarper(case["top_p"]))
    ids = torch.tensor([case["prompt"] + case["output"]])
    scores = processors(ids, torch.tensor([case["logits"]], dtype=torch.float32))
    return scores.double().softmax(-1)[0].tolist()


def main():
    rng = random.Random("sampling cases")
    cases = []
    for index in range(NUM_CASES):
        case = draw_case(rng, index)
        case["probabilities"] = [float(f"{p:.12g}") for p in probabilities(case)]
        cases.append(case)
    text = "[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n"
    (HERE / "sampling_cases.json").write_text(text)
    print(f"{len(cases)} cases, {len(text)} bytes")


if __name__ == "__main__":
    main()
