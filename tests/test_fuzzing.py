"""Files of strangers are taken or refused with a short line: a few inputs of every kind, and those that once were not.

``python -m scripts.fuzz`` tries thousands.
"""

from __future__ import annotations

import io
import json
import struct
import zlib
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from datasets.index import load_index, refuse_links
from datasets.visa import list_visa
from scripts import fuzz
from tests.fuzzing import Kinds, finding
from tests.tiny import CONFIG
from winclip import InputError
from winclip.backbone import load_backbone
from winclip.images import read_image
from winclip.memory import read_memory
from winclip.pretrained import parse_config, read_checkpoint
from winclip.prompts import load_prompt_set
from winclip.texts import parse_json, read_text

TINY: dict[str, Any] = json.loads(CONFIG.read_text())


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> Kinds:
    return Kinds(tmp_path_factory.mktemp("fuzzing"))


@pytest.mark.parametrize("kind", fuzz.KINDS)
@settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(random=st.randoms(use_true_random=False))
def test_changed_files_are_taken_or_refused(kinds: Kinds, kind: str, random: Random) -> None:
    assert kinds.kinds[kind].finding(random, kinds.folder) is None


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_unchanged_files_are_taken(kinds: Kinds, kind: str) -> None:
    tried = kinds.kinds[kind]
    path = kinds.folder / tried.name
    path.write_bytes(tried.whole)
    tried.read(path)


def test_a_reader_that_fails_is_a_finding() -> None:
    def fail(error: Exception) -> None:
        raise error

    assert finding(lambda: fail(KeyError("x"))) == "KeyError: 'x'"
    assert finding(lambda: fail(MemoryError())) == "MemoryError: "
    assert finding(lambda: fail(InputError("a\nb" + "c" * 10_000))) is None
    assert finding(lambda: None) is None


DEEP = "[" * 200_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (DEEP, "has too many levels"),
        ('{"a": ' * 200_000, "has too many levels"),
        ("[" + "0," * 4_000_001 + "0]", "has more than 4,000,000 values"),
        ('{"a": 1, "b": 2, "a": 3}', "the key 'a' is there more than once"),
        ("[NaN]", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("[1e999]", "the number 1e999 is too large"),
        ("9" * 5000, "is not JSON"),
    ],
)
def test_hostile_json_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_json(text, "thing")


def test_text_is_read_up_to_a_limit(tmp_path: Path) -> None:
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match=r"thing .*large\.json is larger than 64 MB, the limit"):
        read_text(tmp_path / "large.json", "thing")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"):
        read_text(tmp_path, "thing")


def test_deep_prompt_sets_and_memories_are_refused(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text(DEEP)
    with pytest.raises(InputError, match="too many levels"):
        load_prompt_set(str(tmp_path / "deep.json"))
    safetensors.torch.save_file({"cls": torch.zeros(1)}, tmp_path / "deep.safetensors", {"winclip": DEEP})
    with pytest.raises(InputError, match="too many levels"):
        read_memory(tmp_path / "deep.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"templates": ["{}" + "x" * 1000]}, "of at most 1,000 characters"),
        ({"templates": ["a {}"] * 101, "normal_states": ["{}"] * 100}, "makes 10,100 prompts of a state; the limit is"),
        ({"templates": ["\ud800 {}"]}, "is not valid Unicode"),
    ],
)
def test_prompt_sets_are_bounded(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    whole = {"normal_states": ["{}"], "anomalous_states": ["{}"], "templates": ["{}"]}
    (tmp_path / "prompts.json").write_text(json.dumps({**whole, **change}))
    with pytest.raises(InputError, match=message):
        load_prompt_set(str(tmp_path / "prompts.json"))


@pytest.mark.parametrize(
    ("part", "key", "value", "message"),
    [
        ("vision_cfg", "width", 10**400, "vision_cfg.width is 1000.*from 1 to 4,096"),
        ("vision_cfg", "width", 0, "vision_cfg.width is 0"),
        ("vision_cfg", "width", 65, "width 65 cannot be parted into 4 heads"),
        ("vision_cfg", "head_width", 0, "vision_cfg.head_width is 0"),
        ("vision_cfg", "patch_size", 0, "vision_cfg.patch_size is 0"),
        ("vision_cfg", "patch_size", 16.5, "vision_cfg.patch_size is 16.5"),
        ("vision_cfg", "layers", 10**9, "vision_cfg.layers is 1000000000; expected a whole number from 1 to 128"),
        ("vision_cfg", "layers", True, "vision_cfg.layers is True"),
        ("vision_cfg", "image_size", [96, 96, 96], r"vision_cfg.image_size is \[96, 96, 96\]"),
        ("vision_cfg", "mlp_ratio", 1e300, "vision_cfg.mlp_ratio is 1e"),
        ("vision_cfg", "mlp_ratio", "4", "vision_cfg.mlp_ratio is '4'"),
        ("text_cfg", "heads", 0, "text_cfg.heads is 0"),
        ("text_cfg", "heads", 5, "text_cfg.width 32 cannot be parted into 5 heads"),
        ("text_cfg", "vocab_size", 10**12, "text_cfg.vocab_size is 1000000000000"),
        ("text_cfg", "context_length", None, "text_cfg.context_length is None"),
    ],
)
def test_sizes_of_a_config_are_bounded(part: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_config({**TINY, part: {**TINY[part], key: value}}, "own.json")


def test_an_image_of_too_many_patches_is_refused() -> None:
    with pytest.raises(InputError, match="has 256 patches of 16 pixels a side; the limit is 128"):
        parse_config({**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": 4096}}, "own.json")
    with pytest.raises(InputError, match="quick_gelu is 'false'; expected true or false"):
        parse_config({**TINY, "quick_gelu": "false"}, "own.json")


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ({"mean": [0.5, 0.5]}, r"preprocess_cfg.mean is \[0.5, 0.5\]; expected three numbers"),
        ({"std": [0.5, 0.5, 0]}, "preprocess_cfg.std is .*from 0.001"),
        ([], "not made of JSON objects"),
    ],
)
def test_preprocessing_of_a_config_is_checked(
    preprocessing: Any, message: str, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_cfg": TINY, "preprocess_cfg": preprocessing}))
    with pytest.raises(InputError, match=message):
        load_backbone(str(tmp_path / "config.json"), str(checkpoint), device="cpu")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.full((4,), float("nan")), "class_embedding holds NaN or infinite numbers; fetch the file again"),
        (torch.full((4,), float("-inf")), "holds NaN or infinite numbers"),
        (torch.ones(4, dtype=torch.int64), "class_embedding is of int64 or no dense tensor; expected plain weights"),
        (torch.ones(4).to_sparse(), "is of float32 or no dense tensor"),
        (torch.zeros(1, dtype=torch.float16).expand(10**7, 10**7), "claims 100,000,000,000,000 numbers, more than it"),
    ],
)
def test_weights_that_are_none_are_refused(value: torch.Tensor, message: str, tmp_path: Path) -> None:
    torch.save({"visual.class_embedding": value}, tmp_path / "weights.pt")
    with pytest.raises(InputError, match=message):
        read_checkpoint(tmp_path / "weights.pt")


