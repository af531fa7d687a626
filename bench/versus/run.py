"""Witan against llama.cpp on the same random weights. Run it with ./dev bench versus.

Every row is measured in rounds; in a round the engines run one right after the
other, in an order that turns from round to round, so that a drift of the
machine falls on both. docs/benchmarks.md says what is compared and how to read it.
"""

import argparse
import hashlib
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HOME = ROOT / "build/versus"
sys.path[:0] = [str(HERE), str(HOME / "stubs"), str(HERE.parent)]

import engines  # noqa: E402  (needs the path)
import identity  # noqa: E402
import limits  # noqa: E402
import machine  # noqa: E402
import make_model  # noqa: E402
import report  # noqa: E402
import rows  # noqa: E402

BENCH_OPS = ROOT / "build/release/bin/bench_ops"
SHAPES = ("M1", "M2", "M3")
TINY_SHAPES = ("tiny", "tiny1")


def model_paths(name):
    """The directory and the GGUF file of a shape, made if they are not there."""
    directory, gguf = HOME / "models" / name, HOME / "models" / f"{name}.gguf"
    digest = hashlib.sha256()
    for source in ("make_model.py", "gguf_writer.py"):
        digest.update((HERE.parent / source).read_bytes())
    stamp = directory.with_suffix(".stamp")
    if not stamp.exists() or stamp.read_text() != digest.hexdigest():
        command = [sys.executable, HERE.parent / "make_model.py", "--shape", name]
        subprocess.run([*command, "--out", directory, "--gguf", gguf], check=True)
        stamp.write_text(digest.hexdigest())
    return directory, gguf


class Bench:
    def __init__(self, args):
        self.args = args
        self.results = {"about": self.about(), "identity": {}, "rows": []}

    def about(self):
        def git(*words):
            done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True)
            return done.stdout.strip()

        dirty = " with changes" if git("status", "--porcelain", "--untracked-files=no") else ""
        return {
            "commit": (git("rev-parse", "--short", "HEAD") or "unknown") + dirty,
            "command": shlex.join(["./dev", "bench", "versus", *sys.argv[1:]]),
            "cpu": machine.cpu_name(), "threads": self.args.threads, "rounds": self.args.rounds,
        }

    def measured(self, row, engine, call):
        probe = machine.probe(BENCH_OPS, self.args.threads)
        with machine.Usage(engine.pid) as usage:
            figures = call()
        return {**figures, "probe": probe, "shares": usage.shares, "limit": row.limit(probe)}

    def round(self, row, order, round_index):
        return {
            name: self.measured(row, engine, lambda: run(engine, round_index))
            for name, engine, run in order
        }

    def is_disturbed(self, done):
        return any(f["shares"]["foreign"] > machine.MAX_FOREIGN for f in done.values())

    def measure(self, shape_name, row, contenders):
        """`contenders`: [(name, engine, function of (engine, round))]; the first is Witan."""
        for _, engine, run in contenders:
            run(engine, self.args.rounds)  # a round of its own, to warm up
        runs = {name: [] for name, _, _ in contenders}
        num_rounds = 0
        for round_index in range(self.args.rounds):
            order = contenders if round_index % 2 == 0 else contenders[::-1]
            done = self.round(row, order, round_index)
            # Prompts are new in each round, also in those that are thrown away.
            while self.is_disturbed(done) and num_rounds < self.args.rounds:
                num_rounds += 1
                done = self.round(row, order, self.args.rounds + num_rounds)
            for name, figures in done.items():
                runs[name].append(figures)
        self.results["rows"].append(
            {"shape": shape_name, "row": row.name, "unit": row.unit, "runs": runs}
        )
        speeds = ", ".join(
            f"{name} {report.median_and_spread(report.values_of(r, 'tokens_per_s'), '{:.1f}')}"
            for name, r in runs.items()
        )
        print(f"{shape_name} {row.name}: {speeds} tokens/s", flush=True)
        for name, figures in runs.items():
            if min(f.get("distinct", 1) for f in figures) < 0.9:
                print(f"  {name}: sequences share tokens; fewer experts are read than expected")
        self.save()

    def check_identity(self, name, witan, library):
        facts = make_model.SHAPES[name]
        result = identity.compare(witan, library, facts["vocab"], facts["layers"])
        text = identity.describe(result)
        print(f"{name}: {'one model' if result['same'] else 'NOT ONE MODEL'}: {text}", flush=True)
        if not result["same"]:
            raise SystemExit(f"{name}: the engines do not compute the same model")
        self.results["identity"][name] = text

    def start(self, name):
        directory, gguf = model_paths(name)
        return engines.Witan(directory, self.args.threads, self.args.witan_option), gguf

    def check(self, name):
        witan, gguf = self.start(name)
        with witan, engines.LlamaLibrary(gguf, self.args.threads) as library:
            self.check_identity(name, witan, library)

    def compare(self, name):
        facts = make_model.SHAPES[name]
        shape, vocab = limits.Shape(facts), facts["vocab"]
        witan, gguf = self.start(name)
        with witan:
            with engines.LlamaLibrary(gguf, self.args.threads) as library:
                self.results["about"].update(
                    llama_cpp=library.about["version"], llama_system=library.about["system"].strip()
                )
                self.check_identity(name, witan, library)
                for row in rows.engine_rows(shape, vocab):
                    if self.args.only in row.name:
                        self.measure(name, row, [
                            ("Witan", witan, row.run_witan), ("llama.cpp", library, row.run_library),
                        ])
            served = [row for row in rows.serve_rows(shape, vocab) if self.args.only in row.name]
            if served:
                self.compare_servers(name, served, witan, gguf)

    def compare_servers(self, name, served, witan, gguf):
        threads = self.args.threads
        with engines.LlamaServer(gguf, threads) as server, \
                engines.PythonServer(gguf, threads) as python_server:
            for row in served:
                self.measure(name, row, [
                    ("Witan", witan, row.run_server),
                    ("llama-server", server, row.run_server),
                    ("llama_cpp.server", python_server, row.run_python_server),
                ])

    def save(self):
        (HOME / "results.json").write_text(json.dumps(self.results, indent=1) + "\n")

    def finish(self):
        text = report.markdown(self.results)
        (HOME / "results.md").write_text(text)
        print(f"\n{text}\nalso in {HOME.relative_to(ROOT)}/results.md and results.json")
        if self.args.record:
            report.record(self.args.record, text)


