"""Figures: what they show, and that nothing of the user's settings of Matplotlib changes them."""

import re
from contextlib import nullcontext
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from made_up import swept, trained

from ddpg_jax.results import page_figures, plots, sweep_plots


def labels(figure):
    """All texts of the legends and axes of a figure."""
    legends = [*figure.legends, *(axes.get_legend() for axes in figure.axes if axes.get_legend())]
    return [text.get_text() for legend in legends for text in legend.get_texts()]


def test_learning_curve_has_the_agents_that_did_not_diverge_and_the_optimum():
    history, summary = trained(np.arange(-105.0, -98), diverged=[0])
    figure = plots.learning_curve(history, summary)
    *agents, mean, optimum = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in agents] == [[i - 604.0, i - 104.0] for i in range(6)]
    assert mean.get_xydata().tolist() == [[10, -601.5], [20, -101.5]]
    assert set(optimum.get_ydata()) == {-100.0}
    assert labels(figure) == ["each agent", "interquartile mean (IQM) of 6 agents", "95% bootstrap interval of the IQM",
                              "optimum, -100.0"]  # fmt: skip


def test_few_agents_have_no_interval():
    figure = plots.learning_curve(*trained([-1.0, -2.0, -3.0], optimum=None))
    assert labels(figure) == ["each agent", "interquartile mean (IQM) of 3 agents\n(fewer than 5 agents: no interval)"]
    assert not figure.axes[0].collections


@pytest.mark.parametrize("diverged", [[], [0, 1]])
def test_figures_of_any_number_of_agents_are_files(diverged):
    history, summary = trained([-1.0, -2.0], diverged=diverged)
    assert plots.learning_curve(history, summary)._repr_png_().startswith(b"\x89PNG")  # by which a notebook shows it
    with pytest.raises(ValueError, match="has not completed an episode") if diverged else nullcontext():
        plots.training_returns(history, summary)


def test_of_many_agents_some_are_drawn_and_the_mean_is_that_of_all():
    figure = plots.learning_curve(*trained(np.arange(-301.0, 0)))
    *agents, mean, _ = figure.axes[0].lines
    assert (len(agents), labels(figure)[0]) == (76, "76 of the agents")  # every fourth
    assert mean.get_ydata()[-1] == -151.0


def test_training_returns_are_averaged_over_a_window():
    history, summary = trained([-10.0, -20.0])
    (axes,) = plots.training_returns(history, summary, window=1).axes
    assert axes.lines[0].get_ydata().tolist() == [-510.0, -10.0]
    (axes,) = plots.training_returns(history, summary).axes
    assert [axes.lines[i].get_ydata().tolist() for i in (0, -1)] == [[-510.0, -260.0], [-515.0, -265.0]]


def test_settings_of_the_user_change_no_figure(monkeypatch):
    expected = plots.png(plots.learning_curve(*trained([-1.0, -2.0])))
    monkeypatch.setenv("MPLBACKEND", "no such backend")
    with matplotlib.rc_context({"lines.linewidth": 9, "axes.facecolor": "red", "savefig.dpi": 20}):
        assert plots.png(plots.learning_curve(*trained([-1.0, -2.0]))) == expected
        assert matplotlib.rcParams["savefig.dpi"] == 20


def test_curves_of_a_sweep_are_named_by_rank():
    history, summary = trained([[-3.0] * 5, [-1.0] * 5, [-2.0] * 5], swept(tau=[0.1, 0.2, 0.3]), diverged=[1])
    figure = plots.learning_curve(history, summary)
    assert labels(figure) == ["1. tau=0.2", "95% bootstrap interval of the IQM", "2. tau=0.3", "3. tau=0.1",
                              "optimum, -100.0"]  # fmt: skip
    assert [line.get_ydata()[-1] for line in figure.axes[0].lines] == [-1.0, -2.0, -3.0, -100.0]
    assert len(figure.axes[0].collections) == 2  # of the third, four agents are left


def test_large_sweep_names_the_best_and_shows_one_interval():
    final = np.tile(np.arange(-10.0, 0)[:, None], 5)
    figure = plots.learning_curve(*trained(final, swept(tau=np.linspace(0.1, 1, 10).round(2).tolist())))
    assert labels(figure)[:3] == ["1. tau=1", "95% bootstrap interval of the IQM of the first", "2. tau=0.9"]
    assert len([label for label in labels(figure) if "tau" in label]) == 6
    assert len(figure.axes[0].lines) == 11


