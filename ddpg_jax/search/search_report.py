"""The page of a search: the comparison at its end, and the trials or the population that led to it."""

import warnings
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from optuna.importance import get_param_importances
from optuna.trial import FrozenTrial, TrialState

from ddpg_jax.axes import Range
from ddpg_jax.fields import format_value
from ddpg_jax.results.comparison import Comparison
from ddpg_jax.results.html_report import html_page, table_element
from ddpg_jax.results.page_figures import svg
from ddpg_jax.results.plots import BLUE, ORANGE, new_figure, own_style
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.population import Row, lineage
from ddpg_jax.search.space import Space, short
from ddpg_jax.search.study import best_trial

MOST_ROWS = 20
"""Trials in the ranking, at most."""


def page(options: TuneOptions, conclusion: str, comparison: Comparison, parts: Sequence[str]) -> str:
    """Returns the page as HTML that needs no other file."""
    title = f"Search for {', '.join(text.partition('=')[0] for text in options.tune)} on {options.config.env_id}"
    agents = f"{options.trials} trials x {len(options.seeds)} seeds, {options.config.total_steps:,} steps each"
    command = " ".join(f"--tune {text}" for text in options.tune)
    body = [
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(conclusion[:1].upper() + conclusion[1:])}.</p>",
        f"<p>Method {options.method}: {agents}; root seed {options.seed}"
        f"{'' if options.method == 'pbt' else f'; objective {options.objective}; pruner {options.pruner}'}.</p>",
        "<h2>The best configuration and the defaults, on seeds that the search has not used</h2>",
        comparison._repr_html_(),
        _figure(comparison.plot()),
        *parts,
        f"<h2>Space</h2><p>{escape(command)}</p>",
    ]
    return html_page(title, body)


def _figure(figure: Any) -> str:
    return f"<figure>{svg(figure)}</figure>"


def study_parts(study: Any, space: Space, options: TuneOptions) -> list[str]:
    """Returns what the page shows of a study: ranking, importance, values against the objective, learning curves."""
    told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
    complete = [trial for trial in told if trial.state == TrialState.COMPLETE]
    evaluated = [trial for trial in told if trial.intermediate_values]  # without those that diverged at once
    steps = sum(trial.user_attrs["env_steps"] for trial in told) * len(options.seeds)
    whole = len(told) * len(options.seeds) * options.config.total_steps
    parts = [
        f"<h2>Ranking</h2><p>{len(complete)} trials were trained to their end, and {len(told) - len(complete)} left "
        f"before it: {steps:,} agent steps instead of {whole:,}.</p>",
        table_element(*ranking(study, space), sorts=True),
    ]
    if len(complete) > 3 and len(space.axes) > 1:
        text = "Share of each field in how good the completed trials are (Optuna's PED-ANOVA, Watanabe et al. 2023)."
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # equally good trials
            parts += ["<h2>Importance</h2>", f"<p>{text}</p>", _figure(_importance(get_param_importances(study)))]
    return [
        *parts,
        "<h2>What each field does to the objective</h2><p>Completed trials are dots. A cross is a trial that left, at "
        "its last return.</p>",
        *(_figure(_values(name, evaluated, space)) for name in space.axes),
        "<h2>Learning curves</h2>",
        _figure(_curves(evaluated, study)),
    ]


def population_parts(rows: Sequence[Row], space: Space) -> list[str]:
    """Returns what the page shows of a population: the schedule of its best agent, returns, and all agents' values."""
    path = lineage(rows)
    table = [[f"{row.env_steps:,}", str(row.agent), f"{row.greedy_return:.1f}", *map(short, row.values.values())]
             for row in path]  # fmt: skip
    return [
        "<h2>The schedule</h2><p>The hyperparameters up to each step, along the ancestors of the best agent.</p>",
        table_element(["up to step", "agent", "return", *space.axes], table),
        *(_figure(_schedule(name, rows, path, space)) for name in space.axes),
        "<h2>Returns</h2>",
        _figure(_schedule("return", rows, path, space)),
    ]


