"""Compares the preset `paper` with Lillicrap et al. 2015, section 7, in NumPy: batch norm, L2, initialisation."""

import functools

import jax
import numpy as np
import pytest
import scipy.stats
from parity_data import pendulum_batches
from parity_numpy import (
    HIGH,
    Net,
    Normalized,
    Tensors,
    actor_and_critic,
    adam,
    batch_norm,
    batch_norm_back,
    dense,
    dense_back,
    flat,
    gradient_error,
    l2,
    largest_deviation,
    move_target,
    perturbed,
    plus_l2,
    relu,
    unstacked,
)

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

PAPER = PRESETS["paper"]
ALGORITHM = make_algorithm(PAPER, (-HIGH,), (HIGH,))

# The paper's own values, and Adam's epsilon of Kingma & Ba 2015, which it cites.
GAMMA, TAU = 0.99, 0.001
ACTOR_LR, CRITIC_LR = 1e-4, 1e-3
CRITIC_DECAY = 1e-2
ADAM_EPSILON = 1e-8
# The paper gives no momentum for the running statistics; this is the usual one.
PAST = 0.99

Memory = dict[str, np.ndarray | Normalized]
"""The values of a forward pass that the backward pass needs."""


def policy(p: Tensors, s: np.ndarray, stats: Tensors | None) -> tuple[np.ndarray, Memory]:
    """Returns mu(s) [B, 1]; state and hidden layers are normalised, with the minibatch if `stats` is None."""
    s, n0 = batch_norm(p, "BatchNorm_0", s, stats)
    x, n1 = batch_norm(p, "hidden/BatchNorm_0", dense(p, "hidden/Dense_0", s), stats)
    h1 = relu(x)
    x, n2 = batch_norm(p, "hidden/BatchNorm_1", dense(p, "hidden/Dense_1", h1), stats)
    h2 = relu(x)
    tanh = np.tanh(dense(p, "final/Dense_0", h2))
    return HIGH * tanh, {"n0": n0, "s": s, "n1": n1, "h1": h1, "n2": n2, "h2": h2, "tanh": tanh}


def policy_back(p: Tensors, m: Memory, d: np.ndarray) -> Tensors:
    """Returns the actor's gradient, from the gradient of its action [B, 1]."""
    d, final = dense_back(p, "final/Dense_0", m["h2"], d * HIGH * (1 - m["tanh"] ** 2))
    d, norm_2 = batch_norm_back(p, m["n2"], d * (m["h2"] > 0))
    d, hidden_2 = dense_back(p, "hidden/Dense_1", m["h1"], d)
    d, norm_1 = batch_norm_back(p, m["n1"], d * (m["h1"] > 0))
    d, hidden_1 = dense_back(p, "hidden/Dense_0", m["s"], d)
    _, norm_0 = batch_norm_back(p, m["n0"], d)
    return final | norm_2 | hidden_2 | norm_1 | hidden_1 | norm_0


def value(p: Tensors, s: np.ndarray, a: np.ndarray, stats: Tensors | None) -> tuple[np.ndarray, Memory]:
    """Returns Q(s, a) [B]. The action enters at the second layer, and only what comes before it is normalised."""
    s, n0 = batch_norm(p, "BatchNorm_0", s, stats)
    x, n1 = batch_norm(p, "observation_branch/BatchNorm_0", dense(p, "observation_branch/Dense_0", s), stats)
    h1 = relu(x)
    joined = np.concatenate([h1, a], axis=1)
    h2 = relu(dense(p, "trunk/Dense_0", joined))
    q = dense(p, "final/Dense_0", h2)[:, 0]
    return q, {"n0": n0, "s": s, "n1": n1, "h1": h1, "joined": joined, "h2": h2}


def value_back(p: Tensors, m: Memory, d: np.ndarray) -> tuple[np.ndarray, Tensors]:
    """Returns the gradients of the action [B, 1] and of the critic's tensors, from the gradient of Q [B]."""
    d, final = dense_back(p, "final/Dense_0", m["h2"], d[:, None])
    d, trunk = dense_back(p, "trunk/Dense_0", m["joined"], d * (m["h2"] > 0))
    d, d_action = d[:, :-1], d[:, -1:]
    d, norm_1 = batch_norm_back(p, m["n1"], d * (m["h1"] > 0))
    d, branch = dense_back(p, "observation_branch/Dense_0", m["s"], d)
    _, norm_0 = batch_norm_back(p, m["n0"], d)
    return d_action, final | trunk | norm_1 | branch | norm_0


