#!/usr/bin/env python3
"""Reads the JSON reports of critest (Ginkgo's format) and says what they mean.

  report.py shard LIST.json I N               the -ginkgo.focus for the I-th of N shares of the specs in a dry run's report
  report.py failed LIST.json REPORT.json...   the -ginkgo.focus for the specs that failed and have no reason, and how many
  report.py verdict LIST.json REPORT.json...  a line per spec that did not pass, and what a test program would print last
  report.py benchmark DIRECTORY...            a table and benchmark.json from the directories RUNTIME-ROUND

`verdict` and `failed` know the reasons of tests/critest/reasons.tsv; `verdict --docs FILE` writes the page. Of a spec that
ran more than once the last report counts.
"""

import argparse
import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path

REASONS = Path(__file__).parent / "reasons.tsv"
# What Ginkgo puts before each name when it looks for a focus.
SUITE = "CRI validation"
GOOD = "passed"


def specs(path):
    """Yields (name, state, why) of each spec that was wanted in the report at `path`."""
    for suite in json.loads(Path(path).read_text()):
        dry = suite["SuiteConfig"].get("DryRun", False)
        for spec in suite["SpecReports"]:
            if spec["LeafNodeType"] != "It":
                continue
            name = " ".join((spec["ContainerHierarchyTexts"] or []) + [spec["LeafNodeText"]])
            state = spec["State"]
            # What -focus and -skip leave out is reported as skipped too, without ever having begun.
            if state == "skipped" and (dry or not spec.get("NumAttempts")):
                continue
            yield name, state, first_line(spec.get("Failure", {}).get("Message", ""))


def first_line(text):
    """The first line of a failure that says something: Gomega names the kind of error and its Go type before it."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and line != "Unexpected error:" and not re.match(r"<.*>:$", line)), "")


def focus(names):
    return f"^{SUITE} (" + "|".join(map(escaped, sorted(names))) + ")$"


def escaped(name):
    """`name` for Go's regular expressions, which have no escape for spaces."""
    return re.sub(r"([][\\.+*?()|{}^$])", r"\\\1", name)


def reasons():
    lines = (line.rstrip("\n") for line in REASONS.open())
    return dict(line.split("\t", 1) for line in lines if line and not line.startswith("#"))


def results(listed, reports):
    """The state of each listed spec: {name: (state, why, times it ran)}."""
    found = {name: ("lost", "no report tells of it", 0) for name, _, _ in specs(listed)}
    for report in reports:
        for name, state, why in specs(report):
            found[name] = (state, why, found.get(name, ("", "", 0))[2] + 1)
    return found


def shard(args):
    names = sorted(name for name, _, _ in specs(args.list))
    print(focus(names[args.index - 1 :: args.count]))


def failed(args):
    known = reasons()
    found = results(args.list, args.reports)
    bad = [name for name, (state, _, _) in found.items() if state not in (GOOD, "skipped") and name not in known]
    print(len(bad))
    print(focus(bad) if bad else "")


def verdict(args):
    known = {} if args.no_reasons else reasons()
    found = results(args.list, args.reports)
    count = Counter("passed" if state == GOOD else "skipped" if state == "skipped" else "failed" for state, _, _ in found.values())
    unexplained = 0
    for name, (state, why, times) in sorted(found.items()):
        if times > 1:
            print(f"RETRIED: {name}: {state} when it ran again")
        if state == GOOD:
            if name in known:
                print(f"PASSES: {name}: yet reasons.tsv says why it cannot")
            continue
        word = "SKIPPED" if state == "skipped" else "FAILED"
        if name in known:
            print(f"known {word.lower()}: {name}: {known[name]}")
        else:
            unexplained += 1
            print(f"{word}: {name}: {why or state}")
    for name in known.keys() - {name for name, _, _ in specs(args.list)} if args.docs else ():
        print(f"FAILED: {name}: reasons.tsv names it, and critest has no such spec")
        unexplained += 1
    if args.docs:
        Path(args.docs).write_text(page(found, known, count, args.about))
    print(f"unexplained: {unexplained}")
    good = "ok" if unexplained == 0 else "FAILED"
    print(f"test result: {good}. {count['passed']} passed; {count['failed']} failed; {count['skipped']} ignored;")
    return unexplained == 0


