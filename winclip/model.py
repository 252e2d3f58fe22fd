"""The library's main class: a backbone, and the text embeddings and references of each class."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image

from winclip.defaults import DEFAULT_MODEL, SCALES, TEMPERATURE, check_temperature
from winclip.embeddings import Embeddings
from winclip.made_with import differing, made_with
from winclip.memory import MemoryBank, check_tensors, read_memory, write_memory
from winclip.network.backbone import Backbone
from winclip.network.clip_backbone import load_backbone
from winclip.pictures.images import ImageLike, as_image, as_sequence, to_rgb
from winclip.pictures.intake import Intake
from winclip.pictures.preparing import WHOLE, Pixels, prepare
from winclip.prompts import PromptSet, load_prompt_set
from winclip.results import Prediction
from winclip.scoring import GridScores, leave_one_out, score_images
from winclip.support.errors import InputError
from winclip.text import class_embeddings
from winclip.thresholds import LeftOut, Threshold, fallback_threshold, from_leave_one_out
from winclip.variants import REFERENCE, Variant, check_image_only, parse_variant

_log = logging.getLogger("winclip")

# Increased when a change of this project changes the content of a memory or the scores computed from it.
_MEMORY_FORMAT = "winclip-memory-4"


@dataclass
class _Class:
    """A class that is set. ``left_out`` caches the leave-one-out results."""

    name: str
    prompts: PromptSet
    text: torch.Tensor
    bank: MemoryBank | None = None
    left_out: GridScores | None = None


class WinCLIP:
    """Zero-shot and few-shot anomaly scores and maps.

    Load a model with ``from_pretrained``, name the class with ``set_class``, add normal reference images with
    ``add_references`` for few-shot, and call ``predict``. In a notebook ``out[0]`` shows the first heat map.

    >>> from PIL import Image
    >>> from winclip import WinCLIP
    >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
    >>> model.set_class("metal nut")
    >>> good, part = Image.new("RGB", (64, 48), "grey"), Image.new("RGB", (320, 200), "white")
    >>> model.add_references(good)
    >>> out = model.predict([good, part])
    >>> out.scores.shape, out.maps.shape
    ((2,), (2, 240, 240))
    >>> out[0].score < out[1].score
    True
    >>> out[1].heat_map().size
    (320, 214)

    With two or more references, ``threshold`` finds the decision threshold, and ``out[0].anomalous`` is a verdict.

    ``encode`` and ``score`` are the two halves of ``predict``. An image is encoded once for any number
    of classes; every class that was set stays, with its references, and is selected by ``class_name``:

    >>> embeddings = model.encode([good, part])
    >>> model.set_class("wooden board")
    >>> board = model.score(embeddings)
    >>> nut = model.score(embeddings, class_name="metal nut")
    >>> bool((nut.scores == out.scores).all()), bool((board.scores == out.scores).all())
    (True, False)

    Images are paths (turned as their EXIF orientation says), PIL images, uint8 arrays (H, W) or
    (H, W, 3), or float tensors (3, H, W) or (N, 3, H, W) in [0, 1], of any size, one or several. Colours
    are RGB; convert OpenCV's BGR arrays with ``array[..., ::-1]``:

    >>> import numpy as np, torch
    >>> several = model.predict([np.zeros((50, 60), np.uint8), torch.zeros(3, 50, 60), Image.new("L", (60, 50))])
    >>> len(set(several.scores.tolist()))
    1
    """

    def __init__(
        self,
        backbone: Backbone,
        temperature: float = TEMPERATURE,
        white: int | None = None,
        variant: Variant = REFERENCE,
        image_only: bool = False,
    ) -> None:
        """Take a backbone.

        Args:
            backbone: a loaded backbone; ``from_pretrained`` loads one.
            temperature: of the softmax, above 0; a value other than the reference's replaces the variant's.
            white: the value that is white in pictures of more than 8 bits (65535), such as 4095.
            variant: the way of computing.
            image_only: embed the images without windows: the same scores, no maps, and no references.

        Raises:
            InputError: if the temperature is not valid, or references and images would be encoded differently.
        """
        sound = replace(variant, bgr_tests=False, unscaled_references=False)
        if faults := ", ".join(variant.changes(sound)):
            raise InputError(
                f"variant {variant.name}: {faults} is a fault that only test.py reproduces; say {sound.name}"
            )
        if image_only:
            check_image_only(variant)
        self.backbone = backbone
        self.intake = Intake(white)
        changed = check_temperature(temperature) != TEMPERATURE
        self.variant = replace(variant, temperature=temperature) if changed else variant
        self.image_only = image_only
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
        scales: Sequence[int] = SCALES,
        temperature: float = TEMPERATURE,
        white: int | None = None,
        variant: str | Variant = "reference",
    ) -> WinCLIP:
        """Load a model; its weights come from the Hugging Face hub on first use, the demo's from the package.

        Args:
            model: an open_clip model name, ``demo-vit-240``, or the path of an open_clip config .json.
            pretrained: an open_clip tag or the path of a checkpoint (``laion400m_e31``; the demo has its own weights).
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
            precision: ``auto`` (fp32), ``fp32``, ``tf32`` (CUDA), ``bf16``, ``fp16``.
            image_size: side in pixels, a multiple of the patch size; by default the model's own.
            scales: sides of the windows in patches.
            temperature: of the softmax over normal and anomalous, above 0.
            white: the value that is white in pictures of more than 8 bits (65535), such as 4095.
            variant: which implementation's way of computing, such as ``anomalib``; see ``winclip.variants``.

        Raises:
            InputError: if anything given is unknown, unreachable, or does not fit together.
        """
        how = parse_variant(variant) if isinstance(variant, str) else variant
        backbone = load_backbone(
            model, pretrained, device=device, precision=precision, image_size=image_size, scales=scales
        )
        return cls(backbone, temperature, white, how)

    @property
    def temperature(self) -> float:
        """Temperature of the softmax over normal and anomalous."""
        return self.variant.temperature

    def set_class(
        self, class_name: str, prompt_set: str | PromptSet | None = None, *, cache: str | PathLike[str] | None = None
    ) -> None:
        """Embed the prompts of a class and make it the default for later calls.

        Earlier classes are kept with their references. A class that is set again starts without references.

        Args:
            class_name: what the images show, such as ``metal nut``.
            prompt_set: ``reference``, ``paper``, the path of a prompt set .json, or a ``PromptSet``; by default the
                variant's.
            cache: folder that keeps text embeddings between runs; by default none.

        Raises:
            InputError: if the name is empty or too long, or the prompt set is unknown or malformed.

        >>> from winclip import WinCLIP
        >>> from winclip.prompts import PAPER, with_states
        >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
        >>> model.set_class("connector", with_states(PAPER, anomalous_states=["bent", "with a missing pin"]))
        """
        if not isinstance(class_name, str) or not class_name.strip():
            wrong = "empty" if isinstance(class_name, str) else f"{class_name!r:.100}, which is not text"
            raise InputError(f"the class name is {wrong}; say what the images show, such as 'metal nut'")
        prompts = load_prompt_set(prompt_set) if isinstance(prompt_set, str) else prompt_set or self.variant.prompts
        try:
            text = class_embeddings(self.backbone, class_name, prompts, None if cache is None else Path(cache))
        except InputError as error:
            raise self._too_long(class_name, prompts) from error
        self._classes[class_name] = _Class(class_name, prompts, text)
        self._current = class_name

    def add_references(
        self, images: Sequence[ImageLike] | ImageLike | Embeddings, *, class_name: str | None = None
    ) -> None:
        """Add normal images of the class, or their embeddings from ``encode``, to its memory bank; calls add up.

        A repeated picture, from this call or an earlier one, is left out with a warning: its copy would match it
        exactly in the leave-one-out scores, and the threshold would be too low.

        Args:
            images: one or several images as the class describes them, or embeddings.
            class_name: a class that was set; by default the one set last.

        Raises:
            InputError: if the class is not set, there is no image, or one cannot be read or embedded.
        """
        self.take_references(images if isinstance(images, Embeddings) else self.encode(images), class_name=class_name)

    def take_references(self, embeddings: Embeddings, *, class_name: str | None = None) -> list[int]:
        """``add_references`` for encoded images; returns the positions of the images that are not copies of others."""
        held = self._get_class(class_name)
        if self.image_only:
            raise InputError(f"an image alone cannot be compared with references of '{held.name}', which needs windows")
        _refuse_nan(embeddings.finite, "reference")
        bank, before = MemoryBank.of(embeddings), self.reference_count(class_name=held.name)
        joined = bank if held.bank is None else held.bank.extended(bank)
        kept = joined.different(before)
        if copies := len(joined) - len(kept):
            _log.warning("%d of the references count once with others, because they are copies", copies)
        held.bank, held.left_out = joined[kept] if copies else joined, None
        return [number - before for number in kept[before:]]

    def reference_count(self, *, class_name: str | None = None) -> int:
        """How many references a class has; by default the class set last.

        Raises:
            InputError: if the class is not set.
        """
        bank = self._get_class(class_name).bank
        return 0 if bank is None else len(bank)

    def encode(self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8) -> Embeddings:
        """Embed images with all their windows and patches, once for any number of scorings.

        Args:
            images: one or several images as the class describes them.
            batch_size: images that go through the image tower together.

        Raises:
            InputError: if there is no image, or one cannot be read.
        """
        parts = [self._encode_batch(batch) for batch in _batches(images, batch_size)]
        if not parts:
            raise InputError("no images given")
        return Embeddings.concatenate(parts)

    def score(
        self, embeddings: Embeddings, *, class_name: str | None = None, references: Sequence[int] | None = None
    ) -> Prediction:
        """Score encoded images for a class, few-shot if it has references.

        Args:
            embeddings: the result of ``encode``.
            class_name: a class that was set; by default the one set last.
            references: the class's references to use, numbered from 0 in the order in which they were added;
                by default all. With none the results are zero-shot.

        Raises:
            InputError: if the class is not set, there is no such reference, or a score is NaN, which is never
                treated as good.
        """
        held = self._get_class(class_name)
        count = 0 if held.bank is None else len(held.bank)
        chosen = range(count) if references is None else references
        if not set(chosen) <= set(range(count)):
            raise InputError(f"references {reprlib.repr(list(chosen))} are not all among the {count} of '{held.name}'")
        (found,) = score_images(embeddings, held.text, held.bank, [chosen], *self._how)
        _refuse_nan(found.scores.isfinite(), "image")
        size, distinct = self.backbone.image_size, sorted(set(chosen))
        find_threshold = partial(_threshold, held, held.bank, distinct, *self._how)
        return replace(Prediction.of(found, size), white=self.intake.white, find_threshold=find_threshold)

    def predict(
        self, images: Sequence[ImageLike] | ImageLike, batch_size: int = 8, *, class_name: str | None = None
    ) -> Prediction:
        """Score images, few-shot if the class has references.

        The same as ``score(encode(images))``, without holding all embeddings at once. For their heat maps, the results
        keep the given list, not copies of the images.

        Args:
            images: one or several images as the class describes them.
            batch_size: images that go through the image tower together.
            class_name: a class that was set; by default the one set last.

        Raises:
            InputError: if the class is not set, there is no image, or one cannot be read or has no score.
        """
        name, given = self._get_class(class_name).name, as_sequence(images)
        parts = [self.score(self._encode_batch(one), class_name=name) for one in _batches(given, batch_size)]
        joined = Prediction.concatenate(parts)
        # Not for an iterator, whose pictures may be too many to hold.
        pictures = tuple(given) if isinstance(given, (list, tuple)) else None
        return replace(joined, pictures=pictures, white=parts[0].white, find_threshold=parts[0].find_threshold)

    def leave_one_out(self, *, class_name: str | None = None) -> Prediction:
        """Score every reference of a class against the memory of the others, as if it were a new image.

        A decision threshold can be derived from these scores of normal images.

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
        held = self._get_class(class_name)
        if held.bank is None or len(held.bank) < 2:
            raise InputError(f"class '{held.name}' has too few references to leave one out; add at least 2")
        return Prediction.of(_left_out(held, held.bank, *self._how), self.backbone.image_size)

    def threshold(self, *, class_name: str | None = None, given: float | None = None) -> Threshold:
        """The decision threshold of a class, from its references alone; its method ``judge`` gives the verdicts.

        Args:
            class_name: a class that was set; by default the one set last.
            given: a score threshold from elsewhere; the pixel threshold is still computed.

        Raises:
            InputError: if the class is not set.

        >>> from PIL import Image
        >>> from winclip import WinCLIP
        >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
        >>> model.set_class("metal nut")
        >>> grey = model.predict(Image.new("RGB", (64, 64), "grey"))
        >>> model.threshold().judge(grey), model.threshold(given=0.99).judge(grey)
        ([None], [False])
        >>> model.add_references([Image.new("RGB", (64, 64), colour) for colour in ("grey", "silver", "black")])
        >>> model.threshold().rule
        '3 references, each scored against the others: the upper end of a prediction interval for either part'
        """
        held, every = self._get_class(class_name), range(self.reference_count(class_name=class_name))
        return _threshold(held, held.bank, every, *self._how).with_given(given)

    def save_memory(self, path: str | PathLike[str], *, class_name: str | None = None) -> None:
        """Write the references of a class and the settings that produced them to a .safetensors file.

        The file holds the memory bank, the references' leave-one-out results, the identity of the model
        (weights, image size, scales and so on), temperature, class name, prompts, and version.

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
        held = self._get_class(class_name)
        if held.bank is None:
            raise InputError(f"there is no memory to save to {path}; add references first")
        embeddings = held.bank.embeddings
        windows = {f"windows_{side}": part for side, part in zip(embeddings.scales, embeddings.windows)}
        tensors = {"cls": embeddings.cls, **windows, "patch": embeddings.patch}
        if len(held.bank) > 1:
            left_out = _left_out(held, held.bank, *self._how)
            tensors |= {f"left_out_{part}": values for part, values in left_out._asdict().items()}
        write_memory(path, tensors, self._made_with(held))

    def load_memory(self, path: str | PathLike[str], *, class_name: str | None = None) -> None:
        """Replace the references of a class by a memory that ``save_memory`` wrote for the same model and class.

        Raises:
            InputError: if the file is missing, damaged, or made with other settings; the message names the differences.
        """
        held = self._get_class(class_name)
        tensors, found = read_memory(path)
        expected = self._made_with(held)
        # A version with other content or other computations has another format.
        found, expected = ({"variant": REFERENCE.name, **made, "version": ""} for made in (found, expected))
        others = [
            f"{key} is {reprlib.repr(found.get(key))}, not {reprlib.repr(expected.get(key))}"
            for key in differing(found, expected)
        ]
        if others:
            raise InputError(f"memory {path} does not fit: {'; '.join(others)}")
        backbone = self.backbone
        sides, grid = {side: f"windows_{side}" for side in backbone.scales}, backbone.grid
        windows = {name: ((grid - side + 1) ** 2, backbone.embed_dim) for side, name in sides.items()}
        sizes = {"cls": (backbone.embed_dim,), **windows, "patch": (grid**2, backbone.patch_width)}
        try:
            check_tensors(tensors, sizes, grid)
        except InputError as error:
            raise InputError(f"memory {path} does not fit: {error}") from error
        of_windows = tuple(tensors[name] for name in sides.values())
        embeddings = Embeddings(tensors["cls"], of_windows, tensors["patch"], backbone.scales)
        # Copied, since products round differently for tensors at other offsets of a file.
        bank = MemoryBank(embeddings.map(lambda part: part.to(backbone.device, copy=True)))
        several = len(bank) > 1
        left_out = GridScores(*(tensors[f"left_out_{part}"] for part in GridScores._fields)) if several else None
        held.bank, held.left_out = bank, left_out

    def _made_with(self, held: _Class) -> dict[str, Any]:
        """The settings that the memory of a class depends on."""
        prompts = asdict(held.prompts)
        own = {"format": _MEMORY_FORMAT, "class_name": held.name, "prompts": prompts}
        return made_with(self.backbone, self.temperature, white=self.intake.white, **own, **self.named_variant)

    @property
    def named_variant(self) -> dict[str, str]:
        """The variant as an entry of the recorded settings; empty for the reference, whatever the temperature."""
        own = replace(self.variant, temperature=TEMPERATURE) != REFERENCE
        return {"variant": self.variant.name} if own else {}

    @property
    def _how(self) -> tuple[Variant, int]:
        return self.variant, self.backbone.image_size

    def _get_class(self, class_name: str | None) -> _Class:
        name = self._current if class_name is None else class_name
        if name is None:
            raise InputError("no class is set; call set_class first, for example set_class('metal nut')")
        if name not in self._classes:
            raise InputError(f"class '{name}' is not set, only {', '.join(self._classes) or 'none'}; call set_class")
        return self._classes[name]

    def _too_long(self, class_name: str, prompts: PromptSet) -> InputError:
        context = self.backbone.context_length
        # A stand-in of one token shows how much room the prompts leave; states that are too long raise here.
        room = context - self.backbone.longest_prompt([*prompts.normal("x"), *prompts.anomalous("x")]) + 1
        return InputError(
            f"class name {reprlib.repr(class_name)} is too long: a prompt has {context} tokens, of which {room} are"
            " left for the name (a token is a common word or a part of a rare one)"
        )

    def _encode_batch(self, images: Sequence[ImageLike]) -> Embeddings:
        pixels = [self.prepared(as_image(image, self.intake)) for image in images]
        self.intake.warn()
        return self.embed(torch.from_numpy(np.stack(pixels)))

    def prepared(self, image: Image) -> Pixels:
        """The image prepared for ``embed`` as the variant does it, (S, S, 3).

        Raises:
            InputError: if the result is not one view of the whole image, or the image's mode has no conversion.
        """
        how = self.variant.prepare
        pixels, boxes = prepare(to_rgb(image, self.intake), self.backbone.image_size, how)
        if boxes != [WHOLE]:
            raise InputError(
                f"prepare={how} of variant {self.variant.name} takes square images here, not {image.width} x"
                f" {image.height}; make them square, or use {replace(self.variant, prepare='straight').name}"
            )
        return pixels[0]

    def embed(self, pixels: torch.Tensor) -> Embeddings:
        """Embed (N, S, S, 3) pixels from ``prepared``."""
        embeddings = self.backbone.encode(pixels, windows=not self.image_only)
        return patch_tokens_of(self.backbone, embeddings, self.variant)


def patch_tokens_of(backbone: Backbone, embeddings: Embeddings, variant: Variant) -> Embeddings:
    """The backbone's embeddings, with the patch tokens that a variant uses."""
    if variant.patch_tokens != "ln_post":
        return embeddings
    return replace(embeddings, patch=backbone.after_last_norm(embeddings.patch))


