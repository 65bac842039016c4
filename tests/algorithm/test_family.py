"""The switches of the DDPG family against independent computations, and what each of them leaves alone."""

import csv
import itertools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from command import main, results, stopped_after
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_environments import counter, explored, small_config

from ddpg_jax import load_policy, render
from ddpg_jax.algorithm import agent, loop, losses, moments, replay
from ddpg_jax.algorithm.categorical import categorical, project
from ddpg_jax.algorithm.ensemble import of_ensemble
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.algorithm.n_step import NStep
from ddpg_jax.algorithm.smoothing import smooth
from ddpg_jax.algorithm.types import StepLog, Transition
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_algorithm, make_hyperparameters, make_setup
from ddpg_jax.results.history import History

LOW, HIGH = (-1.0, 0.0), (3.0, 0.5)
KEY = jax.random.key(0)


# n-step returns


def window(steps, first, n, gamma):
    """(reward, discount of the next value, next observation) of the steps from `first` on, in a plain loop.

    A step is (observation, reward, terminal, cut off, next observation).
    """
    total, factor = 0.0, 1.0
    for step in steps[first : first + n]:
        _, reward, terminal, cut, following = step
        total += factor * reward
        factor *= gamma
        if terminal:
            return total, 0.0, following
        if cut:
            break
    return total, factor, following


@st.composite
def histories(draw):
    """Episodes one after another, whose observations are all different, and a capacity that may be smaller."""
    steps, now = [], 0.0
    for _ in range(draw(st.integers(1, 30))):
        ends = draw(st.sampled_from(["goes on", "goes on", "goes on", "terminal", "cut"]))
        steps.append((now, draw(st.integers(-5, 5)), ends == "terminal", ends == "cut", now + 1.0))
        now += 1.0 if ends == "goes on" else 2.0
    return steps, draw(st.integers(1, 40)), draw(st.integers(1, 12)), draw(st.sampled_from([0.0, 0.5, 0.99, 1.0]))


@settings(max_examples=60, deadline=None)
@given(histories())
def test_n_step_returns_are_those_of_a_plain_loop(history):
    steps, capacity, n, gamma = history
    ring = replay.init(capacity, 1, 1)
    for observation, reward, terminal, _, following in steps:
        row = [observation, 0.0, reward, 0.0 if terminal else 1.0, following]
        ring = ring._replace(rows=ring.rows.at[ring.added % capacity].set(jnp.array(row)), added=ring.added + 1)
    held = range(max(0, len(steps) - capacity), len(steps))
    hyperparameters = make_hyperparameters(small_config(gamma=gamma))
    batch = NStep(n)(ring, jnp.array([step % capacity for step in held]), 1, hyperparameters)
    for i, first in enumerate(held):
        total, factor, following = window(steps, first, n, gamma)
        assert float(batch.observation[i, 0]) == steps[first][0]
        assert float(batch.reward[i]) == pytest.approx(total, abs=1e-4)
        assert gamma * float(batch.discount[i]) == pytest.approx(factor, abs=1e-6)
        assert float(batch.next_observation[i, 0]) == following


@settings(max_examples=20, deadline=None)
@given(st.lists(histories(), min_size=2, max_size=3))
def test_windows_of_environments_side_by_side_are_those_of_each_of_them(drawn):
    lanes, (_, capacity, n, gamma) = [steps for steps, *_ in drawn], drawn[0]
    num_steps, num_envs = min(map(len, lanes)), len(drawn)
    ring = replay.init(capacity * num_envs, 1, 1)
    for step in range(num_steps):
        rows = [lane[step] for lane in lanes]
        entries = [(o + 100 * e, r, 0.0 if end else 1.0, f + 100 * e) for e, (o, r, end, _, f) in enumerate(rows)]
        observation, reward, discount, following = jnp.array(entries, jnp.float32).T
        action = jnp.zeros((num_envs, 1))
        ring = replay.add_all(ring, Transition(observation[:, None], action, reward, discount, following[:, None]))
    held = [(step, e) for step in range(max(0, num_steps - capacity), num_steps) for e in range(num_envs)]
    indices = jnp.array([(step * num_envs + e) % (capacity * num_envs) for step, e in held])
    hyperparameters = make_hyperparameters(small_config(gamma=gamma))
    batch = NStep(n, num_envs)(ring, indices, 1, hyperparameters)
    for i, (step, e) in enumerate(held):
        total, factor, following = window(lanes[e][:num_steps], step, n, gamma)
        assert float(batch.observation[i, 0]) == lanes[e][step][0] + 100 * e
        assert float(batch.reward[i]) == pytest.approx(total, abs=1e-4)
        assert gamma * float(batch.discount[i]) == pytest.approx(factor, abs=1e-6)
        assert float(batch.next_observation[i, 0]) == following + 100 * e


