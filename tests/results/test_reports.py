"""Reports for the terminal and on a page: what they say of the results."""

import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from made_up import CONFIG, swept, trained
from rich.console import Console

from ddpg_jax.presets import PRESETS
from ddpg_jax.results import console
from ddpg_jax.results.html_report import report_page

TAUS = swept(tau=[0.1, 0.2])


def texts(summary):
    return [text for _, text in console.result_rows(summary)]


def test_returns_are_shown_with_the_optimum_of_their_start_states():
    rows = texts(trained([-130, -120, -125, -124, -126])[1])
    final = rows.index("IQM -125.0, 95% [-130.0, -120.0]")
    assert rows[final + 3] == "from 8 common start states, where the optimum is -110.0"
    last = rows.index("IQM -125.0, 95% [-130.0, -120.0]", final + 1)
    assert rows[last + 1] == "from 4 common start states, where the optimum is -100.0"
    assert "from 8 common start states" in texts(trained([-1.0], optimum=None)[1])
    assert rows[final + 3] in texts(trained([[-1.0], [-2.0]], TAUS)[1])


def test_diverged_agents_and_those_at_their_bounds_are_named():
    rows = console.result_rows(trained(np.arange(-15.0, 0), diverged=[3], at_bounds=range(11), first_seed=10)[1])
    assert ("diverged, left out", "agent 13 at step 15") in rows
    assert ("agents that act only at bounds", "10, 11, 12, 14, 15, 16, 17, 18 and 2 more") in rows


def test_solved_is_shown_only_where_the_task_defines_it():
    for solved, optimum, words in ((20.0, None, ()), (None, (-1.0,) * 8, ("shortfall",)),
                                   (20.0, (-1.0,) * 8, ("shortfall", "solved"))):  # fmt: skip
        one = trained([-2.0] * 5, optimum=optimum, solved=solved)[1]
        sweep = trained([[-2.0] * 5] * 2, TAUS, optimum=optimum, solved=solved)[1]
        text = f"{console.result_rows(one)} {console.headline(one)}".replace("solve the task", "solved")
        assert [word for word in ("shortfall", "solved") if word in text] == list(words)
        assert ("solved" in console.ranking(sweep)[0]) == ("solved" in words)


def test_stopped_run_says_so():
    summary = trained([-130, -120], complete=False)[1]
    assert console.headline(summary) == "Training was stopped before its end."
    assert ("stopped", "before the end of training: no final episodes") in console.result_rows(summary)
    assert "IQM -125.0" in texts(summary)
    sweep = trained([[-130, -120], [-140, -150]], TAUS, complete=False)[1]
    assert console.conclusion(sweep) == "training was stopped before its end, so there is nothing to compare"
    assert console.ranking(sweep)[1][0] == ["1", "0", "0.1", "", "", "0", "", ""]


def test_seconds_add_up_to_the_wall_clock_as_they_are_shown():
    summary = replace(trained([-1.0])[1], compile_seconds=0.26, train_seconds=0.14, wall_seconds=5.04)
    rows = dict(console.result_rows(summary))
    shown = ("compilation", "training", "evaluation", "checkpoints", "start, tables, figures", "whole run")
    assert [rows[name].split()[0] for name in shown] == ["0.3", "0.1", "0.2", "0.0", "4.4", "5.0"]
    assert "start, tables, figures" not in dict(console.result_rows(replace(summary, wall_seconds=np.nan)))


def test_ranking_of_a_sweep():
    summary = trained([[-130, -131, -132, -133, -134, -136], [-120, -121, -122, -123, -124, -125]], TAUS)[1]
    columns, rows = console.ranking(summary)
    assert columns == ["rank", "config", "tau", "IQM [95%]", "worst", "solved", "paired difference [95%]", "supported"]
    assert rows[0][:6] == ["1", "1", "0.2", "-122.5 [-124.8, -120.2]", "-125.0", "6"]
    assert rows[1][5:] == ["1", "-10.0 [-10.8, -10.0]", "yes"]
    assert console.conclusion(summary) == (
        "the seeds support at 5% that 1 of the 1 other configurations are worse than the first (Wilcoxon's signed-rank "
        "test over 6 pairs of seeds, adjusted for all pairs of configurations)"
    )
    assert console.headline(summary).startswith("2 configurations x 6 seeds; for the best, config 1, ")


def test_runs_and_configurations_whose_agents_all_diverged_say_so():
    one = trained([-1.0, -2.0], diverged=[0, 1])[1]
    assert console.headline(one) == "All agents have diverged."
    assert not [text for text in texts(one) if "nan" in text]
    summary = trained([[-1, -2], [-3, -4]], TAUS, diverged=[2, 3])[1]
    assert console.ranking(summary)[1][1] == ["2", "1", "0.2", "all diverged", "", "0", "", ""]
    assert "2 seeds cannot support any difference among 2 configurations" in console.conclusion(summary)


