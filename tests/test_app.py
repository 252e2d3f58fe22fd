"""The page: its verdicts, its limits, and the page itself over HTTP and in a browser."""

from __future__ import annotations

import base64
import html
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
import weakref
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import ROOT
from tests.tiny import CONFIG, PICTURES
from winclip import InputError, WinCLIP
from winclip.commands import app
from winclip.defaults import DEMO_MODEL
from winclip.demo.stand_in import CAUTION
from winclip.network.clip_backbone import ClipBackbone
from winclip.pictures.intake import Intake

gradio_client = pytest.importorskip("gradio_client")

FILES = [str(path) for path in PICTURES]


@pytest.fixture
def good(tmp_path: Path) -> list[str]:
    """Three pictures that hardly differ."""
    paths = []
    for number in range(3):
        paths.append(str(tmp_path / f"good{number}.png"))
        Image.new("RGB", (50, 60), (100 + number, 100, 100)).save(paths[-1])
    return paths


PATIENCE = 180


def test_judgement_without_and_with_examples(backbone: ClipBackbone, good: list[str]) -> None:
    model = WinCLIP(backbone)
    told: list[tuple[float, str]] = []
    found = app.judge(model, FILES[:1], "b&lt", None, 0.3, lambda share, what: told.append((share, what)))
    assert "Ranked, not judged. A text part of 0.5 is as close to the prompts for a damaged b&amp;lt as" in found
    assert '<span class="verdict">not judged, score' in found and "no good pictures, so no verdict" in found
    assert "opacity: 0.3" in found and found.count("data:image/webp") == 3
    assert told == [(0, "words"), (0.5, "picture 1 of 1")]
    found = app.judge(model, FILES[:1], "bolt", FILES[3:4], 0.3)
    assert "Ranked, not judged." in found and "1 good picture does not say how much good ones differ" in found
    assert "references 0." in found
    found = app.judge(model, FILES[:1], "bolt", good, 0.3)
    assert "Anomalous: reference part above " in found
    assert "About 1 of 100 good pictures taken like the 3 good examples is expected above." in found
    found = app.judge(model, FILES[:1], "bolt", [*good, good[0]], 0.3)
    assert "1 of the 4 good examples are copies of others and count once" in found and "3 references" in found


def test_several_pictures_are_a_list_with_the_highest_score_first(
    backbone: ClipBackbone, good: list[str], tmp_path: Path
) -> None:
    bad, escaped = tmp_path / "bad.png", tmp_path / "<b>&.png"
    bad.write_text("no picture")
    escaped.write_bytes(Path(FILES[2]).read_bytes())
    model = WinCLIP(backbone)
    found = app.judge(model, [*FILES[:2], str(bad), str(escaped)], "bolt", good, 0.5)
    content = json.loads(base64.b64decode(found.split("data:application/json;base64,")[1].split('"')[0]))
    model.set_class("bolt")
    model.add_references(good)
    names = {"image_0.png": FILES[0], "image_1.png": FILES[1], "<b>&.png": str(escaped)}
    outs, threshold = {name: model.predict(path) for name, path in names.items()}, model.threshold()
    scores = {name: out.scores[0] for name, out in outs.items()}
    for one in content["pictures"]:
        out = outs[one["name"]]
        assert (one["score"], one["text_score"], one["reference_score"]) == (
            out.scores[0], out.text_scores[0], out.reference_scores[0] if out.reference_scores is not None else None,
        )  # fmt: skip
        assert [one["anomalous"]] == threshold.judge(out)
    ordered = sorted(scores, key=lambda name: -scores[name])
    assert [one["name"] for one in content["pictures"]] == ordered
    assert content["threshold"] == json.loads(json.dumps(asdict(threshold)))
    assert content["failures"][0]["name"] == "bad.png"
    # One colour scale for all.
    low, high = threshold.colours(highest=max(float(out.maps.max()) for out in outs.values()))
    assert found.count(f'<div class="legend">{low:.2f}<img') == found.count(f">{high:.2f}</div>") == 3
    places = [found.index(f"· {html.escape(name)}</summary>") for name in ordered]
    assert places == sorted(places) and "<b>" not in found
    assert found.count("<details") == 3 and found.count(" open>") == 1
    anomalous = sum(one["anomalous"] for one in content["pictures"])
    assert f"{anomalous} of 3 pictures anomalous" in found and "not judged · bad.png cannot be read" in found
    assert "2 pictures, ranked" in app.judge(model, FILES[:2], "bolt", None, 0.5)


