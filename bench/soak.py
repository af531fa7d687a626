#!/usr/bin/env python3
"""Loads a served cluster for an hour and watches its memory.

    bench/soak.py [--model DIR] [--seconds 3600] [--out build/bench/soak]
                  [SERVE OPTIONS after --serve]

The load is mixed: chats over shared prefixes of many tenants, prompts of 1,000
tokens in bursts, long answers, sampling, two priorities, more sequences than
the KV cache has room for, and every twenty seconds a group of clients that is
killed in the middle of its answers.

Every ten seconds the resident memory of each process of the cluster is read,
and its descriptors and threads. Memory is flat when the median of the last
sixth of the time is at most 2 % or 2 MiB above that of the second sixth (the
first fills caches and pools), descriptors and threads when they are no more
then at most two more. At the end no request may be in flight and no block in
use (what only the prefix cache keeps is free). Ends with 1 if one of this does
not hold, or if a request that was not killed failed.

Writes OUT.csv, a line per sample, and OUT.json, the report of `witan bench`.
Needs the binaries in build/release/bin and Python's standard library.
"""

import argparse
import csv
import json
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import time
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "build/release/bin"
SAMPLE_S = 10
KILL_EVERY_SAMPLES = 2
SLACK_BYTES = 2 << 20
SLACK_SHARE = 0.02

LOAD = [
    "--class", "chats:clients=8,shared-prefix-tokens=256,num-prefixes=24,"
               "prefix-skew=0.8,tenant-per-prefix=true,prompt-tokens=uniform:8-96,"
               "output-tokens=uniform:16-128,temperature=0.8",
    "--class", "bursts:rate=0.2,burst=6,prompt-tokens=uniform:800-1100,"
               "output-tokens=uniform:1-32,tenant=bursts",
    "--class", "long:clients=3,prompt-tokens=uniform:1-64,"
               "output-tokens=uniform:400-800,tenant=long,priority=-1",
    "--class", "quick:rate=2,prompt-tokens=uniform:4-32,"
               "output-tokens=uniform:1-16,tenant=quick,priority=2",
]


def start_cluster(model, options):
    command = [str(BIN / "witan"), "serve", model, "--port", "0",
               "--metrics-port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if line.startswith("ready "):
            return process, dict(f.split("=", 1) for f in line.split()[1:])
    sys.exit(f"{' '.join(command)}: ended before it was ready")


def processes_of(root_pid):
    """The pids of the process and all below it, with a name for each."""
    parents = {}
    for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(stat.parent.name)] = int(fields[1])
    found = [root_pid]
    for pid in found:
        found += sorted(p for p, parent in parents.items() if parent == pid)
    names = {}
    for pid in found:
        name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
        names[pid] = f"{name} {pid}"
    return names


def read_process(pid):
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    # Weights are files, mapped or read; what a leak fills is anonymous.
    kib = sum(int(re.search(rf"^{key}:\s+(\d+) kB", status, re.M).group(1))
              for key in ("RssAnon", "RssShmem"))
    return {"memory_bytes": kib << 10,
            "num_threads": int(re.search(r"^Threads:\s+(\d+)", status, re.M).group(1)),
            "num_descriptors": len(list(pathlib.Path(f"/proc/{pid}/fd").iterdir()))}


def read_metrics(address):
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as page:
        text = page.read().decode()
    totals = {}
    for line in text.splitlines():
        match = re.match(r'(witan_\w+)(?:\{(.*)\})? (\S+)$', line)
        if match:
            state = re.search(r'state="(\w+)"', match.group(2) or "")
            name = match.group(1) + (f"_{state.group(1)}" if state else "")
            totals[name] = totals.get(name, 0) + float(match.group(3))
    return totals


