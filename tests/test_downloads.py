"""The download scripts, against files and a server of this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.index import load_index
from tests.conftest import ROOT

Done = subprocess.CompletedProcess[str]
MVTEC_FILES = (
    *("bottle/train/good/000.png", "bottle/test/good/000.png", "bottle/test/broken/000.png"),
    *("bottle/ground_truth/broken/000_mask.png", "license.txt"),
)
VISA_FILES = {
    "candle/0.JPG": b"0",
    "candle/1.JPG": b"1",
    "split_csv/1cls.csv": b"object,split,label,image,mask\n"
    b"candle,train,normal,candle/0.JPG,\ncandle,test,normal,candle/1.JPG,\n",
}


def make_archive(path: Path, files: dict[str, bytes], wrapper: str = "") -> str:
    """Pack files in read-only folders, and return the archive's sha256."""
    source = path.with_suffix(".source")
    for name, content in files.items():
        (source / wrapper / name).parent.mkdir(parents=True, exist_ok=True)
        (source / wrapper / name).write_bytes(content)
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as archive:
        for entry in source.iterdir():
            archive.add(entry, entry.name, filter=lambda member: member.replace(mode=0o555, deep=False))
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(name: str, *arguments: str, **variables: str) -> Done:
    command = ["bash", str(ROOT / "scripts" / f"download_{name}.sh"), *arguments]
    environment = {**os.environ, "no_proxy": "127.0.0.1", "MVTEC_URL": "", "VISA_URL": "", **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=120)


class Server(ThreadingHTTPServer):
    """Serves one file and keeps the Range headers it was sent."""

    def __init__(self, content: bytes, ranges: bool, break_after: int | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content, self.ranges, self.break_after = content, ranges, break_after
        self.asked: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.split("=")[1].split("-")[0]) if wanted and self.server.ranges else 0
        size = len(self.server.content)
        if "missing" in self.path or start >= size:
            self.send_error(404 if "missing" in self.path else 416)
            return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.send_header("Content-Length", str(size - start))
        self.end_headers()
        end, self.server.break_after = self.server.break_after, None
        self.wfile.write(self.server.content[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(path: Path, ranges: bool = True, break_after: int | None = None) -> Iterator[Server]:
    server = Server(path.read_bytes(), ranges, break_after)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def mvtec(tmp_path: Path) -> tuple[Path, Path, dict[str, str]]:
    """An archive in MVTec AD's form, the target, and the variables that name its checksum and the target."""
    archive, root = tmp_path / "mvtec.tar.xz", tmp_path / "root"
    sha256 = make_archive(archive, {name: os.urandom(3000) for name in MVTEC_FILES}, "mvtec_anomaly_detection")
    return archive, root, {"MVTEC_SHA256": sha256, "MVTEC_ROOT": str(root)}


def expect_mvtec(done: Done, root: Path) -> None:
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in root.iterdir()) == ["bottle", "license.txt", "meta.json"]
    assert len(load_index(root).test["bottle"]) == 2


def test_given_archive_and_a_second_call(mvtec: tuple[Path, Path, dict[str, str]]) -> None:
    archive, root, variables = mvtec
    root.mkdir()
    (root / "license.txt").write_text("mine")
    expect_mvtec(run("mvtec", str(archive), **variables), root)
    source = archive.with_suffix(".source") / "mvtec_anomaly_detection" / MVTEC_FILES[0]
    assert (root / MVTEC_FILES[0]).read_bytes() == source.read_bytes()
    assert (root / "license.txt").read_text() == "mine" and archive.exists()
    assert (root / "bottle").stat().st_mode & 0o700 == 0o700
    assert run("mvtec", **variables).returncode == 0  # there is nothing to do


@pytest.mark.parametrize(
    ("part", "ranges", "break_after", "asked"),
    [
        (0, True, None, [None]),
        (4000, True, None, ["bytes=4000-"]),
        (0, True, 5000, [None, "bytes=5000-"]),
        (4000, False, None, ["bytes=4000-", None]),
        (-1, True, None, ["bytes=LENGTH-"]),
    ],
)
def test_download_goes_on_where_it_broke_off(
    part: int, ranges: bool, break_after: int | None, asked: list[str], mvtec: tuple[Path, Path, dict[str, str]]
) -> None:
    archive, root, variables = mvtec
    content = archive.read_bytes()
    root.mkdir()
    if part:
        (root / "mvtec.tar.xz.part").write_bytes(content if part < 0 else content[:part])
    with serve(archive, ranges, break_after) as server:
        expect_mvtec(run("mvtec", MVTEC_URL=f"{server.address}/a/mvtec.tar.xz?key=1", **variables), root)
    assert server.asked == [one and one.replace("LENGTH", str(len(content))) for one in asked]


def test_what_cannot_be_fetched_or_unpacked(mvtec: tuple[Path, Path, dict[str, str]], tmp_path: Path) -> None:
    archive, root, variables = mvtec
    # With a wrong checksum, neither a given nor a fetched file is unpacked.
    for given, url, left in ((str(archive), "", []), ("", archive.as_uri(), ["mvtec.tar.xz.part"])):
        done = run("mvtec", given, MVTEC_URL=url, MVTEC_ROOT=str(root))
        assert done.returncode == 2
        assert "cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d" in done.stderr
        assert [path.name for path in root.glob("*")] == left
    shutil.rmtree(root)
    other, text, out = tmp_path / "other.tar", tmp_path / "text.tar", tmp_path / "out.tar"
    sums = {str(other): make_archive(other, {"a/b.txt": b""}), str(tmp_path / "none.tar"): ""}
    text.write_text("no archive")
    with tarfile.open(out, "w") as writer:
        writer.add(text, "../bottle/train/good/0.png")
    sums |= {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in (text, out)}
    with serve(archive) as server:
        sums[f"{server.address}/missing.tar.xz"] = ""
        for source, sha256 in sums.items():
            done = run("mvtec", source, **{**variables, "MVTEC_SHA256": sha256})
            assert done.returncode == 2 and source in done.stderr and not root.exists(), source
    assert server.asked == [None]
    assert not (tmp_path / "bottle").exists()
    assert "MVTEC_URL" in run("mvtec", **variables).stderr


def test_visa_from_a_server(tmp_path: Path) -> None:
    archive, root = tmp_path / "VisA_20220922.tar", tmp_path / "root"
    sha256 = make_archive(archive, VISA_FILES)
    with serve(archive) as server:
        done = run("visa", VISA_URL=f"{server.address}/{archive.name}", VISA_SHA256=sha256, VISA_ROOT=str(root))
    assert done.returncode == 0, done.stderr
    assert list(load_index(root).test) == ["candle"]
