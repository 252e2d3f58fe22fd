"""score_collection.py: the rows of predict.py from every kind of input, whatever process is killed."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
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
pa, pq, ray, moto = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet", "ray", "moto.server"))
DRIVER = """import os, sys; os.environ["DRIVER"] = str(os.getpid()); from tests import test_collection as test
test.score_collection.Scorer = test.Killing; sys.exit(test.score_collection.main(sys.argv[1:]))"""


class Killing(score_collection.Scorer):
    """Kills its worker at one picture and, once there are rows, the driver at another; each once."""

    def __call__(self, table: Any) -> Any:
        for name, process in (("bolt/test/good/2", os.getpid()), ("felt/test/scratch/0", int(os.environ["DRIVER"]))):
            mark = Path(os.environ["MARKS"], name.replace("/", " "))
            if name in str(table["path"].to_pylist()) and not mark.exists():
                while process != os.getpid() and not any(mark.parent.glob("out/rows/*.parquet")):
                    time.sleep(0.1)
                mark.touch()
                os.kill(process, signal.SIGKILL)
        return super().__call__(table)


@pytest.fixture
def options(data: Path, backbone: Backbone, checkpoint: Path) -> list[str]:
    """A memory for each class of the small data set, its 34 pictures, one of them damaged, and the model."""
    # With one reference, pictures are ranked without a threshold.
    for name, count in (("bolt", 4), ("felt", 1)):
        model = WinCLIP(backbone)
        model.set_class(name)
        model.add_references([data / name / "train" / "good" / f"{number}.png" for number in range(count)])
        model.save_memory(data / "memories" / f"{name}.safetensors")
    (data / "bolt" / "test" / "good" / "0.png").write_bytes(b"damaged")
    model_options = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu"]
    return [*model_options, "--memory", str(data / "memories"), "--rows_per_file", "2", "--workers", "1"]


def test_rows_are_those_of_predict_although_worker_and_driver_are_killed(
    data: Path, options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MARKS": str(tmp_path)}
    places = ["--input", "data", "--class_from", "folder", "--output", "out"]
    command = [sys.executable, "-c", DRIVER, *places, *options]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.glob("* test *"))) == 2
    assert 0 < len(list((tmp_path / "out" / "rows").iterdir())) < 17
    # What a kill leaves of a file being written, and of a worker that outlives its driver.
    (tmp_path / "out" / "rows" / "broken.parquet").write_bytes(b"PAR1")
    shutil.copy(next((tmp_path / "out" / "rows").glob("*_*.parquet")), tmp_path / "out" / "rows" / "again.parquet")
    subprocess.run(command, env=environment, check=True)
    found = pq.read_table("out/rows").to_pylist()
    rows = {row["path"]: row for row in found}
    assert len(found) == len(rows) == 34
    for name in ("bolt", "felt"):
        memory = ["--memory", str(data / "memories" / f"{name}.safetensors"), "--save_path", name]
        assert predict.main([f"data/{name}", *memory, *options[:6]]) == 0
        for expected in csv.DictReader(Path(name, "predictions.csv").read_text().splitlines()):
            row = rows.pop(expected["path"])
            numbers = ("score", "threshold", "area", *score_collection._BOX, "text_score", "reference_score")
            predicted = [float(expected[key] or 0) for key in numbers]
            assert [row[key] or 0 for key in numbers] == pytest.approx(predicted, abs=1e-6)
            verdict = {"yes": True, "no": False, "": None}[expected["anomalous"]]
            assert (row["class_name"], row["anomalous"], row["reason"]) == (name, verdict, None)
            assert (row["threshold"] is None) == (verdict is None) == (name == "felt")
    assert list(rows) == ["data/bolt/test/good/0.png"] and "cannot be read" in str(rows)


def test_every_kind_of_input_has_the_same_scores(
    data: Path,
    backbone: Backbone,
    options: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "0")
    images = sorted(data.glob("*/test/*/*.png"))
    paths = [path.relative_to(data).as_posix() for path in images]
    labels = [path.partition("/")[0] for path in paths]
    for path, label in zip(images, labels):
        path.with_suffix(".kind").write_text(label)
    with tarfile.open(tmp_path / "in.tar", "w") as archive:
        archive.add(data / "bolt" / "test", "bolt")
        archive.add(data / "felt" / "test", "felt")
    pq.write_table(pa.table({"path": [*paths, "lost"], "kind": [*labels, "nut"]}), data / "in.parquet")
    held = [{"bytes": path.read_bytes()} for path in images]
    pq.write_table(pa.table({"image": held, "kind": labels}), tmp_path / "in.parquet")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    where = f"?endpoint_override={host}%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    files, _, _ = score_collection.reach(f"s3://parts{where}")
    files.create_dir("parts")
    for name in ("bolt", "felt"):
        pa.fs.copy_files(str(data / name / "test"), f"parts/in/{name}", destination_filesystem=files)
    places = [*((str(place), "kind") for place in (data / "in.parquet", tmp_path / "in.parquet", tmp_path / "in.tar"))]
    monkeypatch.setattr(score_collection, "run", score_collection.score)
    scores = []
    with ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False):
        for number, (place, source) in enumerate([*places, (f"s3://parts/in{where}", "folder")]):
            how = ["--input", place, "--class_from", source, "--output", f"s3://parts/{number}{where}", *options]
            assert score_collection.main(how) == 0
            found = pq.read_table(f"parts/{number}/rows", filesystem=files)["score"].to_pylist()
            scores.append(sorted(filter(None, found)))
        assert score_collection.main([*how, "--temperature", "1"]) == 2
        alone = ["--input", str(data / "felt" / "test"), "--output", str(tmp_path / "alone"), *options[:6]]
        assert score_collection.main([*alone, "--image_only", "--class_name", "felt"]) == 0
        assert score_collection.main([*alone, "--image_only", "--class_name", "felt", *options[6:8]]) == 2
    model = WinCLIP(backbone)
    model.set_class("felt")
    rows = pq.read_table(tmp_path / "alone" / "rows").to_pylist()
    assert [row["score"] for row in rows] == pytest.approx(model.predict([row["path"] for row in rows]).scores)
    assert len(rows) == 6 and {row["area"] for row in rows} == {None}
    server.stop()
    assert scores[0] == scores[1] == scores[2] == scores[3] and len(scores[0]) == 11
    assert "temperature" in capsys.readouterr().err
