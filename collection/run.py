"""A run of score_collection.py: list the pictures, let Ray's workers score what has no row yet, and see to the end."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from collection.classes import read_classes
from collection.listing import Source, Unit, list_units, without_done
from collection.options import Options
from collection.places import Place, place
from collection.rows import ROWS, Done, read_done
from collection.worker import Job, Scorer, describe
from prediction.resuming import differing_settings
from winclip.command_line import log_to_terminal
from winclip.errors import InputError
from winclip.files import lock_folder
from winclip.texts import parse_json
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
_CONFIG = "config.json"
# A worker that dies costs what it was at; what kills every worker that takes it ends the run.
_RETRIES = 3
# Of units that are given to workers together, if there are more units.
_MOST_BLOCKS = 10_000


@dataclass(frozen=True)
class Workers:
    """How many there are, and what each takes of Ray's resources."""

    count: int
    cpus: float
    gpus: float


def run(options: Options) -> int:
    """Score the pictures and write the rows.

    Returns:
        The exit status, which is 0.

    Raises:
        InputError: if anything given is wrong, no picture can be read, or the output cannot be written;
            rows that are there stay.
    """
    log_to_terminal(_log)
    output = place(options.output)
    classes = read_classes(options.memory, options.model.model)
    source = Source(
        options.input,
        str(Path.cwd()),
        options.path_column,
        options.image_column,
        tuple(classes),
        options.class_from,
        options.rows_per_file,
    )
    source, units = list_units(source, output)
    job = Job(
        source,
        options.output,
        classes,
        options.model,
        options.save_maps,
        options.batch_size,
        options.cpus_per_worker if options.num_workers is None else options.num_workers,
    )
    lock = lock_folder(Path(output.path), "--output") if output.is_local else contextlib.nullcontext()
    with lock, _ray_errors(), _ray():
        workers = _workers(options)
        made_with, thresholds = _described(job, workers)
        settings = {
            "input": place(source.address).shown,
            "folder": source.folder.path,
            **{name: getattr(options, name) for name in ("class_from", "path_column", "image_column", "save_maps")},
            **made_with,
        }
        _check_settings(output, settings)
        done = read_done(output)
        left = without_done(source, units, done.keys)
        _log.info("%s, %d workers", options.model.model, workers.count)
        if done.keys:
            _log.info("%d rows are there already", len(done.keys))
        _write_config(output, settings, done, finished=False)
        _score(left, job, thresholds, workers, len(done.keys))
    return _finish(output, settings, units)


def _described(job: Job, workers: Workers) -> tuple[dict[str, Any], dict[str, Threshold]]:
    """What a worker says of the model and the memories; in one, since the driver may have no room for a model."""
    import ray

    task = ray.remote(num_cpus=workers.cpus, num_gpus=workers.gpus)(describe)
    found = ray.get(task.remote(job))
    if isinstance(found, str):
        raise InputError(found)
    made_with, thresholds = found
    for name, threshold in thresholds.items():
        _log.info("%s: threshold %.4g (%s)", name, threshold.score, threshold.rule)
        if threshold.caution:
            _log.warning("%s: %s", name, threshold.caution)
    # As it comes back from a file.
    return json.loads(json.dumps(made_with)), thresholds


def _score(
    units: Sequence[Unit],
    job: Job,
    thresholds: dict[str, Threshold],
    workers: Workers,
    done: int,
) -> None:
    if not units:
        return
    import ray

    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"unit": unit.as_json()} for unit in units]
    pool = ray.data.ActorPoolStrategy(size=min(workers.count, len(units)))
    with warnings.catch_warnings():
        # Of the number of retries, which has no other name yet.
        warnings.simplefilter("ignore")
        results = ray.data.from_items(items, override_num_blocks=min(len(items), _MOST_BLOCKS)).map_batches(
            Scorer,
            fn_constructor_args=(job, thresholds),
            batch_size=1,
            compute=pool,
            num_cpus=workers.cpus,
            num_gpus=workers.gpus,
            max_task_retries=_RETRIES,
        )
    left = [sum(1 for _ in unit.known_keys()) for unit in units]
    total = done + sum(left) if all(left) else None
    with tqdm(total=total, initial=done, unit="picture", disable=None, dynamic_ncols=True) as progress:
        for result in results.iter_rows():
            if result["error"]:
                raise InputError(f"{result['error']}; the same command goes on with what has no row yet")
            progress.update(result["rows"])


