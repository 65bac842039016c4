"""Runs in TensorBoard's event files, and in runs of Weights & Biases that are offline."""

import json
import os
import resource
import struct
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import wandb
from results.made_up import swept, trained
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from wandb.proto.wandb_internal_pb2 import Record

from ddpg_jax.config import Config
from ddpg_jax.options import TrainOptions
from ddpg_jax.results.history import Episodes, History, Metrics
from ddpg_jax.sweep import as_swept
from ddpg_jax.training.logs import open_run_log, require_logs

AGENTS = range(4, 9)
RETURNS = np.array([-3.0, np.nan, -1.0, -2.0, -7.0])
NAN = np.full(5, np.nan)
METRICS = Metrics(RETURNS, NAN, np.array([0.5, np.nan, 0.25, 0.5, 0.5]), np.arange(5.0), NAN)
EVALUATION = {
    "agent-000004": {"charts/eval_return": -3.0, "losses/critic_loss": 0.5, "losses/actor_loss": 0.0},
    "agent-000005": {"losses/actor_loss": 1.0},
    "agent-000006": {"charts/eval_return": -1.0, "losses/critic_loss": 0.25, "losses/actor_loss": 2.0},
    "agent-000007": {"charts/eval_return": -2.0, "losses/critic_loss": 0.5, "losses/actor_loss": 3.0},
    "agent-000008": {"charts/eval_return": -7.0, "losses/critic_loss": 0.5, "losses/actor_loss": 4.0},
    "population": {"charts/eval_return": -2.5, "losses/critic_loss": 0.5, "losses/actor_loss": 2.0},
}
"""Without values that are NaN; a population's are the means of the middle half, and four agents give no interval."""


def options(*log, configs=None, seeds=AGENTS):
    return TrainOptions(swept=configs or as_swept(Config(tau=0.25)), preset="pendulum", seeds=seeds, log=log)


def history_at(env_steps, agents=AGENTS):
    history = History(np.array(agents))
    history.env_steps = env_steps
    return history


def ended(agents, env_steps, returns):
    columns = (np.array(column) for column in (agents, agents, env_steps, returns, agents, agents))
    return Episodes(*columns)


