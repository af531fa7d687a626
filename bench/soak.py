#!/usr/bin/env python3
"""Loads a served cluster for an hour and watches its memory.

    bench/soak.py [--model DIR] [--seconds 3600] [--out build/bench/soak]
                  [SERVE OPTIONS after --serve]

The load is mixed: chats over shared prefixes of many tenants, prompts of 1,000
tokens in bursts, long answers, sampling, three priorities, more sequences than
the KV cache has room for, and every twenty seconds a group of clients that is
killed in the middle of its answers.

Every ten seconds the resident memory of each process of the cluster is read,
and its descriptors and threads. Memory is flat when a line fitted to the second
half of the time, once caches and pools are full, rises by at most 512 KiB in an
hour, which is some tens of bytes per request; descriptors and threads when their
medians rise by at most two. The hour counts only if it was what is said above:
preemptions, evictions and cancelled requests are counted, and neither a process
nor a request that was not killed failed. At the end no request may be in flight
and no block in use (what only the prefix cache keeps is free). Ends with 1 if
one of this does not hold.

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
NUM_VICTIMS = 8
MAX_RISE_BYTES_PER_HOUR = 512 << 10
MAX_RISE_COUNT = 2

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


def read_metrics(url):
    """Sums by name, and by name and state or outcome where there is one."""
    with urllib.request.urlopen(url, timeout=30) as page:
        text = page.read().decode()
    sums = {}
    for line in text.splitlines():
        match = re.match(r'(witan_\w+)(?:\{(.*)\})? (\S+)$', line)
        if not match:
            continue
        name, labels, value = match.group(1), match.group(2) or "", match.group(3)
        kind = re.search(r'(?:state|outcome)="(\w+)"', labels)
        for key in {name, f"{name} {kind.group(1)}" if kind else name}:
            sums[key] = sums.get(key, 0) + float(value)
    return sums


def start_clients_to_kill(server, seed, log):
    return subprocess.Popen(
        [str(BIN / "witan"), "bench", "--server", server, "--clients",
         str(NUM_VICTIMS), "--num-requests", "1000", "--seed", str(seed),
         "--prompt-tokens", "uniform:1-300", "--output-tokens", "600",
         "--tenant", "killed"], stdout=subprocess.DEVNULL, stderr=log)


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


def rise_per_hour(points):
    """Slope of the least-squares line through (second, value)."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    square = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / square


def judge(samples, names, seconds):
    """Prints a line per process; whether all are flat."""
    all_flat = True
    for name in names.values():
        rows = [row for row in samples.rows if row["process"] == name]
        late = [row for row in rows if row["second"] >= seconds / 2]
        rise = rise_per_hour([(row["second"], row["memory_bytes"]) for row in late])
        flat = rise <= MAX_RISE_BYTES_PER_HOUR
        text = (f"{name}: memory {late[0]['memory_bytes'] / 1e6:.2f} to "
                f"{late[-1]['memory_bytes'] / 1e6:.2f} MB, rising by "
                f"{rise / 1024:.0f} KiB an hour")
        for column in ("num_threads", "num_descriptors"):
            middle = len(late) // 2
            first, last = (statistics.median(row[column] for row in half)
                           for half in (late[:middle], late[middle:]))
            flat = flat and last <= first + MAX_RISE_COUNT
            text += f", {column} {first:.0f} to {last:.0f}"
        all_flat = all_flat and flat
        print(text + ("" if flat else "  GREW"))
    return all_flat


def kill(victims, metrics_url, out):
    """Kills clients that are being answered; how many requests that ended."""
    in_flight = read_metrics(metrics_url)["witan_requests_in_flight"]
    if victims.poll() is not None:
        sys.exit(f"clients to be killed ended by themselves, see {out}.victims.txt")
    victims.kill()
    victims.wait()
    return min(NUM_VICTIMS, in_flight)


