"""Imports that depend on the process: on its environment, and on where it looks for modules."""

import os
import sys


def import_matplotlib() -> None:
    """Imports Matplotlib, whatever MPLBACKEND says; the variable is restored.

    Figures here are drawn without pyplot, so that they need no backend. But Matplotlib reads MPLBACKEND when it is
    imported, and refuses a name that it does not know, such as that of a notebook of another environment.
    """
    backend = os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib  # noqa: F401
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend


def look_in(folder: str | None) -> None:
    """Lets modules be imported from one more folder; what is found without it comes first."""
    if folder is not None and folder not in sys.path:
        sys.path.append(folder)
