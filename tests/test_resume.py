"""test.py goes on where it stopped, and ends with the bytes of a run that was not disturbed."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch

import evaluation.checkpoint
import evaluation.run
import evaluation.scorer
from evaluation.ranks import Ranks
from evaluation.reading import Reader
from evaluation.references import Plan, References, encode_references
from evaluation.scoring import ClassScores, score_batch
from tests.kills import check_kills, evaluation_command
from winclip.support.errors import InputError

Evaluate = Callable[..., int]
# Three batches a class.
OPTIONS = ["--k_shot", "0", "2", "--seed", "3", "4", "--batch_size", "2"]
BATCHES = 6


@pytest.fixture(autouse=True)
def saved_after_every_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation.checkpoint, "SECONDS", 0.0)


def stop_after(
    monkeypatch: pytest.MonkeyPatch, batches: int, error: type[BaseException] = KeyboardInterrupt
) -> Callable[[], int]:
    """Let runs end early; gives the number of batches that were scored since."""
    done = itertools.count()

    def score(*arguments: Any) -> ClassScores:
        if next(done) == batches:
            raise error(*(() if error is KeyboardInterrupt else ("stopped by the test",)))
        return score_batch(*arguments)

    monkeypatch.setattr(evaluation.scorer, "score_batch", score)
    return lambda: next(done)


def encode_and_note(names: list[str], reader: Reader, plan: Plan, name: str, ranks: Ranks) -> References:
    names.append(name)
    return encode_references(reader, plan, name, ranks)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file by its path; of config.json what does not vary, of log.txt nothing."""
    found = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found.pop("log.txt")
    config = json.loads(found["config.json"])
    for varying in ("seconds", "save_path"):
        config.pop(varying, None)
        config["options"].pop(varying, None)
    return {**found, "config.json": json.dumps(config).encode()}


def parts(folder: Path) -> list[Path]:
    return sorted((folder / ".checkpoint").glob("*.safetensors"))


@pytest.mark.parametrize("error", [KeyboardInterrupt, InputError, RuntimeError])
def test_what_ends_a_run_costs_no_batch(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: type[BaseException],
) -> None:
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 4, error)
        if error is RuntimeError:
            with pytest.raises(RuntimeError):
                evaluate(data, save, *OPTIONS)
        else:
            assert evaluate(data, save, *OPTIONS) == (130 if error is KeyboardInterrupt else 2)
            last = capsys.readouterr().err.splitlines()[-1]
            assert "the same command goes on" in last
    log = (save / "log.txt").read_text().splitlines()[-1]
    assert "ERROR" in log and ("SIGINT" if error is KeyboardInterrupt else "stopped by the test") in log
    assert json.loads((save / "config.json").read_text())["finished"] is False
    counted = stop_after(monkeypatch, BATCHES)
    assert evaluate(data, save, *OPTIONS) == 0
    assert counted() == BATCHES - 4
    assert "8 of 12 test images are scored already" in (save / "log.txt").read_text()


