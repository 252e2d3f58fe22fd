"""The command ``winclip``: what it does is in the modules of its sub-commands."""

from __future__ import annotations

import sys
from importlib import import_module

from winclip import __version__

# What each command does, and an example of it.
COMMANDS = {
    "predict": (
        "score photographs of a part and draw heat maps of them",
        'winclip predict --class_name "metal nut" --reference good/ images/',
    ),
    "explain": ("show why a picture has its score", 'winclip explain --class_name "metal nut" part.jpg'),
    "export": (
        "write a class as one graph for ONNX Runtime or OpenVINO",
        'winclip export --class_name "metal nut" --format onnx',
    ),
    "app": ("try it on a local page", "winclip app --model ViT-B-16-plus-240"),
    "check": ("compute known numbers on this machine, and how fast", "winclip check"),
}


def main() -> int:
    """Run the sub-command that the command line names and return its exit status."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in COMMANDS:
        # argparse takes the program's name from here. Imported late: some commands need packages that others do not.
        sys.argv[0] = f"winclip {name}"
        return int(import_module(f"winclip.commands.{name}").main(arguments))
    if name == "--version":
        print(f"winclip {__version__}")
        return 0
    lines = [
        "usage: winclip COMMAND [OPTION ...]; winclip COMMAND --help lists its options",
        "       winclip --version",
        "",
    ]
    lines += [f"  {command:8} {does}\n{'':11}{example}" for command, (does, example) in COMMANDS.items()]
    usage = "\n".join(lines)
    if name in ("-h", "--help"):
        print(usage)
        return 0
    print(f"error: there is no command {name!r}\n{usage}", file=sys.stderr)
    return 2
