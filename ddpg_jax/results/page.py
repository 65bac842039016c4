"""`report.html`: a finished run on one self-contained page."""

import base64
import json
import shlex
from html import escape
from math import isfinite
from pathlib import Path
from typing import Any

from ddpg_jax.results.report import conclusion, ranking, result_rows
from ddpg_jax.results.summary import Summary
from ddpg_jax.values import interval

FIGURES = {
    "learning_curve.png": "Learning curve: greedy return against environment steps",
    "sweep.png": "Final greedy return of the points",
    "training_returns.png": "Training returns, with exploration noise",
}
"""The figures of a run folder that the page shows, with their captions."""

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
    """Returns the page of a finished run.

    Args:
        folder: the run's folder, which holds `config.json` and the figures.
        summary: the run's results.
    """
    run = json.loads((folder / "config.json").read_text())
    title = f"{summary.num_agents} DDPG agents on {summary.env_id}, {summary.presets}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_headline(summary))}</p>"]
    if summary.points:
        columns, rows = ranking(summary)
        parts += ["<h2>Ranking</h2>", f"<p>{escape(_sentence(conclusion(summary)))}</p>", _table_element(columns, rows)]
    parts += ["<h2>Result</h2>", _table_element([], [list(row) for row in result_rows(summary)])]
    parts += [_figure_element(folder / name, caption) for name, caption in FIGURES.items() if (folder / name).exists()]
    commands = [run["command"], *run["resumed"]]
    parts += ["<h2>Command</h2>", _text_element("\n".join(shlex.join(command) for command in commands))]
    fields = [[name, _field_text(value)] for name, value in run["config"].items()]
    parts += ["<h2>Configuration</h2>", _table_element([], fields)]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    commit = f"; commit {run['commit']}" if run["commit"] else ""
    parts += ["<h2>Made with</h2>", f"<p>{escape(versions + commit)}; root seed {summary.seed}.</p>"]
    return _document(title, "\n".join(parts))


def _headline(summary: Summary) -> str:
    """Returns the main result in a sentence."""
    start, final, shortfall, num_agents = "", summary.final_return, summary.final_shortfall, summary.num_agents
    if summary.points:
        best = summary.ranked()[0]
        final, shortfall, num_agents = best.final_return, best.final_shortfall, num_agents // len(summary.points)
        start = f"{len(summary.points)} points x {num_agents} seeds; for the best, point {best.point}, "
    if not isfinite(final.iqm):
        return "All agents have diverged."
    ci95 = interval(final.iqm_ci95)
    text = f"{start}the interquartile mean of the final greedy returns is {final.iqm:.1f}"
    text += f" (95% {ci95})" if ci95 else ""
    text += f", {shortfall.iqm:.1f} below the optimum" if shortfall else ""
    if shortfall and shortfall.num_solved is not None:
        text += f"; {shortfall.num_solved} of {num_agents} agents solve the task"
    return _sentence(text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table_element(columns: list[str], rows: list[list[str]]) -> str:
    head = "<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>" if columns else ""
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="wide"' if columns else ""  # many columns scroll sideways, a pair of them breaks its lines
    return f"<div{kind}><table>{head}\n{body}</table></div>"


def _figure_element(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _text_element(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _field_text(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
