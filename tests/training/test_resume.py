"""Tests that a run that was stopped and resumed, or extended, is bit-identical to one that was not."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import copy, main, results, stopped_after

from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population.assembly import make_setup
from ddpg_jax.population.programs import train_state_shapes
from ddpg_jax.results.history import History
from ddpg_jax.runs import checkpoint, course, finish, plan, state_arrays
from ddpg_jax.runs.array_files import read_arrays, write_arrays
from ddpg_jax.runs.checkpoint import Checkpoints, Saved
from ddpg_jax.runs.folder import RunFolder
from ddpg_jax.runs.state_arrays import restore_state

AGENTS = ("--seeds", 5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of 200 steps, evaluated at 60, 120, 180 and 200."""
    folder = tmp_path_factory.mktemp("resume") / "whole"
    assert main("--out", folder, *AGENTS).status == 0
    return folder


@pytest.mark.parametrize("num_chunks", [1, 2, 3, 4, 5, 6, 7])
def test_resumed_run_ends_in_the_same_bits(whole, tmp_path, num_chunks):
    folder = tmp_path / "run"
    outcome = stopped_after(num_chunks, "--out", folder, *AGENTS)
    assert outcome.status == 143
    assert outcome.err.startswith("stopped by SIGTERM at step ")
    assert outcome.err.endswith(f"-m ddpg_jax.run --resume {folder}\n")
    assert main("--resume", folder).status == 0
    assert results(folder) == results(whole)


def test_run_that_is_stopped_again_and_again_ends_in_the_same_bits(whole, tmp_path):
    folder = tmp_path / "run"
    outcome = stopped_after(1, "--out", folder, *AGENTS)
    stops = 1
    while outcome.status == 143:
        outcome = stopped_after(1, "--resume", folder)
        stops += 1
    assert outcome.status == 0
    assert stops > 5
    assert results(folder) == results(whole)


def test_length_of_the_chunks_does_not_matter(whole, tmp_path):
    """It follows the machine's pace, which is another in each process."""
    with mock.patch.object(course, "FIRST_CHUNK", 1), mock.patch.object(course, "CHUNK_SECONDS", 0):
        assert main("--out", tmp_path / "run", *AGENTS).status == 0
    assert results(tmp_path / "run") == results(whole)


@pytest.mark.parametrize("first_steps", [60, 130, 200 - 1])
def test_extended_run_is_the_uninterrupted_one(whole, tmp_path, first_steps):
    """This holds even if the old end was evaluated although it is not a multiple of `eval_every`."""
    folder = tmp_path / "run"
    assert main("--out", folder, *AGENTS, "--total-steps", first_steps).status == 0
    outcome = main("--resume", folder, "--total-steps", 200)
    assert outcome.status == 0
    assert f"resuming {folder} at step {first_steps}" in outcome.out
    assert results(folder) == results(whole)
    assert json.loads((folder / "config.json").read_text())["config"]["total_steps"] == 200
    assert json.loads((folder / "summary.json").read_text())["env_steps_per_agent"] == 200


def test_extension_that_is_stopped_needs_no_flag_to_go_on(whole, tmp_path):
    folder = tmp_path / "run"
    assert main("--out", folder, *AGENTS, "--total-steps", 70).status == 0
    assert stopped_after(2, "--resume", folder, "--total-steps", 200).status == 143
    assert main("--resume", folder).status == 0
    assert results(folder) == results(whole)


