"""The same seed gives the same bytes: a few sample pictures, in every way to run that must not matter."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from datasets.index import write_index
from datasets.mvtec import list_mvtec
from tests.conftest import Main
from winclip.demo import sample
from winclip.demo.sample import make_sample
from winclip.network.linear import linear_rates

Run = Callable[..., dict[str, bytes]]
CLASSES = ("gear", "cowhide", "button")
SHOTS = ("--k_shot", "2", "0", "1", "--seed", "4", "3")


@pytest.fixture(scope="module")
def sample_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of the sample, 2 train and 4 test images each."""
    root = tmp_path_factory.mktemp("same") / "sample"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sample, "CLASSES", {name: sample.CLASSES[name] for name in CLASSES})
        for name in ("TRAIN_GOOD", "TEST_GOOD", "TEST_DEFECTIVE"):
            patch.setattr(sample, name, 2)
        make_sample(root)
    write_index(list_mvtec(root, print, all_classes=True))
    return root


@pytest.fixture(scope="module")
def run(evaluate: Callable[..., int], sample_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Calls test.py; returns ``files_of`` the run."""

    def call(*options: str) -> dict[str, bytes]:
        save = tmp_path_factory.mktemp("run")
        model = ("--model", "demo-vit-240", "--pretrained", "demo", "--save_maps")
        assert evaluate(sample_data, save, *model, *options) == 0
        return files_of(save)

    return call


@pytest.fixture(scope="module")
def usual(run: Run) -> dict[str, bytes]:
    """A run with the defaults."""
    return run(*SHOTS)


def files_of(save: Path) -> dict[str, bytes]:
    """The content of a run's files by name, without those that hold times or are cut by time."""
    left_out = {"config.json", "log.txt", "scores"}
    paths = [path for path in save.rglob("*") if path.is_file() and not left_out & set(path.relative_to(save).parts)]
    return {path.relative_to(save).as_posix(): path.read_bytes() for path in paths}


def rows(content: bytes, *classes: str) -> list[list[str]]:
    """The rows of a CSV file about classes, sorted as text."""
    return sorted(row for row in csv.reader(content.decode().splitlines()) if set(row) & set(classes))


def test_batch_size_and_workers_change_no_byte(run: Run, usual: dict[str, bytes]) -> None:
    assert run(*SHOTS, "--batch_size", "3", "--num_workers", "0") == usual


def test_class_subsets_and_orders_change_no_byte_of_a_class(run: Run, usual: dict[str, bytes]) -> None:
    classes = ("cowhide", "gear")
    found = run(*SHOTS, "--classes", *classes)
    for name in ("scores.csv", "results.csv", "k_shot.csv"):
        assert rows(found[name], *classes) == rows(usual[name], *classes) != []
    maps = [name for name in usual if Path(name).stem in classes]
    assert len(maps) == 5 * len(classes)
    assert [name for name in maps if found[name] != usual[name]] == []


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads that torch computes with, as ``OMP_NUM_THREADS`` does."""
    before = torch.get_num_threads()

    def call(count: int) -> None:
        torch.set_num_threads(count)
        # The linear layers are chosen for a number of threads.
        linear_rates.cache_clear()

    yield call
    call(before)


@pytest.mark.slow
def test_threads_change_scores_by_rounding_and_no_digit_of_a_table(
    run: Run, set_threads: Callable[[int], None]
) -> None:
    found = []
    for count in (1, 2):
        set_threads(count)
        found.append(run(*SHOTS, "--classes", "gear"))
    one, two = (rows(files["scores.csv"], "gear") for files in found)
    assert len(one) == 5 * 4
    for first, second in zip(one, two):
        assert first[:-1] == second[:-1]
        assert float(first[-1]) == pytest.approx(float(second[-1]), rel=0, abs=1e-5)
    assert found[0]["tables.md"] == found[1]["tables.md"]


@pytest.mark.parametrize(
    "options",
    [
        ("--k_shot", "2", "0", "--seed", "4", "3", "--classes", "felt", "bolt", "--save_maps", "--aupro", "exact"),
        ("--reference_list", "LIST", "--metrics", "histogram", "--intervals", "--scales", "2", "--precision", "bf16"),
    ],
)
def test_config_of_a_run_repeats_it(
    evaluate: Callable[..., int],
    evaluation_main: Main,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("felt/train/good/3.png\nbolt/train/good/1.png\n")
    first, again = tmp_path / "first", tmp_path / "again"
    assert evaluate(data, first, *(str(listed) if word == "LIST" else word for word in options)) == 0
    capsys.readouterr()
    assert evaluation_main(["--config", str(first / "config.json"), "--save_path", str(again)]) == 0
    assert "differ" not in capsys.readouterr().err
    expected = files_of(first)
    assert files_of(again) == expected
    before, after = (json.loads((run / "config.json").read_text())["options"] for run in (first, again))
    assert {name for name in before if before[name] != after[name]} == {"config", "save_path"}
    assert evaluation_main(["--config", str(first / "config.json"), "--save_path", str(first)]) == 0
    assert files_of(first) == expected


def test_options_beside_a_config_count_more_and_changes_are_said(
    evaluate: Callable[..., int],
    evaluation_main: Main,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(data, tmp_path / "wanted", "--k_shot", "1", "--classes", "felt") == 0
    assert evaluate(data, tmp_path / "first", "--classes", "felt") == 0
    config = tmp_path / "first" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "weights_sha256": "0" * 64}))
    save = tmp_path / "again"
    assert evaluation_main(["--config", str(config), "--save_path", str(save), "--k_shot", "1"]) == 0
    assert files_of(save) == files_of(tmp_path / "wanted")
    assert "warning: weights_sha256" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("[" * 100_000, "config.json"),
        ("[]", "config.json"),
        ('{"options": 3}', "config.json"),
        ('{"options": {"colour": "red"}}', "'colour'"),
        ('{"options": {"k_shot": 1}}', "'k_shot'"),
        ('{"options": {"k_shot": [1.5]}}', "'k_shot'"),
        ('{"options": {"k_shot": [-1]}}', "--k_shot -1"),
        ('{"options": {"scales": null}}', "'scales'"),
        ('{"options": {"report": 1}}', "'report'"),
    ],
)
def test_a_config_that_is_none_is_refused(
    evaluation_main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, named: str
) -> None:
    (tmp_path / "config.json").write_text(content)
    assert evaluation_main(["--config", str(tmp_path / "config.json"), "--save_path", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and named in error and error.count("\n") == 1
    assert not (tmp_path / "out").exists()
