"""Settings of the published tables and the supported picture formats; light enough for a command line to import."""

import math
from collections.abc import Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

from winclip.support.errors import InputError

# Sides of the windows in patches: the large and the mid scale (paper, section 4.2).
SCALES = (3, 2)
# Temperature of the softmax over normal and anomalous (paper, equation 1).
TEMPERATURE = 0.07

DEFAULT_MODEL = "ViT-B-16-plus-240"
DEFAULT_PRETRAINED = "laion400m_e31"
DEMO_MODEL = "demo-vit-240"
DEMO_PRETRAINED = "demo"

# The highest 16-bit value.
FULL_RANGE = 65535

# The picture formats that are opened, and the file endings by which folders are searched for them.
IMAGE_FORMATS: tuple[str, ...] = ("PNG", "JPEG", "BMP", "TIFF", "WEBP", "GIF")
IMAGE_ENDINGS: tuple[str, ...] = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".tif", ".tiff", ".webp", ".gif")
# Endings, formats, and the modules and packages that read them; these may be missing.
_MORE = (
    (".avif", "AVIF", "PIL._avif", "'pillow>=11.3'"),
    (".heic", "HEIF", "pillow_heif", "pillow-heif"),
    (".heif", "HEIF", "pillow_heif", "pillow-heif"),
)


def _installed(module: str) -> bool:
    """Whether a module is installed, without importing its package."""
    package, _, part = module.partition(".")
    found = find_spec(package)
    if found is None or not part:
        return found is not None
    files = [
        Path(place, part + ending) for place in found.submodule_search_locations or () for ending in EXTENSION_SUFFIXES
    ]
    return any(file.exists() for file in files)


# By ending, the missing package that would read it.
MISSING = {ending: package for ending, _, module, package in _MORE if not _installed(module)}
IMAGE_FORMATS += tuple(sorted({kind for ending, kind, _, _ in _MORE if ending not in MISSING}))
IMAGE_ENDINGS += tuple(ending for ending, _, _, _ in _MORE if ending not in MISSING)


def check_temperature(temperature: float) -> float:
    """The temperature itself.

    Raises:
        InputError: if it is not a number above 0.
    """
    if not (math.isfinite(temperature) and temperature > 0):
        raise InputError(f"temperature {temperature} must be above 0; the paper's is {TEMPERATURE}")
    return temperature


def check_white(white: int | None) -> None:
    """Raises: InputError: if it is not a 16-bit value that could be white."""
    if white is not None and not 1 <= white <= FULL_RANGE:
        raise InputError(f"white {white} must be from 1 to {FULL_RANGE}, such as 4095 for a 12-bit camera")


def check_scales(scales: Sequence[int]) -> tuple[int, ...]:
    """The sides of the windows, as a tuple.

    Raises:
        InputError: if there is none, one is named twice, or one is below 1.
    """
    if not scales or len(set(scales)) < len(scales) or min(scales) < 1:
        raise InputError(
            f"scales {' '.join(map(str, scales)) or '(none)'} are not valid; give different window sides of 1 patch or"
            f" more, such as {' '.join(map(str, SCALES))}"
        )
    return tuple(scales)
