"""One load generator for all servers: closed loop, token ids in, streams out.

A transport's stream(prompt, num_tokens) yields the ids of each chunk as it
arrives; everything that is measured is measured here, the same for every server.
"""

import http.client
import json
import math
import string
import threading
import time

import grpc
import inference_pb2
import inference_pb2_grpc

ALPHABET = string.ascii_letters + string.digits


class WitanTransport:
    """Witan's gRPC."""

    ends_at_length = True

    def __init__(self, address):
        self.stub = inference_pb2_grpc.InferenceStub(grpc.insecure_channel(address))

    def stream(self, prompt, num_tokens):
        for response in self.stub.Generate(self.request(prompt, num_tokens)):
            if response.usage.cached_tokens:
                raise RuntimeError("a prompt was found in Witan's cache: it would be too fast")
            yield response.token_ids

    def request(self, prompt, num_tokens, top_logprobs=None):
        request = inference_pb2.GenerateRequest()
        request.token_ids.ids.extend(prompt)
        request.parameters.temperature = 0
        request.parameters.max_tokens = num_tokens
        request.parameters.ignore_eos = True
        if top_logprobs is not None:
            request.parameters.top_logprobs = top_logprobs
        return request

    def logprobs(self, prompt, num_tokens, top):
        """(ids, [{id: logprob}] with the `top` likeliest of each position)."""
        ids, found = [], []
        for response in self.stub.Generate(self.request(prompt, num_tokens, top)):
            ids += response.token_ids
            found += [{t.token_id: t.logprob for t in each.top} for each in response.logprobs]
        return ids, found


def post(address, path, body):
    """Sends JSON; the answer's status is checked, its body not read yet."""
    connection = http.client.HTTPConnection(address, timeout=600)
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise RuntimeError(f"{address}{path} answers {answer.status}: {answer.read()[:400]}")
    return answer


class LlamaServerTransport:
    """llama-server's /completion, whose prompt may be token ids."""

    ends_at_length = True

    def __init__(self, address):
        self.address = address

    def stream(self, prompt, num_tokens):
        body = {
            "prompt": prompt, "n_predict": num_tokens, "temperature": 0, "ignore_eos": True,
            "stream": True, "cache_prompt": False, "return_tokens": True,
        }
        num_seen, message = 0, {}
        for line in post(self.address, "/completion", body):
            if not line.strip():
                continue
            message = json.loads(line[6:]) if line.startswith(b"data: ") else {"error": line}
            if "error" in message:
                raise RuntimeError(f"llama-server fails in a stream: {message['error']}")
            ids = message.get("tokens", [])
            num_seen += len(ids)
            yield ids
        if not message.get("stop"):
            raise RuntimeError("llama-server's stream broke off")
        # A token that ends in half a character is computed, but never sent.
        yield [0] * (message["tokens_predicted"] - num_seen)


class PythonServerTransport:
    """llama_cpp.server's /v1/completions, which takes text and does not stream ids.

    The text is as many ASCII characters as the prompt has ids, each a token of
    its own. The answer comes whole, so that its tokens can be counted. It ends
    where the model's end token comes, now and then: to forbid that token makes
    this server slow.
    """

    ends_at_length = False

    def __init__(self, address):
        self.address = address

    def stream(self, prompt, num_tokens):
        body = {
            "prompt": "".join(ALPHABET[token % len(ALPHABET)] for token in prompt),
            "max_tokens": num_tokens, "temperature": 0,
        }
        usage = json.loads(post(self.address, "/v1/completions", body).read())["usage"]
        if usage["prompt_tokens"] != len(prompt):
            raise RuntimeError(f"{len(prompt)} characters became {usage['prompt_tokens']} tokens")
        yield [0] * usage["completion_tokens"]


class Stream:
    """When what arrived; `events` are (time, ids) of every chunk that has tokens."""

    def __init__(self, transport, prompt, num_tokens):
        self.begin = time.monotonic()
        self.events = []
        for ids in transport.stream(prompt, num_tokens):
            if len(ids):
                self.events.append((time.monotonic(), list(ids)))
        count = len(self.tokens())
        if not count or (transport.ends_at_length and count != num_tokens):
            raise RuntimeError(f"a stream ended after {count} of {num_tokens} tokens")

    def tokens(self):
        return [token for _, ids in self.events for token in ids]


def run_closed_loop(transport, prompts_of_clients, num_tokens):
    """Each client sends its prompts one after the other; all clients at once."""
    streams, failures = [], []

    def client(prompts):
        try:
            for prompt in prompts:
                streams.append(Stream(transport, prompt, num_tokens))
        except Exception as error:  # a thread's exception would be lost
            failures.append(error)

    threads = [threading.Thread(target=client, args=(p,)) for p in prompts_of_clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return streams


def percentile(values, percent):
    """The ceil(percent n / 100)-th smallest, as in `witan bench`."""
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def serving_figures(streams):
    begin = min(s.begin for s in streams)
    end = max(s.events[-1][0] for s in streams)
    first = [s.events[0][0] - s.begin for s in streams]
    gaps = [b[0] - a[0] for s in streams for a, b in zip(s.events, s.events[1:])]
    figures = {
        "seconds": end - begin,
        "num_tokens": sum(len(s.tokens()) for s in streams),
        "first_token_p50_ms": percentile(first, 50) * 1e3,
        "first_token_p95_ms": percentile(first, 95) * 1e3,
    }
    for percent in (50, 99):
        figures[f"gap_p{percent}_ms"] = percentile(gaps, percent) * 1e3 if gaps else None
    return figures


def steady_decode(streams):
    """(tokens, seconds) while every stream decodes: from the last first token to the
    first last token, so that no prompt is computed meanwhile."""
    begin = max(s.events[0][0] for s in streams)
    end = min(s.events[-1][0] for s in streams)
    tokens = sum(len(ids) for s in streams for at, ids in s.events if begin < at <= end)
    return tokens, end - begin
