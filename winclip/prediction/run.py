"""A run of predict: list the pictures, find the threshold, then score, draw and write one by one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from winclip.demo.stand_in import caution_of_stand_in
from winclip.made_with import made_with
from winclip.pictures.drawing import encoded, heat_map, mask_image, packed_map, unpacked_map, with_legend
from winclip.pictures.images import read_image
from winclip.pictures.intake import Intake
from winclip.pictures.reading import BatchReader
from winclip.prediction.judging import about_known_defects, about_references, about_results
from winclip.prediction.options import Options
from winclip.prediction.pictures import (
    Region,
    Watch,
    about_files,
    common_folder,
    heat_map_name,
    in_own_size,
    list_pictures,
    map_name,
    mask_name,
    read_region,
)
from winclip.prediction.references import add_references, class_and_prompts, with_sample, without_shared
from winclip.prediction.rows import Journal, describe, prepare, write_run, write_tables
from winclip.prediction.scoring import Outcome, Tiles, Whole
from winclip.support.command_line import log_to_terminal
from winclip.support.errors import InputError
from winclip.support.files import cache_folder, is_file, lock_folder, remove_file, write_atomically
from winclip.support.names import counted, printable
from winclip.thresholds import LeftOut, Threshold, fallback_threshold, from_leave_one_out

_log = logging.getLogger("winclip")
# Number of rows printed at the end of a run.
_HIGHEST = 5


def run(options: Options) -> int:
    """Score the pictures and write the files.

    Returns:
        The exit status, which is 0.

    Raises:
        InputError: if anything given is wrong, no picture can be read, or the output cannot be written;
            existing rows are kept.
    """
    log_to_terminal(_log)
    if options.demo and not options.inputs:
        options, folder = with_sample(options, not options.image_only)
        options = replace(options, inputs=(str(folder),))
    region = None if options.region is None else read_region(options.region)
    with lock_folder(options.save_path):
        return _predict(options, region)


def _predict(options: Options, region: Region | None) -> int:
    watch = Watch(options.inputs) if options.watch else None
    listed: list[str] = []
    pictures = list_pictures(options.inputs, listed) if watch is None else watch.pictures()
    folder = common_folder(options.inputs)
    caution_of_stand_in(options.model.model, {Path(path).parent for path in pictures})
    references = without_shared(options.reference, pictures, listed)
    class_name, prompts = class_and_prompts(options)
    model = options.model.load(image_only=options.image_only)
    side = None
    if options.tile:
        side = model.backbone.image_size if options.tile_size is None else options.tile_size
    reading, size = options.reading, model.backbone.image_size
    with BatchReader(size, reading.batch(model.backbone), reading.num_workers, model.prepared) as reader:
        scorer = Whole(model, reader, region) if side is None else Tiles(model, reader, region, side)
        model.set_class(class_name, prompts, cache=cache_folder("text"))
        scorer.announce(references, pictures)
        checksums = add_references(model, references, scorer, options)
        left_out = scorer.left_out()
        found = fallback_threshold(len(scorer.names)) if left_out is None else from_leave_one_out(left_out)
        threshold = found.with_given(*options.given)
        count = counted(len(pictures), "picture")
        named = ", ".join([options.model.model, *model.named_variant.values()])
        _log.info("%s: %s, %s on %s", class_name, count, named, model.backbone.device)
        notes = listed + about_references(scorer.names, left_out, threshold)
        if options.known_defects:
            defects = list_pictures(options.known_defects, notes, "known defects")
            notes += about_known_defects(scorer, defects, threshold, left_out, options.find)
        _log.info("%s", threshold.lines[0])
        if threshold.caution:
            _log.warning("%s", threshold.caution)
        settings = made_with(
            model.backbone,
            model.temperature,
            white=model.intake.white,
            class_name=class_name,
            prompts=asdict(prompts),
            references=checksums,
            threshold=asdict(threshold),
            save_masks=options.save_masks,
            region=None if region is None else region.identity,
            tile_size=side,
            folder=folder,
            **model.named_variant,
            **({"image_only": True} if options.image_only else {}),
        )
        known = threshold.colours() if options.watch else None
        go_on, colours = prepare(options.save_path, settings, options.resume, known)
        with Journal(options.save_path) as journal:
            output = _Output(options, model.intake, journal, threshold, folder, region, settings, colours)
            left = output.left(pictures)
            if go_on:
                _log.info("%s done already, %d left", counted(len(journal.rows), "picture"), len(left))
            stop = None
            if watch is None:
                _score_all(left, scorer, output)
            else:
                stop = _score_as_they_come(watch, scorer, output)
                notes += about_files(watch.aside, "pictures")
    _finish(options, output, left_out, notes)
    if stop is not None:
        raise type(stop)(output.how_to_go_on()) from stop
    return 0


@dataclass
class _Output:
    """Where results are written.

    Attributes:
        options: options of the run.
        intake: intake of the pictures.
        journal: journal of the rows.
        threshold: the decision threshold.
        folder: names in the output are relative to it.
        region: the part of the pictures that counts; None for all.
        settings: settings of run.json.
        colours: map values of the coldest and the hottest colour; None until all pictures are scored.
        paths: paths of the pictures, by their heat maps.
        failures: by path, why a picture could not be read.
    """

    options: Options
    intake: Intake
    journal: Journal
    threshold: Threshold
    folder: str
    region: Region | None
    settings: dict[str, Any]
    colours: tuple[float, float] | None
    paths: dict[str, str] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def left(self, paths: Iterable[str]) -> list[str]:
        """The pictures without a row; unreadable ones do not count as failures any more."""
        named = {heat_map_name(path, self.folder): path for path in paths}
        self.paths |= named
        left = [path for name, path in named.items() if name not in self.journal.rows]
        for path in left:
            self.failures.pop(Path(path).as_posix(), None)
        return left

    def add(self, path: str, outcome: Outcome) -> None:
        """Write a picture's result, and its heat map once the colours are known; a picture without a result is skipped.

        Raises:
            InputError: if a file cannot be written.
        """
        name, threshold, save = heat_map_name(path, self.folder), self.threshold, self.options.save_path
        try:
            if isinstance(outcome, str):
                raise InputError(outcome)
            found, size = outcome
            own_map = None if self.options.image_only else in_own_size(found.maps[0], size, self.region)
            row = describe(path, found, own_map, threshold, self.region, name)
            files = {} if own_map is None else {map_name(name): packed_map(found.maps[0])}
            if self.options.save_masks and own_map is not None:
                files[mask_name(name)] = encoded(mask_image(own_map, threshold.pixel), "PNG")
        except InputError as error:
            self._pass_over(path, error)
            return
        for kept, content in files.items():
            write_atomically(save / kept, content)
        if self.colours is not None and files and not self._draw(path, name):
            return
        self.journal.append(row)
        if self.options.watch:
            print(row.as_line(), flush=True)

    def draw_all(self) -> None:
        """Draw the missing heat maps; a picture that cannot be read any more loses its row.

        Their common colour scale comes from all rows, unless an earlier run has drawn heat maps with one.

        Raises:
            InputError: if a file cannot be written.
        """
        rows, save = self.journal.rows, self.options.save_path
        if self.colours is None and rows and not self.options.image_only:
            lowest = min(row.map_median for row in rows.values())
            self.colours = self.threshold.colours(lowest, max(row.map_highest for row in rows.values()))
        write_run(save, self.settings, finished=False, colours=self.colours)
        left = [name for name in rows if is_file(save / map_name(name))]
        for name in tqdm(left, unit="heat map", disable=self.options.watch or None, dynamic_ncols=True):
            if not self._draw(self.paths.get(name, rows[name].path), name):
                del rows[name]
        for folder in sorted((save / "maps").glob("**/"), reverse=True):
            with contextlib.suppress(OSError):  # it is not empty
                folder.rmdir()

    def _draw(self, path: str, name: str) -> bool:
        """Draw a heat map from the kept map and remove the map; returns whether the picture could be read.

        Raises:
            InputError: if the heat map cannot be written.
        """
        assert self.colours is not None
        kept = self.options.save_path / map_name(name)
        try:
            # Read again, because a batch of large pictures would take gigabytes; it may have changed since.
            picture = read_image(path, upright=True, intake=self.intake)
            own_map = in_own_size(unpacked_map(kept), picture.size, self.region)
            drawn = with_legend(heat_map(picture, own_map, self.colours), self.colours, self.threshold.pixel)
            content = encoded(drawn, "JPEG", quality=90)
        except InputError as error:
            self._pass_over(path, error)
            remove_file(kept)
            return False
        write_atomically(self.options.save_path / name, content)
        remove_file(kept)
        return True

    def _pass_over(self, path: str, error: InputError) -> None:
        _log.warning("passed over: %s", error)
        self.failures[Path(path).as_posix()] = str(error)

    def write_tables(self) -> None:
        """Write the tables of the present rows."""
        write_tables(self.options.save_path, self.journal.rows.values(), self.failures.items())

    def how_to_go_on(self, of_all: str = "") -> str:
        """The message where a run ends early."""
        done = len(self.journal.rows)
        more = "" if self.options.watch else " and then draws the heat maps"
        return f"{done}{of_all} pictures are scored; the same command with --resume continues after them{more}"


def _score_all(left: Sequence[str], scorer: Whole, output: _Output) -> None:
    """Score the pictures; if that ends early, save the tables and say how to continue."""
    total, hidden = len(output.journal.rows) + len(left), output.options.watch or None
    try:
        with tqdm(total=len(left), unit="picture", disable=hidden, dynamic_ncols=True) as progress:
            for batch in scorer.outcomes(left):
                for path, outcome in batch:
                    output.add(path, outcome)
                    progress.update()
        output.intake.warn()
        output.draw_all()
    except (KeyboardInterrupt, InputError) as error:
        with contextlib.suppress(InputError):  # the journal has all rows
            output.write_tables()
        done = output.how_to_go_on(f" of {total}")
        raise type(error)(f"{error}; {done}" if isinstance(error, InputError) else done) from error


def _score_as_they_come(watch: Watch, scorer: Whole, output: _Output) -> KeyboardInterrupt:
    """Score pictures when they are complete, and rewrite the tables after each look that found any.

    Returns:
        The signal that came while there was nothing to score.

    Raises:
        InputError: if a watched folder disappears or a file cannot be written; tells how many are done.
    """
    _log.info("watching for pictures; Ctrl-C ends it")
    while True:
        try:
            complete = watch.complete()
        except InputError as error:
            raise InputError(f"{error}; {output.how_to_go_on()}") from error
        left = output.left(complete)
        if left:
            _score_all(left, scorer, output)
            output.write_tables()
        try:
            watch.pause()
        except KeyboardInterrupt as stop:
            return stop


def _finish(options: Options, output: _Output, left_out: LeftOut | None, notes: Sequence[str]) -> None:
    """Write the tables, run.json and the report, and print the summary of a run."""
    save, threshold, unreadable = options.save_path, output.threshold, len(output.failures)
    rows = sorted(output.journal.rows.values(), key=lambda row: row.score, reverse=True)
    output.write_tables()
    anomalous = sum(bool(row.anomalous) for row in rows) if threshold.judges else None
    counts = {"scored": len(rows), "anomalous": anomalous, "unreadable": unreadable}
    write_run(save, output.settings, finished=True, **counts, colours=output.colours, notes=notes)
    if not rows and not options.watch:
        none = f"none of the {counted(unreadable, 'picture')} could be read"
        raise InputError(f"{none}; {save / 'failures.csv'} says why")
    page = save / "report.html" if options.report and rows else None
    if page is not None:
        from winclip.prediction.report import report_predictions

        assert output.colours is not None
        report_predictions(page, rows, output.settings, threshold, left_out, output.colours, unreadable, notes)
    passed_over = f"; {unreadable} passed over (failures.csv says why)" if unreadable else ""
    verdicts = "ranked, not judged" if anomalous is None else f"{len(rows) - anomalous} good, {anomalous} anomalous"
    lines = [f"{counted(len(rows), 'picture')}: {verdicts}{passed_over}", *threshold.lines, *notes]
    if rows:
        lines += [*about_results(rows, threshold), "highest scores:"]
        lines += [f"  {row.as_line()}" for row in rows[:_HIGHEST]]
    result = f"heat maps: {save / 'heatmaps'}" if page is None else f"report: {page}"
    if options.image_only:
        result = f"scores: {save / 'predictions.csv'}"
    print("\n".join([*lines, printable(result)]), flush=True)
    if page is not None and options.open:
        from winclip.prediction.report import open_report

        open_report(page)
