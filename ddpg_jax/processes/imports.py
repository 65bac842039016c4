"""Imports of libraries that read the process's environment when they are imported."""

import os


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