def test_one_step_returns_are_the_rows_themselves():
    ring = replay.init(8, 2, 1)
    for i in range(5):
        ring = replay.add(ring, Transition(jnp.full(2, i), jnp.ones(1), jnp.float32(i), jnp.float32(1), jnp.ones(2)))
    indices = jnp.array([0, 3, 4])
    plain = replay.read(ring, indices, 1)
    for ours, expected in zip(NStep(1)(ring, indices, 1, make_hyperparameters(small_config())), plain, strict=True):
        np.testing.assert_array_equal(ours, expected)


def test_n_step_changes_no_stored_row():
    environment = counter(length=3)
    rows = [explored(small_config(n_step=n), environment, 20)[0] for n in (1, 4)]
    for one, other in zip(*rows, strict=True):
        np.testing.assert_array_equal(one, other)


# Several critics


def ensemble_of(num_critics, **changes):
    algorithm = make_algorithm(small_config(num_critics=num_critics, **changes), LOW, HIGH)
    return algorithm, agent.init(KEY, jnp.zeros(3), algorithm=algorithm)


def test_critics_of_an_ensemble_have_weights_of_their_own():
    _, state = ensemble_of(3)
    for name, leaf in jax.tree_util.tree_leaves_with_path(state.critic["params"]):
        assert leaf.shape[0] == 3
        if name[-1].key == "kernel":
            assert not np.array_equal(leaf[0], leaf[1])
            assert not np.array_equal(leaf[1], leaf[2])


def test_ensemble_computes_what_its_critics_compute_one_by_one():
    algorithm, state = ensemble_of(3, hidden_sizes=(20,))
    single = make_algorithm(small_config(hidden_sizes=(20,)), LOW, HIGH).critic
    observation, action = jax.random.normal(KEY, (5, 3)), jax.random.normal(KEY, (5, 2))
    together = algorithm.critic.apply(state.critic, observation, action)
    for k in range(3):
        params = jax.tree.map(lambda leaf, k=k: leaf[k], state.critic["params"]["critic"])
        np.testing.assert_allclose(together[:, k], single.apply({"params": params}, observation, action), rtol=1e-5)


def test_target_is_that_of_the_smallest_value_and_the_actor_follows_the_first_critic():
    form = of_ensemble(losses.CriticForm())
    output = jnp.array([[1.0, -2.0, 5.0], [4.0, 3.0, 2.5]])
    reward, discount = jnp.array([10.0, 20.0]), jnp.array([1.0, 0.0])
    np.testing.assert_allclose(form.td_target(reward, discount, output, gamma=0.5), [10.0 + 0.5 * -2.0, 20.0])
    target = jnp.array([0.0, 1.0])
    expected = (1 + 9) / 2 + (4 + 4) / 2 + (25 + 2.25) / 2
    assert float(form.critic_loss(output, target)) == pytest.approx(expected)
    assert float(form.actor_loss(output)) == pytest.approx(-2.5)
    np.testing.assert_array_equal(form.action_value(output), [1.0, 4.0])