def test_one_field_is_an_axis():
    final = [[-3.0] * 5, [-1.0] * 5, [-2.0] * 4 + [-9.0]]
    figure = sweep_plots.final_returns(trained(final, swept(tau=[0.1, 1.0, 0.01]))[1])
    line, worst = figure.axes[0].lines
    assert line.get_xydata().tolist() == [[0.01, -2.0], [0.1, -3.0], [1.0, -1.0]]
    assert worst.get_ydata().tolist() == [-9.0, -3.0, -1.0]
    assert (figure.axes[0].get_xscale(), labels(figure)[0]) == ("log", "95% bootstrap interval of the IQM")
    few = sweep_plots.final_returns(trained([[-1.0], [-2.0]], swept(noise=["ou", "gaussian"]))[1])
    assert [tick.get_text() for tick in few.axes[0].get_xticklabels()] == ["gaussian", "ou"]
    assert labels(few) == ["interquartile mean (IQM)", "worst agent"]
    sizes = sweep_plots.final_returns(trained([[-1.0]] * 3, swept(hidden_sizes=[(16,), (), (8, 8)]))[1])
    assert [tick.get_text() for tick in sizes.axes[0].get_xticklabels()] == ["none", "8x8", "16"]


def combined(*fields):
    """A configuration per combination of two values of each field."""
    grid = [dict(zip(fields, values, strict=True)) for values in np.ndindex(*[2] * len(fields))]
    return [swept(tau=[0.1])[0]._replace(values={name: value + 1 for name, value in each.items()}) for each in grid]


def test_two_fields_are_a_map_in_which_diverged_ones_are_named():
    summary = trained([[-1.0] * 5, [-2.0] * 5, [-3.0] * 5, [-4.0] * 5], combined("x", "y"), diverged=range(5, 10))[1]
    axes = sweep_plots.final_returns(summary).axes[0]
    shown = {text.get_position(): (text.get_text(), text.get_color() == "white") for text in axes.texts}
    assert shown[0, 0] == ("−1.0\n[−1.0, −1.0]", False)
    assert shown[1, 0] == ("diverged", False)
    assert shown[1, 1] == ("−4.0\n[−4.0, −4.0]", True)


def test_more_fields_are_a_ranking():
    final = -np.arange(8.0)[:, None]
    figure = sweep_plots.final_returns(trained(final, combined("x", "y", "z"))[1])
    ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
    assert ticks[::7] == ["1. x=1, y=1, z=1", "8. x=2, y=2, z=2"]
    assert figure.axes[0].lines[0].get_xdata().tolist() == final.ravel().tolist()


def test_sweep_whose_agents_all_diverged_is_drawn():
    for configs in (swept(tau=[0.1, 0.2]), combined("x", "y"), combined("x", "y", "z")):
        history, summary = trained(np.zeros((len(configs), 1)), configs, diverged=range(len(configs)))
        assert plots.png(sweep_plots.final_returns(summary))
        assert len(page_figures.panels(history, summary)) == 6


def test_page_has_a_shortfall_only_where_the_optimum_is_known():
    with_optimum, without = (page_figures.panels(*trained([-1.0] * 5, optimum=each)) for each in ((-1.0,) * 8, None))
    assert [len(with_optimum), len(without)] == [6, 5]
    assert [caption for caption in with_optimum if caption not in without] == [
        "Shortfall to the optimum; solved below the dotted line"
    ]


def test_figures_of_the_page_are_text_and_lines_in_the_pages_colours():
    history, summary = trained([-105.0, -110.0])
    figure, *others = page_figures.panels(history, summary).values()
    assert [figure, *others] == list(page_figures.panels(history, summary).values())  # the same each time
    root = ElementTree.fromstring(figure)
    assert "−100" in {text.text for text in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"var(--color-{i})" for i in (0, 6)} <= set(re.findall(r"stroke: (var\S+?\))", figure))
    assert not re.findall("#000000|#ffffff|#0072b2", figure)  # black, a white background, the first colour
