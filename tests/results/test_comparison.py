"""Comparisons of runs: which are refused, what is named, and the statistics of each run."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import CONFIG, swept, trained

from ddpg_jax.compare import Options
from ddpg_jax.results.comparison import compare_runs, distinct_names, runs_of
from ddpg_jax.results.history import History
from ddpg_jax.sweep import as_swept


def runs(name, final, configs=None, change=None, **options):
    """The runs of a made-up training, whose configuration is changed in some fields."""
    history, summary = trained(final, configs, **options)
    return runs_of(name, summary, history, configs or as_swept(CONFIG.replace(**change or {})))


LOW, HIGH = [-400.0, -420.0, -410.0, -430.0, -405.0], [-105.0, -110.0, -115.0, -108.0, -112.0]


def test_statistics_of_three_runs():
    mixed = [-105.0, -410.0, -1.0, -110.0, -104.0]
    found = compare_runs([*runs("low", LOW), *runs("high", HIGH, seed=1), *runs("mixed", mixed, diverged=[2])])
    assert found.threshold == -120.0  # 20 below the optimum of the evaluations
    assert [(row.run, row.agents, row.num_diverged, row.num_reached, row.median_steps) for row in found.rows] == [
        ("low", 5, 0, 0, np.inf), ("high", 5, 0, 5, 20.0), ("mixed", 4, 1, 3, 20.0)
    ]  # fmt: skip
    assert found.rows[0].improvement[0] == 0.5
    assert found.rows[1].improvement == (1.0, pytest.approx(0.6, abs=0.1), 1.0)
    assert (found.rows[1].iqm, found.rows[1].iqm_ci95) == (pytest.approx(-110.0), (-115.0, -105.0))
    assert found.rows[0].area == pytest.approx(-413.0 - 250.0)
    assert found.notes == ("runs with fewer than 5 agents: no interval",)
    assert repr(found) == "Comparison(3 runs on Pendulum-v1)"


def test_agents_with_the_same_root_seed_and_seed_are_compared_in_pairs():
    """Seeds 3 to 7 and 1 to 6, of which 6 has diverged: 3, 4 and 5 are common."""
    first = runs("first", [-1.0, -2.0, -30.0, -40.0, -50.0], first_seed=3)
    other = runs("other", [0, 0, -2.5, -3.5, -31.5, 0], first_seed=1, diverged=[5])
    apart = runs("apart", [-1.0, -2.0, -30.0, -40.0, -50.0], first_seed=3, seed=9)
    rows = compare_runs([*first, *other, *apart]).rows
    assert [row.num_pairs for row in rows] == [0, 3, 0]
    assert rows[1].difference[0] == pytest.approx(-1.5)
    assert np.isnan([*rows[1].difference[1:], rows[2].difference[0]]).all()


def test_difference_in_pairs_has_an_interval():
    luck = np.array([-300.0, -100.0, -200.0, -150.0, -250.0, -120.0])
    found = compare_runs([*runs("a", luck), *runs("b", luck + np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0]))])
    assert found.rows[1].difference == pytest.approx((1.0, 0.85, 1.15), abs=0.06)
    assert found.rows[1].improvement[1] < 0.5 < found.rows[1].improvement[2]  # which cannot tell them apart
    assert "paired" in str(found)
    assert "paired" not in str(compare_runs([*runs("a", luck), *runs("b", luck, seed=1)]))


def test_configurations_of_a_sweep_are_compared_one_by_one():
    one, two = runs("run", [[-1.0, -2.0], [-30.0, -40.0]], swept(tau=[0.1, 0.2]), diverged=[3])
    assert (one.title, two.title) == ("run: tau=0.1 (2 agents)", "run: tau=0.2 (1 agent, 1 diverged)")
    assert (one.final.tolist(), two.final.tolist()) == ([-1.0, -2.0], [-30.0])
    assert one.returns.tolist() == [[-501.0, -502.0], [-1.0, -2.0]]
    assert two.seeds.tolist() == [0]


def test_configuration_whose_agents_all_diverged_is_left_out_and_named():
    sweep = runs("run", [[-1.0] * 5, [-30.0] * 5], swept(tau=[0.1, 0.2]), diverged=range(5))
    found = compare_runs([*sweep, *runs("other", [-2.0] * 5)])
    assert [row.run for row in found.rows] == ["run: tau=0.2", "other"]
    assert found.notes == ("left out, because all agents diverged: run: tau=0.1",)
    with pytest.raises(ValueError, match="runs have no agent that did not diverge"):
        compare_runs(sweep[:1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"env_id": "X-v0"}, "env_id is Pendulum-v1 in a and X-v0 in b"),
        ({"env_args": ("g=1.0",)}, "env_args is none in a and g=1.0 in b"),
    ],
)
def test_runs_of_different_tasks_are_refused_by_field(change, message):
    (one,), (two,) = runs("a", HIGH), runs("b", LOW)
    with pytest.raises(ValueError, match=f"{message}, but must be the same in all compared runs"):
        compare_runs([one, replace(two, task={**two.task, **change})])


def test_different_steps_and_episodes_are_named():
    (longer,) = runs("b", LOW, change={"final_episodes": 32, "eval_episodes": 5})
    longer = replace(longer, task={**longer.task, "total_steps": 40})
    found = compare_runs([*runs("a", HIGH), *runs("c", HIGH), longer])
    assert found.notes == ("total_steps differs: 20 in a, 40 in b", "eval_episodes differs: 4 in a, 5 in b",
                           "final_episodes differs: 8 in a, 32 in b")  # fmt: skip
    assert str(found).startswith("total_steps differs")
    assert "<p>total_steps differs: 20 in a, 40 in b</p>" in found._repr_html_()


def test_steps_are_those_that_were_trained_where_a_callback_ended_it():
    """The second configuration, in a program of its own, has ended at its first evaluation."""
    history, summary = trained([[-1.0] * 5, [-2.0] * 5], swept(tau=[0.1, 0.2]))
    whole, early = history.select(range(5)), history.select(range(5, 10)).to_arrays()
    early |= {name: early[name][:, :1] for name in early if name.startswith("evaluation/")}
    early |= {"evaluation_steps": early["evaluation_steps"][:1], "env_steps": np.array(10)}
    joined = History.join([whole, History.from_arrays(early)])
    found = compare_runs(runs_of("run", summary, joined, swept(tau=[0.1, 0.2])))
    assert [run.steps.tolist() for run in found.runs] == [[10, 20], [10]]
    assert [row.area for row in found.rows] == [-251.0, -502.0]
    assert found.notes == ("total_steps differs: 20 in run: tau=0.1, 10 in run: tau=0.2",)


def test_run_that_was_stopped_is_refused():
    with pytest.raises(ValueError, match="a was stopped before its end, but must be finished to be compared"):
        runs("a", HIGH, complete=False)


def test_threshold_of_the_user_and_none():
    with pytest.raises(ValueError, match="threshold is nan, but must be a finite number"):
        compare_runs(runs("a", HIGH), np.nan)
    assert compare_runs(runs("a", HIGH), -107.0).rows[0].num_reached == 1
    without = compare_runs(runs("a", HIGH, solved=None))
    assert (without.threshold, without.rows[0].num_reached) == (None, None)
    assert "reached" not in str(without)


@pytest.mark.parametrize("scale", [1.0, 10.0, 100.0])
def test_table_fits_80_columns_and_breaks_no_interval(scale):
    low = [-149.9, -149.8, -140.0, -130.0, -120.0, -100.0]
    found = compare_runs([*runs("a name of more than eighty characters: " * 3, np.array(low) * scale),
                          *runs("high", np.array(HIGH) * scale), *runs("few", [-1.0])])  # fmt: skip
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80
    table = lines[next(i for i, line in enumerate(lines) if line.startswith("#")) + 1 :]
    intervals = [(line.count("["), line.count("]")) for line in table if "[" in line]
    assert intervals == [(1, 1), (3, 3)]
    (first,) = (line.split() for line in table if line.startswith("1  "))
    assert first[3:5] == ["–", "–"]  # against itself
    assert ("nan" in str(found), "never" in str(found)) == (False, True)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["runs/a", "runs/b/"], ["a", "b"]),
        (["/x/a/run", "/x/b/run", "/x/b/c"], ["a/run", "b/run", "b/c"]),
        (["run", "b/run"], ["run", "b/run"]),
        (["a/run", "a/run"], ["run (1)", "run (2)"]),
    ],
)
def test_names_tell_runs_apart(names, expected):
    assert distinct_names(names) == expected


def test_command_replaces_a_figure_only_if_told(tmp_path):
    figure = tmp_path / "figure.png"
    assert Options(runs=(tmp_path,), figure=figure).figure == figure
    figure.touch()
    with pytest.raises(ValueError, match="but must be a new file, unless --overwrite is given"):
        Options(runs=(tmp_path,), figure=figure)
    assert Options(runs=(tmp_path,), figure=figure, overwrite=True).overwrite


def test_figure_has_a_curve_and_a_profile_per_run_and_the_numbers_of_agents():
    figure = compare_runs([*runs("a", HIGH), *runs("b", LOW, seed=1), *runs("c", [-1.0])]).plot()
    curves, profiles = figure.axes
    names = ["a (5 agents)", "b (5 agents)", "c (1 agent)", "threshold -120.0"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    assert [line.get_ydata()[-1] for line in curves.lines[:2]] == pytest.approx([-110.0, -411.6667], abs=1e-3)
    assert curves.get_title() == "95% bootstrap interval of the IQM, from 5 agents on"
    assert len(profiles.lines) == 3
