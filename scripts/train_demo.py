"""Train a small CLIP, as the demo backbone is, from random weights on procedurally drawn images.

    python -m scripts.train_demo --save_path small --minutes 40

Two fixed, orthogonal directions of the joint embedding stand for "normal" and "anomalous". The text tower learns to
map the prompt ensemble onto them, with random words as class names; the image tower learns to map the class token of
whole images and of WinCLIP's windows onto them. The result is one open_clip config (.json) and one state dict
(.safetensors, fp16).

The same seed and steps give the same run on the same machine; a run ended by --minutes depends on the machine's speed.
The weights in the repository come from a longer training with more textures, found in the git history.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from pathlib import Path
from typing import Any

import open_clip
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

from scripts.training_images import Batch, training_batches
from winclip.demo.procedural import random_state
from winclip.demo.sample import CLASSES
from winclip.network.clip import Clip, ImageTower
from winclip.network.pretrained import parse_config
from winclip.pictures.images import normalise
from winclip.prompts import REFERENCE
from winclip.support.files import write_atomically
from winclip.windows import window_patches

CONFIG: dict[str, Any] = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 240, "patch_size": 12, "width": 128, "layers": 5, "head_width": 32, "mlp_ratio": 4.0},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
TEMPERATURE = 0.07
PAIRS_FOR_WINDOWS = 6
PAIRS_AS_WHOLE = 4
"""Pairs of a step: a good and a defective image of one scene. Some of them go through the tower as whole images."""
WIDE = 6
"""Side in patches of windows that WinCLIP does not use; they lead the class token from windows to whole images."""
WINDOWS_PER_IMAGE = {2: 10, 3: 10, WIDE: 2}
FAINT_SHARE, EVEN_SHARE = 0.003, 0.023
"""The wanted probability of an anomaly grows with the defective share of a patch or window: see ``wanted``."""
FULL_SHARE = 0.97
"""A window that a defect fills to the edges holds nothing normal to compare with, and does not count."""
DEFECTIVE_PIXELS = 20
"""Visible defect area, in pixels of the input, from which an image counts as anomalous."""
DISTANCE, DISTANCE_SCALE = 0.2, 0.06
"""Association with the good image of the pair at which an anomaly is as likely as not, and the step of its logit."""
WEIGHTS = {"image": 3.0, "patch": 0.5, "raw": 0.5, "near": 1.0, "near2": 0.5, "near3": 0.5}
"""Weights of terms of the loss; the others weigh 1."""
WARMUP_STEPS = 100
AVERAGE_DECAY = 0.997
SAVED_EVERY = 256
START_BATCHES = 20
"""Batches of training images that set the patch projection."""
TEXT_STEPS = 300
TEXT_BATCH = 64


def shares(defective: torch.Tensor, patch_size: int, side: int) -> torch.Tensor:
    """Visibly defective share of every window of ``side`` patches, (B, windows), from (B, S, S) uint8, 255 for all."""
    whole = F.avg_pool2d(defective.float()[:, None] / 255, patch_size)
    return F.avg_pool2d(whole, side, stride=1).flatten(1)


def wanted(share: torch.Tensor) -> torch.Tensor:
    """Wanted probability of an anomaly: near 0 without a defect, 1/2 at a share of 2 %, near 1 from 10 % on.

    It says how much of a window is defective, which sharpens the maps beyond the grid of patches.
    """
    odds = ((share + FAINT_SHARE) / EVEN_SHARE) ** 2
    return odds / (1 + odds)


def choose_windows(share: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    """Window numbers (B, count): up to half with a defect, the others without, drawn without repetition."""
    draw = torch.rand(share.shape, generator=generator)
    defect = torch.where((share > FAINT_SHARE) & (share < FULL_SHARE), draw, draw - 2).topk(count // 2).indices
    rest = torch.where(share == 0, draw, draw - 2).scatter(1, defect, -9.0)
    return torch.cat([defect, rest.topk(count - count // 2).indices], dim=1)


def embed_tokens(visual: ImageTower, images: torch.Tensor) -> torch.Tensor:
    """(B, 3, S, S) normalised images to the tokens that enter the transformer, (B, 1 + grid * grid, width)."""
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    class_token = visual.class_embedding.expand(len(images), 1, -1)
    tokens: torch.Tensor = visual.ln_pre(torch.cat([class_token, patches], dim=1) + visual.positional_embedding)
    return tokens


def transform(visual: ImageTower, sequences: torch.Tensor, class_token_only: bool = False) -> torch.Tensor:
    """(N, L, width) through all blocks: all tokens, or the class token's (N, width)."""
    for block in visual.blocks[:-1]:
        sequences = block(sequences)
    last = visual.blocks[-1]
    return last.forward_first(sequences) if class_token_only else last(sequences)