def test_categorical_ensemble_takes_the_whole_distribution_of_the_smaller_mean():
    single = categorical(3, 0.0, 2.0)
    form = of_ensemble(single)
    low, high = jnp.log(jnp.array([0.7, 0.2, 0.1])), jnp.log(jnp.array([0.1, 0.2, 0.7]))
    output = jnp.stack([jnp.stack([high, low], axis=-1), jnp.stack([low, high], axis=-1)])  # [B, M, K]
    zeros, ones = jnp.zeros(2), jnp.ones(2)
    np.testing.assert_allclose(form.td_target(zeros, ones, output, gamma=1.0), [[0.7, 0.2, 0.1]] * 2, atol=1e-6)
    np.testing.assert_allclose(form.action_value(output), [0.2 + 1.4, 0.2 + 0.2], atol=1e-6)


# A categorical critic


def projected(probabilities, returns, atoms):
    """Bellemare et al. 2017, Algorithm 1, as it is printed."""
    step, out = atoms[1] - atoms[0], np.zeros_like(atoms)
    for p, value in zip(probabilities, returns, strict=True):
        b = min((min(max(value, atoms[0]), atoms[-1]) - atoms[0]) / step, len(atoms) - 1)
        lower, upper = int(np.floor(b)), int(np.ceil(b))
        if lower == upper:
            out[lower] += p
        else:
            out[lower] += p * (upper - b)
            out[upper] += p * (b - lower)
    return out


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31), st.integers(2, 12), st.floats(-3.0, 3.0), st.floats(0.0, 1.2))
def test_projection_is_that_of_the_paper_and_keeps_the_mass_and_the_mean_inside(seed, num_atoms, reward, gamma):
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(num_atoms))
    atoms = np.linspace(-2.0, 1.0, num_atoms)
    returns = reward + gamma * atoms
    ours = np.asarray(
        project(*(jnp.asarray(x, jnp.float32)[None] for x in (probabilities, returns)), jnp.asarray(atoms))
    )[0]
    np.testing.assert_allclose(ours, projected(probabilities, returns, atoms), atol=2e-5)
    assert ours.sum() == pytest.approx(1.0, abs=1e-5)
    if returns.min() >= -2.0 and returns.max() <= 1.0:
        assert ours @ atoms == pytest.approx(probabilities @ returns, abs=1e-4)


def test_categorical_losses_are_cross_entropy_and_mean():
    form = categorical(3, -1.0, 1.0)
    probabilities = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    logits, target = jnp.log(jnp.asarray(probabilities)), jnp.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    expected = -(np.log(0.2) + 0.5 * np.log(0.3) + 0.5 * np.log(0.1)) / 2
    assert float(form.critic_loss(logits, target)) == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(form.action_value(logits), [0.3, -0.5], atol=1e-6)
    assert float(form.actor_loss(logits)) == pytest.approx(0.1, abs=1e-6)
    terminal = form.td_target(jnp.array([0.5, 9.0]), jnp.zeros(2), logits, gamma=0.9)
    np.testing.assert_allclose(terminal, [[0.0, 0.5, 0.5], [0.0, 0.0, 1.0]], atol=1e-6)


def test_categorical_critic_learns_the_mean_of_its_rewards():
    config = small_config(critic_atoms=21, value_min=-1.0, value_max=1.0, critic_lr=1e-2)
    algorithm, observation = make_algorithm(config, LOW, HIGH), jnp.ones((64, 3))
    reward = jnp.where(jnp.arange(64) % 4 == 0, 0.9, -0.3)  # the mean is 0
    batch = Transition(observation, jnp.ones((64, 2)), reward, jnp.zeros(64), observation)
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    for _ in range(300):
        state, info = agent.update(KEY, state, batch, algorithm=algorithm, hyperparameters=make_hyperparameters(config))
    assert float(info.q_mean) == pytest.approx(0.0, abs=0.02)
    logits = algorithm.critic.apply(state.critic, observation[:1], jnp.ones((1, 2)))[0]
    atoms, found = np.linspace(-1, 1, 21), np.asarray(jax.nn.softmax(logits))
    assert found[np.isclose(atoms, 0.9)][0] == pytest.approx(0.25, abs=0.03)
    assert found[np.isclose(atoms, -0.3)][0] == pytest.approx(0.75, abs=0.03)