def ranking(study: Any, space: Space) -> tuple[list[str], list[list[str]]]:
    """Returns the columns and rows of the best completed trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    ranked = sorted(complete, key=lambda trial: -trial.value)[:MOST_ROWS]
    rows = [[str(rank), str(trial.number), f"{trial.value:.2f}", *(short(trial.params[name]) for name in space.axes)]
            for rank, trial in enumerate(ranked, start=1)]  # fmt: skip
    return ["rank", "trial", "objective", *space.axes], rows


@own_style()
def _importance(shares: dict[str, float]) -> Any:
    figure, axes = new_figure(x_label="importance", size=(8, 0.8 + 0.4 * len(shares)))
    axes.barh([*shares][::-1], [*shares.values()][::-1], color=BLUE)
    return figure


@own_style()
def _values(name: str, told: Sequence[FrozenTrial], space: Space) -> Any:
    figure, axes = new_figure(x_label=name, y_label="objective", size=(8, 3.2))
    for state, marker, color in ((TrialState.COMPLETE, "o", BLUE), (TrialState.PRUNED, "x", ORANGE)):
        trials = [trial for trial in told if trial.state == state]
        axes.plot([_place(name, trial.params[name], space) for trial in trials], [trial.value for trial in trials],
                  marker, color=color, alpha=0.8)  # fmt: skip
    _scale(axes, "x", name, space)
    return figure


def _place(name: str, value: Any, space: Space) -> float:
    """Returns where a value is on its axis: choices are in their order."""
    axis = space.axes[name]
    return value if isinstance(axis, Range) else axis.index(space.values({name: value})[name])


def _scale(axes: Any, which: str, name: str, space: Space) -> None:
    """Gives the axis "x" or "y" of a figure the ticks, or the scale and the range, of a field."""
    from matplotlib.ticker import NullFormatter

    axis, field = getattr(axes, f"{which}axis"), space.axes.get(name)
    if isinstance(field, tuple):
        axis.set_ticks(range(len(field)), [*map(format_value, field)])
    elif field is not None and field.logarithmic:
        getattr(axes, f"set_{which}scale")("log")
        getattr(axes, f"set_{which}lim")(field.low / 1.1, field.high * 1.1)
        if field.high >= 10 * field.low:
            axis.set_minor_formatter(NullFormatter())


@own_style()
def _curves(told: Sequence[FrozenTrial], study: Any) -> Any:
    figure, axes = new_figure(x_label="environment steps per agent", y_label="greedy return", size=(8, 4))
    best = best_trial(study)
    for trial in told:
        kept = trial.state == TrialState.COMPLETE
        is_best = best is not None and trial.number == best.number
        steps, values = zip(*sorted(trial.intermediate_values.items()), strict=True)
        axes.plot(steps, values, color=BLUE if kept else ORANGE, linewidth=2.5 if is_best else 0.9,
                  alpha=1 if is_best else 0.5)  # fmt: skip
        if not kept:
            axes.plot(steps[-1], values[-1], "x", color=ORANGE)
    for text, color, width in (("the best", BLUE, 2.5), ("trained to the end", BLUE, 0.9), ("left early", ORANGE, 0.9)):
        axes.plot([], [], color=color, linewidth=width, label=text)
    axes.legend(frameon=False, loc="lower right")
    return figure


@own_style()
def _schedule(name: str, rows: Sequence[Row], path: Sequence[Row], space: Space) -> Any:
    figure, axes = new_figure(x_label="environment steps per agent", y_label=name, size=(8, 3.2))

    def place(row: Row) -> float:
        return row.greedy_return if name == "return" else _place(name, row.values[name], space)

    steps = np.array([row.env_steps for row in path])
    values = np.array([place(row) for row in sorted(rows, key=lambda row: (row.agent, row.env_steps))])
    axes.plot(steps, values.reshape(-1, len(steps)).T, color="0.6", linewidth=0.7, alpha=0.5)
    axes.plot(steps, [*map(place, path)], "o-", color=BLUE, linewidth=2, label="ancestors of the best agent")
    axes.legend(frameon=False, fontsize="small")
    _scale(axes, "y", name, space)
    return figure
