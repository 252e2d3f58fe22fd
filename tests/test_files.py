"""One run per output folder, and what a killed run leaves there."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from winclip import InputError
from winclip.support.files import lock_folder, write_atomically

# Holds the folder until it is killed, as a run that is at work does, with a file half written.
HOLD = """
import sys
from pathlib import Path
import winclip.support.files as files
def hang(*given):
    print("held", flush=True)
    sys.stdin.read()
with files.lock_folder(Path(sys.argv[1])):
    files.os.fsync = hang
    files.write_atomically(Path(sys.argv[1]) / "deep" / "map.jpg", b"12345")
"""


def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InputError) as refused, lock_folder(folder):
            pass
        process.kill()
    assert str(refused.value) == (
        f"another run (process {process.pid} on {platform.node()}) writes to {folder};"
        " wait for its end, or choose another --save_path"
    )
    (folder / "deep" / "kept.tmp").write_text("")
    assert len(list((folder / "deep").iterdir())) == 2
    with lock_folder(folder):
        assert [path.name for path in (folder / "deep").iterdir()] == ["kept.tmp"]
    assert [path.name for path in folder.iterdir()] == ["deep"]


def test_a_lock_file_of_somebody_else_is_not_repeated(tmp_path: Path) -> None:
    with lock_folder(tmp_path):
        (lock,) = tmp_path.iterdir()
        lock.write_text("\x1b[31m")
        with pytest.raises(InputError, match=r"^another run writes to "), lock_folder(tmp_path):
            pass


def test_a_lock_that_was_removed_while_it_was_waited_for_is_taken_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = "winclip.support.files._lock"
    calls = iter(range(10))

    def remove_first(descriptor: int) -> None:
        if next(calls) == 0:
            next(tmp_path.iterdir()).unlink()

    monkeypatch.setattr(lock, remove_first)
    with lock_folder(tmp_path):
        assert next(calls) == 2
        assert len(list(tmp_path.iterdir())) == 1


def test_where_there_are_no_locks_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def unknown(descriptor: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("winclip.support.files._lock", unknown)
    with lock_folder(tmp_path):
        write_atomically(tmp_path / "file", "content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert logged == [f"{tmp_path} knows no locks ([Errno 37] No locks available); see to it that one run at a time"
                      " writes there"]  # fmt: skip
