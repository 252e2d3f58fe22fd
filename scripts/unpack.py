"""Check an archive and unpack it into a folder: python -m scripts.unpack ARCHIVE SHA256 FOLDER MARKER

MARKER is a pattern that the content matches, such as "*/train": it tells whether one folder is wrapped
around the data set, which is then dropped. What is in FOLDER already stays as it is. Needs nothing but Python.
"""

from __future__ import annotations

import hashlib
import sys
import tarfile
import tempfile
from pathlib import Path


def unpack(archive: Path, sha256: str, folder: Path, marker: str) -> None:
    """Unpack an archive beside the folder's content as a whole, then move it there.

    Raises:
        ValueError: if the checksum differs, nothing in it matches the marker, or Python is too old.
        OSError, EOFError, tarfile.TarError, lzma.LZMAError: if it is damaged or the disk is full.
    """
    digest = hashlib.sha256()
    with archive.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != sha256:
        raise ValueError(f"its sha256 is {digest.hexdigest()}, expected {sha256}; remove it to fetch it again")
    if not hasattr(tarfile, "data_filter"):  # refuses links and paths that lead out of the folder
        raise ValueError("that needs Python 3.10.12, 3.11.4 or newer")
    with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as temporary:
        with tarfile.open(archive) as tar:
            tar.extractall(temporary, filter="data")
        if not (tops := [top for top in (Path(temporary), *Path(temporary).iterdir()) if any(top.glob(marker))]):
            raise ValueError(f"it holds no {marker}, so it is another data set")
        for entry in tops[0].iterdir():
            if not (folder / entry.name).exists():
                entry.rename(folder / entry.name)


if __name__ == "__main__":
    try:
        unpack(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4])
    except Exception as error:  # damaged bytes raise many kinds
        print(f"error: cannot unpack {sys.argv[1]} ({error or type(error).__name__})", file=sys.stderr)
        sys.exit(2)
