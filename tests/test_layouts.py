"""Checkpoints from other sources: other layouts, wrappers, prefixes, and files that are no weights."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.tiny import CONFIG, open_clip_model
from winclip.network.clip_backbone import load_backbone
from winclip.network.pretrained import read_checkpoint
from winclip.support.errors import InputError

State = dict[str, torch.Tensor]
STATE: State = open_clip_model(json.loads(CONFIG.read_text()), seed=7).state_dict()
# transformers' names of a layer's parts.
LAYER = {"ln_1": "layer_norm1", "ln_2": "layer_norm2", "mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
LAYER |= {"attn.out_proj": "self_attn.out_proj"}
NAMES = {
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre": "vision_model.pre_layrnorm",
    "visual.ln_post": "vision_model.post_layernorm",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final": "text_model.final_layer_norm",
    "logit_scale": "logit_scale",
}


def of_transformers(state: State) -> State:
    """The state dict of transformers' CLIPModel with the same weights, as older versions wrote it."""
    found: State = {f"{part}_model.embeddings.position_ids": torch.arange(7)[None] for part in ("text", "vision")}
    found["text_projection.weight"] = state["text_projection"].T.contiguous()
    found["visual_projection.weight"] = state["visual.proj"].T.contiguous()
    for name, value in state.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        if "resblocks" in name:
            number, _, rest = name.split("resblocks.")[1].partition(".")
            part, _, kind = rest.rpartition(".")
            layer = f"{tower}.encoder.layers.{number}"
            if "in_proj" in rest:
                for letter, third in zip("qkv", value.chunk(3)):
                    found[f"{layer}.self_attn.{letter}_proj.{rest.split('in_proj_')[1]}"] = third.clone()
            else:
                found[f"{layer}.{LAYER[part]}.{kind}"] = value
        elif name not in ("text_projection", "visual.proj"):
            stem, _, kind = name.rpartition(".")
            found[NAMES[name] if name in NAMES else f"{NAMES[stem]}.{kind}"] = value
    return found


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    "content",
    [
        of_transformers(STATE),
        prefixed("model.", of_transformers(STATE)),
        {"model_state_dict": of_transformers(STATE), "epoch": 3},
        {"model_state_dict": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        {"model": prefixed("_orig_mod.", STATE), "epoch": 3, "args": {"lr": 0.1}},
        {"ema": {"module": prefixed("clip.", STATE)}},
        {"state_dict": prefixed("module.clip_model.", STATE)},
        prefixed("_orig_mod.module.", STATE),
        prefixed("model.", STATE),
    ],
    ids=range(9),
)
def test_every_layout_gives_the_weights_of_open_clips(tmp_path: Path, content: Any) -> None:
    # Safetensors hold only tensors; some are named .bin.
    wrapped = any(isinstance(value, dict) for value in content.values())
    for ending in (".pt", ".bin") if wrapped else (".pt", ".safetensors", ".bin"):
        path = tmp_path / f"weights{ending}"
        torch.save(content, path) if wrapped or ending == ".pt" else safetensors.torch.save_file(content, path)
        read = read_checkpoint(path)
        assert set(read) == set(STATE) - {"logit_scale"}
        assert all(torch.equal(value, STATE[name]) for name, value in read.items())


def test_transformers_layout_gives_the_embeddings_of_open_clips(tmp_path: Path) -> None:
    backbones = []
    for name, state in (("plain", STATE), ("transformers", of_transformers(STATE))):
        torch.save(state, tmp_path / f"{name}.pt")
        backbones.append(load_backbone(str(CONFIG), str(tmp_path / f"{name}.pt"), device="cpu"))
    image = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    first, second = (backbone.encode(image) for backbone in backbones)
    for one, other in zip((first.cls, first.patch, *first.windows), (second.cls, second.patch, *second.windows)):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    texts = [backbone.embed_prompts(["a photo of a bolt."]) for backbone in backbones]
    torch.testing.assert_close(texts[0], texts[1], rtol=0, atol=1e-6)


def test_of_several_clips_the_first_is_taken_and_said(tmp_path: Path, logged: list[str]) -> None:
    other = {name: value + 1 for name, value in STATE.items()}
    torch.save({"model": STATE, "ema": other}, tmp_path / "two.pt")
    read = read_checkpoint(tmp_path / "two.pt")
    assert torch.equal(read["visual.proj"], STATE["visual.proj"])
    assert logged == [f"checkpoint {tmp_path / 'two.pt'} holds several CLIPs; model is taken, not ema"]


def test_half_of_a_layout_is_named_and_not_joined(tmp_path: Path) -> None:
    state = of_transformers(STATE)
    del state["vision_model.encoder.layers.0.self_attn.k_proj.weight"]
    state["text_model.encoder.layers.0.self_attn.k_proj.bias"] = torch.zeros(3)
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(InputError, match=r"half\.pt does not fit model .*in_proj_bias is missing in the file"):
        load_backbone(str(CONFIG), str(tmp_path / "half.pt"), device="cpu")
    # A file whose header promises more than it holds.
    state["vision_model.encoder.layers.0.self_attn.q_proj.weight"] = torch.zeros(1).expand(10**6, 10**6)
    torch.save(state, tmp_path / "huge.pt")
    with pytest.raises(InputError, match="is no plain tensor of finite numbers"):
        read_checkpoint(tmp_path / "huge.pt")


@pytest.mark.parametrize("wrapper", ["", "state_dict", "model_state_dict", "model"])
def test_values_of_numpy_beside_weights_are_named_with_the_way_out(tmp_path: Path, wrapper: str) -> None:
    path = tmp_path / "it's.pt"
    torch.save({"loss": np.float64(0.5), **({wrapper: STATE} if wrapper else STATE)}, path)
    with pytest.raises(InputError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert f"{path} cannot be read as plain tensors: beside tensors it holds numpy." in message
    assert "never executed" in message and "\x1b" not in message and "x1b" not in message
    command = shlex.split(message[message.index("python -c") :])
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True)
    assert read_checkpoint(tmp_path / "weights.pt").keys() == STATE.keys() - {"logit_scale"}


@pytest.mark.parametrize("ending", [".pt", ".safetensors"])
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 605000000\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html><body>Sign in</body></html>", "is a web page"),
        (b'\xef\xbb\xbf<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is a web page"),
        (b"", "is empty"),
        (b"Entry not found", "it is damaged"),
        (b"PK\x03\x04 cut", "it is damaged"),
        (b"\x80\x02}q\x00.", "holds no state dict|it is damaged"),
    ],
)
def test_what_is_no_checkpoint_is_named(tmp_path: Path, content: bytes, said: str, ending: str) -> None:
    path = tmp_path / f"weights{ending}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=said) as caught:
        read_checkpoint(path)
    assert str(path) in str(caught.value) and "weights_only" not in str(caught.value)
    assert "\\x1b" not in str(caught.value)
