"""What the machine can do at the moment, and who uses it."""

import json
import os
import pathlib
import subprocess
import time

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
MAX_FOREIGN = 0.04  # above this share of all cores, a run is marked


def probe(bench_ops, num_threads):
    """Read bandwidth and bf16 peak now, in bytes and FLOP per second."""
    done = subprocess.run(
        [bench_ops, "--probe", "--threads", str(num_threads)],
        check=True, capture_output=True, text=True,
    )
    limits = json.loads(done.stdout)
    return {
        "bytes_per_s": limits["read_limit_gb_per_s"] * 1e9,
        "flop_per_s": limits["dot_limit_gflop_per_s"] * 1e9,
    }


def cpu_name():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def process_seconds(root):
    """CPU seconds of a process and its descendants, those that ended included."""
    parents, seconds = {}, {}
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything, spaces too.
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        parents[int(entry.name)] = int(fields[1])
        own, children = fields[11:13], fields[13:15]
        seconds[int(entry.name)] = sum(map(int, own + children)) / TICKS_PER_SECOND
    total, front = 0.0, [root]
    while front:
        pid = front.pop()
        total += seconds.get(pid, 0.0)
        front += [child for child, parent in parents.items() if parent == pid]
    return total


def cpu_seconds():
    """(busy, stolen by the host) of all cores together since the start."""
    fields = pathlib.Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    user, nice, system, _, _, interrupts, soft_interrupts, steal = map(int, fields)
    busy = user + nice + system + interrupts + soft_interrupts
    return busy / TICKS_PER_SECOND, steal / TICKS_PER_SECOND


class Usage:
    """Shares of all cores during a `with` block: the engine's, the client's, others'.

    `client` is this process without its children, which are the engines.
    """

    def __init__(self, engine_pid):
        self.engine_pid = engine_pid

    def _read(self):
        own = os.times()
        busy, stolen = cpu_seconds()
        return (
            time.monotonic(), busy, stolen,
            process_seconds(self.engine_pid), own.user + own.system,
        )

    def __enter__(self):
        self.before = self._read()
        return self

    def __exit__(self, *_):
        after = self._read()
        elapsed, busy, stolen, engine, client = (b - a for a, b in zip(self.before, after))
        capacity = elapsed * os.cpu_count()
        self.shares = {
            "engine": engine / capacity,
            "client": client / capacity,
            # Ticks are coarse, and a difference of sums may fall below 0.
            "foreign": max(0.0, busy - engine - client) / capacity,
            "steal": stolen / capacity,
        }
