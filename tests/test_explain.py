"""Explanations of a picture: their numbers against the method's own, and the page that shows them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.tiny import CONFIG, PICTURES, golden_images
from winclip import WinCLIP
from winclip.commands import explain as script
from winclip.explanation import Block, explain
from winclip.network.backbone import Backbone
from winclip.prompts import PAPER, REFERENCE, PromptSet

Run = Callable[..., int]
FILES = [str(path) for path in PICTURES]


@pytest.fixture
def run(checkpoint: Path, tmp_path: Path) -> Run:
    """Calls explain.py's main with the tiny model; returns the exit status."""

    def call(*arguments: str, part: tuple[str, ...] = ("--class_name", "bolt")) -> int:
        model = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu"]
        return script.main([*arguments, *part, *model, "--save_path", str(tmp_path / "out")])

    return call


@pytest.mark.parametrize("prompts", [REFERENCE, PAPER], ids=["reference", "paper"])
def test_parts_of_all_prompts_add_up_to_the_score(backbone: Backbone, prompts: PromptSet) -> None:
    model = WinCLIP(backbone)
    model.set_class("bolt", prompts)
    found = explain(model, golden_images()[0])
    out = model.predict(golden_images()[0])
    assert found.memory is None
    assert found.score == out.scores[0] == pytest.approx(found.probability)
    np.testing.assert_array_equal(found.map, out.maps[0])
    cosine = found.normal.part[0].sum(), found.anomalous.part[0].sum()
    assert 1 / (1 + np.exp((cosine[0] - cosine[1]) / model.temperature)) == pytest.approx(found.score, abs=1e-6)
    # The same for the strongest window, which is the second query.
    best = max(window.max() for window in [found.windows[n][w.row, w.column] for n, w in enumerate(found.strongest)])
    logit = (found.anomalous.direction[1] - found.normal.direction[1]) / model.temperature
    assert 1 / (1 + np.exp(-logit)) == pytest.approx(best, abs=1e-6)
    # A prompt that occurs twice is listed once and counts twice.
    assert len(found.normal.prompts) == len(set(prompts.normal("bolt"))) == found.normal.cosine.shape[1]


@pytest.mark.parametrize("patch", [None, (0, 5)])
def test_the_nearest_is_the_nearest(backbone: Backbone, patch: tuple[int, int] | None) -> None:
    model = WinCLIP(backbone)
    model.set_class("bolt")
    pictures = golden_images()
    model.add_references(pictures[3:])
    found, out = explain(model, pictures[0], patch), model.predict(pictures[0])
    assert found.score == out.scores[0] and found.memory is not None
    grid, own, known = backbone.grid, model.encode(pictures[0]), model.encode(pictures[3:])
    maps = (found.zero + found.memory.mean).reshape(-1)
    row, column = divmod(int(maps.argmax()), grid) if patch is None else patch
    assert found.patch == Block(row, column, 1)
    parts = {1: (own.patch, known.patch), **dict(zip(own.scales, zip(own.windows, known.windows)))}
    for match in found.memory.matches:
        queries, references = parts[match.block.side]
        width = grid - match.block.side + 1
        assert 0 <= row - match.block.row < match.block.side and 0 <= column - match.block.column < match.block.side
        query = queries[0, match.block.row * width + match.block.column]
        distances = 0.5 * (1 - F.cosine_similarity(query, references, dim=-1))
        assert match.distance == pytest.approx(float(distances.min()), abs=1e-6)
        there = distances[match.reference, match.nearest.row * width + match.nearest.column]
        torch.testing.assert_close(there, distances.min())
    for window, values in zip(found.strongest, found.windows):
        holding = values[
            max(0, row - window.side + 1) : row + 1,
            max(0, column - window.side + 1) : column + 1,
        ]
        assert values[window.row, window.column] == holding.max()


