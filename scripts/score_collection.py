"""Score a collection of any size with Ray Data: `python -m scripts.score_collection --help` lists the options."""

# Ray and pyarrow are imported late, since --help needs neither.
from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
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
from winclip.model import WinCLIP
from winclip.pictures.drawing import fit
from winclip.pictures.images import read_image
from winclip.pictures.intake import Intake
from winclip.pictures.reading import BatchReader, usable_cores
from winclip.prediction.pictures import is_picture
from winclip.prediction.references import class_of_memory
from winclip.prediction.rows import describe
from winclip.prediction.scoring import score_each
from winclip.support.command_line import ModelOptions, ReadingOptions, log_to_terminal, run_command
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, file_sha256, lock_folder
from winclip.support.options import add_options, option, take_options

_log = logging.getLogger("winclip")
PICTURES, PARQUET, TAR = "pictures", ".parquet", ".tar"
_BOX = ("box_x", "box_y", "box_w", "box_h")
# Columns of a row and their types.
_COLUMNS = {"path": "string", "class_name": "string", "score": "float64", "threshold": "float64", "anomalous": "bool"}
_COLUMNS |= {"area": "float64", **dict.fromkeys(_BOX, "int32"), "reason": "string"}
_COLUMNS |= {"text_score": "float64", "reference_score": "float64"}
# Path and class of a row; for a picture also its content or place.
Key = tuple[str, str]
Picture = tuple[str, str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """What score_collection.py was asked to do."""

    input: str = option("a folder of pictures, Parquet or tar files, or one such file", required=True, metavar="PLACE")
    memory: tuple[str, ...] = option(
        "memory file, or a folder of them; can be repeated", (), action="append", metavar="[CLASS=]FILE"
    )
    image_only: bool = option("instead of --memory: zero-shot scores at 8 %% of the operations, no maps", False)
    class_name: str | None = option("what pictures show, with --image_only", metavar="NAME")
    class_from: str | None = option("folder, a Parquet column, or an ending in tar files (one class)", metavar="WHERE")
    path_column: str = option("paths in Parquet files (path)", "path", metavar="NAME")
    image_column: str = option("images in Parquet files (image)", "image", metavar="NAME")
    output: str = option("a folder; the same command goes on there", required=True, metavar="PLACE")
    rows_per_file: int = option("pictures scored together (256)", 256, metavar="N")
    workers: int | None = option("processes with the model (as many as fit)", group="workers", metavar="N")
    cpus_per_worker: int = option("cores and threads of each (1)", 1, group="workers", metavar="N")
    gpus_per_worker: float | None = option("(1 where there are GPUs, else 0)", group="workers", metavar="N")
    model: ModelOptions
    reading: ReadingOptions

    def __post_init__(self) -> None:
        """Raises: InputError: if a number is too small, or no option says what pictures are compared with."""
        if self.image_only == bool(self.memory) or self.image_only != bool(self.class_name):
            raise InputError(
                "give --memory, or --image_only with --class_name, which has no windows to compare with references"
            )
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


def dataset(options: Options) -> Any:
    """The pictures of ``--input`` as Ray Data reads them; InputError if there are none, or of several kinds.

    Workers open the files: an unreadable one would end ``read_binary_files``.
    """
    import pyarrow.dataset
    import ray.data
    from pyarrow.fs import FileSelector

    (files, root, name), output, kinds = reach(options.input), reach(options.output)[1], dict[str, list[str]]()
    is_file, below = files.get_file_info(root).is_file, FileSelector(root, recursive=True, allow_not_found=True)
    infos = files.get_file_info([root] if is_file else below)
    for path in sorted(info.path for info in infos if info.is_file):
        kind = PICTURES if is_picture(path) else PurePosixPath(path).suffix
        hidden = "/." in path.removeprefix(root) or path.startswith(f"{output}/")
        if kind in (PICTURES, PARQUET, TAR) and not hidden:
            kinds.setdefault(kind, []).append(path)
    if len(kinds) != 1:
        raise InputError(f"{name} holds {' and '.join(kinds) or 'no'} files; name pictures, {PARQUET} or {TAR} files")
    kind, paths = kinds.popitem()
    if kind == TAR:
        return ray.data.read_webdataset(paths, decoder=None, filesystem=files)
    items = [{options.path_column: name + path.removeprefix(root), "at": path} for path in paths]
    if kind == PARQUET:
        there = pyarrow.dataset.dataset(paths, filesystem=files)
        columns = {options.path_column, options.image_column, options.class_from or ""}
        wanted = [column for column in there.schema.names if column in columns]
        if options.image_column in wanted:
            return ray.data.read_parquet(paths, filesystem=files).select_columns(wanted)
        if options.path_column not in wanted:
            held = ", ".join(there.schema.names)
            raise InputError(f"{name} has the columns {held}; see --path_column and --image_column")
        folder = PurePosixPath(root).parent if is_file else PurePosixPath(root)
        items = there.to_table(wanted).to_pylist()
        for item in items:
            at = item[options.path_column]
            item["at"] = at if "://" in at else str(folder / at)
    return ray.data.from_items(items, override_num_blocks=-(-len(items) // options.rows_per_file))


def load_models(options: Options) -> tuple[dict[str, WinCLIP], dict[str, Any]]:
    """By class, as pictures are labelled, the model with text and references; and what all rows are made with."""
    backbone, models, classes = options.model.load().backbone, dict[str, WinCLIP](), dict[str, Any]()
    for given in options.memory:
        label, place = given.split("=", 1) if re.match("[^/=]+=", given) else ("", given)
        for file in sorted(Path(place).glob("*.safetensors")) if Path(place).is_dir() else [Path(place)]:
            class_name, prompts = class_of_memory(file, options.model.model)
            name = label or class_name
            if name in models:
                raise InputError(f"memory {file} and another are of class '{name}'; say --memory CLASS={file}")
            models[name] = WinCLIP(backbone, options.model.temperature, options.model.white)
            models[name].set_class(class_name, prompts, cache=cache_folder("text"))
            models[name].load_memory(file)
            classes[name] = {"memory_sha256": file_sha256(file), **asdict(models[name].threshold())}
    if options.image_only:
        assert options.class_name is not None
        model = WinCLIP(backbone, options.model.temperature, options.model.white, image_only=True)
        model.set_class(options.class_name, cache=cache_folder("text"))
        models[options.class_name] = model
        classes = {"image_only": options.class_name}
    if not models or (len(models) > 1 and options.class_from is None):
        raise InputError(f"--memory has the classes {', '.join(models)}; say with --class_from which a picture is of")
    told = {name: getattr(options, name) for name in ("class_from", "path_column", "image_column")}
    told |= {"input": reach(options.input)[2], "classes": classes}
    return models, made_with(backbone, options.model.temperature, white=options.model.white, **told)


class Scorer:
    """Scores pictures; Ray Data makes one in every worker."""

    def __init__(self, options: Options, source: tuple[Any, str, str], done: Any, intake: Any) -> None:
        """Load model and memories.

        Args:
            options: of the run.
            source: where the input is, as ``reach`` says.
            done: Ray's reference to the keys of rows.
            intake: an actor that all workers share.
        """
        import ray

        self._options, (self._files, self._root, self._name), self._done = options, source, ray.get(done)
        self._of_all, self._intake = intake, Intake(options.model.white)
        self._models, _ = load_models(options)
        backbone = next(iter(self._models.values())).backbone
        threads = options.cpus_per_worker if options.reading.num_workers is None else options.reading.num_workers
        self._reader = BatchReader(backbone.image_size, options.reading.batch(backbone), threads)

    def __call__(self, table: Any) -> Any:
        """Score the pictures of a table from ``dataset`` that have no row yet; returns rows as a pyarrow table."""
        import pyarrow as pa

        pictures = [picture for picture in self._pictures(table.to_pylist()) if picture[:2] not in self._done]
        failed = [(picture, "the class has no memory") for picture in pictures if picture[1] not in self._models]
        rows: list[dict[str, Any]] = []
        for label, model in self._models.items():
            some, threshold = [picture for picture in pictures if picture[1] == label], model.threshold()
            for batch in self._reader.batches(some, self._load):
                failed += batch.unreadable
                results = score_each(model, model.embed(batch.images)) if batch.entries else []
                for picture, size, result in zip(batch.entries, batch.extras, results):
                    if isinstance(result, InputError):
                        failed.append((picture, f"image {picture[0]}: {result}"))
                    else:
                        own_map = None if self._options.image_only else fit(result.maps[0], size)
                        row = asdict(describe(picture[0], result, own_map, threshold))
                        row |= {"path": picture[0], "class_name": label} | dict(zip(_BOX, row["box"] or ()))
                        rows.append(row)
        rows += [{"path": path, "class_name": label, "reason": reason} for (path, label, _), reason in failed]
        self._of_all.add.remote(self._intake)
        self._intake = Intake(self._intake.white)
        return pa.Table.from_pylist(rows, pa.schema(list(_COLUMNS.items())))

    def _pictures(self, rows: list[dict[str, Any]]) -> Iterator[Picture]:
        for row in rows:
            content, path = row.get(self._options.image_column), row.get(self._options.path_column)
            content = content["bytes"] if isinstance(content, dict) else content
            if "__url__" in row:
                sample = f"{self._name}{row['__url__'].removeprefix(self._root)}/{row['__key__']}"
                found = {f"{sample}.{key}": row[key] for key in row if row[key] is not None and is_picture(f"_.{key}")}
            elif path is None:
                found = {f"{self._name}#{hashlib.sha256(content or b'').hexdigest()[:16]}": content}
            else:
                found = {path: row.get("at", content)}
            told = row.get(self._options.class_from or "")
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
        try:
            if isinstance(content, str):
                files, place = reach(content)[:2] if "://" in content else (self._files, content)
                with files.open_input_stream(place) as stream:
                    content = stream.read()
            image = read_image(io.BytesIO(content or b""), name=f"image {path}", upright=True, intake=self._intake)
        except OSError as error:
            raise InputError(f"image {path} cannot be read ({error})") from error
        return image, image.size


def read_done(files: Any, folder: str) -> tuple[set[Key], int]:
    """Keys of the rows in a folder, and how many have no score; removes broken files and duplicate rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyarrow.fs import FileSelector

    done, failed = set[Key](), 0
    for info in files.get_file_info(FileSelector(folder, allow_not_found=True)):
        try:
            table = pq.read_table(info.path, filesystem=files, partitioning=None)
        except pa.ArrowInvalid as error:
            _log.warning("%s is removed: %s", info.path, error)
            files.delete_file(info.path)
            continue
        keys = zip(table["path"].to_pylist(), table["class_name"].to_pylist())
        new = {key: number for number, key in enumerate(keys) if key not in done}
        if len(new) < len(table):
            _log.warning("%s has rows of pictures that have one already; they are removed", info.path)
            table = table.take(pa.array(list(new.values()), pa.int64()))
            pq.write_table(table, info.path, filesystem=files)
        done |= new.keys()
        failed += table["score"].null_count
    return done, failed


def check(files: Any, path: str, settings: dict[str, Any]) -> None:
    """Say in a file what rows are made with; InputError if existing rows were made with something else."""
    if not files.get_file_info(path).is_file:
        with files.open_output_stream(f"{path}.new") as stream:
            stream.write(json.dumps(settings, indent=2).encode())
        files.move(f"{path}.new", path)
    with files.open_input_stream(path) as stream:
        if other := differing(json.loads(stream.read()), settings):
            raise InputError(f"{path}: rows were made with another {', '.join(other)}; name another --output")


def score(options: Options) -> int:
    """Score what has no row yet, with the Ray that is running; the exit status."""
    import ray.data

    (files, output, name), there, gpus = reach(options.output), ray.cluster_resources(), options.gpus_per_worker
    if gpus is None:
        gpus = float(there.get("GPU", 0) >= 1 and options.model.device != "cpu")
    how: dict[str, Any] = {"num_cpus": options.cpus_per_worker, "num_gpus": gpus}
    # One CPU is left for reading.
    room = min((there["CPU"] - 1) // options.cpus_per_worker, there.get("GPU", 0) // gpus if gpus else there["CPU"])
    with lock_folder(Path(output), "--output") if files.type_name == "local" else contextlib.nullcontext():
        made: Any = ray.remote(**how)(lambda: load_models(options)[1]).remote()
        check(files, f"{output}/config.json", ray.get(made))
        done, _ = read_done(files, f"{output}/rows")
        _log.info("%d rows are there already", len(done))
        intake: Any = ray.remote(num_cpus=0)(Intake).remote(options.model.white)
        dataset(options).map_batches(
            Scorer,
            fn_constructor_args=(options, reach(options.input), ray.put(done), intake),
            batch_size=options.rows_per_file,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=options.workers or max(int(room), 1)),
            # A batch is repeated if its worker dies; one that kills every worker ends the run.
            max_task_retries=3,
            **how,
        ).write_parquet(f"{output}/rows", filesystem=files, ray_remote_args={"num_cpus": 0})
        done, failed = read_done(files, f"{output}/rows")
        for sentence in ray.get(intake.odd.remote()).values():
            _log.warning("%s", sentence)
    print(f"{len(done) - failed} pictures are scored, {failed} could not be; the rows are in {name}/rows")
    return 0 if len(done) > failed else 2


def run(options: Options) -> int:
    """``score`` with the Ray that ``RAY_ADDRESS`` names, or one that is started here and ends with the run."""
    # Ray reports no usage, and logs to a folder of its own.
    for name, value in (("USAGE_STATS_ENABLED", "0"), ("DATA_LOG_LEVEL", "CRITICAL"), ("BACKEND_LOG_LEVEL", "fatal")):
        os.environ.setdefault(f"RAY_{name}", value)
    import pyarrow
    import ray.data

    log_to_terminal(_log)
    # Of arguments that have no other name yet.
    warnings.simplefilter("ignore")
    heard, cpus = signal.getsignal(signal.SIGTERM), (options.workers or 0) * options.cpus_per_worker
    # The CPUs of a Ray that starts here: those of the workers, and two for reading.
    how: dict[str, Any] = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": max(usable_cores() + 1, cpus + 2)}
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR, **how)
        # Ray's own handler ends the program without a word.
        signal.signal(signal.SIGTERM, heard)
        context = ray.data.DataContext.get_current()
        context.target_max_block_size, context.enable_progress_bars = 16 << 20, sys.stderr.isatty()
        return score(options)
    except (ray.exceptions.RayError, pyarrow.ArrowInvalid, OSError) as error:
        cause = getattr(error, "cause", error)
        raise cause if isinstance(cause, InputError) else InputError(f"{error}; the same command goes on") from None
    finally:
        ray.shutdown()


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, or one of ``run_command``, which is 2 too if no picture could be read."""
    parser = argparse.ArgumentParser(prog="score_collection.py", description=__doc__)
    add_options(parser, Options)
    values = vars(parser.parse_args(arguments))
    return run_command(lambda: run(take_options(Options, values)), "the same command goes on")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
