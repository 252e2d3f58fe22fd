"""A local page to try WinCLIP: drop a picture, say what it shows, see score, verdict and heat map.

python app.py                                    # the demo backbone
python app.py --model ViT-B-16-plus-240          # the real one
"""

from __future__ import annotations

import argparse
import contextlib
import html
import logging
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from demo.sample import CLASSES, draw_pair
from winclip import WinCLIP
from winclip.command_line import add_model_options, exit_status, model_options
from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL
from winclip.drawing import COLOURS, colour, data_url
from winclip.errors import InputError
from winclip.images import read_image, resized_pixels
from winclip.thresholds import Threshold

# Read by Gradio when it is imported: nothing is reported home.
os.environ.update(GRADIO_ANALYTICS_ENABLED="False", HF_HUB_DISABLE_TELEMETRY="1")
try:
    import gradio as gr
except ImportError:
    gr = None  # type: ignore[assignment]

_log = logging.getLogger("winclip")

INSTALL = "python -m pip install -e '.[app]'"
# Of a picture, and of a request.
MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000
MAX_EXAMPLES = 16
MAX_NAME = 200
MAX_SECONDS = 120
MAX_FIELDS_BYTES = 1_000_000
# Of all requests together. One is judged at a time, and of its pictures one is decoded at a time.
MAX_WAITING = 32
MAX_KEPT_BYTES = 2_000_000_000
SHOWN_SIDE = 960
SAMPLE_EXAMPLES = 8


EMPTY = '<div class="empty">Verdict and heat map appear here.</div>'
CSS = """
.empty { padding: 4em 1em; text-align: center; opacity: 0.6 }
.stack { position: relative; width: min(100%, 30em); margin: auto; line-height: 0 }
.stack img { display: block; width: 100%; border-radius: 8px }
.stack .heat { position: absolute; inset: 0; height: 100% }
.legend { display: flex; gap: 0.6em; align-items: center; justify-content: center; margin-top: 0.6em }
.legend img { width: 12em; height: 0.8em; border-radius: 4px }
.verdict { font-size: 1.4em; font-weight: 600 }
.verdict::before {
  content: ""; display: inline-block; width: 0.7em; height: 0.7em; border-radius: 50%; margin-right: 0.4em
}
.good::before { background: #16a34a }
.anomalous::before { background: #dc2626 }
"""
SET_OPACITY = "(value) => { document.querySelectorAll('.heat').forEach((heat) => { heat.style.opacity = value }) }"


def build_parser() -> argparse.ArgumentParser:
    """The parser of app.py; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_model_options(parser, DEMO_MODEL)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, default=7860, help="port to listen on (7860)")
    parser.add_argument("--share", action="store_true", help="publish the page through gradio.live (no)")
    return parser


def read_upload(path: str) -> Image.Image:
    """An uploaded picture as 8-bit RGB, the right way up.

    Raises:
        InputError: if it is no picture, or larger than the limits; names the file, not its folder.
    """
    name = Path(path).name
    if Path(path).stat().st_size > MAX_BYTES:
        raise InputError(f"{name} has more than {MAX_BYTES // 1_000_000} MB, the limit; save it smaller")
    try:
        return read_image(path, upright=True, max_pixels=MAX_PIXELS)
    except InputError as error:
        raise InputError(str(error).replace(path, name)) from error


class Limits:
    """Between server and page: refuses requests that are too large, and uploads while the page holds enough of them.

    Args:
        application: the page, called by the ASGI convention.
        folder: where uploads are kept.
    """

    def __init__(self, application: Callable[..., Any], folder: Path) -> None:
        self._application = application
        self._folder = folder
        self._coming = 0

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer a request."""
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http" or scope["method"] != "POST":
            await self._application(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await PlainTextResponse(refusal[1], refusal[0])(scope, receive, send)
            return
        # An upload counts from its beginning, and twice while it is written.
        length = int(dict(scope["headers"])[b"content-length"]) if scope["path"].endswith("/upload") else 0
        self._coming += length
        try:
            await self._application(scope, receive, send)
        finally:
            self._coming -= length
            if length and not self._coming:
                self._remove_broken()

    def _remove_broken(self) -> None:
        """Remove what is left of uploads that were broken off; nobody knows those files."""
        for path in self._folder.glob("tmp*"):
            with contextlib.suppress(OSError):
                path.unlink()

    def _refusal(self, scope: dict[str, Any]) -> tuple[int, str] | None:
        """HTTP status and reason, or None where the request is taken."""
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"")
        # Parts of a chunked body have lengths of their own, which go before that of the whole.
        if b"transfer-encoding" in headers or not length.isdigit():
            return 411, "the length of the request is missing"
        upload = scope["path"].endswith("/upload")
        # Every file has a few lines of its own around it.
        limit = MAX_EXAMPLES * MAX_BYTES + MAX_FIELDS_BYTES if upload else MAX_FIELDS_BYTES
        if int(length) > limit:
            return 413, f"the request has more than {limit:,} bytes, the limit"
        if upload and int(length) + self._coming + self._kept() > MAX_KEPT_BYTES:
            return 503, "the page holds as many pictures as it can; try again later"
        return None

    def _kept(self) -> int:
        total = 0
        for path in self._folder.rglob("*"):
            # It can be gone by now.
            with contextlib.suppress(OSError):
                total += path.stat().st_size
        return total