def page(found, known, count, about):
    """docs/critest.md."""
    rows = [(n, s, w) for n, (s, w, _) in sorted(found.items()) if s != GOOD]
    text = [
        "# critest",
        "",
        "What cri-tools' own validation suite says of huskd. Written by `ci/test-cri`, which runs all of its specs, unchanged,",
        "against images made from Debian packages; do not edit. Why a spec cannot pass stands in `tests/critest/reasons.tsv`, and",
        "the run fails when one did not pass that is not named there.",
        "",
        about,
        "",
        f"{len(found)} specs: {count['passed']} passed, {count['failed']} failed, {count['skipped']} skipped.",
        "",
        "## Not passed",
        "",
        "| spec | result | reason |",
        "|---|---|---|",
    ]
    text += [f"| {cell(n)} | {s} | {cell(known.get(n) or '**none**: ' + w)} |" for n, s, w in rows]
    text += ["", "## All", "", "| group | passed | failed | skipped |", "|---|---|---|---|"]
    groups = {}
    for name, (state, _, _) in found.items():
        groups.setdefault(group(name), Counter())[state if state in (GOOD, "skipped") else "failed"] += 1
    text += [f"| {g} | {c[GOOD]} | {c['failed']} | {c['skipped']} |" for g, c in sorted(groups.items())]
    text += ["", "| spec | result |", "|---|---|"]
    text += [f"| {cell(name)} | {state} |" for name, (state, _, _) in sorted(found.items())]
    return "\n".join(text) + "\n"


def group(name):
    """The first words of a spec, as critest's sources group them."""
    known = (
        "AppArmor", "Container Mount Propagation", "Container Mount Readonly", "Container OOM", "Container", "Idempotence",
        "Image Consistency", "Image Identifier Consistency", "Image Manager", "Multiple Containers", "Networking", "PodSandbox",
        "Runtime info", "Security Context", "Streaming",
    )  # fmt: skip
    bare = name.removeprefix("[k8s.io] ")
    return next((start for start in known if bare.startswith(start)), "others")


def cell(text):
    """`text` in a cell of a table."""
    return text.removeprefix("[k8s.io] ").replace("|", "\\|")


def benchmark(args):
    """All durations in milliseconds: {runtime: {operation: [ms]}}."""
    found = {}
    for directory in map(Path, args.directories):
        runtime = directory.name.rsplit("-", 1)[0]
        times = found.setdefault(runtime, {})
        for path in sorted(directory.glob("*_benchmark_data.json")):
            data = json.loads(path.read_text())
            for point in data["datapoints"]:
                for operation, ns in zip(data["operationsNames"], point["operationsDurationsNs"]):
                    times.setdefault(operation, []).append(ns / 1e6)
        for suite in json.loads((directory / "benchmark.json").read_text()):
            for spec in suite["SpecReports"] or []:
                for entry in spec.get("ReportEntries") or []:
                    for measurement in json.loads(entry["Value"]["AsJSON"])["Measurements"]:
                        name = f"from scratch: {measurement['Name']}"
                        times.setdefault(name, []).extend(ns / 1e6 for ns in measurement["Durations"] or [])
                if spec["State"] not in (GOOD, "skipped"):
                    message = first_line(spec.get("Failure", {}).get("Message", ""))
                    print(f"FAILED: {directory.name}: {spec['LeafNodeText']}: {message}", file=sys.stderr)
    runtimes = sorted(found, key=lambda name: name != "huskd")
    operations = list(dict.fromkeys(operation for name in runtimes for operation in found[name]))
    Path(args.out, "benchmark.json").write_text(json.dumps(found, indent=1) + "\n")
    print("| median (of) | " + " | ".join(runtimes) + " | ratio |")
    print("|---" * (len(runtimes) + 2) + "|")
    for operation in operations:
        medians = [statistics.median(found[name].get(operation) or [float("nan")]) for name in runtimes]
        times = len(found[runtimes[0]].get(operation, []))
        ratio = f"{medians[0] / medians[-1]:.2f}" if len(medians) > 1 and medians[-1] else "-"
        print(f"| {operation} ({times}) | " + " | ".join(f"{ms:.1f} ms" for ms in medians) + f" | {ratio} |")
    return bool(found)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("shard")
    command.add_argument("list")
    command.add_argument("index", type=int)
    command.add_argument("count", type=int)
    command.set_defaults(run=shard)
    for name, run in (("failed", failed), ("verdict", verdict)):
        command = commands.add_parser(name)
        command.add_argument("list")
        command.add_argument("reports", nargs="*")
        command.set_defaults(run=run)
    command.add_argument("--docs", help="the page to write")
    command.add_argument("--about", default="", help="a sentence on what was run where")
    command.add_argument("--no-reasons", action="store_true", help="for another runtime: every spec may pass")
    command = commands.add_parser("benchmark")
    command.add_argument("--out", default=".", help="where to leave benchmark.json")
    command.add_argument("directories", nargs="+")
    command.set_defaults(run=benchmark)
    args = parser.parse_args()
    sys.exit(0 if args.run(args) in (None, True) else 1)


if __name__ == "__main__":
    main()
