"""A local page to try WinCLIP: drop pictures, say what they show, see scores, verdicts and heat maps.

winclip app                                      # the demo backbone
winclip app --model ViT-B-16-plus-240            # the real one
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image, ImageOps

from winclip import WinCLIP
from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL
from winclip.demo.sample import CLASSES, draw_pair
from winclip.demo.stand_in import CAUTION
from winclip.pictures.drawing import COLOURS, colour, data_url
from winclip.pictures.images import read_image, resized_pixels
from winclip.pictures.intake import Intake
from winclip.report.page import environment
from winclip.support.command_line import ModelOptions, run_command
from winclip.support.errors import InputError
from winclip.support.names import printable
from winclip.support.options import add_options, take_options
from winclip.thresholds import FALSE_ALARM_RATE, Threshold

# Gradio reads these when it is imported: no usage statistics are sent.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
try:
    import gradio as gr
except ImportError:
    gr = None  # type: ignore[assignment]

INSTALL = "python -m pip install -e '.[app]'"
# Limits of one picture.
MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
# Limits for the pictures to judge, and for the good examples.
MAX_PICTURES = 16
# One request is judged at a time, and one picture of it is decoded at a time.
MAX_WAITING = 32
MAX_THREADS = 4
# How often uploads are checked, and the age at which they are removed.
CLEANING_SECONDS, KEPT_SECONDS = 600, 6 * 3600
SHOWN_SIDE = 960
SAMPLE_EXAMPLES = 8
_FIGURES = ("score", "text_score", "reference_score", "anomalous")
OPACITY = 0.5

EMPTY = '<div class="empty">Verdicts and heat maps appear here.</div>'
SET_OPACITY = "(value) => { document.querySelectorAll('.heat').forEach((heat) => { heat.style.opacity = value }) }"


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``winclip app``; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, ModelOptions)
    parser.set_defaults(model=DEMO_MODEL)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (7860)")
    return parser


def read_upload(path: str, intake: Intake | None = None) -> Image.Image:
    """An uploaded picture as 8-bit RGB, the right way up.

    Raises:
        InputError: if it is not a picture, or exceeds the limits; the message names the file, not its folder.
    """
    return read_image(path, name=Path(path).name, upright=True, max_pixels=MAX_PIXELS, intake=intake)


def judge(
    loaded: WinCLIP,
    pictures: list[str] | None,
    class_name: str,
    examples: list[str] | None,
    opacity: float,
    tell: Callable[[float, str], object] = lambda share, what: None,
) -> str:
    """Score pictures.

    Args:
        loaded: the model; its classes stay as they are.
        pictures: paths of the uploads.
        class_name: what the pictures show.
        examples: paths of good examples; with none the results are zero-shot.
        opacity: opacity of the heat maps, 0 to 1.
        tell: called during the work with the share that is done and the current step.

    Returns:
        Verdicts, and pictures with their heat maps, as HTML; several are sorted by score, the highest first.

    Raises:
        InputError: if there is no picture, there are too many, a good example or the class name is not valid, or no
            picture has a result.
    """
    if not pictures:
        raise InputError("there is no picture yet; drop one, or pick a sample picture")
    paths = examples or []
    for given, what in ((paths, "good examples"), (pictures, "pictures")):
        if len(given) > MAX_PICTURES:
            raise InputError(f"{len(given)} {what} are too many; the limit is {MAX_PICTURES}")
    model, total = WinCLIP(loaded.backbone, variant=loaded.variant), 1 + len(paths) + len(pictures)
    intake = Intake(loaded.intake.white)
    tell(0, "words")
    model.set_class(class_name)
    for number, path in enumerate(paths, 1):
        tell(number / total, f"good example {number} of {len(paths)}")
        # One at a time, so that one large picture is in memory.
        model.add_references(resized_pixels(read_upload(path, intake), model.backbone.image_size))
    count, threshold = model.reference_count(), model.threshold()
    maps: list[npt.NDArray[np.float32]] = []
    if copies := len(paths) - count:
        said = f"{copies} of the {len(paths)} good examples are copies of others and count once"
        threshold = replace(threshold, caution="; ".join(filter(None, (said, threshold.caution))))
    results: list[dict[str, Any]] = []
    failures: list[dict[str, str]] = []
    for number, path in enumerate(pictures, 1):
        tell((len(paths) + number) / total, f"picture {number} of {len(pictures)}")
        try:
            results.append(_judge_one(model, path, intake, threshold, maps))
        except InputError as error:
            failures.append({"name": Path(path).name, "reason": str(error)})
    if not results:
        raise InputError(failures[0]["reason"])
    threshold = replace(threshold, caution="; ".join(filter(None, (threshold.caution, *intake.odd().values()))))
    colours = threshold.colours(min(float(np.median(one)) for one in maps), max(float(one.max()) for one in maps))
    for result, found in zip(results, maps):
        result["heat"] = Markup(data_url(colour(found, *colours)))
    results.sort(key=lambda result: -result["score"])
    content = {
        "threshold": asdict(threshold),
        "pictures": [{name: result[name] for name in ("name", *_FIGURES)} for result in results],
        "failures": failures,
    }
    template = environment().get_template("app.html.jinja")
    return template.render(
        results=results,
        failures=failures,
        meaning=_meaning(class_name, count, threshold),
        threshold=threshold,
        colours=colours,
        opacity=opacity,
        legend=Markup(data_url(Image.fromarray(COLOURS[None]))),
        data=Markup(base64.b64encode(json.dumps(content, indent=2).encode()).decode()),
    )


def _judge_one(
    model: WinCLIP, path: str, intake: Intake, threshold: Threshold, maps: list[npt.NDArray[np.float32]]
) -> dict[str, Any]:
    """What the page shows of a picture, except its map, which is added to the others."""
    image = read_upload(path, intake)
    found = model.predict(image)
    maps.append(found.maps[0])
    references, (anomalous,) = found.reference_scores, threshold.judge(found)
    shown = ImageOps.contain(image, (SHOWN_SIDE, SHOWN_SIDE)) if max(image.size) > SHOWN_SIDE else image
    return {
        "name": printable(Path(path).name),
        "score": float(found.scores[0]),
        "text_score": float(found.text_scores[0]),
        "reference_score": None if references is None else float(references[0]),
        "anomalous": anomalous,
        "photo": Markup(data_url(shown)),
    }


def _meaning(class_name: str, count: int, threshold: Threshold) -> str:
    """What the verdicts mean, with ``count`` good examples."""
    if threshold.unsure:
        halfway = f"as close to the prompts for a damaged {class_name} as to those for a flawless one"
        return f"Ranked, not judged. A text part of 0.5 is {halfway}."
    expected = f"{100 * FALSE_ALARM_RATE:g} of 100 good pictures taken like the {count} good examples"
    return f"Anomalous: {threshold.limits}. About {expected} is expected above."


@dataclass(frozen=True)
class Sample:
    """A sample picture and good examples to go with it."""

    picture: str
    class_name: str
    caption: str
    examples: list[str]


def draw_samples(folder: Path) -> list[Sample]:
    """Draw a good and a defective picture of every sample class, and good examples, into a folder."""

    def save(class_name: str, part: str, index: int, defect: str | None = None) -> str:
        path = folder / f"{class_name}-{part.replace('/', '-')}-{index}.png"
        Image.fromarray(draw_pair(class_name, 0, part, index, defect)[1]).save(path)
        return str(path)

    def samples(class_name: str) -> list[Sample]:
        name, defect = class_name.replace("_", " "), next(iter(CLASSES[class_name][1]))
        examples = [save(class_name, "train/good", index) for index in range(SAMPLE_EXAMPLES)]
        return [
            Sample(save(class_name, part, 0, shown), name, f"{name}, {(shown or 'good').replace('_', ' ')}", examples)
            for part, shown in ((f"test/{defect}", defect), ("test/good", None))
        ]

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return [sample for of_class in pool.map(samples, CLASSES) for sample in of_class]


def _take_uploads(component: gr.components.Component) -> None:
    """Pass the paths of the uploads to the page's function without opening them; refuse anything else."""
    cache = Path(component.GRADIO_CACHE).resolve()

    def paths(uploads: Any) -> list[str]:
        found = [getattr(upload, "image", upload).path for upload in (uploads and uploads.root) or ()]
        # Gradio does not check the path of a gallery entry that is not marked as a file.
        if not all(path and Path(path).resolve().is_relative_to(cache) for path in found):
            raise gr.Error("the page takes only uploads", print_exception=False)
        return found

    # Gradio would open the files itself, explain unreadable ones worse, and leave copies behind.
    component.preprocess = paths  # type: ignore[assignment, method-assign]


