"""Scores of test.py stay in scores/: a run resumes there, and computes metrics again without the network."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import evaluation.parts
import evaluation.run
import evaluation.scoring
from evaluation.parts import ClassScores
from evaluation.scoring import score_batch
from tests.kills import check_kills, contents, evaluation_command
from winclip.support.errors import InputError

Evaluate = Callable[..., int]
# Three batches a class.
OPTIONS = ["--k_shot", "0", "2", "--seed", "3", "4", "--batch_size", "2"]
BATCHES = 6


@pytest.fixture(autouse=True)
def saved_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation.parts, "SECONDS", 0.0)


def stop_after(
    monkeypatch: pytest.MonkeyPatch, batches: int, error: type[BaseException] = KeyboardInterrupt
) -> Callable[[], int]:
    """Let runs end early; returns the number of batches scored since."""
    done = itertools.count()

    def score(*arguments: Any) -> ClassScores:
        if next(done) == batches:
            raise error(*(() if error is KeyboardInterrupt else ("stopped by the test",)))
        return score_batch(*arguments)

    monkeypatch.setattr(evaluation.scoring, "score_batch", score)
    return lambda: next(done)


def parts(folder: Path) -> list[Path]:
    return sorted((folder / "scores").rglob("*.safetensors"))


def log_of(save: Path) -> str:
    return (save / "log.txt").read_text()


def scored(save: Path) -> tuple[int, int]:
    """How many images the last run has scored, and how many it found scored."""
    config = json.loads((save / "config.json").read_text())["scored"]
    return config["by_this_run"], config["there_before"]


def stopped_run(evaluate: Evaluate, data: Path, save: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert evaluate(data, save, *OPTIONS, *more) == 130
    assert len(parts(save)) == 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, RuntimeError])
def test_what_ends_a_run_costs_no_batch(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    # The end of a run writes what is not yet written.
    monkeypatch.setattr(evaluation.parts, "SECONDS", 1e9)
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 4, error)
        if error is RuntimeError:
            with pytest.raises(RuntimeError):
                evaluate(data, save, *OPTIONS)
        else:
            assert evaluate(data, save, *OPTIONS) == (130 if error is KeyboardInterrupt else 2)
            assert "the same command goes on" in capsys.readouterr().err.splitlines()[-1]
    log = log_of(save).splitlines()[-1]
    assert "ERROR" in log and ("SIGINT" if error is KeyboardInterrupt else "stopped by the test") in log
    assert json.loads((save / "config.json").read_text())["finished"] is False
    counted = stop_after(monkeypatch, BATCHES)
    assert evaluate(data, save, *OPTIONS) == 0
    assert counted() == BATCHES - 4
    assert scored(save) == (4, 8)


def test_stopped_at_every_batch_it_ends_with_the_same_bytes(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (data / "bolt/train/good/3.png").write_bytes(b"damaged")
    (data / "felt/test/good/1.png").write_bytes(b"damaged")
    options = [*OPTIONS, "--skip_unreadable", "--save_maps"]
    assert evaluate(data, tmp_path / "whole", *options) == 0
    printed, whole = capsys.readouterr().out, contents(tmp_path / "whole")
    assert "maps/2shot-seed4/felt.npz" in whole
    unreadable = json.loads((tmp_path / "whole" / "config.json").read_text())["unreadable_images"]
    assert unreadable == ["bolt/train/good/3.png", "felt/test/good/1.png"]
    save = tmp_path / "out"
    for stopped in range(BATCHES - 1):
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            assert evaluate(data, save, *options) == 130
            assert len(parts(save)) == stopped + 1
    assert evaluate(data, save, *options) == 0
    capsys.readouterr()
    assert contents(save) == whole
    # Again, only from the parts.
    stop_after(monkeypatch, 0)
    assert evaluate(data, save, *options) == 0
    assert contents(save) == whole
    assert capsys.readouterr().out == printed


def test_measuring_again_needs_no_network(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = ["--aupro", "exact", "--intervals", "--report", "--check_metrics", "--save_maps"]
    fewer = ["--k_shot", "2", "--seed", "4", "--classes", "felt"]
    for name, options in (("more", [*OPTIONS, *more]), ("fewer", fewer)):
        assert evaluate(data, tmp_path / name, *options) == 0
    save = tmp_path / "out"
    assert evaluate(data, save, *OPTIONS) == 0
    with monkeypatch.context() as patch:
        patch.setattr("winclip.network.clip_backbone.read_checkpoint", lambda path: 1 / 0)
        assert evaluate(data, save, *OPTIONS, *more) == 0
        assert "scored already" in log_of(save) and scored(save) == (0, 12)
        assert contents(save) == contents(tmp_path / "more")
        assert evaluate(data, save, *fewer) == 0
        assert contents(save) == contents(tmp_path / "fewer")


def test_more_shots_seeds_and_classes_encode_what_is_missing(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--batch_size", "2", "--classes", "felt") == 0
    with monkeypatch.context() as patch:
        counted = stop_after(patch, 99)
        assert evaluate(data, save, "--batch_size", "2") == 0
        assert counted() == 3 and scored(save) == (6, 6)
    assert evaluate(data, save, *OPTIONS) == 0
    assert scored(save) == (12, 0)
    assert evaluate(data, tmp_path / "whole", *OPTIONS) == 0
    assert contents(save) == contents(tmp_path / "whole")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--scales", "2"], "scales"),
        (["--image_size", "64"], "image_size"),
        (["--temperature", "0.1"], "temperature"),
        (["--prompt_set", "paper"], "prompt_set"),
        (["--pretrained"], "weights_sha256"),
        (["version"], "torch version"),
    ],
)
def test_what_was_made_with_something_else_stays_and_is_named(
    evaluate: Evaluate,
    data: Path,
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    named: str,
) -> None:
    save, others = tmp_path / "out", tmp_path / "others.safetensors"
    stopped_run(evaluate, data, save, monkeypatch)
    before = parts(save)
    if options == ["--pretrained"]:
        weights = safetensors.torch.load_file(checkpoint)
        safetensors.torch.save_file({**weights, "visual.proj": weights["visual.proj"] * 2}, others)
        options = ["--pretrained", str(others)]
    if options == ["version"]:
        monkeypatch.setattr(evaluation.run, "versions", lambda: {"torch": "0"})
        options = []
    assert evaluate(data, save, *OPTIONS, *options) == 0
    assert scored(save) == (12, 0)
    assert f"stays, made with another {named}, " in log_of(save) and "--fresh removes it" in log_of(save)
    assert set(before) < set(parts(save))
    assert evaluate(data, tmp_path / "whole", *OPTIONS, *options) == 0
    assert contents(save) == contents(tmp_path / "whole")
    assert evaluate(data, save, *OPTIONS, *options, "--fresh") == 0
    assert not set(before) & set(parts(save)) and scored(save) == (12, 0)


def test_another_machine_goes_on_and_says_so(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "out"
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    stopped_run(evaluate, data, save, monkeypatch)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    assert evaluate(data, save, *OPTIONS) == 0
    assert scored(save) == (8, 4)
    assert "bolt was scored in parts with another torch_threads, so its figures may differ" in log_of(save)


@pytest.mark.parametrize(
    "changed", ["bolt/test/good/0.png", "bolt/masks/scratch/1.png", "bolt/train/good/2.png", "meta"]
)
def test_class_whose_files_changed_is_scored_anew(evaluate: Evaluate, data: Path, tmp_path: Path, changed: str) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, *OPTIONS) == 0
    if changed == "meta":
        meta = json.loads((data / "meta.json").read_text())
        meta["test"]["bolt"].pop()
        (data / "meta.json").write_text(json.dumps(meta))
    else:
        os.utime(data / changed, (0, 0))
    assert evaluate(data, save, *OPTIONS) == 0
    assert scored(save) == (5 if changed == "meta" else 6, 6)
    assert "bolt: its images, masks, references or words" in log_of(save) and "felt: its" not in log_of(save)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [flip, Path.unlink])
def test_damaged_part_is_scored_again(
    evaluate: Evaluate, data: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, *OPTIONS) == 0
    whole = contents(save)
    damage(parts(save)[1])
    assert evaluate(data, save, *OPTIONS) == 0
    assert scored(save) == (2, 10)
    assert contents(save) == whole


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_damaged_statement_does_no_harm(evaluate: Evaluate, data: Path, tmp_path: Path, content: str) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, *OPTIONS) == 0
    whole = contents(save)
    (stated,) = (save / "scores").glob("*/made_with.json")
    stated.write_text(content)
    assert evaluate(data, save, *OPTIONS) == 0
    assert contents(save) == whole


def test_unreadable_image_is_mended_or_left_out_without_loss(
    evaluate: Evaluate, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "felt/test/scratch/0.png"
    sound = image.read_bytes()
    assert evaluate(data, tmp_path / "whole", *OPTIONS) == 0
    image.write_bytes(b"damaged")
    for save in (tmp_path / "mended", tmp_path / "skipped"):
        assert evaluate(data, save, *OPTIONS) == 2
        error = capsys.readouterr().err
        assert "--skip_unreadable" in error and "the same command goes on from there" in error
    assert evaluate(data, tmp_path / "skipped", *OPTIONS, "--skip_unreadable") == 0
    assert scored(tmp_path / "skipped") == (4, 8) and "left out" in log_of(tmp_path / "skipped")
    # Without the option, the images left out are still an error.
    assert evaluate(data, tmp_path / "skipped", *OPTIONS) == 2
    image.write_bytes(sound)
    assert evaluate(data, tmp_path / "mended", *OPTIONS) == 0
    assert contents(tmp_path / "mended") == contents(tmp_path / "whole")


def test_other_references_are_not_mixed(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch, "--skip_unreadable")
    image = data / "bolt/train/good/0.png"
    state = image.stat()
    # The same size and time, as after a disk error.
    image.write_bytes(b"\0" * state.st_size)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert evaluate(data, save, *OPTIONS, "--skip_unreadable") == 2
    assert "class bolt: other references can be read" in capsys.readouterr().err
    assert evaluate(data, save, *OPTIONS, "--skip_unreadable", "--fresh") == 0
    assert evaluate(data, tmp_path / "whole", *OPTIONS, "--skip_unreadable") == 0
    assert contents(save) == contents(tmp_path / "whole")


def test_files_of_an_earlier_run_are_replaced_as_a_whole(evaluate: Evaluate, data: Path, tmp_path: Path) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, *OPTIONS, "--save_maps", "--report") == 0
    foreign = [save / "notes.txt", save / "maps" / "2shot-seed3" / "notes.txt", save / "maps" / "screenshots" / "a.npz"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    assert evaluate(data, save, "--classes", "felt") == 0
    assert {path for path in save.rglob("*") if path.is_file() and "scores" not in path.parts} == {
        *foreign,
        *(save / f"{name}.csv" for name in ("results", "types", "scores", "k_shot")),
        *(save / name for name in ("tables.md", "config.json", "log.txt")),
    }
    assert not (save / "maps" / "0shot").exists()


@pytest.mark.parametrize("wrong", [["--pretrained", "nowhere.pt"], ["--classes", "nuts"], ["--k_shot", "9"]])
def test_run_that_cannot_begin_leaves_the_earlier_one_whole(
    evaluate: Evaluate, data: Path, tmp_path: Path, wrong: list[str]
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--save_maps") == 0
    before = {path: path.read_bytes() for path in save.rglob("*") if path.is_file()}
    assert evaluate(data, save, *wrong) == 2
    assert {path: path.read_bytes() for path in save.rglob("*") if path.is_file()} == before


# With the slow tests ten together.
@pytest.mark.parametrize("kills", [3, pytest.param(7, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_ends_with_the_same_bytes(data: Path, tmp_path: Path, kills: int) -> None:
    check_kills(evaluation_command, data, tmp_path, kills)
