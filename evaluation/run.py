"""A run of test.py: list the items, encode them once, score every setting, take the metrics."""

from __future__ import annotations

import io
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm import tqdm

import winclip
from datasets.index import DatasetIndex, Item, check_files, load_index, select_classes
from datasets.mvtec import MVTEC_CLASSES
from datasets.references import draw_references, read_reference_list
from datasets.samples import Mask, iterate, read_mask
from datasets.visa import VISA_CLASSES
from evaluation.options import Options
from evaluation.published import published_table
from evaluation.results import Results, Setting, k_shot_csv, results_csv, scores_csv, tables, tables_markdown
from winclip.backbone import Backbone, load_backbone
from winclip.clip import Embeddings
from winclip.errors import InputError
from winclip.files import write_atomically
from winclip.memory import MemoryBank, associate
from winclip.metrics import DefectPixels, image_metrics, label_defects, pixel_metrics
from winclip.prompts import PromptSet, load_prompt_set
from winclip.scoring import few_shot, few_shot_maps, upsample, zero_shot
from winclip.text import cache_folder, class_embeddings

if TYPE_CHECKING:
    from report import Card, ClassCurves, Report

_log = logging.getLogger("winclip")
_PACKAGES = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "opencv-python-headless")
_PUBLISHED_ORDER = {"mvtec": MVTEC_CLASSES, "visa": VISA_CLASSES}