def build_page(model: WinCLIP, samples: list[Sample]) -> gr.Blocks:
    """The page."""
    names = {Path(path).name for sample in samples for path in (sample.picture, *sample.examples)}
    is_demo = model.backbone.model == DEMO_MODEL

    def own(paths: list[str]) -> list[str]:
        return [path for path in paths if Path(path).name not in names]

    def begin(pictures: list[str], class_name: str, examples: list[str]) -> tuple[list[str], str, list[str], str]:
        """The user's pictures replace the sample pictures, and nothing of the sample stays."""
        return own(pictures), class_name if own(pictures) == pictures else "", own(examples), EMPTY

    def run(
        pictures: list[str],
        class_name: str,
        examples: list[str],
        opacity: float,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how Gradio wants it
    ) -> str:
        caution = f'<div class="hint">{html.escape(CAUTION)}</div>' if is_demo and own(pictures) else ""
        try:
            return caution + judge(
                model, pictures, class_name, examples, opacity, lambda share, what: progress(share, desc=what)
            )
        except InputError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error

    def pick(with_examples: bool, event: gr.SelectData) -> tuple[list[str], str, list[str] | None]:
        sample = samples[event.index]
        return [sample.picture], sample.class_name, sample.examples if with_examples else None

    # The page opens with a scored example.
    first = samples[0]
    scored = judge(model, [first.picture], first.class_name, first.examples, OPACITY)

    with gr.Blocks(title="WinCLIP", analytics_enabled=False, delete_cache=(CLEANING_SECONDS, KEPT_SECONDS)) as page:
        gr.Markdown("# WinCLIP\nIs there something wrong with this part? Drop pictures, say what they show, and look.")
        if is_demo:
            gr.Markdown(
                "**This is a demonstration.** The small demo backbone was trained on drawn pictures only and works"
                f" on pictures like the samples below. For your own, start the page with `--model {DEFAULT_MODEL}`."
            )
        with gr.Row():
            with gr.Column():
                pictures = gr.Gallery(
                    [first.picture],
                    label=f"Pictures (up to {MAX_PICTURES})",
                    sources=["upload", "clipboard"],
                    interactive=True,
                    columns=3,
                    fit_columns=False,
                    height=280,
                    object_fit="contain",
                    allow_preview=False,
                    buttons=[],
                )
                class_name = gr.Textbox(first.class_name, label="What is it?", placeholder="metal nut", max_lines=1)
                examples = gr.File(
                    first.examples or None,
                    label=f"Good examples (optional, up to {MAX_PICTURES})",
                    file_count="multiple",
                    file_types=["image"],
                    height=160,
                )
                for component in (pictures, examples):
                    _take_uploads(component)
                button = gr.Button("Look for anomalies", variant="primary")
            with gr.Column():
                result = gr.HTML(scored)
                opacity = gr.Slider(0, 1, value=OPACITY, step=0.05, label="Opacity of the heat map")
        with gr.Accordion("Sample pictures", open=True):
            with_examples = gr.Checkbox(value=True, label=f"with {SAMPLE_EXAMPLES} good examples")
            gallery = gr.Gallery(
                [(sample.picture, sample.caption) for sample in samples],
                columns=5,
                allow_preview=False,
                show_label=False,
                buttons=[],
            )
        gr.Markdown(
            f"Limits: {MAX_BYTES // 1_000_000} MB and {MAX_PIXELS // 1_000_000} megapixels a picture; requests are"
            " answered one after the other. Pictures stay on the machine that runs this page and are removed when it"
            f" ends, or after {KEPT_SECONDS // 3600} hours."
        )
        given = [pictures, class_name, examples]
        pictures.upload(begin, given, [*given, result], show_progress="hidden", queue=False)
        pictures.delete(lambda: EMPTY, None, result, show_progress="hidden", queue=False)
        inputs = [*given, opacity]
        button.click(run, inputs, result, api_name="judge", scroll_to_output=True)
        class_name.submit(run, inputs, result, scroll_to_output=True)
        gallery.select(pick, with_examples, given).then(run, inputs, result, scroll_to_output=True)
        opacity.input(None, opacity, js=SET_OPACITY)
    # Events of one function wait for each other, and no request bypasses the queue.
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def main(arguments: list[str]) -> int:
    """Serve the page until a signal comes; returns an exit status of ``run_command``."""
    options = build_parser().parse_args(arguments)
    if gr is None:
        print(f"error: the page needs gradio; install it with: {INSTALL}", file=sys.stderr)
        return 2
    return run_command(lambda: serve(options), "the page is closed")


def serve(options: argparse.Namespace) -> NoReturn:
    """Load the model, and serve the page until KeyboardInterrupt.

    Raises:
        InputError: if the model cannot be loaded, or the address cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="winclip-page-", ignore_cleanup_errors=True) as folder:
        # Where Gradio puts uploads.
        os.environ["GRADIO_TEMP_DIR"] = folder
        model = take_options(ModelOptions, vars(options)).load()
        page = build_page(model, draw_samples(Path(folder)))
        try:
            _, address, _ = page.launch(
                server_name=options.host,
                server_port=options.port,
                quiet=True,
                max_file_size=MAX_BYTES,
                max_threads=MAX_THREADS,
                enable_monitoring=False,
                footer_links=["settings"],
                run_history=False,
                ssr_mode=False,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css_paths=Path(__file__).parent.parent / "report" / "app.css",
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise InputError(f"{error}; another --port or --host may be free") from error
        print(f"The page is at {address}; Ctrl-C stops it.", flush=True)
        # Not block_thread, which ends without a message.
        while True:
            time.sleep(60)
