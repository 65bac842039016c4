"""Tests runs of several processes: they give the results of one process, and notice when a process is gone.

The processes are on this machine, on the loopback address and a free port, and compute on its CPU.
"""

import importlib.util
import io
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from command import REPOSITORY, copy, execute, main, start

from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config
from ddpg_jax.processes import supervisor, team
from ddpg_jax.processes.team import LostProcessError, Team
from ddpg_jax.results.history import History, Metrics
from ddpg_jax.results.tables import episodes_csv, metrics_csv
from ddpg_jax.runs.policy import load_policy

SECONDS = 240
"""Seconds within which each of these runs ends, even on a busy machine."""

RUN = (
    "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "20", "--replay-capacity", "100",
    "--max-episode-steps", "25", "--eval-every", "15000", "--eval-episodes", "64", "--total-steps", "40000",
    "--seeds", "3",
)  # fmt: skip
"""Flags for a run that lasts long enough to be stopped; one of four processes has no agent."""

OFTEN, RARELY = ("--checkpoint-every", 0.1), ("--checkpoint-every", 1000)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run of a single process on two devices."""
    folder = tmp_path_factory.mktemp("alone")
    outcome = execute("--out", "run", "--devices", 2, "--quiet", folder=folder, config=RUN)
    assert (outcome.status, outcome.err) == (0, "")
    return folder / "run"


def weights(folder: Path) -> list[np.ndarray]:
    """Returns the policies of all agents, however they are distributed over files."""
    return list(map(np.asarray, jax.tree.leaves(load_policy(folder).variables)))


def assert_same(folder: Path, other: Path) -> None:
    for name in ("metrics.csv", "episodes.csv"):
        assert (folder / name).read_bytes() == (other / name).read_bytes(), name
    for here, there in zip(weights(folder), weights(other), strict=True):
        np.testing.assert_array_equal(here, there)
    measured, expected = (json.loads((path / "summary.json").read_text()) for path in (folder, other))
    timings = {name for name in expected if "second" in name} | {"device"}
    assert {name: measured[name] for name in expected if name not in timings} == {
        name: expected[name] for name in expected if name not in timings
    }


def wait_for(path: Path, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + SECONDS
    while not path.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


def workers_of(process: subprocess.Popen) -> dict[int, int]:
    """Returns the operating system's numbers of the processes that a command has started, by their index in the run."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            words = path.joinpath("cmdline").read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if parent == process.pid and b"ddpg_jax.worker" in words:
            found[json.loads(words[words.index(b"ddpg_jax.worker") + 1])["process_id"]] = int(path.name)
    return found


@pytest.mark.slow
def test_two_processes_leave_what_one_would_have(alone, tmp_path):
    outcome = execute("--out", "run", "--distributed", "--num-processes", 2, folder=tmp_path, config=RUN)
    assert (outcome.status, outcome.err) == (0, "")
    assert "3 agents x 40,000 steps on 2 x cpu in 2 processes" in outcome.out
    assert outcome.out.count("120,000 of 120,000 steps") == 1  # one process prints, of all agents
    assert_same(tmp_path / "run", alone)
    assert {path.name for path in (tmp_path / "run").iterdir()} == {path.name for path in alone.iterdir()}
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert (config["num_devices"], config["num_processes"]) == (2, 2)


@pytest.mark.slow
def test_environments_on_the_host_are_divided_among_processes(tmp_path):
    """Five agents in groups of four: one of three processes only fills up."""
    run = (
        "--env-id", "gymnasium:Pendulum-v1", "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "20",
        "--replay-capacity", "100", "--total-steps", "300", "--eval-every", "150", "--eval-episodes", "2",
        "--final-episodes", "4", "--seeds", "5", "--quiet",
    )  # fmt: skip
    for flags in (("--out", "alone"), ("--out", "three", "--distributed", "--num-processes", 3)):
        outcome = execute(*flags, folder=tmp_path, config=run)
        assert (outcome.status, outcome.err) == (0, "")
    assert_same(tmp_path / "three", tmp_path / "alone")


