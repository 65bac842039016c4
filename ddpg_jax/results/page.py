"""`report.html`: a run on one page that needs nothing beside it."""

import base64
import json
import shlex
from html import escape
from pathlib import Path
from typing import Any

from ddpg_jax.results.tables import conclusion, ranking, result_rows

FIGURES = {
    "learning_curve.png": "Learning curve: greedy evaluation against environment steps",
    "sweep.png": "What the points reached",
    "training_returns.png": "Training returns, exploration noise included",
}
"""Figures of a run folder that the page shows, with what they show."""

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


def report_page(folder: Path, summary: dict[str, Any]) -> str:
    """The page of a finished run, with the figures and the configuration that lie in its folder.

    Args:
        folder: of the run; `config.json` and the figures are there.
        summary: what goes into `summary.json`.
    """
    run = json.loads((folder / "config.json").read_text())
    title = f"{summary['num_agents']} DDPG agents on {summary['env_id']}, preset {summary['preset']}"
    parts = [f"<h1>{escape(title)}</h1>", f"<p>{escape(_headline(summary))}</p>"]
    if "points" in summary:
        columns, rows = ranking(summary)
        parts += ["<h2>Ranking</h2>", f"<p>{escape(_sentence(conclusion(summary)))}</p>", _table(columns, rows)]
    parts += ["<h2>Result</h2>", _table([], [list(row) for row in result_rows(summary)])]
    parts += [_figure(folder / name, caption) for name, caption in FIGURES.items() if (folder / name).exists()]
    commands = [run["command"], *run["resumed"]]
    parts += ["<h2>Command</h2>", _pre("\n".join(shlex.join(command) for command in commands))]
    parts += ["<h2>Configuration</h2>", _table([], [[name, _value(value)] for name, value in run["config"].items()])]
    versions = ", ".join(f"{name} {version}" for name, version in run["versions"].items())
    commit = f"; commit {run['commit']}" if run["commit"] else ""
    parts += ["<h2>Made with</h2>", f"<p>{escape(versions + commit)}; root seed {summary['seed']}.</p>"]
    return _document(title, "\n".join(parts))


def _headline(summary: dict[str, Any]) -> str:
    """The run in a sentence or two."""
    final, shortfall = summary["final_return"], summary.get("final_shortfall")
    if "points" in summary:
        best = min(summary["points"], key=lambda point: point["rank"])
        final, shortfall = best["final_return"], best.get("final_shortfall")
        start = f"{len(summary['points'])} points x {summary['num_seeds']} seeds; of the best, point {best['point']}, "
    else:
        start = ""
    if final["iqm"] is None:
        return f"{start}no agent is sound: all have diverged."
    low, high = final["iqm_ci95"]
    interval = f" (95% [{low:.1f}, {high:.1f}])" if low is not None and low == low else ""
    text = f"{start}the interquartile mean of the final greedy returns is {final['iqm']:.1f}{interval}"
    if shortfall and shortfall["iqm"] is not None:
        num_agents = summary.get("num_seeds", summary["num_agents"])
        text += f", {shortfall['iqm']:.1f} below the optimum; {shortfall['num_solved']} of {num_agents} agents solve it"
    return _sentence(text)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _table(columns: list[str], rows: list[list[str]]) -> str:
    head = "<tr>" + "".join(f"<th>{escape(column)}</th>" for column in columns) + "</tr>" if columns else ""
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="wide"' if columns else ""  # many columns scroll sideways, a pair of them breaks its lines
    return f"<div{kind}><table>{head}\n{body}</table></div>"


def _figure(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode()
    image = f'<img alt="{escape(caption)}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption>{escape(caption)}</figcaption></figure>"


def _pre(text: str) -> str:
    return f"<pre>{escape(text)}</pre>"


def _value(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _document(title: str, body: str) -> str:
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )
