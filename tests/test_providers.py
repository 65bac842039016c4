"""Tests environments by name: a module of one's own, Gymnasium on the host, Brax and MuJoCo Playground (slow)."""

import functools
import importlib.util
import json
import subprocess
import sys
from functools import partial

import gymnasium
import jax
import numpy as np
import pytest
from command import main as train
from PIL import Image

import ddpg_jax
from ddpg_jax import evaluate, render, run
from ddpg_jax.algorithm import outside, replay
from ddpg_jax.algorithm.environment import HostSteps, Step
from ddpg_jax.environments import registry
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import agent_keys
from ddpg_jax.population.host import make_population
from ddpg_jax.population.programs import Placement, compile_programs

CART = """
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

import ddpg_jax


def make_cart(length=1.0):
    def reset(key):
        state = jax.random.uniform(key, (2,), minval=-0.5, maxval=0.5)  # position in m, velocity in m/s
        return state, state

    def step(key, state, action):
        velocity = state[1] + 0.1 * action[0]
        position = state[0] + 0.1 * velocity
        fallen = jnp.abs(position) > length
        reward = jnp.where(fallen, -50.0, -(position**2) - 0.1 * velocity**2)
        state = jnp.stack([position, velocity])
        return state, ddpg_jax.Step(state, reward, terminated=fallen, truncated=jnp.bool_(False))

    return ddpg_jax.Environment("cart", 2, (-1.0,), (1.0,), 100, reset, step)


def make_drawn_cart():
    def draw(states):
        return [np.full((10, 20, 3), int(100 + 100 * state[0]), np.uint8) for state in states]

    return dataclasses.replace(make_cart(), draw=draw)
"""
SHORT = (
    "--total-steps", 60, "--eval-every", 30, "--eval-episodes", 2, "--final-episodes", 3, "--seeds", 2, "--quiet",
    "--hidden-sizes", 4, "--batch-size", 4, "--learning-starts", 10, "--max-episode-steps", 20,
)  # fmt: skip


# A module of one's own


def command(folder, *words):
    """Runs a command in a folder, as a user does."""
    return subprocess.run([sys.executable, *map(str, words)], cwd=folder, capture_output=True, text=True)


LATER = """
import sys
from ddpg_jax import evaluate, render, run

folder = sys.argv[1]
assert run.main(["--resume", folder, "--total-steps", "90", "--quiet"]) == 0
assert evaluate.main([folder, "--episodes", "5"]) == 0
assert render.main([folder, "--episodes", "2"]) == 0
"""


def test_environment_of_ones_own_from_the_command_alone(tmp_path):
    """Started where the module is, and resumed, evaluated and drawn where `import cart` finds nothing."""
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "cart.py").write_text(CART)
    run_folder = tmp_path / "run"
    name = ("--env-id", "cart:make_cart", "--env-args", "length=1.5", "--action-repeat", 2)
    started = command(tmp_path / "own", "-m", "ddpg_jax.run", *name, *SHORT, "--out", run_folder)
    assert (started.returncode, started.stderr) == (0, "")
    written = json.loads((run_folder / "config.json").read_text())
    assert written["env_folder"] == str(tmp_path / "own")
    assert written["config"]["env_args"] == ["length=1.5"]
    later = command(tmp_path, "-c", LATER, run_folder)
    assert (later.returncode, later.stderr) == (0, "")
    assert "2 agents x 5 episodes in cart:make_cart" in later.stdout
    assert "left out: film, because cart cannot draw itself" in later.stdout
    assert json.loads((run_folder / "summary.json").read_text())["env_steps_per_agent"] == 90


