"""The download scripts, against files and a server of this machine."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from datasets.index import load_index

REPOSITORY = Path(__file__).resolve().parent.parent
MVTEC_FILES = (
    "bottle/train/good/000.png",
    "bottle/test/good/000.png",
    "bottle/test/broken/000.png",
    "bottle/ground_truth/broken/000_mask.png",
    "license.txt",
)
VISA_FILES = ("candle/Data/Images/Normal/0.JPG", "candle/Data/Images/Normal/1.JPG", "split_csv/1cls.csv")
CSV = (
    "object,split,label,image,mask\n"
    "candle,train,normal,candle/Data/Images/Normal/0.JPG,\n"
    "candle,test,normal,candle/Data/Images/Normal/1.JPG,\n"
)


def make_archive(path: Path, files: tuple[str, ...], wrapper: str = "") -> str:
    """Pack files (1cls.csv with its content, the others random) and return the archive's sha256."""
    source = path.parent / f"{path.name}.source" / wrapper
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(CSV.encode() if name.endswith(".csv") else os.urandom(3000))
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as archive:
        for entry in sorted((path.parent / f"{path.name}.source").iterdir()):
            archive.add(entry, entry.name)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run(name: str, *arguments: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MVTEC_", "VISA_", "FETCH_"))}
    proxies = {"no_proxy": "127.0.0.1", "NO_PROXY": "127.0.0.1"}
    command = ["bash", str(REPOSITORY / "scripts" / f"download_{name}.sh"), *arguments]
    environment = {**kept, **proxies, **variables}
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=environment, timeout=120)


