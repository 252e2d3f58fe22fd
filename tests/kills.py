"""Runs that are killed at random moments and started again, and what their files must hold."""

from __future__ import annotations

import csv
import json
import random
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.conftest import ROOT
from winclip.defaults import DEMO_MODEL
from winclip.pictures.images import read_image


def evaluation_command(data: Path, save: Path) -> list[str]:
    """test.py with the demo backbone, with maps."""
    places = ["--dataset", "sample", "--data_path", str(data), "--save_path", str(save)]
    return ["test.py", *places, "--model", DEMO_MODEL, "--device", "cpu", "--k_shot", "0", "1", "--save_maps"]


def prediction_command(data: Path, save: Path) -> list[str]:
    """predict.py with the demo backbone on a class, with masks and report."""
    part = min(path for path in data.iterdir() if path.is_dir())
    pictures = [str(part / "test"), "--reference", str(part / "train"), "--class_name", part.name]
    return ["predict.py", "--demo", "--resume", *pictures, "--save_path", str(save), "--save_masks", "--report"]


def check_kills(command: Callable[[Path, Path], list[str]], data: Path, folder: Path, kills: int) -> None:
    """Kill a run at moments within the time of an undisturbed one, until the same command ends; then begin anew.

    After every kill each file must be whole, and in the end all must hold the bytes of the undisturbed run.
    """
    moments, start, save = random.Random(0), time.monotonic(), folder / "killed"
    run(command(data, folder / "alone"))
    duration, expected = time.monotonic() - start, contents(folder / "alone")
    while kills or save.exists():
        killed = run(command(data, save), moments.uniform(0, duration) if kills else None)
        assert broken(save) == []
        kills -= killed
        if not killed:
            assert contents(save) == expected
            assert [place for place in save.rglob("*") if place.is_dir() and not any(place.iterdir())] == []
            shutil.rmtree(save)


def run(command: list[str], moment: float | None = None) -> bool:
    """Run a command, and kill it after some seconds if it has not ended; returns whether it was."""
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        _, said = process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return True
    assert process.returncode == 0, said.decode()
    return False


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a run by name, without those of test.py that hold times or stored scores."""
    files = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    left_out = ("config.json", "log.txt", "scores")
    return {name.as_posix(): path.read_bytes() for name, path in files.items() if name.parts[0] not in left_out}


def broken(folder: Path) -> list[Path]:
    """Files that are not whole. Hidden ones are ignored: the next run deals with them."""
    return [path for path in folder.rglob("[!.]*") if path.is_file() and not _is_whole(path)]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".json":
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                return len({len(row) for row in csv.reader(file)}) == 1
        elif path.suffix == ".npz":
            return all(len(array) for array in dict(np.load(path)).values())
        elif path.suffix in (".jpg", ".png"):
            read_image(path)
    except (ValueError, EOFError, zipfile.BadZipFile):
        return False
    return True
