"""The library's face: one object that holds a backbone, a class and its references."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.torch
import torch
from PIL import Image

from winclip.backbone import DEFAULT_MODEL, Backbone, load_backbone
from winclip.clip import Embeddings
from winclip.errors import InputError
from winclip.files import write_atomically
from winclip.images import ImageLike, preprocess, read_image
from winclip.memory import MemoryBank, associate
from winclip.prompts import load_prompt_set
from winclip.scoring import few_shot, few_shot_maps, upsample, zero_shot
from winclip.text import class_embeddings

_MEMORY_FORMAT = "winclip-memory-1"


@dataclass(frozen=True)
class Prediction:
    """Results of N images.

    Attributes:
        scores: (N,) float64; zero-shot and few-shot both in [0, 1], higher is more anomalous.
        maps: (N, S, S) float32 on the model's input size; zero-shot in [0, 1], few-shot in [0, 2].
    """

    scores: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float32]


class WinCLIP:
    """Zero-shot and few-shot anomaly scores and maps.

    Name the class with ``set_class``, add normal reference images with ``add_references`` for
    few-shot, and call ``predict``. ``encode`` and ``score`` are the two halves of ``predict``.
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._class: tuple[str, str] | None = None
        self._text: torch.Tensor | None = None
        self._bank: MemoryBank | None = None

    @classmethod
    def from_pretrained(
        cls,
        model: str = DEFAULT_MODEL,
        pretrained: str | None = None,
        *,
        device: str = "auto",
        precision: str = "auto",
        image_size: int | None = None,
    ) -> WinCLIP:
        """Load a backbone; the arguments are those of ``winclip.backbone.load_backbone``.

        Raises:
            InputError: if anything given is unknown, unreachable, or does not fit together.
        """
        return cls(load_backbone(model, pretrained, device=device, precision=precision, image_size=image_size))

    def set_class(self, class_name: str, prompt_set: str = "reference") -> None:
        """Build the text side for a class; references of an earlier class are dropped.

        Args:
            class_name: what the images show, such as ``metal nut``.
            prompt_set: ``reference``, ``paper`` or the path of a prompt set .json.

        Raises:
            InputError: if the name is empty or too long, or the prompt set is unknown or malformed.
        """
        if not class_name.strip():
            raise InputError("the class name is empty; say what the images show, such as 'metal nut'")
        self._text = class_embeddings(self.backbone, class_name, load_prompt_set(prompt_set))
        self._class = (class_name, prompt_set)
        self._bank = None

    def add_references(self, images: Sequence[ImageLike] | ImageLike) -> None:
        """Add normal images of the class to its memory bank; calls add up.

        Raises:
            InputError: if no class is set or an image cannot be read.
        """
        self._require_class()
        embeddings = self.encode(images)
        if len(embeddings):
            bank = MemoryBank.of(embeddings)
            self._bank = bank if self._bank is None else self._bank.extended(bank)

    def encode(self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8) -> Embeddings:
        """Embed images with all their windows and patches, once for any number of scorings.

        Args:
            images: one or several PIL images, uint8 arrays (H, W) or (H, W, 3), or paths.
            batch_size: images that go through the image tower together.

        Raises:
            InputError: if there is no image, or one cannot be read.
        """
        parts = [self._encode_batch(batch) for batch in _batches(_as_sequence(images), batch_size)]
        if not parts:
            raise InputError("no images given")
        return Embeddings.concatenate(parts)

    def score(self, embeddings: Embeddings) -> Prediction:
        """Score encoded images for the class that is set, few-shot if it has references.

        Raises:
            InputError: if no class is set.
        """
        text, grid = self._require_class(), self.backbone.grid
        with torch.inference_mode():
            scores, maps = zero_shot(embeddings, text, grid)
            if self._bank is not None:
                nearest = associate(embeddings, self._bank).nearest()
                scores, maps = few_shot(scores, maps, few_shot_maps(*nearest, grid))
            upsampled = upsample(maps, self.backbone.image_size)
        return Prediction(scores.numpy(), upsampled.to(torch.float32).numpy())

    def predict(self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8) -> Prediction:
        """Score images: ``score(encode(images))`` without holding all embeddings at once.

        Raises:
            InputError: if no class is set, there is no image, or one cannot be read.
        """
        self._require_class()
        parts = [self.score(self._encode_batch(batch)) for batch in _batches(_as_sequence(images), batch_size)]
        if not parts:
            raise InputError("no images given")
        return Prediction(
            np.concatenate([part.scores for part in parts]), np.concatenate([part.maps for part in parts])
        )

    def save_memory(self, path: str | PathLike[str]) -> None:
        """Write the memory bank and what it was made with to a .safetensors file.

        Raises:
            InputError: if there are no references or the folder cannot be written.
        """
        if self._bank is None:
            raise InputError(f"there is no memory to save to {path}; add references first")
        tensors = {name: getattr(self._bank, name).cpu() for name in ("large", "mid", "patch")}
        content = safetensors.torch.save(tensors, metadata={"winclip": json.dumps(self._provenance(), sort_keys=True)})
        write_atomically(Path(path), content)

    def load_memory(self, path: str | PathLike[str]) -> None:
        """Replace the memory bank by one that ``save_memory`` wrote for the same model and class.

        Raises:
            InputError: if the file is missing, damaged, or made with anything else; says what differs.
        """
        expected = self._provenance()
        try:
            with safetensors.safe_open(str(path), framework="pt") as file:
                found = json.loads((file.metadata() or {}).get("winclip", "{}"))
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        except (OSError, ValueError, safetensors.SafetensorError) as error:
            raise InputError(f"memory {path} cannot be read ({error}); save it again with save_memory") from error
        differing = [
            f"{key} is {found.get(key)!r}, not {value!r}" for key, value in expected.items() if found.get(key) != value
        ]
        if differing or set(tensors) != {"large", "mid", "patch"}:
            reason = "; ".join(differing) or f"it holds {sorted(tensors)}"
            raise InputError(f"memory {path} does not fit: {reason}")
        self._bank = MemoryBank(**{name: tensor.to(self.backbone.device) for name, tensor in tensors.items()})

    def _provenance(self) -> dict[str, Any]:
        self._require_class()
        assert self._class is not None
        return {
            "format": _MEMORY_FORMAT,
            "weights_sha256": self.backbone.weights_sha256,
            "image_size": self.backbone.image_size,
            "class_name": self._class[0],
        }

    def _require_class(self) -> torch.Tensor:
        if self._text is None:
            raise InputError("no class is set; call set_class first, for example set_class('metal nut')")
        return self._text

    def _encode_batch(self, images: Sequence[ImageLike]) -> Embeddings:
        backbone = self.backbone
        tensors = [preprocess(_as_image(image), backbone.image_size, backbone.mean, backbone.std) for image in images]
        return backbone.encode(torch.stack(tensors))


def _as_sequence(images: Sequence[ImageLike] | ImageLike) -> Sequence[ImageLike]:
    if isinstance(images, (str, PathLike, Image.Image)) or (isinstance(images, np.ndarray) and images.ndim < 4):
        return [images]
    return images  # type: ignore[return-value]


def _as_image(image: ImageLike) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, (str, PathLike)):
        return read_image(image)
    array = np.asarray(image)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] == 3)):
        raise InputError(
            f"array of shape {array.shape} and type {array.dtype} is no image; give uint8 of shape (H, W) or (H, W, 3)"
        )
    return Image.fromarray(array)


def _batches(images: Iterable[ImageLike], size: int) -> Iterator[list[ImageLike]]:
    batch: list[ImageLike] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