def test_ranking_says_where_agents_diverged():
    """One of eight agents of the second configuration is left, and the mean is the highest."""
    summary = trained([[-130] * 8, [-120] * 8, [-140] * 8], swept(tau=[0.1, 0.2, 0.3]), diverged=[*range(8, 15)])[1]
    assert console.ranking(summary)[1][0][3:5] == ["-120.0, 7 diverged", "-120.0"]
    assert console.headline(summary).endswith("; 7 of 8 agents diverged and are left out.")
    assert console.conclusion(summary).startswith("8 seeds cannot tell any other configuration from the first (Wilcox")
    assert "over the pairs of seeds whose agents did not diverge, " in console.conclusion(summary)
    summary = trained([[-130] * 6, [-120] * 6], swept(tau=[0.1, 0.2]), diverged=[*range(6)])[1]
    assert console.conclusion(summary) == (
        "1 of the 1 other configurations have no pair of seeds with the first, because agents diverged"
    )


def test_tables_fit_a_narrow_terminal():
    summary = trained([[-130.5] * 5, [-120.5] * 5], TAUS)[1]
    terminal = Console(width=80, record=True, markup=False, emoji=False)
    terminal.print(console.ranking_table(summary))
    terminal.print(console.result_table(summary, "runs/x"))
    text = terminal.export_text()
    assert all(words in text for words in ("2 configurations x 5 seeds", "-120.5", "runs/x"))
    assert max(map(len, text.splitlines())) <= 80


def test_long_rankings_are_cut_in_the_terminal():
    summary = trained(np.zeros((23, 1)), swept(tau=np.linspace(0.1, 0.9, 23).round(3).tolist()))[1]
    table = console.ranking_table(summary)
    assert (table.caption, table.row_count) == ("and 3 more in configs.csv", 20)


class Page(HTMLParser):
    """Collects what a page shows, and checks that its elements are closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.shown, self.sources = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.shown.append(data)


def page_of(folder, *results, **details):
    (folder / "config.json").write_text(json.dumps({"command": None, "config": CONFIG.to_dict()} | details))
    return Page(report_page(folder, *reversed(results)))


@pytest.mark.parametrize("command", [None, ["python", "-m", "ddpg_jax.run", "--out", "a b"]])
def test_page_is_self_contained_and_says_how_it_was_made(command, tmp_path):
    (tmp_path / "policy").mkdir()
    details = {"versions": {"jax": "1.2"}, "commit": "ab", "command": command}
    page = page_of(tmp_path, *trained([-130, -120, -125]), **details)
    assert page.open == []
    pictures = ["pendulums.gif", "film.gif", "state_plane.png", "q_estimates.png"]  # shown where they are drawn later
    assert page.sources == [*pictures, "config.json", "policy/", "summary.json"]
    text = "\n".join(page.shown)
    assert "3 DDPG agents, pendulum on Pendulum-v1" in text
    assert "The interquartile mean of the final greedy returns is -125.0, 15.0 below the optimum" in text
    assert "Note: fewer than 5 agents: no interval." in text
    assert ("python -m ddpg_jax.run --out 'a b'" in text) == (command is not None)
    assert "jax 1.2, commit ab, root seed 0." in text


def test_page_has_a_row_per_agent(tmp_path):
    text = "\n".join(page_of(tmp_path, *trained([-130.0, -120, -125], diverged=[1], at_bounds=[2], first_seed=7)).shown)
    assert "7\n-130.0\n20.0\n-129.0\n-130.0\n0.0\n" in text
    assert "diverged at step 15" in text
    assert "9\n-125.0\n15.0\n-124.0\n-125.0\n100.0\nacts only at bounds" in text
    assert "\nbest\n" in "\n".join(page_of(tmp_path, *trained([-1.0, -2.0])).shown)


def test_page_of_a_sweep_has_its_ranking_and_marks_what_is_swept_or_differs_from_the_preset(tmp_path):
    changes = [{"values": {"tau": tau}, "changes": {"tau": tau}} for tau in (0.1, 0.2)]
    config = PRESETS["pendulum"].replace(gamma=0.9).resolved(on_host=False).to_dict()
    page = page_of(tmp_path, *trained([[-130] * 5, [-120] * 5], TAUS), configs=changes, config=config)
    assert [page.shown.count(text) for text in ("paired difference [95%]", "-120.0 [-120.0, -120.0]")] == [1, 1]
    text = "\n".join(page.shown)
    assert "tau\n0.1, 0.2\nswept\n" in text
    assert "gamma\n0.9\npendulum has 0.995\n" in text
    assert f"{len(config) - 2} fields as in pendulum" in text
    assert "9\n1\n4\n-120.0\n" in text  # agent, configuration and seed