@dataclass(frozen=True)
class References:
    """The references of a class: every image once, and which of them each setting uses."""

    items: list[Item]
    chosen: dict[Setting, list[int]]


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class's N test images.

    Attributes:
        items: the images.
        masks: (S, S) bool per image, or None where an anomalous image has no mask.
        scores: per setting, (N,) float64.
        maps: per setting, (N, grid, grid) float32; small, so that many settings fit.
    """

    items: list[Item]
    masks: list[Mask | None]
    scores: dict[Setting, npt.NDArray[np.float64]]
    maps: dict[Setting, torch.Tensor]


def run(options: Options) -> str:
    """Evaluate as the options say, write the files, and return the tables.

    What is finished is on disk after every class.

    Raises:
        InputError: if anything given is wrong; classes finished before are kept.
    """
    started = time.monotonic()
    lines = _log_to_memory()
    index = load_index(options.data_path)
    classes = _order(options.dataset, select_classes(index, options.classes))
    k_shots, orders = _reference_orders(options, index, classes)
    seeds: Sequence[int | None] = (None,) if options.reference_list else options.seed
    settings = [Setting(k, seed) for k in k_shots for seed in (seeds if k else (None,))]
    if options.compare:
        for k in k_shots:
            published_table(options.dataset, k)
    prompts = load_prompt_set(options.prompt_set)
    first_draws = [item for by_seed in orders.values() for order in by_seed.values() for item in order[: max(k_shots)]]
    if not options.skip_unreadable:
        check_files(index, classes, first_draws)
    write_atomically(options.save_path / "log.txt", "")
    backbone = load_backbone(
        options.model,
        options.pretrained,
        image_size=options.image_size,
        device=options.device,
        precision=options.precision,
    )
    results = Results(options.dataset, settings)
    pictures = _Pictures(index.root, settings) if options.report else None
    evaluation = _Evaluation(options, backbone, prompts, index, pictures)
    total = sum(len(index.test[name]) for name in classes)
    _log.info("%s: %d classes, %d test images, %s on %s", options.dataset, len(classes), total, *_where(backbone))
    with tqdm(total=total, unit="image", disable=None, dynamic_ncols=True) as progress:
        for number, name in enumerate(classes, start=1):
            progress.set_description(name)
            references = evaluation.choose_references(name, settings, orders[name])
            scored = evaluation.score_class(name, references, progress)
            evaluation.measure_class(name, scored, references, results)
            finished = number == len(classes)
            config = _config(options, backbone, settings, classes[:number], evaluation.skipped, started, finished)
            _write(options, results, config, lines)
    if pictures is not None:
        from report import write_report

        write_report(options.save_path / "report.html", pictures.report(options, backbone, results))
    return tables_markdown(results, options.compare)


class _Evaluation:
    """What stays the same from class to class."""

    def __init__(
        self,
        options: Options,
        backbone: Backbone,
        prompts: PromptSet,
        index: DatasetIndex,
        pictures: _Pictures | None,
    ) -> None:
        self.options = options
        self.backbone = backbone
        self.prompts = prompts
        self.index = index
        self.pictures = pictures
        self.skipped: list[str] = []
        default_workers = 0 if backbone.device.type == "cpu" else 4
        self._reading: dict[str, Any] = {
            "root": index.root,
            "size": backbone.image_size,
            "mean": backbone.mean,
            "std": backbone.std,
            "batch_size": options.batch_size,
            "num_workers": default_workers if options.num_workers is None else options.num_workers,
        }
        self._bank: MemoryBank | None = None

    def choose_references(self, name: str, settings: list[Setting], orders: dict[int | None, list[Item]]) -> References:
        """Take the first k of every order and encode them into the bank.

        An unreadable image is an error or, with ``--skip_unreadable``, passed over in every order.
        """
        unreadable: set[str] = set()
        while True:
            readable = {
                seed: [item for item in order if item.img_path not in unreadable] for seed, order in orders.items()
            }
            wanted: dict[str, Item] = {}
            for setting in settings:
                if setting.k_shot > len(readable.get(setting.seed, ())):
                    raise InputError(f"class {name} has too few readable reference images for {setting.k_shot} shots")
                if setting.k_shot:
                    wanted.update({item.img_path: item for item in readable[setting.seed][: setting.k_shot]})
            encoded, failed = self._encode_references(list(wanted.values()))
            if not failed:
                break
            unreadable.update(failed)
        self._bank = MemoryBank.of(encoded) if encoded else None
        position = {path: number for number, path in enumerate(wanted)}
        chosen = {
            setting: [position[item.img_path] for item in readable[setting.seed][: setting.k_shot]]
            for setting in settings
            if setting.k_shot
        }
        return References(list(wanted.values()), chosen)

    def _encode_references(self, items: list[Item]) -> tuple[Embeddings | None, list[str]]:
        parts, failed = [], []
        for batch in iterate(items, **self._reading) if items else ():
            failed += [self._skip(one.item, one.reason) for one in batch.unreadable]
            if batch.items:
                parts.append(self.backbone.encode(batch.images))
        return (Embeddings.concatenate(parts) if parts else None), failed

    def _skip(self, item: Item, reason: str) -> str:
        if not self.options.skip_unreadable:
            raise InputError(f"{reason}; mend it, or go on without such images with --skip_unreadable")
        _log.warning("left out: %s", reason)
        self.skipped.append(item.img_path)
        return item.img_path

    def score_class(self, name: str, references: References, progress: tqdm[Any]) -> ClassScores:
        """Encode every test image of a class once and score it in all settings."""
        text = class_embeddings(self.backbone, name, self.prompts, None if self.options.no_cache else cache_folder())
        scored = ClassScores([], [], {}, {})
        scores: dict[Setting, list[torch.Tensor]] = {}
        maps: dict[Setting, list[torch.Tensor]] = {}
        for batch in iterate(self.index.test[name], **self._reading):
            for one in batch.unreadable:
                self._skip(one.item, one.reason)
            progress.update(len(batch.items) + len(batch.unreadable))
            if not batch.items:
                continue
            scored.items.extend(batch.items)
            scored.masks.extend(batch.masks)
            for setting, (score, grid_map) in self._score(batch.images, text, references).items():
                scores.setdefault(setting, []).append(score)
                maps.setdefault(setting, []).append(grid_map.float())
        if not scored.items:
            raise InputError(f"class {name} has no readable test image left")
        scored.scores.update({setting: torch.cat(parts).numpy() for setting, parts in scores.items()})
        scored.maps.update({setting: torch.cat(parts) for setting, parts in maps.items()})
        return scored

    @torch.inference_mode()
    def _score(
        self, images: torch.Tensor, text: torch.Tensor, references: References
    ) -> dict[Setting, tuple[torch.Tensor, torch.Tensor]]:
        embeddings, grid = self.backbone.encode(images), self.backbone.grid
        zero = zero_shot(embeddings, text, grid)
        if self._bank is None:
            return {Setting(0, None): zero}
        associations = associate(embeddings, self._bank)
        scored = {Setting(0, None): zero}
        for setting, chosen in references.chosen.items():
            scored[setting] = few_shot(*zero, few_shot_maps(*associations.nearest(chosen), grid))
        return scored

    def measure_class(self, name: str, scored: ClassScores, references: References, results: Results) -> None:
        """Take the metrics of a class in every setting and add them to the results."""
        labels = np.array([item.anomaly for item in scored.items])
        defects = _defects(scored)
        reasons: dict[str, None] = {}
        for setting in results.settings:
            figures, missing = image_metrics(labels, scored.scores[setting])
            maps: npt.NDArray[np.float32] = upsample(scored.maps[setting], self.backbone.image_size).numpy()
            if isinstance(defects, str):
                missing["pixel metrics"] = defects
            else:
                pixel_figures, pixel_missing = pixel_metrics(defects, maps, self.options.aupro)
                figures.update(pixel_figures)
                missing.update(pixel_missing)
            reasons.update(dict.fromkeys(missing.values()))
            results.figures[setting][name] = figures
            self._record(name, setting, scored, references, results)
            if self.pictures is not None:
                pixels = defects if isinstance(defects, str) else (defects, maps)
                self.pictures.add(name, setting, scored, pixels, figures)
            if self.options.save_maps:
                self._save_maps(name, setting, scored.items, maps)
        for reason in reasons:
            _log.warning("%s: a figure is left out, %s", name, reason)

    def _record(
        self, name: str, setting: Setting, scored: ClassScores, references: References, results: Results
    ) -> None:
        seed = setting.seed_text
        for item, score in zip(scored.items, scored.scores[setting]):
            row = (setting.k_shot, seed, name, item.specie_name, item.img_path, item.anomaly, f"{score:.9g}")
            results.scores.append(row)
        for position in references.chosen.get(setting, ()):
            results.references.append((setting.k_shot, seed, name, references.items[position].img_path))

    def _save_maps(self, name: str, setting: Setting, items: list[Item], maps: npt.NDArray[np.float32]) -> None:
        buffer = io.BytesIO()
        np.savez(buffer, maps=maps, img_path=np.array([item.img_path for item in items]))
        write_atomically(self.options.save_path / "maps" / setting.folder / f"{name}.npz", buffer.getvalue())


class _Pictures:
    """What the report needs of a run: curves and grid maps, of the first seed of every number of shots."""

    def __init__(self, root: Path, settings: list[Setting]) -> None:
        first_seeds = {setting.k_shot: setting for setting in reversed(settings)}
        self.settings = [first_seeds[k] for k in sorted(first_seeds)]
        self._root = root
        self._curves: dict[Setting, list[ClassCurves]] = {setting: [] for setting in self.settings}
        self._classes: dict[str, ClassScores] = {}

    def add(
        self,
        name: str,
        setting: Setting,
        scored: ClassScores,
        pixels: tuple[DefectPixels, npt.NDArray[np.float32]] | str,
        figures: dict[str, float],
    ) -> None:
        """Take the curves of a class in a setting and keep its small maps; settings not shown are passed over."""
        from report import measure_class

        if setting not in self._curves:
            return
        labels = [item.anomaly for item in scored.items]
        self._curves[setting].append(measure_class(name, labels, scored.scores[setting], pixels, figures))
        kept = self._classes.setdefault(name, ClassScores(scored.items, [], {}, {}))
        kept.scores[setting], kept.maps[setting] = scored.scores[setting], scored.maps[setting]

    def report(self, options: Options, backbone: Backbone, results: Results) -> Report:
        """The page's content; images and masks are read again when their turn comes."""
        from report import Report, SettingPage, Table

        shown = [
            Table(table.title, table.header, table.rows[:-1], table.rows[-1], table.notes)
            for table in tables(results, options.compare)
        ]
        notes = [
            "Scores at or above the threshold count as defective. The threshold is, for each class, the one with the"
            " best F1 on these very images, so right and wrong are on the optimistic side.",
            "The worst come first: the wrong ones by their distance from the threshold, then the right ones nearest"
            " to it. Heat maps have one colour scale for the whole page, from 0 to 1; higher values are drawn as 1.",
        ]
        if len(results.settings) > len(self.settings):
            notes.append("Curves and pictures are those of the first seed; the tables cover all seeds.")
        weights = f"{backbone.pretrained} (SHA-256 {backbone.weights_sha256[:12]})"
        facts = [
            ("model", backbone.model),
            ("weights", weights),
            ("image size", f"{backbone.image_size} x {backbone.image_size}"),
            ("prompts", options.prompt_set),
            ("AUPRO", options.aupro),
            ("version", winclip.__version__),
        ]
        pages = [SettingPage(setting.name, self._curves[setting]) for setting in self.settings]
        return Report(f"WinCLIP on {options.dataset}", pages, self._cards(), facts, shown, notes)

    def _cards(self) -> Iterator[Card]:
        from report import Card, Result

        for number, (name, scored) in enumerate(self._classes.items()):
            thresholds = {setting: self._curves[setting][number].threshold for setting in self.settings}
            for position, item in enumerate(scored.items):
                outcomes = [
                    Result(
                        float(scored.scores[setting][position]),
                        thresholds[setting],
                        scored.maps[setting][position].numpy(),
                    )
                    for setting in self.settings
                ]
                mask = read_mask(self._root / item.mask_path) if item.anomaly and item.mask_path else None
                image = self._root / item.img_path
                yield Card(item.img_path, image, name, item.specie_name, item.anomaly, mask, outcomes)


