"""`report.html`: a run on one self-contained page."""

import base64
import json
import shlex
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ddpg_jax.fields import format_value
from ddpg_jax.results.console import conclusion, headline, ranking, result_rows
from ddpg_jax.results.summary import Summary

FIGURES = {
    "learning_curve.png": "Learning curve: greedy return against environment steps",
    "sweep.png": "Final greedy return of the configurations",
    "training_returns.png": "Training returns, with exploration noise",
}
"""The figures that the page shows, in this order, with their captions."""

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
th { font-weight: 600; } .wide td, .wide th { white-space: nowrap; }
img { max-width: 100%; height: auto; background: white; border-radius: 4px; }
figure { margin: 1rem 0; } figcaption { font-size: .9rem; opacity: .8; }
pre { overflow-x: auto; background: #8882; padding: .8rem; border-radius: 4px; font-size: .85rem; }
"""


def report_page(folder: Path, summary: Summary) -> str:
    """Returns the page of a run, whose folder has `config.json` and the figures."""
    details = json.loads((folder / "config.json").read_text())
    title = f"{summary.num_agents} DDPG agents, {summary.subject}"
    parts = [f"<h1>{escape(title)}</h1>", _paragraph(headline(summary))]
    parts += [_paragraph(f"Note: {note}.") for note in summary.notes]
    if summary.configs:
        parts += ["<h2>Ranking</h2>", _paragraph(f"{conclusion(summary)}."), table_element(*ranking(summary))]
    parts += ["<h2>Result</h2>", table_element([], result_rows(summary))]
    parts += [_figure(folder / name, caption) for name, caption in FIGURES.items() if (folder / name).exists()]
    commands = [words for words in (details.get("command"), *details.get("resumed", ())) if words]
    if commands:
        parts += ["<h2>Command</h2>", f"<pre>{escape(chr(10).join(map(shlex.join, commands)))}</pre>"]
    fields = [[name, format_value(value)] for name, value in details.get("config", {}).items()]
    parts += ["<h2>Configuration</h2>", table_element([], fields)]
    made = [f"{name} {version}" for name, version in details.get("versions", {}).items()]
    made += [f"commit {details['commit']}"] if details.get("commit") else []
    made += [f"root seed {summary.seed}"]
    parts += ["<h2>Made with</h2>", f"<p>{escape(', '.join(made))}.</p>"]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts)
    ) + "\n</body>\n</html>\n"


def table_element(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table as an element of a page; without columns' names its rows are pairs."""
    head = "<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>" if columns else ""
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="wide"' if columns else ""  # many columns scroll sideways, a pair of them breaks its lines
    return f"<div{kind}><table>{head}\n{body}</table></div>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text[:1].upper() + text[1:])}</p>"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"