# Noise on the target's action


def test_smoothing_is_normal_clipped_and_in_units_of_half_the_range():
    hyperparameters = make_hyperparameters(small_config(target_noise=0.2, target_noise_clip=0.3))
    middle = jnp.broadcast_to(jnp.array([1.0, 0.25]), (20_000, 2))
    noise = (np.asarray(smooth(KEY, middle, LOW, HIGH, hyperparameters)) - [1.0, 0.25]) / [2.0, 0.25]
    assert abs(noise).max() == pytest.approx(0.3, rel=1e-5)
    for column in noise.T:
        inside = column[abs(column) < 0.2999]
        assert scipy.stats.kstest(inside, scipy.stats.truncnorm(-1.5, 1.5, scale=0.2).cdf).pvalue > 1e-3
        assert (abs(column) >= 0.2999).mean() == pytest.approx(2 * scipy.stats.norm.sf(1.5), abs=0.01)
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.03


def test_smoothed_actions_stay_within_the_bounds():
    hyperparameters = make_hyperparameters(small_config(target_noise=5.0, target_noise_clip=10.0))
    edge = jnp.broadcast_to(jnp.array([3.0, 0.0]), (1000, 2))
    smoothed = np.asarray(smooth(KEY, edge, LOW, HIGH, hyperparameters))
    assert (smoothed >= np.array(LOW)).all()
    assert (smoothed <= np.array(HIGH)).all()
    assert set(smoothed[:, 0]) >= {-1.0, 3.0}


# Delay of the policy


def updated(config, num_updates):
    algorithm = make_algorithm(config, LOW, HIGH)
    draw = np.random.default_rng(0)
    batch = Transition(*(jnp.asarray(draw.normal(size=shape), jnp.float32) for shape in [(8, 3), (8, 2), 8, 8, (8, 3)]))
    states, infos = [agent.init(KEY, jnp.zeros(3), algorithm=algorithm)], []
    for _ in range(num_updates):
        state, info = agent.update(
            KEY, states[-1], batch, algorithm=algorithm, hyperparameters=make_hyperparameters(config)
        )
        states.append(state)
        infos.append(info)
    return states, infos


def equal(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def test_actor_and_targets_move_at_every_third_update_and_the_critic_at_each():
    states, infos = updated(small_config(policy_delay=3), 6)
    for i, (before, after) in enumerate(itertools.pairwise(states), start=1):
        assert not equal(before.critic, after.critic)
        for part in ("actor", "target_actor", "target_critic", "actor_optimizer_state"):
            assert equal(getattr(before, part), getattr(after, part)) == (i % 3 != 0), (i, part)
        assert (float(infos[i - 1].actor_loss) == 0.0) == (i % 3 != 0)
    assert [int(state.step) for state in states] == list(range(7))


def test_average_of_the_actors_loss_is_over_its_own_updates():
    delayed, plain = (updated(small_config(policy_delay=d, tau=1.0, critic_lr=1e-9), 2)[1] for d in (2, 1))
    assert float(delayed[1].actor_loss) == pytest.approx(2 * float(plain[0].actor_loss), rel=1e-3)


def test_delay_is_a_branch_also_in_a_group_of_agents():
    """Where the counter were each agent's own, both branches would be computed, and one of them thrown away."""
    from ddpg_jax.population import programs

    setup = make_setup(small_config(policy_delay=2, learning_starts=0), counter(length=3))
    placement = programs.Placement(tuple(jax.devices()[:1]), 2)
    compiled = programs.compile_programs(setup, placement, max_steps=4, num_starts=1)
    assert " conditional(" in compiled.train.as_text()
    own = jax.vmap(lambda state, batch: agent.update(
        KEY, state, batch, algorithm=setup.algorithm, hyperparameters=make_hyperparameters(small_config())
    ))  # fmt: skip
    state = jax.eval_shape(partial(agent.init, algorithm=setup.algorithm), KEY, jnp.zeros(1))
    batch = Transition(*(jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(4, 1), (4, 1), (4,), (4,), (4, 1)]))
    two = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), (state, batch))
    assert " conditional(" not in jax.jit(own).lower(*two).compile().as_text()


