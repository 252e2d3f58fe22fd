"""Train the demo backbone, a small CLIP, from random weights on procedurally drawn images.

    python -m demo.train_backbone --save_path winclip/demo/demo-vit-240 --minutes 40

Two fixed, orthogonal directions of the joint embedding stand for "normal" and "anomalous". The text tower learns to
map the prompt ensemble onto them, with random words as class names; the image tower learns to map the class token of
whole images and of WinCLIP's windows onto them. The result is one open_clip config (.json) and one state dict
(.safetensors, fp16).

The same seed and steps give the same run on the same machine; a run ended by --minutes depends on the machine's speed.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import safetensors
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from demo.procedural import random_state
from demo.sample import CLASSES
from demo.training_images import FAMILIES, TrainingStream
from winclip.clip import Block, Clip, ImageTower
from winclip.files import write_atomically
from winclip.images import CLIP_MEAN, CLIP_STD
from winclip.pretrained import parse_config, read_checkpoint
from winclip.prompts import REFERENCE
from winclip.windows import window_patches

CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 240, "patch_size": 16, "width": 128, "layers": 5, "head_width": 32, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEMPERATURE = 0.07
LABEL_SMOOTHING = 0.02
SCENES_PER_STEP = 2
"""Scenes drawn anew in a step. They replace the oldest in a pool from which the step's images are picked at random:
images of many scenes in a step give far better gradients than many patches of few."""
POOL_IMAGES = 1600
FIRST_IMAGES = 320
IMAGES_FOR_WINDOWS = 24
IMAGES_AS_WHOLE = 12
WIDE = 6
"""Side in patches of windows that WinCLIP does not use; they lead the class token from windows to whole images."""
WINDOWS_PER_IMAGE = {2: 10, 3: 8, WIDE: 2}
DEFECTIVE_PIXELS = {1: 10, 2: 14, 3: 20, WIDE: 30}
"""Visible defect area, in pixels of the input, from which a patch (1) or window counts as anomalous."""
IGNORE = -100
FAMILY_WEIGHT = 0.2
LEARNING_RATE = 1.2e-3
WARMUP_STEPS = 200
AVERAGE_DECAY = 0.998
SAVE_EVERY = 500
TEXT_STEPS = 300
TEXT_BATCH = 64


@dataclass(frozen=True)
class Labels:
    """0 normal, 1 anomalous, ``IGNORE`` in between.

    Attributes:
        image: (B,) int64.
        patch: (B, grid * grid) int64.
        windows: scale to (B, windows) int64.
    """

    image: torch.Tensor
    patch: torch.Tensor
    windows: dict[int, torch.Tensor]


def label(defective: torch.Tensor, patch_size: int) -> Labels:
    """Labels from the visibly defective area (B, S, S), uint8, 255 for a wholly defective pixel.

    A window with a trace of a defect too small to see, or one that a defect fills to the edges so that nothing
    normal is left to compare with, is ignored.
    """
    area = F.avg_pool2d(defective.float()[:, None] / 255, patch_size) * patch_size**2

    def by_area(size: int) -> torch.Tensor:
        pixels = F.avg_pool2d(area, size, stride=1).flatten(1) * size**2
        result = torch.full_like(pixels, IGNORE, dtype=torch.int64)
        result[pixels < 1] = 0
        result[pixels >= DEFECTIVE_PIXELS[size]] = 1
        if size > 1:
            result[pixels > 0.97 * (size * patch_size) ** 2] = IGNORE
        return result

    whole = area.flatten(1).sum(dim=1)
    image = torch.where(whole >= DEFECTIVE_PIXELS[3], 1, torch.where(whole < 1, 0, IGNORE))
    return Labels(image, by_area(1), {size: by_area(size) for size in WINDOWS_PER_IMAGE})


def choose_windows(labels: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Window numbers (B, count): up to half anomalous, the others normal, drawn without repetition."""
    draw = torch.rand(labels.shape, generator=generator)
    anomalous = torch.where(labels == 1, draw, draw - 2).topk(count // 2).indices
    rest = torch.where(labels == 0, draw, draw - 2).scatter(1, anomalous, -9.0)
    return torch.cat([anomalous, rest.topk(count - count // 2).indices], dim=1)


def embed_tokens(visual: ImageTower, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) normalised images to the tokens that enter the transformer, (B, 1 + grid * grid, width)."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens: torch.Tensor = visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)
    return tokens


def transform_block(block: Block, sequences: torch.Tensor) -> torch.Tensor:
    """(N, L, width) through one block; ``block(sequences)``, but with a faster backward pass in bf16 on the CPU."""
    attention = block.attn
    parts = block.project(sequences).unflatten(-1, (3, attention.heads, -1)).permute(2, 0, 3, 1, 4)
    queries, keys, values = parts[0] * parts.shape[-1] ** -0.5, parts[1], parts[2]
    attended = (queries @ keys.transpose(-1, -2)).softmax(dim=-1).to(values.dtype) @ values
    sequences = sequences + attention.out_proj(attended.transpose(1, 2).flatten(2))
    return sequences + block.mlp(block.ln_2(sequences))


def transform(visual: ImageTower, sequences: torch.Tensor, class_token_only: bool = False) -> torch.Tensor:
    """(N, L, width) through all blocks, in bf16 where it is safe: all tokens, or the class token's (N, width)."""
    blocks: list[Block] = list(visual.transformer.resblocks)  # type: ignore[arg-type]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        for block in blocks[:-1]:
            sequences = transform_block(block, sequences)
        if class_token_only:
            return blocks[-1].forward_first(sequences).float()
        return transform_block(blocks[-1], sequences).float()


def project(visual: ImageTower, tokens: torch.Tensor) -> torch.Tensor:
    """(..., width) to the joint embedding, L2-normalised, (..., embed_dim)."""
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


def window_sequences(tokens: torch.Tensor, chosen: torch.Tensor, grid: int, size: int) -> torch.Tensor:
    """Class token and patches of the chosen windows (B, K): (B * K, 1 + size * size, width)."""
    patches = window_patches(grid, size)[chosen] + 1
    places = F.pad(patches, (1, 0)).flatten(1)[..., None].expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, places).reshape(-1, 1 + size * size, tokens.shape[-1])


def cross_entropy(embeddings: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor, weight: float) -> torch.Tensor:
    """Of the softmax that WinCLIP scores with; ``weight`` is that of the anomalous class."""
    if not bool((labels != IGNORE).any()):
        return embeddings.sum() * 0
    return F.cross_entropy(
        embeddings.flatten(0, -2) @ targets.T / TEMPERATURE,
        labels.flatten(),
        weight=torch.tensor([1.0, weight]),
        ignore_index=IGNORE,
        label_smoothing=LABEL_SMOOTHING,
    )


def image_loss(
    visual: ImageTower,
    family_head: nn.Linear,
    batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    targets: torch.Tensor,
    patch_targets: torch.Tensor,
    generator: torch.Generator,
) -> dict[str, torch.Tensor]:
    """The terms of the loss on one batch of the training stream, by name.

    Patch tokens are trained twice: projected like a class token, and as they leave the last block, against two
    directions of their own (2, width), because the memory bank compares them in that form.
    """
    pixels, defective, families = batch
    whole = slice(0, IMAGES_AS_WHOLE)
    images = (pixels.float() / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    labels = label(defective, visual.conv1.kernel_size[0])
    tokens = embed_tokens(visual, images)
    last = transform(visual, tokens[whole])
    output = project(visual, last)
    raw = F.normalize(last[:, 1:], dim=-1)
    terms = {
        "image": cross_entropy(output[:, 0], labels.image[whole], targets, 1.0),
        "patch": cross_entropy(output[:, 1:], labels.patch[whole], targets, 3.0),
        "raw": 0.5 * cross_entropy(raw, labels.patch[whole], patch_targets, 3.0),
    }
    embedded, shown = [output[:, 0]], [families[whole]]
    for size, count in WINDOWS_PER_IMAGE.items():
        chosen = choose_windows(labels.windows[size], count, generator)
        sequences = window_sequences(tokens, chosen, visual.grid, size)
        embeddings = project(visual, transform(visual, sequences, class_token_only=True))
        terms[f"windows{size}"] = cross_entropy(embeddings, labels.windows[size].gather(1, chosen), targets, 1.5)
        embedded.append(embeddings)
        shown.append(families.repeat_interleave(count))
    across = torch.cat(embedded) @ (torch.eye(targets.shape[1]) - targets.T @ targets)
    terms["family"] = FAMILY_WEIGHT * F.cross_entropy(family_head(across * 8), torch.cat(shown))
    return terms


class Pool:
    """The latest images of the training stream."""

    def __init__(self, stream: TrainingStream, workers: int) -> None:
        self.batches = iter(stream.loader(workers))
        self.kept = [next(self.batches) for _ in range(FIRST_IMAGES // (4 * stream.scenes))]

    def draw(self, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Take in the next batch of the stream, then draw: random images as ``TrainingStream.batch`` gives them.

        All are turned by the same random quarter and mirrored or not.
        """
        self.kept.append(next(self.batches))
        each = len(self.kept[-1][0])
        del self.kept[: max(0, len(self.kept) - POOL_IMAGES // each)]
        chosen = torch.randperm(len(self.kept) * each, generator=generator)[:count].tolist()
        quarter, mirror = torch.randint(4, (2,), generator=generator).tolist()
        pixels, defective, families = (
            torch.stack([self.kept[index // each][part][index % each] for index in chosen]) for part in range(3)
        )
        pixels, defective = pixels.rot90(quarter, (-2, -1)), defective.rot90(quarter, (-2, -1))
        if mirror % 2:
            pixels, defective = pixels.flip(-1), defective.flip(-1)
        return pixels.contiguous(), defective.contiguous(), families


def initialise(clip: Clip, generator: torch.Generator) -> None:
    """Random weights: normal of 1/sqrt(fan-in), residual outputs smaller, biases zero, norms one."""
    layers = len(clip.visual.transformer.resblocks)
    for name, parameter in clip.named_parameters():
        if name.endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() == 1 and "ln_" in name:
            nn.init.ones_(parameter)
        elif "embedding" in name:
            nn.init.normal_(parameter, std=0.1, generator=generator)
        else:
            fan_in = parameter.shape[0] if name.endswith("proj") else parameter[0].numel()
            small = (2 * layers) ** -0.5 if name.endswith(("out_proj.weight", "c_proj.weight")) else 1.0
            nn.init.normal_(parameter, std=small * fan_in**-0.5, generator=generator)


def start_patch_projection(visual: ImageTower, pixels: torch.Tensor) -> None:
    """Set the patch projection to the principal components of the patches of (B, 3, S, S) uint8 images.

    The strongest components are scaled down to about the same variance as the weak ones, so that fine structure
    counts from the start.
    """
    side, width = visual.conv1.kernel_size[0], visual.conv1.out_channels
    images = (pixels.float() / 255 - torch.tensor(CLIP_MEAN)[:, None, None]) / torch.tensor(CLIP_STD)[:, None, None]
    patches = F.unfold(images, side, stride=side).transpose(1, 2).flatten(0, 1).double()
    variances, components = torch.linalg.eigh(torch.cov(patches.T))
    variances, components = variances.flip(0)[:width], components.flip(1)[:, :width]
    filters = components / (variances + variances[width // 2]).sqrt()
    with torch.no_grad():
        visual.conv1.weight.copy_(filters.T.float().reshape(visual.conv1.weight.shape))


def target_directions(embed_dim: int, generator: torch.Generator) -> torch.Tensor:
    """Two orthonormal rows (2, embed_dim): normal, anomalous."""
    return torch.linalg.qr(torch.randn(embed_dim, 2, generator=generator)).Q.T.contiguous()


def words_for_names() -> list[str]:
    """The tokenizer's vocabulary of letters without the words of the prompts and of the sample's class names."""
    tokenizer = open_clip.tokenizer.SimpleTokenizer()
    prompts = " ".join([*REFERENCE.normal("{}"), *REFERENCE.anomalous("{}"), *CLASSES]).replace("_", " ")
    pieces = {tokenizer.decoder[number].removesuffix("</w>") for number in tokenizer.encode(prompts)}
    excluded = pieces.union(prompts.replace(".", " ").split())
    words = {word.removesuffix("</w>") for word in tokenizer.decoder.values()}
    return sorted(word for word in words - excluded if word.isascii() and word.isalpha())


def train_text(clip: Clip, targets: torch.Tensor, steps: int, seed: int) -> None:
    """Teach the text tower to map normal and anomalous prompts of any class name onto the two targets."""
    rng = random_state("text", seed)
    words = words_for_names()
    context = clip.config.context_length
    optimizer = torch.optim.AdamW([p for n, p in clip.named_parameters() if not n.startswith("visual.")], lr=2e-3)
    for step in tqdm(range(steps), desc="text tower", unit="step"):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        prompts, labels = [], []
        for number in range(TEXT_BATCH):
            separator = "_" if rng.uniform() < 0.6 else " "
            name = separator.join(words[rng.randint(len(words))] for _ in range(int(rng.randint(1, 5))))
            anomalous = number % 2
            ensemble = REFERENCE.anomalous(name) if anomalous else REFERENCE.normal(name)
            prompts.append(ensemble[rng.randint(len(ensemble))])
            labels.append(anomalous)
        wanted = targets[labels]
        tokens = open_clip.tokenize(prompts, context_length=context)
        embeddings = clip.encode_text(tokens[:, : int(tokens.argmax(dim=-1).max()) + 1])
        logits = F.normalize(embeddings, dim=-1) @ targets.T / TEMPERATURE
        # Prompts are averaged without normalising, so their lengths are drawn to one as well.
        loss = F.cross_entropy(logits, torch.tensor(labels)) + (embeddings - wanted).square().sum(dim=-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train_images(clip: Clip, targets: torch.Tensor, arguments: argparse.Namespace, generator: torch.Generator) -> int:
    """Train the image tower and leave the running average of its weights in ``clip``.

    Returns:
        Steps done, those of an earlier run included.
    """
    size = clip.config.image_size
    earlier = 0 if arguments.start is None else steps_of(arguments.start)
    pool = Pool(TrainingStream(arguments.seed, SCENES_PER_STEP, size, first=earlier), arguments.workers)
    if arguments.start is None:
        start_patch_projection(clip.visual, torch.cat([pixels for pixels, _, _ in pool.kept]))
    patch_targets = target_directions(clip.config.width, generator)
    start = time.monotonic()
    visual = copy.deepcopy(clip.visual)
    # Pixels of a patch are so correlated that gradient steps on the filters would soon make all of them measure
    # its mean brightness; the principal components stay as they are.
    visual.conv1.requires_grad_(False)
    family_head = nn.Linear(clip.config.embed_dim, FAMILIES)
    nn.init.normal_(family_head.weight, std=0.1, generator=generator)
    parameters = [p for p in (*visual.parameters(), *family_head.parameters()) if p.requires_grad]
    decayed = [parameter for parameter in parameters if parameter.dim() >= 2]
    others = [parameter for parameter in parameters if parameter.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}], betas=(0.9, 0.98)
    )
    shown: dict[str, float] = {}
    progress = tqdm(range(arguments.steps), desc="image tower", unit="step")
    for step in progress:
        done = step / arguments.steps
        if arguments.minutes is not None:
            done = max(done, (time.monotonic() - start) / (60 * arguments.minutes))
        if done >= 1:
            return earlier + step
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * min(1.0, (step + 1) / WARMUP_STEPS) * math.cos(math.pi / 2 * done) ** 2
        batch = pool.draw(IMAGES_FOR_WINDOWS, generator)
        terms = image_loss(visual, family_head, batch, targets, patch_targets, generator)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            for averaged, parameter in zip(clip.visual.parameters(), visual.parameters()):
                averaged.lerp_(parameter, 1 - decay)
        for name, term in terms.items():
            shown[name] = 0.97 * shown.get(name, float(term.detach())) + 0.03 * float(term.detach())
        if step % 20 == 0:
            progress.set_postfix({name: f"{value:.3f}" for name, value in shown.items()})
        if (step + 1) % SAVE_EVERY == 0:
            save(clip, arguments.save_path, arguments.seed, earlier + step + 1)
    return earlier + int(arguments.steps)


def steps_of(checkpoint: Path) -> int:
    """Training steps that went into a checkpoint of this script."""
    with safetensors.safe_open(checkpoint, framework="pt") as file:
        return int(file.metadata()["steps"])


def save(clip: Clip, output: Path, seed: int, steps: int) -> None:
    """Write OUTPUT.json (open_clip config) and OUTPUT.safetensors (fp16 state dict), each in one piece."""
    tensors = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in clip.state_dict().items()}
    tensors["logit_scale"] = torch.tensor(math.log(1 / TEMPERATURE), dtype=torch.float16)
    metadata = {
        "description": "Demonstration CLIP trained on procedurally drawn images by demo/train_backbone.py",
        "seed": str(seed),
        "steps": str(steps),
    }
    write_atomically(output.parent / f"{output.name}.safetensors", safetensors.torch.save(tensors, metadata))
    write_atomically(output.parent / f"{output.name}.json", json.dumps(CONFIG, indent=2) + "\n")


def train(arguments: argparse.Namespace) -> None:
    """Train both towers and save them."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    generator = torch.Generator().manual_seed(arguments.seed)
    clip = Clip(parse_config(CONFIG, arguments.save_path.name))
    initialise(clip, generator)
    targets = target_directions(clip.config.embed_dim, generator)
    start = time.monotonic()
    if arguments.start is None:
        train_text(clip, targets, TEXT_STEPS, arguments.seed)
    else:
        clip.load_state_dict(read_checkpoint(arguments.start))
    steps = train_images(clip, targets, arguments, generator)
    save(clip, arguments.save_path, arguments.seed, steps)
    print(f"{steps} steps in {(time.monotonic() - start) / 60:.1f} minutes: {arguments.save_path}.safetensors")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo backbone on procedurally drawn images.")
    parser.add_argument("--save_path", type=Path, default=Path("winclip/demo/demo-vit-240"), help="path without ending")
    parser.add_argument("--output", dest="save_path", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=4000, help="training steps of the image tower")
    parser.add_argument("--minutes", type=float, help="end the image tower's training after this time")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and choices")
    parser.add_argument("--start", type=Path, help="checkpoint of an earlier run of the same seed to go on from")
    parser.add_argument("--threads", type=int, default=2, help="of the training process")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw images")
    return parser.parse_args(words)


if __name__ == "__main__":
    train(parse_arguments())
