"""Export a class for ONNX Runtime or OpenVINO: pixels in, score and map out, with text and references included.

    winclip export --class_name "metal nut" --format onnx --save_path exported/nut
    winclip export --class_name "metal nut" --memory nut.safetensors --format openvino

The folder gets the graph (model.onnx, or for OpenVINO model.xml and model.bin), model.json with the inputs, outputs,
threshold and everything the graph was made from, and example.py, which scores a picture without this project. A
memory is what winclip predict --save_memory or WinCLIP.save_memory wrote.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace
from pathlib import Path

from winclip.support.command_line import VariantOptions, run_command
from winclip.support.options import add_options, option, take_options


@dataclass(frozen=True, kw_only=True)
class Options(VariantOptions):
    """What is exported; the trace runs on the CPU."""

    class_name: str = option("what the images show, such as 'metal nut'", required=True)
    prompt_set: str | None = option("reference, paper, or a .json file (the variant's)")
    memory: Path | None = option("references of the class, for few-shot (none)", metavar="FILE")
    format: str = option("the runtime", required=True, choices=("onnx", "openvino"))
    save_path: Path | None = option("a new folder (exported/CLASS)", metavar="DIR")
    precision: str = option(
        "of the graph's image tower; bf16 only for openvino (fp32)", "fp32", choices=("fp32", "fp16", "bf16")
    )
    device: str = "cpu"


def build_parser() -> argparse.ArgumentParser:
    """The parser; imports nothing heavy."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, Options)
    parser.add_argument("--output", dest="save_path", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    return parser


def main(arguments: list[str]) -> int:
    """Export and return the exit status: 0, or one of ``run_command``."""
    options = build_parser().parse_args(arguments)
    return run_command(lambda: export_class(take_options(Options, vars(options))))


def export_class(options: Options) -> int:
    """Export as the options say and return 0.

    Raises:
        InputError: if anything given is wrong, or the folder cannot be written.
    """
    from winclip.export import check_export, export

    save_path = options.save_path or Path("exported") / options.class_name.replace("/", "_")
    check_export(options.format, save_path, options.precision)
    model = replace(options, precision="fp32").load()
    model.set_class(options.class_name, options.prompt_set)
    if options.memory is not None:
        model.load_memory(options.memory)
    description = export(model, options.format, save_path, options.precision)
    count = description["references"]
    print(f"written: {save_path / description['file']}, model.json and example.py, {count} references")
    return 0