# Functions, not methods: results hold them, and methods would keep the network in memory.
def _threshold(
    held: _Class, bank: MemoryBank | None, chosen: Sequence[int], variant: Variant, image_size: int
) -> Threshold:
    """The threshold from the references in use, which may differ from the class's present ones."""
    if bank is None or len(chosen) < 2:
        return fallback_threshold(len(chosen))
    left_out = _left_out(held, bank if len(chosen) == len(bank) else bank[chosen], variant, image_size)
    return from_leave_one_out(LeftOut.of(Prediction.of(left_out, image_size)))


def _left_out(held: _Class, bank: MemoryBank, variant: Variant, image_size: int) -> GridScores:
    if bank is not held.bank:
        return leave_one_out(bank, held.text, variant, image_size)
    if held.left_out is None:
        held.left_out = leave_one_out(bank, held.text, variant, image_size)
    return held.left_out


def _refuse_nan(good: torch.Tensor, what: str) -> None:
    """Raises: InputError: if one of several images, (N,) bool, is not finite."""
    bad = [number for number, fine in enumerate(good.tolist()) if not fine]
    if bad:
        which = "" if len(good) == 1 else f" of {what} {reprlib.repr(bad)[1:-1]} of {len(good)}, counted from 0"
        raise InputError(f"the model makes NaN{which}, which is not a score; try --precision fp32, or other weights")


def _batches(images: Sequence[ImageLike] | ImageLike, size: int) -> Iterator[list[ImageLike]]:
    remaining = iter(as_sequence(images))
    return iter(lambda: list(islice(remaining, size)), [])