def test_stopped_at_every_batch_it_ends_with_the_same_bytes(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (data / "bolt/train/good/3.png").write_bytes(b"damaged")
    (data / "felt/test/good/1.png").write_bytes(b"damaged")
    options = [*OPTIONS, "--skip_unreadable", "--save_maps"]
    assert evaluate(data, tmp_path / "whole", *options) == 0
    printed, whole = capsys.readouterr().out, contents(tmp_path / "whole")
    assert "maps/2shot-seed4/felt.npz" in whole and not any(".checkpoint" in name for name in whole)
    assert json.loads(whole["config.json"])["unreadable_images"] == ["bolt/train/good/3.png", "felt/test/good/1.png"]
    for stopped in range(BATCHES):
        save = tmp_path / str(stopped)
        with monkeypatch.context() as patch:
            stop_after(patch, stopped)
            assert evaluate(data, save, *options) == 130
            assert len(parts(save)) == stopped
        with monkeypatch.context() as patch:
            encoded: list[str] = []
            patch.setattr(evaluation.scorer, "encode_references", partial(encode_and_note, encoded))
            capsys.readouterr()
            assert evaluate(data, save, *options) == 0
        assert encoded == ["bolt", "felt"][stopped // 3 :]
        assert contents(save) == whole
        assert capsys.readouterr().out == printed


def test_what_is_finished_serves_the_report_and_the_check_of_the_metrics(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [*OPTIONS, "--report", "--check_metrics"]
    assert evaluate(data, tmp_path / "whole", *options) == 0
    printed = capsys.readouterr().out
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        # Behind the last image.
        patch.setattr(evaluation.run, "tables", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            evaluate(data, save, *options)
    stop_after(monkeypatch, 0)
    assert evaluate(data, save, *options) == 0
    assert contents(save) == contents(tmp_path / "whole")
    assert capsys.readouterr().out == printed


def test_many_stops_in_one_run(evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert evaluate(data, tmp_path / "whole", *OPTIONS) == 0
    save = tmp_path / "out"
    for _ in range(BATCHES - 1):
        with monkeypatch.context() as patch:
            stop_after(patch, 1)
            assert evaluate(data, save, *OPTIONS) == 130
    stop_after(monkeypatch, 1)
    assert evaluate(data, save, *OPTIONS) == 0
    assert contents(save) == contents(tmp_path / "whole")


def test_between_savings_what_came_since_the_last_is_kept_in_memory(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation.checkpoint, "SECONDS", 1e9)
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert evaluate(data, save, *OPTIONS) == 130
    # The first class, and what was saved at the stop.
    assert [path.name.split("-")[1:3] for path in sorted(parts(save), key=lambda path: path.stat().st_mtime_ns)] == [
        ["000000", "6"],
        ["000000", "4"],
    ]
    counted = stop_after(monkeypatch, BATCHES)
    assert evaluate(data, save, *OPTIONS) == 0
    assert counted() == 1


def stopped_run(evaluate: Evaluate, data: Path, save: Path, monkeypatch: pytest.MonkeyPatch, *more: str) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        assert evaluate(data, save, *OPTIONS, *more) == 130
    assert len(parts(save)) == 2


def goes_on(
    evaluate: Evaluate, data: Path, save: Path, monkeypatch: pytest.MonkeyPatch, *more: str
) -> tuple[bool, str]:
    """Whether a run took over what another left, and its log."""
    with monkeypatch.context() as patch:
        counted = stop_after(patch, 10 * BATCHES)
        assert evaluate(data, save, *OPTIONS, *more) == 0
    log = (save / "log.txt").read_text()
    fewer = counted() < BATCHES
    assert fewer == ("are scored already" in log)
    return fewer, log


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--k_shot", "0", "1"], "k_shot"),
        (["--k_shot", "2", "0"], "k_shot, seed"),
        (["--seed", "4", "5"], "seed"),
        (["--scales", "2"], "scales"),
        (["--image_size", "64"], "image_size"),
        (["--temperature", "0.1"], "temperature"),
        (["--prompt_set", "paper"], "prompt_set"),
    ],
)
def test_other_options_start_from_the_beginning(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    named: str,
) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch)
    went_on, log = goes_on(evaluate, data, save, monkeypatch, *options)
    assert not went_on
    assert f".checkpoint was made with another {named}, so the run starts from the beginning" in log
    assert evaluate(data, tmp_path / "whole", *OPTIONS, *options) == 0
    assert contents(save) == contents(tmp_path / "whole")


def test_other_weights_and_versions_start_from_the_beginning(
    evaluate: Evaluate, data: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, others = tmp_path / "out", tmp_path / "others.safetensors"
    weights = safetensors.torch.load_file(checkpoint)
    safetensors.torch.save_file({**weights, "visual.proj": weights["visual.proj"] * 2}, others)
    stopped_run(evaluate, data, save, monkeypatch)
    went_on, log = goes_on(evaluate, data, save, monkeypatch, "--pretrained", str(others))
    assert not went_on and "made with another weights_sha256, so" in log
    stopped_run(evaluate, data, save, monkeypatch)
    monkeypatch.setattr("winclip.__version__", "0")
    went_on, log = goes_on(evaluate, data, save, monkeypatch)
    assert not went_on and "made with another winclip version, so" in log


@pytest.mark.parametrize("options", [["--aupro", "exact"], ["--compare", "--dataset", "mvtec"], ["--batch_size", "5"]])
def test_options_that_change_no_score_go_on(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str]
) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch)
    assert goes_on(evaluate, data, save, monkeypatch, *options)[0]
    assert evaluate(data, tmp_path / "whole", *OPTIONS, *options) == 0
    assert contents(save) == contents(tmp_path / "whole")


@pytest.mark.parametrize("number_of_threads", [1, 2])
def test_another_machine_goes_on_and_says_so(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number_of_threads: int,
) -> None:
    save = tmp_path / "out"
    monkeypatch.setattr("torch.get_num_threads", lambda: 1)
    stopped_run(evaluate, data, save, monkeypatch)
    monkeypatch.setattr("torch.get_num_threads", lambda: number_of_threads)
    went_on, log = goes_on(evaluate, data, save, monkeypatch)
    assert went_on
    assert ("the run began with another torch_threads, so its figures may differ" in log) == (number_of_threads == 2)


@pytest.mark.parametrize(
    "changed", ["bolt/test/good/0.png", "bolt/masks/scratch/1.png", "bolt/train/good/2.png", "meta"]
)
def test_class_whose_files_changed_starts_anew(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert evaluate(data, save, *OPTIONS) == 130
    if changed == "meta":
        meta = json.loads((data / "meta.json").read_text())
        meta["test"]["bolt"].pop()
        (data / "meta.json").write_text(json.dumps(meta))
    else:
        os.utime(data / changed, (0, 0))
    went_on, log = goes_on(evaluate, data, save, monkeypatch)
    assert went_on and "4 of 1" in log, "what is known of felt is taken over"
    assert "bolt: its images, masks, references or words for prompts are others than before, so it starts anew" in log
    assert "felt: its" not in log


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-50] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, Path.unlink])
def test_damaged_part_is_not_used(
    evaluate: Evaluate,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
) -> None:
    assert evaluate(data, tmp_path / "whole", *OPTIONS) == 0
    save = tmp_path / "out"
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert evaluate(data, save, *OPTIONS) == 130
    damage(parts(save)[1])
    went_on, log = goes_on(evaluate, data, save, monkeypatch)
    assert went_on and "2 of 12 test images are scored already" in log
    assert "is damaged or follows a missing one; images from there on are scored again" in log
    assert contents(save) == contents(tmp_path / "whole")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"made_with": 1, "machine": {}, "classes": {}}', "[" * 100_000])
