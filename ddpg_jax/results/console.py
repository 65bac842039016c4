"""The results of a run in words and tables, with their units, for the terminal and for `report.html`."""

from math import isfinite

from rich.box import SIMPLE_HEAVY
from rich.table import Table

from ddpg_jax.fields import format_value
from ddpg_jax.results import statistics
from ddpg_jax.results.summary import ConfigSummary, Summary
from ddpg_jax.results.text import decimal, interval

IQM, PAIRED = "IQM [95%]", "paired difference [95%]"
MOST_CONFIGS, MOST_AGENTS = 20, 8
"""Configurations in the terminal, and agents that a row names, at most; `configs.csv` and `summary.json` have all."""
INTERVAL_WIDTH = 9
"""Least width in characters of a column with intervals, so that no number in it is broken."""


def result_rows(summary: Summary) -> list[tuple[str, str]]:
    """Returns the results as labels and texts; a label is empty where a row continues the one above."""
    starts = _starts(summary.final_episodes, summary.final_optimum)
    rows = [("final greedy returns", starts)] if summary.configs else _return_rows(summary)
    rows += [("diverged, left out", f"agent {agent} at step {step:,}") for agent, step in summary.diverged.items()]
    if summary.always_at_bounds:
        names = ", ".join(map(str, summary.always_at_bounds[:MOST_AGENTS]))
        more = len(summary.always_at_bounds) - MOST_AGENTS
        rows.append(("agents that act only at bounds", f"{names}{f' and {more} more' if more > 0 else ''}"))
    rows.append(("environment steps", f"{summary.env_steps_per_agent:,} per agent"))
    if not summary.complete:
        rows.append(("stopped", "before the end of training: no final episodes"))
    if summary.updates_per_agent is not None:
        rows.append(("updates", f"{summary.updates_per_agent:,} per agent"))
    return rows + _seconds_rows(summary)


def _seconds_rows(summary: Summary) -> list[tuple[str, str]]:
    """The seconds of the parts of a run, which add up to those of the whole run as they are shown."""
    names = ("compilation", "training", "evaluation", "checkpoints", "start, tables, figures")
    parts = (summary.compile_seconds, summary.train_seconds, summary.evaluation_seconds, summary.checkpoint_seconds)
    shown = [round(seconds, 1) for seconds in parts]
    if isfinite(summary.wall_seconds):
        shown.append(max(0.0, round(summary.wall_seconds, 1) - sum(shown)))
    rows = [(name, f"{seconds:.1f} s") for name, seconds in zip(names, shown, strict=False)]
    if isfinite(summary.updates_per_second):
        rows[1] = ("training", f"{rows[1][1]}, {summary.updates_per_second:,.0f} updates/s")
    whole = f"{summary.wall_seconds:.1f} s on " if isfinite(summary.wall_seconds) else "on "
    return [*rows, ("whole run", f"{whole}{summary.device}")]


def _return_rows(summary: Summary) -> list[tuple[str, str]]:
    """The rows about returns; there are none if all agents diverged."""
    final, shortfall, last = summary.final_return, summary.final_shortfall, summary.train_return_last_40
    rows = []
    if isfinite(final.iqm):
        rows.append(("final greedy return", _iqm(final)))
        rows.append(("", f"mean {final.mean:.1f}, median {final.median:.1f}"))
        rows.append(("", f"worst agent {final.worst:.1f}, best {final.best:.1f}"))
        rows.append(("", _starts(summary.final_episodes, summary.final_optimum)))
    if isfinite(final.iqm) and shortfall is not None:
        text = f"IQM {shortfall.iqm:.1f}, mean {shortfall.mean:.1f}, largest {shortfall.largest:.1f}"
        rows.append(("shortfall to the optimum", text))
        if shortfall.num_solved is not None:
            label = f"solved (shortfall <= {format_value(summary.solved_shortfall)})"
            rows.append((label, f"{shortfall.num_solved} of {summary.num_agents} agents"))
    if isfinite(summary.eval_return.iqm):
        starts = _starts(summary.eval_episodes, summary.eval_optimum)
        rows += [("last evaluation in training", _iqm(summary.eval_return)), ("", starts)]
    if isfinite(last.mean):
        rows.append(("last 40 training returns", f"mean {last.mean:.1f}, with exploration noise"))
    return rows


def _iqm(returns: statistics.Returns) -> str:
    ci95 = interval(returns.iqm_ci95)
    return f"IQM {returns.iqm:.1f}{f', 95% {ci95}' if ci95 else ''}"


def _starts(num: int, optimum: float | None) -> str:
    """Says from which start states a return was measured, and what could be reached from there."""
    best = "" if optimum is None else f", where the optimum is {optimum:.1f}"
    return f"from {num:,} common start states{best}"


