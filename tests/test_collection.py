"""score_collection.py: one local Ray for all runs, and what needs none without it."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import signal
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from moto.server import ThreadedMotoServer
from PIL import Image

import collection.run
import predict
from collection.classes import Labels, read_classes
from collection.contents import Entry, read_unit
from collection.listing import Listed, Source, Unit, list_units, without_done
from collection.places import place
from collection.rows import ROWS, write_rows
from collection.worker import Scorer
from prediction.listing import list_pictures
from scripts.score_collection import main
from tests.tiny import CONFIG
from winclip import InputError, WinCLIP
from winclip.backbone import Backbone

Score = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The options of an address in a bucket ``parts`` of a server on this machine."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").disabled = True
    server.start()
    host, port = server.get_host_and_port()
    yield f"endpoint_override={host}%3A{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
    server.stop()


@pytest.fixture(scope="module")
def cluster(cache_home: Path) -> Iterator[None]:
    """A local Ray of two workers; what runs join."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            patch.setenv(name, "none")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
        yield
        ray.shutdown()


@pytest.fixture
def memories(data: Path, backbone: Backbone, tmp_path: Path) -> Path:
    """A folder with a memory for each class of the small data set."""
    folder = tmp_path / "memories"
    for name in ("bolt", "felt"):
        model = WinCLIP(backbone)
        model.set_class(name)
        model.add_references([data / name / "train" / "good" / f"{number}.png" for number in range(3)])
        model.save_memory(folder / f"{name}.safetensors")
    return folder


@pytest.fixture
def score(checkpoint: Path) -> Score:
    """Calls score_collection.py's main with the tiny model; gives the exit status."""

    def call(source: object, output: object, *more: object) -> int:
        model = ["--model", CONFIG, "--pretrained", checkpoint, "--device", "cpu"]
        places = ["--input", source, "--output", output, "--rows_per_file", 2]
        return main(list(map(str, [*places, *model, *more])))

    return call


class KilledOnce(Scorer):
    """Is killed before its second unit, once."""

    calls = 0

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        self.calls += 1
        mark = Path(self._output.path).with_name("killed")
        if self.calls == 2 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(batch)


class Full(Scorer):
    """Finds no room for the rows of the third class of pictures."""

    def __call__(self, batch: dict[str, Any]) -> Iterator[dict[str, list[Any]]]:
        if "felt" in str(batch["unit"][0]):
            yield {"rows": [0], "error": ["cannot write part: no space left"]}
        else:
            yield from super().__call__(batch)


def rows_of(output: str | Path, **options: Any) -> list[dict[str, Any]]:
    table = pq.read_table(f"{output}/{ROWS}", **options).to_pylist()
    return sorted(table, key=lambda row: (row["path"], row["class"]))


def as_predicted(row: dict[str, Any]) -> list[str]:
    """A row in the cells of predictions.csv, without its heat map."""
    box = ["", "", "", ""] if row["box"] is None else [str(row["box"][name]) for name in "xywh"]
    verdict = {"anomalous": "yes", "good": "no"}[row["verdict"]]
    return [row["path"], f"{row['score']:.9g}", f"{row['threshold']:.9g}", verdict, f"{row['area']:.6g}", *box]


def close(row: list[str], other: list[str]) -> bool:
    """Equal but for the last digits of numbers, as another number of threads rounds them."""
    return all(
        one == two or (number in (1, 2, 4) and float(one) == pytest.approx(float(two), abs=1e-6))
        for number, (one, two) in enumerate(zip(row, other, strict=True))
    )


def predicted(data: Path, memories: Path, checkpoint: Path, save: Path) -> list[list[str]]:
    model = ["--model", str(CONFIG), "--pretrained", str(checkpoint), "--device", "cpu"]
    rows = []
    for name in ("bolt", "felt"):
        memory = ["--memory", str(memories / f"{name}.safetensors"), "--save_path", str(save / name)]
        assert predict.main([str(data / name / "test"), *memory, *model]) == 0
        with (save / name / "predictions.csv").open(newline="") as file:
            rows += [row[:-1] for row in csv.reader(file)][1:]
    return rows


