"""Configures Sphinx, with which `make docs` builds a site from the repository's pages, notebooks and docstrings."""

import dataclasses
import importlib
import json
import pkgutil
import sys
import typing
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx
from sphinx.ext.napoleon.docstring import GoogleDocstring

sys.path.insert(0, str(Path(__file__).parent.parent))

import ddpg_jax

project = "ddpg_jax"
release = ddpg_jax.__version__
html_title = f"ddpg_jax {release}"

# The sources start at the root of the repository, so that links between pages work in the repository and in the site.
root_doc = "docs/index"
include_patterns = ["*.md", "LICENSE", "docs/**", "benchmarks/README.md", "notebooks/*.ipynb"]
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


class NotebookParser(MystParser):
    """Shows an executed notebook: its text, code, printed output and images."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        """Parses a notebook as the Markdown page that it amounts to."""
        cells = json.loads(inputstring)["cells"] if inputstring else []
        super().parse("\n\n".join(map(_cell_as_markdown, cells)), document)


def _cell_as_markdown(cell: dict[str, Any]) -> str:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            parts.append(f'<img src="data:image/png;base64,{"".join(data["image/png"]).strip()}" alt="figure">')
        elif "text/html" in data:
            parts.append("".join(data["text/html"]))
        else:
            parts.append(f"```text\n{''.join(output.get('text', data.get('text/plain', '')))}\n```")
    return "\n\n".join(parts)


def _without_signature(app: Sphinx, what: str, name: str, obj: Any, *_: Any) -> tuple[str, None] | None:
    """Omits the signatures of classes that are lists of fields, because the fields are listed below."""
    is_record = dataclasses.is_dataclass(obj) or hasattr(obj, "_fields")
    return ("", None) if what == "class" and is_record else None


def _simplify_fields() -> None:
    """Shows fields that are functions as fields, not as methods, and types without the help texts of the command."""
    for module in pkgutil.walk_packages(ddpg_jax.__path__, "ddpg_jax."):
        if module.name.endswith(("__main__", "ddpg_jax.compare")):  # the command would hide the function `compare`
            continue
        for cls in list(vars(importlib.import_module(module.name)).values()):
            if isinstance(cls, type) and dataclasses.is_dataclass(cls) and cls.__module__.startswith("ddpg_jax"):
                hints = typing.get_type_hints(cls)
                cls.__annotations__ = {name: hints[name] for name in cls.__annotations__}
                for field in dataclasses.fields(cls):
                    if callable(vars(cls).get(field.name)):
                        delattr(cls, field.name)


def _parse_field(docstring: GoogleDocstring) -> list[str]:
    """Returns a field's docstring as it is, and a property's in its sections."""
    lines = list(docstring._consume_to_end())
    return GoogleDocstring(lines, docstring._config).lines() if docstring._what == "property" else lines


def _parse_returns(docstring: GoogleDocstring, *_: Any, **__: Any) -> list[tuple[str, str, list[str]]]:
    """Returns what "Returns:" says, without a type."""
    return [("", "", docstring._dedent(docstring._consume_to_next_section()))]


def setup(app: Sphinx) -> None:
    """Configures what the options above cannot."""
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    app.connect("autodoc-process-signature", _without_signature)
    _simplify_fields()
    # Napoleon reads the text before a colon as a type. Here types are in the signatures.
    GoogleDocstring._parse_attribute_docstring = _parse_field
    GoogleDocstring._consume_returns_section = _parse_returns
