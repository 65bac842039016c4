"""Evaluations in TensorBoard's event files, and in runs of Weights & Biases that are offline."""

import os
import resource
import struct
import subprocess
import sys
from unittest import mock

import numpy as np
import pytest
import wandb
from tensorboardX.proto.event_pb2 import Event

from ddpg_jax.results.history import Metrics
from ddpg_jax.training.logs import open_logs, require_logs

AGENTS = np.array([4, 5, 6])
NAN = np.full(3, np.nan)
METRICS = Metrics(np.array([-3.0, np.nan, -1.0]), NAN, np.array([0.5, np.nan, 0.25]), np.array([1.0, 2.0, 3.0]), NAN)
EXPECTED = {
    "eval_return/agent-000004": -3.0, "eval_return/agent-000006": -1.0,
    "eval_return/iqm": -2.0, "eval_return/median": -2.0, "eval_return/worst": -3.0,
    "critic_loss/agent-000004": 0.5, "critic_loss/agent-000006": 0.25,
    "critic_loss/iqm": 0.375, "critic_loss/median": 0.375,
    "actor_loss/agent-000004": 1.0, "actor_loss/agent-000005": 2.0, "actor_loss/agent-000006": 3.0,
    "actor_loss/iqm": 2.0, "actor_loss/median": 2.0,
}  # fmt: skip
"""Without values that are NaN; only a return has a worst, because the smallest loss is not the worst."""


def events(path):
    """Yields the events in a file of TFRecords: a length (8 bytes), a checksum (4), the event, a checksum (4)."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += length + 16


def scalars(folder):
    """Returns {(name, step): value} of each event file, the earliest first."""
    files = [[(v, e.step) for e in events(path) for v in e.summary.value] for path in sorted(folder.iterdir())]
    return [{(v.tag, step): v.simple_value for v, step in file if not v.HasField("tensor")} for file in files]


def test_event_files_have_each_agent_and_statistics_and_one_file_for_each_process_of_a_run(tmp_path):
    for start in (1000, 3000):
        with open_logs(["tensorboard"], tmp_path, {"seeds": 3}) as log:
            log(start, AGENTS, METRICS)
            log(start + 1000, AGENTS, METRICS)
            found = scalars(tmp_path / "tensorboard")[-1]  # at once, for who watches
        assert found == {(name, step): value for name, value in EXPECTED.items() for step in (start, start + 1000)}
    assert [{step for _, step in file} for file in scalars(tmp_path / "tensorboard")] == [{1000, 2000}, {3000, 4000}]


def test_full_disk_is_an_error_that_names_the_log(tmp_path):
    """tensorboardX's own writer would wait for its thread forever."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fault = pytest.raises(OSError, match="tensorboard could not be written: File too large")
    try:
        with fault, open_logs(["tensorboard"], tmp_path, {}) as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
            for step in range(100):
                log(step, AGENTS, METRICS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_error_of_another_file_keeps_its_message(tmp_path):
    with pytest.raises(OSError, match=r"^metrics\.csv could not"), open_logs(["tensorboard"], tmp_path, {}):
        raise OSError("metrics.csv could not be written")


def test_resumed_run_continues_its_run_of_weights_and_biases(tmp_path):
    with mock.patch("wandb.init", return_value=mock.Mock(id="a1")) as init:
        for expected in ((None, None), ("a1", "allow")):
            with open_logs(["wandb"], tmp_path, {"seeds": 3}) as log:
                log(1000, AGENTS, METRICS)
                init.return_value.finish.assert_not_called()
            init.return_value.log.assert_called_once_with({"env_steps": 1000, **EXPECTED})
            init.return_value.finish.assert_called_once()
            init.return_value.reset_mock()
            options = init.call_args.kwargs
            assert (options["id"], options["resume"]) == expected
            assert (options["name"], options["config"]) == (tmp_path.name, {"seeds": 3})


def test_run_of_weights_and_biases_that_cannot_be_started_is_refused(tmp_path):
    with (
        mock.patch("wandb.init", side_effect=wandb.errors.CommError("no route to host")),
        pytest.raises(ValueError, match="log is wandb, but its run cannot be started: no route to host"),
    ):
        open_logs(["wandb"], tmp_path, {}).__enter__()


OWN_RUN = f"""
import sys
from pathlib import Path
sys.path.insert(0, {os.path.dirname(__file__)!r})
import wandb
from test_logs import AGENTS, METRICS
from ddpg_jax.training.logs import open_logs, require_logs
folder = Path.cwd()
own = wandb.init(project="mine", dir=folder)
require_logs(["wandb"])
(folder / "run").mkdir()
with open_logs(["wandb"], folder / "run", {{}}) as log:
    log(1000, AGENTS, METRICS)
    assert wandb.run is own
assert wandb.run is own
own.log({{"x": 1}})  # it has not ended
assert own.id != (folder / "run/wandb/run-id").read_text()
own.finish()
"""


def test_run_that_the_program_has_of_its_own_is_not_touched(tmp_path):
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_RUN_ID": "own"}
    subprocess.run([sys.executable, "-c", OWN_RUN], cwd=tmp_path, env=environment, check=True, timeout=60)
    (ours,) = (tmp_path / "run/wandb").glob("offline-run-*/*.wandb")
    (theirs,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    for name in (b"eval_return/agent-000004", b"critic_loss/iqm", b"env_steps"):
        assert name in ours.read_bytes()
        assert name not in theirs.read_bytes()


REFUSAL = "log is wandb, but must have a key: set WANDB_API_KEY, run `wandb login`, or set WANDB_MODE=offline"


def test_weights_and_biases_without_a_key_and_a_terminal_is_refused(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    environment |= {"HOME": str(tmp_path), "NETRC": str(tmp_path / "netrc")}
    done = subprocess.run(
        [sys.executable, "-c", "from ddpg_jax.training.logs import require_logs; require_logs(['wandb'])"],
        cwd=tmp_path, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stderr.endswith(f"\nValueError: {REFUSAL}\n")


ASKED = AssertionError("it asked for a key")


@pytest.mark.parametrize(
    ("key", "modes", "login", "starts"),
    [
        ("", ["online"], [True], True),
        ("", ["online", "offline"], [False], True),  # chosen when it asked for a key
        ("", ["online"], wandb.errors.AuthenticationError("not a key"), False),
        ("", ["offline"], ASKED, True),
        ("x" * 40, [], ASKED, True),
    ],
)
def test_key_is_asked_for_by_weights_and_biases_itself_unless_it_needs_none(monkeypatch, key, modes, login, starts):
    settings = mock.Mock()
    type(settings).mode = mock.PropertyMock(side_effect=modes)
    monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr(wandb, "setup", lambda: mock.Mock(settings=settings))
    monkeypatch.setattr(wandb, "login", mock.Mock(side_effect=login))
    if starts:
        require_logs(["wandb"])
    else:
        with pytest.raises(ValueError, match=REFUSAL):
            require_logs(["wandb"])


@pytest.mark.parametrize(("name", "package"), [("tensorboard", "tensorboardX"), ("wandb", "wandb")])
def test_missing_package_is_named(name, package):
    with (
        mock.patch("importlib.util.find_spec", return_value=None),
        pytest.raises(ValueError, match=f"log is {name}, but {package} is not installed: pip install {package}"),
    ):
        require_logs([name])


def test_unknown_log_is_refused():
    with pytest.raises(ValueError, match="log is 'tensorbord', but must be one of tensorboard, wandb"):
        require_logs(["tensorbord"])