def parse_args():
    parser = argparse.ArgumentParser(prog="./dev bench versus", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true",
                        help="only show, on tiny shapes, that both engines compute the same model")
    parser.add_argument("--quick", action="store_true", help="M2, one round")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES + TINY_SHAPES, metavar="SHAPE",
                        help=f"of {', '.join(SHAPES + TINY_SHAPES)} [{' '.join(SHAPES)}]")
    parser.add_argument("--rounds", type=int, help="runs of each engine in each row [3]")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name contains it")
    parser.add_argument("--threads", type=int, default=os.cpu_count(),
                        help="of each engine [one per core]")
    parser.add_argument("--witan-option", action="append", default=[], metavar="OPTION",
                        help="passed to `witan serve`, e.g. --witan-option=--chunk=512")
    parser.add_argument("--record", type=pathlib.Path, metavar="PAGE",
                        help="write the table between the markers of this page")
    args = parser.parse_args()
    if not args.check and set(args.shapes or ()) & set(TINY_SHAPES):
        parser.error("tiny shapes are for --check; streams of theirs hardly overlap")
    args.shapes = args.shapes or (TINY_SHAPES if args.check else ["M2"] if args.quick else SHAPES)
    args.rounds = args.rounds or (1 if args.quick else 3)
    if args.record and report.MARKERS[0] not in args.record.read_text():
        parser.error(f"--record {args.record}: the page has no line '{report.MARKERS[0]}'")
    if args.record and (args.check or args.only or args.rounds < 3 or len(args.shapes) < len(SHAPES)):
        parser.error("--record wants every row of every shape, and at least three rounds")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads are at least 1")
    return args


def main():
    args = parse_args()
    # Whoever ends this ends the engines too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended by SIGTERM"))
    bench = Bench(args)
    for name in args.shapes:
        if args.check:
            bench.check(name)
        else:
            bench.compare(name)
    if not args.check:
        bench.finish()


if __name__ == "__main__":
    main()