@pytest.mark.slow
def test_page_shows_what_its_commands_do(tmp_path):
    spec = importlib.util.spec_from_file_location("run_console", REPOSITORY / "docs/run_console.py")
    run_console = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(run_console)
    (block,) = run_console.BLOCK.findall((REPOSITORY / "docs/scaling.md").read_text())
    assert "the same bytes" in block
    assert "".join(run_console.run(line, tmp_path) for line, _, _ in run_console.commands(block)) == block


@pytest.mark.slow
def test_killed_process_ends_the_job_and_another_number_of_processes_goes_on(alone, tmp_path):
    flags = ("--distributed", "--num-processes", 4)
    process = start("--out", "run", *flags, *OFTEN, "--quiet", folder=tmp_path, config=RUN)
    wait_for(tmp_path / "run/checkpoints/2", process)
    killed = time.monotonic()
    subprocess.run(["kill", "-9", str(workers_of(process)[2])], check=True)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - killed < 60
    assert (process.returncode, out) == (1, "")
    assert err.startswith("error: process 2 of 4 was ended by SIGKILL; resume with: ")
    assert err.endswith("-m ddpg_jax.run --resume run --distributed --num-processes 4\n")
    assert len(err.splitlines()) == 1
    assert workers_of(process) == {}
    copy(tmp_path / "run", tmp_path / "again")
    assert execute("--resume", "run", *RARELY, "--quiet", folder=tmp_path) == (0, "", "")
    assert_same(tmp_path / "run", alone)
    flags = ("--distributed", "--num-processes", 2)
    assert execute("--resume", "again", *flags, *RARELY, "--quiet", folder=tmp_path) == (0, "", "")
    assert_same(tmp_path / "again", alone)


@pytest.mark.slow
def test_signal_stops_all_processes_with_one_line_and_more_than_there_are_agents_go_on(alone, tmp_path):
    flags = ("--distributed", "--num-processes", 2)
    process = start("--out", "run", *flags, *OFTEN, "--quiet", folder=tmp_path, config=RUN)
    wait_for(tmp_path / "run/checkpoints/1", process)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (143, "")
    assert err.startswith("stopped by SIGTERM at step ")
    assert len(err.splitlines()) == 1
    flags = ("--distributed", "--num-processes", 4, *RARELY, "--quiet")
    assert execute("--resume", "run", *flags, folder=tmp_path) == (0, "", "")
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_processes_find_each_other_by_the_variables_of_a_scheduler(alone, tmp_path, monkeypatch):
    """JAX reads the coordinator, too, from SLURM's variables. Each process is started separately, as `srun` does."""
    variables = {"JOB_ID": os.getpid(), "STEP_NODELIST": "localhost", "NTASKS": 2, "STEP_NUM_NODES": 1}
    processes = []
    for index in (1, 0):
        for name, value in (variables | {"PROCID": index, "LOCALID": index}).items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        flags = ("--out", "run", "--devices", 2, "--distributed", "--quiet")
        processes.append(start(*flags, folder=tmp_path, config=RUN))
    assert [(*process.communicate(timeout=SECONDS), process.returncode) for process in processes] == 2 * [("", "", 0)]
    assert_same(tmp_path / "run", alone)


