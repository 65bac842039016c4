"""`report.html`: a run on one page, which needs no other file except pictures that are drawn later."""

import json
import shlex
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax.config import Config
from ddpg_jax.fields import format_value
from ddpg_jax.presets import PRESETS
from ddpg_jax.results.console import conclusion, headline, ranking, result_rows
from ddpg_jax.results.history import History
from ddpg_jax.results.page_figures import panels, svg
from ddpg_jax.results.plots import BLACK, COLORS, INTERVAL, curves_of
from ddpg_jax.results.summary import Summary
from ddpg_jax.results.sweep_plots import final_returns
from ddpg_jax.results.text import decimal

PICTURES = {
    "pendulums.gif": "The agents at several moments of training",
    "film.gif": "An agent at several moments of training",
    "state_plane.png": "Policy and value of the median agent",
    "q_estimates.png": "What critics expect, and what follows",
}
"""Files of `python -m ddpg_jax.render` with their captions."""

_STYLE = """
:root { color-scheme: light dark; --color-0: #0072B2; --color-1: #D55E00; --color-2: #009E73; --color-3: #CC79A7;
  --color-4: #E69F00; --color-5: #56B4E9; --color-6: currentColor; }
@media (prefers-color-scheme: dark) { :root { --color-0: #4DA8E0; --color-1: #F0803C; --color-2: #2FC79A;
  --color-5: #A6DCFF; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
.wide { overflow: auto; max-height: 32rem; } p, td { overflow-wrap: anywhere; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: .25rem .8rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8884; }
th { font-weight: 600; position: sticky; top: 0; background: Canvas; } .wide td, .wide th { white-space: pre; }
th button { all: unset; cursor: pointer; } th button:focus-visible { outline: 2px solid; }
th[aria-sort=ascending] button::after { content: " ▲"; } th[aria-sort=descending] button::after { content: " ▼"; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 0 1rem; }
figure { margin: 1rem 0; } figcaption, .legend { font-size: .9rem; } svg, img { max-width: 100%; height: auto; }
svg text { font-family: inherit !important; fill: currentColor; } .panels svg { width: 100%; }
.wide svg { min-width: 34rem; } .legend span { margin-right: 1rem; display: inline-block; }
.legend i { display: inline-block; width: 1.4rem; margin-right: .4rem; border-top: 3px solid; vertical-align: middle; }
pre { overflow-x: auto; background: #8882; padding: .8rem; border-radius: 4px; font-size: .85rem; }
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentNode, body = head.closest("table").tBodies[0];
  const sign = head.ariaSort === "descending" ? 1 : -1;
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
  const text = row => row.cells[head.cellIndex].textContent, number = row => parseFloat(text(row).replaceAll(",", ""));
  body.append(...[...body.rows].sort((a, b) => (text(a) === "") - (text(b) === "") ||
    sign * (number(a) - number(b) || text(a).localeCompare(text(b)))));
};
"""


def report_page(folder: Path, summary: Summary, history: History) -> str:
    """Returns the page of a run, whose folder has `config.json`."""
    details = json.loads((folder / "config.json").read_text())
    title = f"{summary.num_agents} DDPG agents, {summary.subject}"
    parts = [f"<h1>{escape(title)}</h1>", _paragraph(headline(summary))]
    parts += [_paragraph(f"Note: {note}.") for note in summary.notes]
    if summary.configs:
        parts += [
            "<h2>Ranking</h2>",
            _paragraph(f"{conclusion(summary)}."),
            table_element(*ranking(summary), sorts=True),
        ]
        parts += [f'<figure class="wide">{svg(final_returns(summary))}</figure>']
    parts += ["<h2>Learning</h2>", _legend(history, summary), '<div class="panels">']
    parts += [_figure(figure, caption) for caption, figure in panels(history, summary).items()]
    parts += ["</div>", "<h2>Result</h2>", table_element([], result_rows(summary))]
    parts += ["<h2>Agents</h2>", table_element(*_agents(history, summary), sorts=True)]
    parts += [_figure(f'<img src="{name}" alt="" onload="this.parentNode.hidden = false">', caption, hidden=True)
              for name, caption in PICTURES.items()]  # fmt: skip
    draw = shlex.join(["python", "-m", "ddpg_jax.render", str(folder)])
    parts += [f"<p>To draw the agents in motion on this page: <code>{escape(draw)}</code></p>"]
    parts += _configuration(details, summary)
    if commands := [words for words in (details.get("command"), *details.get("resumed", ())) if words]:
        parts += ["<h2>Command</h2>", f"<pre>{escape(chr(10).join(map(shlex.join, commands)))}</pre>"]
    names = {f"{path.name}{'/' * path.is_dir()}" for path in folder.iterdir() if not path.name.startswith(".")}
    links = [f'<a href="{name}">{name}</a>' for name in sorted((names | {"summary.json"}) - {"report.html"})]
    parts += ["<h2>Files</h2>", f"<p>{', '.join(links)}</p>"]
    made = [f"{name} {version}" for name, version in details.get("versions", {}).items()]
    made += [f"commit {details['commit']}"] if details.get("commit") else []
    parts += ["<h2>Made with</h2>", f"<p>{escape(', '.join([*made, f'root seed {summary.seed}']))}.</p>"]
    return html_page(title, parts)


