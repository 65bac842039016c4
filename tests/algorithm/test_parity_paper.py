"""Compares the preset `paper` with Lillicrap et al. 2015, section 7: batch normalisation, L2, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from parity import largest_deviations, pendulum_batches
from plain_update import HIGH, LOW, Net, Tensors, adam, batch_norm, dense, flat, move_target, plus_l2, relu

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm

PAPER = PRESETS["paper"]
ALGORITHM = make_algorithm(PAPER, (LOW,), (HIGH,))

# The paper's own values, and Adam's epsilon of Kingma & Ba 2015, which it cites. It gives no momentum.
GAMMA, TAU, ACTOR_LR, CRITIC_LR, CRITIC_DECAY = 0.99, 0.001, 1e-4, 1e-3, 1e-2
ADAM_EPSILON, PAST = 1e-8, 0.99


def policy(p: Tensors, s: np.ndarray, stats: Tensors | None = None) -> tuple[np.ndarray, Tensors]:
    """Returns mu(s) [B, 1] and the statistics; state and hidden layers are normalised."""
    seen: Tensors = {}
    x = batch_norm(p, "BatchNorm_0", s, stats, seen)
    for i in range(2):
        x = relu(batch_norm(p, f"hidden/BatchNorm_{i}", dense(p, f"hidden/Dense_{i}", x), stats, seen))
    return HIGH * jnp.tanh(dense(p, "final/Dense_0", x)), seen


def value(p: Tensors, s: np.ndarray, a: np.ndarray, stats: Tensors | None = None) -> tuple[np.ndarray, Tensors]:
    """Returns Q(s, a) [B]. The action enters at the second layer, and only what comes before it is normalised."""
    seen: Tensors = {}
    x = batch_norm(p, "BatchNorm_0", s, stats, seen)
    x = relu(batch_norm(p, "observation_branch/BatchNorm_0", dense(p, "observation_branch/Dense_0", x), stats, seen))
    x = relu(dense(p, "trunk/Dense_0", jnp.concatenate([x, a], axis=1)))
    return dense(p, "final/Dense_0", x)[:, 0], seen


def moved_statistics(net: Net, seen: Tensors) -> Net:
    return net._replace(stats={name: PAST * old + (1 - PAST) * seen[name] for name, old in net.stats.items()})


@jax.jit
def paper_update(actor: Net, critic: Net, batch: Transition, t: int):
    """Makes update t = 1, 2, …: the critic, then the actor against the new critic, then the targets."""
    # The targets normalise with their own running statistics, the losses with those of the minibatch.
    next_action, _ = policy(actor.target, batch.next_observation, actor.target_stats)
    next_value, _ = value(critic.target, batch.next_observation, next_action, critic.target_stats)
    y = batch.reward + GAMMA * batch.discount * next_value

    def critic_loss(p):
        q, seen = value(p, batch.observation, batch.action)
        return ((y - q) ** 2).mean(), seen

    def actor_loss(p, critic_params):
        action, seen = policy(p, batch.observation)
        return -value(critic_params, batch.observation, action)[0].mean(), seen

    (loss, seen), gradient = jax.value_and_grad(critic_loss, has_aux=True)(critic.params)
    gradient = plus_l2(gradient, critic.params, CRITIC_DECAY)
    critic = moved_statistics(adam(critic, gradient, t, learning_rate=CRITIC_LR, eps=ADAM_EPSILON), seen)
    (negative_value, seen), gradient = jax.value_and_grad(actor_loss, has_aux=True)(actor.params, critic.params)
    actor = moved_statistics(adam(actor, gradient, t, learning_rate=ACTOR_LR, eps=ADAM_EPSILON), seen)
    return (move_target(actor, TAU), move_target(critic, TAU)), (loss, negative_value)


def test_twenty_updates_end_where_the_papers_formulas_end():
    batches = pendulum_batches(20, 64)
    deviations, state, (actor, _) = largest_deviations(PAPER, batches, paper_update)
    # A bias before a batch norm has no effect, so its gradient is only rounding. Adam makes a step of it as soon as it
    # nears epsilon: 1e-15 / 1e-8. Everything else agrees to 1e-12.
    assert max(deviations.values()) <= 1e-7, deviations
    assert max(deviations[f"{net} {part}"] for net in ("actor", "critic") for part in ("mu", "nu")) <= 1e-11, deviations
    with jax.enable_x64(True):  # acting normalises with the running statistics
        observation = batches.observation[0].astype(np.float64)
        expected, _ = policy(actor.params, observation, actor.stats)
        np.testing.assert_allclose(agent.act(state, observation, algorithm=ALGORITHM), expected, rtol=1e-6)


def test_initial_weights_fill_the_papers_ranges_evenly():
    """In 48 new agents, because each has a single number as its final bias."""

    def weights(key):
        state = agent.init(key, np.zeros(3, np.float32), algorithm=ALGORITHM)
        return {"actor": state.actor["params"], "critic": state.critic["params"]}

    drawn = flat(jax.jit(jax.vmap(weights))(jax.random.split(jax.random.key(11), 48)))
    bounds = {
        "actor/hidden/Dense_0": 3**-0.5, "actor/hidden/Dense_1": 400**-0.5, "actor/final/Dense_0": 3e-3,
        "critic/observation_branch/Dense_0": 3**-0.5, "critic/trunk/Dense_0": 401**-0.5, "critic/final/Dense_0": 3e-3,
    }  # fmt: skip
    for layer, bound in bounds.items():
        for kind in ("kernel", "bias"):
            values = drawn[f"{layer}/{kind}"].ravel()
            assert abs(values).max() <= bound * (1 + 1e-6)
            sample = np.random.default_rng(0).permutation(values)[:20_000]
            assert scipy.stats.kstest(sample, scipy.stats.uniform(-bound, 2 * bound).cdf).pvalue > 1e-3, (layer, kind)