def td_target(actor: Net, critic: Net, batch: Transition) -> np.ndarray:
    """Returns y [B]. The targets normalise with their own running statistics."""
    next_action, _ = policy(actor.target, batch.next_observation, actor.target_stats)
    next_value, _ = value(critic.target, batch.next_observation, next_action, critic.target_stats)
    return batch.reward + GAMMA * batch.discount * next_value


def critic_loss(p: Tensors, batch: Transition, y: np.ndarray) -> tuple[float, Tensors, Memory]:
    """Returns the mean squared error with the minibatch's statistics, and its gradient."""
    q, memory = value(p, batch.observation, batch.action, None)
    _, gradient = value_back(p, memory, 2 * (q - y) / len(q))
    return ((y - q) ** 2).mean(), gradient, memory


def actor_loss(p: Tensors, critic: Tensors, batch: Transition) -> tuple[float, Tensors, Memory]:
    """Returns the mean of -Q of the actor's actions with the minibatch's statistics, and its gradient for the actor."""
    action, memory = policy(p, batch.observation, None)
    q, critic_memory = value(critic, batch.observation, action, None)
    d_action, _ = value_back(critic, critic_memory, np.full_like(q, -1 / len(q)))
    return -q.mean(), policy_back(p, memory, d_action), memory


def moved_statistics(stats: Tensors, memory: Memory) -> Tensors:
    """Returns the running statistics after a minibatch, from its means and its biased variances."""
    moved = {}
    for seen in memory.values():
        if isinstance(seen, Normalized):
            for name, new in ((f"{seen.layer}/mean", seen.mean), (f"{seen.layer}/var", seen.var)):
                moved[name] = PAST * stats[name] + (1 - PAST) * new
    return moved


def paper_update(actor: Net, critic: Net, batch: Transition, t: int) -> tuple[tuple[Net, Net], tuple[float, float]]:
    """Makes update t = 1, 2, …: the critic, then the actor against the new critic, then the targets."""
    y = td_target(actor, critic, batch)
    loss, gradient, memory = critic_loss(critic.params, batch, y)
    gradient = plus_l2(gradient, critic.params, CRITIC_DECAY)
    critic = adam(critic, gradient, t, learning_rate=CRITIC_LR, eps=ADAM_EPSILON, eps_hat=False)
    critic = critic._replace(stats=moved_statistics(critic.stats, memory))

    negative_value, gradient, memory = actor_loss(actor.params, critic.params, batch)
    actor = adam(actor, gradient, t, learning_rate=ACTOR_LR, eps=ADAM_EPSILON, eps_hat=False)
    actor = actor._replace(stats=moved_statistics(actor.stats, memory))
    return (move_target(actor, TAU), move_target(critic, TAU)), (loss, negative_value)


@pytest.fixture(scope="module")
def batches() -> Transition:
    """20 minibatches of 64 real transitions."""
    return pendulum_batches(20, 64)


@pytest.fixture
def batch(batches) -> Transition:
    return next(iter(unstacked(batches)))


@pytest.fixture
def x64():
    with jax.enable_x64(True):
        yield


def new_agent() -> AgentState:
    return agent.init(jax.random.key(5), np.zeros(3), algorithm=ALGORITHM)


def paper_agent() -> AgentState:
    """Returns an agent whose parameters and statistics are all different, also between targets and online networks."""
    return perturbed(new_agent(), 0.03)


def update(state: AgentState, batch: Transition, **hyperparameters) -> tuple:
    hyperparameters = make_hyperparameters(PAPER)._replace(**hyperparameters)
    return agent.update(jax.random.key(0), state, batch, algorithm=ALGORITHM, hyperparameters=hyperparameters)


