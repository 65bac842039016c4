"""Evaluations in TensorBoard's event files and in an offline run of Weights & Biases: the same as in metrics.csv."""

import csv
import json
import shutil
from unittest import mock

import numpy as np
import pytest
from command import main, stopped_after

from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config
from ddpg_jax.results.history import History, Metrics
from ddpg_jax.runs import logs


def scalars(folder):
    """{(tag, step): value} of all event files, in which each pair is there once."""
    files = [logs.logged_scalars(path) for path in sorted((folder / "tensorboard").iterdir())]
    found = {key: value for file in files for key, value in file.items()}
    assert len(found) == sum(map(len, files))
    return found


def test_event_files_hold_what_the_table_holds(tmp_path):
    assert main("--out", tmp_path / "run", "--seeds", 3, "--log", "tensorboard").status == 0
    found = scalars(tmp_path / "run")
    expected = {}
    with open(tmp_path / "run/metrics.csv") as file:
        for row in csv.DictReader(file):
            for metric in Metrics._fields:
                if row[metric]:
                    tag = f"{metric}/agent-{int(row['agent']):06d}"
                    expected[tag, int(row["env_steps"])] = float(row[metric])
    assert len(expected) > 30
    for key, value in expected.items():
        assert found.pop(key) == pytest.approx(value, rel=1e-6)
    assert {tag.split("/")[1] for tag, _ in found} == {"iqm", "median", "worst"}
    last = [value for (tag, step), value in expected.items() if tag.startswith("eval_return") and step == 200]
    assert found["eval_return/worst", 200] == pytest.approx(min(last), rel=1e-6)
    assert found["eval_return/median", 200] == pytest.approx(np.median(last), rel=1e-6)


def test_logs_do_not_touch_the_results(tmp_path):
    assert main("--out", tmp_path / "plain", "--seeds", 2).status == 0
    assert main("--out", tmp_path / "logged", "--seeds", 2, "--log", "tensorboard").status == 0
    assert (tmp_path / "plain/metrics.csv").read_bytes() == (tmp_path / "logged/metrics.csv").read_bytes()
    assert not (tmp_path / "plain/tensorboard").exists()


def test_resumed_run_goes_on_logging(tmp_path):
    assert stopped_after(4, "--out", tmp_path / "run", "--seeds", 2, "--log", "tensorboard").status == 143
    assert main("--resume", tmp_path / "run").status == 0
    assert {step for _, step in scalars(tmp_path / "run")} == {60, 120, 180, 200}


def test_run_that_was_killed_behind_its_checkpoint_logs_nothing_twice(tmp_path):
    """It is resumed from before two evaluations that its event file has; the file ends in half a record."""
    assert main("--out", tmp_path / "run", "--seeds", 2, "--log", "tensorboard").status == 0
    whole = scalars(tmp_path / "run")
    early = tmp_path / "early"
    assert stopped_after(3, "--out", early, "--seeds", 2, "--log", "tensorboard").status == 143
    (file,) = (tmp_path / "run/tensorboard").iterdir()
    shutil.rmtree(early / "tensorboard")
    (early / "tensorboard").mkdir()
    (early / "tensorboard" / file.name).write_bytes(file.read_bytes()[:-7])
    assert main("--resume", early).status == 0
    assert scalars(early) == whole


def test_offline_run_of_weights_and_biases(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert main("--out", tmp_path / "run", "--seeds", 2, "--log", "wandb").status == 0
    (file,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    data = file.read_bytes()
    for name in (b"eval_return/agent-000001", b"eval_return/iqm", b"env_steps"):
        assert name in data


def test_rows_of_weights_and_biases(tmp_path, monkeypatch):
    """Their values; a run's own file hides them."""
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    run = mock.Mock(id="a1")
    with mock.patch("wandb.init", return_value=run) as init:
        assert main("--out", tmp_path / "run", "--seeds", 2, "--log", "wandb").status == 0
    rows = [call.args[0] for call in run.log.call_args_list]
    assert [row["env_steps"] for row in rows] == [60, 120, 180, 200]
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["num_agents"] == 2
    with open(tmp_path / "run/metrics.csv") as file:
        table = [row for row in csv.DictReader(file) if row["agent"] == "1"]
    logged = [f"{row['eval_return/agent-000001']:.9g}" for row in rows]  # the table has nine digits
    assert logged == [row["eval_return"] for row in table]
    run.finish.assert_called_once()
    assert (init.call_args.kwargs["id"], init.call_args.kwargs["resume"]) == (None, None)


def test_resumed_run_continues_its_run_of_weights_and_biases(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "a key")
    with mock.patch("wandb.init", return_value=mock.Mock(id="a1")) as init:
        assert stopped_after(4, "--out", tmp_path / "run", "--seeds", 2, "--log", "wandb").status == 143
        assert main("--resume", tmp_path / "run").status == 0
    assert (init.call_args.kwargs["id"], init.call_args.kwargs["resume"]) == ("a1", "allow")


def test_agents_without_a_number_are_left_out():
    history = History(Config(), 3)
    zeros = np.zeros((3, 10), np.float32)
    history.add_chunk(StepLog(*(zeros for _ in StepLog._fields)))
    history.add_evaluation(np.array([-3.0, np.nan, -1.0]))
    values = logs.evaluation_values(history.agents, history.last_rows())
    assert values["eval_return/agent-000000"] == -3.0
    assert "eval_return/agent-000001" not in values
    assert values["eval_return/median"] == -2.0
    assert "train_return/iqm" not in values  # no episode has ended


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_missing_package_is_named_before_anything_is_written(name, tmp_path):
    with mock.patch("importlib.util.find_spec", return_value=None):
        outcome = main("--out", tmp_path / "run", "--log", name)
    assert outcome.status == 2
    assert f"pip install 'ddpg_jax[{name}]'" in outcome.err
    assert not (tmp_path / "run").exists()


def test_unknown_log_is_refused(tmp_path):
    outcome = main("--out", tmp_path / "run", "--log", "tensorbord")
    assert outcome.status == 2
    assert outcome.err.startswith("error: log is 'tensorbord', but must be one of tensorboard, wandb")