@pytest.mark.slow
def test_full_disk_is_told_once(tmp_path):
    flags = ("--distributed", "--num-processes", 2, *OFTEN, "--quiet")
    outcome = execute("--out", "run", *flags, folder=tmp_path, config=RUN, largest_file=8192)
    assert (outcome.status, outcome.out) == (1, "")
    assert outcome.err.startswith("error: ")
    assert "File too large; resume with: " in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_mistake_that_only_the_first_process_sees_is_one_line(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/mine").touch()
    flags = ("--distributed", "--num-processes", 2)
    outcome = execute("--out", "run", *flags, folder=tmp_path, config=RUN)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith("error: out is run, but must be a new or an empty folder")
    assert len(outcome.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--num-processes", 2), "num_processes is 2, but must not be given without distributed"),
        (("--coordinator", "here:1"), "coordinator is here:1, but must not be given without distributed"),
        (("--distributed", "--coordinator", "here"), "coordinator is 'here', but must be HOST:PORT"),
        (("--distributed", "--coordinator", "here:0"), "coordinator is 'here:0', but must be HOST:PORT"),
        (("--distributed", "--num-processes", 0), "num_processes is 0, but must be a whole number >= 1"),
        (("--distributed", "--num-processes", 2, "--process-id", 1), "process_id is 1, but must be given with coordi"),
        (
            ("--distributed", "--coordinator", "here:1", "--num-processes", 2, "--process-id", 2),
            "process_id is 2, but must be less than num_processes, 2",
        ),
        (
            ("--distributed", "--num-processes", 2, "--devices", 3),
            "devices is 3, but must be a multiple of num_processes, 2",
        ),
    ],
)
def test_processes_that_cannot_be_are_refused_by_name(tmp_path, flags, message):
    outcome = main("--out", tmp_path / "run", *flags)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: {message}")
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_job_that_nobody_has_started_is_refused_within_its_time(monkeypatch):
    """Without a scheduler JAX finds no coordinator."""
    for name in ("SLURM_JOB_ID", "OMPI_MCA_orte_hnp_uri", "OMPI_COMM_WORLD_SIZE", "TPU_SKIP_MDS_QUERY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="distributed is given, but must come with"):
        team.join(seconds=5)


# ---------------------------------------------------------------------------------------------- what processes exchange


def together(size: int, action):
    """Returns the result of `action` in each process of a team; here these are threads, which exchange bytes."""
    board: list[bytes] = [b""] * size
    barrier = threading.Barrier(size, timeout=20)
    results: list = [None] * size

    def run(index: int) -> None:
        def exchange(data: bytes) -> list[bytes]:
            board[index] = data
            barrier.wait()
            everything = list(board)
            barrier.wait()
            return everything

        try:
            results[index] = action(Team(index, size, exchange))
        except (OSError, ValueError) as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=(index,)) for index in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_values_are_gathered_in_the_order_of_the_processes():
    assert together(3, lambda team: team.gather({"index": team.index})) == 3 * [[{"index": i} for i in range(3)]]
    assert together(3, lambda team: team.to_first(team.index)) == [[0, 1, 2], [], []]
    assert Team().gather("x") == Team().to_first("x") == ["x"]


def test_first_process_acts_for_all():
    acted = []

    def act(team):
        return team.first(lambda: acted.append(team.index) or "done")

    assert together(3, act) == ["done"] * 3
    assert acted == [0]


@pytest.mark.parametrize("method", ["first", "every"])
def test_error_of_one_process_is_raised_in_all(method):
    def act(team):
        def fail():
            if team.index == (0 if method == "first" else 2):
                raise OSError("the disk is full")
            return 1

        return getattr(team, method)(fail)

    assert [str(error) for error in together(3, act)] == ["the disk is full"] * 3