def events(path):
    """Yields the events in a file of TFRecords: a length (8 bytes), a checksum (4), the event, a checksum (4)."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += length + 16


def scalars(folder):
    """Returns {curve: {(name, step): value}} of all event files, and asserts that no point is written twice."""
    found = {}
    for path in sorted((folder / "tensorboard").rglob("events.out.tfevents.*")):
        points = found.setdefault(str(path.parent.relative_to(folder / "tensorboard")), {})
        for event in events(path):
            for value in event.summary.value:
                if not value.HasField("metadata"):
                    assert points.setdefault((value.tag, event.step), value.simple_value) == value.simple_value
    return found


def test_each_agent_and_the_population_have_a_folder_with_the_names_that_are_usual(tmp_path):
    for start in (1000, 3000):  # a run that is resumed
        with open_run_log(options("tensorboard"), tmp_path) as log:
            log.episodes(ended([5, 4, 6], [start - 30, start - 10, start - 10], [-9.0, -6.0, -3.0]))
            log.evaluation(history_at(start), METRICS)
            found = scalars(tmp_path)  # at once, for who watches
    episodes = {"agent-000005": (-30, -9.0), "agent-000004": (-10, -6.0), "agent-000006": (-10, -3.0),
                "population": (-10, -6.0)}  # fmt: skip
    expected = {curve: {(name, step): value for name, value in values.items() for step in (1000, 3000)}
                for curve, values in EVALUATION.items()}  # fmt: skip
    for curve, (offset, value) in episodes.items():
        expected[curve] |= {("charts/episodic_return", step + offset): value for step in (1000, 3000)}
    assert found == expected
    assert {len([*folder.iterdir()]) for folder in (tmp_path / "tensorboard").iterdir()} == {2}


def test_population_has_the_interval_of_its_mean(tmp_path):
    with open_run_log(options("tensorboard"), tmp_path) as log:
        log.evaluation(history_at(10), METRICS._replace(eval_return=np.array([4.0, 1.0, 3.0, 2.0, 9.0])))
    point = scalars(tmp_path)["population"]
    bounds = [point["charts/eval_return_ci95_low", 10], point["charts/eval_return_ci95_high", 10]]
    assert bounds == [1.0, 9.0]  # that of five values reaches from the least to the largest
    assert point["charts/eval_return", 10] == 3.0


def test_speed_is_that_since_the_evaluation_before(tmp_path):
    with open_run_log(options("tensorboard"), tmp_path) as log:
        times = [time.perf_counter()]
        for steps in (100, 300):
            log.evaluation(history_at(steps), METRICS)
            times.append(time.perf_counter())
            time.sleep(0.05)
        log.evaluation(history_at(500, [1, 2, 3, 4, 5]), METRICS)  # of other agents: a sweep's next setup
    found = scalars(tmp_path)
    speed = found["agent-000005"]["charts/SPS", 300]
    assert 200 / (times[2] - times[0]) < speed < 200 / 0.05
    assert found["population"]["charts/SPS", 300] == pytest.approx(5 * speed)
    assert {step for curve in found.values() for name, step in curve if name == "charts/SPS"} == {300}


def test_of_many_agents_and_configurations_some_have_curves(tmp_path):
    with open_run_log(
        options("tensorboard", configs=swept(tau=[i / 100 for i in range(1, 51)]), seeds=range(4)), tmp_path
    ):
        agents = {path.name for path in (tmp_path / "tensorboard").glob("agent-*")}
        configs = {path.name for path in (tmp_path / "tensorboard/population").iterdir()}
    assert len(agents) == len(configs) == 32
    assert {"agent-000000", "agent-000199"} < agents
    assert {"config-000", "config-049"} < configs


def test_configurations_of_a_sweep_have_a_population_each(tmp_path):
    with open_run_log(options("tensorboard", configs=swept(tau=[0.1, 0.2]), seeds=range(2, 4)), tmp_path) as log:
        metrics = Metrics(*(np.array([1.0, 3.0]),) * 5)
        log.evaluation(
            history_at(10, [4, 5]), metrics
        )  # agents 2 and 3 have the first configuration, 4 and 5 the second
    found = scalars(tmp_path)
    assert found["population/config-000"] == found["agent-000002"] == {}
    assert found["population/config-001"]["charts/eval_return", 10] == 2.0
    assert hparams(tmp_path, "agent-000005") == hparams(tmp_path, "population/config-001") | {"seed": 3.0}
    assert {name: hparams(tmp_path, "agent-000005")[name] for name in ("tau", "config", "hidden_sizes", "noise")} == {
        "tau": 0.2, "config": 1.0, "hidden_sizes": "[64, 64]", "noise": "ou",
    }  # fmt: skip


def hparams(folder, curve):
    """Returns what the HParams tab of TensorBoard shows of a curve."""
    (path,) = (folder / "tensorboard" / curve).iterdir()
    values = [value for event in events(path) for value in event.summary.value if value.HasField("metadata")]
    data = {value.tag: HParamsPluginData.FromString(value.metadata.plugin_data.content) for value in values}
    assert {value.metadata.plugin_data.plugin_name for value in values} == {"hparams"}
    (metric,) = data["_hparams_/experiment"].experiment.metric_infos
    assert metric.name.tag == "charts/eval_return"
    found = data["_hparams_/session_start_info"].session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in found.items()}


def test_only_a_finished_run_is_marked_as_one(tmp_path):
    for complete in (False, True):
        history, summary = trained(RETURNS[2:], complete=complete)
        with open_run_log(options("tensorboard", seeds=range(3)), tmp_path / str(complete)) as log:
            log.finish(summary, history)
        (path,) = (tmp_path / str(complete) / "tensorboard/population").iterdir()
        tags = [value.tag for event in events(path) for value in event.summary.value]
        assert ("_hparams_/session_end_info" in tags) == complete


def test_full_disk_is_an_error_that_names_the_log(tmp_path):
    """tensorboardX's own writer would wait for its thread forever."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    fault = pytest.raises(OSError, match="tensorboard could not be written: File too large")
    try:
        with fault, open_run_log(options("tensorboard"), tmp_path) as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
            for step in range(1000):
                log.evaluation(history_at(step), METRICS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_error_of_another_file_keeps_its_message(tmp_path):
    with pytest.raises(OSError, match=r"^metrics\.csv could"), open_run_log(options("tensorboard"), tmp_path):
        raise OSError("metrics.csv could not be written")


def test_without_a_log_nothing_is_written(tmp_path):
    with open_run_log(options(), tmp_path) as log:
        log.episodes(ended([4], [10], [1.0]))
        log.evaluation(history_at(10), METRICS)
        log.finish(*reversed(trained(RETURNS[2:])))
    assert not list(tmp_path.iterdir())


# Weights & Biases


def records(folder):
    """Yields the records of the only offline run in a folder: LevelDB's log format after a header of 7 bytes."""
    (path,) = folder.glob("wandb/offline-run-*/*.wandb")
    data, at, record = path.read_bytes(), 7, b""
    while at < len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block, too short for a header
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield Record.FromString(record)
            record = b""


def logged(folder):
    """Returns the run's own record, its points, and its summary."""
    run, points, summary = None, [], {}
    for each in records(folder):
        if each.HasField("run"):
            run = each.run
        elif each.HasField("history"):
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in each.history.item}
            points.append({name: value for name, value in items.items() if not name.startswith("_")})
        elif each.HasField("summary"):
            summary |= {item.key: json.loads(item.value_json) for item in each.summary.update}
    return run, points, summary