class SessionFiles:
    """The files that each open page has uploaded, so that they go when the page is closed.

    A file is kept by the hash of its content, so two pages can hold the same one. ``own`` are files of
    the page itself, which stay.
    """

    def __init__(self, own: set[str] | None = None) -> None:
        self._own = set(map(Path, own or ()))
        self._files: dict[str, set[Path]] = {}
        self._lock = threading.Lock()

    def add(self, session: str, paths: list[str]) -> None:
        """Note files of a session."""
        with self._lock:
            self._files.setdefault(session, set()).update({*map(Path, paths)} - self._own)

    def forget(self, session: str) -> None:
        """Remove the files of a session that no other session holds."""
        with self._lock:
            gone = self._files.pop(session, set())
            for path in gone.difference(*self._files.values()):
                path.unlink(missing_ok=True)
                # Gradio gives every file a folder.
                with contextlib.suppress(OSError):
                    path.parent.rmdir()


def judge(
    loaded: WinCLIP, picture: str | None, class_name: str, examples: list[str] | None, opacity: float
) -> tuple[str, str]:
    """Score a picture.

    Args:
        loaded: the model; its classes stay as they are.
        picture: path of the upload.
        class_name: what it shows.
        examples: paths of good examples; with none the result is zero-shot.
        opacity: of the heat map, 0 to 1.

    Returns:
        The verdict, and picture with heat map, as HTML.

    Raises:
        InputError: if there is no picture, too many examples, one of them or the class name does not work, or all
            of it takes too long.
    """
    if picture is None:
        raise InputError("there is no picture yet; drop one, or pick a sample picture")
    paths = examples or []
    if len(paths) > MAX_EXAMPLES:
        raise InputError(f"{len(paths)} good examples are too many; the limit is {MAX_EXAMPLES}")
    if len(class_name) > MAX_NAME:
        raise InputError(f"the class name is too long: {len(class_name)} characters; the limit is {MAX_NAME}")
    started, size = time.monotonic(), loaded.backbone.image_size
    model = WinCLIP(loaded.backbone, loaded.temperature)
    model.set_class(class_name)
    for path in paths:
        # One after the other, so that one large picture is in memory at a time.
        model.add_references(resized_pixels(read_upload(path), size))
        if time.monotonic() - started > MAX_SECONDS:
            raise InputError(f"this takes more than {MAX_SECONDS} seconds, the limit; use fewer or smaller pictures")
    image = read_upload(picture)
    threshold, found = model.threshold(), model.predict(image)
    if copies := len(paths) - model.reference_count():
        said = f"{copies} of the {len(paths)} good examples are copies of others and count once"
        threshold = replace(threshold, caution="; ".join(filter(None, (said, threshold.caution))))
    return verdict_html(float(found.scores[0]), threshold), overlay_html(image, found.maps[0], threshold, opacity)