def project(visual: ImageTower, tokens: torch.Tensor) -> torch.Tensor:
    """(..., width) to the joint embedding, L2-normalised, (..., embed_dim)."""
    return F.normalize(visual.ln_post(tokens) @ visual.proj, dim=-1)


def window_sequences(tokens: torch.Tensor, chosen: torch.Tensor, grid: int, size: int) -> torch.Tensor:
    """Class token and patches of the chosen windows (B, K): (B * K, 1 + size * size, width)."""
    patches = window_patches(grid, size)[chosen] + 1
    places = F.pad(patches, (1, 0)).flatten(1)[..., None].expand(-1, -1, tokens.shape[-1])
    return tokens.gather(1, places).reshape(-1, 1 + size * size, tokens.shape[-1])


def loss_of(logits: torch.Tensor, share: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
    """Cross-entropy of anomaly logits, (B, N), with the wanted probabilities; ``weight`` weighs defective ones."""
    weights = (1 + (weight - 1) * (share > 0)) * (share < FULL_SHARE)
    total = F.binary_cross_entropy_with_logits(logits, wanted(share), weights, reduction="sum")
    return total / weights.sum()


def association(queries: torch.Tensor, references: torch.Tensor) -> torch.Tensor:
    """Logits of an anomaly, (B, N), from the distance of (B, N, E) to the nearest of (B, M, E), all of unit length."""
    nearest = (queries @ references.transpose(1, 2)).amax(dim=2)
    return ((1 - nearest) / 2 - DISTANCE) / DISTANCE_SCALE


def image_loss(
    visual: ImageTower, batch: Batch, targets: torch.Tensor, patch_targets: torch.Tensor, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    """The terms of the loss on one batch, by name.

    Patch tokens are trained in two forms: projected like a class token, and as they leave the last block, because
    the memory bank compares them in that form: against two directions of their own (2, width), and by their
    association with the good image of the pair (``near``), as windows are (``near2``, ``near3``).
    """
    pixels, defective = batch
    patch_size = visual.conv1.kernel_size[0]
    whole = slice(0, 2 * PAIRS_AS_WHOLE)
    images = normalise(pixels.permute(0, 2, 3, 1))
    anomaly, patch_anomaly = ((pair[1] - pair[0]) / TEMPERATURE for pair in (targets, patch_targets))
    tokens = embed_tokens(visual, images)
    last = transform(visual, tokens[whole])
    output = project(visual, last)
    raw = F.normalize(last[:, 1:], dim=-1)
    share = shares(defective[whole], patch_size, 1)
    pixels_defective = share.sum(dim=1) * patch_size**2
    counts = (pixels_defective == 0) | (pixels_defective >= DEFECTIVE_PIXELS)
    anomalous = 0.01 + 0.98 * (pixels_defective > 0)
    terms = {
        "image": F.binary_cross_entropy_with_logits(output[:, 0] @ anomaly, anomalous, counts.float()),
        "patch": loss_of(output[:, 1:] @ anomaly, share, 3.0),
        "raw": loss_of(raw @ patch_anomaly, share, 3.0),
        "near": loss_of(association(raw[1::2], raw[0::2]), share[1::2], 3.0),
    }
    for size, count in WINDOWS_PER_IMAGE.items():
        share = shares(defective, patch_size, size)
        chosen = choose_windows(share, count, generator)
        sequences = window_sequences(tokens, chosen, visual.grid, size)
        embeddings = project(visual, transform(visual, sequences, class_token_only=True)).unflatten(0, (-1, count))
        share = share.gather(1, chosen)
        terms[f"windows{size}"] = loss_of(embeddings @ anomaly, share, 1.5)
        if size != WIDE:
            terms[f"near{size}"] = loss_of(association(embeddings[1::2], embeddings[0::2]), share[1::2], 1.5)
    return terms


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
    images = normalise(pixels.permute(0, 2, 3, 1))
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
        optimizer.param_groups[0]["lr"] = 1e-3 * (1 + math.cos(math.pi * step / steps))
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
    """Train the image tower, leave the running average of its weights in ``clip``, and return the steps done."""
    patch_targets = target_directions(clip.config.width, generator)
    batches = training_batches(arguments.seed, clip.config.image_size, PAIRS_FOR_WINDOWS, generator)
    start_patch_projection(clip.visual, torch.cat([next(batches)[0] for _ in range(START_BATCHES)]))
    start = time.monotonic()
    visual = copy.deepcopy(clip.visual)
    # Pixels of a patch are so correlated that gradient steps on the filters would soon make all of them measure
    # its mean brightness; the principal components stay as they are.
    visual.conv1.requires_grad_(False)
    parameters = [parameter for parameter in visual.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.01, betas=(0.9, 0.98))
    progress = tqdm(zip(range(arguments.steps), batches), total=arguments.steps, desc="image tower", unit="step")
    for step, batch in progress:
        done = max(step / arguments.steps, (time.monotonic() - start) / 60 / arguments.minutes)
        if done >= 1:
            return step
        rate = arguments.learning_rate * min(1.0, (step + 1) / WARMUP_STEPS) * math.cos(math.pi / 2 * done) ** 2
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        terms = image_loss(visual, batch, targets, patch_targets, generator)
        torch.stack([WEIGHTS.get(name, 1.0) * term for name, term in terms.items()]).sum().backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        decay = min(AVERAGE_DECAY, (step + 1) / (step + 10))
        with torch.no_grad():
            for averaged, parameter in zip(clip.visual.parameters(), visual.parameters()):
                averaged.lerp_(parameter, 1 - decay)
        progress.set_postfix({name: f"{term.item():.3f}" for name, term in terms.items()}, refresh=False)
        if (step + 1) % SAVED_EVERY == 0:
            save(clip, arguments.save_path, arguments.seed, step + 1)
    return int(arguments.steps)


def save(clip: Clip, output: Path, seed: int, steps: int) -> None:
    """Write OUTPUT.json (open_clip config) and OUTPUT.safetensors (fp16 state dict), each in one piece."""
    tensors = {name: tensor.detach().to(torch.float16).contiguous() for name, tensor in clip.state_dict().items()}
    tensors["logit_scale"] = torch.tensor(math.log(1 / TEMPERATURE), dtype=torch.float16)
    metadata = {
        "description": "Demonstration CLIP trained on procedurally drawn images by scripts/train_demo.py",
        "seed": str(seed),
        "steps": str(steps),
    }
    write_atomically(output.parent / f"{output.name}.safetensors", safetensors.torch.save(tensors, metadata))
    write_atomically(output.parent / f"{output.name}.json", json.dumps(CONFIG, indent=2) + "\n")


def train(arguments: argparse.Namespace) -> None:
    """Train both towers and save them."""
    generator = torch.Generator().manual_seed(arguments.seed)
    clip = Clip(parse_config(CONFIG, arguments.save_path.name))
    initialise(clip, generator)
    targets = target_directions(clip.config.embed_dim, generator)
    train_text(clip, targets, TEXT_STEPS, arguments.seed)
    steps = train_images(clip, targets, arguments, generator)
    save(clip, arguments.save_path, arguments.seed, steps)
    print(f"{steps} steps: {arguments.save_path}.safetensors")


def parse_arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the demo backbone on procedurally drawn images.")
    parser.add_argument("--save_path", type=Path, required=True, help="path of both files without their endings")
    parser.add_argument("--steps", type=int, default=6000, help="training steps of the image tower")
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="end the image tower's training after this time"
    )
    parser.add_argument("--learning_rate", type=float, default=2e-3, help="the highest, after the warm-up")
    parser.add_argument("--seed", type=int, default=0, help="of weights, images and choices")
    return parser.parse_args(words)


if __name__ == "__main__":
    train(parse_arguments())
