"""Tests environments with Brax's interface: a toy, and Brax and MuJoCo Playground where they are installed (slow)."""

from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ddpg_jax.environments.adapt import adapt
from ddpg_jax.environments.brax import wrap
from ddpg_jax.environments.registry import make_task


class State(NamedTuple):
    obs: Any
    reward: jax.Array
    done: jax.Array


def step(state, action):
    """Observes the action twice, which is also the reward; done above 0.5."""
    return State({"b": action, "a": jnp.stack([action, action])}, action[0], jnp.float32(action[0] > 0.5))


@pytest.mark.parametrize(
    ("action", "reward", "terminated"), [(0.25, 0.25, False), (0.75, 0.75, True), (np.nan, 0.0, True)]
)
def test_state_that_is_not_finite_ends_the_episode_without_a_reward(action, reward, terminated):
    env = SimpleNamespace(action_size=1, reset=lambda key: step(None, jnp.zeros(1)), step=step)
    task = adapt(wrap(env, "brax:toy", 10, draw=None))
    assert task.observation_parts == (("a", (2, 1)), ("b", (1,)))
    state, _ = task.environment.reset(jax.random.key(0))
    _, found = task.environment.step(jax.random.key(0), state, jnp.float32([action]))
    assert found.observation.tolist() == [np.nan_to_num(action)] * 3
    assert (float(found.reward), bool(found.terminated), bool(found.truncated)) == (reward, terminated, False)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "env_id"), [("brax", "brax:reacher"), ("mujoco_playground", "playground:CartpoleSwingup")]
)
def test_environment_of_a_library_with_braxs_interface(module, env_id):
    pytest.importorskip(module)
    task = make_task(env_id, ["episode_length=2e1"])
    environment = task.environment
    assert (environment.max_steps, environment.cacheable, set(environment.high)) == (20, True, {1.0})
    starts = task.evaluation_starts(2)
    state = jax.tree.map(lambda leaf: leaf[0], starts.state)
    after, step = environment.step(jax.random.key(0), state, jnp.zeros(environment.action_size))
    assert step.observation.shape == (environment.observation_size,)
    assert np.isfinite(step.observation).all()
    assert [x.dtype for x in jax.tree.leaves(after)] == [x.dtype for x in jax.tree.leaves(state)]
    for word in ("no_such_argument=1", "episode_length=0", "episode_length=long"):
        with pytest.raises(ValueError, match=rf"env_id is '{env_id}' with env_args {word}, but must be"):
            make_task(env_id, [word])
    with pytest.raises(ValueError, match=rf"env_id is '{env_id}0', which .* does not have, but must be one of"):
        make_task(f"{env_id}0")
    with pytest.raises(ValueError, match=rf"which gymnax does not have, but must be {env_id}"):
        make_task(env_id.partition(":")[2])
