"""The whole method with a backbone other than CLIP: it needs only ``winclip.network.backbone``."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import Predict
from winclip import InputError, WinCLIP
from winclip.embeddings import Embeddings
from winclip.network.backbone import Backbone
from winclip.windows import window_patches


class ColourMeans:
    """Embeds a picture and its windows by their mean colour, a patch by mean and spread, a prompt by its letters."""

    model, pretrained, weights_sha256 = "colour-means", "nothing", "0" * 64
    device, precision, kernels = torch.device("cpu"), "fp32", "plain"
    image_size, patch_size, grid = 48, 8, 6
    scales: tuple[int, ...] = (3, 2)
    embed_dim, patch_width, context_length, batch_size = 3, 6, 12, 4

    @property
    def fingerprint(self) -> dict[str, Any]:
        return {"model": self.model, "image_size": self.image_size, "scales": list(self.scales)}

    def encode(self, images: torch.Tensor, *, normalised: bool = True, windows: bool = True) -> Embeddings:
        side = self.patch_size
        pixels = images.float() / 255 + 0.01
        patches = pixels.unfold(1, side, side).unfold(2, side, side).flatten(1, 2).flatten(3)
        means, spreads = patches.mean(dim=3), patches.std(dim=3)
        of_windows = tuple(means[:, window_patches(self.grid, side)].mean(dim=2) for side in self.scales)
        return Embeddings(means.mean(dim=1), of_windows, torch.cat([means, spreads], dim=2), self.scales)

    def after_last_norm(self, patch: torch.Tensor) -> torch.Tensor:
        return patch

    def embed_prompts(self, prompts: Sequence[str]) -> torch.Tensor:
        self.longest_prompt(prompts)
        return torch.tensor([[1.0 + prompt.count(letter) for letter in "fam"] for prompt in prompts])

    def longest_prompt(self, prompts: Sequence[str]) -> int:
        longest = max(len(prompt.split()) for prompt in prompts)
        if longest > self.context_length:
            raise InputError(f"a prompt has {longest} words, {self.model} takes {self.context_length}")
        return longest


BACKBONE: Backbone = ColourMeans()


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points get this backbone, whatever model is named."""
    monkeypatch.setattr("winclip.network.clip_backbone.load_backbone", lambda *_, **__: BACKBONE)


def drawn() -> list[Image.Image]:
    """Four similar pictures, and one with a spot."""
    generator = np.random.RandomState(0)
    found = [generator.randint(90, 130, (60, 50, 3)).astype(np.uint8) for _ in range(5)]
    found[4][20:40, 20:40] = (255, 0, 0)
    return list(map(Image.fromarray, found))


def test_the_library_takes_any_backbone(tmp_path: Path) -> None:
    *good, spotted = drawn()
    model = WinCLIP(BACKBONE)
    model.set_class("bolt")
    assert model.predict(spotted).maps.shape == (1, 48, 48)
    model.add_references(good[:3])
    out = model.predict([good[3], spotted])
    threshold = model.threshold()
    assert threshold.judge(out) == [False, True]
    row, column = np.unravel_index(int(out.maps[1].argmax()), (48, 48))
    assert 16 <= row < 32 and 16 <= column < 40

    model.save_memory(tmp_path / "bolt.safetensors")
    again = WinCLIP(BACKBONE)
    again.set_class("bolt")
    again.load_memory(tmp_path / "bolt.safetensors")
    assert again.threshold() == threshold
    np.testing.assert_array_equal(again.predict(spotted).maps, out.maps[1:])
    with pytest.raises(InputError, match="too long"):
        model.set_class("nut " * 9)


@pytest.mark.usefixtures("loaded")
def test_test_py_takes_any_backbone(evaluate: Callable[..., int], data: Path, tmp_path: Path) -> None:
    save = tmp_path / "out"
    assert evaluate(data, save, "--k_shot", "0", "1", "--save_maps", "--batch_size", "auto") == 0
    config = json.loads((save / "config.json").read_text())
    used = config["options"]
    assert (config["finished"], used["precision"], used["batch_size"]) == (True, "fp32", BACKBONE.batch_size)
    assert config["weights_sha256"] == BACKBONE.weights_sha256
    with (save / "results.csv").open(newline="") as file:
        figures = {(row["k_shot"], row["objects"]): float(row["auroc_px"]) for row in csv.DictReader(file)}
    assert figures["1", "bolt"] > 95 and len(figures) == 6
    assert len((save / "scores.csv").read_text().splitlines()) == 1 + 2 * 12


@pytest.mark.usefixtures("loaded")
def test_predict_takes_any_backbone(run: Predict, pictures: Path) -> None:
    save = pictures / "out"
    assert run(pictures / "images", "--reference", pictures / "good", "--save_path", save) == 0
    rows = json.loads((save / "predictions.json").read_text())
    assert max(rows, key=lambda row: float(row["score"]))["path"].endswith("b.png")
