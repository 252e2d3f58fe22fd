"""WinCLIP: zero-shot and few-shot visual anomaly detection with a CLIP model (arXiv 2303.14814)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from winclip.support.errors import InputError

if TYPE_CHECKING:
    from winclip.model import Prediction, WinCLIP

__all__ = ["InputError", "Prediction", "WinCLIP", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import torch when the model is first asked for, not for every small use."""
    if name in ("Prediction", "WinCLIP"):
        from winclip import model

        return getattr(model, name)
    raise AttributeError(f"module 'winclip' has no attribute '{name}'")
