"""Files as a stranger might make them: seeded changes of whole ones, and the readers that have to stand them.

A reader takes a file or refuses it with an ``InputError`` of one line; anything else is a finding.
"""

from __future__ import annotations

import csv
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from datasets.index import check_files, load_index, refuse_links
from datasets.items import DatasetIndex
from datasets.references import read_reference_list
from datasets.samples import read_mask
from datasets.visa import list_visa
from tests.conftest import make_data
from tests.tiny import CONFIG, golden_images, open_clip_model
from winclip import InputError, WinCLIP
from winclip.backbone import load_backbone
from winclip.images import read_image, resized_pixels
from winclip.memory import read_memory
from winclip.names import printable
from winclip.prompts import REFERENCE, load_prompt_set

_TEXTS = [
    "",
    ".",
    "..",
    "../../../../etc/passwd",
    "/etc/passwd",
    "C:\\boot.ini",
    "a\0b",
    "line\nbreak\r\x1b[31m",
    "x" * 300,
    "x" * 100_000,
    "{}" * 500,
    "\u202e\ufeff=1+1",
    "🦆" * 100,
]
_VALUES: list[Any] = [
    *_TEXTS,
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    0.5,
    -1e308,
    2**31,
    2**63,
    10**400,
    float("nan"),
    float("inf"),
    [],
    {},
    [[]],
    [0] * 1000,
    "\ud800",
]


