"""Fetch on one machine the weights that another needs.

    python -m scripts.fetch_weights
    python -m scripts.fetch_weights --model ViT-L-14 --pretrained laion2b_s32b_b82k --output /media/stick

The file is taken from the caches of this machine or fetched into them, and copied to --output. A fetch that was
interrupted goes on where it ended. Beside it a model config .json says what the weights were trained with: activation,
mean and std. The last line says how to use both on the other machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from winclip.defaults import DEFAULT_MODEL, DEFAULT_PRETRAINED
from winclip.support.command_line import run_command
from winclip.support.files import write_atomically


def main(arguments: list[str]) -> int:
    """Fetch and return the exit status: 0, or one of ``run_command``, which is also 2 without network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"open_clip model name ({DEFAULT_MODEL})")
    parser.add_argument("--pretrained", default=DEFAULT_PRETRAINED, help=f"open_clip tag ({DEFAULT_PRETRAINED})")
    parser.add_argument("--output", type=Path, default=Path("weights"), metavar="DIR", help="folder (weights)")
    options = parser.parse_args(arguments)
    return run_command(
        lambda: fetch(options.model, options.pretrained, options.output),
        "the same command goes on where this one ended",
    )


def fetch(model: str, pretrained: str, folder: Path) -> int:
    """Bring the weights of a tag into a folder, say what to do with them, and return 0.

    Raises:
        InputError: if the tag is unknown, or the file cannot be fetched or written.
    """
    from winclip.network.pretrained import find_checkpoint, parse_config, read_config, trained_with

    raw, preprocessing = read_config(model)
    parse_config(raw, model)
    checkpoint, tag = find_checkpoint(model, pretrained)
    expected = trained_with(raw, {**preprocessing, **tag}, pretrained)
    config = {"model_cfg": {**raw, "quick_gelu": expected.pop("quick_gelu")}, "preprocess_cfg": expected}
    target = folder / f"{model}-{pretrained}{checkpoint.suffix}"
    with checkpoint.open("rb") as file:
        write_atomically(target, iter(lambda: file.read(1 << 24), b""))
    described = folder / f"{model}-{pretrained}.json"
    write_atomically(described, json.dumps(config, indent=2) + "\n")
    print(f"written: {target} ({target.stat().st_size / 1e6:.1f} MB) and {described.name}")
    print(f"on the other machine: python test.py --model {described.name} --pretrained {target.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
