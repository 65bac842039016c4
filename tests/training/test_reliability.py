"""Tests a run under signals, kills, full disks, damaged files, other processes, and numbers that are not finite."""

import dataclasses
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import REPOSITORY, checkpoints, copy, execute, main, results, start, stopped_after, wait_for

from ddpg_jax import load_policy
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.blocks import agent_keys
from ddpg_jax.results.history import History
from ddpg_jax.runs import divergence, plan, wave
from ddpg_jax.runs import start as runs_start
from ddpg_jax.runs.checkpoint import Checkpoints, Saved
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.session import Session

LONG = ("--seeds", 2, "--total-steps", 100_000_000, "--eval-every", 100_000_000)


# ------------------------------------------------------------------------------------------------------------ signals


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        signal.SIGTERM,
        *(pytest.param(other, marks=pytest.mark.slow) for other in (signal.SIGHUP, signal.SIGUSR1, signal.SIGXCPU)),
    ],
)
def test_signal_ends_a_run_after_its_chunk_with_a_checkpoint_and_the_command_that_resumes_it(tmp_path, number):
    process = start("--out", "run", *LONG, "--checkpoint-every", 0.2, folder=tmp_path)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    newest = checkpoints(tmp_path / "run")[-1]
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"{number.name}: stopping after the current chunk" in out
    words = err.split()
    assert err.startswith(f"stopped by {number.name} at step ")
    assert err.endswith(" -m ddpg_jax.run --resume run\n")
    assert len(err.splitlines()) == 1
    saved = Checkpoints(tmp_path / "run/checkpoints", every=None)
    assert saved.numbers()[-1] > newest
    assert saved.load(saved.numbers()[-1], lambda agent: Config()).saved.env_steps == int(
        words[5].strip(";").replace(",", "")
    )


def test_signal_during_compilation_ends_at_once(tmp_path):
    process = start("--out", "run", "--hidden-sizes", *[32] * 12, folder=tmp_path)
    wait_for(lambda: (tmp_path / "run/config.json").exists())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.startswith("ended by SIGINT; resume with: ")
    assert not checkpoints(tmp_path / "run")


@pytest.mark.slow
def test_second_sigint_ends_a_run_at_once(tmp_path):
    """This holds even while a chunk keeps Python waiting: here a step has so many updates that it takes minutes."""
    endless = ("--updates-per-train", 1_000_000, "--learning-starts", 1, "--batch-size", 100)
    process = start("--out", "run", *LONG, *endless, folder=tmp_path)
    wait_for(lambda: (tmp_path / "run/snapshots").exists())
    time.sleep(1)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err.startswith("ended by SIGINT; resume with: ")


# --------------------------------------------------------------------------------------------------------------- lock


def test_second_process_is_refused_and_the_lock_dies_with_its_holder(tmp_path):
    process = start("--out", "run", *LONG, "--devices", 1, "--checkpoint-every", 0.2, folder=tmp_path)
    wait_for(lambda: checkpoints(tmp_path / "run"))
    for flags in (("--resume", tmp_path / "run"), ("--resume", tmp_path / "run", "--total-steps", 200_000_000)):
        outcome = main(*flags)
        assert outcome.status == 2
        assert outcome.err.startswith(f"error: {tmp_path / 'run'} is in use by process {process.pid}: wait for it")
    process.kill()
    process.communicate()
    with RunFolder.open(tmp_path / "run"):
        pass


def test_second_process_that_waits_for_the_same_new_folder_is_refused(tmp_path):
    first = RunFolder.create(tmp_path / "run")
    second = RunFolder.create(tmp_path / "run")  # both have found the folder empty
    with first:
        with pytest.raises(ValueError, match=f"is in use by process {os.getpid()}"):
            second.__enter__()
        assert (tmp_path / "run/.lock").exists()


# ---------------------------------------------------------------------------------------------------------- the disk