def test_damage_within_an_archive_of_weights_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(4)}, buffer)
    whole = buffer.getvalue()
    for start in range(0, len(whole), 7):
        (tmp_path / "weights.pt").write_bytes(whole[:start] + b"\xff\x00\x80" + whole[start + 3 :])
        assert finding(lambda: read_checkpoint(tmp_path / "weights.pt")) is None


def test_an_image_that_claims_an_enormous_size_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "PNG")
    head = b"IHDR" + struct.pack(">II", 13_000, 13_000) + buffer.getvalue()[24:29]
    (tmp_path / "huge.png").write_bytes(
        buffer.getvalue()[:12] + head + struct.pack(">I", zlib.crc32(head)) + buffer.getvalue()[33:]
    )
    with pytest.raises(InputError, match=r"huge\.png: 13000 x 13000 is more than 100,000,000 pixels, the limit"):
        read_image(tmp_path / "huge.png")


@pytest.mark.parametrize("column", range(5))
def test_names_too_long_for_a_file_are_refused_in_visas_list(column: int, data: Path) -> None:
    cells = ["bolt", "train", "normal", "bolt/train/good/0.png", ""]
    cells[column] = "x" * 5000
    (data / "split_csv").mkdir()
    (data / "split_csv" / "1cls.csv").write_text("object,split,label,image,mask\n" + ",".join(cells) + "\n")
    with pytest.raises(InputError) as error:
        list_visa(data, lambda _: None, all_classes=True)
    assert len(str(error.value)) <= 2000


def test_links_that_lead_out_of_the_data_set_are_refused(data: Path, tmp_path: Path) -> None:
    index = load_index(data)
    refuse_links(index, index.test)
    # A link to the data set itself, and one within it, lead nowhere else.
    (tmp_path / "link").symlink_to(data)
    (data / "bolt" / "test" / "good" / "1.png").unlink()
    (data / "bolt" / "test" / "good" / "1.png").symlink_to("0.png")
    linked = load_index(tmp_path / "link")
    refuse_links(linked, linked.test)
    (data / "felt" / "masks").rename(tmp_path / "elsewhere")
    (data / "felt" / "masks").symlink_to(tmp_path / "elsewhere")
    refuse_links(index, ["bolt"], index.train["felt"])
    with pytest.raises(
        InputError, match=r"mask .*data/felt/masks/scratch/0\.png is .*elsewhere/scratch/0\.png.*--allow"
    ):
        refuse_links(index, index.test)


def test_the_script_counts_inputs_and_findings(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.main(["--kind", "references", "--inputs", "20"]) == 0
    assert "| references | 20 | 0 |" in capsys.readouterr().out