def verdict_html(score: float, threshold: Threshold) -> str:
    """Score, verdict, and what it rests on."""
    anomalous = score > threshold.score
    why = [f"threshold {threshold.score:.3f} ({threshold.rule})"]
    if threshold.caution:
        why.append(threshold.caution)
    return (
        f'<div class="verdict {"anomalous" if anomalous else "good"}">{"anomalous" if anomalous else "looks good"},'
        f" score {score:.3f}</div>" + "".join(f"<div>{html.escape(line)}</div>" for line in why)
    )


def overlay_html(image: Image.Image, anomaly_map: npt.NDArray[np.float32], threshold: Threshold, opacity: float) -> str:
    """The picture under its heat map (S, S), and the legend."""
    low, high = threshold.colours
    shown = ImageOps.contain(image, (SHOWN_SIDE, SHOWN_SIDE)) if max(image.size) > SHOWN_SIDE else image
    heat, legend = colour(anomaly_map, low, high), Image.fromarray(COLOURS[None])
    return (
        f'<div class="stack"><img alt="the picture" src="{data_url(shown)}">'
        f'<img alt="its heat map" class="heat" style="opacity: {opacity:g}" src="{data_url(heat)}"></div>'
        f'<div class="legend">{low:.2f}<img alt="the colours" src="{data_url(legend)}">{high:.2f}</div>'
    )


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

    samples = []
    for class_name, (_, defects) in CLASSES.items():
        name, defect = class_name.replace("_", " "), next(iter(defects))
        examples = [save(class_name, "train/good", index) for index in range(SAMPLE_EXAMPLES)]
        for part, shown in ((f"test/{defect}", defect), ("test/good", None)):
            picture = save(class_name, part, 0, shown)
            samples.append(Sample(picture, name, f"{name}, {(shown or 'good').replace('_', ' ')}", examples))
    return samples


def _path(upload: Any) -> Any:
    """Where Gradio put an upload, or None."""
    return upload and upload.path


def _paths(uploads: Any) -> Any:
    """Where Gradio put several uploads, or None."""
    return uploads and [upload.path for upload in uploads.root]


def _fetch_nothing(component: gr.components.Component) -> None:
    """Gradio would fetch a picture from an address in place of an upload."""
    move = component.async_move_resource_to_block_cache

    async def move_upload(path: str | Path | None) -> str | None:
        if str(path).startswith(("http://", "https://")):
            raise gr.Error("the page fetches no addresses; upload the picture", print_exception=False)
        return await move(path)

    component.async_move_resource_to_block_cache = move_upload  # type: ignore[assignment, method-assign]