def change_bytes(random: Random, data: bytes) -> bytes:
    """A few bytes flipped, overwritten, put in, cut out or repeated."""
    changed = bytearray(data)
    for _ in range(random.randint(1, 4)):
        start = random.randrange(len(changed) + 1)
        length = random.choice([1, 2, 4, 8, 64, len(changed) // 3])
        noise = bytes(random.choice([0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)]) for _ in range(min(length, 64)))
        way = random.randrange(6)
        if way == 0 and start < len(changed):
            changed[start] ^= 1 << random.randrange(8)
        elif way == 1:
            changed[start : start + len(noise)] = noise
        elif way == 2:
            changed[start:start] = noise
        elif way == 3:
            del changed[start : start + length]
        elif way == 4:
            changed[start:start] = changed[start : start + length] * random.choice([1, 2, 50])
        else:
            del changed[start:]
    return bytes(changed)


def change_json(random: Random, data: bytes) -> bytes:
    """A few values replaced, taken out, put in or nested; or the bytes changed."""
    if random.random() < 0.3:
        return change_bytes(random, data)
    content = json.loads(data)
    for _ in range(random.randint(1, 3)):
        content = _change_value(random, content)
    text = json.dumps(content)
    if random.random() < 0.1:
        depth = random.choice([10, 1000, 100_000])
        text = text.replace("[", "[" * depth, 1) if random.random() < 0.5 else '{"a":' * depth + text
    elif random.random() < 0.1:
        text = text.replace("{", '{"train": {}, "layers": 1, ', 1)
    return text.encode("utf-8", "surrogatepass")


def _change_value(random: Random, content: Any) -> Any:
    if isinstance(content, dict) and content and random.random() < 0.9:
        key = random.choice(list(content))
        way = random.randrange(8)
        if way == 0:
            return {name: value for name, value in content.items() if name != key}
        if way == 1:
            return {**content, random.choice(_TEXTS): content[key]}
        return {**content, key: _change_value(random, content[key])}
    if isinstance(content, list) and content and random.random() < 0.9:
        position = random.randrange(len(content))
        way = random.randrange(8)
        if way == 0:
            return content[:position] + content[position + 1 :]
        if way == 1:
            return content * random.choice([2, 100])
        return [*content[:position], _change_value(random, content[position]), *content[position + 1 :]]
    return random.choice(_VALUES)


def change_lines(random: Random, data: bytes) -> bytes:
    """A few cells of a table replaced, taken out or repeated; or the bytes changed."""
    if random.random() < 0.3:
        return change_bytes(random, data)
    rows = list(csv.reader(io.StringIO(data.decode())))
    for _ in range(random.randint(1, 3)):
        row = random.choice(rows)
        way = random.randrange(6)
        if way == 0:
            rows.insert(random.randrange(len(rows)), [*row])
        elif way == 1 and row:
            del row[random.randrange(len(row))]
        elif way == 2:
            row += [random.choice(_TEXTS)] * random.choice([1, 1000])
        elif row:
            row[random.randrange(len(row))] = random.choice(_TEXTS)
    text = io.StringIO()
    csv.writer(text, lineterminator=random.choice(["\n", "\r\n", "\r"])).writerows(rows)
    return text.getvalue().encode()


def change_tensors(random: Random, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """One or two tensors of another shape, type or content, taken out, renamed or put in."""
    changed = dict(tensors)
    for _ in range(random.randint(1, 2)):
        name = random.choice(sorted(changed))
        way = random.randrange(10)
        if way > 1:
            changed[name] = _change_tensor(random, changed[name]).contiguous()
            continue
        tensor = changed.pop(name)
        if way == 1:
            changed[random.choice(["x", "y" * 300, "module." + name, "\x1b[31m", "left_out_scores"])] = tensor
    return changed


def _change_tensor(random: Random, tensor: torch.Tensor) -> torch.Tensor:
    ways: list[Callable[[], torch.Tensor]] = [
        lambda: tensor * random.choice([0, -1, 100, 1e30, float("nan"), float("inf")]),
        lambda: tensor.to(random.choice([torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.bool])),
        lambda: tensor[: random.randrange(3)] if tensor.dim() else tensor,
        lambda: tensor.flatten(),
        lambda: tensor[None],
        lambda: tensor.to(torch.complex64),
        lambda: torch.zeros(random.choice([(), (0,), (1, 0, 3), (7, 5)])),
        lambda: torch.cat([tensor, tensor]) if tensor.dim() else tensor,
        lambda: _with_one(random, tensor, random.choice([float("nan"), float("inf"), -float("inf"), 5.0, 1e38])),
    ]
    return random.choice(ways)()


def _with_one(random: Random, tensor: torch.Tensor, value: float) -> torch.Tensor:
    changed = tensor.flatten().float()
    changed[random.randrange(max(len(changed), 1)) :][:1] = value
    return changed.reshape(tensor.shape).to(tensor.dtype)


@dataclass
class Kind:
    """A kind of file.

    Attributes:
        name: of the file.
        whole: content of one that is taken.
        change: makes an input.
        read: reads the file at a path.
    """

    name: str
    whole: bytes
    change: Callable[[Random], bytes]
    read: Callable[[Path], object]

    def finding(self, random: Random, folder: Path) -> str | None:
        """What went wrong with one input, or None; the input stays in the folder until the next."""
        path = folder / self.name
        path.write_bytes(self.change(random))
        return finding(lambda: self.read(path))


def finding(read: Callable[[], object]) -> str | None:
    """What is wrong with how a reader ended, or None if it succeeded or refused its file as it should."""
    try:
        read()
    except InputError as error:
        message = str(error)
        return None if message == printable(message) else f"a message that is no safe short line: {message[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return None


class Kinds:
    """Every kind of file by its name on the command line; what they share is made once, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = make_data(folder / "data")
        self.state = dict(open_clip_model(json.loads(CONFIG.read_text())).state_dict())
        weights = safetensors.torch.save(self.state)
        (folder / "tiny.safetensors").write_bytes(weights)
        self.model = WinCLIP(load_backbone(str(CONFIG), str(folder / "tiny.safetensors"), device="cpu"))
        self.model.set_class("bolt")
        self.model.add_references(golden_images()[:2])
        self.model.save_memory(folder / "whole.safetensors")
        self.memory = read_memory(folder / "whole.safetensors")
        self.query = self.model.encode(golden_images()[3])
        memory, images = (folder / "whole.safetensors").read_bytes(), _images()
        self.kinds = {
            "meta": self._json((self.data / "meta.json").read_bytes(), self._read_meta, "meta.json"),
            "prompts": self._json(json.dumps(asdict(REFERENCE)).encode(), self._read_prompts, "prompts.json"),
            "references": self._reference_list(),
            "visa": self._visa(),
            "config": self._json(CONFIG.read_bytes(), self._read_config, "config.json"),
            "pt": Kind("weights.pt", _torch_file(self.state), self._change_pt, self._read_weights),
            "safetensors": Kind("weights.safetensors", weights, self._change_weights, self._read_weights),
            "memory": Kind("memory.safetensors", memory, self._change_memory, self._read_memory),
            "image": Kind("image", images[0], lambda random: change_image(random, random.choice(images)), _read_image),
        }

    def _json(self, data: bytes, read: Callable[[Path], object], name: str) -> Kind:
        return Kind(name, data, lambda random: change_json(random, data), read)

    def _read_meta(self, path: Path) -> None:
        found = load_index(path.parent)
        index = DatasetIndex(self.data, found.train, found.test)
        check_files(index, index.test)
        refuse_links(index, index.test)

    def _read_prompts(self, path: Path) -> None:
        prompts = load_prompt_set(str(path))
        if len(prompts.normal("bolt")) + len(prompts.anomalous("bolt")) < 300:
            self.model.set_class("felt", prompts)

    def _reference_list(self) -> Kind:
        index = load_index(self.data)
        lines = "".join(f"{item.img_path}\n" for name in ("bolt", "felt") for item in index.train[name])
        data = f"# references\n{lines}".encode()
        read = partial(read_reference_list, index=index, classes=["bolt", "felt"])
        return Kind("list.txt", data, lambda random: change_lines(random, data), read)

    def _visa(self) -> Kind:
        rows = ["object,split,label,image,mask"]
        for part, items in (("train", load_index(self.data).train), ("test", load_index(self.data).test)):
            for item in (item for of_class in items.values() for item in of_class):
                label = "anomaly" if item.anomaly else "normal"
                rows.append(f"{item.cls_name},{part},{label},{item.img_path},{item.mask_path}")
        data = "\n".join(rows).encode()

        def read(path: Path) -> None:
            table = self.data / "split_csv" / "1cls.csv"
            table.parent.mkdir(exist_ok=True)
            table.write_bytes(path.read_bytes())
            list_visa(self.data, lambda _: None, all_classes=True)

        return Kind("1cls.csv", data, lambda random: change_lines(random, data), read)

    def _read_config(self, path: Path) -> None:
        load_backbone(str(path), str(self.folder / "tiny.safetensors"), device="cpu")

    def _read_weights(self, path: Path) -> None:
        load_backbone(str(CONFIG), str(path), device="cpu")

    def _change_weights(self, random: Random) -> bytes:
        return self._change_safetensors(random, self.state, {})

    def _change_safetensors(self, random: Random, tensors: dict[str, torch.Tensor], notes: dict[str, str]) -> bytes:
        way = random.randrange(3)
        if way == 0:
            return safetensors.torch.save(change_tensors(random, tensors), notes)
        whole = safetensors.torch.save(tensors, notes)
        if way == 1:
            return change_bytes(random, whole)
        size = int.from_bytes(whole[:8], "little")
        header = change_json(random, whole[8 : 8 + size])
        claimed = random.choice([len(header), len(header), len(header), 2**40, 2**63])
        return claimed.to_bytes(8, "little") + header + whole[8 + size :]

    def _change_pt(self, random: Random) -> bytes:
        way = random.randrange(5)
        if way == 0:
            return _torch_file(change_tensors(random, self.state))
        if way == 1:
            name = random.choice(sorted(self.state))
            odd: Any = random.choice(
                [
                    torch.zeros(1).expand(1_000_000, 1_000_000),
                    torch.zeros(1, dtype=torch.float16).expand(1_000_000, 100_000),
                    torch.zeros(3, 3).to_sparse(),
                    torch.quantize_per_tensor(torch.zeros(3), 1.0, 0, torch.quint8),
                    torch.empty(2, 2, device="meta"),
                    {},
                    [1, 2],
                    None,
                    "text",
                ]
            )
            content: Any = {**self.state, name: odd}
            content = random.choice([content, {"state_dict": content}, {"state_dict": odd}, {1: odd}, [content], odd])
            return _torch_file(content)
        whole = _torch_file(self.state, old=way == 2)
        if way == 2 or random.random() < 0.5:
            # Most of the file is numbers; what is before and behind them says what they are.
            part = random.choice([slice(0, 20_000), slice(len(whole) - 8_000, None), slice(0, None)])
            start, stop, _ = part.indices(len(whole))
            return whole[:start] + change_bytes(random, whole[part]) + whole[stop:]
        changed = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as source, zipfile.ZipFile(changed, "w") as target:
            for entry in source.namelist():
                data = source.read(entry)
                target.writestr(entry, change_bytes(random, data) if entry.endswith(".pkl") else data)
        return changed.getvalue()

    def _change_memory(self, random: Random) -> bytes:
        tensors, made_with = self.memory[0], json.dumps(self.memory[1])
        if random.random() < 0.3:
            made_with = change_json(random, made_with.encode()).decode("utf-8", "replace")
        return self._change_safetensors(random, tensors, {"winclip": made_with})

    def _read_memory(self, path: Path) -> None:
        self.model.load_memory(path, class_name="bolt")
        score = self.model.score(self.query, class_name="bolt").scores[0]
        threshold = self.model.threshold(class_name="bolt").score
        assert 0 <= score <= 1 and 0 <= threshold <= 1, f"score {score}, threshold {threshold}"


def _torch_file(content: object, old: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not old)
    return buffer.getvalue()


def _images() -> list[bytes]:
    noise = np.random.RandomState(0).randint(0, 256, (40, 30, 4)).astype(np.uint8)
    whole = []
    for mode in ("RGB", "L", "P", "RGBA", "1", "CMYK", "I;16"):
        for ending in ("PNG", "JPEG", "TIFF", "BMP", "WEBP", "GIF"):
            image = Image.fromarray(noise).convert("I" if mode == "I;16" else mode)
            buffer = io.BytesIO()
            try:
                (image.convert("I;16") if mode == "I;16" else image).save(buffer, ending)
            except (OSError, ValueError):  # not every format has every mode
                continue
            whole.append(buffer.getvalue())
    return whole


def change_image(random: Random, data: bytes) -> bytes:
    """Other sides claimed in the head of an image, or the bytes changed."""
    if random.random() < 0.8:
        return change_bytes(random, data)
    sides = [random.choice([0, 1, 9_999, 65_535, 2**20, 2**31 - 1, 2**32 - 1]) for _ in range(2)]
    if data.startswith(b"\x89PNG"):
        head = b"IHDR" + struct.pack(">II", *sides) + data[24:29]
        return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]
    if data.startswith(b"BM"):
        return data[:18] + struct.pack("<II", *sides) + data[26:]
    if data.startswith(b"GIF"):
        return data[:6] + struct.pack("<HH", *(side & 0xFFFF for side in sides)) + data[10:]
    if data.startswith(b"II*\0"):
        for tag, side in zip((256, 257), sides):
            entry = data.find(struct.pack("<H", tag), 8)
            data = data[: entry + 8] + struct.pack("<I", side) + data[entry + 12 :] if entry > 0 else data
    return data


def _read_image(path: Path) -> None:
    of_mask = finding(lambda: read_mask(path))
    assert of_mask is None, f"as a mask: {of_mask}"
    resized_pixels(read_image(path, upright=True), 96)
