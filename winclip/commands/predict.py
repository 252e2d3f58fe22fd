"""Score photographs of your own: `winclip predict --help` lists the options."""

from __future__ import annotations

from winclip.prediction.options import parse_options
from winclip.support.command_line import run_command


def main(arguments: list[str]) -> int:
    """Run and return the exit status: 0, or one of ``run_command``, which is also 2 if no picture could be read."""

    def command() -> int:
        options = parse_options(arguments)
        # Late, so that --help and mistyped options answer at once.
        from winclip.prediction.run import run

        return run(options)

    return run_command(command, "the same command with --resume continues after the finished rows")