def build_page(model: WinCLIP, samples: list[Sample]) -> gr.Blocks:
    """The page."""

    def remember(paths: str | list[str] | None, request: gr.Request) -> None:
        files.add(str(request.session_hash), [paths] if isinstance(paths, str) else paths or [])

    def forget(request: gr.Request) -> None:
        files.forget(str(request.session_hash))

    def run(picture: str | None, class_name: str, examples: list[str] | None, opacity: float) -> tuple[str, str]:
        try:
            return judge(model, picture, class_name, examples, opacity)
        except InputError as error:
            raise gr.Error(html.escape(str(error)), duration=None, print_exception=False) from error
        except Exception as error:
            # It can name anything, so it is for the log.
            _log.exception("a picture could not be judged")
            reason = "the picture could not be judged; the log of the page says why"
            raise gr.Error(reason, duration=None, print_exception=False) from error

    def pick(with_examples: bool, event: gr.SelectData) -> tuple[str, str, list[str] | None]:
        sample = samples[event.index]
        return sample.picture, sample.class_name, sample.examples if with_examples else None

    with gr.Blocks(title="WinCLIP", analytics_enabled=False, delete_cache=(600, 6 * 3600)) as page:
        gr.Markdown("# WinCLIP\nIs there something wrong with this part? Drop a picture, say what it shows, and look.")
        if model.backbone.model == DEMO_MODEL:
            gr.Markdown(
                "**This is a demonstration.** The small demo backbone has learned from drawn pictures alone and works"
                f" on pictures like the samples below. For your own, start the page with `--model {DEFAULT_MODEL}`."
            )
        with gr.Row():
            with gr.Column():
                picture = gr.Image(type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Picture")
                # Gradio would open the file itself, and say less about one that it cannot read.
                picture.preprocess = _path  # type: ignore[assignment, method-assign]
                class_name = gr.Textbox(label="What is it?", placeholder="metal nut", max_lines=1)
                examples = gr.File(
                    label=f"Good examples (optional, up to {MAX_EXAMPLES})", file_count="multiple", file_types=["image"]
                )
                # Gradio would leave an empty file behind for each.
                examples.preprocess = _paths  # type: ignore[assignment, method-assign]
                for component in (picture, examples):
                    _fetch_nothing(component)
                button = gr.Button("Look for anomalies", variant="primary")
            with gr.Column():
                verdict = gr.HTML(EMPTY)
                overlay = gr.HTML()
                opacity = gr.Slider(0, 1, value=0.5, step=0.05, label="Opacity of the heat map")
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
            f"Limits: {MAX_BYTES // 1_000_000} MB and {MAX_PIXELS // 1_000_000} megapixels a picture, {MAX_SECONDS} s a"
            " request; requests are answered one after the other. Pictures stay on the machine that runs this page and"
            " are removed when the page is closed."
        )
        drawn = {path for sample in samples for path in (sample.picture, *sample.examples)}
        files = SessionFiles(drawn | gallery.keep_in_cache)
        picture.upload(remember, picture, show_progress="hidden", queue=False)
        examples.upload(remember, examples, show_progress="hidden", queue=False)
        page.unload(forget)
        inputs, results = [picture, class_name, examples, opacity], [verdict, overlay]
        picture.input(lambda: (EMPTY, ""), None, results, show_progress="hidden", queue=False)
        button.click(run, inputs, results, api_name="judge")
        class_name.submit(run, inputs, results)
        gallery.select(pick, with_examples, [picture, class_name, examples]).then(run, inputs, results)
        opacity.input(None, opacity, js=SET_OPACITY)
    # Events of one function wait for each other, and no request goes past the queue.
    return page.queue(max_size=MAX_WAITING, default_concurrency_limit=1, api_open=False)


def main(arguments: list[str]) -> int:
    """Serve the page until a signal comes; returns an exit status of ``exit_status``."""
    options = build_parser().parse_args(arguments)
    if gr is None:
        print(f"error: the page needs gradio; install it with: {INSTALL}", file=sys.stderr)
        return 2
    return exit_status(lambda: serve(options), "the page is closed")


def serve(options: argparse.Namespace) -> NoReturn:
    """Load the model, and serve the page until KeyboardInterrupt.

    Raises:
        InputError: if the model cannot be loaded, or the address cannot be used.
    """
    with tempfile.TemporaryDirectory(prefix="winclip-page-", ignore_cleanup_errors=True) as folder:
        # Where Gradio puts uploads.
        os.environ["GRADIO_TEMP_DIR"] = folder
        model = model_options(vars(options)).load()
        page = build_page(model, draw_samples(Path(folder)))
        from starlette.middleware import Middleware  # comes with Gradio

        try:
            _, address, _ = page.launch(
                server_name=options.host,
                server_port=options.port,
                share=options.share,
                quiet=True,
                max_file_size=MAX_BYTES,
                enable_monitoring=False,
                app_kwargs={"middleware": [Middleware(Limits, folder=Path(folder))]},
                footer_links=["settings"],
                run_history=False,
                ssr_mode=False,
                theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
                css=CSS,
                prevent_thread_lock=True,
            )
        except OSError as error:
            raise InputError(f"{error}; another --port or --host may be free") from error
        print(f"The page is at {page.share_url or address}; Ctrl-C stops it.", flush=True)
        # Not block_thread, which ends in silence.
        while True:
            time.sleep(60)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
