"""Try the readers of files on many damaged and hostile ones; prints a table of inputs and findings by kind.

python -m scripts.fuzz                              # 1,000 inputs of every kind
python -m scripts.fuzz --kind pt --inputs 10000     # of one kind
python -m scripts.fuzz --inputs 10000 --minutes 10  # as many as ten minutes allow, of every kind in turn

A reader that takes its file, or refuses it with the project's own error, is right. Anything else is a finding:
another error, a crash, more than 5 s of computing, more than 1 GB of memory, a message that is no short line. A
finding names the seed that gives its input again.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random

SECONDS, MEGABYTES = 5, 1000
# A reader that waits does not compute, and ends here.
_WAIT = 120
KINDS = ("meta", "prompts", "references", "visa", "config", "pt", "safetensors", "memory", "image")


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", nargs="+", choices=KINDS, default=KINDS, metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--inputs", type=int, default=1000, help="inputs of each kind (1000)")
    parser.add_argument("--seed", type=int, default=0, help="of the first input; the next has the next (0)")
    parser.add_argument("--minutes", type=float, default=60, help="after which nothing more is tried (60)")
    return parser


def main(arguments: list[str]) -> int:
    """Try every kind; returns 1 if there are findings."""
    options = build_parser().parse_args(arguments)
    end = time.monotonic() + 60 * options.minutes
    found = 0
    print("| kind | inputs | findings |\n|---|---|---|")
    for number, kind in enumerate(options.kind):
        share = (end - time.monotonic()) / (len(options.kind) - number)
        tried, findings = fuzz(kind, options.inputs, options.seed, share)
        print(f"| {kind} | {tried:,} | {len(findings)} |", flush=True)
        for finding in findings:
            print(f"{kind}, {finding}", file=sys.stderr, flush=True)
        found += len(findings)
    return 1 if found else 0


def fuzz(kind: str, inputs: int, seed: int, seconds: float) -> tuple[int, list[str]]:
    """Try inputs of a kind in a process of their own, and in another one after each finding.

    Returns:
        How many were tried, and the findings, each with its seed.
    """
    start, last, findings = seed, seed + inputs, []
    end = time.monotonic() + seconds
    # Not forked: torch's threads would be missing in the copy.
    context = multiprocessing.get_context("spawn")
    while start < last and time.monotonic() < end:
        ours, theirs = context.Pipe()
        process = context.Process(target=_work, args=(kind, start, last, max(end - time.monotonic(), 0), theirs))
        process.start()
        theirs.close()
        finding = None
        while finding is None:
            if not ours.poll(_WAIT):
                process.kill()
                finding = f"no answer within {_WAIT} s"
                break
            try:
                start, finding = ours.recv()
            except EOFError:  # it has ended
                break
        process.join()
        if finding is None and process.exitcode:
            killed = {-signal.SIGPROF: f"more than {SECONDS} s of computing"}
            finding = killed.get(process.exitcode, f"the process ended with status {process.exitcode}")
        if finding is None:
            break
        findings.append(f"seed {start}: {finding}")
        start += 1
    return start - seed, findings


def _work(kind: str, start: int, last: int, seconds: float, answers: Connection) -> None:
    """Send each seed before it is tried and, behind a finding, end."""
    with tempfile.TemporaryDirectory(prefix="winclip-fuzz-") as name:
        os.environ["XDG_CACHE_HOME"] = f"{name}/cache"
        warnings.simplefilter("ignore")
        from tests.fuzzing import Kinds

        folder, end = Path(name), time.monotonic() + seconds
        (folder / "input").mkdir()
        target = Kinds(folder).kinds[kind]
        target.finding(Random(-1), folder / "input")  # makes what all inputs share
        before = _peak()
        for seed in range(start, last):
            if time.monotonic() > end:
                answers.send((seed, None))
                return
            answers.send((seed, None))
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            finding = target.finding(Random(seed), folder / "input")
            signal.setitimer(signal.ITIMER_PROF, 0)
            if finding is None and _peak() - before > MEGABYTES:
                finding = f"{_peak() - before:.0f} MB of memory"
            if finding is not None:
                answers.send((seed, finding))
                return
        answers.send((last, None))


def _peak() -> float:
    """The most memory that this process has held, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
