"""Archives are unpacked inside their folder alone."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from scripts import unpack


def make(path: Path, *entries: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for entry in entries:
            tar.addfile(entry, io.BytesIO(b"text") if entry.isfile() else None)
    return path


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode, info.size = kind, target, 0o4777, 4 if kind == tarfile.REGTYPE else 0
    return info


def test_files_and_folders_are_unpacked_with_rights_of_new_ones(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "a.tar.gz", entry("empty", tarfile.DIRTYPE), entry("./b/c/d.txt"), entry("e..txt"))
    assert unpack.main([str(archive), str(tmp_path / "in")]) == 0
    assert (tmp_path / "in" / "empty").is_dir()
    assert (tmp_path / "in" / "b" / "c" / "d.txt").read_text() == "text"
    assert (tmp_path / "in" / "e..txt").stat().st_mode & 0o7111 == 0


@pytest.mark.parametrize(
    ("hostile", "message"),
    [
        (entry("../out.txt"), "'../out.txt' leads out of the folder"),
        (entry("a/../../out.txt"), "leads out of the folder"),
        (entry("..\\out.txt"), "leads out of the folder"),
        (entry("C:/out.txt"), "leads out of the folder"),
        (entry("/tmp/out.txt"), "leads out of the folder"),
        (entry("link", tarfile.SYMTYPE, ".."), "'link' is a link or device"),
        (entry("link", tarfile.LNKTYPE, "whole.txt"), "'link' is a link or device"),
        (entry("pipe", tarfile.FIFOTYPE), "'pipe' is a link or device"),
        (entry("whole.txt/below"), "File exists"),
    ],
)
def test_what_leads_out_of_the_folder_is_refused(
    hostile: tarfile.TarInfo, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "a.tar.gz", entry("whole.txt"), hostile, entry("link/out.txt"))
    assert unpack.main([str(archive), str(tmp_path / "in")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: cannot unpack {archive} (") and message in error and error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "in"]
    assert [path.name for path in (tmp_path / "in").rglob("*")] == ["whole.txt"]


def test_archives_that_are_too_large_or_damaged_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    archive = make(tmp_path / "a.tar.gz", entry("a"), entry("b"), entry("c"))
    whole = archive.read_bytes()
    for start in range(0, len(whole), 3):
        archive.write_bytes(whole[:start] + b"\xff\x00" + whole[start + 2 :])
        unpack.main([str(archive), str(tmp_path / "in")])
    archive.write_bytes(whole[: len(whole) // 2])
    assert unpack.main([str(archive), str(tmp_path / "in")]) == 2
    archive.write_bytes(whole)
    for bound, value in (("MAX_BYTES", 11), ("MAX_ENTRIES", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(unpack, bound, value)
            assert unpack.main([str(archive), str(tmp_path / "in")]) == 2
        assert "it has more than" in capsys.readouterr().err
    assert unpack.main([str(archive), str(tmp_path / "in")]) == 0