def test_full_disk_is_refused_with_numbers_before_anything_is_written(tmp_path):
    usage = mock.Mock(return_value=mock.Mock(free=100 * 2**10))
    with mock.patch.object(runs_start.shutil, "disk_usage", usage):
        outcome = main("--out", tmp_path / "a/run")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: out is {tmp_path / 'a/run'}, but must be on a disk with 1.")
    assert "MiB free, which the run may need; it has 0.1 MiB" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_disk_that_fills_up_ends_a_run_with_one_line_and_its_last_checkpoint_intact(tmp_path):
    """The replay grows from checkpoint to checkpoint, until one no longer fits."""
    flags = ("--seeds", 4, "--replay-capacity", 3000, "--total-steps", 3000, "--eval-every", 3000)
    outcome = execute(*flags, "--out", "run", "--checkpoint-every", 0.05, folder=tmp_path, largest_file=150_000)
    assert outcome.status == 1
    assert re.match(r"error: checkpoint run/checkpoints/\d+ could not be written: File too large; resume", outcome.err)
    assert len(outcome.err.splitlines()) == 1
    checkpoints = Checkpoints(tmp_path / "run/checkpoints", every=None)
    assert {path.name for path in (tmp_path / "run/checkpoints").iterdir()} == set(map(str, checkpoints.numbers()))
    newest = checkpoints.load(checkpoints.numbers()[-1], lambda agent: Config())
    assert 0 < newest.saved.env_steps < 3000
    assert execute("--resume", "run", "--quiet", folder=tmp_path) == (0, "", "")


