"""Show why a picture has its score: prompts, windows and the nearest of the good examples, on one HTML page.

    winclip explain --class_name "metal nut" --reference good/ part.jpg --save_path out/
    winclip explain --memory nut.safetensors --reference good/ --patch 6,3 part.jpg
    winclip explain --demo

The page is named after the picture, with .html appended. A memory holds no pictures: --reference beside it shows them.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from winclip.prediction.options import STATES, PartOptions, check_part_options
from winclip.support.command_line import log_to_terminal, run_command
from winclip.support.errors import InputError
from winclip.support.options import add_options, option, take_options

if TYPE_CHECKING:
    from PIL import Image

    from winclip.model import WinCLIP

_log = logging.getLogger("winclip")
# Entries of one picture's embeddings differ by less than this, whatever batch or device encoded it.
_SAME_PICTURE = 1e-4


@dataclass(frozen=True, kw_only=True)
class Options(PartOptions):
    """What was asked for."""

    picture: str | None = option("a file", positional=True, nargs="?", metavar="PICTURE")
    patch: str | None = option(
        "the patch to look at, counted from 0,0 (the one with the highest value)", metavar="ROW,COLUMN"
    )
    save_path: Path = option("(results/explained)", Path("results/explained"), metavar="DIR")


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(
        prog="winclip explain",
        description=__doc__,
        epilog=STATES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_options(parser, Options)
    # So that --demo can tell whether a model was named.
    parser.set_defaults(model=None)
    return parser


def parse_options(arguments: Sequence[str]) -> Options:
    """Parse and check what can be checked without the picture or the model.

    Raises:
        InputError: if a value makes no sense.
    """
    values = vars(build_parser().parse_intermixed_args(arguments))
    check_part_options(values, values["picture"] is not None, both=True)
    if values["patch"] is not None and not re.fullmatch(r"\d{1,4},\d{1,4}", values["patch"]):
        raise InputError(f"--patch {values['patch']} is not a patch; give ROW,COLUMN, such as 6,3")
    return take_options(Options, values)


def main(arguments: list[str]) -> int:
    """Explain and return the exit status: 0, or one of ``run_command``."""
    return run_command(lambda: _explain_picture(parse_options(arguments)))


def _explain_picture(options: Options) -> int:
    """Explain as the options say and return 0.

    Raises:
        InputError: if anything given is wrong, or the page cannot be written.
    """
    from PIL import Image

    from winclip.demo.stand_in import caution
    from winclip.explanation import explain
    from winclip.pictures.images import as_image, resized_pixels
    from winclip.pictures.intake import Intake
    from winclip.prediction.references import class_and_prompts, with_sample, without_shared
    from winclip.report.explanation import Subject, place, verdict, write_explanation
    from winclip.support.files import cache_folder
    from winclip.support.names import file_name, printable

    log_to_terminal(_log)
    if options.picture is None:
        options, folder = with_sample(options)
        defective = sorted(path for path in folder.glob("*/000.png") if path.parent.name != "good")
        options = replace(options, picture=str(defective[0]))
    assert options.picture is not None
    intake = Intake(options.model.white)
    picture = as_image(options.picture, intake)
    class_name, prompts = class_and_prompts(options)
    notes: list[str] = []
    paths = without_shared(options.reference, [options.picture], notes)
    model = options.model.load()
    model.set_class(class_name, prompts, cache=cache_folder("text"))
    references: list[tuple[str, Image.Image | None]] = []

    def square(image: Image.Image) -> Image.Image:
        return Image.fromarray(resized_pixels(image, model.backbone.image_size))

    for path in paths:
        try:
            reference = square(as_image(path, intake))
        except InputError as error:
            _log.warning("reference left out: %s", error)
            continue
        model.add_references(reference)
        # Copies are not added.
        if model.reference_count() > len(references):
            references.append((Path(path).name, reference))
    if paths and not references:
        raise InputError(f"none of the {len(paths)} references could be read; the warnings above say why")
    if options.memory is not None:
        references = _of_memory(model, options.memory, references)
    intake.warn()
    shown, threshold = square(picture), model.threshold()
    patch = None
    if options.patch is not None:
        row, column = map(int, options.patch.split(","))
        patch = row, column
    explanation = explain(model, shown, patch)
    backbone = model.backbone
    facts = [
        ("class", class_name),
        ("good examples", str(len(references))),
        ("model", backbone.model),
        ("weights", f"SHA-256 {backbone.weights_sha256[:12]}"),
    ]
    if said := caution(backbone.model, [Path(options.picture).parent]):
        _log.warning(said)
        facts.append(("caution", said))
    name = Path(options.picture).name
    subject = Subject(name, shown, references, threshold, facts, model.temperature)
    page = options.save_path / file_name(name, ".html")
    write_explanation(page, explanation, subject)
    of_references = "" if explanation.reference is None else f", references {explanation.reference:.4g}"
    print(
        f"score {explanation.score:.4g} (text {explanation.probability:.4g}{of_references}):"
        f" {verdict(explanation, threshold)}; {place(explanation.patch)} is looked at"
    )
    print("\n".join([*threshold.lines, *notes]))
    if not references:
        print("no good examples are given, so their nearest patches and windows are left out")
    elif not all(shown for _, shown in references):
        print("pictures of the good examples are not in a memory; --reference beside --memory shows them")
    print(f"written: {printable(str(page))}")
    return 0


def _of_memory(
    model: WinCLIP, memory: Path, given: list[tuple[str, Image.Image | None]]
) -> list[tuple[str, Image.Image | None]]:
    """Load a memory instead of the given pictures; return its references, with those of the pictures that match them.

    Raises:
        InputError: if the memory does not fit.
    """
    pictures = model.encode([image for _, image in given if image]).normalised().cls if given else None
    model.load_memory(memory)
    bank = model._get_class(None).bank
    assert bank is not None
    references: list[tuple[str, Image.Image | None]] = [(f"reference {k + 1}", None) for k in range(len(bank))]
    for number, cls in enumerate(() if pictures is None else pictures):
        distances = (bank.embeddings.cls - cls).abs().amax(dim=1)
        if float(distances.min()) <= _SAME_PICTURE:
            references[int(distances.argmin())] = given[number]
        else:
            _log.warning("%s is not in the memory and is left out", given[number][0])
    return references


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
