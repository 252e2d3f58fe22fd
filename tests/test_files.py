"""One run per output folder, the remains of a killed run, and files that cannot be read."""

from __future__ import annotations

import errno
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from winclip import InputError
from winclip.support.files import lock_folder, read_json, write_atomically

# Locks the folder until it is killed, like a run in progress, with a file half written.
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
        with pytest.raises(InputError, match=f"another run writes to {folder}.*--save_path"), lock_folder(folder):
            pass
        process.kill()
    (folder / "deep" / "kept.tmp").write_text("")
    assert len(list((folder / "deep").iterdir())) == 2
    with lock_folder(folder):
        with pytest.raises(InputError, match=f"{folder}.*--output"), lock_folder(folder, "--output"):
            pass
        assert [path.name for path in (folder / "deep").iterdir()] == ["kept.tmp"]
    assert [path.name for path in folder.iterdir()] == ["deep"]


def test_where_there_are_no_locks_a_run_goes_on_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: list[str]
) -> None:
    def unknown(lock: FileLock, timeout: float) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(FileLock, "acquire", unknown)
    with lock_folder(tmp_path):
        write_atomically(tmp_path / "file", "content")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert len(logged) == 1 and str(tmp_path) in logged[0]


def test_what_is_no_json_is_named(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    for content in (b"\xff", b"{", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(InputError, match=f"prompt set {path} "):
            read_json(path, "prompt set")
    with pytest.raises(InputError, match=r"nowhere\.json"):
        read_json(tmp_path / "nowhere.json", "prompt set")


def test_json_is_read_up_to_a_limit_and_loses_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "meta.json"
    path.write_text('{"train": {"bolt": [1], "bolt": [2]}}')
    with pytest.raises(InputError, match="'bolt' is there more than once"):
        read_json(path, "list of images")
    path.write_text("[1, 2]")
    assert read_json(path, "list of images") == [1, 2]
    monkeypatch.setattr("winclip.support.files._MOST_BYTES", 5)
    with pytest.raises(InputError, match="is larger than 0 MB"):
        read_json(path, "list of images")
