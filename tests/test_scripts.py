"""The shell scripts, run in a copy of the checkout that borrows its .venv."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT, make_data
from tests.tiny import CONFIG
from winclip import __version__

VARIABLES = {"MVTEC_ROOT", "VISA_ROOT", "NPROC", "VIRTUAL_ENV", "CONDA_PREFIX", "WINCLIP_PYTHON", "PIP_EXTRA_INDEX_URL"}


def run(command: list[str], cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {key: value for key, value in os.environ.items() if key not in VARIABLES}
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


def read_yaml(name: str) -> Any:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


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
    """A project with setup.sh that installs only itself."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts" / "setup.sh", tmp_path / "scripts")
    for name in ("requirements.txt", "requirements-more.txt"):
        (tmp_path / name).write_text("")
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


# A Python that makes environments with itself; its pip logs its arguments, and fails on those with $FAILS.
STAND_IN = """#!/bin/sh
case "$*" in
--version) echo "Python VERSION" ;;
-c*print*) echo VERSION ;;
-c*) [ VERSION != 3.8 ] ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
"-m pip install "*"${FAILS:-nothing}"*) exit 1 ;;
"-m pip install "*) echo "$*${PIP_EXTRA_INDEX_URL:+ alone}" >>"$0.log" ;;
esac
"""