# Moments of observations


def test_moments_are_numpys_over_everything_that_was_seen():
    config = small_config(normalize_observations=True, num_critics=2)
    algorithm = make_algorithm(config, LOW, HIGH)
    state = agent.init(KEY, jnp.zeros(3), algorithm=algorithm)
    seen = np.random.default_rng(0).normal([1.0, -20.0, 300.0], [1.0, 0.1, 50.0], (5000, 3)).astype(np.float32)
    state = jax.lax.fori_loop(0, len(seen), lambda i, s: moments.observe(s, jnp.asarray(seen)[i]), state)
    found = state.actor["moments"]["standardize"]
    assert float(found["count"]) == 5000
    np.testing.assert_allclose(found["mean"], seen.mean(0, dtype=np.float64), rtol=1e-4)
    np.testing.assert_allclose(found["variance"], seen.var(0, dtype=np.float64), rtol=2e-3)
    for variables in (state.critic, state.target_actor, state.target_critic):
        (leaves,) = [jax.tree.leaves(variables["moments"])]
        for leaf, expected in zip(leaves, jax.tree.leaves(found), strict=True):
            np.testing.assert_array_equal(leaf, expected)
    shifted = (seen[:5] - seen.mean(0)) / seen.std(0)
    plain = make_algorithm(small_config(num_critics=2), LOW, HIGH)
    ours = agent.act(state, seen[:5], algorithm=algorithm)
    bare = state._replace(actor={"params": state.actor["params"]})
    np.testing.assert_allclose(ours, agent.act(bare, shifted, algorithm=plain), rtol=1e-3, atol=1e-3)


def test_loop_observes_what_the_agent_acts_on():
    _, state, _ = explored(small_config(normalize_observations=True), counter(length=4), 8)
    found = state.agent.actor["moments"]["standardize"]
    assert float(found["count"]) == 8
    assert float(found["mean"][0]) == pytest.approx(np.mean([0, 1, 2, 3] * 2))
    assert float(found["variance"][0]) == pytest.approx(np.var([0, 1, 2, 3] * 2))


# Random steps, scaled rewards, limited gradients


def test_first_steps_are_uniformly_random_and_the_others_are_the_actors():
    environment = counter(length=1000, bound=2.0)
    rows, _, _ = explored(small_config(random_steps=400, noise_scale=0.0), environment, 500)
    first, rest = np.asarray(rows.action[:400, 0]), np.asarray(rows.action[400:, 0])
    assert scipy.stats.kstest(first, scipy.stats.uniform(-2.0, 4.0).cdf).pvalue > 1e-3
    plain, _, _ = explored(small_config(noise_scale=0.0), environment, 500)
    np.testing.assert_array_equal(rest, plain.action[400:, 0])


def test_scaled_rewards_are_scaled_in_the_minibatch_alone():
    ring = replay.init(8, 1, 1)
    ring = replay.add(ring, Transition(jnp.ones(1), jnp.ones(1), jnp.float32(4), jnp.float32(1), jnp.ones(1)))
    hyperparameters = make_hyperparameters(small_config(reward_scale=0.25))
    batch = replay.Rescaled(replay.read)(ring, jnp.zeros(3, int), 1, hyperparameters)
    np.testing.assert_array_equal(batch.reward, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(ring.rows[0], [1.0, 1.0, 4.0, 1.0, 1.0])


def test_gradients_are_scaled_down_to_the_largest_norm():
    """Adam does not see the scale of constant gradients, so its first moment is looked at."""
    norms = []
    for limit in (None, 1e-3):
        states, _ = updated(small_config(max_grad_norm=limit), 1)
        for part in ("actor_optimizer_state", "critic_optimizer_state"):
            first = [
                leaf
                for path, leaf in jax.tree_util.tree_leaves_with_path(getattr(states[1], part))
                if "mu" in str(path)
            ]
            norms.append(10 * float(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in first))))  # 1 - 0.9
    assert min(norms[:2]) > 1e-3
    assert norms[2:] == pytest.approx([1e-3, 1e-3], rel=1e-4)


