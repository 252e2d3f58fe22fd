"""Loading models and checkpoints, and the encoder against open_clip's own blocks."""

from __future__ import annotations

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch

from tests.plain import assert_embeddings_close, plain_embeddings
from tests.tiny import CONFIG, open_clip_model
from winclip.network import pretrained
from winclip.network.clip import Clip
from winclip.network.clip_backbone import ClipBackbone, load_backbone
from winclip.network.devices import resolve_device, resolve_precision
from winclip.network.pretrained import parse_config, read_checkpoint, read_config, tokenize
from winclip.support.errors import InputError

TINY: dict[str, Any] = json.loads(CONFIG.read_text())


def save(model: open_clip.CLIP, path: Path) -> Path:
    torch.save(model.state_dict(), path)
    return path


def random_images(count: int, size: int) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize(
    "change", [{"quick_gelu": True, "layers": 1}, {"layers": 2}, pytest.param({}, marks=pytest.mark.slow)]
)
def test_architectures_agree_with_a_call_per_window(tmp_path: Path, change: dict[str, Any]) -> None:
    config, size, name = open_clip.get_model_config("ViT-B-16-plus-240"), 240, "ViT-B-16-plus-240"
    if change:
        vision = {**TINY["vision_cfg"], "layers": change["layers"]}
        config, size, name = {**TINY, **change, "vision_cfg": vision}, 96, str(tmp_path / "config.json")
        del config["layers"]
        Path(name).write_text(json.dumps(config))
    model = open_clip_model(config, seed=1)
    backbone = load_backbone(name, str(save(model, tmp_path / "random.pt")), device="cpu")
    images = random_images(1, size)
    assert_embeddings_close(backbone.encode(images), plain_embeddings(model, images))
    prompts = ["a photo of a damaged bolt.", "a photo of the flawless felt for visual inspection."]
    with torch.inference_mode():
        expected = model.encode_text(open_clip.tokenize(prompts))
    assert float((backbone.embed_prompts(prompts) - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


def test_another_image_size_resizes_the_positional_embedding_as_open_clip_does(tmp_path: Path) -> None:
    size = 160
    checkpoint = save(open_clip_model(TINY, seed=2), tmp_path / "random.pt")
    resized = open_clip.CLIP(**{**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": size}}).eval()
    open_clip.load_checkpoint(resized, str(checkpoint))
    backbone = load_backbone(str(CONFIG), str(checkpoint), device="cpu", image_size=size)
    assert backbone.grid == size // 16
    images = random_images(1, size)
    with torch.inference_mode():
        expected = resized.encode_image(images)
    assert float((backbone.encode(images).cls - expected).abs().max()) <= 1e-4 * float(expected.abs().max())


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_stays_near_and_returns_float32(
    checkpoint: Path, backbone: ClipBackbone, precision: str
) -> None:
    half = load_backbone(str(CONFIG), str(checkpoint), device="cpu", precision=precision)
    images = random_images(1, 96)
    actual, expected = half.encode(images), backbone.encode(images)
    assert actual.windows[0].dtype == torch.float32
    assert float(torch.cosine_similarity(actual.windows[0], expected.windows[0], dim=-1).min()) > 0.99


@pytest.mark.parametrize("kind", ["half", "old", "training", "safetensors"])
def test_checkpoint_formats_give_the_same_weights(tmp_path: Path, kind: str) -> None:
    state, path = open_clip_model(TINY, seed=3).state_dict(), tmp_path / "weights.pt"
    wrapped = {f"module.{name}": value for name, value in state.items()}
    if kind == "safetensors":
        path = path.with_suffix(".safetensors")
        safetensors.torch.save_file(wrapped, path)
    elif kind == "training":
        torch.save({"epoch": 3, "state_dict": wrapped}, path)
    else:
        state = {name: value.half() for name, value in state.items()}
        # The format before torch 1.6.
        torch.save(state, path, _use_new_zipfile_serialization=kind != "old")
    read = read_checkpoint(path)
    assert set(read) == set(state) - {"logit_scale"}
    assert all(torch.equal(read[name], state[name].float()) for name in read)


@pytest.mark.parametrize(
    "value", [torch.zeros(1).expand(10**12), torch.zeros(2, dtype=torch.int8), torch.tensor([0.0, float("nan")])]
)
def test_tensors_that_are_no_weights_are_refused(tmp_path: Path, value: torch.Tensor) -> None:
    torch.save({"visual.proj": value}, tmp_path / "odd.pt")
    with pytest.raises(InputError, match=r"odd\.pt: visual\.proj"):
        read_checkpoint(tmp_path / "odd.pt")


class _Trap:
    """Unpickling this would create a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("with_torch", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_executed(tmp_path: Path, with_torch: bool) -> None:
    path, sign = tmp_path / "trap.pt", tmp_path / "executed"
    content = {"visual.proj": _Trap(sign)}
    torch.save(content, path) if with_torch else path.write_bytes(pickle.dumps(content))
    with pytest.raises(InputError, match=r"trap.pt cannot be read"):
        read_checkpoint(path)
    assert not sign.exists()
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path)
    with pytest.raises(InputError, match=r"trap.pt .*TorchScript"):
        read_checkpoint(path)


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
def test_damaged_checkpoints_are_named(checkpoint: Path, tmp_path: Path, ending: str) -> None:
    whole = tmp_path / f"whole{ending}"
    state = read_checkpoint(checkpoint)
    safetensors.torch.save_file(state, whole) if ending == ".safetensors" else torch.save(state, whole)
    cut = tmp_path / f"cut{ending}"
    cut.write_bytes(whole.read_bytes()[:5000])
    with pytest.raises(InputError, match=f"cut{ending} cannot be read as plain tensors"):
        read_checkpoint(cut)


def test_checkpoint_of_another_model_names_the_first_three_tensors(tmp_path: Path) -> None:
    other = {**TINY, "embed_dim": 16, "vision_cfg": {**TINY["vision_cfg"], "layers": 2}}
    path = save(open_clip_model(other, seed=4), tmp_path / "other.pt")
    with pytest.raises(InputError) as error:
        load_backbone(str(CONFIG), str(path), device="cpu")
    message = str(error.value)
    assert str(path) in message and str(CONFIG) in message and message.count(" in the model") == 3
    assert "text_projection is (32, 16) in the file, (32, 32) in the model" in message
    assert "visual.transformer.resblocks.2.attn.in_proj_bias is missing in the file" in message


@pytest.mark.parametrize("size", [100, 32, -96])
def test_image_size_must_fit_the_patches(checkpoint: Path, size: int) -> None:
    with pytest.raises(InputError, match=f"image size {size} .*multiple of the patch size 16, at least 48"):
        load_backbone(str(CONFIG), str(checkpoint), device="cpu", image_size=size)


@pytest.mark.parametrize(
    ("name", "setting"),
    [
        ("RN50", "vision_cfg.layers"),
        ("ViT-B-16-SigLIP", "vision_cfg.timm_model_name"),
        ("coca_ViT-B-32", "vision_cfg.attentional_pool"),
        ("roberta-ViT-B-32", "text_cfg.hf_model_name"),
    ],
)
def test_other_towers_are_refused_and_working_kinds_named(name: str, setting: str) -> None:
    with pytest.raises(InputError, match=rf"{name}: {setting} .*ViT-B-16-plus-240"):
        parse_config(open_clip.get_model_config(name), name)


@pytest.mark.parametrize(
    ("name", "grid", "heads"),
    [("ViT-B-16-plus-240", 15, 14), ("ViT-L-14-336", 24, 16), ("ViT-B-32-quickgelu", 7, 12)],
)
def test_plain_towers_are_accepted_with_open_clips_parameters(name: str, grid: int, heads: int) -> None:
    raw = open_clip.get_model_config(name)
    config = parse_config(raw, name)
    assert (config.grid, config.heads, config.quick_gelu) == (grid, heads, "quickgelu" in name)
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in Clip(config).state_dict().items()}
        theirs = {key: tuple(value.shape) for key, value in open_clip.CLIP(**raw).state_dict().items()}
    theirs.pop("logit_scale")
    assert ours == theirs


@pytest.mark.parametrize(
    ("model", "pretrained", "message"),
    [
        ("ViT-B-16-plus-24", None, "'ViT-B-16-plus-24' .*ViT-B-16-plus-240"),
        ("ViT-B-16-plus-240", "laion400m_e33", "'laion400m_e33' .*laion400m_e31"),
        ("ViT-B-16-plus-240", "weights.pt", "checkpoint weights.pt"),
        (str(CONFIG), "laion400m_e31", "'laion400m_e31' is not a file"),
        ("nowhere.json", None, "nowhere.json cannot be read"),
    ],
)
def test_unknown_names_are_answered_with_near_ones(model: str, pretrained: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_backbone(model, pretrained, device="cpu")


@pytest.mark.parametrize(
    ("part", "change", "named"),
    [
        ("vision_cfg", {"layers": 10**9}, "vision_cfg.layers"),
        ("vision_cfg", {"width": "64"}, "vision_cfg.width"),
        ("text_cfg", {"mlp_ratio": float("nan")}, "text_cfg.mlp_ratio"),
        ("text_cfg", {"heads": 7}, "text_cfg.width 32"),
        ("preprocess_cfg", {"std": [1, 1, 0]}, "preprocess_cfg.std"),
        ("preprocess_cfg", {"mean": "grey"}, "preprocess_cfg.mean"),
    ],
)
def test_settings_that_make_no_model_are_named(
    checkpoint: Path, tmp_path: Path, part: str, change: dict[str, Any], named: str
) -> None:
    path = tmp_path / "config.json"
    changed = {**TINY, part: {**TINY.get(part, {}), **change}}
    preprocessing = changed.pop("preprocess_cfg", {})
    path.write_text(json.dumps({"model_cfg": changed, "preprocess_cfg": preprocessing}))
    with pytest.raises(InputError, match=rf"model config \S*config\.json: {named}"):
        load_backbone(str(path), str(checkpoint), device="cpu")


@pytest.mark.slow
def test_fetched_weights_are_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = save(open_clip_model(open_clip.get_model_config("ViT-B-32"), seed=0), tmp_path / "cached.bin")
    monkeypatch.setattr(pretrained, "find_weights", lambda tag: path)
    backbone = load_backbone("ViT-B-32", "openai", device="cpu")
    # OpenAI's weights expect QuickGELU, whether the model's name says so or not.
    assert isinstance(backbone, ClipBackbone) and backbone.clip.config.quick_gelu
    assert backbone.mean == pytest.approx((0.48145466, 0.4578275, 0.40821073))
    assert backbone.weights_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_configs_are_those_of_open_clip() -> None:
    for name in open_clip.list_models():
        assert read_config(name) == (open_clip.get_model_config(name), {})


def test_devices_and_precisions() -> None:
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_precision("auto", torch.device("cpu")) == "fp32"
    with pytest.raises(InputError, match=r"'cuda:7'.* auto, cpu"):
        resolve_device("cuda:7")
    for name in ("int4", "tf32"):
        with pytest.raises(InputError, match=f"precision '{name}'"):
            resolve_precision(name, torch.device("cpu"))


def test_prompts_longer_than_the_context_are_an_error(backbone: ClipBackbone) -> None:
    with pytest.raises(InputError, match=r"has 103 tokens, .*takes 77"):
        backbone.embed_prompts(["a bolt", "a " * 101])


def test_tokens_are_open_clips(backbone: ClipBackbone) -> None:
    prompts = ["a photo of the flawless metal_nut.", "Ünïcode, 12 bolts"]
    np.testing.assert_array_equal(tokenize(prompts, 77)[:, :77].numpy(), open_clip.tokenize(prompts).numpy())
    assert backbone.longest_prompt(prompts) == int((open_clip.tokenize(prompts) != 0).sum(dim=1).max())
