"""Tests `init`, `act` and `update`: what they keep and refuse; their numbers are in the parity tests."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_update import flat, perturbed
from toy_environments import small_config

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

LOW, HIGH = (-1.0, 0.5), (3.0, 0.75)
CONFIG = small_config(critic_observation_sizes=(3,), critic_action_sizes=(2,), actor_final_init=None)
HYPERPARAMETERS = make_hyperparameters(CONFIG)
ALGORITHM = make_algorithm(CONFIG, LOW, HIGH)
KEY = jax.random.key(0)


def make_batch(num: int = 4) -> Transition:
    draw = np.random.default_rng(0)
    return Transition(*(draw.normal(size=(num, *s)).astype(np.float32) for s in ((3,), (2,), (), (), (3,))))


def make_state(algorithm=ALGORITHM) -> AgentState:
    """Returns an agent with random parameters everywhere, also in biases and targets, so that a mix-up would show."""
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    return jax.tree.map(lambda x, old: jnp.asarray(x, old.dtype), perturbed(state, 0.7), state)


def update(state, batch, *, algorithm=ALGORITHM):
    return agent.update(KEY, state, batch, algorithm=algorithm, hyperparameters=HYPERPARAMETERS)


def equal(left, right) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_new_agents_have_targets_equal_to_their_networks_and_differ_by_key():
    one, two = (agent.init(jax.random.key(i), jnp.zeros(3), algorithm=ALGORITHM) for i in (0, 1))
    assert int(one.step) == 0
    assert equal((one.actor, one.critic), (one.target_actor, one.target_critic))
    for name in ("actor", "critic"):
        kernels = [flat(getattr(state, name)["params"]) for state in (one, two)]
        assert all((kernels[0][path] != kernels[1][path]).all() for path in kernels[0] if path.endswith("kernel"))


# Policy delay


def test_actor_and_targets_move_at_every_third_update_and_the_critic_at_each():
    """The actor's loss counts three times where the actor moves, so that its mean over all updates is right."""
    delayed, after = replace(ALGORITHM, policy_delay=3), make_state()
    for i in range(1, 7):
        before, batch = after, make_batch(8)
        after, info = update(before, batch, algorithm=delayed)
        assert not equal(before.critic, after.critic)
        for part in ("actor", "target_actor", "target_critic", "actor_optimizer_state"):
            assert equal(getattr(before, part), getattr(after, part)) == (i % 3 != 0), (i, part)
        loss = 3 * update(before, batch)[1].actor_loss if i % 3 == 0 else 0.0
        np.testing.assert_allclose(info.actor_loss, loss, rtol=1e-5)
        assert int(after.step) == i


def test_delay_is_a_branch_in_a_group_of_agents_that_share_the_counter():
    """If each agent had its own counter, both branches would be computed, and one of them thrown away."""
    algorithm = replace(ALGORITHM, policy_delay=2)
    state, batch = (jax.tree.map(lambda x: jnp.stack([x, x]), tree) for tree in (make_state(), make_batch()))
    axes = AgentState(*(0,) * 6, step=None)
    group = jax.vmap(lambda state, batch: update(state, batch, algorithm=algorithm)[0], (axes, 0), axes)
    assert " conditional(" in jax.jit(group).lower(state._replace(step=jnp.int32(1)), batch).compile().as_text()


# Dtypes, shapes and bounds


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
def test_agent_computes_in_the_dtype_of_its_parameters(name):
    def use(example):
        state = agent.init(KEY, example, algorithm=ALGORITHM)
        return state, *update(state, make_batch()), agent.act(state, np.zeros(3, np.float32), algorithm=ALGORITHM)

    with jax.enable_x64(name == "float64"):
        state, new, info, action = jax.eval_shape(use, jax.ShapeDtypeStruct((3,), jnp.dtype(name)))
    leaves = jax.tree.leaves((state, new, info, action))
    assert {str(leaf.dtype) for leaf in leaves} == {name, "int32"}  # int32 are the counters of updates
    assert {str(leaf.dtype) for leaf in (action, *info)} == {name}
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, new)))


@pytest.mark.parametrize("action_bound", ["tanh", "sigmoid"])
def test_actions_stay_within_any_bounds_even_with_huge_weights(action_bound):
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, 200)) * np.exp(2 * rng.normal(size=200)), axis=0).astype(np.float32)
    algorithm = make_algorithm(small_config(action_bound=action_bound), tuple(low.tolist()), tuple(high.tolist()))
    state = make_state(algorithm)
    observations = rng.normal(size=(50, 3))
    for size in (1.0, 1e3, 1e6):
        huge = state._replace(actor=jax.tree.map(lambda x, size=size: size * x, state.actor))
        actions = np.asarray(agent.act(huge, observations, algorithm=algorithm))
        assert (low <= actions).all()
        assert (actions <= high).all()
    # In the end the output is saturated: where an observation excites the network, its action is a bound.
    at_bound = np.isclose(actions, low, rtol=1e-4) | np.isclose(actions, high, rtol=1e-4)
    assert at_bound.any(axis=0).all()


def test_act_accepts_one_observation_or_any_number():
    state, observations = make_state(), make_batch(6).observation
    together, stacked, one = (
        agent.act(state, x, algorithm=ALGORITHM) for x in (observations, observations.reshape(2, 3, 3), observations[4])
    )
    assert (together.shape, stacked.shape) == ((6, 2), (2, 3, 2))
    np.testing.assert_allclose(stacked.reshape(6, 2), together, rtol=1e-5)
    np.testing.assert_allclose(one, together[4], rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "shape"), [("reward", (4, 1)), ("reward", (3,)), ("action", (4,)), ("next_observation", (5, 3))]
)
def test_update_refuses_a_batch_of_wrong_shape(field, shape):
    with pytest.raises(AssertionError):
        update(make_state(), make_batch()._replace(**{field: np.zeros(shape, np.float32)}))
