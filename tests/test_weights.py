"""Finding and fetching the weights of a tag, against a server of this machine that answers as the hub does."""

from __future__ import annotations

import hashlib
import json
import random
import socket
import struct
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
import torch
from open_clip.pretrained import get_pretrained_cfg

from scripts import fetch_weights
from tests.tiny import CONFIG, open_clip_model
from winclip import InputError
from winclip.network import pretrained
from winclip.network.clip_backbone import load_backbone
from winclip.network.weights import find_weights
from winclip.pictures.images import CLIP_MEAN, CLIP_STD

# The hub's client writes 10 MB at a time, and loses unwritten bytes when a connection breaks.
CONTENT = random.Random(0).randbytes(30_000_000)
WRITTEN = 10 << 20
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HUB_FILE = "/org/model/resolve/main/open_clip_pytorch_model.bin"
NAME = "org--model--open_clip_pytorch_model.bin"
# The source of open_clip's default weights; releases differ.
TAG = get_pretrained_cfg("ViT-B-16-plus-240", "laion400m_e31")


class Hub(ThreadingHTTPServer):
    """Serves files by their paths; other paths of repositories are answered as the hub answers them.

    Attributes:
        files: content by path.
        sha256: the etag of all of them.
        asked: method, path and Range header of each request.
        break_after: bytes of the coming answers after which the connection is reset, None for whole answers.
        ranges: whether Range headers are honoured.
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
            # Closing sends a reset instead of an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def answer(self) -> bytes:
        wanted = self.headers.get("Range")
        if not self.path.startswith("/api/"):  # where the hub's client looks for its own updates
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
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder with empty caches."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def serve(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Replace the hub's address, which its client takes from the environment on import."""
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *name: f"{address}/{name[0]}/resolve/main/{name[1]}")


