"""Every write fails in turn: each file is the old one or whole, the error names one, and the run can go on."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import evaluation.parts
import predict
import winclip.support.files
from tests.conftest import make_data
from tests.tiny import CONFIG
from winclip import WinCLIP
from winclip.prediction.rows import JOURNAL, Journal, read_rows, write_tables
from winclip.support.command_line import ModelOptions

Run = Callable[..., int]
ERRORS = [errno.ENOSPC, errno.EACCES, errno.EROFS]


def faults(steps: int) -> list[tuple[int, int]]:
    """Every write, failing for one of the reasons; with WINCLIP_EVERY_FAULT=1 for each of them."""
    every = "WINCLIP_EVERY_FAULT" in os.environ
    return [(step, error) for step in range(steps) for error in (ERRORS if every else [ERRORS[step % len(ERRORS)]])]


class Disk:
    """Counts the writes below a folder, keeps their content, and makes one of them fail on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.start(Path("nowhere"))
        write, replace, begin = winclip.support.files._write_to_disk, Path.replace, Journal.__init__

        def faulty_write(path: Path, parts: Iterable[bytes]) -> None:
            data = b"".join(parts)
            self._step(path, lambda: write(path, [data[: len(data) // 2]]))
            write(path, [data])

        def faulty_replace(path: Path, target: Path) -> Path:
            self._step(target)
            self.written.setdefault(target, []).append(path.read_bytes())
            return replace(path, target)

        def faulty_begin(journal: Journal, save: Path) -> None:
            begin(journal, save)
            journal._file = FaultyFile(journal._file, self, journal.path)  # type: ignore[assignment]

        monkeypatch.setattr(winclip.support.files, "_write_to_disk", faulty_write)
        monkeypatch.setattr(Path, "replace", faulty_replace)
        monkeypatch.setattr(Journal, "__init__", faulty_begin)

    def start(self, folder: Path, fail_at: int = -1, error: int = errno.ENOSPC) -> None:
        """Count from 0 below another folder; the write with this number fails."""
        self.steps = 0
        self.written: dict[Path, list[bytes]] = {}
        self._folder, self._fail_at, self._error = folder, fail_at, error

    def _step(self, path: Path, write_a_part: Callable[[], object] = lambda: None) -> None:
        if not path.is_relative_to(self._folder):
            return
        self.steps += 1
        if self.steps - 1 == self._fail_at:
            if self._error == errno.ENOSPC:
                write_a_part()
            raise OSError(self._error, os.strerror(self._error))


class FaultyFile:
    """The journal's file on the disk."""

    def __init__(self, file: Any, disk: Disk, path: Path) -> None:
        self._file, self._disk, self._path = file, disk, path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: memoryview) -> int:
        self._disk._step(self._path, lambda: self._file.write(data[: len(data) // 2]))
        return int(self._file.write(data))


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> Disk:
    """The disk, and a model that is loaded once."""
    model = WinCLIP.from_pretrained(str(CONFIG), str(checkpoint), device="cpu")
    monkeypatch.setattr(ModelOptions, "load", lambda *_, **__: model)
    return Disk(monkeypatch)


def contents(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def check_failure(save: Path, status: int, error: str, number: int) -> None:
    """One line that names a file and the reason."""
    assert status == 2
    lines = [line for line in error.splitlines() if not line.startswith(("info:", "warning:"))]
    assert len(lines) == 1
    assert re.match(rf"error: cannot write {re.escape(str(save))}/\S+ \({os.strerror(number)}\)", lines[0]), lines


def test_every_write_of_predict_fails_in_turn(
    disk: Disk, tmp_path: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "images").mkdir()
    for number in range(2):
        pixels = np.random.RandomState(number).randint(90, 130, (30, 30, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{number}.png")
    (tmp_path / "images" / "text.png").write_text("no picture")

    def run(save: Path, *more: str) -> int:
        model = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu", "--num_workers", "0"]
        files = ["--save_path", str(save), "--save_masks", "--report"]
        return predict.main([str(tmp_path / "images"), "--class_name", "bolt", *files, *model, *more])

    former, whole, save = tmp_path / "former", tmp_path / "whole", tmp_path / "out"
    assert run(former, "--threshold", "0.9") == 0
    shutil.copytree(former, whole)
    disk.start(whole)
    assert run(whole) == 0
    steps, wanted = disk.steps, contents(whole)
    # 2 of each: 2 maps, masks and heat maps, 3 tables, the report, the beginning of the journal, and run.json three
    # times; 2 rows.
    assert steps == 2 * (6 + 3 + 1 + 1 + 3) + 2
    assert not (whole / "maps").exists()
    sound = {path.relative_to(whole).as_posix(): versions for path, versions in disk.written.items()}
    for name, content in contents(former).items():
        sound[name].append(content)
    # Also the tables of a run that ends after no row or one, before the unreadable picture.
    lines = wanted[JOURNAL].splitlines(keepends=True)
    for rows in range(3):
        (save / JOURNAL).parent.mkdir(exist_ok=True)
        (save / JOURNAL).write_bytes(b"".join(lines[: 1 + rows]))
        write_tables(save, read_rows(save), [])
        for name, content in contents(save).items():
            sound[name].append(content)
    for number, error in faults(steps):
        shutil.rmtree(save, ignore_errors=True)
        shutil.copytree(former, save)
        disk.start(save, number, error)
        capsys.readouterr()
        check_failure(save, run(save), capsys.readouterr().err, error)
        left = contents(save)
        journal = left.pop(JOURNAL)
        assert all(content in sound[name] for name, content in left.items()), (number, error)
        begun = journal.startswith(sound[JOURNAL][0])
        assert wanted[JOURNAL].startswith(journal) if begun else journal == contents(former)[JOURNAL]
        assert run(save, *(["--resume"] if begun else [])) == 0
        assert contents(save) == wanted, (number, error)


def test_every_write_of_an_evaluation_fails_in_turn(
    disk: Disk, evaluate: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The same number of writes, however long a run takes.
    monkeypatch.setattr(evaluation.parts, "SECONDS", float("inf"))
    data = make_data(tmp_path / "data")
    meta = json.loads((data / "meta.json").read_text())
    meta["test"] = {name: items[2:4] for name, items in meta["test"].items()}
    (data / "meta.json").write_text(json.dumps(meta))
    former, whole, save = tmp_path / "former", tmp_path / "whole", tmp_path / "out"
    options = ["--save_maps", "--num_workers", "0"]
    assert evaluate(data, former, "--k_shot", "1", *options) == 0
    shutil.copytree(former, whole)
    disk.start(whole)
    assert evaluate(data, whole, *options) == 0
    sound = {path.relative_to(whole).as_posix(): versions for path, versions in disk.written.items()}
    for name, content in contents(former).items():
        sound.setdefault(name, []).append(content)
    steps, wanted = disk.steps, stable(whole)
    # 2 of each: the log, made_with.json, for both classes the part, the maps and 7 files, and these at the end.
    assert steps == 2 * (2 + 2 * (1 + 1 + 7) + 7)
    for number, error in faults(steps):
        shutil.rmtree(save, ignore_errors=True)
        shutil.copytree(former, save)
        disk.start(save, number, error)
        capsys.readouterr()
        check_failure(save, evaluate(data, save, *options), capsys.readouterr().err, error)
        for name, content in contents(save).items():
            if name == "config.json":
                assert "finished" in json.loads(content)
            elif name == "log.txt":
                assert content.endswith(b"\n")
            elif not name.startswith(evaluation.parts.FOLDER):
                assert content in sound[name], (number, error, name)
        assert evaluate(data, save, *options) == 0
        assert stable(save) == wanted, (number, error)


def stable(save: Path) -> dict[str, bytes]:
    """The files of a run that do not hold times."""
    return {name: content for name, content in contents(save).items() if name not in ("config.json", "log.txt")}