def listing(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


class Server(ThreadingHTTPServer):
    """Serves one file and keeps the Range headers it was sent."""

    def __init__(self, content: bytes, ranges: bool, break_after: int | None) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = content
        self.ranges = ranges
        self.break_after = break_after
        self.asked: list[str | None] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        start = int(wanted.split("=")[1].split("-")[0]) if wanted and self.server.ranges else 0
        size = len(self.server.content)
        if "missing" in self.path:
            self.send_error(404)
            return
        if start >= size:
            self.send_error(416)
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
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def mvtec(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """An archive in MVTec AD's form, and the variables that name its checksum and the target."""
    archive = tmp_path / "mvtec.tar.xz"
    sha256 = make_archive(archive, MVTEC_FILES)
    return archive, {"MVTEC_SHA256": sha256, "MVTEC_ROOT": str(tmp_path / "root")}


def expect_mvtec(done: subprocess.CompletedProcess[str], root: Path, *extra: str) -> None:
    assert done.returncode == 0, done.stderr
    assert listing(root) == sorted(["bottle", "license.txt", "meta.json", *extra])
    assert [item.img_path for item in load_index(root).test["bottle"]] == [
        "bottle/test/broken/000.png",
        "bottle/test/good/000.png",
    ]
    assert "2 test images: 1 normal and 1 anomalous; 1 train images" in done.stdout


def expect_error(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    assert done.returncode == 2, done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    for part in parts:
        assert part in line


def test_mvtec_from_an_archive_given_as_argument(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    done = run("mvtec", archive.name, cwd=tmp_path, **variables)
    expect_mvtec(done, tmp_path / "root")
    assert archive.exists()
    assert "CC BY-NC-SA 4.0" in done.stdout
    source = tmp_path / "mvtec.tar.xz.source" / MVTEC_FILES[0]
    assert (tmp_path / "root" / MVTEC_FILES[0]).read_bytes() == source.read_bytes()
    again = run("mvtec", cwd=tmp_path, **variables)
    assert again.returncode == 0
    assert "meta.json is there, so nothing is fetched" in again.stdout


def test_mvtec_from_a_file_address(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    expect_mvtec(run("mvtec", cwd=Path("/"), MVTEC_URL=archive.as_uri(), **variables), tmp_path / "root")
    assert archive.exists()


def test_mvtec_from_a_server(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    with serve(archive) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/download/mvtec.tar.xz?key=1", **variables)
    expect_mvtec(done, tmp_path / "root")
    assert server.asked == [None]


def test_mvtec_without_an_address(tmp_path: Path) -> None:
    done = run("mvtec", cwd=tmp_path, MVTEC_ROOT=str(tmp_path / "root"))
    expect_error(done, "the address of the archive is not given")
    assert "MVTEC_URL=ADDRESS bash scripts/download_mvtec.sh" in done.stderr
    assert "https://www.mvtec.com/company/research/datasets/mvtec-ad" in done.stdout
    assert not (tmp_path / "root").exists()


def test_partial_download_is_resumed(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mvtec.tar.xz.part").write_bytes(archive.read_bytes()[:4000])
    with serve(archive) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/mvtec.tar.xz", **variables)
    expect_mvtec(done, tmp_path / "root")
    assert server.asked == ["bytes=4000-"]


def test_partial_copy_of_a_file_address_is_resumed(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mvtec.tar.xz.part").write_bytes(archive.read_bytes()[:4000])
    expect_mvtec(run("mvtec", cwd=tmp_path, MVTEC_URL=archive.as_uri(), **variables), tmp_path / "root")


def test_connection_that_breaks_is_taken_up_again(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    with serve(archive, break_after=5000) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/mvtec.tar.xz", **variables)
    expect_mvtec(done, tmp_path / "root")
    assert server.asked == [None, "bytes=5000-"]


@pytest.mark.parametrize(("ranges", "length"), [(False, 4000), (True, 10**5)])
def test_part_that_cannot_be_continued_is_fetched_anew(
    ranges: bool, length: int, mvtec: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    archive, variables = mvtec
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "mvtec.tar.xz.part").write_bytes(bytes(length))
    with serve(archive, ranges=ranges) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/mvtec.tar.xz", **variables)
    expect_mvtec(done, tmp_path / "root")
    assert server.asked == [f"bytes={length}-", None]


@pytest.mark.parametrize("name", ["mvtec.tar.xz.part", "mvtec.tar.xz"])
def test_whole_download_is_not_fetched_again(name: str, mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    (tmp_path / "root").mkdir()
    shutil.copy(archive, tmp_path / "root" / name)
    with serve(archive) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/mvtec.tar.xz", **variables)
    expect_mvtec(done, tmp_path / "root")
    assert server.asked == []


def test_wrong_checksum_of_a_download(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    found, wanted = variables["MVTEC_SHA256"], "0" * 64
    done = run("mvtec", cwd=tmp_path, MVTEC_URL=archive.as_uri(), **{**variables, "MVTEC_SHA256": wanted})
    expect_error(done, f"mvtec.tar.xz.rejected is {found}, expected {wanted}; nothing was unpacked")
    assert listing(tmp_path / "root") == ["mvtec.tar.xz.rejected"]
    done = run("mvtec", cwd=tmp_path, MVTEC_URL=archive.as_uri(), **variables)
    expect_mvtec(done, tmp_path / "root", "mvtec.tar.xz.rejected")


def test_wrong_checksum_of_a_given_archive(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    del variables["MVTEC_SHA256"]
    done = run("mvtec", str(archive), cwd=tmp_path, **variables)
    expect_error(
        done, "expected cf4313b13603bec67abb49ca959488f7eedce2a9f7795ec54446c649ac98cd3d; nothing was unpacked"
    )
    assert archive.exists()
    assert not (tmp_path / "root").exists()


def test_wrapping_folder_is_left_away(tmp_path: Path) -> None:
    archive = tmp_path / "mvtec.tar.xz"
    sha256 = make_archive(archive, MVTEC_FILES, wrapper="mvtec_anomaly_detection")
    done = run("mvtec", str(archive), cwd=tmp_path, MVTEC_SHA256=sha256, MVTEC_ROOT=str(tmp_path / "root"))
    expect_mvtec(done, tmp_path / "root")


def test_archive_with_folders_that_cannot_be_written(tmp_path: Path) -> None:
    archive = tmp_path / "mvtec.tar.xz"
    make_archive(archive, MVTEC_FILES)
    with tarfile.open(archive, "w:xz") as writer:
        for name in ("bottle", "license.txt"):
            writer.add(f"{archive}.source/{name}", name, filter=read_only)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    done = run("mvtec", str(archive), cwd=tmp_path, MVTEC_SHA256=sha256, MVTEC_ROOT=str(tmp_path / "root"))
    expect_mvtec(done, tmp_path / "root")
    assert (tmp_path / "root" / "bottle").stat().st_mode & 0o700 == 0o700


def read_only(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.mode = 0o555 if member.isdir() else 0o444
    return member


def test_what_is_there_already_stays(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "license.txt").write_text("mine")
    done = run("mvtec", str(archive), cwd=tmp_path, **variables)
    expect_mvtec(done, tmp_path / "root")
    assert f"kept as it was: {tmp_path / 'root' / 'license.txt'}" in done.stdout
    assert (tmp_path / "root" / "license.txt").read_text() == "mine"


def test_archive_of_something_else(tmp_path: Path) -> None:
    archive = tmp_path / "other.tar"
    sha256 = make_archive(archive, ("a/b.txt",))
    done = run("mvtec", str(archive), cwd=tmp_path, MVTEC_SHA256=sha256, MVTEC_ROOT=str(tmp_path / "root"))
    expect_error(done, "other.tar holds no */train, so it is another data set")
    text = tmp_path / "text.tar"
    text.write_text("no archive")
    sha256 = hashlib.sha256(b"no archive").hexdigest()
    done = run("mvtec", str(text), cwd=tmp_path, MVTEC_SHA256=sha256, MVTEC_ROOT=str(tmp_path / "root"))
    expect_error(done, "cannot unpack", "text.tar")
    assert not (tmp_path / "root").exists()


def test_archive_or_address_that_is_not_there(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    done = run("mvtec", "none.tar.xz", cwd=tmp_path, **variables)
    expect_error(done, "archive none.tar.xz does not exist")
    done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{archive.as_uri()}.none", **variables)
    expect_error(done, "cannot fetch file://", "give the file as the argument")
    with serve(archive) as server:
        done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/missing.tar.xz", **variables)
    expect_error(done, f"cannot fetch {server.address}/missing.tar.xz")
    assert server.asked == [None]
    done = run("mvtec", cwd=tmp_path, MVTEC_URL=f"{server.address}/x.tar.xz", FETCH_ATTEMPTS="2", **variables)
    expect_error(done, f"cannot fetch {server.address}/x.tar.xz")
    assert "download broke off, trying again (1 of 2)" in done.stderr
    assert not (tmp_path / "root").exists()


def test_target_that_cannot_be_made(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    done = run("mvtec", str(archive), cwd=tmp_path, **{**variables, "MVTEC_ROOT": f"{archive}/root"})
    expect_error(done, f"cannot make the folder {archive}/root")


def test_error_of_the_listing_is_passed_on(tmp_path: Path) -> None:
    archive = tmp_path / "mvtec.tar.xz"
    sha256 = make_archive(archive, MVTEC_FILES[:1])
    done = run("mvtec", str(archive), cwd=tmp_path, MVTEC_SHA256=sha256, MVTEC_ROOT=str(tmp_path / "root"))
    expect_error(done, "class bottle has no images in the folders of")


@pytest.mark.parametrize("wrapper", ["", "VisA"])
def test_visa_from_a_server(wrapper: str, tmp_path: Path) -> None:
    archive = tmp_path / "VisA_20220922.tar"
    variables = {"VISA_SHA256": make_archive(archive, VISA_FILES, wrapper), "VISA_ROOT": str(tmp_path / "root")}
    with serve(archive) as server:
        done = run("visa", cwd=tmp_path, VISA_URL=f"{server.address}/VisA_20220922.tar", **variables)
    assert done.returncode == 0, done.stderr
    assert listing(tmp_path / "root") == ["candle", "meta.json", "split_csv"]
    assert list(load_index(tmp_path / "root").test) == ["candle"]
    assert "1 test images: 1 normal and 0 anomalous; 1 train images" in done.stdout
    assert "licence CC BY 4.0" in done.stdout


def test_visa_checks_the_published_checksum(tmp_path: Path) -> None:
    archive = tmp_path / "VisA_20220922.tar"
    make_archive(archive, VISA_FILES)
    done = run("visa", str(archive), cwd=tmp_path, VISA_ROOT=str(tmp_path / "root"))
    expect_error(done, "expected 2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362")
    assert not (tmp_path / "root").exists()


def test_visa_default_address(tmp_path: Path) -> None:
    tools = only_these_tools(tmp_path)
    write_tool(tools / "curl", 'import sys; print(sys.argv[-1], file=sys.stderr); print("000", end=""); sys.exit(37)')
    done = run("visa", cwd=tmp_path, PATH=str(tools), VISA_ROOT=str(tmp_path / "root"))
    address = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
    expect_error(done, f"cannot fetch {address}")
    assert address in done.stderr.splitlines()


def only_these_tools(tmp_path: Path) -> Path:
    """A folder with the tools the scripts need, but no curl, wget, sha256sum or shasum."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in (
        "bash",
        "cut",
        "dirname",
        "mkdir",
        "mktemp",
        "mv",
        "rm",
        "rmdir",
        "sleep",
        "cat",
    ):
        found = shutil.which(name)
        assert found is not None
        (tools / name).symlink_to(found)
    return tools


def write_tool(path: Path, program: str) -> None:
    path.write_text(f"#!{sys.executable}\n{program}\n")
    path.chmod(0o755)


FAKE_WGET = """
import pathlib, sys, urllib.parse
options, address = sys.argv[1:-1], sys.argv[-1]
assert "--continue" in options, options
target = next(option.split("=", 1)[1] for option in options if option.startswith("--output-document="))
content = pathlib.Path(urllib.parse.unquote(urllib.parse.urlparse(address).path)).read_bytes()
with open(target, "ab") as file:
    print("wget resumes at", file.tell(), file=sys.stderr)
    file.write(content[file.tell():])
"""
FAKE_SHASUM = """
import hashlib, sys
assert sys.argv[1:] == ["-a", "256"], sys.argv
print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), "-")
"""


def test_wget_and_shasum_serve_where_the_others_are_missing(mvtec: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    archive, variables = mvtec
    tools = only_these_tools(tmp_path)
    (tools / "python3").symlink_to(sys.executable)
    variables = {**variables, "PATH": str(tools), "MVTEC_URL": archive.as_uri()}
    expect_error(run("mvtec", cwd=tmp_path, **variables), "neither curl nor wget is installed")
    write_tool(tools / "wget", FAKE_WGET)
    done = run("mvtec", cwd=tmp_path, **variables)
    expect_error(done, "neither sha256sum nor shasum is installed")
    write_tool(tools / "shasum", FAKE_SHASUM)
    (tmp_path / "root" / "mvtec.tar.xz").rename(tmp_path / "root" / "mvtec.tar.xz.part")
    os.truncate(tmp_path / "root" / "mvtec.tar.xz.part", 4000)
    done = run("mvtec", cwd=tmp_path, **variables)
    expect_mvtec(done, tmp_path / "root")
    assert "wget resumes at 4000" in done.stderr