def _defects(scored: ClassScores) -> DefectPixels | str:
    """The labelled masks of a class, or why there are none."""
    without = sum(mask is None for mask in scored.masks)
    if without:
        return f"{without} of {len(scored.masks)} test images are anomalous and have no mask"
    return label_defects(np.stack([mask for mask in scored.masks if mask is not None]))


def _order(dataset: str, classes: list[str]) -> list[str]:
    """Classes in the published order; others behind them in their own."""
    published = _PUBLISHED_ORDER.get(dataset, ())
    return [name for name in published if name in classes] + [name for name in classes if name not in published]


def _reference_orders(
    options: Options, index: DatasetIndex, classes: list[str]
) -> tuple[tuple[int, ...], dict[str, dict[int | None, list[Item]]]]:
    """The numbers of shots, and per class and seed the train images in the order they are taken."""
    if options.reference_list is None:
        k_shots = options.k_shot or (0,)
        orders: dict[str, dict[int | None, list[Item]]] = {}
        for name in classes:
            train = index.train.get(name, [])
            for seed in options.seed:
                draw_references(train, name, max(k_shots), seed)
            orders[name] = {seed: draw_references(train, name, len(train), seed) for seed in options.seed}
        return k_shots, orders
    listed = read_reference_list(options.reference_list, index, classes)
    fewest = min(classes, key=lambda name: len(listed[name]))
    if options.k_shot is None and len({len(items) for items in listed.values()}) > 1:
        raise InputError(
            f"{options.reference_list} lists {len(listed[fewest])} images of class {fewest} and more of others;"
            " say with --k_shot how many of each to use"
        )
    k_shots = options.k_shot or (len(listed[fewest]),)
    if max(k_shots) > len(listed[fewest]):
        raise InputError(
            f"--k_shot {max(k_shots)}: {options.reference_list} lists {len(listed[fewest])} images of class {fewest};"
            " list more or ask for fewer"
        )
    return k_shots, {name: {None: items} for name, items in listed.items()}


