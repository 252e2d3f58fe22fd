"""Damaged and hostile files of every kind: each is accepted, or refused in one short line that is safe to print."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.index import check_files, load_index, refuse_links
from datasets.items import DatasetIndex
from datasets.references import read_reference_list
from datasets.visa import list_visa
from tests.conftest import make_data
from tests.tiny import CONFIG, golden_images, open_clip_model
from winclip import WinCLIP
from winclip.network.clip_backbone import load_backbone
from winclip.pictures.images import read_image
from winclip.prompts import REFERENCE, load_prompt_set
from winclip.support.errors import InputError
from winclip.support.names import printable

Read = Callable[[Path], object]
TEXTS = st.sampled_from(
    ["", "..", "../../etc/passwd", "/etc/passwd", "a\0b", "line\nbreak\x1b[31m", "x" * 5000, "\u202e=1"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """Content with some bytes replaced, cut out, put in or repeated."""
    for _ in range(draw(st.integers(1, 3))):
        start, length = draw(st.integers(0, len(content))), draw(st.sampled_from([0, 1, 8, 64, len(content)]))
        cut = content[start : start + length]
        content = content[:start] + draw(st.binary(max_size=16) | st.just(cut * 2)) + content[start + length :]
    return content


@st.composite
def changed_json(draw: st.DrawFn, content: bytes) -> bytes:
    """JSON with a value somewhere in it replaced, taken out or put in."""
    whole = place = json.loads(content)
    while isinstance(place, (dict, list)) and place:
        key: Any = draw(st.sampled_from(sorted(place))) if isinstance(place, dict) else len(place) - 1
        if not isinstance(place[key], (dict, list)) or draw(st.integers(0, 2)) == 0:
            way = draw(st.integers(0, 2))
            if way == 0:
                del place[key]
            elif way == 1 and isinstance(place, dict):
                place[draw(TEXTS)] = place[key]
            else:
                place[key] = draw(VALUES)
            break
        place = place[key]
    return json.dumps(whole).encode()


class Kinds:
    """An intact file of every kind, its reader, and its name; made once."""

    def __init__(self, folder: Path) -> None:
        data = make_data(folder / "data")
        state = dict(open_clip_model(json.loads(CONFIG.read_text())).state_dict())
        weights, torch_file, memory, picture = (
            folder / "tiny.safetensors",
            io.BytesIO(),
            folder / "memory",
            io.BytesIO(),
        )
        weights.write_bytes(safetensors.torch.save(state))
        torch.save(state, torch_file)
        model = WinCLIP(load_backbone(str(CONFIG), str(weights), device="cpu"))
        model.set_class("bolt")
        model.add_references(golden_images()[:2])
        model.save_memory(memory)
        golden_images()[0].save(picture, "PNG")
        index = load_index(data)
        lines = "".join(f"{item.img_path}\n" for name in ("bolt", "felt") for item in index.train[name])
        rows = [
            f"{item.cls_name},{part},{'anomaly' if item.anomaly else 'normal'},{item.img_path},{item.mask_path}"
            for part, classes in (("train", index.train), ("test", index.test))
            for items in classes.values()
            for item in items
        ]
        table = data / "split_csv" / "1cls.csv"
        table.parent.mkdir()

        def read_meta(path: Path) -> None:
            found = load_index(path.parent)
            check_files(DatasetIndex(data, found.train, found.test), found.test)
            refuse_links(DatasetIndex(data, found.train, found.test), found.test)

        def read_visa(path: Path) -> None:
            table.write_bytes(path.read_bytes())
            list_visa(data, lambda _: None, all_classes=True)

        def read_weights(path: Path) -> None:
            load_backbone(str(CONFIG), str(path), device="cpu")

        def read_config(path: Path) -> None:
            load_backbone(str(path), str(weights), device="cpu")

        def read_list(path: Path) -> None:
            read_reference_list(path, index, ["bolt", "felt"])

        self.kinds: dict[str, tuple[bytes, Read]] = {
            "meta.json": ((data / "meta.json").read_bytes(), read_meta),
            "prompts.json": (json.dumps(asdict(REFERENCE)).encode(), lambda path: load_prompt_set(str(path))),
            "config.json": (CONFIG.read_bytes(), read_config),
            "list.txt": (lines.encode(), read_list),
            "1cls.csv": ("\n".join(["object,split,label,image,mask", *rows]).encode(), read_visa),
            "weights.pt": (torch_file.getvalue(), read_weights),
            "weights.safetensors": (weights.read_bytes(), read_weights),
            "memory.safetensors": (memory.read_bytes(), model.load_memory),
            "image.png": (picture.getvalue(), read_image),
        }


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    return Kinds(tmp_path_factory.mktemp("kinds"))


NAMES = ["meta.json", "prompts.json", "config.json", "list.txt", "1cls.csv", "weights.pt", "weights.safetensors"]
NAMES += ["memory.safetensors", "image.png"]


@pytest.mark.parametrize("examples", [15, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files_are_taken_or_refused(kinds: Kinds, tmp_path: Path, name: str, examples: int) -> None:
    content, read = kinds.kinds[name]
    path = tmp_path / name
    path.write_bytes(content)
    read(path)  # the intact one is accepted
    changed = damaged(content) | changed_json(content) if name.endswith("json") else damaged(content)

    @settings(max_examples=examples, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(changed)
    def check(data: bytes) -> None:
        path.write_bytes(data)
        try:
            read(path)
        except InputError as error:
            assert str(error) == printable(str(error))

    check()


def test_an_image_that_claims_an_enormous_size_is_refused(kinds: Kinds, tmp_path: Path) -> None:
    whole, _ = kinds.kinds["image.png"]
    head = b"IHDR" + struct.pack(">II", 13_000, 13_000) + whole[24:29]
    (tmp_path / "huge.png").write_bytes(whole[:12] + head + struct.pack(">I", zlib.crc32(head)) + whole[33:])
    with pytest.raises(InputError, match=r"huge\.png: 13000 x 13000"):
        read_image(tmp_path / "huge.png")


def test_links_that_lead_out_of_the_data_set_are_refused(data: Path, tmp_path: Path) -> None:
    index = load_index(data)
    # Links to the data set itself, or within it, do not lead out of it.
    (tmp_path / "link").symlink_to(data)
    (data / "bolt" / "test" / "good" / "1.png").unlink()
    (data / "bolt" / "test" / "good" / "1.png").symlink_to("0.png")
    refuse_links(index, index.test)
    linked = load_index(tmp_path / "link")
    refuse_links(linked, linked.test)
    (data / "felt" / "masks").rename(tmp_path / "elsewhere")
    (data / "felt" / "masks").symlink_to(tmp_path / "elsewhere")
    refuse_links(index, ["bolt"], index.train["felt"])
    with pytest.raises(InputError, match=r"masks/scratch/0\.png leads by .*elsewhere/scratch/0\.png.*--allow_links"):
        refuse_links(index, index.test)
