"""score_collection.py: rows as predict.py has them whatever is killed, from every kind of input, and what is refused."""

from __future__ import annotations

import csv
import io
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import predict
from scripts import score_collection
from tests.conftest import ROOT
from tests.tiny import CONFIG
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone

pytestmark = pytest.mark.slow
pa, pq, ray = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet", "ray"))
Score = Callable[..., int]
DRIVER = "import sys, tests.test_collection as t; t.score_collection.Scorer = t.Killing; "
DRIVER += "sys.exit(t.score_collection.main(sys.argv[1:]))"


class Killing(score_collection.Scorer):
    """Kills its worker when it comes to one picture and, when there are rows, the driver at another, each once."""

    def __call__(self, table: Any) -> Any:
        marks = Path(os.environ["MARKS"])
        for name, process in (("bolt/test/good/2", os.getpid()), ("felt/test/scratch/0", int(os.environ["DRIVER"]))):
            if name in str(table["path"]) and not (marks / name.replace("/", "-")).exists():
                while process != os.getpid() and not any((marks / "out" / "rows").glob("*.parquet")):
                    pass
                (marks / name.replace("/", "-")).touch()
                os.kill(process, signal.SIGKILL)
        return super().__call__(table)


@pytest.fixture(scope="module")
def cluster(cache_home: Path) -> Iterator[None]:
    """A Ray for the runs in this process, which would start one each."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_USAGE_STATS_ENABLED"):
            patch.setenv(name, "0")
        patch.setattr(score_collection, "run", score_collection.score)
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


@pytest.fixture
def options(data: Path, backbone: Backbone, checkpoint: Path) -> list[str]:
    """Of the tiny model and a memory for each class of the small data set, whose test images alone are left."""
    for name in ("bolt", "felt"):
        model = WinCLIP(backbone)
        model.set_class(name)
        model.add_references([data / name / "train" / "good" / f"{number}.png" for number in range(4)])
        model.save_memory(data / "memories" / f"{name}.safetensors")
        for folder in ("train", "masks"):
            shutil.rmtree(data / name / folder)
    (data / "bolt" / "test" / "good" / "0.png").write_bytes(b"damaged")
    memory = ["--memory", str(data / "memories"), "--rows_per_file", "2", "--workers", "1", "--device", "cpu"]
    return [*memory, "--model", str(CONFIG), "--pretrained", str(checkpoint)]


def rows_of(output: str | Path, **how: Any) -> dict[str, dict[str, Any]]:
    """The rows by path; each is there once."""
    rows = pq.read_table(f"{output}/rows", **how).to_pylist()
    assert len({row["path"] for row in rows}) == len(rows)
    return {row["path"]: row for row in rows}


def test_rows_are_those_of_predict_although_worker_and_driver_are_killed(
    data: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--input", "data", "--class_from", "folder", "--output", "out", *options]
    start = f"import os; os.environ['DRIVER'] = str(os.getpid()); {DRIVER}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARKS": str(tmp_path)}
    command = [sys.executable, "-c", start, *arguments]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert (tmp_path / "bolt-test-good-2").exists() and (tmp_path / "felt-test-scratch-0").exists()
    before = len(rows_of("out"))
    assert 0 < before < 12
    # As a kill leaves a file that was being written.
    (tmp_path / "out" / "rows" / "broken.parquet").write_bytes(b"PAR1")
    subprocess.run(command, env=environment, check=True)
    rows, scored = rows_of("out"), 0
    for name in ("bolt", "felt"):
        memory = ["--memory", str(data / "memories" / f"{name}.safetensors"), "--save_path", name]
        assert predict.main([f"data/{name}", *memory, *options[6:]]) == 0
        for expected in csv.DictReader(Path(name, "predictions.csv").read_text().splitlines()):
            row, scored = rows[expected["path"]], scored + 1
            assert [row[key] for key in ("score", "threshold", "area")] == pytest.approx(
                [float(expected[key]) for key in ("score", "threshold", "area")], abs=1e-6
            )
            assert ["" if row[f"box_{side}"] is None else str(row[f"box_{side}"]) for side in "xywh"] == [
                expected[f"box_{side}"] for side in "xywh"
            ]
            assert row["anomalous"] == (expected["anomalous"] == "yes") and row["class_name"] == name
    assert scored == 11 and len(rows) == 12
    assert rows["data/bolt/test/good/0.png"]["score"] is None and rows["data/bolt/test/good/0.png"]["reason"]


@pytest.mark.usefixtures("cluster")
def test_every_kind_of_input_has_the_same_rows(data: Path, options: list[str], tmp_path: Path) -> None:
    paths = sorted(path for path in data.rglob("*.png"))
    labels = [path.relative_to(data).parts[0] for path in paths]
    for name in ("listed", "held", "shards"):
        (tmp_path / name).mkdir()
    table = pa.table({"file": [f"../data/{path.relative_to(data)}" for path in paths] + ["nowhere.png"]})
    pq.write_table(table.append_column("kind", [[*labels, "nut"]]), tmp_path / "listed" / "list.parquet")
    images = [{"bytes": path.read_bytes(), "path": None} for path in paths]
    pq.write_table(pa.table({"image": images, "kind": labels}), tmp_path / "held" / "images.parquet")
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as archive:
        for number, (path, label) in enumerate(zip(paths, labels)):
            for ending, content in (("png", path.read_bytes()), ("kind", label.encode())):
                member = tarfile.TarInfo(f"{number:02d}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    scores = {}
    for name in ("listed", "held", "shards"):
        places = ["--input", str(tmp_path / name), "--output", str(tmp_path / f"of {name}")]
        how = ["--class_from", "kind", "--path_column", "file"]
        assert score_collection.main([*places, *how, *options]) == 0
        rows = rows_of(tmp_path / f"of {name}")
        scores[name] = sorted(row["score"] for row in rows.values() if not row["reason"])
    assert scores["listed"] == scores["held"] == scores["shards"] and len(scores["held"]) == 11
