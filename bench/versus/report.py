"""Tables and sentences out of the figures; nothing is said that is not computed here."""

import statistics

from machine import MAX_FOREIGN

AT_LIMIT = 0.85  # of the limit: called at the limit
MARKERS = "<!-- versus: begin -->", "<!-- versus: end -->"


def median_and_spread(values, text):
    low, middle, high = (text.format(f(values)) for f in (min, statistics.median, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def values_of(runs, key):
    return [run[key] for run in runs]


def ratios(row, ours, theirs):
    """Of speeds, round by round: the two runs of a round are neighbours in time."""
    return [
        a["tokens_per_s"] / b["tokens_per_s"]
        for a, b in zip(row["runs"][ours], row["runs"][theirs])
    ]


def of_limit(runs):
    return statistics.median(run["limit"]["seconds"] / run["unit_s"] for run in runs)


def disturbed(row):
    return any(run["shares"]["foreign"] > MAX_FOREIGN for runs in row["runs"].values() for run in runs)


def speed_table(rows):
    lines = [
        "| model, row | Witan tokens/s | peer | its tokens/s | Witan : peer | of the limit: Witan, peer "
        "| probe GB/s | foreign CPU, at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ours, *peers = row["runs"]
        for peer in peers:
            runs = row["runs"][ours] + row["runs"][peer]
            probes = [run["probe"]["bytes_per_s"] / 1e9 for run in runs]
            foreign = max(run["shares"]["foreign"] for run in runs)
            cells = [
                f"{row['shape']} {row['row']}",
                median_and_spread(values_of(row["runs"][ours], "tokens_per_s"), "{:.1f}"),
                peer,
                median_and_spread(values_of(row["runs"][peer], "tokens_per_s"), "{:.1f}"),
                median_and_spread(ratios(row, ours, peer), "{:.2f}"),
                f"{of_limit(row['runs'][ours]):.2f}, {of_limit(row['runs'][peer]):.2f}",
                median_and_spread(probes, "{:.0f}"),
                f"{foreign:.0%}{' †' if foreign > MAX_FOREIGN else ''}",
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def latency_table(rows):
    lines = [
        "| model, row | engine | first token p50 / p95 ms | between chunks p50 / p99 ms | client's CPU |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        for engine, runs in row["runs"].items():
            if runs[0].get("gap_p50_ms") is None:
                continue
            middle = {
                key: statistics.median(values_of(runs, key))
                for key in ("first_token_p50_ms", "first_token_p95_ms", "gap_p50_ms", "gap_p99_ms")
            }
            client = statistics.median(run["shares"]["client"] for run in runs)
            lines.append(
                f"| {row['shape']} {row['row']} | {engine} | {middle['first_token_p50_ms']:.0f} / "
                f"{middle['first_token_p95_ms']:.0f} | {middle['gap_p50_ms']:.1f} / "
                f"{middle['gap_p99_ms']:.1f} | {client:.1%} |"
            )
    return lines if len(lines) > 2 else []


def what_limits(row):
    """One sentence on the limit and one per engine, from medians over its runs."""
    everything = [run for runs in row["runs"].values() for run in runs]
    limit = {
        key: statistics.median(run["limit"][key] for run in everything)
        for key in everything[0]["limit"]
    }
    # Seconds are shown as milliseconds but for whole runs of a server.
    text = (lambda s: f"{s:.1f} s") if "in_turn_s" in limit else (lambda s: f"{s * 1e3:.1f} ms")
    binds = "reading" if limit["read_s"] >= limit["compute_s"] else "computing"
    begin = (
        f"{limit['bytes'] / 1e6:.0f} MB take {text(limit['read_s'])}, "
        f"{limit['flop'] / 1e9:.1f} GFLOP take {text(limit['compute_s'])} {row['unit']}."
    )
    if "in_turn_s" in limit:
        if limit["in_turn_s"] >= limit["seconds"]:
            binds = "the order within a client"
        begin = f"{begin[:-1]}, and what one client asks {text(limit['in_turn_s'])}."
    begin = f"{binds} binds: {begin}"
    return f"- **{row['shape']} {row['row']}**: {begin} " + " ".join(
        engine_sentence(name, runs, text) for name, runs in row["runs"].items()
    )


def engine_sentence(name, runs, text):
    fraction = of_limit(runs)
    taken = statistics.median(values_of(runs, "unit_s"))
    if fraction >= AT_LIMIT:
        return f"{name}: {text(taken)}, at the limit ({fraction:.0%})."
    more = taken - statistics.median(run["limit"]["seconds"] for run in runs)

    def part(share):
        return min(more, statistics.median(share(run["shares"]) * run["unit_s"] for run in runs))

    parts = [
        (part(lambda shares: max(0.0, 1 - sum(shares.values()))), "idle cores"),
        (part(lambda shares: shares["foreign"] + shares["steal"]), "others on the cores"),
        (part(lambda shares: shares["client"]), "the client"),
    ]
    parts.append((max(0.0, more - sum(seconds for seconds, _ in parts)), "its own work beyond the limit's"))
    causes = ", ".join(f"{text(seconds)} {what}" for seconds, what in parts if seconds >= 0.03 * taken)
    return f"{name}: {text(taken)}, {fraction:.0%} of the limit; {text(more)} more: {causes}."


def markdown(results):
    rows = results["rows"]
    about = results["about"]
    lines = [
        f"Commit {about['commit']}, `{about['command']}`; llama-cpp-python {about['llama_cpp']} from PyPI "
        f"(`{about['llama_system']}`); {about['cpu']}, {about['threads']} threads; {about['rounds']} "
        f"round{'s' if about['rounds'] > 1 else ''}; median (lowest to highest).",
        "",
    ]
    lines += [
        f"- {shape}, one model in both: {text}." for shape, text in results["identity"].items()
    ]
    lines += ["", *speed_table(rows)]
    if any(disturbed(row) for row in rows):
        lines += ["", f"† others used more than {MAX_FOREIGN:.0%} of the cores during a run, however often it was repeated."]
    if latency := latency_table(rows):
        lines += ["", *latency]
    return "\n".join([*lines, "", "What limits each row:", "", *map(what_limits, rows)]) + "\n"


def record(path, text):
    """Replaces what stands between the markers of a page."""
    begin, end = MARKERS
    page = path.read_text()
    before, found_begin, rest = page.partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise SystemExit(f"{path} has no lines '{begin}' and '{end}'")
    path.write_text(f"{before}{begin}\n{text}{end}{after}")
