"""The one error that users of this project are meant to read."""


class InputError(ValueError):
    """Something given from outside is wrong: an option, a file, an image, a checkpoint.

    The message is one line that names the thing, its value and the way out. The entry points print
    it after ``error:`` and exit with status 2; any other exception is a defect of this project.
    """
