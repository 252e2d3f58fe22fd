"""The page: its judgement, its limits, and the page itself over HTTP and in a browser."""

from __future__ import annotations

import asyncio
import base64
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio
import gradio_client
import numpy as np
import pytest
from PIL import Image
from scripts.load_test import Question, ask, connect, load

from tests.conftest import ROOT
from tests.tiny import CONFIG, GOLDEN
from winclip import InputError, WinCLIP
from winclip.commands import app
from winclip.defaults import DEMO_MODEL
from winclip.demo.stand_in import CAUTION
from winclip.network.clip_backbone import ClipBackbone

FILES = [str(GOLDEN / "tiny" / f"image_{number}.png") for number in range(5)]
PATIENCE = 180


def test_judgement_without_and_with_examples(backbone: ClipBackbone) -> None:
    model = WinCLIP(backbone)
    told: list[tuple[float, str]] = []
    found = app.judge(model, FILES[:1], "b&lt", None, 0.3, lambda share, what: told.append((share, what)))
    assert "Threshold 0.500: a picture with this score is as near to the sentences about a damaged b&amp;lt as" in found
    assert "opacity: 0.3" in found and found.count("data:image/webp") == 3
    assert told == [(0, "words"), (0.5, "picture 1 of 1")]
    found = app.judge(model, FILES[:1], "bolt", FILES[3:4], 0.3)
    assert "Threshold 0.250" in found and "and does not differ from the good example." in found
    found = app.judge(model, FILES[:1], "bolt", FILES[3:], 0.3)
    assert "about 1 of 100 good pictures taken like the 2 good examples is expected above it." in found
    found = app.judge(model, FILES[:1], "bolt", [*FILES[3:], FILES[3]], 0.3)
    assert "1 of the 3 good examples are copies of others and count once" in found and "2 references" in found


def test_several_pictures_are_a_list_with_the_highest_score_first(backbone: ClipBackbone, tmp_path: Path) -> None:
    bad, escaped = tmp_path / "bad.png", tmp_path / "<b>&.png"
    bad.write_text("no picture")
    escaped.write_bytes(Path(FILES[2]).read_bytes())
    model = WinCLIP(backbone)
    found = app.judge(model, [*FILES[:2], str(bad), str(escaped)], "bolt", FILES[3:], 0.5)
    content = json.loads(base64.b64decode(found.split("data:application/json;base64,")[1].split('"')[0]))
    model.set_class("bolt")
    model.add_references(FILES[3:])
    names = {"image_0.png": FILES[0], "image_1.png": FILES[1], "<b>&.png": str(escaped)}
    scores = {name: float(model.predict(path).scores[0]) for name, path in names.items()}
    assert {one["name"]: one["score"] for one in content["pictures"]} == scores
    ordered = sorted(scores, key=lambda name: -scores[name])
    assert [one["name"] for one in content["pictures"]] == ordered
    assert content["threshold"] == model.threshold().score and content["failures"][0]["name"] == "bad.png"
    places = [found.index(f"· {html.escape(name)}</summary>") for name in ordered]
    assert places == sorted(places) and "<b>" not in found
    assert found.count("<details") == 3 and found.count(" open>") == 1
    anomalous = sum(score > content["threshold"] for score in scores.values())
    assert f"{anomalous} of 3 pictures anomalous" in found and "not judged · image bad.png cannot be read" in found


