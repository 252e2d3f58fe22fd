"""Export a class for ONNX Runtime or OpenVINO: pixels in, score and map out, text and references folded in.

    python scripts/export.py --class_name "metal nut" --format onnx --output exported/nut
    python scripts/export.py --class_name "metal nut" --memory nut.safetensors --format openvino --output exported/nut

The folder gets the graph (model.onnx, or model.xml and model.bin) and model.json: what goes in and comes out, a
threshold, and what all was made from. A memory is what predict.py --save_memory or WinCLIP.save_memory wrote.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from winclip.errors import InputError


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class_name", required=True, help="what the images show, such as 'metal nut'")
    parser.add_argument("--memory", type=Path, metavar="FILE", help="references of the class, for few-shot (none)")
    parser.add_argument("--format", required=True, choices=("onnx", "openvino"), help="of which runtime")
    parser.add_argument("--output", required=True, type=Path, metavar="DIR", help="a new folder")
    parser.add_argument("--model", default="ViT-B-16-plus-240", help="as of test.py (ViT-B-16-plus-240)")
    parser.add_argument("--pretrained", help="as of test.py (laion400m_e31)")
    parser.add_argument("--image_size", type=int, help="side in pixels (the model's own)")
    parser.add_argument("--prompt_set", default="reference", help="reference, paper, or a .json file (reference)")
    return parser


def main(arguments: list[str]) -> int:
    """Export and return the exit status: 0, or 2 after bad input."""
    options = build_parser().parse_args(arguments)
    from prediction.threshold import find_thresholds
    from winclip.export import check_output, check_runtime, export
    from winclip.model import WinCLIP

    try:
        check_runtime(options.format)
        check_output(options.output)
        model = WinCLIP.from_pretrained(
            options.model, options.pretrained, device="cpu", precision="fp32", image_size=options.image_size
        )
        model.set_class(options.class_name, options.prompt_set)
        if options.memory is not None:
            model.load_memory(options.memory)
        found = find_thresholds(model)
        threshold = {"score": found.score, "pixel": found.pixel, "rule": found.rule, "caution": found.caution}
        description = export(model, options.format, options.output, threshold)
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"written: {options.output / description['file']} and model.json, {description['references']} references")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