def _where(backbone: Backbone) -> tuple[str, str]:
    return f"{backbone.model} ({backbone.pretrained})", f"{backbone.device} in {str(backbone.dtype).split('.')[-1]}"


def _log_to_memory() -> list[str]:
    """Send the log to the terminal and to a list that becomes log.txt."""
    lines: list[str] = []

    class ToList(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))
            tqdm.write(f"{record.levelname.lower()}: {record.getMessage()}", file=sys.stderr)

    handler = ToList()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    _log.handlers[:] = [handler]
    _log.setLevel(logging.INFO)
    _log.propagate = False
    return lines


def _config(
    options: Options,
    backbone: Backbone,
    settings: list[Setting],
    classes: list[str],
    skipped: list[str],
    started: float,
    finished: bool,
) -> dict[str, Any]:
    resolved = {key: str(value) if isinstance(value, Path) else value for key, value in asdict(options).items()}
    resolved |= {
        "k_shot": sorted({setting.k_shot for setting in settings}),
        "classes": classes,
        "pretrained": backbone.pretrained,
        "image_size": backbone.image_size,
        "device": str(backbone.device),
        "precision": str(backbone.dtype).split(".")[-1],
    }
    versions = {"python": platform.python_version(), "winclip": winclip.__version__}
    for package in _PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed as a package"
    return {
        "finished": finished,
        "options": resolved,
        "versions": versions,
        "weights_sha256": backbone.weights_sha256,
        "machine": {
            "processor": platform.machine(),
            "cpus": os.cpu_count(),
            "torch_threads": torch.get_num_threads(),
            "gpu": torch.cuda.get_device_name(backbone.device) if backbone.device.type == "cuda" else None,
        },
        "unreadable_images": skipped,
        "seconds": round(time.monotonic() - started, 3),
    }


def _write(options: Options, results: Results, config: dict[str, Any], lines: list[str]) -> None:
    for name, content in (
        ("results.csv", results_csv(results)),
        ("tables.md", tables_markdown(results, options.compare)),
        ("scores.csv", scores_csv(results)),
        ("k_shot.csv", k_shot_csv(results)),
        ("config.json", json.dumps(config, indent=2) + "\n"),
        ("log.txt", "".join(f"{line}\n" for line in lines)),
    ):
        write_atomically(options.save_path / name, content)
    # That of an earlier run shows other figures; this run's is made at the end.
    (options.save_path / "report.html").unlink(missing_ok=True)