def test_rows_are_those_of_predict_although_a_worker_is_killed(
    cluster: None,
    data: Path,
    memories: Path,
    checkpoint: Path,
    score: Score,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("bolt", "felt"):
        for path in (data / name / "train").rglob("*.png"):
            path.unlink()
    (data / "bolt" / "test" / "good" / "0.png").write_bytes(b"damaged")
    monkeypatch.setattr(collection.run, "Scorer", KilledOnce)
    output = data / "output"
    for path in (data / "bolt" / "masks", data / "felt" / "masks"):
        for mask in path.rglob("*.png"):
            mask.unlink()
    assert score(data, output, "--memory", memories, "--class_from", "folder", "--save_maps", "--workers", 2) == 0
    assert (data / "killed").exists()
    # Ray says there that a worker died.
    assert capsys.readouterr().out.splitlines()[-1].startswith("11 pictures, ")
    rows = rows_of(output)
    (failed,) = [row for row in rows if row["error"]]
    assert failed["path"].endswith("bolt/test/good/0.png") and "cannot be read" in failed["error"]
    assert failed["class"] == "bolt" and failed["score"] is failed["verdict"] is failed["map"] is None
    expected = predicted(data, memories, checkpoint, tmp_path / "predicted")
    found = [as_predicted(row) for row in rows if not row["error"]]
    assert len(found) == len(expected) == 11
    assert all(close(one, two) for one, two in zip(found, sorted(expected)))
    with Image.open(io.BytesIO(rows[-1]["map"])) as picture:
        assert (picture.mode, picture.size) == ("L", (64, 64))
    config = json.loads((output / "config.json").read_text())
    assert config["finished"] and (config["rows"], config["unreadable"]) == (12, 1)
    assert set(config["settings"]["classes"]) == {"bolt", "felt"}


def test_a_run_goes_on_with_what_is_missing(
    cluster: None,
    data: Path,
    memories: Path,
    score: Score,
    tmp_path: Path,
    capsys: Capture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table = pa.table(
        {
            "name": [f"{kind}/{number}" for kind in ("bolt", "felt") for number in range(3)],
            "image": [
                {"bytes": (data / kind / "test" / "scratch" / f"{number}.png").read_bytes(), "path": None}
                for kind in ("bolt", "felt")
                for number in range(3)
            ],
            "label": ["bolt"] * 3 + ["felt"] * 3,
        }
    )
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=3)
    options = ["--memory", memories, "--class_from", "label", "--path_column", "name", "--workers", 1]
    output = tmp_path / "output"
    with monkeypatch.context() as patch:
        patch.setattr(collection.run, "Scorer", Full)
        assert score(tmp_path / "in.parquet", output, *options) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == "error: cannot write part: no space left; the same command goes on with what has no row yet"
    before = {path: path.stat().st_mtime_ns for path in (output / ROWS).iterdir()}
    assert [row["path"] for row in rows_of(output)] == ["bolt/0", "bolt/1", "bolt/2"]
    assert not json.loads((output / "config.json").read_text())["finished"]
    # Of a worker that outlived its driver.
    write_rows(place(str(output)), [{"path": "bolt/2", "class": "bolt"}, {"path": "felt/0", "class": "felt"}], False)
    assert score(tmp_path / "in.parquet", output, *options) == 0
    assert [row["path"] for row in rows_of(output)] == table["name"].to_pylist()
    # Either file may have been the one that was removed.
    assert sum(path.exists() and path.stat().st_mtime_ns == time for path, time in before.items()) >= 1
    assert score(tmp_path / "in.parquet", output, *options, "--save_maps") == 2
    assert "were made with another save_maps; use the same options" in capsys.readouterr().err


def test_object_stores_hold_pictures_memories_and_rows(
    cluster: None, s3: str, data: Path, memories: Path, score: Score, capsys: Capture
) -> None:
    bucket = place(f"s3://parts/?{s3}")
    bucket.files.create_dir("parts")
    for path in list_pictures([str(data / "bolt" / "test")]):
        bucket.below(f"in/{Path(path).parent.name}-{Path(path).name}").write(Path(path).read_bytes())
    bucket.below("memories/bolt.safetensors").write((memories / "bolt.safetensors").read_bytes())
    places = [f"s3://parts/{name}?{s3}" for name in ("in", "out", "memories")]
    assert score(*places[:2], "--memory", places[2], "--workers", 1) == 0
    assert capsys.readouterr().out.endswith("written to s3://parts/out\n")
    assert [row["path"] for row in rows_of("parts/out", filesystem=bucket.files)] == [
        f"s3://parts/in/{kind}-{number}.png" for kind in ("good", "scratch") for number in range(3)
    ]
    assert "endpoint" not in bucket.below("out/config.json").read().decode()


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def source_of(address: object, class_from: str | None = None, *classes: str, rows: int = 2) -> Source:
    return Source(str(address), str(Path.cwd()), "path", "image", classes or ("bolt",), class_from, rows)


def listed(source: Source, output: object = "/nowhere") -> tuple[Source, list[Unit]]:
    return list_units(source, place(str(output)))


def test_members_of_a_tar_file_are_entries_and_its_damage_is_one(tmp_path: Path) -> None:
    members = {
        "a/0.png": b"0",
        "a/0.cls": b"bolt\n",
        "a/1.cls": b"nut",
        "a/1.png": b"1",
        "2.png": b"2",
        "2.json": b"{}",
    }
    path = tar_of(tmp_path / "shard.tar", {**members, "3.jpg": b"3" * 2000, "3.cls": b"bolt"})
    source, units = listed(source_of(tmp_path, "cls"))
    first, second = read_unit(source, units[0])
    assert first == [
        Entry(f"{path}/a/0.png", ("bolt",), b"0"),
        Entry(f"{path}/a/1.png", ("nut",), b"1", "class 'nut' has no memory"),
    ]
    assert second == [
        Entry(f"{path}/2.png", ("",), b"2", "class '' has no memory"),
        Entry(f"{path}/3.jpg", ("bolt",), b"3" * 2000),
    ]
    left = without_done(source, units, {(f"{path}/a/0.png", "bolt"), (f"{path}/2.png", ""), ("elsewhere", "bolt")})
    assert [[entry.path for entry in entries] for entries in read_unit(source, left[0])] == [
        [f"{path}/a/1.png", f"{path}/3.jpg"]
    ]
    path.write_bytes(path.read_bytes()[:5000])
    *_, last = (entry for entries in read_unit(source, units[0]) for entry in entries)
    assert last.path == str(path) and "cannot be read to its end" in last.error
    done = {(entry.path, name) for entries in read_unit(source, units[0]) for entry in entries for name in entry.names}
    assert list(read_unit(source, without_done(source, units, done)[0])) == []


def test_a_list_of_paths_names_each_picture_once_for_each_class(tmp_path: Path) -> None:
    table = pa.table({"path": ["a.png", "b\u00e9.png", "a.png", "a.png"], "kind": ["bolt", "felt", "felt", "bolt"]})
    pq.write_table(table, tmp_path / "list.parquet")
    source, units = listed(source_of(tmp_path / "list.parquet", "kind", "bolt", "felt"))
    assert units == [Unit((Listed("a.png", ("bolt", "felt")), Listed("b\u00e9.png", ("felt",))))]
    assert Unit.from_json(units[0].as_json()) == units[0]
    assert source.paths.locate("a.png").path == f"{tmp_path}/a.png"
    assert source.paths.locate("/b.png").path == "/b.png"
    (left,) = without_done(source, units, {("a.png", "bolt"), ("b\u00e9.png", "felt")})
    assert left == Unit((Listed("a.png", ("felt",)),))
    assert without_done(source, units, set(units[0].known_keys())) == []


def test_rows_of_a_parquet_file_without_paths_are_numbered(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image": [b"0", b"1", None, b"3"]}), tmp_path / "in.parquet", row_group_size=3)
    source, units = listed(source_of(tmp_path))
    name = f"{tmp_path}/in.parquet"
    assert [entries for unit in units for entries in read_unit(source, unit)] == [
        [Entry(f"{name}#0", ("bolt",), b"0"), Entry(f"{name}#1", ("bolt",), b"1")],
        [Entry(f"{name}#2", ("bolt",), None, "column 'image' holds no image")],
        [Entry(f"{name}#3", ("bolt",), b"3")],
    ]


def test_names_that_are_not_utf8_have_rows(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / os.fsdecode(b"\xff.png"))
    _, (unit,) = listed(source_of(tmp_path))
    assert list(Unit.from_json(unit.as_json()).known_keys()) == [(f"{tmp_path}/\\udcff.png", "bolt")]


def test_the_innermost_folder_called_like_a_class_counts() -> None:
    labels = Labels(["metal nut", "nut"], "folder")
    assert labels.of("nut/metal_nut/test/0.png") == "metal nut"
    assert labels.of("nut/test/nut.png") == "nut"
    assert labels.of("test/nut") is None


def test_what_cannot_be_a_collection_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist; name a folder"):
        listed(source_of(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no picture found in .*empty; looked for .*\.png .*\.parquet \.tar"):
        listed(source_of(tmp_path / "empty"))
    with pytest.raises(InputError, match=r"17 pictures are of no class .*: 'good' \(11\), 'scratch' \(6\); there are"):
        listed(source_of(data / "bolt", "folder", "nut", "felt"))
    tar_of(data / "shard.tar", {})
    with pytest.raises(InputError, match=r"holds picture, \.tar files; name a folder or file of one kind"):
        listed(source_of(data))
    table = pa.table({"file": ["a"], "label": ["bolt"]})
    pq.write_table(table, tmp_path / "in.parquet")
    with pytest.raises(InputError, match=r"neither a column 'path' nor 'image', only file, label; say with --path_col"):
        listed(source_of(tmp_path / "in.parquet"))
    pq.write_table(table.append_column("image", [[b"0"]]), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="no column 'kind' of --class_from, only file, label, image"):
        listed(source_of(tmp_path / "in.parquet", "kind", "bolt", "felt"))
    pq.write_table(pa.table({"path": ["a", "a"], "image": [b"0", b"1"]}), tmp_path / "in.parquet")
    with pytest.raises(InputError, match="names 'a' twice"):
        listed(source_of(tmp_path / "in.parquet"))
    (tmp_path / "in.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match="is no Parquet file that can be read"):
        listed(source_of(tmp_path / "in.parquet"))
    with pytest.raises(InputError, match="foo://key is no address that can be reached"):
        place("foo://secret@key?token=1")


def test_what_cannot_be_a_memory_is_refused(memories: Path, tmp_path: Path) -> None:
    model = str(CONFIG)
    assert list(read_classes([str(memories)], model)) == ["bolt", "felt"]
    assert list(read_classes([f"nut={memories}/bolt.safetensors", f"{memories}/bolt.safetensors"], model)) == [
        "nut",
        "bolt",
    ]
    with pytest.raises(InputError, match=r"both of class 'bolt'; say what each is called with --memory NAME=FILE"):
        read_classes([str(memories), f"{memories}/bolt.safetensors"], model)
    with pytest.raises(InputError, match=r"does not fit: model is 'model_config.json', not 'ViT-B-32'"):
        read_classes([str(memories)], "ViT-B-32")
    with pytest.raises(InputError, match=r"holds no memory, no file that ends in .safetensors"):
        read_classes([str(tmp_path / "data")], model)
    with pytest.raises(InputError, match=r"2 memories are given \(bolt, felt\); say with --class_from"):
        listed(source_of(tmp_path, None, "bolt", "felt"))


def test_ray_that_is_missing_is_said(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setattr("collection.options.find_spec", lambda name: None if name == "ray" else name)
    assert main(["--input", "in", "--memory", "nut.safetensors", "--output", "out"]) == 2
    assert capsys.readouterr().err == "error: ray of Ray Data is not installed; run: bash scripts/setup.sh scale\n"