def _finish(output: Place, settings: dict[str, Any], units: Sequence[Unit]) -> int:
    done = read_done(output)
    missing = sum(key not in done.keys for unit in units for key in unit.known_keys())
    if missing:
        raise InputError(f"{missing} pictures have no row in {output.shown}; the same command goes on with them")
    _write_config(output, settings, done, finished=True)
    scored = len(done.keys) - done.unreadable
    if not scored:
        raise InputError(f"none of the {done.unreadable} pictures could be read; the rows in {output.shown} say why")
    print(
        f"{scored} pictures, {done.anomalous} of them anomalous, and {done.unreadable} that could not be read;"
        f" written to {output.shown}"
    )
    return 0


def _check_settings(output: Place, settings: dict[str, Any]) -> None:
    """Raises: InputError: if there are rows that were made with others."""
    if not output.below(ROWS).listed():
        return
    config = output.below(_CONFIG)
    before: dict[str, Any] = {}
    if config.kind():
        content = parse_json(config.read().decode("utf-8", "replace"), config.shown)
        before = content.get("settings", {}) if isinstance(content, dict) else {}
    differing = differing_settings(before, settings)
    if differing:
        raise InputError(
            f"the rows in {output.shown} were made with another {', '.join(differing)}; use the same options, or"
            " another --output"
        )


def _write_config(output: Place, settings: dict[str, Any], done: Done, finished: bool) -> None:
    counts = {"rows": len(done.keys), "anomalous": done.anomalous, "unreadable": done.unreadable}
    content = {"finished": finished, **counts, "settings": settings}
    output.below(_CONFIG).write((json.dumps(content, indent=2) + "\n").encode())


def _workers(options: Options) -> Workers:
    """What each worker takes, and how many there are: by default as many as Ray has room for."""
    import ray

    there = ray.cluster_resources()
    gpus = options.gpus_per_worker
    if gpus is None:
        gpus = 1.0 if there.get("GPU", 0) >= 1 and options.model.device != "cpu" else 0.0
    wanted = {"CPU": float(options.cpus_per_worker), "GPU": gpus}
    room = min(int(there.get(name, 0) / amount) for name, amount in wanted.items() if amount)
    if not room:
        _log.warning(
            "a worker takes %g CPUs and %g GPUs, and Ray has %g and %g; waiting for a machine to join",
            *wanted.values(),
            *(there.get(name, 0) for name in wanted),
        )
    return Workers(options.workers or max(room, 1), options.cpus_per_worker, gpus)


@contextlib.contextmanager
def _ray_errors() -> Iterator[None]:
    from ray.exceptions import RayError

    try:
        yield
    except RayError as error:
        raise InputError(
            f"Ray's workers could not go on ({type(error).__name__}: {error}); the same command goes on with what has"
            " no row yet"
        ) from error


@contextlib.contextmanager
def _ray() -> Iterator[None]:
    """Join the cluster that there is, or start Ray on this machine until the end; not if this process has done so."""
    # Nothing is told to anybody, and what Ray Data logs is in its own folder.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DATA_LOG_LEVEL", "CRITICAL")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    import ray

    if ray.is_initialized():
        yield
        return
    heard = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise InputError(
            f"Ray cannot be started or reached ({error}); RAY_ADDRESS names a cluster, and without it Ray starts here"
        ) from error
    # Ray has a handler of its own, which ends the program without a word.
    signal.signal(signal.SIGTERM, heard)
    try:
        yield
    finally:
        ray.shutdown()
