"""A run of predict.py: list the pictures, find the threshold, then score, draw and write one by one."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

import winclip
from prediction.listing import common_folder, list_pictures, output_name
from prediction.options import Options
from prediction.pictures import fit, heat_map, mask, strongest_region
from prediction.reading import read_batches, read_picture
from prediction.rows import FAILURES, PREDICTIONS, RowFile, read_rows, write_json
from prediction.threshold import Thresholds, find_thresholds
from winclip.backbone import file_sha256
from winclip.errors import InputError
from winclip.files import write_atomically
from winclip.memory import read_memory
from winclip.model import WinCLIP, model_name
from winclip.prompts import PromptSet, load_prompt_set, with_states
from winclip.text import cache_folder

_log = logging.getLogger("winclip")
_SAMPLE = Path(__file__).resolve().parent.parent / "data" / "sample"


@dataclass
class _Counts:
    """Pictures of the output so far."""

    scored: int = 0
    anomalous: int = 0
    unreadable: int = 0


def run(options: Options) -> int:
    """Score the pictures and write the files.

    Returns:
        The exit status: 0, 2 if no picture could be read, 130 after Ctrl-C during the scoring.

    Raises:
        InputError: if anything given is wrong, or the output cannot be written; rows that are there stay.
    """
    _log_to_terminal()
    if options.demo and not options.inputs:
        options = _with_sample(options)
    save = options.save_path
    _refuse_unwritable(save)
    pictures = list_pictures(options.inputs, leave_out=(save / "heatmaps", save / "masks"))
    folder = common_folder(options.inputs)
    references = _without_shared(options.reference, pictures)
    class_name, prompts = _class_and_prompts(options)
    model = WinCLIP.from_pretrained(
        options.model,
        options.pretrained,
        device=options.device,
        precision=options.precision,
        image_size=options.image_size,
    )
    model.set_class(class_name, prompts, cache=cache_folder())
    checksums = _add_references(model, references, options)
    thresholds = find_thresholds(model, options.threshold)
    _log.info("%s: %d pictures, %s on %s", class_name, len(pictures), options.model, model.backbone.device)
    _log.info("threshold %.4g (%s)", thresholds.score, thresholds.rule)
    if thresholds.caution and options.threshold is None:
        _log.warning("%s", thresholds.caution)
    settings = _settings(options, model, class_name, prompts, checksums, thresholds, folder)
    go_on = _prepare(options, settings)
    return _write_all(options, model, thresholds, pictures, folder, settings, go_on)


def _with_sample(options: Options) -> Options:
    """The embedded sample in place of pictures: a class of it, and its train images as references."""
    from scripts.make_sample import CLASSES, make_sample

    name = options.class_name or next(iter(CLASSES))
    if name not in CLASSES:
        raise InputError(f"the sample has no class '{name}', only {', '.join(CLASSES)}; or name pictures")
    try:
        make_sample(_SAMPLE)
    except OSError as error:
        raise InputError(f"the sample cannot be drawn ({error})") from error
    own = options.reference or options.memory
    reference = options.reference if own else (str(_SAMPLE / name / "train" / "good"),)
    return replace(options, inputs=(str(_SAMPLE / name / "test"),), class_name=name, reference=reference)


def _refuse_unwritable(folder: Path) -> None:
    """Before the work starts."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(folder, os.W_OK) else "Permission denied"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise InputError(f"cannot write to {folder} ({reason}); choose another --save_path")


def _without_shared(places: Sequence[str], pictures: Sequence[str]) -> list[str]:
    """The reference pictures, without those that are to be scored."""
    if not places:
        return []
    listed = list_pictures(places)
    to_score = {os.path.realpath(path) for path in pictures}
    kept = [path for path in listed if os.path.realpath(path) not in to_score]
    if len(kept) < len(listed):
        _log.warning(
            "%d of %d references are among the pictures to score and are left out of the references%s",
            len(listed) - len(kept),
            len(listed),
            "" if kept else "; none is left, so the scores are zero-shot",
        )
    return kept