def test_finished_run_has_nothing_left_to_do_and_compiles_nothing(whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*") if path.is_file() and path.name != ".lock"}
    with mock.patch.object(finish, "run", side_effect=AssertionError("it runs")):
        outcome = main("--resume", whole)
    assert outcome.status == 0
    assert outcome.out == f"{whole} is finished at 200 steps: there is nothing left to do\n"
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_finished_run_has_nothing_left_to_do_even_without_its_checkpoints(whole, tmp_path):
    folder = copy(whole, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    assert main("--resume", folder).status == 0


def test_run_without_a_checkpoint_starts_at_its_beginning(whole, tmp_path):
    """So does a run that was killed before its first checkpoint; its files are overwritten."""
    folder = copy(whole, tmp_path / "run")
    shutil.rmtree(folder / "checkpoints")
    (folder / "summary.json").unlink()
    (folder / "metrics.csv").write_text("half a li")
    outcome = main("--resume", folder)
    assert (outcome.status, outcome.err) == (0, "")
    assert "at its beginning: it has no checkpoint" in outcome.out
    assert results(folder) == results(whole)


def test_run_killed_in_its_last_moments_only_finishes(whole, tmp_path):
    folder = copy(whole, tmp_path / "run")
    for name in ("summary.json", "metrics.csv", "episodes.csv"):
        (folder / name).unlink()
    shutil.rmtree(folder / "policy")
    outcome = main("--resume", folder)
    assert outcome.status == 0
    assert "at step 200" in outcome.out
    assert results(folder) == results(whole)


def test_resumed_run_remembers_how_it_was_started(tmp_path):
    folder = tmp_path / "run"
    flags = ("--record-every", 3, "--checkpoint-every", 1000, "--fail-on-divergence")
    assert stopped_after(3, "--out", folder, "--seeds", 1, *flags).status == 143
    assert main("--resume", folder).status == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["record_every"], config["checkpoint_every"], config["fail_on_divergence"]) == (3, 1000, True)
    assert len(config["resumed"]) == 1
    recorded = sorted(int(path.stem[-6:]) for path in (folder / "rollouts").rglob("*.npz"))
    assert recorded == [0, 3, 6]  # eight episodes of 25 steps


OTHERS = {
    "env_id": "MountainCarContinuous-v0", "max_episode_steps": 30, "hidden_sizes": (9, 9), "gamma": 0.9, "tau": 0.5,
    "critic_hidden_sizes": (3,), "actor_lr": 0.5, "batch_size": 9, "replay_capacity": 101, "noise": "gaussian",
    "noise_sigma": 0.0, "eval_every": 50, "eval_episodes": 32, "learning_starts": 21, "train_every": 2,
    "actor_normalization": "layer", "action_bound": "sigmoid", "critic_l2": 0.1, "lr_decay": 0.5,
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_change_that_would_make_it_another_run_is_refused_by_name(whole, name):
    before = (whole / "config.json").read_bytes()
    value = OTHERS[name]
    words = value if isinstance(value, tuple) else (value,)
    outcome = main("--resume", whole, f"--{name.replace('_', '-')}", *words, "--total-steps", 300)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {name} is ")
    assert len(outcome.err.splitlines()) == 1
    assert (whole / "config.json").read_bytes() == before


@pytest.mark.parametrize("flags", [("--seeds", 6), ("--seed", 1), ("--preset", "keras"), ("--out", "elsewhere"),
                                   ("--group-size", 3), ("--no-noise-reset",)])  # fmt: skip
def test_other_options_are_refused_by_name(whole, flags):
    outcome = main("--resume", whole, *flags)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {flags[0][2:].replace('no-', '').replace('-', '_')} is ")
    assert "a resumed run keeps everything but total_steps" in outcome.err


def test_shorter_run_is_refused(whole):
    outcome = main("--resume", whole, "--total-steps", 199)
    assert outcome.status == 2
    assert outcome.err.startswith("error: total_steps is 199, but must be at least 200")


def in_waves(size: int):
    """Plans that have room for so many agents at a time."""
    plan_part = plan.plan_part

    def small(config, setup, placements, agents, **options):
        return replace(plan_part(config, setup, placements, agents, **options), waves=plan.waves_of(agents, size))

    return mock.patch.object(plan, "plan_part", small)


@pytest.mark.parametrize("num_chunks", [3, 9, 13])
def test_waves_are_resumed_as_they_were_begun(whole, tmp_path, num_chunks):
    """The machine may have more or less memory when the run is resumed."""
    folder = tmp_path / "run"
    with in_waves(4):
        assert stopped_after(num_chunks, "--out", folder, *AGENTS).status == 143
    assert main("--resume", folder).status == 0
    names = ("metrics.csv", "episodes.csv")
    assert [(folder / name).read_bytes() for name in names] == [(whole / name).read_bytes() for name in names]
    with in_waves(2):
        assert main("--resume", folder).status == 0  # it is finished


def test_wave_that_no_longer_fits_is_refused(tmp_path):
    folder = tmp_path / "run"
    assert stopped_after(3, "--out", folder, *AGENTS).status == 143
    with in_waves(4):
        outcome = main("--resume", folder)
    assert outcome.status == 2
    assert "which trained 5 agents at a time" in outcome.err


def test_run_in_waves_cannot_be_extended_and_says_why(tmp_path):
    folder = tmp_path / "run"
    with in_waves(4):
        assert main("--out", folder, *AGENTS, "--total-steps", 70).status == 0
        outcome = main("--resume", folder, "--total-steps", 200)
    assert outcome.status == 2
    assert outcome.err.startswith("error: total_steps is 200, but must be 70")


@pytest.fixture(scope="module")
def state():
    """Returns a training state of two agents, filled with numbers; three of the ten rows of its replay are written."""
    setup = make_setup(Config(hidden_sizes=(2,), batch_size=1, replay_capacity=10), make("Pendulum-v1"))
    one = train_state_shapes(setup)
    generator = np.random.default_rng(0)

    def fill(leaf):
        if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.split(jax.random.key(1), 2)
        return jnp.asarray(generator.integers(1, 100, (2, *leaf.shape)), leaf.dtype)

    filled = jax.tree.map(fill, one)
    rows = filled.replay.rows.at[:, 3:].set(0)
    return filled._replace(replay=filled.replay._replace(rows=rows, added=jnp.int32(3)), step=jnp.int32(3))


def test_every_array_of_a_state_comes_back(state):
    arrays = state_arrays.state_arrays(state)
    assert arrays[state_arrays.REPLAY].shape == (2, 3, 9)  # only those of the ten rows that are written
    back = restore_state(arrays, state)
    assert jax.tree.structure(back) == jax.tree.structure(state)
    for there, here in zip(jax.tree.leaves(back), jax.tree.leaves(state), strict=True):
        assert there.dtype == here.dtype
        if jax.dtypes.issubdtype(here.dtype, jax.dtypes.prng_key):
            there, here = jax.random.key_data(there), jax.random.key_data(here)
        np.testing.assert_array_equal(there, here)


def _drop_one(arrays):
    arrays.pop(sorted(arrays)[4])


def _reshape_one(arrays):
    name = max(arrays, key=lambda name: arrays[name].size)
    arrays[name] = arrays[name][..., :-1]


def _retype_one(arrays):
    name = max(arrays, key=lambda name: arrays[name].size)
    arrays[name] = arrays[name].astype(np.float64)


@pytest.mark.parametrize("change", [_drop_one, _reshape_one, _retype_one])
def test_arrays_that_do_not_fit_are_refused(state, change):
    arrays = state_arrays.state_arrays(state)
    change(arrays)
    with pytest.raises(ValueError, match="but must be"):
        restore_state(arrays, state)


def config_of(agent: int) -> Config:
    return Config()


def save(checkpoints: Checkpoints, step: int) -> None:
    history = History(Config(), 2)
    history.env_steps = step
    states = [(range(2), {".x": np.arange(2.0) + step, ".step": np.array(step)})]
    checkpoints.save(Saved([], range(2), step, {"training": 1.5}), history, states)


def test_newest_checkpoints_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=1.0)
    for step in (10, 20, 30, 40):
        save(checkpoints, step)
    assert checkpoints.numbers() == [3, 4]
    assert [checkpoints.load(number, config_of).saved.env_steps for number in (3, 4)] == [30, 40]


@pytest.mark.parametrize("agents", [range(5), range(1, 2), range(2, 4), range(3, 5), range(4, 5), range(3)])
def test_any_agents_are_read_from_the_portions_that_have_them(tmp_path, agents):
    """As another number of processes asks for them."""
    states = [(portion, {".x": np.array(portion, float), ".step": np.array(7)}) for portion in (range(3), range(3, 5))]
    checkpoints = Checkpoints(tmp_path, every=1.0)
    checkpoints.save(Saved([], range(5), 7, {}), History(Config(), 5), states)
    found = checkpoints.load(1, config_of)
    assert found.states(agents)[".x"].tolist() == list(agents)
    assert found.states(agents)[".step"] == 7
    assert found.history(agents).agents.tolist() == list(agents)


def test_checkpoint_that_lacks_agents_is_damaged(tmp_path):
    checkpoints = Checkpoints(tmp_path, every=1.0)
    checkpoints.save(Saved([], range(5), 7, {}), History(Config(), 5), [(range(3), {".x": np.zeros(3)})])
    with pytest.raises(ValueError, match="its agents files have 3 of 5 agents"):
        checkpoints.load(1, config_of)


def test_going_back_to_an_older_checkpoint_removes_the_newer_once_there_is_another(tmp_path):
    save(Checkpoints(tmp_path, every=1.0), 10)
    save(Checkpoints(tmp_path, every=1.0), 20)
    checkpoints = Checkpoints(tmp_path, every=1.0)
    checkpoints.load(1, config_of)
    assert checkpoints.numbers() == [1, 2]
    save(checkpoints, 15)
    assert checkpoints.numbers() == [1, 3]
    assert checkpoints.load(3, config_of).saved.env_steps == 15


def test_checkpoint_of_another_run_is_named(tmp_path):
    save(Checkpoints(tmp_path, every=1.0, run={"seed": 1, "gamma": 0.9}), 10)
    with pytest.raises(ValueError, match="belongs to another run: its seed is 1, here 2"):
        Checkpoints(tmp_path, every=1.0, run={"seed": 2, "gamma": 0.9}).load(1, config_of)
    # A field that did not exist when it was written does not count as a difference.
    Checkpoints(tmp_path, every=1.0, run={"seed": 1, "gamma": 0.9, "newer": 3}).load(1, config_of)


def test_checkpoint_of_a_newer_format_is_named(tmp_path):
    with mock.patch.object(checkpoint, "FORMAT", 5):
        save(Checkpoints(tmp_path, every=1.0), 10)
    with pytest.raises(ValueError, match="has format 5, newer than 4"):
        Checkpoints(tmp_path, every=1.0).load(1, config_of)


def test_checkpoint_with_older_random_numbers_is_named(tmp_path):
    with mock.patch.object(checkpoint, "FORMAT", 3):
        save(Checkpoints(tmp_path, every=1.0), 10)
    with pytest.raises(ValueError, match="has format 3, older than 4: resume it with the version that wrote it"):
        Checkpoints(tmp_path, every=1.0).load(1, config_of)


@pytest.mark.parametrize(("name", "version"), [("default", 1), ("run", 2)])
def test_checkpoint_in_folders_is_named(tmp_path, name, version):
    """Both were written by Orbax, in folders; the older one had all of it in a folder called `default`."""
    (tmp_path / "1" / name).mkdir(parents=True)
    (tmp_path / "1" / name / "_METADATA").write_text("{}")
    with pytest.raises(ValueError, match=f"has format {version}, older than 4: resume it with the version that wrote"):
        Checkpoints(tmp_path, every=1.0).load(1, config_of)


DTYPES = ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "bfloat16",
          "float32", "float64", "complex64"]  # fmt: skip


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (2, 3)])
@pytest.mark.parametrize("name", DTYPES)
def test_array_of_any_dtype_and_shape_comes_back_in_the_same_bits(tmp_path, name, shape):
    dtype = jnp.dtype(name)
    data = np.random.default_rng(0).bytes(math.prod(shape) * dtype.itemsize)
    array = np.frombuffer(bytes(byte % 2 for byte in data) if name == "bool" else data, dtype).reshape(shape)
    write_arrays(tmp_path / "file", {".a['b/c']": array}, {"as": ["text", 1, None]})
    arrays, description = read_arrays(tmp_path / "file")
    (back,) = arrays.values()
    assert list(arrays) == [".a['b/c']"]
    assert (back.dtype, back.shape, back.tobytes()) == (dtype, shape, array.tobytes())
    assert description == {"as": ["text", 1, None]}