def test_damaged_identity_starts_from_the_beginning(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch)
    (save / ".checkpoint" / "made_with.json").write_text(content)
    went_on, log = goes_on(evaluate, data, save, monkeypatch)
    assert not went_on
    assert "made_with.json cannot be read (" in log


def test_fresh_starts_over(evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch)
    assert not goes_on(evaluate, data, save, monkeypatch, "--fresh")[0]
    stopped_run(evaluate, data, save, monkeypatch)
    assert goes_on(evaluate, data, save, monkeypatch, "--resume")[0]


def test_unreadable_image_is_mended_or_left_out_without_loss(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    image = data / "felt/test/scratch/0.png"
    sound = image.read_bytes()
    assert evaluate(data, tmp_path / "whole", *OPTIONS) == 0
    image.write_bytes(b"damaged")
    for save in (tmp_path / "mended", tmp_path / "skipped"):
        assert evaluate(data, save, *OPTIONS) == 2
        assert capsys.readouterr().err.endswith(
            "--skip_unreadable; what was scored is kept, and the same command goes on from there\n"
        )
    went_on, log = goes_on(evaluate, data, tmp_path / "skipped", monkeypatch, "--skip_unreadable")
    assert went_on and "8 of 12" in log and "left out" in log
    image.write_bytes(sound)
    went_on, log = goes_on(evaluate, data, tmp_path / "mended", monkeypatch)
    assert went_on and "6 of 12" in log and "felt: its images" in log
    assert contents(tmp_path / "mended") == contents(tmp_path / "whole")


def test_references_that_others_take_the_place_of_start_a_class_anew(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "out"
    stopped_run(evaluate, data, save, monkeypatch, "--skip_unreadable")
    image = data / "bolt/train/good/0.png"
    state = image.stat()
    # The same size and time, as where a disk fails.
    image.write_bytes(b"\0" * state.st_size)
    os.utime(image, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert evaluate(data, save, *OPTIONS, "--skip_unreadable") == 0
    assert "bolt: other references can be read than before, so it starts anew" in (save / "log.txt").read_text()
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
    assert {path for path in save.rglob("*") if path.is_file()} == {
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


def test_run_that_is_stopped_in_its_first_class_leaves_nothing_of_an_earlier_one(
    evaluate: Evaluate, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--save_maps") == 0
    stopped_run(evaluate, data, save, monkeypatch)
    assert {path.name for path in save.iterdir()} == {"log.txt", ".checkpoint"}


def test_killed_at_random_moments_it_ends_with_the_same_bytes(data: Path, tmp_path: Path) -> None:
    check_kills(evaluation_command, data, tmp_path, kills=3)