def test_what_does_not_work_is_said_without_folders(
    backbone: ClipBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    for pictures, class_name, examples, message in (
        (None, "bolt", None, "no picture yet"),
        (FILES[:1], " ", None, "class name is empty"),
        (FILES[:1], "b " * 99, None, "too long: a prompt"),
        (FILES[:1], "bolt" * 100, None, "too long: 400 characters; the limit is 200"),
        (FILES[:1], "bolt", FILES[:1] * 17, "17 good examples are too many"),
        (FILES[:1] * 17, "bolt", None, "17 pictures are too many; the limit is 16"),
        ([str(text)], "bolt", None, "notes.png cannot be read"),
        ([str(text)] * 2, "bolt", None, "notes.png cannot be read"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            app.judge(WinCLIP(backbone), pictures, class_name, examples, 0.5)
        assert str(tmp_path) not in str(raised.value)
    monkeypatch.setattr(app, "MAX_PIXELS", 100)
    with pytest.raises(InputError, match=r"image_0.png.* 100 pixels"):
        app.read_upload(FILES[0])
    monkeypatch.setattr(app, "MAX_BYTES", 100)
    with pytest.raises(InputError, match="MB, the limit"):
        app.read_upload(FILES[0])


def test_one_picture_is_decoded_at_a_time_and_for_a_limited_time(
    backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = app.read_upload
    seen: list[weakref.ref[Image.Image]] = []

    def watched(path: str) -> Image.Image:
        assert [image for image in seen if image() is not None] == []
        image = read(path)
        seen.append(weakref.ref(image))
        return image

    monkeypatch.setattr(app, "read_upload", watched)
    app.judge(WinCLIP(backbone), FILES[:2], "bolt", FILES[2:], 0.5)
    assert len(seen) == len(FILES)
    # The clock as it stands at the beginning, and at every later look.
    for examples, times, message in (
        (FILES[1:], [0, 121], None),
        (None, [0, 121, 121], None),
        (None, [0, 119, 121], "not judged · this takes more than 120 seconds, the limit"),
    ):
        clock = iter(times)
        monkeypatch.setattr(time, "monotonic", lambda clock=clock: next(clock))
        if message is None:
            with pytest.raises(InputError, match="more than 120 seconds, the limit"):
                app.judge(WinCLIP(backbone), FILES[:2], "bolt", examples, 0.5)
        else:
            assert message in app.judge(WinCLIP(backbone), FILES[:2], "bolt", examples, 0.5)


@pytest.mark.parametrize(
    ("path", "length", "status"),
    [
        ("/gradio_api/upload", b"300000000", 200),
        ("/gradio_api/upload", b"400000000", 413),
        ("/gradio_api/upload", None, 411),
        ("/gradio_api/queue/join", b"1000", 200),
        ("/gradio_api/queue/join", b"2000000", 413),
        ("/full/upload", b"300", 503),
    ],
)
def test_large_requests_and_uploads_to_a_full_page_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, length: bytes | None, status: int
) -> None:
    if path.startswith("/full"):
        monkeypatch.setattr(app, "MAX_KEPT_BYTES", 1000)
    (tmp_path / "kept.png").write_bytes(b"x" * 900)
    sent: list[dict[str, Any]] = []

    async def answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
        await send({"status": 200})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    headers = [] if length is None else [(b"content-length", length)]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
    asyncio.run(app.Limits(answer, tmp_path)(scope, None, send))
    assert sent[0]["status"] == status


def test_a_length_is_not_believed_beside_a_chunked_body(tmp_path: Path) -> None:
    headers = [(b"content-length", b"10"), (b"transfer-encoding", b"chunked")]
    refusal = app.Limits(len, tmp_path)._refusal({"path": "/gradio_api/upload", "headers": headers})
    assert refusal is not None and refusal[0] == 411


def test_uploads_count_while_they_come_and_leave_nothing_when_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "MAX_KEPT_BYTES", 1000)
    scope = {"type": "http", "method": "POST", "path": "/upload", "headers": [(b"content-length", b"600")]}
    refused = []

    async def break_off(*_: Any) -> None:
        refused.append(limits._refusal(scope))
        (tmp_path / "tmpabc").write_bytes(b"half")
        raise ConnectionError

    limits = app.Limits(break_off, tmp_path)
    for _ in range(2):
        with pytest.raises(ConnectionError):
            asyncio.run(limits(scope, None, None))
    assert [refusal and refusal[0] for refusal in refused] == [503, 503]  # a second one beside it; the next is taken
    assert list(tmp_path.iterdir()) == []


def test_errors_nobody_thought_of_are_for_the_log(
    backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch, logged: list[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    def fail(*_: object) -> None:
        raise RuntimeError(f"no room in {tmp_path}")

    monkeypatch.setattr(app, "judge", fail)
    page = app.build_page(WinCLIP(backbone), [])
    run = next(function.fn for function in page.fns.values() if function.api_name == "judge")
    assert run is not None
    with pytest.raises(gradio.Error) as raised:
        run(FILES[:1], "bolt", [], 0.5)
    assert raised.value.message == "the picture could not be judged; the log of the page says why"
    assert logged == ["a picture could not be judged"]


def test_the_demo_backbone_is_no_judge_of_pictures_but_the_samples(
    backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    monkeypatch.setattr(app, "judge", lambda *_: "judged")
    samples = [app.Sample(FILES[0], "bolt", "bolt, good", [])]
    for name, said in ((DEMO_MODEL, f'<div class="hint">{CAUTION}</div>judged'), ("ViT-B-16-plus-240", "judged")):
        page = app.build_page(WinCLIP(replace(backbone, model=name)), samples)
        run = next(function.fn for function in page.fns.values() if function.api_name == "judge")
        assert run is not None
        assert run(FILES[:1], "bolt", [], 0.5) == "judged"
        assert run(FILES[:2], "bolt", [], 0.5) == said


def test_uploads_are_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((10, 20, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    assert app.read_upload(str(tmp_path / "turned.jpg")).size == (10, 20)


def test_files_go_with_the_last_session_that_holds_them(tmp_path: Path) -> None:
    both, own, drawn = (tmp_path / name / "part.png" for name in ("both", "own", "drawn"))
    for path in (both, own, drawn):
        path.parent.mkdir()
        path.write_bytes(b"")
    files = app.SessionFiles({str(drawn)})
    files.add("one", [str(both), str(own), str(drawn)])
    files.add("two", [str(both)])
    files.forget("one")
    assert both.exists() and not own.parent.exists()
    files.forget("two")
    files.forget("two")
    assert not both.parent.exists() and drawn.exists()


def test_without_gradio_the_command_is_named() -> None:
    code = "import sys; sys.modules['gradio'] = None; from winclip.commands import app; sys.exit(app.main([]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: the page needs gradio; install it with: python -m pip install -e '.[app]'"
    ]


def test_a_wrong_model_is_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # main sets it, and the pages of later tests would inherit it.
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    assert app.main(["--model", "nonsense"]) == 2
    assert capsys.readouterr().err.startswith("error: model 'nonsense'")


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page of these tests makes its temporary folder."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(checkpoint: Path, uploads: Path) -> Iterator[str]:
    """A page that runs, with the tiny model; afterwards its folder has to be gone."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--device", "cpu"]
    command += ["--model", str(CONFIG), "--pretrained", str(checkpoint)]
    environment = {**os.environ, "TMPDIR": str(uploads)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == f"The page is at http://127.0.0.1:{port}/; Ctrl-C stops it.\n"
        yield f"http://127.0.0.1:{port}/"
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 143
    assert list(uploads.glob("winclip-page-*")) == []


def test_page_answers_over_http(address: str) -> None:
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    pictures = [{"image": gradio_client.handle_file(path)} for path in FILES[:2]]
    found = client.predict(pictures, "bolt", None, 0.5, api_name="/judge")
    assert "of 2 pictures anomalous" in found and "data:image/webp" in found
    with pytest.raises(gradio_client.exceptions.AppError, match="class name is empty"):
        client.predict(pictures[:1], "", None, 0.5, api_name="/judge")


def test_four_users_get_the_answers_that_one_gets(address: str) -> None:
    pictures = [Path(file) for file in FILES]
    questions = [Question(pictures[n], name, pictures[3:][:n]) for n, name in enumerate(("bolt", "felt", "nut"))]
    single = connect(address)
    answers = [ask(single, question) for question in questions]
    assert len(set(answers)) == 3
    found = load(address, questions, answers, users=4, requests=12)
    assert (len(found.seconds), found.failed, found.differing) == (12, 0, 0)


def post(url: str, content: object) -> bytes:
    """What a server answers to JSON."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return bytes(answer.read())


MARK = {"meta": {"_type": "gradio.FileData"}}
OTHERS = str(ROOT / "docs" / "figures" / "sample.jpg")


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ({"path": OTHERS, **MARK}, "null"),
        ({"path": "/nowhere/part.png", **MARK}, "null"),
        ({"path": "http://127.0.0.1:9/part.png", **MARK}, "the page fetches no addresses; upload the picture"),
        # Without the mark, Gradio looks at neither.
        ({"path": OTHERS}, "the page takes uploads alone"),
        ({"path": "http://127.0.0.1:9/part.png"}, "the page takes uploads alone"),
        ({"url": "http://127.0.0.1:9/part.png"}, "the page takes uploads alone"),
    ],
)
def test_page_takes_uploads_alone_and_names_no_folder(address: str, image: dict[str, object], expected: str) -> None:
    call = f"{address}gradio_api/call/judge"
    data = [[{"image": image}], "bolt", None, 0.5]
    event = json.loads(post(call, {"data": data}))["event_id"]
    with urllib.request.urlopen(f"{call}/{event}", timeout=PATIENCE) as stream:
        answer = stream.read().decode()
    assert answer.startswith("event: error") and expected in answer
    assert "/" not in answer


def test_page_serves_no_other_file_and_nothing_goes_past_the_queue(address: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}gradio_api/file={ROOT / 'app.py'}", timeout=PATIENCE)
    with pytest.raises(urllib.error.HTTPError, match=r"40[134]"):
        post(f"{address}gradio_api/run/judge", {"data": [None, "bolt", None, 0.5]})


@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_in_a_browser(address: str, uploads: Path, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    from scripts.take_screenshots import FLAGS

    own = [tmp_path / name for name in ("part.png", "part2.png")]
    for path, source in zip(own, FILES[1:]):
        path.write_bytes(Path(source).read_bytes())
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        requests: list[str] = []
        errors: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        # It opens with a sample picture, with its good examples.
        examples = f"{app.SAMPLE_EXAMPLES} references"
        result = page.locator(".headline").locator("xpath=..")
        expect(result).to_contain_text(examples)
        expect(page.locator(".stack .heat")).to_be_visible()
        # Own pictures take its place.
        page.locator("input[type=file]").first.set_input_files(own)
        expect(page.locator(".empty")).to_be_visible()
        expect(page.get_by_label("What is it?")).to_have_value("")
        page.get_by_label("What is it?").fill("bolt")
        page.get_by_role("button", name="Look for anomalies").click()
        expect(result).to_contain_text("of 2 pictures anomalous")
        expect(result).to_contain_text("a picture with this score is as near")
        names = [page.locator("summary").nth(number).inner_text().split(" · ")[1] for number in (0, 1)]
        assert sorted(names) == [path.name for path in own]
        maps = page.locator(".stack .heat")
        page.locator("summary").nth(1).click()
        expect(maps.nth(0)).to_be_hidden()
        expect(maps.nth(1)).to_be_visible()
        page.locator("input[type=range]").fill("0.9")
        expect(maps.nth(1)).to_have_css("opacity", "0.9")
        assert list(uploads.rglob("part.png")) != []
        with page.expect_download() as download:
            page.locator("details[open]").get_by_text("Save picture with heat map").click()
        assert download.value.suggested_filename == f"{names[1]}-heatmap.jpg"
        with Image.open(download.value.path()) as saved, Image.open(FILES[1 + (names[1] == "part2.png")]) as picture:
            assert (saved.format, saved.size) == ("JPEG", picture.size)
        with page.expect_download() as download:
            page.get_by_text("Save scores as JSON").click()
        assert [one["name"] for one in json.loads(Path(download.value.path()).read_text())["pictures"]] == names
        # Another sample picture.
        page.locator("button.thumbnail-item").last.click()
        expect(result).to_contain_text(examples)
        expect(page.get_by_label("What is it?")).not_to_have_value("bolt")
        assert errors == []
        assert [url for url in requests if not url.startswith((address, "data:", "blob:"))] == []
        page.close()
        browser.close()
    deadline = time.monotonic() + PATIENCE
    while list(uploads.rglob("part.png")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert list(uploads.rglob("part.png")) == []
