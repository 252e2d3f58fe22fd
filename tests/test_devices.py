"""Errors of a GPU found without one, with tensors that have a device and a shape but no values."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.plain import assert_embeddings_close
from tests.tiny import CONFIG
from winclip.defaults import DEFAULT_MODEL, DEMO_MODEL, SCALES
from winclip.embeddings import Embeddings
from winclip.memory import MemoryBank
from winclip.network.clip import Clip, ImageTower
from winclip.network.clip_backbone import ClipBackbone
from winclip.network.devices import PRECISIONS, float32_products, to_cpu
from winclip.network.pretrained import parse_config, read_config
from winclip.pictures.images import CLIP_MEAN, CLIP_STD, normalise
from winclip.prompts import PAPER, PromptSet
from winclip.scoring import leave_one_out, score_images, upsample
from winclip.text import class_embeddings
from winclip.windows import window_patches

CUDA = torch.device("cuda:0")
FEW_PROMPTS = PromptSet(PAPER.normal_states[:2], PAPER.anomalous_states[:2], PAPER.templates[:2])
_TOKENIZE = ClipBackbone._tokenize
_COPIES = {"aten::to", "aten::_to_copy", "aten::copy_"}
_WAITS = {
    "aten::_local_scalar_dense",
    "aten::item",
    "aten::is_nonzero",
    "aten::equal",
    "aten::nonzero",
    "aten::masked_select",
    "aten::bincount",
    "aten::_unique2",
    "aten::unique_dim",
}


class Forbidden(Exception):
    """An operation that fails or waits on a GPU."""


class Watch(TorchDispatchMode):
    """Refuses operations that fail or wait on a GPU, counts copies between it and the CPU, and sums tensor memory.

    Attributes:
        to_host: copies from a GPU to the CPU.
        waiting: copies to a GPU that wait until they are done.
        held: bytes that tensors on a GPU take.
        peak: the largest value of ``held`` so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.to_host = self.waiting = self.held = self.peak = 0
        self._storages = set[int]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if name == "aten::pin_memory":  # cannot be had without a GPU
            return args[0]
        given = _tensors((args, kwargs))
        on_gpu = [tensor for tensor in given if tensor.device.type != "cpu"]
        if name in _WAITS and on_gpu:
            raise Forbidden(f"{name} waits for {on_gpu[0].device}")
        out = func(*args, **(kwargs or {}))
        made = _tensors(out)
        # MPS casts before it copies.
        if any(x.dtype == torch.float64 and x.device.type != "cpu" for x in (*given, *made)) or (
            on_gpu and any(x.dtype == torch.float64 for x in made)
        ):
            raise Forbidden(f"{name} makes or takes float64 on {on_gpu[0].device if on_gpu else made[0].device}")
        for tensor in made:
            self._add(tensor.untyped_storage())
        if name in _COPIES:
            self._count(given, made, kwargs or {})
        elif len({tensor.device for tensor in (*given, *made)}) > 1:
            raise Forbidden(f"{name} mixes devices")
        return out

    def _count(self, given: list[torch.Tensor], made: list[torch.Tensor], kwargs: dict[str, Any]) -> None:
        source, target = given[-1].device.type, made[0].device.type
        self.to_host += source != "cpu" and target == "cpu"
        self.waiting += source == "cpu" and target == "cuda" and not kwargs.get("non_blocking")

    def _add(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if storage.device.type == "cpu" or key in self._storages:
            return

        def release() -> None:
            self._storages.remove(key)
            self.held -= size

        weakref.finalize(storage, release)
        self._storages.add(key)
        self.held += size
        self.peak = max(self.peak, self.held)


def _tensors(values: object) -> list[torch.Tensor]:
    return [value for value in tree_leaves(values) if isinstance(value, torch.Tensor)]


def tokenize_in_earnest(backbone: ClipBackbone, prompts: Sequence[str]) -> Any:
    with unset_fake_temporarily():
        return _TOKENIZE(backbone, prompts)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    """Code inside it computes on fake tensors and is watched."""
    monkeypatch.setattr(ClipBackbone, "_tokenize", tokenize_in_earnest)
    window_patches.cache_clear()
    with FakeTensorMode(allow_non_fake_inputs=True), Watch() as watch:
        yield watch
    window_patches.cache_clear()


def fake_backbone(model: str, precision: str, **changes: Any) -> ClipBackbone:
    config = replace(parse_config(read_config(model)[0], model), **changes)
    try:
        torch.set_default_dtype(PRECISIONS[precision])
        with CUDA:
            clip = Clip(config, SCALES).eval().requires_grad_(False)
    finally:
        torch.set_default_dtype(torch.float32)
    return ClipBackbone(clip, model, "fake", "", CLIP_MEAN, CLIP_STD, CUDA, precision, "device")


def pixels(count: int, backbone: ClipBackbone) -> torch.Tensor:
    return torch.zeros(count, backbone.image_size, backbone.image_size, 3, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("model", "precision"),
    [(DEMO_MODEL, "fp32"), (DEMO_MODEL, "bf16"), pytest.param(DEFAULT_MODEL, "tf32", marks=pytest.mark.slow)],
)
def test_the_whole_method_runs_on_a_gpu(watch: Watch, model: str, precision: str) -> None:
    backbone = fake_backbone(model, precision)
    text = class_embeddings(backbone, "metal nut", FEW_PROMPTS)
    references = backbone.encode(pixels(3, backbone))
    bank = MemoryBank.of(references).extended(MemoryBank.of(references))
    assert {part.device for part in (text, bank.embeddings.cls, *bank.embeddings.windows)} == {CUDA}
    for turn in range(2):
        watch.to_host = watch.waiting = 0
        results = score_images(backbone.encode(pixels(2, backbone)), text, bank, [[], [0], [1, 4], range(6)])
        assert watch.to_host == 1
        # The patch indices of the windows go to the device with the first batch.
        assert turn == 0 or watch.waiting == 0
    watch.to_host = 0
    results.append(leave_one_out(bank, text))
    assert watch.to_host == 1
    for found in results:
        scores, maps = found.scores, found.maps
        assert (scores.device.type, scores.dtype, maps.dtype) == ("cpu", torch.float64, torch.float64)
        assert upsample(maps, backbone.image_size).shape == (len(scores), backbone.image_size, backbone.image_size)


def run_method(backbone: ClipBackbone, watch: Watch) -> None:
    watch.to_host = 0
    embeddings = backbone.encode(pixels(2, backbone))
    text = torch.zeros(2, backbone.embed_dim, device=backbone.device)
    score_images(embeddings, text, MemoryBank.of(embeddings), [[0, 1]])
    if watch.to_host > 1:
        raise Forbidden(f"{watch.to_host} copies to the CPU")


def one_by_one(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.stack([torch.tensor(value.item()) for value in tensor.flatten()[:1]]) for tensor in tensors]


def picture_by_picture(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.stack([picture.cpu() for picture in tensor]) for tensor in tensors]


@pytest.mark.parametrize(
    ("place", "instead", "message"),
    [
        ("winclip.scoring.to_cpu", lambda tensors: [part.to("cpu", torch.float64) for part in tensors], "float64"),
        ("winclip.scoring.to_cpu", one_by_one, "waits for"),
        ("winclip.scoring.to_cpu", picture_by_picture, "12 copies"),
        ("winclip.network.clip.window_patches", lambda grid, side, _: window_patches(grid, side), "mixes devices"),
    ],
)
def test_a_defect_that_is_put_back_is_found(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, place: str, instead: Callable[..., object], message: str
) -> None:
    backbone = fake_backbone(DEMO_MODEL, "fp32")
    run_method(backbone, watch)
    monkeypatch.setattr(place, instead)
    with pytest.raises(Forbidden, match=message):
        run_method(backbone, watch)


def test_copies_among_references_are_found_in_two_transfers(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first and the last share the class token and differ in their patches.
    cls, patches = torch.eye(3)[[0, 1, 0, 2, 1, 0]], torch.zeros(6, 4, 2)
    patches[5] = 1
    moved: list[torch.Size] = []
    chosen: list[torch.Tensor] = []

    def to_device(numbers: torch.Tensor, device: torch.device) -> torch.Tensor:
        chosen.append(numbers)
        return numbers

    def to_cpu(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        moved.extend(tensor.shape for tensor in tensors)
        return [tensor if tensor.device.type == "cpu" else patches[chosen[0]] for tensor in tensors]

    monkeypatch.setattr("winclip.memory.to_device", to_device)
    monkeypatch.setattr("winclip.memory.to_cpu", to_cpu)
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_gpu = torch.zeros(6, 4, 2, device=CUDA)
    assert MemoryBank(Embeddings(cls, (), on_gpu, ())).different() == [0, 1, 3, 5]
    assert moved == [(6, 3), (5, 4, 2)]


@pytest.mark.parametrize("quick_gelu", [False, True])
@pytest.mark.parametrize(("model", "precision"), [(DEMO_MODEL, "fp32"), (DEMO_MODEL, "fp16"), (str(CONFIG), "fp32")])
def test_an_image_takes_what_is_said_or_down_to_half_of_it(
    watch: Watch, model: str, precision: str, quick_gelu: bool
) -> None:
    backbone = fake_backbone(model, precision, quick_gelu=quick_gelu)
    weights = watch.peak = watch.held
    backbone.encode(pixels(4, backbone))
    said = 4 * backbone.clip.config.image_bytes(SCALES, backbone.dtype.itemsize)
    assert said / 2 < watch.peak - weights <= said


@pytest.mark.parametrize(("room", "expected"), [(-1, 1), (0.9, 1), (3.9, 2), (4.1, 4), (1e6, 128)])
def test_a_batch_is_the_largest_power_of_two_that_memory_and_kernels_hold(
    watch: Watch, monkeypatch: pytest.MonkeyPatch, room: float, expected: int
) -> None:
    backbone = fake_backbone(DEMO_MODEL, "bf16")
    free = int(room * backbone.clip.config.image_bytes(SCALES, 2))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (free, 10**12))
    monkeypatch.setattr("torch.mps.recommended_max_memory", lambda: free + 5)
    monkeypatch.setattr("torch.mps.driver_allocated_memory", lambda: 5)
    assert [replace(backbone, device=torch.device(name)).batch_size for name in ("cuda:0", "mps", "cpu")] == [
        expected,
        expected,
        8,
    ]


def test_no_tensor_reaches_4_gigabytes() -> None:
    config = parse_config(read_config(DEFAULT_MODEL)[0], DEFAULT_MODEL)
    # Of a window of 3 x 3 patches 10 tokens, 3584 numbers each.
    assert config.images_together(SCALES) == 2**30 // (169 * 10 * 3584) < 65_535 // 196
    assert config.images_together((15,)) == 2**30 // (226 * 3584)


def test_more_windows_than_a_kernel_takes_go_in_parts(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = fake_backbone(DEMO_MODEL, "fp32")
    together: list[int] = []
    embed = ImageTower.embed

    def counted(tower: ImageTower, images: torch.Tensor, *rest: Any) -> Any:
        together.append(len(images))
        return embed(tower, images, *rest)

    monkeypatch.setattr(ImageTower, "embed", counted)
    # 361 windows of 2 x 2 patches an image: 181 images have 65,341 of them.
    assert len(backbone.encode(pixels(700, backbone))) == 700
    assert together == [181, 181, 181, 157]


OUT_OF_MEMORY = [
    torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("MPS backend out of memory (MPS allocated: 9.00 GB)"),
]


def with_less_memory(backbone: ClipBackbone, room: int, error: RuntimeError) -> tuple[ClipBackbone, list[int]]:
    """A backbone that raises for more than ``room`` images, and the numbers of images that it was given."""
    smaller, seen = replace(backbone), list[int]()

    def encode(images: torch.Tensor, normalised: bool, windows: bool) -> Embeddings:
        seen.append(len(images))
        if len(images) > room:
            raise error
        return backbone.encode(images)

    smaller._encode = encode  # type: ignore[method-assign]
    return smaller, seen


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_out_of_memory_halves_the_batch_once_and_for_all(
    backbone: ClipBackbone, logged: list[str], error: RuntimeError
) -> None:
    smaller, seen = with_less_memory(backbone, 3, error)
    images = torch.randint(0, 256, (9, 96, 96, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = smaller.encode(images)
    smaller.encode(images[:5])
    assert seen == [9, 4, 2, 2, 2, 2, 1, 2, 2, 1]
    assert len(logged) == 1 and "9 images" in logged[0] and "--batch_size" in logged[0]
    assert_embeddings_close(found, backbone.encode(normalise(images, backbone.mean, backbone.std)), 0)


def test_one_image_that_does_not_fit_and_other_errors_are_raised(backbone: ClipBackbone) -> None:
    for error, tried in ((OUT_OF_MEMORY[0], [2, 1]), (RuntimeError("shapes differ"), [2])):
        smaller, seen = with_less_memory(backbone, 0, error)
        with pytest.raises(type(error), match=str(error)[:10]):
            smaller.encode(torch.zeros(2, 96, 96, 3, dtype=torch.uint8))
        assert seen == tried


def test_products_are_exact_within_and_the_users_setting_is_put_back(backbone: ClipBackbone) -> None:
    images, backend = torch.zeros(1, 3, 96, 96), torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    expected = backbone.encode(images)
    try:
        torch.set_float32_matmul_precision("medium")
        assert_embeddings_close(backbone.encode(images), expected, 0)
        assert torch.get_float32_matmul_precision() == "medium"
        with pytest.raises(ZeroDivisionError), float32_products(tf32=True):
            assert torch.get_float32_matmul_precision() == "high"
            raise ZeroDivisionError
        assert torch.get_float32_matmul_precision() == "medium"
        if hasattr(backend, "fp32_precision"):  # as newer releases of torch have it
            backend.fp32_precision = "bf16"
            with float32_products():
                assert backend.fp32_precision == "ieee"
            assert backend.fp32_precision == "bf16"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_precisions_tell_fingerprints_apart(backbone: ClipBackbone) -> None:
    fingerprints = [replace(backbone, precision=precision).fingerprint for precision in PRECISIONS]
    assert [one["precision"] for one in fingerprints] == ["float32", "tf32", "bfloat16", "float16"]


def test_tensors_come_to_the_cpu_with_their_shapes(watch: Watch) -> None:
    given = [torch.zeros(2, device=CUDA), torch.zeros(2, 3, 4, device=CUDA), torch.zeros(0, 5, device=CUDA)]
    assert [(part.shape, part.device.type) for part in to_cpu(given)] == [(part.shape, "cpu") for part in given]
    assert watch.to_host == 1
