"""How a command ends."""

from __future__ import annotations

import logging
import signal

import pytest

from winclip.support.command_line import log_to_terminal, run_command
from winclip.support.files import read_json


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("said", ["", "3 of 5 are done"])
def test_a_signal_ends_a_command_in_one_line(
    number: signal.Signals, status: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(number)
    saved = []

    def run() -> int:
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stop:
            saved.append("what is finished")
            raise type(stop)(said) from stop
        return 0

    assert run_command(run, "the same command goes on") == status
    assert capsys.readouterr().err == f"stopped by {number.name}; {said or 'the same command goes on'}\n"
    assert saved and signal.getsignal(number) == before


def test_bad_input_ends_a_command_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(lambda: read_json("nut.json", "file")) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: file nut.json ")


def test_the_log_goes_to_the_terminal_once_and_still_to_others(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    log = logging.getLogger("winclip")
    for _ in range(2):
        log_to_terminal(log)
    log.info("5 pictures of \x1b[31m")
    assert capsys.readouterr().err == "info: 5 pictures of \\x1b[31m\n"
    assert caplog.messages == ["5 pictures of \x1b[31m"]
