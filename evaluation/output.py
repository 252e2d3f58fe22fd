"""The output files of a run, including its log."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import winclip
from datasets.items import Item
from evaluation.options import MAPS_FOLDER, Options, read_config
from evaluation.parts import ClassScores, Part
from evaluation.references import refuse_unreadable
from evaluation.results import (
    Results,
    intervals_csv,
    k_shot_csv,
    markdown,
    results_csv,
    scores_csv,
    tables,
    types_csv,
)
from winclip.demo.stand_in import caution
from winclip.made_with import versions
from winclip.model import WinCLIP
from winclip.network.backbone import Backbone
from winclip.scoring import upsample
from winclip.support.command_line import ending, log_to_terminal
from winclip.support.errors import InputError
from winclip.support.files import remove_file, write_atomically
from winclip.support.names import printable
from winclip.support.options import as_json

if TYPE_CHECKING:
    from winclip.report.content import Report, Table

_log = logging.getLogger("winclip")

# The first marks the others as complete.
_FILES = (
    "config.json",
    "results.csv",
    "types.csv",
    "intervals.csv",
    "tables.md",
    "steps.csv",
    "steps.md",
    "scores.csv",
    "k_shot.csv",
    "report.html",
    "log.txt",
)


# Options that config.json omits unless they are given.
_UNNAMED = ("variant", "variant_steps", "image_only")


class _Lines(logging.Handler):
    """Keeps the log, which becomes log.txt."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(printable(self.format(record)) + "\n")


class Output:
    """Writes the files of a run, each complete or absent; its clock and its log start when it is made."""

    def __init__(self, options: Options) -> None:
        self._options = options
        # Read before this run's config replaces it.
        self._before = read_config(options.config) if options.config else None
        self._started = time.monotonic()
        self._begun = False
        self._log = _Lines()
        self._left_out: dict[str, None] = {}
        # How many test images this run has scored, and how many it found scored.
        self.scored: dict[str, Any] = {}

    def log_to_terminal(self) -> None:
        """Show the log in the terminal, and keep it for log.txt."""
        log_to_terminal(logging.getLogger("winclip"), self._log)

    @contextmanager
    def ending_logged(self) -> Iterator[None]:
        """Write the error that ends a run early as the last line of log.txt, unless that is still an earlier run's."""
        try:
            yield
        except BaseException as error:
            self._log.emit(logging.LogRecord("winclip", logging.ERROR, __file__, 0, ending(error), None, None))
            if self._begun or not (self._options.save_path / "log.txt").exists():
                with suppress(InputError):  # as when the disk is full, which the error already says
                    self._write_log()
            raise

    def begin(self) -> None:
        """Remove the files of an earlier run, and no others; from here on the folder holds this run's.

        Raises:
            InputError: if the folder cannot be written to.
        """
        save = self._options.save_path
        for name in _FILES:
            remove_file(save / name)
        for folder in (save / "maps").glob("*"):
            if not MAPS_FOLDER.fullmatch(folder.name):
                continue
            for path in folder.glob("*.npz"):
                remove_file(path)
            with suppress(OSError):  # not empty: others put files there
                folder.rmdir()
        with suppress(OSError):
            (save / "maps").rmdir()
        self._begun = True
        self._write_log()

    def _write_log(self) -> None:
        write_atomically(self._options.save_path / "log.txt", "".join(self._log.lines))

    def leave_out(self, items: list[Item], part: Part) -> None:
        """Log the images of a class that could not be read, and list them in config.json.

        Raises:
            InputError: if there are any, without ``--skip_unreadable``.
        """
        images = {items[position].img_path: reason for position, reason in part.unreadable.items()}
        for path, reason in {**part.unreadable_references, **images}.items():
            if not self._options.skip_unreadable:
                refuse_unreadable(reason)
            _log.warning("left out: %s", reason)
            self._left_out[path] = None

    def write(
        self, model: WinCLIP, words: dict[str, str], results: Results, machine: dict[str, Any], finished: bool
    ) -> None:
        """Write the results so far over those written before.

        Args:
            model: the one that scored.
            words: what prompts call each class.
            results: those so far.
            machine: the one that scored.
            finished: whether these are all results.
        """
        made = {"versions": versions(), "weights_sha256": model.backbone.weights_sha256, "machine": machine}
        if finished and self._before is not None:
            changed = [part for part, now in made.items() if self._before.get(part) != now]
            if changed:
                names = ", ".join(changed)
                _log.warning("%s of this run differ from those in %s, so figures can too", names, self._options.config)
        config = {
            "finished": finished,
            "options": _resolved(self._options, model.backbone, results, finished),
            "class_names": words,
            **made,
            "scored": self.scored,
            "unreadable_images": [*self._left_out],
            "seconds": round(time.monotonic() - self._started, 3),
        }
        for name, content in (
            ("results.csv", results_csv(results)),
            ("types.csv", types_csv(results)),
            *([("intervals.csv", intervals_csv(results))] if self._options.intervals else []),
            ("tables.md", tables_text(self._options, tables(results, self._options.compare))),
            ("scores.csv", scores_csv(results)),
            ("k_shot.csv", k_shot_csv(results)),
            ("config.json", json.dumps(config, indent=2) + "\n"),
        ):
            write_atomically(self._options.save_path / name, content)
        self._write_log()

    def write_steps(self, shown: Sequence[Table], rows: str) -> list[Path]:
        """Write steps.md and steps.csv, and return the path of the first."""
        save = self._options.save_path
        write_atomically(save / "steps.csv", rows)
        write_atomically(save / "steps.md", tables_text(self._options, shown))
        return [save / "steps.md"]

    def write_report(self, report: Report) -> None:
        """Write report.html."""
        from winclip.report.page import write_report

        write_report(self._options.save_path / "report.html", report)

    def write_maps(self, scored: ClassScores, image_size: int) -> None:
        """Write the upsampled maps of a class in every setting."""
        for setting, maps in scored.maps.items():
            buffer = io.BytesIO()
            np.savez(
                buffer,
                maps=upsample(maps, image_size).numpy(),
                img_path=np.array([item.img_path for item in scored.items]),
            )
            folder = self._options.save_path / "maps" / setting.folder
            write_atomically(folder / f"{scored.class_name}.npz", buffer.getvalue())


