"""A run of predict.py: list the pictures, find the threshold, then score, draw and write one by one."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prediction.journal import Journal, read_rows, write_tables
from prediction.listing import common_folder, list_pictures
from prediction.options import Options
from prediction.references import add_references, class_and_prompts, with_sample, without_shared
from prediction.resuming import model_settings, prepare, threshold_settings, write_run
from prediction.scoring import Counts, Output, heat_map_name, score
from winclip.command_line import log_to_terminal
from winclip.errors import InputError
from winclip.files import cache_folder, lock_folder
from winclip.model import WinCLIP
from winclip.names import printable
from winclip.reading import BatchReader
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")


def run(options: Options) -> int:
    """Score the pictures and write the files.

    Returns:
        The exit status, which is 0.

    Raises:
        InputError: if anything given is wrong, no picture can be read, or the output cannot be written;
            rows that are there stay.
    """
    log_to_terminal(_log)
    if options.demo and not options.inputs:
        options, folder = with_sample(options)
        options = replace(options, inputs=(str(folder),))
    with lock_folder(options.save_path):
        return _predict(options)


def _predict(options: Options) -> int:
    save = options.save_path
    pictures = list_pictures(options.inputs)
    folder = common_folder(options.inputs)
    references = without_shared(options.reference, pictures)
    class_name, prompts = class_and_prompts(options)
    model = options.model.load()
    model.set_class(class_name, prompts, cache=cache_folder("text"))
    with BatchReader(model.backbone.image_size, options.batch_size, options.num_workers) as reader:
        checksums = add_references(model, references, reader, options)
        threshold = model.threshold(given=options.threshold)
        _log.info("%s: %d pictures, %s on %s", class_name, len(pictures), options.model.model, model.backbone.device)
        _log.info("threshold %.4g (%s)", threshold.score, threshold.rule)
        if threshold.caution:
            _log.warning("%s", threshold.caution)
        settings = {
            **model_settings(model, class_name, prompts),
            "references": checksums,
            **threshold_settings(threshold),
            "save_masks": options.save_masks,
            "folder": folder,
        }
        go_on = prepare(save, _as_json(settings), options.resume)
        done, counts = set(), Counts()
        for row in read_rows(save):
            done.add(row.heat_map)
            counts.add(row)
        left = [path for path in pictures if heat_map_name(path, folder) not in done]
        if go_on:
            _log.info("%d pictures are done already, %d are left", counts.scored, len(left))
        with Journal(save) as journal:
            output = Output(journal, [], counts, folder, options.save_masks)
            _score_all(left, reader, model, threshold, save, output)
    return _finish(options, settings, threshold, output)


def _score_all(
    pictures: Sequence[str], reader: BatchReader, model: WinCLIP, threshold: Threshold, save: Path, output: Output
) -> None:
    """Score, and where that ends early, save the tables and say how to go on."""
    counts, total = output.counts, output.counts.scored + len(pictures)
    try:
        score(pictures, reader, model, threshold, save, output)
    except (KeyboardInterrupt, InputError) as error:
        with contextlib.suppress(InputError):  # the journal has all rows
            write_tables(save, output.failures)
        done = f"{counts.scored} of {total} pictures are done, and the same command with --resume goes on behind them"
        raise type(error)(f"{error}; {done}" if isinstance(error, InputError) else done) from error


def _finish(options: Options, settings: dict[str, Any], threshold: Threshold, output: Output) -> int:
    save, counts = options.save_path, output.counts
    write_tables(save, output.failures)
    write_run(save, settings, finished=True, **asdict(counts))
    if not counts.scored:
        total = counts.unreadable
        raise InputError(f"none of the {total} pictures could be read; {save / 'failures.csv'} says why")
    if options.report:
        from prediction.report import report_predictions

        report_predictions(save, settings, threshold, counts.unreadable)
    print(
        f"{counts.scored} pictures, {counts.anomalous} of them anomalous (threshold {threshold.score:.4g}),"
        f" and {counts.unreadable} that could not be read; written to {printable(str(save))}"
    )
    return 0


def _as_json(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as they come back from a file."""
    as_read: dict[str, Any] = json.loads(json.dumps(settings))
    return as_read
