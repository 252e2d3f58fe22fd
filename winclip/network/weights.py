"""The weights of a tag: found in the caches of this machine, or fetched, with resume and checksum.

Fetched files go to ``~/.cache/winclip/weights``. The hub's client is asked where a file is and reads what comes;
its own cache is only looked into, because it begins again whenever a download ends early.
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

# Seconds in which a server has to say what it has; HF_HUB_ETAG_TIMEOUT is another number.
_ANSWER_SECONDS = 5.0

# Failures in a row after which a fetch is given up.
_ATTEMPTS = 3

# What open_clip takes from a repository that its table names without a file, in this order.
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

# Of the default weights, as recorded by a third party; of other files the hub says it.
_KNOWN_SHA256 = {
    "timm/vit_base_patch16_plus_clip_240.laion400m_e31/open_clip_pytorch_model.bin": (
        "fa8eec9aff58e9215b9b44a977038179712694d3fc3a73eba62546bcff13deb3"
    )
}


@dataclass(frozen=True)
class _Place:
    """Where a file is.

    Attributes:
        url: its address.
        name: what it is called on this machine.
        sha256: hexadecimal, whole or its first digits, or "" where it is not known.
        cached: where another program of this machine has it, or None.
        size: in bytes, or None.
    """

    url: str
    name: str
    sha256: str
    cached: Path | None
    size: int | None = None


def find_weights(tag: Mapping[str, Any]) -> Path:
    """The file of a tag, fetched if no cache of this machine holds it.

    Args:
        tag: open_clip's entry, of which ``hf_hub`` (``ORGANISATION/REPOSITORY/FILE``, where the file may be left
            out) or else ``url`` is taken.

    Raises:
        InputError: if the file has another checksum than it should.
        Exception: whatever the hub's client raises if the file cannot be fetched.
    """
    folder = cache_folder("weights")
    repository, _, file = str(tag.get("hf_hub") or "").rpartition("/")
    if repository:
        places = [_on_the_hub(repository, name) for name in ([file] if file else _HUB_FILES)]
    else:
        places = [_at_an_address(str(tag["url"]))]
    # The reference implementation has the default weights from there, and left them in open_clip's cache; what OpenAI
    # left there is TorchScript.
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
    """The checksum is what open_clip's addresses name of it."""
    name, sha256 = Path(url).name, ""
    if "openaipublic" in url:
        sha256 = url.split("/")[-2]
    elif "mlfoundations" in url:
        sha256 = Path(url).stem.split("-")[-1]
    # open_clip leaves what it got of a file under the file's own name.
    open_clips = Path.home() / ".cache" / "clip" / name
    whole = sha256 and open_clips.is_file() and file_sha256(open_clips).startswith(sha256)
    return _Place(url, name, sha256, open_clips if whole else None)


def _ask(places: Sequence[_Place], on_the_hub: bool) -> _Place:
    """The first of the places that its server has a file at, with what the server says of it."""
    from huggingface_hub import get_hf_file_metadata
    from huggingface_hub.utils import EntryNotFoundError  # type: ignore[attr-defined]

    # Without the user's token: these files are public, and not all are on the hub.
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
    # Of a large file the hub's etag is the SHA-256; of a small one it is git's, which is shorter.
    etag = answer.etag if answer.etag and len(answer.etag) == 64 else ""
    return replace(place, size=answer.size, sha256=place.sha256 or etag)


def _fetch(found: _Place, folder: Path) -> Path:
    """Fetch a file, going on where an earlier attempt ended."""
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
                f"{found.url} came with SHA-256 {sha256}, not {found.sha256}, and was removed; try again, or give a"
                " file that you trust with --pretrained FILE"
            )
        part.replace(target)
    return target


def _fill(part: Path, found: _Place) -> None:
    """Append to a file what is missing; give up where nothing comes ``_ATTEMPTS`` times in a row."""
    from huggingface_hub.file_download import http_get

    failures = 0
    while True:
        with part.open("ab") as file:
            start = file.tell()
            if found.size is not None and start > found.size:  # of another file
                start = file.truncate(0)
            try:
                http_get(found.url, file, resume_size=start, expected_size=found.size, displayed_filename=found.name)
                return
            except Exception:
                # The client itself goes on after some errors and gives up after others, such as a reset.
                failures = failures + 1 if file.tell() == start else 0
                if failures == _ATTEMPTS:
                    raise
