"""Score a collection of any size with Ray Data: `python -m scripts.score_collection --help` lists the options."""

# Ray and pyarrow are imported late, since --help needs neither.
from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import logging
import os
import posixpath
import re
import signal
import sys
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from winclip.made_with import differing, made_with
from winclip.model import Prediction, WinCLIP
from winclip.pictures.drawing import fit, strongest_region
from winclip.pictures.images import decode_image
from winclip.pictures.reading import BatchReader, usable_cores
from winclip.prediction.listing import is_picture
from winclip.prediction.references import class_of_memory
from winclip.prediction.rows import Row
from winclip.prediction.scoring import score_each
from winclip.support.command_line import ModelOptions, ReadingOptions, exit_status, log_to_terminal
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, file_sha256, lock_folder, write_atomically
from winclip.support.options import add_options, option, take_options
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
ROWS, CONFIG = "rows", "config.json"
PICTURES, PARQUET, TAR = "pictures", ".parquet", ".tar"
# Columns of a row and their types.
_BOX = ("box_x", "box_y", "box_w", "box_h")
_COLUMNS = {"path": "string", "class_name": "string", "score": "float64", "threshold": "float64", "anomalous": "bool"}
_COLUMNS |= {"area": "float64", **dict.fromkeys(_BOX, "int32"), "reason": "string"}
# What a task takes that reads or writes beside the workers, and how many bytes one reads at once.
_LIGHT, _BLOCK = {"num_cpus": 0.1}, 16 << 20
# A worker that dies costs what it was at; what kills every worker that takes it ends the run.
_RETRIES = 3
# Path and label of a row; of a picture also its content, or where that is.
Key, Picture = tuple[str, str], tuple[str, str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What score_collection.py was asked to do."""

    input: str = option("a folder of pictures, Parquet or tar files, or one such file", required=True, metavar="PLACE")
    memory: tuple[str, ...] = option(
        "of references, or a folder of such; repeat it", (), action="append", required=True, metavar="[CLASS=]FILE"
    )
    class_from: str | None = option("folder, a Parquet column, or an ending in tar files (one class)", metavar="WHERE")
    path_column: str = option("of Parquet files (path)", "path", metavar="NAME")
    image_column: str = option("of Parquet files (image)", "image", metavar="NAME")
    output: str = option("a folder; the same command goes on there", required=True, metavar="PLACE")
    rows_per_file: int = option("pictures that are done together (256)", 256, metavar="N")
    workers: int | None = option("processes with the model (as there is room)", group="workers", metavar="N")
    cpus_per_worker: int = option("cores, and threads, of each (1)", 1, group="workers", metavar="N")
    gpus_per_worker: float | None = option("(1 where there are GPUs, else 0)", group="workers", metavar="N")
    model: ModelOptions
    reading: ReadingOptions

    def __post_init__(self) -> None:
        """Raises: InputError: if a number is too small."""
        for name in ("rows_per_file", "workers", "cpus_per_worker"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"--{name} {getattr(self, name)} must be at least 1")


def reach(address: str) -> tuple[Any, str, str]:
    """The pyarrow file system of a path or address, the path there, and what rows call it, without keys and options."""
    from pyarrow.fs import FileSystem, LocalFileSystem

    if "://" not in address:
        return LocalFileSystem(), Path(address).absolute().as_posix(), Path(address).as_posix()
    files, path = FileSystem.from_uri(address)
    return files, path.rstrip("/"), re.sub("//[^/@]*@", "//", address.partition("?")[0]).rstrip("/")


def dataset(options: Options, done: set[Key]) -> Any:
    """The pictures of ``--input`` as Ray Data reads them; None if all are known to have a row.

    Pictures that are files are opened by the workers: one that cannot be would end ``read_binary_files``.

    Raises:
        InputError: if there are not files of one kind, or Parquet files lack a column.
    """
    import pyarrow.parquet as pq
    import ray.data
    from pyarrow.fs import FileSelector

    (files, root, name), kinds = reach(options.input), dict[str, list[str]]()
    below = FileSelector(root, recursive=True, allow_not_found=True)
    infos = files.get_file_info([root] if files.get_file_info(root).is_file else below)
    for path in sorted(info.path for info in infos if info.is_file):
        kind = PICTURES if is_picture(path) else posixpath.splitext(path)[1]
        inside = path.startswith(f"{reach(options.output)[1]}/") or "/." in path.removeprefix(root)
        if kind in (PICTURES, PARQUET, TAR) and not inside:
            kinds.setdefault(kind, []).append(path)
    if len(kinds) != 1:
        held = " and ".join(kinds) or "nothing to score"
        raise InputError(f"{name} holds {held}; name pictures, {PARQUET} files or {TAR} files")
    (kind, paths), how = kinds.popitem(), {"filesystem": files, "ray_remote_args": _LIGHT}
    if kind == TAR:
        return ray.data.read_webdataset(paths, decoder=None, **how)
    if kind == PICTURES:
        items = [{options.path_column: name + path.removeprefix(root), "at": path} for path in paths]
        scored = {path for path, _ in done}
        items = [item for item in items if item[options.path_column] not in scored]
        return (
            ray.data.from_items(items, override_num_blocks=-(-len(items) // options.rows_per_file)) if items else None
        )
    there = pq.read_schema(paths[0], filesystem=files).names
    wanted = {options.path_column, options.image_column, options.class_from} & {*there}
    if not wanted - {options.class_from} or options.class_from not in (None, "folder", *wanted):
        raise InputError(f"{paths[0]} has {', '.join(there)}; see --path_column, --image_column and --class_from")
    blocks = ray.data.read_parquet(paths, **how).count() // options.rows_per_file
    return ray.data.read_parquet(paths, override_num_blocks=max(blocks, len(paths)), **how).select_columns([*wanted])


def load_models(options: Options) -> tuple[dict[str, WinCLIP], dict[str, Any]]:
    """Of each class, as pictures are labelled, the model with text and references; and what rows are made with.

    Raises:
        InputError: if there is no model or memory, they do not fit, or it is not clear what is of which class.
    """
    backbone, models, classes = options.model.load().backbone, dict[str, WinCLIP](), dict[str, Any]()
    for given in options.memory:
        label, named, place = given.partition("=")
        label, place = (label, Path(place)) if named and "/" not in label else ("", Path(given))
        for file in sorted(place.glob("*.safetensors")) if place.is_dir() else [place]:
            class_name, prompts = class_of_memory(file, options.model.model)
            name = label or class_name
            if name in models:
                raise InputError(f"memory {file} and another are of class '{name}'; say --memory CLASS={file}")
            models[name] = WinCLIP(backbone, options.model.temperature)
            models[name].set_class(class_name, prompts, cache=cache_folder("text"))
            models[name].load_memory(file)
            classes[name] = {"memory_sha256": file_sha256(file), **asdict(models[name].threshold())}
    if not models or (len(models) > 1 and options.class_from is None):
        raise InputError(f"--memory has the classes {', '.join(models)}; say with --class_from which a picture is of")
    told = {name: getattr(options, name) for name in ("class_from", "path_column", "image_column")}
    return models, made_with(
        backbone, options.model.temperature, input=reach(options.input)[2], **told, classes=classes
    )


def describe(path: str, size: tuple[int, int], result: Prediction, threshold: Threshold) -> Row:
    """The row of a picture of a size, as predict.py has it but for the heat map."""
    score, own_size = float(result.scores[0]), fit(result.maps[0], size)
    area, box = strongest_region(own_size, threshold.pixel)
    return Row(path, score, threshold.score, score > threshold.score, area, box, "")


class Scorer:
    """Scores pictures; Ray Data makes one in every worker."""

    def __init__(self, options: Options, root: tuple[Any, str, str], done: Any) -> None:
        """Load the model and the memories; ``root`` is that of the input, and ``done`` refers to keys of rows."""
        import ray

        self._options, (self._files, self._root, self._name), self._done = options, root, ray.get(done)
        self._models, _ = load_models(options)
        self._backbone = next(iter(self._models.values())).backbone
        threads = options.cpus_per_worker if options.reading.num_workers is None else options.reading.num_workers
        self._reader = BatchReader(self._backbone.image_size, options.reading.batch_size, threads)

    def __call__(self, table: Any) -> Any:
        """The rows, a pyarrow table, of one that ``dataset`` reads."""
        import pyarrow as pa

        rows, of_label = list[dict[str, Any]](), dict[str, list[Picture]]()
        for path, label, content in self._pictures(table.to_pylist()):
            if (path, label) in self._done:
                continue
            if label in self._models:
                of_label.setdefault(label, []).append((path, label, content))
            else:
                rows.append({"path": path, "class_name": label, "reason": f"class '{label}' has no memory"})
        for label, pictures in of_label.items():
            rows += [{**row, "class_name": label} for row in self._rows(self._models[label], pictures)]
        return pa.Table.from_pylist(rows, pa.schema(list(_COLUMNS.items())))

    def _rows(self, model: WinCLIP, pictures: list[Picture]) -> Iterator[dict[str, Any]]:
        for batch in self._reader.batches(pictures, self._load):
            for (path, *_), reason in batch.unreadable:
                yield {"path": path, "reason": reason}
            results = score_each(model, self._backbone.encode(batch.images)) if batch.entries else []
            for (path, *_), size, result in zip(batch.entries, batch.extras, results):
                if isinstance(result, InputError):
                    yield {"path": path, "reason": f"image {path}: {result}"}
                else:
                    row = asdict(describe(path, size, result, model.threshold()))
                    yield row | dict(zip(_BOX, row["box"] or ()))

    def _pictures(self, rows: list[dict[str, Any]]) -> Iterator[Picture]:
        for row in rows:
            told = row.get(self._options.class_from)
            if "__url__" in row:
                sample = f"{self._name}{row['__url__'].removeprefix(self._root)}/{row['__key__']}"
                found = {f"{sample}.{key}": row[key] for key in row if row[key] is not None and is_picture(f"_.{key}")}
            else:
                content, path = row.get(self._options.image_column), row.get(self._options.path_column)
                content = content["bytes"] if isinstance(content, dict) else content
                path = path or f"{self._name}#{hashlib.sha256(content or b'').hexdigest()[:16]}"
                found = {path: row.get("at", path) if content is None else content}
            yield from ((path, self._label(path, told), content) for path, content in found.items())

    def _label(self, path: str, told: Any) -> str:
        if self._options.class_from is None:
            return next(iter(self._models))
        told = told.decode("utf-8", "replace").strip() if isinstance(told, bytes) else str(told)
        parts = reversed(PurePosixPath(path).parts[:-1]) if self._options.class_from == "folder" else [told]
        # In folders and tables an underscore often stands for a space.
        labels = {spelt: label for label in self._models for spelt in (label.replace(" ", "_"), label)}
        return next((labels[part] for part in parts if part in labels), told)

    def _load(self, picture: Picture) -> tuple[Image.Image, tuple[int, int]]:
        path, _, content = picture
        if isinstance(content, str):
            folder = self._root if posixpath.splitext(self._root)[1] != PARQUET else posixpath.dirname(self._root)
            files, place = reach(content) if "://" in content else (self._files, posixpath.join(folder, content))
            try:
                with files.open_input_stream(place) as stream:
                    content = stream.read()
            except OSError as error:
                raise InputError(f"image {path} cannot be read ({error})") from error
        image = decode_image(content, f"image {path}", upright=True)
        return image, image.size


def read_done(files: Any, folder: str) -> tuple[set[Key], int, int]:
    """Keys of the rows in a folder, and how many are anomalous and unreadable.

    Files that a kill broke off are removed, and rows that are there twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.fs import FileSelector

    done, anomalous, unreadable = set[Key](), 0, 0
    for info in files.get_file_info(FileSelector(folder, allow_not_found=True)):
        try:
            table = pq.read_table(info.path, filesystem=files, partitioning=None)
        except pa.ArrowInvalid as error:
            _log.warning("%s is removed: %s", info.path, error)
            files.delete_file(info.path)
            continue
        keys = list(zip(table["path"].to_pylist(), table["class_name"].to_pylist()))
        new = {key: number for number, key in enumerate(keys) if key not in done}
        if len(new) < len(keys):
            _log.warning("%s has rows of pictures that have one already; they are removed", info.path)
            table = table.take(list(new.values()))
            pq.write_table(table, info.path, filesystem=files)
        done |= new.keys()
        anomalous += sum(map(bool, table["anomalous"].to_pylist()))
        unreadable += len(table) - table["reason"].null_count
    return done, anomalous, unreadable


def check_settings(files: Any, path: str, settings: dict[str, Any]) -> None:
    """Write what rows are made with, or compare it with what is there.

    Raises:
        InputError: if the rows that are there were made with something else.
    """
    if files.get_file_info(path).is_file:
        with files.open_input_stream(path) as stream:
            other = differing(json.loads(stream.read()), settings)
        if other:
            raise InputError(f"the rows beside {path} were made with another {', '.join(other)}; name another --output")
    elif files.type_name == "local":
        write_atomically(path, json.dumps(settings, indent=2) + "\n")
    else:  # an object store, where files appear when they are complete
        with files.open_output_stream(path) as stream:
            stream.write(json.dumps(settings, indent=2).encode())


def run(options: Options) -> int:
    """Score what has no row yet; the exit status.

    Raises:
        InputError: if anything given is wrong, rows were made with something else, or no picture can be read.
    """
    import ray.data

    files, output, name = reach(options.output)
    there, gpus = ray.cluster_resources(), options.gpus_per_worker
    if gpus is None:
        gpus = float(there.get("GPU", 0) >= 1 and options.model.device != "cpu")
    takes = {"num_cpus": options.cpus_per_worker, "num_gpus": gpus}
    # One CPU is left for what reads and writes.
    room = min((there["CPU"] - 1) // options.cpus_per_worker, there["GPU"] // gpus if gpus else float("inf"))
    with lock_folder(Path(output), "--output") if files.type_name == "local" else contextlib.nullcontext():
        settings = ray.get(ray.remote(**takes)(lambda: load_models(options)[1]).remote())
        check_settings(files, f"{output}/{CONFIG}", settings)
        done, *_ = read_done(files, f"{output}/{ROWS}")
        _log.info("%d rows are there already", len(done))
        pictures = dataset(options, done)
        if pictures is not None:
            pictures.map_batches(
                Scorer,
                fn_constructor_args=(options, reach(options.input), ray.put(done)),
                batch_size=options.rows_per_file,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(size=options.workers or max(int(room), 1)),
                max_task_retries=_RETRIES,
                **takes,
            ).write_parquet(f"{output}/{ROWS}", filesystem=files, ray_remote_args=_LIGHT)
        done, anomalous, unreadable = read_done(files, f"{output}/{ROWS}")
    scored = len(done) - unreadable
    if not scored:
        raise InputError(f"none of the {unreadable} pictures could be read; the rows in {name} say why")
    print(f"{scored} pictures, {anomalous} of them anomalous, {unreadable} that could not be read; written to {name}")
    return 0


def with_ray(options: Options) -> int:
    """``run`` on the Ray that there is, or on one that is started here until the end."""
    # Nothing is told to anybody, and what Ray says is in its own folder.
    quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_LOG_LEVEL": "CRITICAL", "RAY_BACKEND_LOG_LEVEL": "fatal"}
    os.environ.update({name: os.environ.get(name, value) for name, value in quiet.items()})
    import ray.data
    from ray.exceptions import RayError

    log_to_terminal(_log)
    heard = signal.getsignal(signal.SIGTERM)
    how = {"include_dashboard": False, "log_to_driver": False, "logging_level": logging.ERROR}
    cpus = max(usable_cores(), (options.workers or 0) * options.cpus_per_worker) + 1
    try:
        ray.init(num_cpus=None if os.environ.get("RAY_ADDRESS") else cpus, **how)
        # Ray's own handler ends the program without a word.
        signal.signal(signal.SIGTERM, heard)
        context = ray.data.DataContext.get_current()
        context.target_max_block_size, context.enable_progress_bars = _BLOCK, sys.stderr.isatty()
        with warnings.catch_warnings():
            # Of arguments that have no other name yet.
            warnings.simplefilter("ignore")
            return run(options)
    except (RayError, OSError, ConnectionError) as error:
        cause = getattr(error, "cause", error)
        if isinstance(cause, InputError):
            raise cause from None
        raise InputError(f"Ray could not go on ({error}); the same command goes on with what has no row yet") from error
    finally:
        ray.shutdown()


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, or one of ``exit_status``."""
    parser = argparse.ArgumentParser(prog="score_collection.py", description=__doc__)
    add_options(parser, Options)
    values = vars(parser.parse_args(arguments))
    return exit_status(
        lambda: with_ray(take_options(Options, values)), "the same command goes on with what has no row yet"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
