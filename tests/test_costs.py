"""The arithmetic of the cost plan, against numbers worked out by hand, and its command line."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import pytest

from benchmarks.costs import Figures, Work, beforehand, bottleneck, rate, seconds_in_one_process, stages, whole
from benchmarks.large_banks import clustered, nearest_entries
from benchmarks.large_banks import main as large_banks
from benchmarks.operations import association_operations, exact_operations, plain_operations, reference_bytes
from benchmarks.plan_costs import main, quantity
from winclip.clip import ClipConfig
from winclip.command_line import exit_status
from winclip.memory import MemoryBank, associate
from winclip.pretrained import parse_config, read_config

# A grid of 3 x 3 patches: one window of 3 x 3 and four of 2 x 2.
SMALL = ClipConfig(4, 6, 2, 8, 2, 2, 16, 8, 10, 8, 1, 2, 16, quick_gelu=False)
FIGURES = Figures(
    decode=10, rest=100, write=20, text=3, encode=2, score=1, bandwidth=0.001, cores=4,
    picture_bytes=1000, row_bytes=10, map_bytes=90,
)  # fmt: skip


def test_operations_and_bytes_of_references() -> None:
    # Each reference: 1 x 1 and 4 x 4 pairs of windows of width 4, 9 x 9 pairs of patches of width 8.
    assert association_operations(SMALL, 3) == 2 * 3 * ((1 + 16) * 4 + 81 * 8)
    # The class token, 5 windows and 9 patches in float32.
    assert reference_bytes(SMALL) == 4 * ((1 + 5) * 4 + 9 * 8)


def test_operations_of_the_published_model() -> None:
    config = parse_config(read_config("ViT-B-16-plus-240")[0], "ViT-B-16-plus-240")
    assert round(exact_operations(config) / 1e9) == 616
    assert round(plain_operations(config) / 1e9) == 673
    # 1.7 MB of embeddings a picture, as docs/performance.md says.
    assert round(reference_bytes(config) / 1e6, 1) == 1.7


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Work:
    """Work of one second of encoding, and of half a second for each reference."""
    monkeypatch.setattr("benchmarks.costs.exact_operations", lambda config: 2_000_000_000)
    monkeypatch.setattr("benchmarks.costs.association_operations", lambda config, shots: shots * 500_000_000)
    return Work(SMALL, shots=2, classes=5)


def test_stages_with_a_device(counted: Work) -> None:
    decode, copied, encode, score, write = stages(counted, FIGURES)
    assert (decode.core_seconds, decode.device_seconds) == (0.1, 0)
    # 6 x 6 pixels of 3 bytes at a million bytes a second.
    assert copied.device_seconds == pytest.approx(108e-6)
    assert (encode.core_seconds, encode.device_seconds) == (0, 1)
    assert (score.core_seconds, score.device_seconds) == (0.01, 1)
    assert (write.core_seconds, write.device_seconds) == (0.05, 0)
    assert rate(stages(counted, FIGURES), FIGURES) == pytest.approx(1 / 2.000108)
    first = beforehand(counted, FIGURES)
    # A class: 3 s of prompts, and 2 references that are decoded, encoded and compared with both.
    assert first.core == pytest.approx(5 * (3 + 2 * (0.1 + 0.01)))
    assert first.device == pytest.approx(5 * 2 * 2.000108)
    total = whole(counted, FIGURES, 1000)
    assert total.core == pytest.approx(first.core + 160)
    assert total.device == pytest.approx(first.device + 2000.108)


def test_the_cores_encode_where_nothing_is_copied(counted: Work) -> None:
    figures = Figures(**{**vars(FIGURES), "bandwidth": 0})
    _, copied, encode, score, _ = parts = stages(counted, figures)
    assert copied.device_seconds == copied.core_seconds == 0
    # All four cores are busy for that second.
    assert (encode.core_seconds, encode.device_seconds) == (4, 0)
    assert score.core_seconds == pytest.approx(4 + 0.01)
    assert rate(parts, figures) == pytest.approx(4 / (0.1 + 4 + 4.01 + 0.05))


@pytest.mark.parametrize(
    ("changed", "slowest"),
    [
        ({}, "encode"),
        ({"encode": 2000, "score": 1000}, "decode"),
        ({"encode": 2000, "score": 1000, "decode": 1000}, "write"),
        ({"encode": 2000, "score": 1000, "bandwidth": 1e-8}, "host to device"),
        ({"score": 0.5}, "score"),
    ],
)
def test_bottleneck(counted: Work, changed: dict[str, float], slowest: str) -> None:
    figures = Figures(**{**vars(FIGURES), **changed})
    assert bottleneck(stages(counted, figures), figures) == slowest


def test_one_process_overlaps_nothing_but_reading(counted: Work) -> None:
    figures = Figures(**{**vars(FIGURES), "bandwidth": 0})
    alone = 1 + 1 + 0.01 + 0.05
    assert seconds_in_one_process(counted, figures, 0) == pytest.approx(alone + 0.1)
    # Reading beside it needs cores that encoding does not leave: (4 + 4 + 0.01 + 0.05 + 0.1) / 4.
    assert seconds_in_one_process(counted, figures, 2) == pytest.approx(max(alone, 8.16 / 4))
    # One thread that reads a picture in five seconds is what all wait for.
    slow = Figures(**{**vars(FIGURES), "decode": 0.2})
    assert seconds_in_one_process(counted, slow, 1) == pytest.approx(5)


def test_quantities() -> None:
    shown = [quantity(value, "B") for value in (0, 5, 999.4, 999.6, 1234, 12345, 2.5e15)]
    assert shown == ["0 B", "5.00 B", "999 B", "1.00 kB", "1.23 kB", "12.3 kB", "2.50 PB"]


def test_figures_go_by_way_of_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "figures.json"
    assert main(["--model", "demo-vit-240", "--decode", "50", "--json", str(kept)]) == 0
    assert json.loads(kept.read_text())["decode"] == 50
    capsys.readouterr()
    assert main(["--model", "demo-vit-240", "--figures", str(kept), "--write", "7", "--count", "1000"]) == 0
    shown = capsys.readouterr().out
    assert f"| {kept}" in shown and "| given" in shown and "| 1,000 " in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--decode", "0"], "figure decode is 0.0; it is pictures a second that a core reads"),
        (["--bandwidth", "nan"], "figure bandwidth is nan; .* a number 0 or more"),
        (["--count", "0"], "--count 0 must be at least 1"),
        (["--k_shot", "-1"], "--k_shot -1 must be at least 0"),
        (["--check", "5", "9"], "--check and --pictures need figures of this machine; add --measure"),
        (["--measure", "--check", "9", "5"], "--check 9 5 must be two numbers above 0, the larger one last"),
        (["--measure", "--figures", "x"], "--measure and --figures both give the figures"),
        (["--figures", "{folder}/nothing"], "figures .*nothing cannot be read"),
        (["--figures", "{folder}/list.json"], "list.json is no JSON object of numbers; write it with --json"),
        (["--figures", "{folder}/other.json"], "figure 'speed' is unknown; there are decode, "),
        (["--figures", "{folder}/text.json"], "figure decode is 'fast'; it is"),
        (["--model", "vit"], "model 'vit' is unknown to open_clip"),
        (["--image_size", "100"], "image size 100 does not work"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content in (("list", "[1]"), ("other", '{"speed": 1}'), ("text", '{"decode": "fast"}')):
        (tmp_path / f"{name}.json").write_text(content)
    assert exit_status(partial(main, [word.format(folder=tmp_path) for word in arguments])) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err) and not captured.out


def test_a_large_bank_is_drawn_in_clusters_that_exact_search_finds() -> None:
    pictures = clustered(SMALL, 3, 1)
    bank = MemoryBank.of(pictures)
    again = clustered(SMALL, 3, 1)[1:2]
    # Entry by entry the second of three references: its windows of one scale, of the other, and its patches.
    found = [numbers.tolist() for numbers in nearest_entries(again, bank)]
    assert found == [list(range(count, 2 * count)) for count in (1, 4, 9)]
    other = clustered(SMALL, 1, 2)
    assert 0 < float(associate(other, bank).patch.max()) < 0.5


def test_bad_input_of_the_large_banks(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("--references", "--probes", "--turns"):
        assert exit_status(partial(large_banks, [option, "0"])) == 2
        assert f"{option} 0 must be at least 1" in capsys.readouterr().err