def _class_and_prompts(options: Options) -> tuple[str, PromptSet]:
    """From the options or, where they are silent, from the memory; a memory of another model is refused early."""
    class_name = options.class_name
    own_prompts = options.prompt_set or options.normal_states or options.anomalous_states
    prompts = with_states(
        load_prompt_set(options.prompt_set or "reference"), options.normal_states, options.anomalous_states
    )
    if options.memory is not None:
        _, made_with = read_memory(options.memory)
        if made_with.get("model") != model_name(options.model):
            raise InputError(
                f"memory {options.memory} does not fit: model is {made_with.get('model')!r}, not"
                f" {model_name(options.model)!r}; name the memory's with --model"
            )
        try:
            class_name = class_name or str(made_with["class_name"])
            entries: dict[str, Any] = made_with["prompts"]
            kept: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in entries.items()
            }
            prompts = prompts if own_prompts else PromptSet(**kept)
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"memory {options.memory} does not say its class and prompts; save it again") from error
    assert class_name is not None  # the options see to it
    return class_name, prompts


def _add_references(model: WinCLIP, references: Sequence[str], options: Options) -> list[str]:
    """Fill the memory, save it if wanted, and return the checksums of what it was made from."""
    if options.memory is not None:
        model.load_memory(options.memory)
        return [file_sha256(options.memory)]
    different: dict[str, str] = {}
    for path in references:
        different.setdefault(_checksum(path), path)
    if len(different) < len(references):
        _log.info("%d references are copies of others and count once", len(references) - len(different))
    for batch in read_batches(list(different.values()), model.backbone, options.batch_size, options.num_workers):
        for _, reason in batch.unreadable:
            _log.warning("reference left out: %s", reason)
        if batch.paths:
            model.add_references(model.backbone.encode(batch.images))
    if references and not model.reference_count():
        raise InputError(f"none of the {len(references)} references could be read; the warnings above say why")
    if options.save_memory is not None and model.reference_count():
        model.save_memory(options.save_memory)
    return list(different)


def _checksum(path: str) -> str:
    try:
        return file_sha256(Path(path))
    except OSError:  # the reader says what is wrong with it
        return path


def _settings(
    options: Options,
    model: WinCLIP,
    class_name: str,
    prompts: PromptSet,
    checksums: list[str],
    thresholds: Thresholds,
    folder: str,
) -> dict[str, Any]:
    """What has to be the same for the rows of two runs to belong together, as JSON gives it back."""
    settings = {
        "version": winclip.__version__,
        "model": options.model,
        "weights_sha256": model.backbone.weights_sha256,
        "image_size": model.backbone.image_size,
        "precision": str(model.backbone.dtype).split(".")[-1],
        "class_name": class_name,
        "prompts": asdict(prompts),
        "references": checksums,
        "threshold": thresholds.score,
        "threshold_rule": thresholds.rule,
        "pixel_threshold": thresholds.pixel,
        "colours": thresholds.colours,
        "save_masks": options.save_masks,
        "folder": folder,
    }
    as_read: dict[str, Any] = json.loads(json.dumps(settings))
    return as_read


