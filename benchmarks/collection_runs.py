"""Runs of score_collection.py that are killed, and a long one: every row has to be there once, equal to predict.py's.

    python -m benchmarks.collection_runs                      # 2,000 pictures, and 20,000: the same listed ten times

Takes photographs of the package elpv-dataset and the demo backbone, and a local Ray of two workers. Kills a worker when
half of the rows are there, and in another run the driver, which is started again. Of the long run the memory of the
driver and of the largest worker is printed as it goes on. Prints tables, and ends with status 1 where a row is missing,
doubled or another, or memory grew.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pyarrow.parquet as pq
from tabulate import tabulate

from benchmarks.benchmark import machine, memory_mb
from collection.rows import ANOMALOUS, ROWS
from datasets.elpv import find_package, read_labels
from winclip.defaults import DEMO_MODEL

ROOT = Path(__file__).resolve().parent.parent
REFERENCES, ROWS_PER_FILE = 8, 64
# Other numbers of threads round otherwise.
TOLERANCE = 1e-6
GROWTH_MB = 100
Disturb = Callable[["subprocess.Popen[bytes]", Path], str]
# Score, threshold and area; verdict; box.
Row = tuple[tuple[float, float, float], bool, tuple[int, ...]]


def main() -> int:
    """Run, print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=2000, metavar="N", help="how many (2000)")
    parser.add_argument("--times", type=int, default=10, metavar="N", help="how often the long run lists them (10)")
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        link_pictures(folder, options.pictures, options.times)
        expected = predicted(folder)
        table = []
        disturbed = {"undisturbed": leave_alone, "worker killed": kill_worker, "driver killed": kill_driver}
        for kind, disturb in disturbed.items():
            start = time.monotonic()
            killed = score(folder, kind, "once", disturb)
            seconds = time.monotonic() - start
            table.append([kind, killed, f"{seconds:.0f}", *differences(folder / kind, expected)])
        head = ["run", "killed at rows", "seconds", "rows", "missing", "doubled", "other than predict.py's", "largest"]
        print(tabulate(table, head), flush=True)
        memory: list[tuple[int, int, int]] = []
        score(folder, "long", "often", lambda process, output: watch(process, output, memory))
        found = [path for path, _ in rows_of(folder / "long")]
        print(tabulate(memory, ["rows", "driver, MB", "largest worker, MB"]))
        print(f"{len(found)} rows, {len(set(found))} different")
    steady = memory[len(memory) // 4 :]
    middle = len(steady) // 2
    growth = [fmean(row[n] for row in steady[middle:]) - fmean(row[n] for row in steady[:middle]) for n in (1, 2)]
    print(f"second half of the last three quarters against the first: {growth[0]:+.0f} and {growth[1]:+.0f} MB")
    complete = len(found) == len(set(found)) == options.pictures * options.times
    return int(not complete or any(any(row[4:7]) for row in table) or max(growth) > GROWTH_MB)


def link_pictures(folder: Path, count: int, times: int) -> None:
    """Links to the references, to the pictures in ``once``, and to them again and again in ``often``."""
    package = find_package()
    labels = read_labels(package / "labels.csv")
    references = sorted(name for name, probability in labels.items() if probability == 0)[:REFERENCES]
    pictures = sorted(set(labels) - set(references))[:count]
    places = {"good": references, "once": pictures} | {f"often/{number}": pictures for number in range(times)}
    for place, names in places.items():
        (folder / place).mkdir(parents=True)
        for name in names:
            (folder / place / Path(name).name).symlink_to(package / name)


def predicted(folder: Path) -> dict[str, Row]:
    """What predict.py says of the pictures, and the memory file that the other runs take."""
    places = ["--reference", "good", "--save_memory", "cell.safetensors", "--save_path", "predicted", "once"]
    command = [str(ROOT / "predict.py"), "--demo", "--device", "cpu", "--class_name", "solar cell", *places]
    subprocess.run([sys.executable, *command], cwd=folder, env=environment(), check=True, stdout=subprocess.DEVNULL)
    with (folder / "predicted" / "predictions.csv").open(encoding="utf-8", newline="") as file:
        return {
            row["path"]: (
                (float(row["score"]), float(row["threshold"]), float(row["area"])),
                row["anomalous"] == "yes",
                tuple(int(row[f"box_{name}"]) for name in "xywh" if row[f"box_{name}"]),
            )
            for row in csv.DictReader(file)
        }


def environment() -> dict[str, str]:
    """One thread a process, as Ray gives its workers."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def score(folder: Path, output: str, source: str, disturb: Disturb) -> str:
    """Run score_collection.py, twice if it is killed; what ``disturb`` did."""
    places = ["--input", source, "--memory", "cell.safetensors", "--output", output]
    model = ["--model", DEMO_MODEL, "--device", "cpu"]
    size = ["--workers", "2", "--rows_per_file", str(ROWS_PER_FILE)]
    command = [sys.executable, "-m", "scripts.score_collection", *places, *model, *size]

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, cwd=folder, env=environment(), stdout=subprocess.DEVNULL)

    process = start()
    done = disturb(process, folder / output)
    if process.wait() == -signal.SIGKILL:
        process = start()
    if process.wait():
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}")
    return done


def leave_alone(process: subprocess.Popen[bytes], output: Path) -> str:
    """Nothing."""
    return ""


def kill_worker(process: subprocess.Popen[bytes], output: Path) -> str:
    """Kill a worker when half of the rows are there."""
    count = wait_for_half(process, output)
    os.kill(workers(process.pid)[0], signal.SIGKILL)
    return str(count)


def kill_driver(process: subprocess.Popen[bytes], output: Path) -> str:
    """Kill the driver when half of the rows are there."""
    count = wait_for_half(process, output)
    process.kill()
    return str(count)


def wait_for_half(process: subprocess.Popen[bytes], output: Path) -> int:
    """The number of rows at that moment."""
    pictures = len(list((output.parent / "once").iterdir()))
    while (count := len(files(output)) * ROWS_PER_FILE) < pictures / 2:
        if process.poll() is not None:
            raise SystemExit("the run ended before half of the rows were there")
        time.sleep(0.1)
    return count


def watch(process: subprocess.Popen[bytes], output: Path, memory: list[tuple[int, int, int]]) -> str:
    """Note the memory of the driver and the largest worker, 20 times."""
    total = len(list((output.parent / "often").glob("*/*")))
    while process.poll() is None:
        count = len(files(output)) * ROWS_PER_FILE
        if count and count >= total / 20 * len(memory):
            with contextlib.suppress(OSError):  # one is gone
                of_workers = max(map(memory_mb, workers(process.pid)))
                memory.append((count, round(memory_mb(process.pid)), round(of_workers)))
        time.sleep(0.5)
    return ""


def files(output: Path) -> list[Path]:
    """The files of rows."""
    return list((output / ROWS).glob("part-*.parquet"))


def workers(driver: int) -> list[int]:
    """The processes below the driver that hold the model."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    below, found = {driver}, []
    while new := {process for process, parent in parents.items() if parent in below} - below:
        below |= new
    for process in below:
        with contextlib.suppress(OSError):
            if b"MapWorker" in Path(f"/proc/{process}/cmdline").read_bytes():
                found.append(process)
    return found


def rows_of(output: Path) -> list[tuple[str, Row]]:
    """The rows by path."""
    rows = []
    for row in pq.read_table(output / ROWS).to_pylist():
        numbers = row["score"], row["threshold"], row["area"]
        rows.append((row["path"], (numbers, row["verdict"] == ANOMALOUS, tuple((row["box"] or {}).values()))))
    return rows


def differences(output: Path, expected: dict[str, Row]) -> list[Any]:
    """Rows, how many are missing, doubled and other than predict.py's, and by how much numbers differ at most."""
    rows = rows_of(output)
    found = dict(rows)
    other, largest = 0, 0.0
    for path, row in found.items():
        known = expected[path]
        difference = max(abs(one - two) for one, two in zip(row[0], known[0]))
        largest = max(largest, difference)
        other += difference > TOLERANCE or row[1:] != known[1:]
    return [len(rows), len(expected.keys() - found.keys()), len(rows) - len(found), other, f"{largest:.1g}"]


if __name__ == "__main__":
    sys.exit(main())
