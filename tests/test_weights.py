"""Finding and fetching the weights of a tag, against a server of this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from open_clip.pretrained import get_pretrained_cfg

from tests.conftest import ROOT
from winclip.network.weights import _within

# The hub's client writes 10 MB at a time, and what it holds back is lost when a connection breaks.
CONTENT = random.Random(0).randbytes(30_000_000)
WRITTEN = 10 << 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_FILE = "/org/model/resolve/main/open_clip_pytorch_model.bin"
NAME = "org--model--open_clip_pytorch_model.bin"
# Where open_clip has the default weights from; releases differ.
TAG = get_pretrained_cfg("ViT-B-16-plus-240", "laion400m_e31")
FIND = "import sys; from winclip.network.weights import find_weights; print(find_weights({sys.argv[1]: sys.argv[2]}))"


class Hub(ThreadingHTTPServer):
    """Serves files by their paths; other paths of repositories are answered as the hub answers them.

    Attributes:
        files: content by path.
        sha256: the etag of all of them.
        asked: method, path and Range header of each request.
        break_after: bytes of the coming answers after which the connection is reset, None for whole answers.
        ranges: whether Range headers are minded.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {HUB_FILE: CONTENT}
        self.sha256 = SHA256
        self.asked: list[tuple[str, str, str | None]] = []
        self.break_after: list[int | None] = []
        self.ranges = True
        self.address = f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str | None]:
        """The Range headers of the requests for content."""
        return [wanted for method, _, wanted in self.asked if method == "GET"]


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        rest = self.answer()
        end = self.server.break_after.pop(0) if rest and self.server.break_after else None
        self.wfile.write(rest[:end])
        if end is not None:
            self.wfile.flush()
            # Closing sends a reset in place of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def answer(self) -> bytes:
        wanted = self.headers.get("Range")
        if not self.path.startswith("/api/"):  # where the hub's client asks for news of its own
            self.server.asked.append((self.command, self.path, wanted))
        content = self.server.files.get(self.path)
        if content is None:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return b""
        start = int(wanted.split("=")[1].split("-")[0]) if wanted and self.server.ranges else 0
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("ETag", f'"{self.server.sha256}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()
        return content[start:]

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def run(home: Path, address: str, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_") and "proxy" not in key.lower()}
    folders = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "xdg"), "HF_HOME": str(home / "hf")}
    environment = {**kept, **folders, "PYTHONPATH": str(ROOT), "HF_ENDPOINT": address, **variables}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, check=False, env=environment, timeout=120
    )


def find(home: Path, hub: Hub, key: str = "hf_hub", value: str = "org/model/", **variables: str) -> Path | str:
    """What find_weights returns, or the last line of its error."""
    done = run(home, hub.address, "-c", FIND, key, value, **variables)
    return Path(done.stdout.strip()) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def folder(home: Path) -> Path:
    return home / "xdg" / "winclip" / "weights"


def test_weights_of_the_hub_are_fetched_once_and_said_so(hub: Hub, tmp_path: Path) -> None:
    done = run(tmp_path, hub.address, "-c", FIND, "hf_hub", "org/model/")
    path = folder(tmp_path) / NAME
    assert (done.stdout.strip(), done.returncode) == (str(path), 0), done.stderr
    assert f"fetching {hub.address}{HUB_FILE}, 30.0 MB, to {path}" in done.stderr
    assert path.read_bytes() == CONTENT
    # .safetensors is asked for first, as open_clip does.
    assert hub.asked[0][1] == "/org/model/resolve/main/open_clip_model.safetensors"
    assert not path.with_name(f"{NAME}.part").exists()
    hub.asked.clear()
    assert find(tmp_path, hub) == path
    assert hub.asked == []


@pytest.mark.parametrize("offline", ["", "1"])
def test_weights_in_the_hubs_cache_need_no_network(offline: str, hub: Hub, tmp_path: Path) -> None:
    repository = tmp_path / "hf" / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    cached = repository / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert find(tmp_path, hub, HF_HUB_OFFLINE=offline) == cached
    assert hub.asked == []


@pytest.mark.parametrize("breaks", [[20_000_000], [20_000_000, 0, 5_000_000]])
def test_a_connection_that_breaks_is_taken_up_again(breaks: list[int | None], hub: Hub, tmp_path: Path) -> None:
    hub.break_after = breaks.copy()
    path = find(tmp_path, hub)
    assert isinstance(path, Path), path
    assert path.read_bytes() == CONTENT
    assert hub.fetched()[:2] == [None, f"bytes={WRITTEN}-"]


def test_what_came_is_kept_where_the_fetch_is_given_up(hub: Hub, tmp_path: Path) -> None:
    hub.break_after = [20_000_000, 0, 0, 0]
    assert "reset" in str(find(tmp_path, hub))
    assert find(tmp_path, hub) == folder(tmp_path) / NAME
    assert hub.fetched() == [None, *[f"bytes={WRITTEN}-"] * 4]


def test_a_fetch_that_ended_is_taken_up_by_the_next(hub: Hub, tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / f"{NAME}.part").write_bytes(CONTENT[:123_456])
    path = find(tmp_path, hub)
    assert isinstance(path, Path), path
    assert path.read_bytes() == CONTENT
    assert hub.fetched() == ["bytes=123456-"]


@pytest.mark.parametrize(("ranges", "length"), [(False, 1000), (True, 30_000_001)])
def test_a_part_that_cannot_be_continued_is_fetched_anew(ranges: bool, length: int, hub: Hub, tmp_path: Path) -> None:
    folder(tmp_path).mkdir(parents=True)
    (folder(tmp_path) / f"{NAME}.part").write_bytes(bytes(length))
    hub.ranges = ranges
    path = find(tmp_path, hub)
    assert isinstance(path, Path), path
    assert path.read_bytes() == CONTENT


def test_a_wrong_checksum_is_refused_and_the_file_removed(hub: Hub, tmp_path: Path) -> None:
    hub.sha256 = "0" * 64
    error = find(tmp_path, hub)
    assert f"came with SHA-256 {SHA256}, not {'0' * 64}, and was removed" in str(error)
    assert [path.name for path in folder(tmp_path).iterdir() if path.suffix != ".lock"] == []


def test_the_default_weights_have_a_checksum_of_their_own(hub: Hub, tmp_path: Path) -> None:
    hub.files = {"/timm/vit_base_patch16_plus_clip_240.laion400m_e31/resolve/main/open_clip_pytorch_model.bin": CONTENT}
    error = find(tmp_path, hub, value="timm/vit_base_patch16_plus_clip_240.laion400m_e31/")
    assert f"SHA-256 {SHA256}, not fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3" in str(error)


@pytest.mark.parametrize(
    ("path", "good"),
    [
        (f"/mlfoundations/releases/model-{SHA256[:8]}.pt", True),
        ("/mlfoundations/releases/model-00000000.pt", False),
        (f"/openaipublic/{SHA256}/model.pt", True),
        (f"/openaipublic/{'0' * 64}/model.pt", False),
        ("/elsewhere/model.pt", True),
    ],
)
def test_weights_of_an_address_are_checked_by_what_it_names(path: str, good: bool, hub: Hub, tmp_path: Path) -> None:
    hub.files = {path: CONTENT}
    hub.sha256 = "no checksum"
    hub.break_after = [20_000_000]
    found = find(tmp_path, hub, "url", hub.address + path)
    if good:
        assert found == folder(tmp_path) / Path(path).name
        assert hub.fetched() == [None, f"bytes={WRITTEN}-"]
    else:
        assert f"came with SHA-256 {SHA256}, not 00000000" in str(found)


@pytest.mark.parametrize("whole", [True, False])
def test_open_clips_own_cache_counts_if_the_file_is_whole(whole: bool, hub: Hub, tmp_path: Path) -> None:
    path = f"/mlfoundations/releases/model-{SHA256[:8]}.pt"
    hub.files = {path: CONTENT}
    cached = tmp_path / ".cache" / "clip" / Path(path).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT if whole else CONTENT[:1000])
    found = find(tmp_path, hub, "url", hub.address + path)
    assert found == (cached if whole else folder(tmp_path) / cached.name)
    assert (hub.asked == []) == whole


def test_without_network_the_way_out_is_said(tmp_path: Path) -> None:
    with socket.socket() as silent:  # accepts and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        # Old packages warn of each other.
        variables = {"HF_HUB_ETAG_TIMEOUT": "1", "PYTHONWARNINGS": "ignore"}
        done = run(tmp_path, address, str(ROOT / "scripts" / "fetch_weights.py"), **variables)
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    origin = "timm/" if TAG.get("hf_hub") else TAG["url"]
    assert line.startswith(f"error: weights of ViT-B-16-plus-240 laion400m_e31 cannot be fetched from {origin}")
    assert "scripts/fetch_weights.py --model ViT-B-16-plus-240 --pretrained laion400m_e31" in line
    assert line.endswith("--pretrained FILE")


@pytest.mark.parametrize("variables", [{"HF_HUB_OFFLINE": "1"}, {}])
def test_a_refused_or_forbidden_connection_is_an_error(variables: dict[str, str], hub: Hub, tmp_path: Path) -> None:
    hub.shutdown()
    hub.server_close()
    done = run(tmp_path, hub.address, "-c", FIND, "hf_hub", "org/model/", **variables)
    assert done.returncode == 1 and hub.asked == []
    hub.socket = socket.socket()  # for the fixture to close


def test_a_call_that_is_late_is_left_behind() -> None:
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        _within(0.05, threading.Event().wait)
    with pytest.raises(ZeroDivisionError):
        _within(60, lambda: 1 // 0)
    assert _within(60, lambda: 7) == 7


def test_the_script_brings_the_file_and_says_what_to_do_with_it(hub: Hub, tmp_path: Path) -> None:
    if not TAG.get("hf_hub"):
        pytest.skip("this open_clip fetches the tag from an address of its own, which no hub here stands in for")
    repository = "/timm/vit_base_patch16_plus_clip_240.laion400m_e31/resolve/main"
    hub.files = {f"{repository}/open_clip_model.safetensors": CONTENT}
    command = [str(ROOT / "scripts" / "fetch_weights.py"), "--output", str(tmp_path / "stick")]
    done = run(tmp_path, hub.address, *command)
    assert done.returncode == 0, done.stderr
    target = tmp_path / "stick" / "ViT-B-16-plus-240-laion400m_e31.safetensors"
    assert target.read_bytes() == CONTENT
    assert list(target.parent.iterdir()) == [target]
    assert f"python test.py --model ViT-B-16-plus-240 --pretrained {target.name}" in done.stdout
    hub.asked.clear()
    blocked = run(tmp_path, hub.address, *command[:-1], str(target / "below"))
    assert hub.asked == []
    assert blocked.returncode == 2 and f"cannot write {target / 'below'}" in blocked.stderr