def _prepare(options: Options, settings: dict[str, Any]) -> bool:
    """Check that an earlier run may be resumed, or clear its tables away; whether to go on behind its rows."""
    save = options.save_path
    known = save / "run.json"
    go_on = options.resume and known.exists() and (save / "predictions.csv").exists()
    if go_on:
        try:
            before = json.loads(known.read_text(encoding="utf-8"))["settings"]
            differing = [key for key, value in settings.items() if not _same(before.get(key), value)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{known} cannot be read, so {save} cannot be resumed; run without --resume") from error
        if differing:
            raise InputError(
                f"the rows in {save} were made with another {', '.join(differing)} and cannot be resumed;"
                " use the same options, or another --save_path"
            )
    else:
        if options.resume:
            _log.info("%s holds no rows to go on from, so the run starts from the beginning", save)
        for name in ("predictions.csv", "predictions.json", "failures.csv", "report.html"):
            try:
                (save / name).unlink(missing_ok=True)
            except OSError as error:
                raise InputError(
                    f"cannot replace {save / name} ({error.strerror}); choose another --save_path"
                ) from error
        _write_run(save, settings, finished=False)
    return go_on


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        # Another number of threads may round differently.
        return math.isclose(before, now, rel_tol=1e-6)
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(_same(one, other) for one, other in zip(before, now))
    return bool(before == now)


def _write_run(save: Path, settings: dict[str, Any], finished: bool, **counts: int) -> None:
    content = {"finished": finished, **counts, "settings": settings}
    write_atomically(save / "run.json", json.dumps(content, indent=2) + "\n")


def _write_all(
    options: Options,
    model: WinCLIP,
    thresholds: Thresholds,
    pictures: Sequence[str],
    folder: str,
    settings: dict[str, Any],
    go_on: bool,
) -> int:
    save, rows_path = options.save_path, options.save_path / "predictions.csv"
    counts, done = _Counts(), set()
    with RowFile(rows_path, PREDICTIONS, go_on) as rows, RowFile(save / "failures.csv", FAILURES) as failures:
        for row in read_rows(rows_path):
            done.add(row["heat_map"])
            counts.scored += 1
            counts.anomalous += row["anomalous"] == "yes"
        left = [path for path in pictures if f"heatmaps/{output_name(path, folder)}.jpg" not in done]
        if go_on:
            _log.info("%d pictures are done already, %d are left", counts.scored, len(left))
        try:
            _score(options, model, thresholds, left, folder, rows, failures, counts)
        except KeyboardInterrupt:
            print(
                f"stopped after {counts.scored} of {len(pictures)} pictures; {_how_to_go_on(rows_path)}",
                file=sys.stderr,
            )
            return 130
        except InputError as error:
            raise InputError(f"{error}; {counts.scored} pictures are done, {_how_to_go_on(rows_path)}") from error
    write_json(rows_path, save / "predictions.json")
    _write_run(save, settings, finished=True, **asdict(counts))
    if not counts.scored:
        raise InputError(f"none of the {len(pictures)} pictures could be read; {save / 'failures.csv'} says why")
    if options.report:
        from prediction.report import report_predictions

        report_predictions(save, settings, thresholds, counts.unreadable)
    print(
        f"{counts.scored} pictures, {counts.anomalous} of them anomalous (threshold {thresholds.score:.4g}),"
        f" and {counts.unreadable} that could not be read; written to {save}"
    )
    return 0


def _how_to_go_on(rows: Path) -> str:
    return f"the rows in {rows} are complete, and the same command with --resume goes on behind them"


def _score(
    options: Options,
    model: WinCLIP,
    thresholds: Thresholds,
    pictures: Sequence[str],
    folder: str,
    rows: RowFile,
    failures: RowFile,
    counts: _Counts,
) -> None:
    """Read, score, draw and write, holding one batch at a time."""
    with tqdm(total=len(pictures), unit="picture", disable=None, dynamic_ncols=True) as progress:
        for batch in read_batches(pictures, model.backbone, options.batch_size, options.num_workers):
            failed = list(batch.unreadable)
            if batch.paths:
                out = model.score(model.backbone.encode(batch.images))
                for path, score, anomaly_map in zip(batch.paths, out.scores, out.maps):
                    try:
                        files, row = _describe(path, folder, float(score), anomaly_map, thresholds, options.save_masks)
                    except InputError as error:  # the file changed since it was read first
                        failed.append((path, str(error)))
                        continue
                    for name, content in files.items():
                        write_atomically(options.save_path / name, content)
                    rows.append(row)
                    counts.scored += 1
                    counts.anomalous += row[3] == "yes"
                    progress.update()
            for path, reason in failed:
                _log.warning("passed over: %s", reason)
                failures.append((Path(path).as_posix(), reason))
                counts.unreadable += 1
                progress.update()


def _describe(
    path: str,
    folder: str,
    score: float,
    anomaly_map: npt.NDArray[np.float32],
    thresholds: Thresholds,
    with_mask: bool,
) -> tuple[dict[str, bytes], list[str]]:
    """The files of a picture by name, and its row.

    The picture is read once more, because a batch of large ones would take gigabytes.
    """
    picture = read_picture(path)
    own_size = fit(anomaly_map, picture.size)
    name = output_name(path, folder)
    files = {f"heatmaps/{name}.jpg": heat_map(picture, own_size, thresholds.colours)}
    if with_mask:
        files[f"masks/{name}.png"] = mask(own_size, thresholds.pixel)
    area, box = strongest_region(own_size, thresholds.pixel)
    verdict = "yes" if score > thresholds.score else "no"
    figures = [f"{score:.9g}", f"{thresholds.score:.9g}", verdict, f"{area:.6g}"]
    corners = ["", "", "", ""] if box is None else [str(value) for value in box]
    return files, [Path(path).as_posix(), *figures, *corners, f"heatmaps/{name}.jpg"]


def _log_to_terminal() -> None:
    class ToTerminal(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)

    _log.handlers[:] = [ToTerminal()]
    _log.setLevel(logging.INFO)
    _log.propagate = False