def test_page_with_references(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = tmp_path / "again.png"
    copy.write_bytes(Path(FILES[3]).read_bytes())
    (tmp_path / "text.png").write_text("no picture")
    references = [
        word for path in (*FILES[3:], str(copy), str(tmp_path / "text.png")) for word in ("--reference", path)
    ]
    assert run(FILES[0], *references, "--patch", "2,3") == 0
    said = capsys.readouterr()
    assert "the 2 good pictures differ" in said.out and "not judged; patch 2,3 is looked at" in said.out
    assert "reference left out" in said.err and "text.png" in said.err
    page = (tmp_path / "out" / "image_0.png.html").read_text()
    assert "<dd>2</dd>" in page and "patch 2,3" in page
    assert re.search(r"<td>image_[34]\.png, patch \d,\d</td>", page)
    pictures = re.findall(r'<img alt="([^"]+)" src="data:image/webp;base64,[\w+/=]+">', page)
    assert len(pictures) == page.count("<img") >= 13
    assert "http" not in page.replace("http-equiv", "")


def test_page_without_references_and_from_a_memory(
    run: Run, backbone: Backbone, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(FILES[0], part=("--class_name", "<i>bolt")) == 0
    assert "their nearest patches and windows are left out" in capsys.readouterr().out
    page = (tmp_path / "out" / "image_0.png.html").read_text()
    assert "No good examples were given" in page and "&lt;i&gt;bolt" in page and "<i>bolt" not in page
    model = WinCLIP(backbone)
    model.set_class("bolt")
    model.add_references(golden_images()[3:])
    model.save_memory(tmp_path / "bolt.safetensors")
    memory = ("--memory", str(tmp_path / "bolt.safetensors"))
    assert run(FILES[0], part=memory) == 0
    assert "--reference beside --memory shows them" in capsys.readouterr().out
    without = (tmp_path / "out" / "image_0.png.html").read_text()
    assert re.search(r"reference [12], whose picture is not in the memory file", without)
    # Pictures beside it are shown if the memory was made from them, in any order.
    pictures = [word for path in (FILES[4], FILES[1], FILES[3]) for word in ("--reference", path)]
    assert run(FILES[0], *pictures, part=memory) == 0
    said = capsys.readouterr()
    assert "image_1.png is not in the memory and is left out" in said.err and "--reference beside" not in said.out
    page = (tmp_path / "out" / "image_0.png.html").read_text()
    assert "not in the memory file" not in page and "<dd>2</dd>" in page and "image_1.png" not in page
    # Nothing else differs.
    names = re.findall(r"<td>(image_[34]\.png), patch", page)
    assert (
        names == [f"image_{2 + int(number)}.png" for number in re.findall(r"<td>reference (\d), patch", without)] != []
    )


def test_page_says_both_parts_and_the_verdict(run: Run, backbone: Backbone, tmp_path: Path) -> None:
    model = WinCLIP(backbone)
    model.set_class("bolt")
    for references in ([], FILES[3:4], FILES[2:]):
        if references:
            model.add_references(references)
        assert run(FILES[0], *(word for path in references for word in ("--reference", path))) == 0
        page = (tmp_path / "out" / "image_0.png.html").read_text()
        facts = dict(re.findall(r"<dt>([^<]+)</dt>\s*<dd>([^<]+)</dd>", page))
        out, threshold = model.predict(FILES[0]), model.threshold()
        parts = {"score": out.scores, "text part": out.text_scores, "reference part": out.reference_scores}
        expected = {name: f"{part[0]:.4f}" for name, part in parts.items() if part is not None}
        assert {name: facts.get(name) for name in expected} == expected and len(expected) == 2 + bool(references)
        words = {None: "not judged", False: "not anomalous", True: "anomalous"}
        assert facts["verdict"] == words[threshold.judge(out)[0]]
        assert facts["anomalous"] == (threshold.limits or threshold.unsure)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([FILES[0], "--patch", "6,0"], "patch 6,0"),
        ([FILES[0], "--patch", "middle"], "--patch middle"),
        (["nowhere.png"], "nowhere.png"),
        ([str(CONFIG)], str(CONFIG)),
        ([FILES[0], "--reference", str(CONFIG)], "1 references"),
        ([], "no pictures"),
    ],
)
def test_what_does_not_work_is_one_line(
    run: Run, arguments: list[str], named: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(*arguments) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning:")]
    assert line.startswith("error: ") and named in line
    assert not (tmp_path / "out").exists()
