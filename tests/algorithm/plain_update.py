"""The parts of an update as plain formulas in float64, for the parity tests, which differentiate them with `jax.grad`.

Nothing here calls the package. Tensors are in flat dicts under the package's names, such as "hidden/Dense_0/kernel".
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from ddpg_jax.algorithm.types import AgentState

Tensors = dict[str, np.ndarray]

LOW, HIGH = -2.0, 2.0  # Pendulum's torque, N·m


class Net(NamedTuple):
    """All of an agent's state that belongs to the actor, or all that belongs to the critic."""

    params: Tensors
    target: Tensors
    mu: Tensors
    nu: Tensors
    stats: Tensors
    target_stats: Tensors


def actor_and_critic(state: AgentState) -> tuple[Net, Net]:
    """Converts the package's state to NumPy."""

    def net(online, target, optimizer_state) -> Net:
        moments = (optax.tree.get(optimizer_state, name) for name in ("mu", "nu"))
        stats = (variables.get("batch_stats", {}) for variables in (online, target))
        return Net(*(flat(tree) for tree in (online["params"], target["params"], *moments, *stats)))

    return (
        net(state.actor, state.target_actor, state.actor_optimizer_state),
        net(state.critic, state.target_critic, state.critic_optimizer_state),
    )


def flat(tree) -> Tensors:
    """Returns a tree of arrays as a flat dict."""
    return {name: np.asarray(value) for name, value in flatten_dict(tree, sep="/").items()}


def dense(p: Tensors, layer: str, x: np.ndarray) -> np.ndarray:
    """Returns the output of a linear layer."""
    return x @ p[f"{layer}/kernel"] + p[f"{layer}/bias"]


def relu(x: np.ndarray) -> np.ndarray:
    """Returns the positive part."""
    return x * (x > 0)


def layers_forward(p: Tensors, layers: Sequence[str], x: np.ndarray) -> np.ndarray:
    """Returns the output of the last layer, which is linear; the others have a ReLU."""
    for layer in layers[:-1]:
        x = relu(dense(p, layer, x))
    return dense(p, layers[-1], x)


def batch_norm(p: Tensors, layer: str, x: np.ndarray, stats: Tensors | None, seen: Tensors) -> np.ndarray:
    """Normalises as Ioffe & Szegedy 2015: with running statistics, or without them with those of the minibatch.

    The statistics that were used are added to `seen`.
    """
    stats = stats or {f"{layer}/mean": x.mean(0), f"{layer}/var": ((x - x.mean(0)) ** 2).mean(0)}
    mean, var = (stats[f"{layer}/{name}"] for name in ("mean", "var"))
    seen |= {f"{layer}/mean": mean, f"{layer}/var": var}
    return (x - mean) / (var + 1e-5) ** 0.5 * p[f"{layer}/scale"] + p[f"{layer}/bias"]


def plus_l2(gradient: Tensors, params: Tensors, factor: float) -> Tensors:
    """Adds the gradient of the factor times half the sum of the squares of the kernels; no other parameter decays."""
    return {name: value + factor * params[name] * name.endswith("kernel") for name, value in gradient.items()}


def adam(net: Net, gradient: Tensors, t: int, *, learning_rate: float, eps: float, eps_hat: bool = False) -> Net:
    """Takes step t = 1, 2, … of Kingma & Ba 2015, Algorithm 1; with eps-hat, of the variant at the end of section 2."""
    b1, b2 = 0.9, 0.999
    mu = {name: b1 * net.mu[name] + (1 - b1) * g for name, g in gradient.items()}
    nu = {name: b2 * net.nu[name] + (1 - b2) * g**2 for name, g in gradient.items()}

    def step(m: np.ndarray, v: np.ndarray) -> np.ndarray:
        if eps_hat:
            return learning_rate * (1 - b2**t) ** 0.5 / (1 - b1**t) * m / (v**0.5 + eps)
        return learning_rate * (m / (1 - b1**t)) / ((v / (1 - b2**t)) ** 0.5 + eps)

    params = {name: value - step(mu[name], nu[name]) for name, value in net.params.items()}
    return net._replace(params=params, mu=mu, nu=nu)


def move_target(net: Net, tau: float) -> Net:
    """Returns the targets, parameters and statistics alike, moved by tau towards the online network."""

    def moved(target: Tensors, online: Tensors) -> Tensors:
        return {name: tau * online[name] + (1 - tau) * value for name, value in target.items()}

    return net._replace(target=moved(net.target, net.params), target_stats=moved(net.target_stats, net.stats))


def perturbed(state: AgentState, size: float) -> AgentState:
    """Returns the state in float64 with noise on all parameters and statistics, so that no two networks are equal."""
    rng = np.random.default_rng(0)

    def noisy(path, value) -> np.ndarray:
        noise = size * rng.standard_normal(value.shape)
        is_variance = path[-1].key == "var"
        return np.asarray(value) * np.exp(10 * noise) if is_variance else np.asarray(value) + noise

    parts = {
        name: {kind: jax.tree_util.tree_map_with_path(noisy, tree) for kind, tree in getattr(state, name).items()}
        for name in ("actor", "critic", "target_actor", "target_critic")
    }
    return state._replace(**parts)
