"""Whether two runs differ: paired bootstrap over the images that both have scored."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from datasets.index import load_index, outside
from datasets.items import Item
from datasets.layout import mask_files
from datasets.samples import read_mask, resize_mask
from evaluation.measuring import Method, measure_pixels
from evaluation.past_run import Run, Scores
from evaluation.results import METRICS, Column, averaged, csv_text, interval_text, with_mean
from evaluation.setting import Setting
from winclip.metrics.bootstrap import (
    RESAMPLES,
    Draws,
    Interval,
    draw,
    interval,
    resampled_image_metrics,
    resampled_pixel_metrics,
    spread,
)
from winclip.metrics.exact import DefectPixels, image_metrics, label_defects
from winclip.metrics.formulas import Float64, UndefinedMetric
from winclip.report.content import Table
from winclip.support.errors import InputError
from winclip.support.files import is_file
from winclip.support.names import cell


@dataclass
class Comparison:
    """What came of two runs.

    Attributes:
        title: what was compared.
        figures: of each run, per class and of their mean, fractions, of the images that both have.
        intervals: of the differences, the second run's figure minus the first's; those that are known.
        notes: what was left out, and why.
    """

    title: str
    figures: tuple[dict[str, Column], dict[str, Column]] = field(default_factory=lambda: ({}, {}))
    intervals: dict[str, dict[str, Interval]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def difference(self, name: str, metric: str) -> float:
        """Of a class, as a fraction."""
        first, second = self.figures
        return second[name][metric] - first[name][metric]

    def table(self) -> Table:
        """Differences with their intervals in per cent; a star where the interval does not hold 0."""
        rows = [[name, *(self._cell(name, metric) for metric in METRICS)] for name in self.figures[0]]
        explained = (
            "Second run minus first, per cent, of the images that both have;"
            f" [low, high]: 95 % interval by paired bootstrap, {RESAMPLES:,} resamples; *: it does not hold 0."
        )
        return Table(self.title, ["objects", *METRICS], rows[:-1], rows[-1], [explained, *self.notes])

    def _cell(self, name: str, metric: str) -> str:
        if metric not in self.figures[0][name]:
            return "-"
        limits = self.intervals[name].get(metric)
        star = "*" if limits is not None and not limits[0] <= 0 <= limits[1] else ""
        return f"{100 * self.difference(name, metric):+.1f}{interval_text(limits, '+')}{star}"

    def csv(self) -> str:
        """comparison.csv: a row for each class and metric, per cent, six decimals."""
        rows = []
        for name, column in self.figures[0].items():
            for metric, first in column.items():
                second, limits = self.figures[1][name][metric], self.intervals[name].get(metric)
                values = [first, second, second - first, *(limits or ())]
                cells = [f"{100 * value:.6f}" for value in values]
                rows.append([cell(name), metric, *cells, *[""] * (5 - len(cells))])
        header = ["objects", "metric", "first", "second", "difference", "difference_low", "difference_high"]
        return csv_text(header, rows)

    def drawing(self) -> str:
        """comparison.svg: the differences that have an interval."""
        from winclip.report.differences import difference_plot

        limits = {(name, metric): both for name, found in self.intervals.items() for metric, both in found.items()}
        differences = {key: (100 * self.difference(*key), 100 * low, 100 * high) for key, (low, high) in limits.items()}
        metrics = [metric for metric in METRICS if any(key[1] == metric for key in differences)]
        return difference_plot(f"{self.title}, per cent", list(self.intervals), metrics or METRICS, differences)


def compare(runs: tuple[Run, Run], k_shots: Sequence[int | None], data_path: Path | None) -> Comparison:
    """Compare two runs, each with a number of shots; several seeds are averaged.

    Args:
        runs: both.
        k_shots: of each; None if it has one number only.
        data_path: where the masks are; None takes that of the first run.

    Raises:
        InputError: if a number of shots is not there, no image is common to both, or one is good in one run
            and defective in the other.
    """
    first, second = (_Side(run, run.settings(k)) for run, k in zip(runs, k_shots))
    result = Comparison(f"{second.title} minus {first.title}", notes=_differing(*runs))
    masks = _Masks(data_path or runs[0].data_path)
    method = Method(runs[0].aupro, runs[0].metrics)
    differences: dict[str, dict[str, Float64]] = {}
    reasons: dict[str, list[str]] = {}
    for name, images, labels in _common(first.scores, second.scores, result.notes):
        try:
            draws = draw(labels, name)
        except UndefinedMetric as error:
            draws = None
            result.notes.append(f"{name}: no intervals, {error}.")
        one, other = (side.measure(name, images, masks, draws, method) for side in (first, second))
        if one.reason or other.reason:
            reasons.setdefault(one.reason or other.reason, []).append(name)
        common = [metric for metric in METRICS if metric in one.figures and metric in other.figures]
        for column, measured in zip(result.figures, (one, other)):
            column[name] = {metric: measured.figures[metric] for metric in common}
        # Equal figures may differ by float rounding, which is no difference; + 0 makes 0 of -0.
        differences[name] = {metric: (other.spreads[metric] - one.spreads[metric]).round(12) + 0 for metric in common}
    for column in result.figures:
        column["mean"] = with_mean(column)["mean"]
    differences["mean"] = averaged(list(differences.values()), any)
    for name, values in differences.items():
        limits = {metric: interval(part) for metric, part in values.items()}
        result.intervals[name] = {metric: both for metric, both in limits.items() if both is not None}
    result.notes += [f"Image metrics only of {', '.join(names)}: {reason}." for reason, names in reasons.items()]
    return result


def _differing(first: Run, second: Run) -> list[str]:
    """What to know of the two before believing in a difference."""
    notes = [f"{run.folder} did not come to its end." for run in (first, second) if not run.finished]
    for name in ("dataset", "data_path", "aupro"):
        one, other = getattr(first, name), getattr(second, name)
        if one != other:
            taken = f", {one} is taken" if name == "aupro" else ""
            notes.append(f"The runs have --{name} {one} and {other}{taken}.")
    return notes


def _common(first: Scores, second: Scores, notes: list[str]) -> Iterator[tuple[str, list[str], npt.NDArray[np.int64]]]:
    """Classes, paths and labels that both have; what only one has is noted."""
    for one, other, which in ((first, second, "first"), (second, first, "second")):
        only = [name for name in one if not one[name].keys() & other.get(name, {}).keys()]
        left = sum(len(one[name].keys() - other[name].keys()) for name in one if name not in only)
        if only:
            notes.append(f"Left out, since only the {which} run has them: {', '.join(only)}.")
        if left:
            notes.append(f"Left out, since only the {which} run has them: {left} images of the other classes.")
        if len(only) == len(one):
            raise InputError("the runs have no image in common; give runs of the same data")
    for name in first:
        images = [image for image in first[name] if image in second.get(name, {})]
        for image in images:
            if first[name][image][0] != second[name][image][0]:
                raise InputError(
                    f"{image} of class {name} is good in one run and defective in the other; give runs of the same data"
                )
        if images:
            yield name, images, np.array([first[name][image][0] for image in images])


@dataclass(frozen=True)
class _Measured:
    """Figures and their values in resamples, each averaged over seeds, and why there are no pixel metrics."""

    figures: Column
    spreads: dict[str, Float64]
    reason: str


@dataclass(frozen=True)
class _Side:
    """A run with the settings of a number of shots."""

    run: Run
    settings: list[Setting]

    @property
    def title(self) -> str:
        return f"{self.run.folder}, {self.settings[0].k_shot}-shot"

    @property
    def scores(self) -> Scores:
        """Of the first seed, those images that every seed has."""
        first, *others = (self.run.scores[setting] for setting in self.settings)
        return {
            name: {image: of_class[image] for image in of_class if all(image in seed.get(name, {}) for seed in others)}
            for name, of_class in first.items()
        }

    def measure(self, name: str, images: list[str], masks: _Masks, draws: Draws | None, method: Method) -> _Measured:
        columns, spreads, reason = [], [], ""
        for setting in self.settings:
            labels, scores = np.array([self.run.scores[setting][name][image] for image in images]).T
            figures, _ = image_metrics(labels, scores)
            values = {} if draws is None else resampled_image_metrics(draws, labels, scores)
            try:
                maps = self._maps(setting, name, images)
                defects = masks.of(name, images, maps.shape[1])
            except InputError as error:
                reason = str(error)
            else:
                ((pixels, _),), _ = measure_pixels(defects, maps.__getitem__, setting, method)
                figures |= pixels
                if draws is not None and pixels:
                    values |= resampled_pixel_metrics(draws, defects, maps.__getitem__, setting.highest, method.aupro)
            columns.append(figures)
            spreads.append(spread(figures, values))
        common = [metric for metric in METRICS if all(metric in column for column in columns)]
        means = {metric: fmean(column[metric] for column in columns) for metric in common}
        return _Measured(means, averaged(spreads, all), reason)

    def _maps(self, setting: Setting, name: str, images: list[str]) -> npt.NDArray[np.float32]:
        """(N, S, S) maps of the images."""
        path = self.run.folder / "maps" / setting.folder / f"{name}.npz"
        if not is_file(path):
            raise InputError(f"{self.run.folder} has no maps of {setting.name}, which --save_maps writes")
        try:
            with np.load(path, allow_pickle=False) as file:
                maps, names = file["maps"], file["img_path"].tolist()
            if maps.ndim != 3 or maps.shape[1] != maps.shape[2]:
                raise ValueError(f"maps of shape {maps.shape}")
            places = {image: number for number, image in enumerate(names)}
            return np.asarray(maps[[places[image] for image in images]], np.float32)
        except (OSError, ValueError, KeyError, IndexError, TypeError, EOFError, BadZipFile, zlib.error) as error:
            raise InputError(f"{path} does not hold the maps of the run's images ({error})") from error


class _Masks:
    """The masks of a data set, where there are any."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._items: dict[str, dict[str, Item]] = {}
        self._reason = ""
        self._latest: tuple[tuple[str, int], DefectPixels] | None = None
        try:
            test = load_index(root).test
            self._items = {name: {item.img_path: item for item in items} for name, items in test.items()}
        except InputError as error:
            self._reason = f"there are no masks, {error}, or give --data_path"

    def of(self, name: str, images: list[str], size: int) -> DefectPixels:
        """The labelled (N, S, S) masks of images; raises InputError if there are none."""
        if self._reason:
            raise InputError(self._reason)
        if self._latest is not None and self._latest[0] == (name, size):  # by the other run, or an earlier seed
            return self._latest[1]
        masks = np.zeros((len(images), size, size), np.bool_)
        for number, image in enumerate(images):
            item = self._items.get(name, {}).get(image)
            if item is None or (item.anomaly and not item.mask_path):
                raise InputError(f"{self._root} has no mask of {image}")
            if item.anomaly:
                if any(outside(self._root, path) for path in mask_files(self._root, item.mask_path)):
                    raise InputError(f"{self._root / item.mask_path} leads out of the data set folder")
                masks[number] = resize_mask(read_mask(self._root / item.mask_path), size)
        defects = label_defects(masks)
        self._latest = (name, size), defects
        return defects
