"""Configures Sphinx, with which `make docs` builds a site from the repository's Markdown pages and the docstrings."""

import dataclasses
import importlib
import pkgutil
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

sys.path.insert(0, str(Path(__file__).parent.parent))

import ddpg_jax

project = "ddpg_jax"
release = ddpg_jax.__version__
html_title = f"ddpg_jax {release}"

# The sources start at the root of the repository, so that links between pages work in the repository and in the site.
root_doc = "docs/index"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "docs/**", "benchmarks/README.md"]
exclude_patterns = ["docs/_templates"]
templates_path = [str(Path(__file__).parent / "_templates")]
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_parser",
]

myst_heading_anchors = 3

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 100
default_role = "py:obj"  # `name` becomes a link if there is such a name, and code otherwise
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["wrap.css"]
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False


def _without_signature(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """Omits the signatures of classes that are lists of fields, because the fields are listed below."""
    is_record = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
    return ("", None) if what == "class" and is_record else None


def _show_functions_in_fields_as_fields() -> None:
    """Removes defaults of fields that are functions; Sphinx would show such fields as methods."""
    for module in pkgutil.walk_packages(ddpg_jax.__path__, "ddpg_jax."):
        for cls in vars(importlib.import_module(module.name)).values():
            if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.startswith("ddpg_jax"):
                for field in dataclasses.fields(cls):
                    if callable(vars(cls).get(field.name)):
                        delattr(cls, field.name)


def setup(app: Sphinx) -> None:
    """Configures what the options above cannot."""
    app.connect("autodoc-process-signature", _without_signature)
    _show_functions_in_fields_as_fields()
    # Napoleon reads the text before a colon in a field's docstring as its type; here it is part of a sentence.
    GoogleDocstring._parse_attribute_docstring = lambda self: list(self._consume_to_end())