def start_clients_to_kill(server, seed):
    return subprocess.Popen(
        [str(BIN / "witan"), "bench", "--server", server, "--clients", "8",
         "--seed", str(seed), "--prompt-tokens", "uniform:1-300",
         "--output-tokens", "600", "--tenant", "killed", "--json", "-"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Samples:
    """A row per process and sample, in memory and in a file."""

    COLUMNS = ("second", "process", "memory_bytes", "num_threads", "num_descriptors")

    def __init__(self, path):
        self.rows = []
        self.file = open(path, "w", newline="")
        self.writer = csv.writer(self.file)
        self.writer.writerow(self.COLUMNS)

    def take(self, second, names):
        for pid, name in names.items():
            row = {"second": second, "process": name, **read_process(pid)}
            self.rows.append(row)
            self.writer.writerow([row[column] for column in self.COLUMNS])
        self.file.flush()

    def median(self, name, column, begin, end):
        return statistics.median(row[column] for row in self.rows
                                 if row["process"] == name and
                                 begin <= row["second"] < end)


def judge(samples, names, seconds):
    """Prints a line per process; whether all are flat."""
    flat = True
    early, late = (seconds / 6, seconds / 3), (seconds * 5 / 6, seconds + SAMPLE_S)
    for name in names.values():
        before, after = (samples.median(name, "memory_bytes", *span)
                         for span in (early, late))
        good = after <= before + max(SLACK_BYTES, SLACK_SHARE * before)
        text = f"{name}: memory {before / 1e6:.1f} to {after / 1e6:.1f} MB"
        for column in ("num_threads", "num_descriptors"):
            first, last = (samples.median(name, column, *span)
                           for span in (early, late))
            # Connections of the clients that are killed come and go.
            good = good and last <= first + 2
            text += f", {column} {first:.0f} to {last:.0f}"
        flat = flat and good
        print(text + ("" if good else "  GREW"))
    return flat


def watch(bench, fields, names, samples, seconds):
    """Samples until the load ends; how many groups of clients were killed."""
    begin = time.monotonic()
    victims, num_killed, count = None, 0, 0
    while True:
        try:
            bench.wait(timeout=SAMPLE_S)
            break
        except subprocess.TimeoutExpired:
            pass
        second = time.monotonic() - begin
        samples.take(round(second, 1), names)
        count += 1
        if victims:
            victims.kill()
            victims.wait()
            victims, num_killed = None, num_killed + 1
        elif count % KILL_EVERY_SAMPLES == 0 and second < seconds:
            victims = start_clients_to_kill(fields["grpc"], count)
    if victims:
        victims.kill()
        victims.wait()
    return num_killed


def idle_metrics(address):
    """The metrics once nothing is in flight, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        metrics = read_metrics(address)
        idle = (metrics["witan_requests_in_flight"] == 0 and
                metrics["witan_sequences_running"] == 0)
        if idle or time.monotonic() > deadline:
            return metrics
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "examples/witling/witling-instruct"))
    parser.add_argument("--seconds", type=int, default=3600)
    parser.add_argument("--out", default=str(ROOT / "build/bench/soak"))
    parser.add_argument("--serve", nargs=argparse.REMAINDER,
                        default=["--tp", "2", "--ep", "2", "--num-blocks", "192"],
                        help="the rest: options for witan serve")
    args = parser.parse_args()
    pathlib.Path(args.out).parent.mkdir(parents=True, exist_ok=True)

    process, fields = start_cluster(args.model, args.serve)
    names = processes_of(process.pid)
    samples = Samples(args.out + ".csv")
    bench = subprocess.Popen(
        [str(BIN / "witan"), "bench", "--server", fields["grpc"], "--duration",
         str(args.seconds), "--timeout-s", "600", "--json", args.out + ".json",
         *LOAD], stdout=subprocess.DEVNULL)
    num_killed = watch(bench, fields, names, samples, args.seconds)

    metrics = idle_metrics(fields["metrics"])
    flat = judge(samples, names, args.seconds)
    process.send_signal(signal.SIGTERM)
    process.wait()
    with open(args.out + ".json") as file:
        total = json.load(file)["total"]
    print(f"{total['completed']} requests and "
          f"{metrics['witan_generated_tokens_total']:.0f} tokens, "
          f"{total['failed']} failed, {num_killed} times 8 clients killed; "
          f"{metrics['witan_preemptions_total']:.0f} preemptions, "
          f"{metrics['witan_prefix_cache_evictions_total']:.0f} evictions, "
          f"{metrics['witan_group_failures_total']:.0f} group failures")
    used, cached = (metrics["witan_kv_blocks_used"],
                    metrics["witan_prefix_cache_blocks"])
    print(f"left: {metrics['witan_requests_in_flight']:.0f} requests, "
          f"{metrics['witan_sequences_running']:.0f} sequences, "
          f"{used:.0f} blocks in use, {cached:.0f} known to the prefix cache")
    left = metrics["witan_requests_in_flight"] + metrics["witan_sequences_running"]
    good = (flat and bench.returncode == 0 and left == 0 and used == 0)
    print("flat" if good else "NOT flat")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
