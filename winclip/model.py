"""The library's face: one object that holds a backbone, and for each class its text side and its references."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

import winclip
from winclip.backbone import DEFAULT_MODEL, Backbone, load_backbone
from winclip.clip import Embeddings
from winclip.errors import InputError
from winclip.images import ImageLike, as_image, as_sequence, preprocess
from winclip.memory import MemoryBank, associate, leave_one_out, read_memory, write_memory
from winclip.prompts import PromptSet, load_prompt_set
from winclip.scoring import few_shot, few_shot_maps, upsample, zero_shot
from winclip.text import class_embeddings, longest_prompt

# Raised when a change of this project changes what a memory holds or the scores that come from it.
_MEMORY_FORMAT = "winclip-memory-2"
_BANK = ("large", "mid", "patch")


@dataclass(frozen=True)
class Prediction:
    """Results of N images.

    Attributes:
        scores: (N,) float64; zero-shot and few-shot both in [0, 1], higher is more anomalous.
        maps: (N, S, S) float32 on the model's input size; zero-shot in [0, 1], few-shot in [0, 2].
    """

    scores: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float32]


@dataclass(frozen=True)
class _References:
    """The R references of a class.

    Attributes:
        bank: their embeddings.
        scores, maps: their zero-shot results, (R,) and (R, grid, grid) float64 on the CPU.
    """

    bank: MemoryBank
    scores: torch.Tensor
    maps: torch.Tensor


@dataclass
class _Class:
    """A class that is set. ``left_out`` holds the leave-one-out association maps once they were asked for."""

    name: str
    prompts: PromptSet
    text: torch.Tensor
    references: _References | None = None
    left_out: torch.Tensor | None = None


class WinCLIP:
    """Zero-shot and few-shot anomaly scores and maps.

    Name the class with ``set_class``, add normal reference images with ``add_references`` for
    few-shot, and call ``predict``.

    >>> from PIL import Image
    >>> from winclip import WinCLIP
    >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
    >>> model.set_class("metal nut")
    >>> good, part = Image.new("RGB", (64, 48), "grey"), Image.new("RGB", (320, 200), "white")
    >>> model.add_references(good)
    >>> out = model.predict([good, part])
    >>> out.scores.shape, out.maps.shape
    ((2,), (2, 240, 240))
    >>> bool(out.scores[0] < out.scores[1])
    True

    ``encode`` and ``score`` are the two halves of ``predict``. An image is encoded once for any number
    of classes; every class that was set stays, with its references, and is named by ``class_name``:

    >>> embeddings = model.encode([good, part])
    >>> model.set_class("wooden board")
    >>> board = model.score(embeddings)
    >>> nut = model.score(embeddings, class_name="metal nut")
    >>> bool((nut.scores == out.scores).all()), bool((board.scores == out.scores).all())
    (True, False)

    Images are paths (turned as their EXIF orientation says), PIL images, uint8 arrays (H, W) or
    (H, W, 3), or float tensors (3, H, W) or (N, 3, H, W) in [0, 1], of any size, one or several:

    >>> import numpy as np, torch
    >>> several = model.predict([np.zeros((50, 60), np.uint8), torch.zeros(3, 50, 60), Image.new("L", (60, 50))])
    >>> len(set(several.scores.tolist()))
    1
    """

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._classes: dict[str, _Class] = {}
        self._current: str | None = None

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

    def set_class(
        self, class_name: str, prompt_set: str | PromptSet = "reference", *, cache: str | PathLike[str] | None = None
    ) -> None:
        """Build the text side of a class and make it the one that later calls mean.

        Classes set before are kept with their references. A class set anew starts without references.

        Args:
            class_name: what the images show, such as ``metal nut``.
            prompt_set: ``reference``, ``paper``, the path of a prompt set .json, or a ``PromptSet``.
            cache: folder that keeps text embeddings from run to run; by default none does.

        Raises:
            InputError: if the name is empty or too long, or the prompt set is unknown or malformed.

        >>> from winclip import WinCLIP
        >>> from winclip.prompts import PAPER, with_states
        >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
        >>> model.set_class("connector", with_states(PAPER, anomalous_states=["bent", "with a missing pin"]))
        """
        if not class_name.strip():
            raise InputError("the class name is empty; say what the images show, such as 'metal nut'")
        prompts = load_prompt_set(prompt_set) if isinstance(prompt_set, str) else prompt_set
        try:
            text = class_embeddings(self.backbone, class_name, prompts, None if cache is None else Path(cache))
        except InputError as error:
            raise self._too_long(class_name, prompts) from error
        self._classes[class_name] = _Class(class_name, prompts, text)
        self._current = class_name

    def add_references(
        self, images: Sequence[ImageLike] | ImageLike | Embeddings, *, class_name: str | None = None
    ) -> None:
        """Add normal images of the class, or what ``encode`` made of them, to its memory bank; calls add up.

        Args:
            images: one or several images as the class describes them, or embeddings.
            class_name: a class that was set; by default the one set last.

        Raises:
            InputError: if the class is not set, there is no image, or one cannot be read.
        """
        held = self._held(class_name)
        embeddings = images if isinstance(images, Embeddings) else self.encode(images)
        scores, maps = zero_shot(embeddings, held.text, self.backbone.grid)
        bank = MemoryBank.of(embeddings)
        if held.references is not None:
            before = held.references
            bank = before.bank.extended(bank)
            scores, maps = torch.cat([before.scores, scores]), torch.cat([before.maps, maps])
        held.references = _References(bank, scores, maps)
        held.left_out = None

    def reference_count(self, *, class_name: str | None = None) -> int:
        """How many references a class has; by default the class set last.

        Raises:
            InputError: if the class is not set.
        """
        references = self._held(class_name).references
        return 0 if references is None else len(references.bank)

    def encode(self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8) -> Embeddings:
        """Embed images with all their windows and patches, once for any number of scorings.

        Args:
            images: one or several images as the class describes them.
            batch_size: images that go through the image tower together.

        Raises:
            InputError: if there is no image, or one cannot be read.
        """
        parts = [self._encode_batch(batch) for batch in _batches(as_sequence(images), batch_size)]
        if not parts:
            raise InputError("no images given")
        return Embeddings.concatenate(parts)

    def score(self, embeddings: Embeddings, *, class_name: str | None = None) -> Prediction:
        """Score encoded images for a class, few-shot if it has references.

        Args:
            embeddings: what ``encode`` gave.
            class_name: a class that was set; by default the one set last.

        Raises:
            InputError: if the class is not set.
        """
        held, grid = self._held(class_name), self.backbone.grid
        with torch.inference_mode():
            scores, maps = zero_shot(embeddings, held.text, grid)
            if held.references is not None:
                nearest = associate(embeddings, held.references.bank).nearest()
                scores, maps = few_shot(scores, maps, few_shot_maps(*nearest, grid))
            return self._prediction(scores, maps)

    def predict(
        self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8, *, class_name: str | None = None
    ) -> Prediction:
        """Score images: ``score(encode(images))`` without holding all embeddings at once.

        Args:
            images: one or several images as the class describes them.
            batch_size: images that go through the image tower together.
            class_name: a class that was set; by default the one set last.

        Raises:
            InputError: if the class is not set, there is no image, or one cannot be read.
        """
        name = self._held(class_name).name
        parts = [
            self.score(self._encode_batch(batch), class_name=name)
            for batch in _batches(as_sequence(images), batch_size)
        ]
        if not parts:
            raise InputError("no images given")
        return Prediction(
            np.concatenate([part.scores for part in parts]), np.concatenate([part.maps for part in parts])
        )

    def leave_one_out(self, *, class_name: str | None = None) -> Prediction:
        """Score every reference of a class against the memory of the others, as if it were a new image.

        These are scores of normal images that a decision threshold can be taken from.

        Raises:
            InputError: if the class is not set or has fewer than 2 references.

        >>> from PIL import Image
        >>> from winclip import WinCLIP
        >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
        >>> model.set_class("metal nut")
        >>> model.add_references([Image.new("RGB", (64, 64), colour) for colour in ("grey", "silver", "black")])
        >>> model.leave_one_out().scores.shape
        (3,)
        """
        held = self._held(class_name)
        references = held.references
        if references is None or len(references.bank) < 2:
            raise InputError(f"class '{held.name}' has too few references to leave one out; add at least 2")
        with torch.inference_mode():
            scores, maps = few_shot(references.scores, references.maps, self._left_out_maps(held))
            return self._prediction(scores, maps)

    def save_memory(self, path: str | PathLike[str], *, class_name: str | None = None) -> None:
        """Write the references of a class and what they were made with to a .safetensors file.

        The file holds the memory bank, the references' zero-shot and leave-one-out results, the model's
        name, the weights' checksum, image size and precision, the class name, the prompts, and versions.

        Raises:
            InputError: if there are no references or the file cannot be written.

        >>> import tempfile
        >>> from PIL import Image
        >>> from winclip import WinCLIP
        >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
        >>> model.set_class("metal nut")
        >>> model.add_references([Image.new("RGB", (64, 64), "grey"), Image.new("RGB", (64, 64), "silver")])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     model.save_memory(f"{folder}/nut.safetensors")
        ...     model.set_class("metal nut")
        ...     model.load_memory(f"{folder}/nut.safetensors")
        >>> model.reference_count()
        2
        """
        held = self._held(class_name)
        references = held.references
        if references is None:
            raise InputError(f"there is no memory to save to {path}; add references first")
        tensors = {name: getattr(references.bank, name) for name in _BANK}
        tensors |= {"zero_shot_scores": references.scores, "zero_shot_maps": references.maps}
        if len(references.bank) > 1:
            tensors["left_out_maps"] = self._left_out_maps(held)
        write_memory(path, tensors, {**self._made_with(held), "version": winclip.__version__})

    def load_memory(self, path: str | PathLike[str], *, class_name: str | None = None) -> None:
        """Replace the references of a class by those that ``save_memory`` wrote for the same model and class.

        Raises:
            InputError: if the file is missing, damaged, or made with anything else; says what differs.
        """
        held = self._held(class_name)
        tensors, found = read_memory(path)
        differing = [
            f"{key} is {reprlib.repr(found.get(key))}, not {reprlib.repr(value)}"
            for key, value in self._made_with(held).items()
            if found.get(key) != value
        ]
        if differing:
            raise InputError(f"memory {path} does not fit: {'; '.join(differing)}")
        if not {*_BANK, "zero_shot_scores", "zero_shot_maps"} <= set(tensors):
            raise InputError(f"memory {path} does not fit: it holds {', '.join(sorted(tensors))}")
        bank = MemoryBank(*(tensors[name].to(self.backbone.device) for name in _BANK))
        held.references = _References(bank, tensors["zero_shot_scores"], tensors["zero_shot_maps"])
        held.left_out = tensors.get("left_out_maps")

    def _made_with(self, held: _Class) -> dict[str, Any]:
        """Everything that has to be the same for a memory to give the same scores, as JSON gives it back."""
        backbone = self.backbone
        made_with = {
            "format": _MEMORY_FORMAT,
            # Of a config file only the name: the weights' checksum and the settings below say the rest.
            "model": model_name(backbone.model),
            "weights_sha256": backbone.weights_sha256,
            "image_size": backbone.image_size,
            "image_mean": backbone.mean,
            "image_std": backbone.std,
            "quick_gelu": backbone.clip.config.quick_gelu,
            "precision": str(backbone.dtype).split(".")[-1],
            "class_name": held.name,
            "prompts": asdict(held.prompts),
        }
        as_read: dict[str, Any] = json.loads(json.dumps(made_with))
        return as_read

    def _left_out_maps(self, held: _Class) -> torch.Tensor:
        if held.left_out is None:
            assert held.references is not None
            held.left_out = few_shot_maps(*leave_one_out(held.references.bank), self.backbone.grid)
        return held.left_out

    def _prediction(self, scores: torch.Tensor, maps: torch.Tensor) -> Prediction:
        upsampled = upsample(maps, self.backbone.image_size)
        return Prediction(scores.numpy(), upsampled.to(torch.float32).numpy())

    def _held(self, class_name: str | None) -> _Class:
        name = self._current if class_name is None else class_name
        if name is None:
            raise InputError("no class is set; call set_class first, for example set_class('metal nut')")
        if name not in self._classes:
            raise InputError(f"class '{name}' is not set, only {', '.join(self._classes) or 'none'}; call set_class")
        return self._classes[name]

    def _too_long(self, class_name: str, prompts: PromptSet) -> InputError:
        context = self.backbone.clip.config.context_length
        # A stand-in of one token tells how much room the prompts leave; states too long raise here.
        room = context - longest_prompt(self.backbone, "x", prompts) + 1
        return InputError(
            f"class name {reprlib.repr(class_name)} is too long: a prompt has {context} tokens, of which {room} are"
            " left for the name (a token is a common word or a part of a rare one)"
        )

    def _encode_batch(self, images: Sequence[ImageLike]) -> Embeddings:
        backbone = self.backbone
        tensors = [preprocess(as_image(image), backbone.image_size, backbone.mean, backbone.std) for image in images]
        return backbone.encode(torch.stack(tensors))


def model_name(model: str) -> str:
    """A model as a memory names it: of the path of a config file only the last part."""
    return Path(model).name if model.endswith(".json") else model


def _batches(images: Iterable[ImageLike], size: int) -> Iterator[list[ImageLike]]:
    batch: list[ImageLike] = []
    for image in images:
        batch.append(image)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch
