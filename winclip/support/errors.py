"""The one error whose message is written for users."""

from __future__ import annotations

from winclip.support.names import printable


class InputError(ValueError):
    """Something given from outside is wrong: an option, a file, an image, a checkpoint.

    The message is one line that names the thing, its value and the way out. The entry points print
    it after ``error:`` and exit with status 2; any other exception is a defect of this project.
    The message is safe to print and not longer than ``printable`` allows, whatever text a file added to it.
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(message))
