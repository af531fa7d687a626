"""Shows that two engines hold the same model, by the numbers that come out.

Witan continues a prompt greedily and reports the likeliest tokens of each
position; llama.cpp computes the same positions. Both round to bf16 at other
places, so that close is all that can be asked for; a wrong order of rows, a
swapped matrix or another rotation is far off, as the control shows: llama.cpp
after a prompt with one token changed.
"""

import numpy as np

NUM_PROMPT, NUM_TOKENS, NUM_TOP = 64, 64, 20
# In natural logarithms, over all positions and tokens, for each layer: every
# layer rounds again. Seen in the median: 0.005 in two layers, 0.011 in sixteen
# dense ones, 0.026 and 0.036 in eight with experts (of almost equal scores a
# rounding swaps two, and later positions see it). The base of the rotation wrong
# by a tenth makes 0.03 in two layers, any wrong order of rows or matrices more
# than 0.2.
MAX_MEDIAN_PER_LAYER = 0.006
# A position whose own experts were swapped differs by more; few may.
MAX_AT_95_PERCENT_PER_LAYER = 0.02
MIN_CONTROL = 10  # the control differs by so many times the median that is allowed


def differences(library, ids, prompt, found):
    wanted = [list(top) for top in found]
    theirs = library.call(
        "logprobs", tokens=prompt + ids, num_prompt=len(prompt), wanted=wanted
    )
    ours = np.array([[top[i] for i in order] for top, order in zip(found, wanted)])
    return np.abs(ours - np.array(theirs["logprobs"])), theirs


def compare(witan, library, vocab, num_layers):
    """Figures of the comparison, and in `same` whether it is one model."""
    max_median = MAX_MEDIAN_PER_LAYER * num_layers
    max_at_95 = MAX_AT_95_PERCENT_PER_LAYER * num_layers
    random = np.random.default_rng(0)
    prompt = random.integers(3, vocab, NUM_PROMPT).tolist()
    ids, found = witan.transport.logprobs(prompt, NUM_TOKENS, NUM_TOP)
    if len(ids) != NUM_TOKENS or any(len(top) != NUM_TOP for top in found):
        raise SystemExit("Witan did not report the log-probabilities that were asked for")
    distance, theirs = differences(library, ids, prompt, found)
    changed = prompt[:-1] + [3 + (prompt[-1] - 2) % (vocab - 3)]
    control, _ = differences(library, ids[:1], changed, found[:1])
    at_95 = float(np.percentile(distance, 95))
    sure = [margin > 2 * max_at_95 for margin in theirs["margins"]]
    agreed = [ours == best for ours, best in zip(ids, theirs["greedy"])]
    result = {
        "median": float(np.median(distance)), "at_95_percent": at_95,
        "largest": float(distance.max()), "control_median": float(np.median(control)),
        "greedy_equal": sum(agreed), "positions": NUM_TOKENS,
        "sure": sum(sure), "sure_equal": sum(a for a, s in zip(agreed, sure) if s),
    }
    result["same"] = (
        result["median"] <= max_median and at_95 <= max_at_95
        and result["control_median"] >= MIN_CONTROL * max_median
        and result["sure_equal"] >= 0.95 * result["sure"] > 0
    )
    return result


def describe(result):
    return (
        f"log-probabilities differ by {result['median']:.4f} in the median, "
        f"{result['at_95_percent']:.3f} at 95 %, {result['largest']:.3f} at most "
        f"(another prompt: {result['control_median']:.2f}); greedy tokens equal at "
        f"{result['greedy_equal']} of {result['positions']} positions, at "
        f"{result['sure_equal']} of {result['sure']} with a clear winner"
    )
