"""What has to be the same for the rows of two runs to belong together, and what becomes of an earlier run's files."""

from __future__ import annotations

import json
import logging
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import winclip
from winclip.model import WinCLIP
from winclip.prediction.journal import JOURNAL, begin, read_rows, settings_of, take_up
from winclip.prediction.listing import RUN_FILE
from winclip.prediction.rows import mask_name
from winclip.prompts import PromptSet
from winclip.support.errors import InputError
from winclip.support.files import remove_file, write_atomically
from winclip.thresholds import Threshold

_log = logging.getLogger("winclip")
_FILES = ("predictions.csv", "predictions.json", "failures.csv", "report.html")


def model_settings(model: WinCLIP) -> dict[str, Any]:
    """The settings that follow from the model."""
    return {"version": winclip.__version__, **model.backbone.fingerprint, "temperature": model.temperature}


def class_settings(class_name: str, prompts: PromptSet) -> dict[str, Any]:
    """The settings that follow from the class."""
    return {"class_name": class_name, "prompts": asdict(prompts)}


def threshold_settings(threshold: Threshold) -> dict[str, Any]:
    """The settings that follow from the threshold."""
    return {
        "threshold": threshold.score,
        "threshold_rule": threshold.rule,
        "pixel_threshold": threshold.pixel,
        "colours": threshold.colours,
    }


def prepare(save: Path, settings: dict[str, Any], resume: bool) -> bool:
    """Take up the journal of an earlier run, or remove that run's files and begin one.

    Args:
        save: the output folder.
        settings: of this run, as JSON gives them back.
        resume: whether to go on from rows that are there.

    Returns:
        Whether to go on behind rows of an earlier run.

    Raises:
        InputError: if the earlier run had other settings, or its files cannot be replaced.
    """
    go_on = resume and (save / JOURNAL).exists()
    if go_on:
        _check_settings(save, settings)
        take_up(save, bool(settings.get("save_masks")))
        remove_file(save / "report.html")
    elif resume:
        _log.info("%s holds no rows to go on from, so the run starts from the beginning", save)
    write_run(save, settings, finished=False)
    if not go_on:
        _remove_files(save)
        begin(save, settings)
    return go_on


def write_run(save: Path, settings: dict[str, Any], finished: bool, **counts: int) -> None:
    """Write run.json."""
    content = {"finished": finished, **counts, "settings": settings}
    write_atomically(save / RUN_FILE, json.dumps(content, indent=2) + "\n")


def _remove_files(save: Path) -> None:
    """Remove the files of an earlier run, and no others; its journal, which names them, is replaced later."""
    for name in _FILES:
        remove_file(save / name)
    if (save / JOURNAL).exists():
        for row in read_rows(save):
            remove_file(save / row.heat_map)
            remove_file(save / mask_name(row.heat_map))


def _check_settings(save: Path, settings: dict[str, Any]) -> None:
    differing = differing_settings(settings_of(save), settings)
    if differing:
        raise InputError(
            f"the rows in {save} were made with another {', '.join(differing)} and cannot be resumed;"
            " use the same options, or another --save_path"
        )


def differing_settings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The names of settings that are not the same; numbers may be rounded otherwise."""
    return [key for key, value in now.items() if not _same(before.get(key), value)]


def _same(before: Any, now: Any) -> bool:
    if isinstance(before, float) and isinstance(now, float):
        # Another number of threads may round differently.
        return math.isclose(before, now, rel_tol=1e-6)
    if isinstance(before, dict) and isinstance(now, dict):
        return before.keys() == now.keys() and all(_same(before[key], value) for key, value in now.items())
    if isinstance(before, list) and isinstance(now, list):
        return len(before) == len(now) and all(_same(one, other) for one, other in zip(before, now))
    return bool(before == now)