def test_environment_of_ones_own_draws_itself(tmp_path, monkeypatch):
    (tmp_path / "drawn_cart.py").write_text(CART)
    monkeypatch.syspath_prepend(tmp_path)
    folder = tmp_path / "run"
    assert train("--out", folder, "--env-id", "drawn_cart:make_drawn_cart", *SHORT).status == 0
    assert render.main([str(folder), "--only", "film"]) == 0
    with Image.open(folder / "film.gif") as film:
        assert film.size == (3 * 20, 10 + 22)
        assert film.n_frames > 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cart_of_tests:make_cart", "env_id is 'cart_of_tests:make_cart', but must be MODULE:FUNCTION, which can be"),
        ("os:nothing", "AttributeError: module 'os' has no attribute 'nothing'"),
        ("os:getpid", "must name a function that returns a ddpg_jax.Environment; it returns int"),
        ("gymnasium:Nowhere-v0", "must be an environment of Gymnasium here: Environment `Nowhere` doesn't exist"),
        ("gymnasium:CartPole-v1", "must have continuous actions; its actions are Discrete(2)"),
    ],
)
def test_unknown_environments_are_refused(name, message, tmp_path):
    outcome = train("--env-id", name, "--out", tmp_path / "run")
    assert outcome.status == 2
    assert message in outcome.err
    assert not (tmp_path / "run").exists()


def test_missing_library_is_named_with_its_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"brax is not installed; pip install .ddpg_jax\[brax\]"):
        registry.make("brax:a-name-of-this-test")


def test_arguments_reach_gymnax():
    assert registry.make("Pendulum-v1", ["max_steps_in_episode=50"]).max_steps == 50
    with pytest.raises(ValueError, match=r"env_args has mass, but must have parameters of Pendulum-v1: .*max_torque"):
        registry.make("Pendulum-v1", ["mass=2"])