def watch(bench, cluster, fields, names, samples, args):
    """Samples until the load ends; how many requests were killed."""
    begin = time.monotonic()
    victims, num_killed, count = None, 0, 0
    with open(args.out + ".victims.txt", "w") as log:
        try:
            while bench.poll() is None:
                try:
                    bench.wait(timeout=SAMPLE_S)
                except subprocess.TimeoutExpired:
                    pass
                if processes_of(cluster.pid) != names:
                    sys.exit("a process of the cluster ended or began")
                second = time.monotonic() - begin
                samples.take(round(second, 1), names)
                count += 1
                if victims:
                    num_killed += kill(victims, fields["metrics"], args.out)
                    victims = None
                elif count % KILL_EVERY_SAMPLES == 0 and second < args.seconds:
                    victims = start_clients_to_kill(fields["grpc"], count, log)
        finally:
            if victims:
                victims.kill()
                victims.wait()
    return num_killed


def idle_metrics(url):
    """The metrics once nothing is in flight, or after a minute."""
    deadline = time.monotonic() + 60
    while True:
        metrics = read_metrics(url)
        idle = (metrics["witan_requests_in_flight"] == 0 and
                metrics["witan_sequences_running"] == 0)
        if idle or time.monotonic() > deadline:
            return metrics
        time.sleep(1)


def report(metrics, total, num_killed):
    """Prints what the hour was; whether it was a mixed load that ended clean."""
    cancelled = metrics.get("witan_requests_total cancelled", 0)
    print(f"{total['completed']} requests, "
          f"{metrics['witan_prompt_tokens_total']:.0f} prompt and "
          f"{metrics['witan_generated_tokens_total']:.0f} new tokens, "
          f"{total['failed']} failed, {cancelled:.0f} cancelled; "
          f"{metrics['witan_preemptions_total']:.0f} preemptions, "
          f"{metrics['witan_prefix_cache_evictions_total']:.0f} evictions, "
          f"{metrics['witan_group_failures_total']:.0f} group failures")
    print(f"left: {metrics['witan_requests_in_flight']:.0f} requests, "
          f"{metrics['witan_sequences_running']:.0f} sequences, "
          f"{metrics['witan_kv_blocks used']:.0f} blocks in use")
    mixed = (cancelled >= num_killed / 2 > 0 and
             metrics["witan_preemptions_total"] > 0 and
             metrics["witan_prefix_cache_evictions_total"] > 0)
    clean = (total["failed"] == 0 and metrics["witan_group_failures_total"] == 0 and
             metrics["witan_requests_in_flight"] == 0 and
             metrics["witan_sequences_running"] == 0 and
             metrics["witan_kv_blocks used"] == 0)
    if not mixed:
        print("the load was not what it should be")
    return mixed and clean


def run(args):
    cluster, fields = start_cluster(args.model, args.serve)
    bench = None
    try:
        names = processes_of(cluster.pid)
        samples = Samples(args.out + ".csv")
        bench = subprocess.Popen(
            [str(BIN / "witan"), "bench", "--server", fields["grpc"], "--duration",
             str(args.seconds), "--timeout-s", "600", "--json", args.out + ".json",
             *LOAD], stdout=subprocess.DEVNULL)
        num_killed = watch(bench, cluster, fields, names, samples, args)
        metrics = idle_metrics(fields["metrics"])
        flat = judge(samples, names, args.seconds)
        with open(args.out + ".json") as file:
            total = json.load(file)["total"]
        good = report(metrics, total, num_killed) and flat and bench.returncode == 0
    finally:
        for process in filter(None, (bench, cluster)):
            process.send_signal(signal.SIGTERM)
            process.wait()
    print("flat" if good else "NOT flat")
    return good


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(ROOT / "examples/witling/witling-instruct"))
    parser.add_argument("--seconds", type=int, default=3600, help="at least 120")
    parser.add_argument("--out", default=str(ROOT / "build/bench/soak"))
    parser.add_argument("--serve", nargs=argparse.REMAINDER,
                        default=["--tp", "2", "--ep", "2", "--num-blocks", "192"],
                        help="the rest: options for witan serve")
    args = parser.parse_args()
    if args.seconds < 120:
        parser.error(f"--seconds {args.seconds}: at least 120")
    pathlib.Path(args.out).parent.mkdir(parents=True, exist_ok=True)
    sys.exit(0 if run(args) else 1)


if __name__ == "__main__":
    main()
