"""WinCLIP: zero-shot and few-shot visual anomaly detection with a CLIP model (arXiv 2303.14814).

``help(winclip.WinCLIP)`` says how it is used, ``winclip --help`` in a terminal what the commands are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from winclip.support.errors import InputError

if TYPE_CHECKING:
    from winclip.model import WinCLIP
    from winclip.results import Prediction, Result

__all__ = ["InputError", "Prediction", "Result", "WinCLIP", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import torch when the model is first asked for, not for every small use."""
    if name in __all__:
        from winclip import model, results

        return getattr(model if name == "WinCLIP" else results, name)
    raise AttributeError(f"module 'winclip' has no attribute '{name}'")


def __dir__() -> list[str]:
    return __all__
