"""The results of scoring: of several pictures together, and of one with its heat map and its verdict."""

from __future__ import annotations

import html
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

from winclip.pictures.images import ImageLike, as_image, to_rgb
from winclip.pictures.intake import Intake
from winclip.scoring import GridScores, upsample
from winclip.support.errors import InputError
from winclip.thresholds import Threshold, fallback_threshold

if TYPE_CHECKING:
    from winclip.pictures.drawing import Box

# Side of a picture in a notebook, in pixels.
_SHOWN_SIDE = 480


@dataclass(frozen=True)
class Prediction:
    """Results of N images: ``out[0]`` is the ``Result`` of the first, ``out[1:3]`` a prediction of two.

    Attributes:
        scores: (N,) float64; zero-shot and few-shot both in [0, 1], higher is more anomalous.
        maps: (N, S, S) float32 on the model's input size; zero-shot in [0, 1], few-shot in [0, 2].
        text_scores: (N,) float64 in [0, 1], the text part of the score; zero-shot the whole score.
        reference_scores: (N,) float64 in [0, 1], the reference part; the score is the mean of both parts. None
            zero-shot.
        pictures: the list or array that ``predict`` got, which is read again for a heat map; else None.
        white: the value that is white in pictures of more than 8 bits (65535).
        find_threshold: computes the threshold, from the references that the images were compared with.
    """

    scores: npt.NDArray[np.float64]
    maps: npt.NDArray[np.float32] = field(repr=False)
    text_scores: npt.NDArray[np.float64]
    reference_scores: npt.NDArray[np.float64] | None = None
    pictures: Sequence[ImageLike] | None = field(default=None, repr=False)
    white: int | None = field(default=None, repr=False)
    find_threshold: Callable[[], Threshold] | None = field(default=None, repr=False)

    @staticmethod
    def of(found: GridScores, image_size: int) -> Prediction:
        """The arrays from scores on the patch grid."""
        # Images that were embedded without windows have no maps.
        maps = upsample(found.maps, image_size) if found.maps.numel() else found.maps
        reference = None if found.reference is None else found.reference.numpy()
        return Prediction(found.scores.numpy(), maps.float().numpy(), found.text.numpy(), reference)

    @staticmethod
    def concatenate(parts: Sequence[Prediction]) -> Prediction:
        """Join predictions along the images; an empty sequence raises InputError."""
        if not parts:
            raise InputError("no images given")
        references = [part.reference_scores for part in parts if part.reference_scores is not None]
        return Prediction(
            np.concatenate([part.scores for part in parts]),
            np.concatenate([part.maps for part in parts]),
            np.concatenate([part.text_scores for part in parts]),
            np.concatenate(references) if references else None,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __iter__(self) -> Iterator[Result]:
        return (Result(self, number) for number in range(len(self)))

    @overload
    def __getitem__(self, chosen: int) -> Result: ...
    @overload
    def __getitem__(self, chosen: slice) -> Prediction: ...
    def __getitem__(self, chosen: int | slice) -> Result | Prediction:
        if not isinstance(chosen, slice):
            return Result(self, range(len(self))[operator.index(chosen)])
        references = None if self.reference_scores is None else self.reference_scores[chosen]
        pictures = None if self.pictures is None else self.pictures[chosen]
        arrays = self.scores[chosen], self.maps[chosen], self.text_scores[chosen], references
        return Prediction(*arrays, pictures, self.white, self.find_threshold)

    def __reduce__(self) -> tuple[Any, ...]:
        # A copy on disk or in another process has no references, so it cannot compute the threshold.
        return Prediction, (self.scores, self.maps, self.text_scores, self.reference_scores)

    @cached_property
    def _threshold(self) -> Threshold:
        return fallback_threshold(0) if self.find_threshold is None else self.find_threshold()

    @cached_property
    def _colours(self) -> tuple[float, float]:
        return self._threshold.colours(float(np.median(self.maps, axis=(1, 2)).min()), float(self.maps.max()))


@dataclass(frozen=True, eq=False)
class Result:
    """The result of one image, ``prediction[number]``; in a notebook it shows its heat map.

    >>> from winclip import WinCLIP
    >>> from winclip.demo.sample import draw_pair
    >>> model = WinCLIP.from_pretrained("demo-vit-240", device="cpu")
    >>> model.set_class("brushed steel")
    >>> model.add_references([draw_pair("brushed_steel", 0, "train/good", number)[0] for number in range(4)])
    >>> out = model.predict(draw_pair("brushed_steel", 0, "test/scratch", 0, "scratch"))
    >>> [result.anomalous for result in out], out[0].box is None, out[1].box is None
    ([False, True], True, False)
    >>> out[1].map.shape, out[1].heat_map().size
    ((240, 240), (256, 270))
    """

    prediction: Prediction
    number: int

    @property
    def score(self) -> float:
        """In [0, 1], higher is more anomalous."""
        return float(self.prediction.scores[self.number])

    @property
    def map(self) -> npt.NDArray[np.float32]:
        """(S, S) float32 on the model's input size; zero-shot in [0, 1], few-shot in [0, 2]."""
        return self.prediction.maps[self.number]

    @property
    def anomalous(self) -> bool | None:
        """The verdict; None with fewer than 2 references, or where they allow no verdict."""
        one = self.prediction[self.number : self.number + 1]
        return self.prediction._threshold.judge(one)[0]

    @property
    def box(self) -> Box | None:
        """x, y, width, height in pixels of the picture: the strongest region above the pixel threshold.

        None where no pixel is above.

        Raises:
            InputError: if the picture is missing, or cannot be read.
        """
        from winclip.pictures.drawing import fit, strongest_region

        return strongest_region(fit(self.map, self._picture().size), self.prediction._threshold.pixel)[1]

    def heat_map(self, picture: ImageLike | None = None) -> Image.Image:
        """The picture with its map over it, above the colour scale with the pixel threshold marked.

        The scale is the same for all images of the prediction.

        Args:
            picture: the scored picture; by default the one that ``predict`` got, which is read again.

        Returns:
            An RGB image, as wide as the picture.

        Raises:
            InputError: if there is no picture, or it cannot be read.
        """
        return self._drawn(self._picture(picture))

    def _drawn(self, picture: Image.Image) -> Image.Image:
        # Late, since scores do not need OpenCV.
        from winclip.pictures.drawing import fit, heat_map, with_legend

        colours = self.prediction._colours
        over = heat_map(picture, fit(self.map, picture.size), colours)
        return with_legend(over, colours, self.prediction._threshold.pixel)

    def _picture(self, picture: ImageLike | None = None) -> Image.Image:
        held = self.prediction.pictures
        if picture is None and held is not None:
            picture = held[self.number]
        if picture is None:
            raise InputError(
                f"result {self.number} holds no picture; give it to heat_map, or score a list of pictures with predict"
            )
        intake = Intake(self.prediction.white)
        return to_rgb(as_image(picture, intake), intake)

    def __repr__(self) -> str:
        return f"Result(score={self.score:.4f})"

    def _repr_html_(self) -> str:
        from winclip.pictures.drawing import data_url

        said = f"score {self.score:.4f}"
        if self.anomalous is not None:
            said += ", anomalous" if self.anomalous else ", good"
        try:
            picture = self._picture()
            small = max(picture.size) <= _SHOWN_SIDE
            shown = self._drawn(picture if small else ImageOps.contain(picture, (_SHOWN_SIDE, _SHOWN_SIDE)))
        except InputError as error:
            return f"<div>{said}<br>{html.escape(str(error))}</div>"
        return f'<div>{said}<br><img alt="heat map" src="{data_url(shown)}"></div>'