@pytest.mark.usefixtures("x64")
def test_gradients_by_hand_are_the_slopes_of_the_losses(batches):
    batch = Transition(*(field[0, :16].astype(np.float64) for field in batches))
    actor, critic = actor_and_critic(paper_agent())
    y = td_target(actor, critic, batch)

    def decayed_loss(p: Tensors) -> float:
        return critic_loss(p, batch, y)[0] + l2(p, CRITIC_DECAY)

    gradient = plus_l2(critic_loss(critic.params, batch, y)[1], critic.params, CRITIC_DECAY)
    assert gradient_error(decayed_loss, critic.params, gradient, entries=10) < 1e-5
    gradient = actor_loss(actor.params, critic.params, batch)[1]
    loss = gradient_error(lambda p: actor_loss(p, critic.params, batch)[0], actor.params, gradient, entries=10)
    assert loss < 1e-5


@pytest.mark.usefixtures("x64")
def test_acting_normalises_with_the_running_statistics(batch):
    state = paper_agent()
    actor, _ = actor_and_critic(state)
    expected, _ = policy(actor.params, batch.observation, actor.stats)
    actions = agent.act(state, batch.observation, algorithm=ALGORITHM)
    np.testing.assert_allclose(actions, expected, rtol=1e-10)
    # An observation's action does not depend on the others; with the minibatch's statistics it would.
    alone = agent.act(state, batch.observation[7], algorithm=ALGORITHM)
    np.testing.assert_allclose(alone, expected[7], rtol=1e-10)
    assert abs(policy(actor.params, batch.observation, None)[0] - expected).max() > 1e-3


@pytest.mark.usefixtures("x64")
def test_twenty_updates_end_where_the_paper_in_numpy_ends(batches):
    state = paper_agent()
    reference = actor_and_critic(state)
    for t, batch in enumerate(unstacked(batches), start=1):
        state, info = update(state, batch)
        reference, losses = paper_update(*reference, batch, t)
        np.testing.assert_allclose((info.critic_loss, info.actor_loss), losses, rtol=1e-9)
    deviations = largest_deviation(state, reference)
    # A bias before a batch norm has no effect, so its gradient is only rounding. Adam makes a step of it as soon as it
    # nears epsilon: 1e-15 / 1e-8. Everything else agrees to 1e-12.
    assert max(deviations.values()) <= 1e-7, deviations
    assert max(deviations[f"{net} {part}"] for net in ("actor", "critic") for part in ("mu", "nu")) <= 1e-11, deviations


RANGES = {
    "actor": {"hidden/Dense_0": 3**-0.5, "hidden/Dense_1": 400**-0.5, "final/Dense_0": 3e-3},
    "critic": {"observation_branch/Dense_0": 3**-0.5, "trunk/Dense_0": 401**-0.5, "final/Dense_0": 3e-3},
}


@functools.cache
def initial_weights() -> dict[str, Tensors]:
    """The parameters of 48 new agents, in float32 as in training; each has a single number as its final bias."""

    def weights(key):
        state = agent.init(key, np.zeros(3, np.float32), algorithm=ALGORITHM)
        return state.actor["params"], state.critic["params"]

    trees = jax.jit(jax.vmap(weights))(jax.random.split(jax.random.key(11), 48))
    return dict(zip(("actor", "critic"), map(flat, trees), strict=True))


@pytest.mark.parametrize(
    ("network", "layer", "bound"),
    [(network, layer, bound) for network, ranges in RANGES.items() for layer, bound in ranges.items()],
)
@pytest.mark.parametrize("kind", ["kernel", "bias"])
def test_initial_weights_fill_the_papers_range_evenly(network, layer, bound, kind):
    drawn = initial_weights()[network][f"{layer}/{kind}"].ravel()
    assert abs(drawn).max() <= bound * (1 + 1e-6)
    sample = np.random.default_rng(0).permutation(drawn)[:20_000]
    uniform = scipy.stats.kstest(sample, scipy.stats.uniform(-bound, 2 * bound).cdf)
    assert uniform.pvalue > 1e-3
    half = scipy.stats.kstest(sample, scipy.stats.uniform(0, bound).cdf)  # Flax's uniform(bound)
    assert half.pvalue < 1e-6


@pytest.mark.usefixtures("x64")
def test_new_agents_have_no_statistics_yet_and_targets_that_are_copies():
    for net in actor_and_critic(new_agent()):
        assert all((net.target[name] == value).all() for name, value in net.params.items())
        for stats in (net.stats, net.target_stats):
            assert all((value == name.endswith("var")).all() for name, value in stats.items())
        assert all((value == 1).all() for name, value in net.params.items() if name.endswith("scale"))