@pytest.mark.parametrize("name", ["metrics.csv", "summary.json", "policy.json", "agents-000000.safetensors"])
def test_file_that_cannot_be_written_is_named_and_the_run_can_be_resumed(stopped, tmp_path, name):
    write_bytes = Path.write_bytes

    def fails(path, data):
        if name in path.name:
            write_bytes(path, data[: len(data) // 2])
            raise OSError(28, "No space left on device")
        return write_bytes(path, data)

    folder = tmp_path / "run"
    with mock.patch.object(Path, "write_bytes", fails):
        outcome = main("--out", folder, "--seeds", 2)
    assert outcome.status == 1
    assert outcome.err.startswith("error: ")
    assert f"{name} could not be written: No space left on device; resume with: " in outcome.err
    assert list(folder.rglob("*.part")) == []
    assert main("--resume", folder).status == 0
    assert results(folder) == stopped[2]


def test_exhausted_memory_ends_a_run_with_one_line(tmp_path):
    error = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.\nmore\nlines")
    with mock.patch.object(wave, "train_waves", side_effect=error):
        outcome = main("--out", tmp_path / "run")
    assert outcome.status == 1
    assert outcome.err.startswith("error: RESOURCE_EXHAUSTED: Out of memory allocating 8 bytes.; resume with: ")
    assert len(outcome.err.splitlines()) == 1


# ------------------------------------------------------------------------------------------------------ damaged files


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that can be resumed from two checkpoints, and the files at its end."""
    folder = tmp_path_factory.mktemp("stopped")
    assert main("--out", folder / "run", "--seeds", 2, "--checkpoint-every", 1e-9).status == 0
    expected = results(folder / "run")
    (folder / "run/summary.json").unlink()
    numbers = Checkpoints(folder / "run/checkpoints", every=None).numbers()
    assert len(numbers) == 2
    return folder / "run", numbers, expected


def _files(run):
    return sorted(path for path in (run / "checkpoints").rglob("*") if path.is_file())


DAMAGE = {
    "cut": lambda data: data[: len(data) // 2],
    "turned": lambda data: data[: len(data) // 2] + bytes(255 - byte for byte in data[len(data) // 2 :]),
    "flipped in its last bit": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "removed": None,
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_checkpoint_is_named_and_an_older_one_is_offered(stopped, tmp_path, damage):
    """Whatever happens to any of its files."""
    run, (older, newest), expected = stopped
    files = [path for path in _files(run) if path.parent.name == str(newest)]
    assert [path.name.split("-")[0] for path in files] == ["agents", "history", "run.safetensors"]
    for index, file in enumerate(files):
        folder = copy(run, tmp_path / str(index))
        target = folder / file.relative_to(run)
        if DAMAGE[damage] is None:
            target.unlink()
        else:
            target.write_bytes(DAMAGE[damage](target.read_bytes()))
        outcome = main("--resume", folder)
        assert outcome.status == 2
        assert outcome.err.startswith(f"error: checkpoint {folder}/checkpoints/{newest} is damaged: ")
        assert f"; checkpoint {older}, at step " in outcome.err
        assert f" is intact: add --checkpoint {older} to resume from it" in outcome.err
        assert len(outcome.err.splitlines()) == 1
    assert main("--resume", folder, "--checkpoint", older).status == 0
    assert results(folder) == expected


def test_when_no_checkpoint_is_sound_that_is_said(stopped, tmp_path):
    folder = copy(stopped[0], tmp_path / "run")
    for file in _files(folder):
        file.write_bytes(b"")
    outcome = main("--resume", folder)
    assert outcome.status == 2
    assert "; no other is intact" in outcome.err


def test_checkpoint_that_is_not_there_is_refused_with_those_that_are(stopped):
    run, (older, newest), _ = stopped
    outcome = main("--resume", run, "--checkpoint", 99)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: checkpoint is 99, but must be one of those in {run}: {older}, {newest} ")


@pytest.mark.parametrize(
    ("flags", "difference"),
    [
        (("--seed", 1), "its seed is 1, here 0"),
        (("--tau", 0.5), "its tau is 0.5, here 0.01"),
        (("--seeds", 3), "its seeds is 3, here 2"),
    ],
)
def test_checkpoint_of_another_run_is_named(stopped, tmp_path, flags, difference):
    run = stopped[0]
    folder = copy(run, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    assert main("--out", tmp_path / "other", "--seeds", 2, "--total-steps", 30, *flags).status == 0
    shutil.copytree(tmp_path / "other/checkpoints", folder / "checkpoints")
    outcome = main("--resume", folder)
    assert outcome.status == 2
    assert f"belongs to another run: {difference}; no other is intact" in outcome.err


def test_checkpoint_whose_arrays_have_other_shapes_is_named(stopped, tmp_path):
    """Like the checkpoint of a version that builds its networks differently from the same configuration."""
    run, (_, newest), _ = stopped
    folder = copy(run, tmp_path / "run")
    content = json.loads((folder / "config.json").read_text())
    identity = {"seeds": 2, "seed": 0, **content["config"]}
    del identity["total_steps"]
    history = History(Config(**content["config"]), 2)
    states = [(range(2), {".agent.step": np.zeros(2, np.int32)})]
    checkpoints = Checkpoints(folder / "checkpoints", every=None, run=identity)
    checkpoints.save(Saved([], range(2), 0, {}), history, states)
    outcome = main("--resume", folder)
    assert outcome.status == 2
    assert f"checkpoint {folder}/checkpoints/{newest + 1} does not fit: " in outcome.err
    assert f"add --checkpoint {newest} to resume from it" in outcome.err


def test_run_with_checkpoints_of_an_older_format_is_refused_in_one_line(stopped, tmp_path):
    folder = copy(stopped[0], tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    (folder / "checkpoints/7/run").mkdir(parents=True)
    outcome = main("--resume", folder)
    assert outcome.status == 2
    assert outcome.err.startswith(
        f"error: checkpoint {folder}/checkpoints/7 has format 2, older than 4: resume it with the version that wrote it"
    )
    assert len(outcome.err.splitlines()) == 1


def test_drafts_that_a_kill_has_left_are_removed(stopped, tmp_path):
    run, (_, newest), expected = stopped
    folder = copy(run, tmp_path / "run")
    draft = folder / f"checkpoints/.{newest + 1}.part"
    shutil.copytree(folder / f"checkpoints/{newest}", draft)
    (draft / "run.safetensors").unlink()
    assert main("--resume", folder).status == 0
    assert results(folder) == expected
    assert not draft.exists()


# --------------------------------------------------------------------------------------------------------- divergence


def with_learning_rates(critic_lrs):
    """Agents that each have a critic_lr of their own."""
    hyperparameters = Session.hyperparameters

    def each(session, agents):
        return hyperparameters(session, agents)._replace(critic_lr=np.asarray(critic_lrs, np.float32)[list(agents)])

    return mock.patch.object(Session, "hyperparameters", each)


def rows(folder, name, *, without=(), only=None):
    """Returns the lines of a table for some agents."""
    lines = [line.split(",") for line in (folder / name).read_text().splitlines()[1:]]
    return [line for line in lines if int(line[0]) not in without and (only is None or int(line[0]) == only)]


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    """A run of eight agents, none of which diverges."""
    folder = tmp_path_factory.mktemp("sound") / "run"
    assert main("--out", folder, "--seeds", 8).status == 0
    return folder


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    """A run of eight agents; one learns so fast that its numbers overflow at its first update, after 20 steps."""
    folder = tmp_path_factory.mktemp("diverged") / "run"
    with with_learning_rates([5e-3] * 3 + [1e30] + [5e-3] * 4):
        outcome = main("--out", folder, "--seeds", 8)
    return folder, outcome


def test_diverged_agent_is_reported_with_its_number_and_step_and_the_run_goes_on(diverged):
    _, outcome = diverged
    assert (outcome.status, outcome.err) == (0, "")
    assert outcome.out.count("agent 3 diverged at step 20: ") == 1
    assert "agent 3 at step 20" in outcome.out.split("diverged, left out")[1].splitlines()[0]


def faulty_pendulum(field):
    """Returns Pendulum with a step that gives NaN for the reward or the observation from an episode's 15th step on."""
    pendulum = make("Pendulum-v1")

    def step(key, state, action):
        new, result = pendulum.step(key, state, action)
        value = getattr(result, field)
        return new, result._replace(**{field: jnp.where(new.time == 15, jnp.nan, value)})

    return dataclasses.replace(pendulum, step=step)


@pytest.mark.parametrize(("field", "given"), [("reward", "nan"), ("observation", "nan, nan, nan")])
def test_what_an_environment_gave_is_told_with_its_step_and_the_action(tmp_path, field, given):
    with mock.patch.object(plan, "make", return_value=faulty_pendulum(field)):
        outcome = main("--out", tmp_path / "run", "--seeds", 2)
    assert outcome.status == 1
    action = r"-?\d\.?\d*"
    fault = rf"the environment gave the {field} {given} at step 15, after the action {action};"
    assert re.search(rf"agent 1 diverged at step 1[56]: {fault}", " ".join(outcome.out.split()))


def test_diverged_agent_is_left_out_of_the_statistics_by_name(diverged, sound):
    summary = json.loads((diverged[0] / "summary.json").read_text())
    reference = json.loads((sound / "summary.json").read_text())
    assert (summary["diverged_agents"], summary["diverged_at_env_steps"]) == ([3], [20])
    others = [value for agent, value in enumerate(reference["per_agent_final_return"]) if agent != 3]
    assert summary["final_return"]["mean"] == pytest.approx(np.mean(others))
    assert summary["final_return"]["worst"] == min(others)
    assert summary["per_agent_final_return"][3] is None
    assert [value for agent, value in enumerate(summary["per_agent_final_return"]) if agent != 3] == others


def test_other_agents_are_bitwise_unaffected(diverged, sound):
    for name in ("metrics.csv", "episodes.csv"):
        assert rows(diverged[0], name, without=[3]) == rows(sound, name, without=[3])
    observations = np.random.default_rng(0).normal(size=(7, 3))
    for agent, (here, there) in enumerate(
        zip(load_policy(diverged[0])(observations), load_policy(sound)(observations), strict=True)
    ):
        assert np.array_equal(here, there) == (agent != 3)


def test_rows_of_a_diverged_agent_are_empty(diverged):
    assert {tuple(line[3:]) for line in rows(diverged[0], "metrics.csv", only=3)} == {("",) * 5}
    assert len(rows(diverged[0], "metrics.csv", only=3)) == 4
    assert rows(diverged[0], "episodes.csv", only=3) == []


def test_policy_knows_the_diverged_agent(diverged):
    assert load_policy(diverged[0]).diverged_agents == (3,)


def test_fail_on_divergence_makes_it_a_failure(tmp_path):
    with with_learning_rates([1e30] + [5e-3] * 7):
        outcome = main("--out", tmp_path / "run", "--seeds", 8, "--fail-on-divergence", "--quiet")
    assert outcome == (1, "", "error: 1 of 8 agents diverged: 0 at step 20\n")
    assert (tmp_path / "run/summary.json").exists()


def test_run_of_which_all_agents_diverge_fails_and_is_reported_nevertheless(tmp_path):
    with with_learning_rates([1e30, 1e30]):
        outcome = main("--out", tmp_path / "run", "--seeds", 2)
    assert outcome.status == 1
    assert outcome.err == "error: 2 of 2 agents diverged: 0 at step 20, 1 at step 20\n"
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["final_return"].pop("iqm_ci95") == [None, None]
    assert set(summary["final_return"].values()) == {None}
    assert load_policy(tmp_path / "run").diverged_agents == (0, 1)


def poisoned(agent: int, step: int, value: float):
    """Replaces Pendulum by one in which an agent's reward is not finite at one step of its first episode."""
    whole = make("Pendulum-v1")
    _, _, reset_key = jax.random.split(agent_keys(0, np.asarray([agent]))[0], 3)
    marked = jax.random.key_data(reset_key)

    def reset(key):
        state, observation = whole.reset(key)
        return (state, jnp.all(jax.random.key_data(key) == marked), jnp.int32(0)), observation

    def advance(key, state, action):
        inner, poison, time_step = state
        inner, result = whole.step(key, inner, action)
        bad = poison & (time_step + 1 == step)
        return (inner, poison, time_step + 1), result._replace(reward=jnp.where(bad, value, result.reward))

    def starts(num):
        states, observations = whole.evaluation_starts(num)
        return (states, jnp.zeros(num, bool), jnp.zeros(num, jnp.int32)), observations

    environment = dataclasses.replace(whole, reset=reset, step=advance, starts=starts)
    return mock.patch.object(plan, "make", return_value=environment)


@pytest.fixture(scope="module")
def poisoned_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("poisoned") / "run"
    with poisoned(agent=5, step=7, value=math.nan):
        outcome = main("--out", folder, "--seeds", 8)
        yield folder, outcome


def test_reward_that_is_not_a_number_is_seen_at_its_step(poisoned_run, sound):
    folder, outcome = poisoned_run
    assert outcome.status == 0
    assert "agent 5 diverged at step 7: " in outcome.out
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["diverged_agents"], summary["diverged_at_env_steps"]) == ([5], [7])
    assert rows(folder, "metrics.csv", without=[5]) == rows(sound, "metrics.csv", without=[5])
    assert rows(folder, "episodes.csv", without=[5]) == rows(sound, "episodes.csv", without=[5])


def test_run_with_a_diverged_agent_is_resumed_in_the_same_bits(poisoned_run, tmp_path):
    for num_chunks in (2, 4):
        folder = tmp_path / str(num_chunks)
        assert stopped_after(num_chunks, "--out", folder, "--seeds", 8).status == 143
        assert main("--resume", folder).status == 0
        assert results(folder) == results(poisoned_run[0])


def test_diverged_agent_is_frozen(tmp_path):
    """Its return is infinite once, before any loss can show this. Then its parameters do not change any more."""
    flags = ("--seeds", 2, "--learning-starts", 100, "--eval-every", 50, "--total-steps", 250)
    with poisoned(agent=1, step=3, value=math.inf):
        outcome = main("--out", tmp_path / "run", *flags)
        assert "agent 1 diverged at step 3: " in outcome.out
        assert main("--out", tmp_path / "short", *flags[:-1], 50).status == 0
    weights = [load_policy(tmp_path / name).variables for name in ("run", "short")]
    for after, before in zip(*map(jax.tree.leaves, weights), strict=True):
        np.testing.assert_array_equal(after[1], before[1])
    assert any(not np.array_equal(a[0], b[0]) for a, b in zip(*map(jax.tree.leaves, weights), strict=True))


def test_infinite_parameters_are_seen_though_they_act_and_score(tmp_path):
    """A saturated tanh is finite."""
    parameters = divergence.actor_and_critic
    agents = itertools.count()

    def spoilt(state):
        tree = jax.tree.map(np.array, parameters(state))
        if next(agents) == 0:
            jax.tree.leaves(tree["actor"])[0][0] = math.inf
        return tree

    with mock.patch.object(divergence, "actor_and_critic", spoilt):
        outcome = main("--out", tmp_path / "run", "--seeds", 2)
    assert outcome.status == 0
    assert "agent 0 diverged at step 200" in outcome.out
    assert "agent 1" not in outcome.out


# -------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
def test_killed_runs_end_in_the_same_bits():
    """A shorter form of `benchmarks/kill_and_resume.py`, which kills twenty times."""
    script = REPOSITORY / "benchmarks/kill_and_resume.py"
    command = [sys.executable, str(script), "--small", "--kills", "3", "--kills-per-run", "3"]
    process = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, timeout=500)
    assert process.returncode == 0, process.stdout + process.stderr
    assert "3 of 3 identical" in process.stdout