SCRIPT = f"""
import sys
from pathlib import Path
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parent.parent)]!r}
import numpy as np
import wandb
from PIL import Image
from test_logs import AGENTS, METRICS, ended, history_at, options, swept, trained
from ddpg_jax.training.logs import open_run_log, require_logs
folder = Path.cwd() / "run"
folder.mkdir()
own = wandb.init(project="mine", dir=folder.parent)
require_logs(["wandb"])
Image.new("RGB", (8, 4)).save(folder / "sweep.png")
configs = swept(tau=[0.1, 0.2])
history, summary = trained([[-110, -112, -112, -112, -114], [-130, -132, -132, -132, -134]], configs, diverged=[9])
with open_run_log(options("wandb", configs=configs, seeds=range(5)), folder) as log:
    log.episodes(ended([6, 7], [1000, 2000], [-5.0, -7.0]))
    log.evaluation(history_at(3000, range(5)), METRICS)
    log.finish(summary, history)
    assert wandb.run is own
assert wandb.run is own
own.log({{"x": 1}})  # it has not ended
assert own.id != (folder / "wandb/run-id").read_text()
own.finish()
"""


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """The folder of a process that logs a sweep beside a run of its own."""
    folder = tmp_path_factory.mktemp("offline")
    environment = {**os.environ, "WANDB_MODE": "offline", "WANDB_RUN_ID": "own"}
    subprocess.run([sys.executable, "-c", SCRIPT], cwd=folder, env=environment, check=True, timeout=60)
    return folder


def test_weights_and_biases_has_one_run_with_the_same_names_a_table_of_agents_and_pictures(offline):
    run, points, summary = logged(offline / "run")
    config = {item.key: json.loads(item.value_json) for item in run.config.update}
    assert (run.project, run.display_name, run.run_group) == ("ddpg_jax", "run", "tau on Pendulum-v1")
    assert (config["tau"], config["seeds"], config["hidden_sizes"]) == ([0.1, 0.2], [0, 5], [64, 64])
    assert points[0] == {"env_steps": 2000, "charts/episodic_return/config-001": -6.0}
    assert points[1] == {"env_steps": 3000} | {f"{k}/config-000": v for k, v in EVALUATION["population"].items()}
    assert {"agents", "sweep"} < {name.split("/")[0] for name in points[2]}
    table = json.loads(next((offline / "run/wandb").glob("offline-run-*/files/media/table/*.json")).read_text())
    rows = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    assert [row["agent"] for row in rows] == [*range(10)]
    expected = {"config": "tau=0.2", "seed": 0, "charts/eval_return": -130.0, "final_return": -130.0,
                "final_shortfall": 20.0, "diverged_at": None}  # fmt: skip
    assert {name: rows[5][name] for name in expected} == expected
    assert (rows[9]["final_return"], rows[9]["diverged_at"]) == (None, 15)
    assert (summary["num_diverged"], summary["complete"], summary["best_config"]) == (1, True, "tau=0.1")
    assert summary["final_return"] == -112.0
    assert list((offline / "run/wandb").glob("offline-run-*/files/media/images/sweep*.png"))


def test_group_is_that_of_its_variable_where_it_is_set(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_RUN_GROUP", "mine")
    sweep = options("wandb", configs=swept(tau=[0.1, 0.2]))
    with mock.patch("wandb.init", return_value=mock.Mock(id="a1")) as init, open_run_log(sweep, tmp_path):
        assert init.call_args.kwargs["group"] == "mine"


def test_run_that_the_program_has_of_its_own_is_not_touched(offline):
    assert logged(offline)[1] == [{"x": 1}]


def test_resumed_run_continues_its_run_of_weights_and_biases(tmp_path):
    with mock.patch("wandb.init", return_value=mock.Mock(id="a1")) as init:
        for expected in ((None, None), ("a1", "allow")):
            with open_run_log(options("wandb"), tmp_path) as log:
                log.evaluation(history_at(1000), METRICS)
                init.return_value.finish.assert_not_called()
            init.return_value.log.assert_called_once_with({"env_steps": 1000, **EVALUATION["population"]})
            init.return_value.finish.assert_called_once()
            init.return_value.reset_mock()
            assert (init.call_args.kwargs["id"], init.call_args.kwargs["resume"]) == expected


def test_run_of_weights_and_biases_that_cannot_be_started_is_refused(tmp_path):
    with (
        mock.patch("wandb.init", side_effect=wandb.errors.CommError("no route to host")),
        pytest.raises(ValueError, match="log is wandb, but its run cannot be started: no route to host"),
    ):
        open_run_log(options("wandb"), tmp_path).__enter__()


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