# Environments side by side


def test_environments_side_by_side_add_a_row_each_and_end_their_own_episodes():
    """In each the observation is the step of its episode, which ends at a random step."""

    def reset(key):
        return jax.random.randint(key, (), 2, 6), jnp.zeros(1)

    def step(key, left, action):
        place = jnp.asarray(left - 1, jnp.float32)[None]
        return left - 1, Step(place, jnp.float32(2), left <= 1, jnp.bool_(False))

    environment = Environment("fuse", 1, (-1.0,), (1.0,), 100, reset, step)
    config = small_config(
        num_envs=3, replay_capacity=60, noise_sigma=0.05, learning_starts=60, total_steps=60, eval_every=60
    )
    setup = make_setup(config, environment)
    state = loop.init(KEY, make_hyperparameters(config), setup=setup)
    first = np.asarray(state.environment)
    state, log = loop.train(state, make_hyperparameters(config), jnp.int32(20), setup=setup, max_steps=20)
    rows = replay.unpack(np.asarray(state.replay.rows), 1)
    assert (int(state.replay.added), int(state.step)) == (60, 20)
    log = loop.unpack_log(np.asarray(log)[None])
    lengths, returns = log.episode_length[0].reshape(20, 3), log.episode_return[0].reshape(20, 3)
    assert len({tuple(lane) for lane in lengths.T}) == 3  # they are independent
    for lane in range(3):
        assert rows.next_observation[lane, 0] == first[lane] - 1
        ends = np.flatnonzero(lengths[:, lane])
        assert np.flatnonzero(rows.discount[lane::3] == 0).tolist() == ends.tolist()
        assert lengths[ends, lane].tolist() == np.diff([-1, *ends]).tolist()
        np.testing.assert_array_equal(returns[ends, lane], 2 * lengths[ends, lane])
        assert (rows.observation[lane::3][ends[:-1] + 1] == 0).all()
    actions = rows.action.reshape(20, 3)
    assert len(np.unique(actions)) == 60  # noise of their own


def test_schedules_go_by_rounds_of_all_environments():
    config = small_config(num_envs=2, noise_decay=0.5, noise="gaussian", noise_sigma=1.0, replay_capacity=4000)
    environment = counter(length=1000, bound=1e6)
    setup = make_setup(config, environment)
    state = loop.init(KEY, make_hyperparameters(config), setup=setup)
    train = partial(loop.train, setup=setup, max_steps=2000)
    state, _ = jax.jit(train)(state, make_hyperparameters(config)._replace(lr_decay=1.0), jnp.int32(2000))
    assert state.episode.number.tolist() == [2, 2]
    history = History(config, 1)
    lengths = np.zeros((1, 4000))
    lengths[0, [1998, 1999, 3998, 3999]] = 1000
    zeros = np.zeros((1, 2000))
    ended = history.add_chunk(StepLog(zeros, zeros, zeros, lengths, np.zeros((1, 4000))))
    assert (ended.env_steps.tolist(), ended.episode.tolist()) == ([1999, 2000, 3999, 4000], [0, 1, 2, 3])
    assert ended.noise_scale.tolist() == [1.0, 1.0, 0.5, 0.5]


def test_step_that_is_not_finite_is_counted_over_all_environments():
    history = History(small_config(num_envs=2, replay_capacity=50), 2)
    losses_, returns = np.zeros((2, 3)), np.zeros((2, 6))
    returns[1, 3] = np.nan
    history.add_chunk(StepLog(losses_, losses_, losses_, np.zeros((2, 6)), returns))
    assert history.diverged == {1: 4}
    losses_[0, 2] = np.inf
    history.add_chunk(StepLog(losses_, np.zeros((2, 3)), np.zeros((2, 3)), np.zeros((2, 6)), np.zeros((2, 6))))
    assert history.diverged == {1: 4, 0: 11}


# The command