def test_environments_are_listed(capsys):
    assert run.main(["--list-environments"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "Pendulum-v1: 3 observations, 1 action(s), episodes of at most 200 steps" in lines
    assert "gymnasium:Pendulum-v1: 3 observations, 1 action(s), episodes of at most 200 steps" in lines


# Gymnasium


@functools.cache
def compiled(setup, placement, num_starts):
    return compile_programs(setup, placement, max_steps=50, num_starts=num_starts)


def population(config, num_agents=2, group_size=2):
    setup = make_setup(config, ddpg_jax.make(config.env_id, config.env_args))
    placement = Placement((jax.devices()[0],), group_size)
    programs = compiled(setup, placement, config.eval_episodes)
    scalars = jax.tree.map(lambda x: np.full(num_agents, x, np.float32), make_hyperparameters(config))
    return setup, make_population(setup, programs, agent_keys(0, np.arange(num_agents)), scalars)


def small(**changes):
    return ddpg_jax.Config(
        **{"env_id": "gymnasium:Pendulum-v1", "hidden_sizes": (4,), "batch_size": 4, "replay_capacity": 600,
           "learning_starts": 10, "eval_episodes": 2, "noise_sigma": 1.0, **changes}
    )  # fmt: skip


def replayed(rows, env, seed):
    """Executes the stored actions in Gymnasium; yields the observation before, the reward and the one after each."""
    before, _ = env.reset(seed=seed)
    for action in rows.action:
        after, reward, terminated, truncated, _ = env.step(action)
        yield before, reward, after
        before = env.reset()[0] if terminated or truncated else after


@pytest.mark.parametrize("num_envs", [1, 2])
def test_replay_holds_what_gymnasium_returned(num_envs):
    """Two episodes and a bit: the observation before each reset is the one that is stored."""
    config = small(num_envs=num_envs, total_steps=600, eval_every=600)
    _, agents = population(config, num_agents=3)
    seeds = np.concatenate([np.asarray(state.environment.seed).reshape(2, -1) for state in agents.states])
    log = agents.advance(250)
    assert np.count_nonzero(log.episode_length) == 3 * num_envs
    assert agents.advance(10).critic_loss.all()
    for agent in range(3):
        stored = agents.transitions(agent, 0, 260 * num_envs)
        for number in range(num_envs):
            rows = ddpg_jax.algorithm.Transition(*(field[number::num_envs] for field in stored))
            env = gymnasium.make("Pendulum-v1")
            for i, (before, reward, after) in enumerate(replayed(rows, env, int(seeds[agent, number]))):
                np.testing.assert_allclose(rows.observation[i], before, atol=1e-5)
                np.testing.assert_allclose(rows.next_observation[i], after, atol=1e-5)
                np.testing.assert_allclose(rows.reward[i], reward, atol=1e-4)
            assert (rows.discount == 1).all()


def test_agents_on_the_host_do_not_depend_on_their_number():
    logs = [population(small(), num_agents=num)[1].advance(40) for num in (1, 3)]
    np.testing.assert_array_equal(logs[0].critic_loss[0], logs[1].critic_loss[0])
    np.testing.assert_array_equal(logs[0].episode_return[0], logs[1].episode_return[0])


def test_chunks_do_not_show_in_the_results():
    _, whole = population(small())
    _, parts = population(small())
    expected = whole.advance(40)
    found = [parts.advance(num) for num in (7, 32, 1)]
    np.testing.assert_array_equal(expected.critic_loss, np.concatenate([log.critic_loss for log in found], axis=1))


@pytest.mark.parametrize("changes", [{"learning_starts": 7}, {"train_every": 3, "updates_per_train": 2}])
def test_agents_on_the_host_update_when_the_configuration_says(changes):
    config = small(**changes)
    _, agents = population(config)
    for num_steps, total in ((6, 6), (1, 7), (13, 20)):
        log = agents.advance(num_steps)
        assert agents.states[0].agent.step.tolist() == [config.num_updates(total)] * 2
    assert np.count_nonzero(log.critic_loss) > 0


@pytest.mark.parametrize("how", ["restore", "replace"])
def test_other_states_begin_new_episodes(how):
    _, agents = population(small())
    agents.advance(5)
    given = {"restore": lambda positions, state: state, "replace": list(agents.states)}[how]
    getattr(agents, how)(given)
    agents.advance(2)
    assert agents.states[0].episode.length.tolist() == [2, 2]
    assert int(agents.states[0].step) == 7


def test_a_step_on_the_host_is_the_step_of_the_compiled_loop():
    """The same transitions and the same keys give the same update, whichever program makes it."""
    setup, agents = population(small(learning_starts=1, noise_sigma=0.0), num_agents=2)
    agents.advance(1)
    state = jax.tree.map(lambda x: x[0] if x.ndim else x, agents.states[0])
    results = HostSteps(Step(np.ones((1, 3)), np.full(1, -2.0), np.zeros(1, bool), np.ones(1, bool)), np.zeros((1, 3)))
    hyperparameters = make_hyperparameters(small(noise_sigma=0.0))
    after, action, row = outside.step(state, outside.pack(results), hyperparameters, setup=setup)
    stored = replay.unpack(np.asarray(after.replay.rows), 1)
    assert stored.reward[1] == -2.0
    assert stored.next_observation[1].tolist() == [1.0, 1.0, 1.0]  # the one before the reset
    assert after.observation.tolist() == [0.0, 0.0, 0.0]  # the one after it
    assert (int(after.episode.number), int(after.episode.length), int(after.step)) == (1, 0, 2)
    assert int(after.agent.step) == int(state.agent.step) + 1
    greedy = outside.act(after.agent, np.zeros((1, 3), np.float32), algorithm=setup.algorithm)
    np.testing.assert_allclose(action, greedy, rtol=1e-6)
    assert row[0] > 0


def test_gymnasium_from_the_command(tmp_path, capsys):
    folder = tmp_path / "run"
    words = ("--out", folder, "--env-id", "gymnasium:Pendulum-v1", *SHORT)
    assert train(*words, "--num-envs", 2, "--normalize-observations").status == 0
    first = (folder / "metrics.csv").read_text()
    assert train("--resume", folder, "--total-steps", 90, "--quiet").status == 0
    assert (folder / "metrics.csv").read_text().startswith(first)
    assert evaluate.main([str(folder), "--episodes", "3"]) == 0
    assert "2 agents x 3 episodes in gymnasium:Pendulum-v1" in capsys.readouterr().out


@pytest.mark.slow
def test_resumed_run_says_that_its_episodes_are_new(tmp_path):
    folder = tmp_path / "run"
    assert train("--out", folder, "--env-id", "gymnasium:Pendulum-v1", *SHORT).status == 0
    resumed = train("--resume", folder, "--total-steps", 90)
    assert (
        "note: gymnasium:Pendulum-v1 begins new episodes: the state of its environments cannot be saved" in resumed.out
    )


@pytest.mark.slow
def test_evaluation_in_gymnasium_is_that_of_gymnax():
    """The same policies from the same start states, in both libraries."""
    _, agents = population(small(eval_episodes=4))
    theirs = agents.evaluate(ddpg_jax.make("gymnasium:Pendulum-v1").evaluation_starts(4))
    setup = make_setup(small(env_id="Pendulum-v1"), ddpg_jax.make("Pendulum-v1"))
    starts = setup.environment.evaluation_starts(4)
    from ddpg_jax.algorithm.evaluation import greedy_episodes

    run = partial(greedy_episodes, environment=setup.environment, algorithm=setup.algorithm)
    ours = jax.vmap(run, in_axes=(0, None))(agents.states[0].agent, starts)
    np.testing.assert_allclose(theirs.returns, ours.returns, rtol=2e-3)
    assert theirs.share_at_bounds.shape == (2, 4)


class Outlines(gymnasium.Env):
    """Draws its steps; observations in a dictionary."""

    observation_space = gymnasium.spaces.Dict(
        {"b": gymnasium.spaces.Box(-1, 1, (2, 1)), "a": gymnasium.spaces.Box(-1, 1, ())}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (1, 2))
    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode, self.steps = render_mode, 0

    def reset(self, *, seed=None, options=None):
        self.steps = 0
        return self._seen(), {}

    def step(self, action):
        assert action.shape == (1, 2)
        self.steps += 1
        return self._seen(), 1.0, False, False, {}

    def render(self):
        return np.full((20, 30, 3), 10 * self.steps, np.uint8)

    def _seen(self):
        return {"a": np.float32(self.steps), "b": np.full((2, 1), 7, np.float32)}


@pytest.fixture
def outlines():
    gymnasium.register("Outlines-v0", entry_point=Outlines)
    yield "gymnasium:Outlines-v0"
    del gymnasium.registry["Outlines-v0"]


def test_environment_without_a_time_limit_is_refused(outlines):
    with pytest.raises(ValueError, match=r"must have a time limit: --env-args max_episode_steps=1000"):
        registry.make(outlines)


@pytest.mark.slow
def test_environment_that_draws_itself_has_a_film(outlines, tmp_path, capsys):
    folder = tmp_path / "run"
    limit = ("--env-args", "max_episode_steps=12", "--action-repeat", 3)
    assert train("--out", folder, "--env-id", outlines, *limit, *SHORT).status == 0
    assert json.loads((folder / "summary.json").read_text())["final_return"]["mean"] == 12.0
    assert render.main([str(folder)]) == 0
    assert "left out: q_estimates, because gymnasium:Outlines-v0 steps on the host" in capsys.readouterr().out
    with Image.open(folder / "film.gif") as film:
        assert (film.size, film.n_frames) == ((3 * 30, 20 + 22), 5)  # three snapshots; four actions and the start


# Brax and MuJoCo Playground, where they are installed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "name"), [("brax", "brax:reacher"), ("mujoco_playground", "playground:CartpoleSwingup")]
)
def test_library_trains_resumes_and_draws(module, name, tmp_path):
    pytest.importorskip(module)
    folder = tmp_path / "run"
    words = ("--env-args", "episode_length=20", *SHORT)
    started = command(tmp_path, "-m", "ddpg_jax.run", "--env-id", name, *words, "--out", folder)
    assert started.returncode == 0, started.stderr
    assert command(tmp_path, "-m", "ddpg_jax.run", "--resume", folder, "--total-steps", 90, "--quiet").returncode == 0
    assert command(tmp_path, "-m", "ddpg_jax.evaluate", folder, "--episodes", 2).returncode == 0
