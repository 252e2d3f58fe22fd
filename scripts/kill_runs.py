"""Kill runs at random moments, start them again, and compare the end with a run that was left alone.

    python -m scripts.kill_runs test --kills 30
    python -m scripts.kill_runs predict --kills 30

Every run is killed with SIGKILL at a moment of the time that an undisturbed one takes, and the same command follows,
until it ends before its moment comes; then the next starts in an empty folder. After every kill each file has to be
complete, and in the end all have to hold the bytes of the undisturbed run: the log and the time taken aside, which
differ between any two runs. The exit status is 1 if a file does not.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from datasets.index import META_FILE, write_index
from datasets.mvtec import list_mvtec
from winclip.defaults import DEMO_MODEL
from winclip.demo.sample import make_sample
from winclip.pictures.images import read_image

ROOT = Path(__file__).resolve().parent.parent
Command = Callable[[Path, Path], "list[str]"]


def evaluation_command(data: Path, save: Path) -> list[str]:
    """test.py with the demo backbone, with maps."""
    places = ["--dataset", "sample", "--data_path", str(data), "--save_path", str(save)]
    return ["test.py", *places, "--model", DEMO_MODEL, "--device", "cpu", "--k_shot", "0", "1", "--save_maps"]


def prediction_command(data: Path, save: Path) -> list[str]:
    """predict.py with the demo backbone on a class, with masks and report."""
    part = min(path for path in data.iterdir() if path.is_dir())
    pictures = [str(part / "test"), "--reference", str(part / "train"), "--class_name", part.name]
    return ["predict.py", "--demo", "--resume", *pictures, "--save_path", str(save), "--save_masks", "--report"]


COMMANDS: dict[str, Command] = {"test": evaluation_command, "predict": prediction_command}


def build_parser() -> argparse.ArgumentParser:
    """The parser."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--kills", type=int, default=30, metavar="N", help="how many (30)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (0)")
    parser.add_argument("--data_path", type=Path, help="a data set with a meta.json (the drawn sample)")
    return parser


def main(arguments: list[str]) -> int:
    """Kill as the options say, print what came of it, and return the exit status."""
    options = build_parser().parse_args(arguments)
    moments = random.Random(options.seed)
    command = COMMANDS[options.command]
    kills = continued = ended = 0
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, save = options.data_path or drawn_sample(folder / "sample"), folder / "killed"
        start = time.monotonic()
        run(command(data, folder / "alone"))
        duration, expected = time.monotonic() - start, contents(folder / "alone")
        while kills < options.kills or save.exists():
            # The last runs to its end.
            moment = moments.uniform(0, duration) if kills < options.kills else None
            killed, said = run(command(data, save), moment)
            continued += bool(re.search(r": [1-9].* are (scored|done) already", said))
            wrong += broken(save)
            if killed:
                kills += 1
                continue
            ended += 1
            found = contents(save)
            wrong += [name for name in {*expected, *found} if expected.get(name) != found.get(name)]
            shutil.rmtree(save)
    print(
        f"{options.command}: {kills} kills in runs of {duration:.1f} s, {continued} starts that went on behind images,"
        f" {ended} runs to the end, {len(wrong)} files broken or other than those of the undisturbed run"
    )
    for name in wrong:
        print(f"wrong: {name}")
    return 1 if wrong else 0


def drawn_sample(folder: Path) -> Path:
    """The sample data set with its meta.json."""
    make_sample(folder)
    if not (folder / META_FILE).exists():
        write_index(list_mvtec(folder, print, all_classes=True))
    return folder


def run(command: list[str], moment: float | None = None) -> tuple[bool, str]:
    """Run a command, and kill it after some seconds if it has not ended; returns whether it was, and its log."""
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        _, said = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        return True, process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode}:\n{said}")
    return False, said


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run by its name but test.py's log, and of its config.json what two runs have in common."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("log.txt", None)
    if "config.json" in found:
        config = json.loads(found["config.json"])
        del config["seconds"], config["options"]["save_path"]
        found["config.json"] = json.dumps(config).encode()
    return found


def broken(folder: Path) -> list[str]:
    """Files that are not whole. Hidden ones are passed over: the next run sees to them."""
    return [str(path) for path in folder.rglob("[!.]*") if path.is_file() and not _is_whole(path)]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return len({len(row) for row in csv.reader(file)}) == 1
        elif path.suffix == ".npz":
            with np.load(path) as arrays:
                return all(len(arrays[name]) for name in arrays)
        elif path.suffix in (".jpg", ".png"):
            read_image(path)
    except (ValueError, EOFError, zipfile.BadZipFile):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
