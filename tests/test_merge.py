"""Runs of different seeds become one run folder with the bytes of a run of all seeds."""

import json
from pathlib import Path

import pytest
from small_runs import SMALL

import ddpg_jax
from ddpg_jax import merge
from ddpg_jax.results.summary import Summary

SHORT = SMALL.replace(total_steps=120)
SWEPT = [SHORT, SHORT.replace(hidden_sizes=(9,)), SHORT.replace(tau=0.5)]


def train(config, seeds, out):
    ddpg_jax.train(config, seeds=seeds, out=out, progress=False)
    return str(out)


def same_files(folder: Path) -> dict[str, bytes]:
    """The files that do not depend on who trained which agent."""
    names = ("metrics.csv", "episodes.csv", "info.json", "configs.csv", "policy/**/*", "snapshots/**/*")
    paths = [path for name in names for path in sorted(folder.glob(name)) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    ranges = (0, 2), (2, 3), (0, 3), (4, 5)
    return {seeds: train(SHORT, range(*seeds), folder / f"{seeds[0]}-{seeds[1]}") for seeds in ranges}


def test_merged_run_has_the_bytes_of_one_run(runs, tmp_path, capsys):
    assert merge.main([runs[2, 3], runs[0, 2], "--out", str(tmp_path / "all")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'all'}: 3 agents; ")
    merged, whole = tmp_path / "all", Path(runs[0, 3])
    assert same_files(merged) == same_files(whole)
    assert (merged / "report.html").exists()
    content = json.loads((merged / "config.json").read_text())
    assert (content["seeds"], content["merged"]) == ([0, 3], [runs[0, 2], runs[2, 3]])
    summaries = [Summary.from_dict(json.loads((folder / "summary.json").read_text())) for folder in (merged, whole)]
    assert summaries[0].final_return == summaries[1].final_return
    assert ddpg_jax.load(merged).policy.num_agents == 3


def test_sweep_over_shapes_is_merged(tmp_path):
    parts = [train(SWEPT, range(*seeds), tmp_path / f"part-{seeds[0]}") for seeds in ((0, 1), (1, 3))]
    train(SWEPT, 3, tmp_path / "whole")
    assert merge.main([*parts, "--out", str(tmp_path / "all")]) == 0
    assert same_files(tmp_path / "all") == same_files(tmp_path / "whole")


def test_runs_that_do_not_belong_together_are_refused_by_name(runs, tmp_path, capsys):
    other = train(SHORT.replace(tau=0.5), range(2, 3), tmp_path / "other")
    for folder, out, message in ((other, "all", "tau"), (str(tmp_path), "all", "is not the folder of a run"),
                                 (runs[4, 5], "all", "are 4:5, but must begin at 2"),
                                 (runs[0, 3], "all", "are 0:3, but must begin at 2"),
                                 (runs[2, 3], "other", "must be a new or an empty folder")):  # fmt: skip
        assert merge.main([runs[0, 2], folder, "--out", str(tmp_path / out)]) == 2
        err = capsys.readouterr().err
        assert message in err
        assert len(err.splitlines()) == 1
    assert not (tmp_path / "all").exists()
