"""``--watch``: pictures are scored when they are complete, until a signal or a folder that disappears."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Predict
from tests.test_predict import Capture, contents, error_line, rows
from winclip import InputError
from winclip.prediction.pictures import Watch
from winclip.support.command_line import Terminated

Steps = Callable[..., None]


@pytest.fixture
def between(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """Says what happens in each pause between two scans; after the last, Ctrl-C."""

    def set_steps(*steps: Callable[[], object], end: type[BaseException] = KeyboardInterrupt) -> None:
        left = iter(steps)

        def pause() -> None:
            step = next(left, None)
            if step is None:
                raise end
            step()

        monkeypatch.setattr(Watch, "pause", staticmethod(pause))

    return set_steps


def nothing() -> None:
    """Another scan finds the same."""


def test_complete_pictures_are_given_once_and_again_when_they_change(tmp_path: Path) -> None:
    watch, path = Watch([str(tmp_path)]), tmp_path / "a.png"
    assert watch.complete() == []
    path.write_bytes(b"half")
    assert watch.complete() == []
    path.write_bytes(b"half of it")  # still being written
    assert watch.complete() == []
    assert watch.complete() == [str(path)]
    assert watch.complete() == []
    os.utime(path, ns=(1, 1))
    assert watch.complete() == []
    assert watch.complete() == [str(path)]
    path.unlink()
    (tmp_path / ".b.png").touch()
    assert watch.complete() == watch.complete() == []
    with pytest.raises(InputError, match=r"folder .*b\.png"):
        Watch([str(tmp_path / ".b.png")]).complete()


def test_pictures_are_scored_as_they_come(run: Predict, pictures: Path, capsys: Capture, between: Steps) -> None:
    watched, save = pictures / "watched", pictures / "out"
    watched.mkdir()
    whole = (pictures / "images" / "b.png").read_bytes()
    seen: list[list[str]] = []

    def put(name: str, content: bytes) -> Callable[[], None]:
        def step() -> None:
            seen.append([Path(row["path"]).name for row in rows(save)] if (save / "predictions.csv").exists() else [])
            (watched / name).write_bytes(content)

        return step

    between(put("a.png", whole), nothing, put("b.png", whole[:400]), nothing, put("b.png", whole), nothing)
    arguments = [watched, "--reference", pictures / "good", "--save_path", save, "--watch", "--report"]
    assert run(*arguments) == 130
    out = capsys.readouterr()
    # Once the first is complete its row is in the table, before the second arrives.
    assert seen == [[], ["a.png"], ["a.png"]]
    assert [Path(row["path"]).name for row in rows(save)] == ["a.png", "b.png"]
    # A file that was incomplete in an earlier scan is no longer a failure.
    assert "passed over: image" in out.err and rows(save, "failures.csv") == []
    lines = out.out.splitlines()
    assert lines[0].endswith(f"  {watched / 'a.png'}") and lines[1].endswith(f"  {watched / 'b.png'}")
    assert lines[2].startswith("2 pictures: ") and lines[-1] == f"report: {save / 'report.html'}"
    assert "stopped by SIGINT; 2 pictures are scored" in out.err
    summary = json.loads((save / "run.json").read_text())
    assert (summary["finished"], summary["scored"], summary["unreadable"]) == (True, 2, 0)
    # It resumes where it ended, and ends with the files of an uninterrupted run.
    between(put("c.png", whole), nothing, nothing, end=Terminated)
    assert run(*arguments, "--resume") == 143
    assert capsys.readouterr().err.count("2 pictures done already, 0 left") == 1
    assert [Path(row["path"]).name for row in rows(save)] == ["a.png", "b.png", "c.png"]
    between(nothing, nothing)
    assert run(*arguments[:3], "--save_path", pictures / "undisturbed", "--watch", "--report") == 130
    assert contents(save) == contents(pictures / "undisturbed")
    # Except for the colours, the files equal those of a run with all pictures from the beginning.
    assert run(*arguments[:3], "--save_path", pictures / "plain", "--report") == 0
    for name in ("predictions.jsonl", "predictions.csv", "predictions.json", "failures.csv"):
        assert (save / name).read_bytes() == (pictures / "plain" / name).read_bytes()


def test_heat_maps_are_drawn_at_once_in_one_scale(run: Predict, pictures: Path, between: Steps) -> None:
    images, save = pictures / "images", pictures / "out"
    arguments = [images, "--reference", pictures / "good", "--save_path", save]
    seen: list[tuple[int, object]] = []

    def look() -> None:
        colours = json.loads((save / "run.json").read_text())["colours"]
        seen.append((len(list(save.rglob("heatmaps/**/*.jpg"))), colours))

    between(look, look, look)
    assert run(*arguments, "--watch") == 130
    colours = seen[0][1]
    assert colours is not None and seen == [(0, colours), (4, colours), (4, colours)]
    assert not (save / "maps").exists()
    # However the run resumes, the scale is that of the existing heat maps.
    (images / "d.png").write_bytes((images / "b.png").read_bytes())
    assert run(*arguments, "--resume") == 0
    assert json.loads((save / "run.json").read_text())["colours"] == colours
    before = contents(save)
    between(nothing, nothing)
    assert run(*arguments, "--resume", "--watch") == 130
    assert contents(save) == before


def test_a_watched_folder_that_disappears_ends_the_run_and_rows_stay(
    run: Predict, pictures: Path, capsys: Capture, between: Steps
) -> None:
    watched, save = pictures / "images", pictures / "out"
    between(nothing, lambda: shutil.rmtree(watched))
    assert run(watched, "--save_path", save, "--watch") == 2
    line = error_line(capsys)
    assert f"folder {watched} " in line and "4 pictures are scored" in line and "--resume" in line
    assert len(rows(save)) == 4 and len(rows(save, "failures.csv")) == 1
    assert run(watched, "--save_path", pictures / "none", "--watch") == 2
    assert f"folder {watched} " in error_line(capsys)


def test_nothing_came(run: Predict, pictures: Path, capsys: Capture, between: Steps) -> None:
    (pictures / "empty").mkdir()
    between()
    assert run(pictures / "empty", "--save_path", pictures / "out", "--watch", "--open") == 130
    assert capsys.readouterr().out.startswith("0 pictures: ranked, not judged\n")
    assert rows(pictures / "out") == []
