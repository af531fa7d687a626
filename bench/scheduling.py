#!/usr/bin/env python3
"""Measures what scheduling is for, through a served cluster and `witan bench`.

    bench/scheduling.py --model build/bench/M2 [prefix|bursts|routing ...]

  prefix   time to first token of a prompt of 1024 shared and 32 own tokens, the
           shared ones cached against not cached
  bursts   32 clients, 8 of them with prompts of 1024 tokens, which they send
           together at first and two seconds after each answer: p99 of the
           inter-token times over their median, and the throughput against the
           same load without a bound on prompt rows beside those that are being
           answered (nor on a chunk, in steps of 2048 rows)
  routing  two replicas, prompts of eight tenants of 1024 shared tokens each, a
           cache in each replica for half of them: throughput by prefix-aware
           routing over round robin

Rounds alternate what is compared, in an order that turns; medians are over
rounds. Needs the binaries
in build/release/bin and Python's standard library. Random weights of
bench/make_model.py will do.
"""

import argparse
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys

BIN = pathlib.Path(__file__).resolve().parent.parent / "build/release/bin"
SHARED_TOKENS = 1024
OWN_TOKENS = 32
BLOCK_TOKENS = 32


class Cluster:
    """`witan serve` on free ports, ended when the block ends."""

    def __init__(self, model, *options):
        self.command = [str(BIN / "witan"), "serve", model, "--port", "0",
                        "--metrics-port", "-1", *options]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if line.startswith("ready "):
                fields = dict(f.split("=", 1) for f in line.split()[1:])
                self.server = fields["grpc"]
                return self
        sys.exit(f"{' '.join(self.command)}: ended before it was ready")

    def __exit__(self, *error):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()

    def bench(self, *options):
        out = subprocess.run(
            [str(BIN / "witan"), "bench", "--server", self.server, "--json",
             "-", *options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if out.returncode != 0:
            sys.exit(f"witan bench failed:\n{out.stderr}")
        return json.loads(out.stdout)


def foreign_cpu():
    """Ticks of all CPUs that were not idle, of all there were."""
    with open("/proc/stat") as stat:
        ticks = [int(t) for t in stat.readline().split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)


def total(result):
    return result["total"]


def tokens_per_second(result):
    numbers = total(result)
    return numbers["prompt_tokens_per_second"] + numbers["output_tokens_per_second"]


def median_of(values, form="{:.2f}"):
    return (f"{form.format(statistics.median(values))} "
            f"({form.format(min(values))} to {form.format(max(values))})")


def in_turn(contenders, round_index):
    return contenders if round_index % 2 == 0 else contenders[::-1]


def measure_prefix(args):
    cold, warm = [], []
    for seed in range(args.rounds):
        with Cluster(args.model, *args.serve) as cluster:
            load = ["--clients", "1", "--num-requests", "12", "--output-tokens", "1"]
            loads = [
                (cold, ["--seed", str(100 + seed),
                        "--prompt-tokens", str(SHARED_TOKENS + OWN_TOKENS)]),
                (warm, ["--seed", str(200 + seed), "--warmup-requests", "1",
                        "--prompt-tokens", str(OWN_TOKENS),
                        "--shared-prefix-tokens", str(SHARED_TOKENS),
                        "--num-prefixes", "1"])]
            for into, options in in_turn(loads, seed):
                into.append(total(cluster.bench(*load, *options))["ttft_ms"]["p50"])
    ratios = [c / w for c, w in zip(cold, warm)]
    print(f"prefix: TTFT cold {median_of(cold, '{:.1f}')} ms, warm "
          f"{median_of(warm, '{:.1f}')} ms, ratio {median_of(ratios)}")


def measure_bursts(args):
    load = ["--duration", str(args.seconds), "--warmup-requests", "8",
            "--class", "decoders:clients=24,prompt-tokens=uniform:16-64,"
                       "output-tokens=uniform:64-192",
            "--class", f"bursts:clients=8,prompt-tokens={SHARED_TOKENS},"
                       "output-tokens=uniform:16-64,think-time-ms=2000"]
    unbounded = ["--chunk-beside-decode", "0", "--chunk", "1024",
                 "--max-step-tokens", "2048"]
    ratios, costs, unbounded_ratios = [], [], []
    for seed in range(args.rounds):
        seeded = load + ["--seed", str(seed)]
        speed = {}
        for name, into, options in in_turn(
                [("bounded", ratios, []), ("unbounded", unbounded_ratios, unbounded)],
                seed):
            with Cluster(args.model, *args.serve, *options) as cluster:
                result = cluster.bench(*seeded)
            gaps = total(result)["inter_token_ms"]
            into.append(gaps["p99"] / gaps["p50"])
            speed[name] = tokens_per_second(result)
            print(f"  {name}: ITL p50 {gaps['p50']:.1f} p99 {gaps['p99']:.1f} max "
                  f"{gaps['max']:.1f} ms, TTFT p50 "
                  f"{total(result)['ttft_ms']['p50']:.0f} ms, "
                  f"{tokens_per_second(result):.0f} tokens/s")
        costs.append(1 - speed["bounded"] / speed["unbounded"])
    print(f"bursts: p99 over median {median_of(ratios)}, unbounded "
          f"{median_of(unbounded_ratios)}; throughput cost "
          f"{median_of([100 * c for c in costs], '{:.1f}')} %")


def measure_routing(args):
    # Half of eight prefixes in each replica, and room for what is running.
    num_blocks = 4 * SHARED_TOKENS // BLOCK_TOKENS + 4 * 6 + 1
    load = ["--clients", "4", "--num-requests", "160", "--output-tokens", "8",
            "--prompt-tokens", str(OWN_TOKENS), "--shared-prefix-tokens",
            str(SHARED_TOKENS), "--num-prefixes", "8", "--tenant-per-prefix"]
    ratios = []
    for seed in range(args.rounds):
        speed = {}
        for routing in in_turn(("prefix", "round-robin"), seed):
            with Cluster(args.model, *args.serve, "--replicas", "2", "--routing",
                         routing, "--num-blocks", str(num_blocks)) as cluster:
                result = cluster.bench(*load, "--seed", str(seed))
                speed[routing] = total(result)["requests_per_second"]
        ratios.append(speed["prefix"] / speed["round-robin"])
        print(f"  prefix {speed['prefix']:.1f}, round robin "
              f"{speed['round-robin']:.1f} requests/s")
    print(f"routing: ratio {median_of(ratios)}")


def main():
    measures = {"prefix": measure_prefix, "bursts": measure_bursts,
                "routing": measure_routing}
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measures", nargs="*", default=[], metavar="MEASURE")
    parser.add_argument("--model", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=40, help="of one load of bursts")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[],
                        help="the rest: options for witan serve")
    args = parser.parse_args()
    unknown = set(args.measures) - set(measures)
    if unknown:
        parser.error(f"no such measure: {', '.join(sorted(unknown))}")
    busy, ticks = foreign_cpu()
    for name in args.measures or measures:
        measures[name](args)
    busy_after, ticks_after = foreign_cpu()
    own = sum(os.times()[:4]) * os.sysconf("SC_CLK_TCK")
    share = max(0.0, (busy_after - busy - own) / max(1, ticks_after - ticks))
    print(f"foreign CPU {100 * share:.1f} %")


if __name__ == "__main__":
    main()