def test_what_does_not_work_is_said_without_folders(
    backbone: ClipBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = tmp_path / "notes.png"
    text.write_text("no picture")
    for pictures, class_name, examples, named in (
        (None, "bolt", None, "no picture"),
        (FILES[:1], " ", None, "class name"),
        (FILES[:1], "b " * 99, None, "too long"),
        (FILES[:1], "bolt", FILES[:1] * 17, "17 good examples"),
        (FILES[:1] * 17, "bolt", None, "17 pictures"),
        (FILES[:1], "bolt", [str(text)], "notes.png"),
        ([str(text)] * 2, "bolt", None, "notes.png"),
    ):
        with pytest.raises(InputError, match=named) as raised:
            app.judge(WinCLIP(backbone), pictures, class_name, examples, 0.5)
        assert str(tmp_path) not in str(raised.value)
    monkeypatch.setattr(app, "MAX_PIXELS", 100)
    with pytest.raises(InputError, match=r"image_0.png.* 100 pixels"):
        app.read_upload(FILES[0])


def test_one_picture_is_decoded_at_a_time(backbone: ClipBackbone, monkeypatch: pytest.MonkeyPatch) -> None:
    read = app.read_upload
    seen: list[weakref.ref[Image.Image]] = []

    def watched(path: str, intake: Intake) -> Image.Image:
        assert all(image() is None for image in seen)
        image = read(path, intake)
        seen.append(weakref.ref(image))
        return image

    monkeypatch.setattr(app, "read_upload", watched)
    app.judge(WinCLIP(backbone), FILES[:2], "bolt", FILES[2:], 0.5)
    assert len(seen) == len(FILES)


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


def test_without_gradio_the_command_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "gr", None)
    assert app.main([]) == 2
    assert app.INSTALL in capsys.readouterr().err


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the page of these tests makes its temporary folder."""
    return tmp_path_factory.mktemp("uploads")


@pytest.fixture(scope="module")
def address(checkpoint: Path, uploads: Path) -> Iterator[str]:
    """A running page with the tiny model; afterwards its folder must be gone."""
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


@pytest.mark.slow
def test_page_answers_over_http(address: str, tmp_path: Path) -> None:
    client = gradio_client.Client(address, verbose=False, analytics_enabled=False)
    pictures = [{"image": gradio_client.handle_file(path)} for path in FILES[:2]]
    found = client.predict(pictures, "bolt", None, 0.5, api_name="/judge")
    assert "2 pictures, ranked" in found and "data:image/webp" in found
    with pytest.raises(gradio_client.exceptions.AppError, match="class name is empty"):
        client.predict(pictures[:1], "", None, 0.5, api_name="/judge")
    (tmp_path / "notes.png").write_text("no picture")
    with pytest.raises(gradio_client.exceptions.AppError, match="notes"):
        wrong = {"image": gradio_client.handle_file(tmp_path / "notes.png")}
        client.predict([wrong], "bolt", None, 0.5, api_name="/judge")


def post(url: str, content: object) -> bytes:
    """A server's answer to JSON."""
    request = urllib.request.Request(url, json.dumps(content).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return bytes(answer.read())


@pytest.mark.slow
def test_page_takes_uploads_alone_and_serves_nothing_else(address: str) -> None:
    call, others = f"{address}gradio_api/call/judge", str(ROOT / "docs" / "figures" / "sample.jpg")
    # Without the mark, Gradio ignores paths.
    for mark in ({"meta": {"_type": "gradio.FileData"}}, {}):
        data = [[{"image": {"path": others, **mark}}], "bolt", None, 0.5]
        event = json.loads(post(call, {"data": data}))["event_id"]
        with urllib.request.urlopen(f"{call}/{event}", timeout=PATIENCE) as stream:
            assert stream.read().decode().startswith("event: error")
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{address}gradio_api/file={ROOT / 'app.py'}", timeout=PATIENCE)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_page_in_a_browser(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import expect, sync_playwright

    from tests.test_report_browser import FLAGS

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
        expect(page.locator(".stack .heat")).to_have_css("position", "absolute")
        # Own pictures take its place.
        page.locator("input[type=file]").first.set_input_files(own)
        expect(page.locator(".empty")).to_be_visible()
        expect(page.get_by_label("What is it?")).to_have_value("")
        page.get_by_label("What is it?").fill("bolt")
        page.get_by_role("button", name="Look for anomalies").click()
        expect(result).to_contain_text("2 pictures, ranked")
        expect(result).to_contain_text("A text part of 0.5 is as close")
        names = [page.locator("summary").nth(number).inner_text().split(" · ")[1] for number in (0, 1)]
        assert sorted(names) == [path.name for path in own]
        maps = page.locator(".stack .heat")
        page.locator("summary").nth(1).click()
        expect(maps.nth(0)).to_be_hidden()
        expect(maps.nth(1)).to_be_visible()
        page.locator("input[type=range]").fill("0.9")
        expect(maps.nth(1)).to_have_css("opacity", "0.9")
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
