"""Export a class for ONNX Runtime or OpenVINO: pixels in, score and map out, text and references folded in.

    winclip export --class_name "metal nut" --format onnx --save_path exported/nut
    winclip export --class_name "metal nut" --memory nut.safetensors --format openvino

The folder gets the graph (model.onnx, or what OpenVINO makes of it, model.xml and model.bin), model.json: what goes in and
comes out, a threshold, and what all was made from, and example.py, which scores a picture without this project. A memory
is what winclip predict --save_memory or WinCLIP.save_memory wrote.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from winclip.support.command_line import ModelOptions, exit_status
from winclip.support.options import add_options, take_options


@dataclass(frozen=True)
class ExportedModel(ModelOptions):
    """Which model; it is traced on the CPU in float32."""

    device: str = "cpu"
    precision: str = "fp32"


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class_name", required=True, help="what the images show, such as 'metal nut'")
    parser.add_argument("--prompt_set", default="reference", help="reference, paper, or a .json file (reference)")
    parser.add_argument("--memory", type=Path, metavar="FILE", help="references of the class, for few-shot (none)")
    parser.add_argument("--format", required=True, choices=("onnx", "openvino"), help="of which runtime")
    parser.add_argument(
        "--precision",
        dest="graph_precision",
        default="fp32",
        choices=("fp32", "fp16", "bf16"),
        help="of the graph's image tower; bf16 for openvino alone (fp32)",
    )
    parser.add_argument("--save_path", type=Path, metavar="DIR", help="a new folder (exported/CLASS)")
    parser.add_argument("--output", dest="save_path", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    add_options(parser, ExportedModel)
    return parser


def main(arguments: list[str]) -> int:
    """Export and return the exit status: 0, or one of ``exit_status``."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: export_class(options))


def export_class(options: argparse.Namespace) -> int:
    """Export as the options say and return 0.

    Raises:
        InputError: if anything given is wrong, or the folder cannot be written.
    """
    from winclip.export import check_export, export

    save_path = options.save_path or Path("exported") / options.class_name.replace("/", "_")
    check_export(options.format, save_path, options.graph_precision)
    model = take_options(ExportedModel, vars(options)).load()
    model.set_class(options.class_name, options.prompt_set)
    if options.memory is not None:
        model.load_memory(options.memory)
    description = export(model, options.format, save_path, options.graph_precision)
    print(
        f"written: {save_path / description['file']}, model.json and example.py, {description['references']} references"
    )
    return 0
