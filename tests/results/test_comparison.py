"""Tests `python -m ddpg_jax.compare`: what it reads from run folders, and what it reports."""

import contextlib
import json

import numpy as np
import pytest

from ddpg_jax import compare


def write_run(folder, finals, *, diverged=(), points=None, env_id="Pendulum-v1", optimum=-140.0, **more):
    """A finished run: two evaluations, the second equal to the final returns."""
    folder.mkdir()
    lines = ["agent,env_steps,eval_return"]
    for step, offset in ((100, -500.0), (200, 0.0)):
        lines += [f"{agent},{step},{'' if agent in diverged else value + offset}" for agent, value in enumerate(finals)]
    (folder / "metrics.csv").write_text("\n".join(lines) + "\n")
    summary = {
        "env_id": env_id, "per_agent_final_return": [None if i in diverged else x for i, x in enumerate(finals)],
        "diverged_agents": list(diverged), "eval_optimum": optimum, **more,
    }  # fmt: skip
    if points is not None:
        summary["points"] = [{"values": values} for values in points]
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def test_table_and_figure_of_three_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    runs = [
        write_run(tmp_path / "low", [-400.0, -420.0, -410.0, -430.0]),
        write_run(tmp_path / "high", [-145.0, -150.0, -155.0, -148.0]),
        write_run(tmp_path / "mixed", [-145.0, -410.0, -1.0, -150.0], diverged=[2]),
    ]
    found = compare.compare([run for folder in runs for run in compare.read_runs(folder)], -160.0)
    assert [row.agents for row in found] == [4, 4, 3]
    assert [row.num_reached for row in found] == [0, 4, 2]
    assert [row.median_steps for row in found] == [np.inf, 200.0, 200.0]
    assert [row.num_diverged for row in found] == [0, 0, 1]
    assert found[0].improvement[0] == 0.5
    assert found[1].improvement == (1.0, 1.0, 1.0)
    assert found[1].iqm == pytest.approx((-150.0 - 148.0) / 2)
    assert found[0].area == pytest.approx(-415.0 - 250.0)
    assert compare.main([*map(str, runs), "--figure", str(tmp_path / "figure.png")]) == 0
    assert (tmp_path / "figure.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert "reached -160.0" in out
    assert "never" in out
    assert "diverged" in out
    assert compare.main([*map(str, runs[:2]), "--figure", str(tmp_path / "figure.png")]) == 0
    assert "diverged" not in capsys.readouterr().out


def test_points_of_a_sweep_are_compared_one_by_one(tmp_path):
    points = [{"tau": 0.1}, {"tau": 0.2}]
    runs = compare.read_runs(write_run(tmp_path / "run", [-1.0, -2.0, -30.0, -40.0], points=points, diverged=[3]))
    assert [run.name for run in runs] == ["run: tau=0.1", "run: tau=0.2"]
    assert [run.final.tolist() for run in runs] == [[-1.0, -2.0], [-30.0]]
    assert runs[0].returns.tolist() == [[-501.0, -502.0], [-1.0, -2.0]]
    assert [run.num_diverged for run in runs] == [0, 1]


def test_summary_says_which_return_solves_the_task(tmp_path):
    """Summaries of earlier versions do not, and then it is Pendulum's: 20 below the optimum."""
    cases = {
        "new": ({"solved_shortfall": 5.0}, -145.0),
        "old": ({}, -160.0),
        "undefined": ({"solved_shortfall": None}, None),
        "other": ({"env_id": "Hopper-v1"}, None),
        "other new": ({"env_id": "Hopper-v1", "solved_shortfall": 7.0}, -147.0),
        "no optimum": ({"solved_shortfall": 5.0, "optimum": None}, None),
    }
    for name, (content, threshold) in cases.items():
        (run,) = compare.read_runs(write_run(tmp_path / name, [-1.0, -2.0], **content))
        assert run.threshold == threshold, name


def test_one_agent_has_no_interval(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = write_run(tmp_path / "one", [-150.0])
    assert compare.main([str(run), "--figure", str(tmp_path / "figure.png")]) == 0
    assert "nan" not in capsys.readouterr().out


def test_bad_input_is_refused_in_a_line(tmp_path, capsys):
    good = write_run(tmp_path / "good", [-1.0, -2.0])
    other = write_run(tmp_path / "other", [-1.0, -2.0], env_id="MountainCarContinuous-v0", optimum=None)
    lost = write_run(tmp_path / "lost", [-1.0, -2.0], diverged=[0, 1])
    damaged = write_run(tmp_path / "damaged", [-1.0, -2.0])
    (damaged / "metrics.csv").write_text("agent,env_steps,eval_return\n0,100,5\n")
    text = write_run(tmp_path / "text", [-1.0, -2.0])
    (text / "summary.json").write_text("[]")
    for words, message in (
        ([tmp_path / "none"], "none is not the folder of a finished run"),
        ([damaged], "damaged is not the folder of a finished run"),
        ([text], "text is not the folder of a finished run"),
        ([good, other], "runs are on MountainCarContinuous-v0, Pendulum-v1, but must be on the same environment"),
        ([lost], "lost has no agent that did not diverge"),
        ([good, "--threshold", "nan"], "threshold is nan, but must be a finite number"),
        ([good, "--figure", tmp_path / "x.txt"], "but must be a file *.png, *.pdf or *.svg"),
        ([good, "--figure", tmp_path / "no/x.png"], "but must be a file that can be written: No such file"),
    ):
        with contextlib.suppress(SystemExit):  # of a value that is refused by its domain
            assert compare.main([*map(str, words)]) == 2, words
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1
