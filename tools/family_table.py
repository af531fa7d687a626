#!/usr/bin/env python3
"""Writes the table of families into README.md, from what the tests of this build say.

    ./dev build            # or ninja -C build/release: the tests have to be there
    python3 tools/family_table.py [--tokenizers DIRECTORY] [--check]

Each cell is the outcome of tests, run now; none is filled by hand:
  loads       config.json of every published size has the published number of weights (tests/model)
  logits      a tiny checkpoint is as near to transformers in float64 as the parity rule asks (tests/parity)
  exact       the same bits on every layout, alone, in any chunks, preempted, from the cache (tests/exactness)
  template    the published chat templates render byte for byte as transformers renders them (tests/text)
  tokenizer   20,000 ugly texts per vocabulary, encoded and decoded as the reference library does
              (tests/text/compare_tokenizers.py, in an environment with the packages that it names); DIRECTORY holds
              llama3_1/, llama2/ and qwen3/; Mistral's vocabularies come with the package mistral-common. Without
              DIRECTORY the column says "not run".
--check only compares: exit status 1 when the README says something else (the tokenizer column is left out).
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
TESTS = ROOT / "build/release/tests"
README = ROOT / "README.md"
BEGIN, END = "<!-- families: tools/family_table.py -->", "<!-- end of families -->"
COLUMNS = ["Family", "loads", "logits", "exact", "template", "tokenizer"]

# Family: published models, goldens, templates and vocabularies, as regular expressions of their names.
FAMILIES = {
    "Llama 3, 3.1, 3.2": ("Llama-3", "llama(-3.1|-linear)?", "llama-3", ["llama3_1"]),
    "Mistral 7B v0.1 to v0.3": ("Mistral-7B", "mistral", "mistral-7b", ["mistral-v1", "mistral-v3"]),
    "Mixtral 8x7B, 8x22B": ("Mixtral", "mixtral", "mistral-7b-instruct-v0.[23]", ["mistral-v1", "mistral-v3"]),
    "Phi-3 mini, medium; 4k, 128k": ("Phi-3-", "phi3(-.*)?", "phi-3-(mini|medium)", ["llama2"]),
    "Phi-3.5-MoE": ("Phi-3.5-MoE", "phi3.5-moe", None, ["llama2"]),
    "Qwen2.5": ("Qwen2.5", "qwen2", "qwen2.5", ["qwen3"]),
    "Qwen3": ("Qwen3-[0-9.]+B$", "qwen3", "qwen3(-instruct|-thinking)?", ["qwen3"]),
    "Qwen3-MoE": ("Qwen3-.*-A", "qwen3-moe(-raw)?", "qwen3(-instruct|-thinking|-coder)?", ["qwen3"]),
}


def run_test(program):
    """Outcomes of a gtest program's parameterised tests: {value of the parameter as its name says: all passed}."""
    with tempfile.NamedTemporaryFile(suffix=".json") as output:
        subprocess.run([TESTS / program, f"--gtest_output=json:{output.name}"], cwd=ROOT, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL, check=False)
        report = json.load(open(output.name))
    outcomes = {}
    for suite in report["testsuites"]:
        for test in suite["testsuite"]:
            name = test.get("value_param", "").strip('"')
            if name:
                passed = test["result"] == "COMPLETED" and not test.get("failures")
                outcomes[name] = outcomes.get(name, True) and passed
    if not outcomes:
        sys.exit(f"{TESTS / program} ran no test; build it first")
    return outcomes


def cell(outcomes, pattern, unit):
    """"3 sizes", or which of them failed."""
    if pattern is None:
        return "not found"  # tests/third_party/chat_templates/README.md
    chosen = {name: ok for name, ok in outcomes.items() if re.fullmatch(pattern + ".*" if unit != "" else pattern, name)}
    if not chosen:
        return "none"
    failed = sorted(name for name, ok in chosen.items() if not ok)
    if failed:
        return "FAILS: " + ", ".join(failed)
    return f"yes ({len(chosen)}{' ' + unit if unit else ''})"


def vocabularies(directory):
    """{name: path of a tokenizer}."""
    found = {name: directory / name for name in ("llama3_1", "llama2", "qwen3") if (directory / name).exists()}
    try:
        import mistral_common
    except ImportError:
        return found
    data = pathlib.Path(mistral_common.__file__).parent / "data"
    for name, pattern in (("mistral-v1", "tokenizer.model.v1"), ("mistral-v3", "*instruct_tokenizer*v3*")):
        for path in sorted(data.glob(pattern))[:1]:
            found[name] = path
    return found


def compare_tokenizers(directory):
    """{name: what the comparison said}."""
    said = {}
    for name, path in vocabularies(directory).items():
        result = subprocess.run([sys.executable, ROOT / "tests/text/compare_tokenizers.py", path], cwd=ROOT,
                                capture_output=True, text=True, check=False)
        texts = re.findall(r"(\d+) texts", result.stdout)
        said[name] = f"{texts[0]} texts" if result.returncode == 0 and texts else "FAILS"
    return said


def tokenizer_cell(said, names):
    if said is None:
        return "not run"
    parts = [f"{name}: {said[name]}" for name in names if name in said]
    if not parts:
        return "no vocabulary"
    if any("FAILS" in part for part in parts):
        return "FAILS: " + ", ".join(parts)
    return "yes (" + ", ".join(parts) + ")"


def make_table(tokenizers):
    loads = run_test("model_published_models_test")
    logits = run_test("parity_families_test")
    exact = run_test("exactness_families_test")
    templates = run_test("text_template_golden_test")
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for family, (models, goldens, template, vocabulary) in FAMILIES.items():
        lines.append("| " + " | ".join([
            family, cell(loads, models, "sizes"), cell(logits, goldens, ""), cell(exact, goldens, ""),
            cell(templates, template, "templates"), tokenizer_cell(tokenizers, vocabulary)]) + " |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizers", type=pathlib.Path, metavar="DIRECTORY")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    table = make_table(compare_tokenizers(args.tokenizers) if args.tokenizers else None)
    text = README.read_text()
    begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
    if args.check:
        cut = lambda lines: [line.rsplit("|", 2)[0] for line in lines]
        same = cut(text[begin:end].strip().splitlines()) == cut(table)
        print("the README's table is that of the tests" if same else "the README's table is not that of the tests")
        sys.exit(0 if same else 1)
    README.write_text(text[:begin] + "\n" + "\n".join(table) + "\n" + text[end:])
    print("\n".join(table))


if __name__ == "__main__":
    main()