def test_transposed_array_comes_back_as_it_is(tmp_path):
    array = np.arange(6.0).reshape(2, 3).T
    write_arrays(tmp_path / "file", {"x": array})
    np.testing.assert_array_equal(read_arrays(tmp_path / "file")[0]["x"], array)


def test_each_bit_of_a_file_counts(tmp_path):
    """A bit that was flipped anywhere is noticed: in the header, in the metadata, in the numbers."""
    file = tmp_path / "file"
    write_arrays(file, {"x": np.arange(3, dtype=np.int16), ".y": np.zeros((2, 0))}, {"n": 1})
    whole = file.read_bytes()
    for position in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"cannot be read|does not match"):
            read_arrays(file)


class Clock:
    """A clock that the test moves."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now

    def advance(self, seconds):
        self.now += seconds


@pytest.mark.parametrize(("cost", "least", "most"), [(0.5, 60, 66), (20.0, 9, 9)])
def test_checkpoints_cost_at_most_a_twentieth_of_a_run_unless_the_user_says_how_often(tmp_path, cost, least, most):
    """The cost includes the last checkpoint, which is always written at the end."""
    clock, num = Clock(), 0
    with (
        mock.patch.object(checkpoint.time, "perf_counter", clock),
        mock.patch.object(Checkpoints, "_write", side_effect=lambda *_: clock.advance(cost)),
    ):
        checkpoints = Checkpoints(tmp_path, every=None, expected_bytes=cost * checkpoint.BYTES_PER_SECOND)
        while clock.now < 4000:
            clock.advance(1.0)
            if checkpoints.due():
                save(checkpoints, 10)
                num += 1
                assert (num + 1) * cost <= 0.05 * clock.now
    assert least <= num <= most


def test_checkpoints_are_as_frequent_as_the_user_says(tmp_path):
    clock = Clock()
    with mock.patch.object(checkpoint.time, "perf_counter", clock):
        checkpoints = Checkpoints(tmp_path, every=3.0, expected_bytes=1e12)
        assert not checkpoints.due()
        clock.advance(3.0)
        assert checkpoints.due()


def _enter_in_vain(folder):
    with folder:
        assert (folder.path / ".lock").exists()
        raise ZeroDivisionError


def test_folder_of_a_refused_run_is_removed_with_the_folders_above_it(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(ZeroDivisionError):
        _enter_in_vain(RunFolder.create(tmp_path / "mine/a/b/c"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "mine"]


def test_empty_folder_that_was_there_before_stays_and_stays_empty(tmp_path):
    with pytest.raises(ZeroDivisionError):
        _enter_in_vain(RunFolder.create(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_runs_of_the_same_second_get_folders_of_their_own(tmp_path):
    paths = [tmp_path / "runs" / name for name in ("a", "a-2")]
    assert [RunFolder.create_first(paths).path for _ in range(2)] == paths
    with pytest.raises(ValueError, match="out is not given"):
        RunFolder.create_first(paths)
    assert Path(paths[1]).is_dir()