def headline(summary: Summary) -> str:
    """Returns the main result in a sentence."""
    start, final, shortfall, num_agents = "", summary.final_return, summary.final_shortfall, summary.num_agents
    num_diverged = len(summary.diverged)
    if summary.configs:
        best = summary.ranked()[0]
        final, shortfall, num_agents = best.final_return, best.final_shortfall, summary.num_seeds
        num_diverged = best.num_diverged
        start = f"{len(summary.configs)} configurations x {num_agents} seeds; for the best, config {best.config}, "
    if not isfinite(final.iqm):
        return "All agents have diverged." if summary.complete else "Training was stopped before its end."
    text = f"{start}the interquartile mean of the final greedy returns is {final.iqm:.1f}"
    text += f" (95% {interval(final.iqm_ci95)})" if isfinite(final.iqm_ci95[0]) else ""
    text += f", {shortfall.iqm:.1f} below the optimum" if shortfall else ""
    if shortfall and shortfall.num_solved is not None:
        text += f"; {shortfall.num_solved} of {num_agents} agents solve the task"
    if num_diverged:
        text += f"; {num_diverged} of {num_agents} agents diverged and are left out"
    return f"{text}."


def ranking(summary: Summary) -> tuple[list[str], list[list[str]]]:
    """Returns the column names and the rows of a sweep's ranking, the best configuration first."""
    swept, rows = summary.swept_fields, []
    for each in summary.ranked():
        final, shortfall, against = each.final_return, each.final_shortfall, each.against_best
        values = [format_value(each.values.get(name, "")) for name in swept]
        measured = f"{decimal(final.iqm)} {interval(final.iqm_ci95)}".strip()
        if each.num_diverged:
            measured = f"{measured}, {each.num_diverged} diverged" if measured else "all diverged"
        row = [str(each.rank), str(each.config), *values, measured, decimal(final.worst)]
        row += [] if shortfall is None or shortfall.num_solved is None else [str(shortfall.num_solved)]
        difference = f"{decimal(against.iqm)} {interval(against.ci95)}".strip()
        supported = ("yes" if _is_supported(each) else "no") if each.rank > 1 and _has_pairs(each) else ""
        rows.append([*row, difference if each.rank > 1 else "", supported])
    solved = ["solved"] if summary.solved_shortfall is not None else []
    return ["rank", "config", *swept, IQM, "worst", *solved, PAIRED, "supported"], rows


def _has_pairs(each: ConfigSummary) -> bool:
    """Whether a configuration and the best have seeds with which no agent of theirs diverged."""
    return isfinite(each.against_best.p_adjusted)


def _is_supported(each: ConfigSummary) -> bool:
    """Whether the seeds support that a configuration is worse than the best; False without pairs of seeds."""
    return each.against_best.p_adjusted <= statistics.SUPPORTED


def conclusion(summary: Summary) -> str:
    """Returns, in a sentence without its full stop, which differences the seeds of a sweep support."""
    if not summary.complete:
        return "training was stopped before its end, so there is nothing to compare"
    (_, *others), num_seeds = summary.ranked(), summary.num_seeds
    worse, lost = sum(map(_is_supported, others)), len(others) - sum(map(_has_pairs, others))
    pairs = f"{num_seeds} pairs of seeds" if not summary.diverged else "the pairs of seeds whose agents did not diverge"
    test = f"Wilcoxon's signed-rank test over {pairs}, adjusted for all pairs of configurations"
    if statistics.least_p_value(len(others) + 1, num_seeds) > statistics.SUPPORTED:
        impossible = f"{num_seeds} seeds cannot support any difference among {len(others) + 1} configurations"
        return f"{impossible} ({test}): use more seeds"
    rest, texts = len(others) - worse - lost, []
    if worse:
        text = f"the seeds support at 5% that {worse} of the {len(others)} other configurations "
        text += "are worse than the first"
        texts.append(f"{text}{f', and cannot tell {rest} from it' if rest else ''} ({test})")
    elif rest:
        which = f"{rest} of the other configurations" if lost else "any other configuration"
        texts.append(f"{num_seeds} seeds cannot tell {which} from the first ({test}, at 5%)")
    if lost:
        texts.append(f"{lost} of the {len(others)} other configurations have no pair of seeds with the first, because "
                     f"agents diverged")  # fmt: skip
    return "; ".join(texts)


def result_table(summary: Summary, folder: str) -> Table:
    """Returns the results of a run as a table for the terminal."""
    table = Table(title=f"{summary.num_agents} agents, {summary.subject}", show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for row in (*result_rows(summary), *(("note", note) for note in summary.notes), ("files", folder)):
        table.add_row(*row)
    return table


def ranking_table(summary: Summary) -> Table:
    """Returns the best configurations of a sweep as a table for the terminal."""
    columns, rows = ranking(summary)
    title = f"{len(rows)} configurations x {summary.num_seeds} seeds: final greedy return"
    caption = f"and {len(rows) - MOST_CONFIGS} more in configs.csv" if len(rows) > MOST_CONFIGS else None
    table = Table(title=title, caption=caption, box=SIMPLE_HEAVY, padding=(0, 1, 0, 0))
    for column in columns:
        may_break = column in (IQM, PAIRED, *summary.swept_fields)
        least = INTERVAL_WIDTH if column in (IQM, PAIRED) else None
        table.add_column(column, justify="right", overflow="fold", min_width=least, no_wrap=not may_break)
    for row in rows[:MOST_CONFIGS]:
        table.add_row(*row)
    return table