SWITCHES = (
    "--num-critics", 2, "--policy-delay", 2, "--target-noise", 0.2, "--n-step", 3, "--normalize-observations",
    "--max-grad-norm", 1.0, "--random-steps", 15, "--reward-scale", 0.1, "--critic-atoms", 11, "--value-min", -100,
    "--value-max", 0, "--num-envs", 4, "--average-tau", 0.1, "--record-every", 1,
)  # fmt: skip
"""All of them at once."""


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family") / "run"
    outcome = main("--out", folder, "--seeds", 3, *SWITCHES)
    assert (outcome.status, outcome.err) == (0, "")
    return folder


def test_run_with_all_switches_that_was_stopped_and_resumed_ends_in_the_same_bits(finished, tmp_path):
    assert stopped_after(4, "--out", tmp_path / "run", "--seeds", 3, *SWITCHES).status == 143
    assert main("--resume", tmp_path / "run").status == 0
    assert results(tmp_path / "run") == results(finished)


def test_steps_are_those_of_all_environments_together(finished):
    with open(finished / "metrics.csv") as file:
        table = list(csv.DictReader(file))
    assert sorted({int(row["env_steps"]) for row in table}) == [60, 120, 180, 200]
    config = Config.from_dict(json.loads((finished / "config.json").read_text())["config"])
    assert {int(row["updates"]) for row in table if row["env_steps"] == "200"} == {config.num_updates(200)}
    assert config.num_updates(200) == 50 - config.loop_steps(config.first_update) + 1


def test_recorded_episodes_are_those_of_one_environment(finished):
    """Of Pendulum in episodes of 25 steps: velocity changes by at most 0.15 * |torque| + 0.75 rad/s in a step."""
    with open(finished / "episodes.csv") as file:
        table = [row for row in csv.DictReader(file) if row["agent"] == "1"]
    assert len(table) == 4 * (50 // int(table[0]["length"]))
    for row in table:
        episode = np.load(finished / f"rollouts/agent-000001/episode-{int(row['episode']):06d}.npz")
        assert len(episode["reward"]) == int(row["length"])
        assert episode["reward"].sum() == pytest.approx(float(row["return"]), rel=1e-5)
        assert np.abs(np.diff(episode["observation"][:, 2])).max() < 1.06


def test_agents_of_a_run_with_all_switches_do_not_depend_on_their_number(finished, tmp_path):
    assert main("--out", tmp_path / "run", "--seeds", 2, *SWITCHES).status == 0
    both = [(folder / "metrics.csv").read_text().splitlines() for folder in (finished, tmp_path / "run")]
    assert [line for line in both[0] if not line.startswith("2,")] == both[1]


def test_policy_standardises_its_observations_as_the_run_did(finished):
    """Far from all that was seen the standardised observations, and so the actions, are those at the clip."""
    policy = load_policy(finished)
    stats = policy.variables["moments"]["standardize"]
    assert np.all(np.asarray(stats["count"]) == 200)  # of 4 environments in 50 steps each
    seen = np.asarray(stats["mean"]) + 3 * np.sqrt(np.asarray(stats["variance"]))
    far, farther = (policy.each(scale * seen[:, None, :] + 1e3) for scale in (1e3, 1e4))
    np.testing.assert_array_equal(far, farther)
    (portable,) = (finished / "policy").glob("agents-*.safetensors")
    assert portable.stat().st_size > 0


@pytest.mark.slow
def test_value_pictures_are_drawn_of_a_categorical_ensemble(finished, tmp_path):
    assert render.main([str(finished), "--only", "q_estimates", "state_plane", "--out", str(tmp_path)]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"q_estimates.png", "state_plane.png"}


def test_a_sweep_over_switches_trains_a_program_for_each_structure(tmp_path):
    """Switches that are numbers share a program where they are on."""
    outcome = main("--out", tmp_path / "run", "--seeds", 1, "--sweep", "target_noise=0,0.1,0.3")
    assert (outcome.status, outcome.err) == (0, "")
    assert "3 points x 1 seeds, in 2 program(s)" in outcome.out