def _resolved(options: Options, backbone: Backbone, results: Results, finished: bool) -> dict[str, Any]:
    """Every option by name, with the values that were used where none was given, as ``--config`` takes them."""
    named = {name: value for name, value in as_json(options).items() if value or name not in _UNNAMED}
    return {
        **named,
        "k_shot": list(dict.fromkeys(setting.k_shot for setting in results.settings)),
        "seed": None if options.reference_list else options.seed,
        "classes": results.classes if finished else options.classes,
        "pretrained": backbone.pretrained,
        "image_size": backbone.image_size,
        # A rank's own number is no option.
        "device": backbone.device.type if options.model.device == "auto" else options.model.device,
        "precision": backbone.precision,
        "batch_size": options.reading.batch(backbone),
    }


def tables_text(options: Options, shown: Sequence[Table]) -> str:
    """Tables as tables.md has them, with the caution of the demo backbone at the end."""
    said = caution(options.model.model, [options.data_path])
    return markdown(shown) + (f"\nCaution: {said}.\n" if said else "")


def facts(options: Options, model: WinCLIP) -> list[tuple[str, str]]:
    """What the report says about the run."""
    backbone = model.backbone
    said = caution(options.model.model, [options.data_path])
    return [
        *([("caution", said)] if said else []),
        ("model", backbone.model),
        ("weights", f"{backbone.pretrained} (SHA-256 {backbone.weights_sha256[:12]})"),
        ("image size", f"{backbone.image_size} x {backbone.image_size}"),
        ("scales", " ".join(map(str, backbone.scales))),
        *(
            [("variants", " ".join(options.variants))]
            if options.variant or options.variant_steps
            else [("temperature", str(model.temperature)), ("prompts", options.prompt_set)]
        ),
        ("AUPRO", options.aupro),
        ("version", winclip.__version__),
    ]