def html_page(title: str, parts: Sequence[str]) -> str:
    """Returns a page of elements, in the style of all reports; it needs no other file."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n" + "\n".join(parts)
    ) + f"\n<script>{_SCRIPT}</script>\n</body>\n</html>\n"


def table_element(columns: Sequence[str], rows: Sequence[Sequence[str]], *, sorts: bool = False) -> str:
    """Returns a table as an element of a page; without columns' names its rows are pairs.

    If it `sorts`, the page's script sorts it by the column whose name is clicked.
    """
    names = [f"<button>{escape(column)}</button>" if sorts else escape(column) for column in columns]
    head = f"<thead><tr>{''.join(f'<th>{name}</th>' for name in names)}</tr></thead>" if columns else ""
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    kind = ' class="wide"' if columns else ""  # many columns scroll sideways, a pair of them breaks its lines
    return f"<div{kind}><table>{head}\n<tbody>{body}</tbody></table></div>"


def _paragraph(text: str) -> str:
    return f"<p>{escape(text[:1].upper() + text[1:])}</p>"


def _figure(content: str, caption: str, *, hidden: bool = False) -> str:
    return f"<figure{' hidden' * hidden}><figcaption>{escape(caption)}</figcaption>{content}</figure>"


def _legend(history: History, summary: Summary) -> str:
    """Names the curves of the figures by their colours."""
    lines = [(curve.name, curve.color, "solid") for curve in curves_of(history, summary) if curve.name]
    if summary.eval_optimum is not None:
        lines.append((f"optimum, {summary.eval_optimum:.1f}", BLACK, "dashed"))
    items = [f'<span><i style="color: var(--color-{COLORS.index(color)}); border-top-style: {style}"></i>'
             f"{escape(name)}</span>" for name, color, style in lines]  # fmt: skip
    num = len(summary.configs or ())
    text = f"interquartile means{'; grey: the others' * (num >= len(COLORS))}" if num else "faint: single agents"
    text += f"; shaded: {INTERVAL}{' of the first' * (num > 3)}; x axis: environment steps per agent"
    return f'<p class="legend">{"".join(items)}<span>{text}</span></p>'


def _agents(history: History, summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Returns the names of the columns, and a row per agent."""
    last = history.metrics.eval_return[-1:].reshape(-1)
    numbers = {
        "final return": summary.per_agent_final_return,
        "shortfall": summary.per_agent_final_shortfall,
        "other starts": summary.per_agent_selection_return,
        "last evaluation": last if len(last) else None,
        "% at bounds": 100 * summary.per_agent_share_at_bounds,
    }
    columns = {"agent": list(map(str, history.agents))}
    if summary.configs:
        config, seed = np.divmod(np.arange(len(history.agents)), summary.num_seeds)
        columns |= {"config": list(map(str, config)), "seed": list(map(str, summary.seeds[0] + seed))}
    columns |= {name: list(map(decimal, array)) for name, array in numbers.items() if array is not None}
    remarks = {agent: f"diverged at step {step:,}" for agent, step in summary.diverged.items()}
    remarks |= dict.fromkeys(summary.always_at_bounds, "acts only at bounds")
    if summary.best_agent is not None:
        remarks.setdefault(summary.best_agent, "best")
    columns["remark"] = [remarks.get(agent, "") for agent in history.agents.tolist()]
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]


def _configuration(details: Mapping[str, Any], summary: Summary) -> list[str]:
    """Shows the fields that are swept or differ from the preset, and then the others."""
    preset = PRESETS.get(str(summary.preset), Config())
    usual = [preset.resolved(on_host).to_dict() for on_host in (False, True)]  # which sets numbers of episodes
    name = summary.preset if summary.preset in PRESETS else "the default"
    changes = [each["changes"] for each in details.get("configs", ())]
    marked, others = [], []
    for field, value in details.get("config", {}).items():
        swept = list(dict.fromkeys(format_value(each.get(field, value)) for each in changes))
        if len(swept) > 1:
            marked.append([field, ", ".join(swept), "swept"])
        elif all(value != each[field] for each in usual):
            marked.append([field, format_value(value), f"{name} has {format_value(usual[0][field])}"])
        else:
            others.append([field, format_value(value)])
    same = f"<details><summary>{len(others)} fields as in {escape(name)}</summary>{table_element([], others)}</details>"
    return ["<h2>Configuration</h2>", table_element(["field", "value", ""], marked) if marked else "", same]