@pytest.fixture
def hub(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    serve(monkeypatch, server.address)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def find(hub_file: str = "org/model/") -> Path:
    return find_weights({"hf_hub": hub_file})


def folder(home: Path) -> Path:
    return home / "xdg" / "winclip" / "weights"


def test_weights_of_the_hub_are_fetched_once_and_said_so(
    hub: Hub, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = folder(home) / NAME
    assert find() == path
    assert f"fetching {hub.address}{HUB_FILE}, 30.0 MB, to {path}" in capfd.readouterr().err
    assert path.read_bytes() == CONTENT
    # .safetensors is asked for first, as open_clip does.
    assert hub.asked[0][1] == "/org/model/resolve/main/open_clip_model.safetensors"
    assert not path.with_name(f"{NAME}.part").exists()
    hub.asked.clear()
    assert find() == path
    assert hub.asked == []


def test_weights_in_the_hubs_cache_need_no_network(hub: Hub, home: Path) -> None:
    repository = home / "hub" / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    cached = repository / "snapshots" / ("0" * 40) / "open_clip_pytorch_model.bin"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    assert find() == cached
    assert hub.asked == []


def test_a_connection_that_breaks_is_taken_up_again(hub: Hub, home: Path) -> None:
    hub.break_after = [20_000_000, 0, 0, 0]
    with pytest.raises(Exception):  # noqa: B017 - the client's own, which differs between its versions
        find()
    # The bytes received are kept.
    hub.break_after = [0, 5_000_000]
    assert find() == folder(home) / NAME
    assert find().read_bytes() == CONTENT
    assert hub.fetched()[:5] == [None, *[f"bytes={WRITTEN}-"] * 4]


@pytest.mark.parametrize(("ranges", "length"), [(True, 123_456), (False, 1000), (True, 30_000_001)])
def test_a_part_is_continued_or_fetched_anew(ranges: bool, length: int, hub: Hub, home: Path) -> None:
    folder(home).mkdir(parents=True)
    (folder(home) / f"{NAME}.part").write_bytes((CONTENT + b"x")[:length] if ranges else bytes(length))
    hub.ranges = ranges
    assert find().read_bytes() == CONTENT
    assert hub.fetched()[0] == (None if length > len(CONTENT) else f"bytes={length}-")


@pytest.mark.parametrize("repository", ["org/model", "timm/vit_base_patch16_plus_clip_240.laion400m_e31"])
def test_a_wrong_checksum_is_refused_and_the_file_removed(repository: str, hub: Hub, home: Path) -> None:
    hub.files = {f"/{repository}/resolve/main/open_clip_pytorch_model.bin": CONTENT}
    # The default weights have a checksum of their own.
    hub.sha256 = "0" * 64 if repository == "org/model" else SHA256
    expected = (
        "0" * 64 if repository == "org/model" else "fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3"
    )
    with pytest.raises(InputError, match=f"{SHA256}, not {expected}"):
        find(f"{repository}/")
    assert [path.name for path in folder(home).iterdir() if path.suffix != ".lock"] == []


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
def test_weights_of_an_address_are_checked_by_what_it_names(path: str, good: bool, hub: Hub, home: Path) -> None:
    hub.files = {path: CONTENT}
    hub.sha256 = "no checksum"
    hub.break_after = [20_000_000]
    if good:
        assert find_weights({"url": hub.address + path}) == folder(home) / Path(path).name
        assert hub.fetched() == [None, f"bytes={WRITTEN}-"]
    else:
        with pytest.raises(InputError, match=f"SHA-256 {SHA256}, not 00000000"):
            find_weights({"url": hub.address + path})


@pytest.mark.parametrize("whole", [True, False])
def test_open_clips_own_cache_counts_if_the_file_is_whole(whole: bool, hub: Hub, home: Path) -> None:
    path = f"/mlfoundations/releases/model-{SHA256[:8]}.pt"
    hub.files = {path: CONTENT}
    cached = home / ".cache" / "clip" / Path(path).name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT if whole else CONTENT[:1000])
    assert find_weights({"url": hub.address + path}) == (cached if whole else folder(home) / cached.name)
    assert (hub.asked == []) == whole


@pytest.mark.parametrize("good", [True, False])
def test_the_references_copy_of_weights_of_the_hub_counts_by_its_checksum(good: bool, hub: Hub, home: Path) -> None:
    name = f"model-{SHA256[:8] if good else '00000000'}.pt"
    cached = home / ".cache" / "clip" / name
    cached.parent.mkdir(parents=True)
    cached.write_bytes(CONTENT)
    tag = {"hf_hub": "org/model/", "url": f"https://github.com/mlfoundations/open_clip/releases/download/v0/{name}"}
    assert find_weights(tag) == (cached if good else folder(home) / NAME)
    assert (hub.asked == []) == good


def test_a_model_that_is_refused_is_refused_before_anything_is_fetched(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(pretrained, "find_weights", lambda tag: pytest.fail("fetched"))
    with pytest.raises(InputError, match=r"RN50: vision_cfg\.layers"):
        load_backbone("RN50", "openai", device="cpu")
    with pytest.raises(InputError, match="image size 100"):
        load_backbone("ViT-B-32", "openai", device="cpu", image_size=100)
    assert fetch_weights.main(["--model", "RN50", "--pretrained", "openai", "--output", str(home)]) == 2
    assert "vision_cfg.layers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "tag"),
    [
        ("ViT-B-32", "openai"),
        ("ViT-B-32", "metaclip_400m"),
        ("ViT-L-14", "laion2b_s32b_b82k"),
        ("ViT-L-14", "dfn2b"),
        ("ViT-B-32", "laion2b_e16"),
    ],
)
def test_what_is_written_for_another_machine_says_what_the_tag_says(
    home: Path, model: str, tag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, used = home / "weights.safetensors", []
    weights.write_bytes(b"weights")
    monkeypatch.setattr(pretrained, "find_weights", lambda tag: weights)
    assert fetch_weights.main(["--model", model, "--pretrained", tag, "--output", str(home)]) == 0
    command = capsys.readouterr().out.splitlines()[-1].split()
    for given in ((model, tag), [str(home / name) for name in command[-3::2]]):
        fingerprint = load_backbone(*given, device="cpu", weights=False).fingerprint
        fingerprint.pop("model")
        used.append(fingerprint)
    assert used[0] == used[1]
    assert used[1]["quick_gelu"] == (tag in ("openai", "metaclip_400m", "dfn2b"))
    assert (used[1]["image_mean"] == [0.5] * 3) == (tag == "laion2b_s32b_b82k")


def test_a_file_of_a_model_whose_tags_differ_is_warned_of(tmp_path: Path, logged: list[str]) -> None:
    def warned(model: str, quick_gelu: bool) -> str:
        logged.clear()
        used = {"quick_gelu": quick_gelu, "mean": CLIP_MEAN, "std": CLIP_STD}
        pretrained.warn_of_other_settings(model, tmp_path / "w.pt", used)
        return "".join(logged)

    assert "ViT-L-14 openai, laion2b_s32b_b82k, metaclip_400m" in warned("ViT-L-14", False)
    assert "ViT-B-32 openai, laion400m_e31, laion400m_e32, metaclip_400m" in warned("ViT-B-32", False)
    assert warned("ViT-B-32-quickgelu", True) == warned("ViT-B-16-plus-240", False) == ""


@pytest.mark.parametrize("value", [torch.tensor(96), 96])
def test_weights_of_openai_without_quickgelu_are_warned_of(tmp_path: Path, logged: list[str], value: Any) -> None:
    torch.save(
        {**open_clip_model(json.loads(CONFIG.read_text())).state_dict(), "input_resolution": value}, tmp_path / "w.pt"
    )
    load_backbone(str(CONFIG), str(tmp_path / "w.pt"), device="cpu")
    assert len(logged) == 1 and "QuickGELU" in logged[0] and "w.pt holds input_resolution" in logged[0]
    assert not json.loads(CONFIG.read_text()).get("quick_gelu")
    config = tmp_path / "quick.json"
    config.write_text(json.dumps({**json.loads(CONFIG.read_text()), "quick_gelu": True}))
    load_backbone(str(config), str(tmp_path / "w.pt"), device="cpu")
    assert len(logged) == 1


@pytest.mark.skipif(not TAG.get("hf_hub"), reason="this open_clip fetches the tag from an address, not from the hub")
def test_the_script_brings_the_file_or_says_the_way_out(
    hub: Hub, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.files = {f"/{TAG['hf_hub'].strip('/')}/resolve/main/open_clip_model.safetensors": CONTENT}
    target = home / "stick" / "ViT-B-16-plus-240-laion400m_e31.safetensors"
    with socket.socket() as silent, monkeypatch.context() as patch:  # accepts and never answers
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        patch.setenv("HF_HUB_ETAG_TIMEOUT", "1")
        serve(patch, f"http://127.0.0.1:{silent.getsockname()[1]}")
        for offline in (True, False):
            patch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
            assert fetch_weights.main(["--output", str(target.parent)]) == 2
            line = capsys.readouterr().err.splitlines()[-1]
            assert "ViT-B-16-plus-240 laion400m_e31" in line and "HF_ENDPOINT" in line
            assert line.endswith("--model FILE.json --pretrained FILE")
    serve(monkeypatch, hub.address)
    assert fetch_weights.main(["--output", str(target.parent)]) == 0
    assert target.read_bytes() == CONTENT
    config = target.with_suffix(".json")
    assert {*target.parent.iterdir()} == {target, config}
    assert f"python test.py --model {config.name} --pretrained {target.name}" in capsys.readouterr().out
    assert json.loads(config.read_text())["preprocess_cfg"] == {"mean": list(CLIP_MEAN), "std": list(CLIP_STD)}
    hub.asked.clear()
    assert fetch_weights.main(["--output", str(target / "below")]) == 2
    assert hub.asked == []
    assert f"{target / 'below'}" in capsys.readouterr().err