class Setup:
    """A project with a fake python3 in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "requirements.txt").write_text("torch>=2.3\ntorchvision>=0.18\nnumpy>=1.24\n")
        self.put(folder / "bin" / "python3", "3.11")

    def put(self, path: Path, version: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(STAND_IN.replace("VERSION", version))
        path.chmod(0o755)

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, list[str]]:
        """Exit status, standard error, and the arguments of each call of pip after its options."""
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        done = run(["bash", "scripts/setup.sh", *arguments], self.folder, PATH=path, **environment)
        logs = list(self.folder.glob("*/bin/python.log"))
        calls = [line.split(" --no-compile ")[1] for log in logs for line in log.read_text().splitlines()]
        for log in logs:
            log.unlink()
        return done.returncode, done.stderr, calls


@pytest.fixture
def setup(empty_project: Path) -> Setup:
    return Setup(empty_project)


def test_setup_refuses_what_it_does_not_know(setup: Setup) -> None:
    for word in ("--gpu", "nonsense", "cpu"):
        status, said, calls = setup.run(word)
        assert (status, calls) == (2, []) and f"not '{word}'" in said
    setup.put(setup.folder / "bin" / "python3", "3.8")
    status, said, calls = setup.run()
    assert (status, calls) == (2, []) and "Python 3.10 or newer is needed, found: Python 3.8" in said
    assert not (setup.folder / ".venv").exists()


def test_setup_says_what_it_fetches_and_goes_on_after_a_failure(setup: Setup) -> None:
    status, said, calls = setup.run(FAILS="-e")
    assert (status, calls) == (2, []) and "call this again to go on" in said
    status, said, calls = setup.run("more")
    assert (status, calls) == (0, [f"-e {setup.folder}[more]"])
    devices = [Path("/dev/nvidia0"), Path("/proc/driver/nvidia")]
    no_gpu = sys.platform == "linux" and not shutil.which("nvidia-smi") and not any(map(Path.exists, devices))
    assert "GB are fetched" in said and ("setup.sh --cpu" in said) == no_gpu
    assert setup.run("more") == setup.run() == (0, "", [])


def test_setup_takes_the_cpu_build_first_and_keeps_to_it(setup: Setup) -> None:
    index = "https://download.pytorch.org/whl/cpu"
    status, said, calls = setup.run("--cpu", FAILS="--index-url")
    assert (status, calls) == (2, []) and f"could not install torch from {index}" in said
    wanted = [f"--index-url {index} torch>=2.3 torchvision>=0.18 alone", f"-e {setup.folder}"]
    assert setup.run("--cpu")[::2] == (0, wanted)
    assert setup.run("--cpu") == setup.run() == (0, "", [])
    assert setup.run("more")[::2] == (0, [wanted[0], f"{wanted[1]}[more]"])


def test_setup_refuses_a_cuda_build_in_the_place_of_the_cpu_build(setup: Setup) -> None:
    assert setup.run()[0] == 0
    cuda = setup.folder / ".venv" / "lib" / "python3.11" / "site-packages" / "torch" / "lib" / "libtorch_cuda.so"
    cuda.parent.mkdir(parents=True)
    cuda.touch()
    for _ in range(2):
        status, said, calls = setup.run("--cpu")
        assert status == 2 and len(calls) == 1 and "holds torch with CUDA already" in said


@pytest.mark.parametrize("variable", ["VIRTUAL_ENV", "CONDA_PREFIX"])
def test_setup_installs_into_the_active_environment(setup: Setup, variable: str) -> None:
    assert setup.run("--here")[::2] == (2, [])
    active = setup.folder / "active"
    environment = {variable: str(active)}
    assert "Python 3.10 or newer is needed" in setup.run("--here", **environment)[1]
    setup.put(active / "bin" / "python", "3.12")
    status, said, calls = setup.run("--here", "more", **environment)
    assert (status, calls) == (0, [f"-e {setup.folder}[more]"]) and f"into {active};" in said
    assert setup.run("--here", **environment) == (0, "", [])
    assert not (setup.folder / ".venv").exists()


def test_setup_takes_the_python_that_is_named(setup: Setup) -> None:
    assert setup.run(WINCLIP_PYTHON="nowhere")[::2] == (2, [])
    setup.put(setup.folder / "bin" / "python3.12", "3.12")
    assert setup.run(WINCLIP_PYTHON="python3.12")[0] == 0
    assert "3.12" in (setup.folder / ".venv" / "bin" / "python").read_text()
    assert setup.run(WINCLIP_PYTHON="python3.12") == setup.run() == (0, "", [])
    status, said, calls = setup.run(WINCLIP_PYTHON="python3")
    assert (status, calls) == (2, []) and "remove that folder" in said


def test_an_active_environment_with_the_project_is_taken(checkout: Path, checkpoint: Path, tmp_path: Path) -> None:
    (checkout / ".venv").rename(tmp_path / "active")
    make_data(checkout / "data" / "visa")
    command = ["bash", str(checkout / "zero_shot.sh"), *tiny_options(checkpoint)]
    done = run(command, tmp_path, VIRTUAL_ENV=str(tmp_path / "active"))
    assert done.returncode == 0, done.stderr
    assert not (checkout / ".venv").exists() and "## visa, 0-shot" in done.stdout


@pytest.mark.parametrize("script", ["test.py", "predict.py", "mvtec.py"])
def test_help_from_another_folder(script: str, tmp_path: Path) -> None:
    done = run([str(ROOT / ".venv" / "bin" / "python"), str(ROOT / script), "--help"], tmp_path)
    assert done.returncode == 0 and "usage:" in done.stdout


def test_continuous_integration_calls_the_test_command() -> None:
    assert "scripts/run_tests.sh" in (ROOT / ".ci" / "run").read_text()


def test_what_github_reads_fits_the_project() -> None:
    jobs = read_yaml(".github/workflows/tests.yml")["jobs"]
    steps = {name: [step.get("run", "") for step in job["steps"]] for name, job in jobs.items()}
    assert "bash scripts/run_tests.sh" in steps["newest"] and "bash scripts/run_tests.sh --all" in steps["all"]
    scripts = {word for lines in steps.values() for word in " ".join(lines).split() if word.endswith(".sh")}
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    oldest = (ROOT / "pyproject.toml").read_text().split('requires-python = ">=')[1].split('"')[0]
    assert jobs["newest"]["strategy"]["matrix"]["python"][0] == oldest
    citation = read_yaml("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= {*citation} and citation["version"] == __version__
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"):
        content = read_yaml(str(form))
        assert content["name"] and content["description"]
        assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in content["body"])


def test_every_requirement_has_a_lower_bound_that_can_be_pinned() -> None:
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#") and line.count(">=") != 1] == []