@pytest.mark.parametrize(("num_agents", "size"), [(32, 2), (5, 4), (3, 4), (1, 3), (9, 4), (7, 1)])
def test_shares_are_all_agents_in_order_and_even(num_agents, size):
    agents = range(10, 10 + num_agents)
    shares = [Team(index, size).share(agents) for index in range(size)]
    assert [agent for share in shares for agent in share] == list(agents)
    assert max(map(len, shares)) == -(-num_agents // size)


@pytest.mark.parametrize("lengths", [(0, 3), (4088, 4089), (4096, 1), (2**20, 5, 3 * 2**20)])
def test_messages_of_any_length_arrive_whole(monkeypatch, lengths):
    """`_exchange` divides messages into frames, and every process sends the same number of frames."""
    messages = [np.random.default_rng(length).bytes(length) for length in lengths]
    sent: list[list[np.ndarray]] = []
    for message in messages:  # what each sends if it knows only its own length and the longest
        frames: list[np.ndarray] = []
        longest = np.frombuffer(max(lengths).to_bytes(8, "little"), np.uint8)

        def record(frame, frames=frames, longest=longest):
            frames.append(frame.copy())
            other = frame.copy()
            other[:8] = longest
            return np.stack([frame, other])

        monkeypatch.setattr(team, "_allgather", record)
        team._exchange(message)
        sent.append(frames)
    assert len({len(frames) for frames in sent}) == 1
    rounds = iter(zip(*sent, strict=True))
    monkeypatch.setattr(team, "_allgather", lambda frame: np.stack(next(rounds)))
    assert team._exchange(messages[0]) == messages


def test_broken_connection_is_a_lost_process(monkeypatch):
    from jax.experimental import multihost_utils

    def broken(frame):
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed by peer\nmore")

    monkeypatch.setattr(multihost_utils, "process_allgather", broken)
    with pytest.raises(LostProcessError, match="Connection closed by peer"):
        team._exchange(b"")


def test_cores_are_divided_among_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(supervisor.os, "sched_getaffinity", lambda pid: {2, 3, 5, 7})
    monkeypatch.setattr(supervisor, "usable_cores", lambda: 4)
    assert [supervisor._cores(index, 2) for index in range(2)] == [(2, 3), (5, 7)]
    assert [supervisor._cores(index, 5) for index in range(5)] == [(2,), (3,), (5,), (7,), (2,)]


# ----------------------------------------------------------------------------------------- histories of some agents


def history_of(agents: range) -> History:
    """Three evaluations and a rest after the last, of logs that depend on the agent alone; agent 3 diverges."""
    history = History(Config(eval_every=4), len(agents), first_agent=agents.start,
                      noise_scale=np.arange(8.0)[agents.start : agents.stop])  # fmt: skip
    for chunk, length in enumerate((4, 3, 1, 2, 2, 3)):
        logs = []
        for agent in range(8):
            generator = np.random.default_rng([agent, chunk])
            fields = generator.normal(size=(5, length)).astype(np.float32)
            fields[StepLog._fields.index("episode_length")] = generator.integers(0, 2, length) * 3
            if (agent, chunk) == (3, 3):
                fields[0, 1] = np.nan
            logs.append(fields)
        log = np.stack(logs, axis=1)[:, agents.start : agents.stop]
        history.add_chunk(StepLog(*log))
        if chunk in (0, 2, 4):
            history.add_evaluation(np.arange(8.0)[agents.start : agents.stop] + chunk)
    return history


def assert_equal_histories(one: History, other: History) -> None:
    for table in (metrics_csv, episodes_csv):
        assert table([one]) == table([other])
    arrays, expected = one.to_arrays(), other.to_arrays()
    for name, array in expected.items():
        if not name.startswith("episodes/"):  # whose order is that of the table alone
            np.testing.assert_array_equal(arrays[name], array, err_msg=name)


def test_histories_of_neighbours_join_into_that_of_all():
    parts = [history_of(agents) for agents in (range(3), range(3, 4), range(4, 4), range(4, 8))]
    assert_equal_histories(History.join(parts), history_of(range(8)))


@pytest.mark.parametrize("agents", [range(3), range(2, 5), range(3, 4), range(8)])
def test_part_of_a_history_is_that_of_its_agents(agents):
    assert_equal_histories(history_of(range(8)).of(agents), history_of(agents))


def test_part_without_agents_goes_on_empty():
    empty = history_of(range(8)).of(range(8, 8))
    assert (len(empty.agents), empty.env_steps) == (0, 15)
    assert [column.shape for column in empty.last_rows()] == [(0,) for _ in Metrics._fields]
    empty.add_chunk(StepLog(*np.zeros((5, 0, 2), np.float32)))
    empty.add_evaluation(np.zeros(0))
    assert_equal_histories(History.join([history_of(range(8)), empty]), history_of(range(8)))


def test_traces_of_libraries_are_kept_from_the_user(capfdbinary):
    written = (
        b"error: mine\n\nF1121 07:35:56.742369  3307 client.h:77] Terminating process\n\n"
        b"RPC: /xla.coordination.CoordinationService/RegisterTask\n    @     0x7f3d13ee9f6a  xla::Connect()\n"
        b"mine, too\n"
    )
    supervisor._relay(io.BytesIO(written))
    assert capfdbinary.readouterr().err == b"error: mine\n\nmine, too\n"
