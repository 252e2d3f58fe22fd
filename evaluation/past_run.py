"""Reads the output of an earlier run of test.py."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.options import Setting
from winclip.support.errors import InputError
from winclip.support.files import read_json, read_text
from winclip.support.names import from_cell
from winclip.variants import REFERENCE

# By class and path, the label (1 for defective) and the score of an image.
Scores = dict[str, dict[str, tuple[int, float]]]


@dataclass(frozen=True)
class Run:
    """The output of an earlier run.

    Attributes:
        folder: its output folder.
        dataset, data_path, aupro, metrics: its options.
        config: all of its config.json.
        scores: per setting.
        finished: whether it ran to its end.
    """

    folder: Path
    dataset: str
    data_path: Path
    aupro: str
    metrics: str
    config: dict[str, Any]
    scores: dict[Setting, Scores]
    finished: bool

    @property
    def labels(self) -> dict[str, dict[str, int]]:
        """By class and path, the label of each image."""
        scores = next(iter(self.scores.values()))
        return {name: {path: label for path, (label, _) in images.items()} for name, images in scores.items()}

    def settings(self, k_shot: int | None, variant: str | None = None) -> list[Setting]:
        """The settings of a variant and a number of shots, one per seed; either may be None if the run has only one.

        Raises:
            InputError: if there are none, or several.
        """
        of_run = list(dict.fromkeys(setting.variant for setting in self.scores))
        if variant not in of_run and (variant is not None or len(of_run) > 1):
            given = "" if variant is None else f", not {variant}"
            raise InputError(f"{self.folder} has variants {' '.join(of_run)}{given}; say which with --variant A B")
        every = [setting for setting in self.scores if variant in (None, setting.variant)]
        found = [setting for setting in every if k_shot in (None, setting.k_shot)]
        if len({setting.k_shot for setting in found}) != 1:
            has = ", ".join(map(str, sorted({setting.k_shot for setting in self.scores})))
            given = "" if k_shot is None else f", not {k_shot}"
            raise InputError(f"{self.folder} has numbers of shots {has}{given}; say which with --k_shot A B")
        return found


def read_run(folder: Path) -> Run:
    """Read config.json and scores.csv of a run.

    Raises:
        InputError: if one cannot be read, or is not what a run writes.
    """
    content = read_json(folder / "config.json", "run's config")
    try:
        options = {name: content["options"][name] for name in ("dataset", "data_path", "aupro")}
        options["metrics"] = content["options"].get("metrics", "exact")
        if not all(isinstance(value, str) for value in options.values()):
            raise TypeError
        finished = content["finished"] is True
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'config.json'} is not the config of a run; name its output folder") from error
    options["data_path"] = Path(options["data_path"])
    return Run(folder, config=content, scores=_read_scores(folder / "scores.csv"), finished=finished, **options)


def read_rows(path: Path, what: str) -> list[dict[str, str]]:
    """The rows of a CSV file of a run.

    Args:
        path: the file.
        what: what it holds, for messages.

    Raises:
        InputError: if it cannot be read, or is not CSV.
    """
    try:
        return list(csv.DictReader(io.StringIO(read_text(path, what), newline="")))
    except csv.Error as error:
        raise InputError(f"{path} is not a CSV file ({error}); make the run again") from error


def _read_scores(path: Path) -> dict[Setting, Scores]:
    scores: dict[Setting, Scores] = {}
    for number, row in enumerate(read_rows(path, "scores"), start=2):
        try:
            seed = int(row["seed"]) if row["seed"] else None
            setting = Setting(int(row["k_shot"]), seed, from_cell(row.get("variant", REFERENCE.name)))
            label, score = int(row["anomaly"]), float(row["score"])
            name, image = from_cell(row["cls_name"]), from_cell(row["img_path"])
            if label not in (0, 1):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}, line {number}: not a score of a run; make the run again") from error
        scores.setdefault(setting, {}).setdefault(name, {})[image] = label, score
    if not scores:
        raise InputError(f"{path} holds no scores; make the run again")
    return scores
