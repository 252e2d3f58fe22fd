"""The weights of a tag: found in a cache on this machine, or downloaded, with resume and checksum.

Downloads go to ``~/.cache/winclip/weights``. The hub's client is only asked where a file is and to read its bytes;
its own cache is searched but not written, because it starts over whenever a download is interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from winclip.support.errors import InputError
from winclip.support.files import cache_folder, file_sha256

# Time limit in seconds for a server's answer about a file; HF_HUB_ETAG_TIMEOUT overrides it.
_ANSWER_SECONDS = 5.0

# Failures in a row after which a download is given up.
_ATTEMPTS = 3

# Files that open_clip takes from a repository whose table entry names no file, in this order.
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Checksum of the default weights, as recorded by a third party; for other files the hub states it.
_KNOWN_SHA256 = {
    "timm/vit_base_patch16_plus_clip_240.laion400m_e31/open_clip_pytorch_model.bin": (
        "fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3"
    )
}


@dataclass(frozen=True)
class _Place:
    """The location of a file.

    Attributes:
        url: its address.
        name: its name on this machine.
        sha256: hexadecimal, complete or its first digits, or "" where it is unknown.
        cached: where another program on this machine has it, or None.
        size: in bytes, or None.
    """

    url: str
    name: str
    sha256: str
    cached: Path | None
    size: int | None = None


def find_weights(tag: Mapping[str, Any]) -> Path:
    """The file of a tag, downloaded if no cache on this machine holds it.

    Args:
        tag: open_clip's entry, of which ``hf_hub`` (``ORGANISATION/REPOSITORY/FILE``, where the file may be left
            out) or else ``url`` is taken.

    Raises:
        InputError: if the file has the wrong checksum.
        Exception: whatever the hub's client raises if the file cannot be fetched.
    """
    folder = cache_folder("weights")
    repository, _, file = str(tag.get("hf_hub") or "").rpartition("/")
    if repository:
        places = [_on_the_hub(repository, name) for name in ([file] if file else _HUB_FILES)]
    else:
        places = [_at_an_address(str(tag["url"]))]
    # The reference implementation gets the default weights there and leaves them in open_clip's cache; OpenAI's files
    # there are TorchScript.
    url = str(tag.get("url") or "") if repository else ""
    elsewhere = [_at_an_address(url)] if url and "openaipublic" not in url else []
    for place in (*places, *elsewhere):
        for path in (folder / place.name, place.cached):
            if path and path.is_file():
                return path
    return _fetch(_ask(places, on_the_hub=bool(repository)), folder)


def _on_the_hub(repository: str, file: str) -> _Place:
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    path, cached = f"{repository}/{file}", try_to_load_from_cache(repository, file)
    known = Path(cached) if isinstance(cached, str) else None
    return _Place(hf_hub_url(repository, file), path.replace("/", "--"), _KNOWN_SHA256.get(path, ""), known)


def _at_an_address(url: str) -> _Place:
    """The checksum is the one in open_clip's address."""
    name, sha256 = Path(url).name, ""
    if "openaipublic" in url:
        sha256 = url.split("/")[-2]
    elif "mlfoundations" in url:
        sha256 = Path(url).stem.split("-")[-1]
    # open_clip keeps its downloads under the file's own name.
    open_clips = Path.home() / ".cache" / "clip" / name
    whole = sha256 and open_clips.is_file() and file_sha256(open_clips).startswith(sha256)
    return _Place(url, name, sha256, open_clips if whole else None)


def _ask(places: Sequence[_Place], on_the_hub: bool) -> _Place:
    """The first place whose server has the file, completed with the server's information."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import EntryNotFoundError  # type: ignore[attr-defined]

    # Without the user's token: these files are public, and some are not on the hub.
    seconds = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _ANSWER_SECONDS)
    ask = partial(get_hf_file_metadata, token=False, timeout=seconds)
    for place in places:
        try:
            answer = ask(place.url)
            break
        except EntryNotFoundError:
            if place is places[-1]:
                raise
    if not on_the_hub:
        if answer.location != place.url:  # GitHub's releases are on another server, which knows their size
            answer = ask(answer.location)
        return replace(place, size=answer.size)
    # For a large file the hub's etag is the SHA-256; for a small one it is git's hash, which is shorter.
    etag = answer.etag if answer.etag and len(answer.etag) == 64 else ""
    return replace(place, size=answer.size, sha256=place.sha256 or etag)


def _fetch(found: _Place, folder: Path) -> Path:
    """Download a file, continuing where an earlier attempt ended."""
    from filelock import FileLock

    target, part = folder / found.name, folder / f"{found.name}.part"
    size = "of unknown size" if found.size is None else f"{found.size / 1e6:.1f} MB"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{target}.lock"):
        if target.is_file():  # another process was faster
            return target
        print(f"fetching {found.url}, {size}, to {target}", file=sys.stderr)
        _fill(part, found)
        sha256 = file_sha256(part)
        if not sha256.startswith(found.sha256):
            part.unlink()
            raise InputError(
                f"{found.url} has SHA-256 {sha256}, not {found.sha256}, and was removed; try again, or give a"
                " file that you trust with --pretrained FILE"
            )
        part.replace(target)
    return target


def _fill(part: Path, found: _Place) -> None:
    """Append the missing bytes to a file; give up where nothing arrives ``_ATTEMPTS`` times in a row."""
    from huggingface_hub.file_download import http_get

    failures = 0
    while True:
        with part.open("ab") as file:
            start = file.tell()
            if found.size is not None and start > found.size:  # left by another file
                start = file.truncate(0)
            try:
                http_get(found.url, file, resume_size=start, expected_size=found.size, displayed_filename=found.name)
                return
            except Exception:
                # The client resumes after some errors and gives up after others, such as a reset.
                failures = failures + 1 if file.tell() == start else 0
                if failures == _ATTEMPTS:
                    raise
