"""The shell scripts, run in a copy of the checkout that borrows its .venv."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, make_data
from tests.tiny import CONFIG


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in ("MVTEC_ROOT", "VISA_ROOT", "NPROC")}
    return subprocess.run(
        command, cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True, check=False
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    copy = tmp_path / "a checkout"
    for folder in ("winclip", "datasets", "docs", "evaluation", "scripts"):
        shutil.copytree(ROOT / folder, copy / folder)
    for pattern in ("*.py", "*.sh", "*.toml", "requirements*.txt"):
        for path in ROOT.glob(pattern):
            shutil.copy(path, copy)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    return copy


def objects(path: Path) -> list[tuple[str, str]]:
    with path.open(newline="") as file:
        return [(row["k_shot"], row["objects"]) for row in csv.DictReader(file)]


def tiny_options(checkpoint: Path) -> list[str]:
    return ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu"]


def test_zero_shot_runs_every_data_set_that_is_in_place(checkout: Path, checkpoint: Path, tmp_path: Path) -> None:
    data = make_data(checkout / "data" / "mvtec")
    # Its meta.json is missing, and is written first.
    (data / "meta.json").unlink()
    for name, known in (("bolt", "screw"), ("felt", "carpet")):
        (data / name / "masks").rename(data / name / "ground_truth")
        for mask in (data / name / "ground_truth").glob("*/*.png"):
            mask.rename(mask.with_name(f"{mask.stem}_mask.png"))
        (data / name).rename(data / known)
    make_data(tmp_path / "elsewhere")
    elsewhere = {"VISA_ROOT": str(tmp_path / "elsewhere")}
    done = run(["bash", str(checkout / "zero_shot.sh"), *tiny_options(checkpoint)], tmp_path, **elsewhere)
    assert done.returncode == 0, done.stderr
    assert "## mvtec, 0-shot" in done.stdout and "## visa, 0-shot" in done.stdout
    for name, classes in (("mvtec", ("carpet", "screw")), ("visa", ("bolt", "felt"))):
        found = objects(checkout / "results" / name / "results.csv")
        assert found == [("0", known) for known in (*classes, "mean")]


def test_few_shot_passes_options_on(checkout: Path, checkpoint: Path, tmp_path: Path) -> None:
    make_data(checkout / "data" / "visa")
    command = ["bash", str(checkout / "few_shot.sh"), "--save_path", "my results", *tiny_options(checkpoint)]
    done = run([*command, "--k_shot", "1", "2"], tmp_path)
    assert done.returncode == 0, done.stderr
    shots = {k for k, _ in objects(tmp_path / "my results" / "visa" / "results.csv")}
    assert shots == {"1", "2"}
    # Four train images are too few for the script's own 1, 2, 4 and 8 shots.
    refused = run(command, tmp_path)
    assert refused.returncode == 2
    assert "class bolt" in refused.stderr and "k_shot asks for 8" in refused.stderr


@pytest.mark.slow
def test_several_processes_share_the_work(checkout: Path, checkpoint: Path, tmp_path: Path) -> None:
    make_data(checkout / "data" / "visa")
    done = run(["bash", str(checkout / "zero_shot.sh"), *tiny_options(checkpoint)], tmp_path, NPROC="2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("## visa, 0-shot") == 1
    assert ", 2 ranks" in (checkout / "results" / "visa" / "log.txt").read_text()


@pytest.mark.parametrize(("name", "value"), [("MVTEC_ROOT", "nowhere"), ("NPROC", "two"), ("NPROC", "0")])
def test_wrong_variables_are_refused(checkout: Path, tmp_path: Path, name: str, value: str) -> None:
    done = run(["bash", str(checkout / "zero_shot.sh")], tmp_path, **{name: value})
    assert done.returncode == 2
    assert f"{name} is '{value}'" in done.stderr


@pytest.mark.slow
def test_without_data_sets_the_sample_runs_with_the_demo_backbone(checkout: Path, tmp_path: Path) -> None:
    done = run(["bash", str(checkout / "zero_shot.sh"), "--classes", "gear"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "embedded sample with the embedded demo backbone" in done.stderr
    assert objects(checkout / "results" / "sample" / "results.csv") == [("0", "gear"), ("0", "mean")]
    figure = tmp_path / "figure.jpg"
    python = str(checkout / ".venv" / "bin" / "python")
    drawn = run([python, "-m", "scripts.draw_sample", "--save_path", str(figure)], checkout)
    assert drawn.returncode == 0, drawn.stderr
    assert figure.stat().st_size > 10_000


@pytest.fixture
def empty_project(tmp_path: Path) -> Path:
    """A project with setup.sh that installs nothing but itself."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    (tmp_path / "requirements.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "nothing"\nversion = "1"\noptional-dependencies.more = []\n'
        "[tool.setuptools]\npackages = []\n"
    )
    return tmp_path


@pytest.mark.slow
def test_setup_installs_once(empty_project: Path) -> None:
    first = run(["bash", "scripts/setup.sh"], empty_project)
    assert first.returncode == 0, first.stderr
    assert "this happens once" in first.stderr
    assert (empty_project / ".venv" / "bin" / "python").exists()
    second = run(["bash", "scripts/setup.sh"], empty_project)
    assert (second.returncode, second.stdout, second.stderr) == (0, "", "")
    assert "and those of more" in run(["bash", "scripts/setup.sh", "more"], empty_project).stderr
    for extras in ([], ["more"]):
        again = run(["bash", "scripts/setup.sh", *extras], empty_project)
        assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    (empty_project / "requirements.txt").write_text("# changed\n")
    assert "this happens once" in run(["bash", "scripts/setup.sh"], empty_project).stderr


def test_setup_refuses_an_old_python(empty_project: Path) -> None:
    old = empty_project / "bin" / "python3"
    old.parent.mkdir()
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Python 3.8.1\nexit 1\n')
    old.chmod(0o755)
    done = run(["bash", "scripts/setup.sh"], empty_project, PATH=f"{old.parent}:{os.environ['PATH']}")
    assert done.returncode == 2
    assert "python3 3.10 or newer is needed, found: Python 3.8.1" in done.stderr
    assert not (empty_project / ".venv").exists()


@pytest.mark.parametrize("script", ["test.py", "predict.py", "mvtec.py"])
def test_help_from_another_folder(script: str, tmp_path: Path) -> None:
    done = run([str(ROOT / ".venv" / "bin" / "python"), str(ROOT / script), "--help"], tmp_path)
    assert done.returncode == 0 and "usage:" in done.stdout


def test_continuous_integration_calls_the_test_command() -> None:
    assert "scripts/run_tests.sh" in (ROOT / ".ci" / "run").read_text()
