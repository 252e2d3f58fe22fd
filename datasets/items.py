"""The images of a data set and their index."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath


@dataclass(frozen=True)
class Item:
    """One image of a data set.

    Attributes:
        img_path: relative to the root, with forward slashes.
        mask_path: like ``img_path``; "" if there is none. A folder stands for the images in it: a pixel is defective
            if one of them says so. It is ignored for a normal image.
        cls_name: the class, as in the data set.
        specie_name: the defect type, "good" or "".
        anomaly: 1 for a defective image, else 0.
    """

    img_path: str
    mask_path: str
    cls_name: str
    specie_name: str
    anomaly: int


@dataclass(frozen=True)
class DatasetIndex:
    """All images of a data set.

    Attributes:
        root: the folder that every path starts from.
        train: normal images by class; a class of ``test`` may have none.
        test: images to evaluate by class, at least one each, in the order of the file.
    """

    root: Path
    train: dict[str, list[Item]]
    test: dict[str, list[Item]]


def stays_inside(path: str) -> bool:
    """Whether a relative path, read the POSIX or the Windows way, cannot lead out of its folder."""
    posix, windows = PurePosixPath(path), PureWindowsPath(path)
    absolute = posix.is_absolute() or bool(windows.drive) or bool(windows.root)
    return not absolute and ".." not in posix.parts and ".." not in windows.parts
