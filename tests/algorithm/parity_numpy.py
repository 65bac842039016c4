"""Computes the parts of an update in NumPy float64, with gradients by hand, for the parity tests.

Nothing here calls the package. Tensors are in flat dicts under the package's names, such as "hidden/Dense_0/kernel".
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import jax
import numpy as np
import optax
from flax.traverse_util import flatten_dict

from ddpg_jax.algorithm.types import AgentState, Transition

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


def critic_of(params: Tensors, k: int) -> Tensors:
    """Returns the parameters of critic k of an ensemble, whose tensors have a leading axis of critics."""
    return {name.removeprefix("critic/"): tensor[k] for name, tensor in params.items()}


def unstacked(batches: Transition) -> Iterable[Transition]:
    """Yields the minibatches in float64."""
    return (Transition(*(field[i].astype(np.float64) for field in batches)) for i in range(len(batches.reward)))


def largest_deviation(ours: AgentState, reference: tuple[Net, Net]) -> dict[str, float]:
    """Returns, for each part of the state, the largest |difference| / max(1, |value|) among its tensors' entries."""
    deviations = {}
    for who, our_net, net in zip(("actor", "critic"), actor_and_critic(ours), reference, strict=True):
        for part, our_tensors, tensors in zip(Net._fields, our_net, net, strict=True):
            assert our_tensors.keys() == tensors.keys()
            assert all(tensor.dtype == np.float64 for tensor in our_tensors.values())
            deviations[f"{who} {part}"] = max(
                (float((abs(our_tensors[n] - tensors[n]) / np.maximum(1, abs(tensors[n]))).max()) for n in tensors),
                default=0.0,
            )
    return deviations


def dense(p: Tensors, layer: str, x: np.ndarray) -> np.ndarray:
    """Returns the output of a linear layer."""
    return x @ p[f"{layer}/kernel"] + p[f"{layer}/bias"]


def dense_back(p: Tensors, layer: str, x: np.ndarray, d: np.ndarray) -> tuple[np.ndarray, Tensors]:
    """Returns the gradients with respect to a layer's input and tensors, from `d`, the gradient of its output."""
    return d @ p[f"{layer}/kernel"].T, {f"{layer}/kernel": x.T @ d, f"{layer}/bias": d.sum(0)}


def relu(x: np.ndarray) -> np.ndarray:
    """Returns the positive part; its gradient passes where the output is positive."""
    return np.maximum(x, 0)


def layers_forward(p: Tensors, layers: Sequence[str], x: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Returns the output of the last layer, which is linear, and the input of each layer; the others have a ReLU."""
    inputs = [x]
    for layer in layers[:-1]:
        inputs.append(relu(dense(p, layer, inputs[-1])))
    return dense(p, layers[-1], inputs[-1]), inputs


def layers_back(
    p: Tensors, layers: Sequence[str], inputs: list[np.ndarray], d: np.ndarray
) -> tuple[np.ndarray, Tensors]:
    """Returns the gradients of the first layer's input and of all tensors, from that of the last layer's output."""
    d, gradient = dense_back(p, layers[-1], inputs[-1], d)
    for layer, x, output in zip(layers[-2::-1], inputs[-2::-1], inputs[:0:-1], strict=True):
        d, more = dense_back(p, layer, x, d * (output > 0))
        gradient |= more
    return d, gradient


class Normalized(NamedTuple):
    """The values of batch normalisation that its backward pass needs."""

    layer: str
    value: np.ndarray
    mean: np.ndarray
    var: np.ndarray


def batch_norm(p: Tensors, layer: str, x: np.ndarray, stats: Tensors | None) -> tuple[np.ndarray, Normalized]:
    """Normalises as Ioffe & Szegedy 2015: with running statistics, or without them with those of the minibatch."""
    if stats is None:
        mean, var = x.mean(0), ((x - x.mean(0)) ** 2).mean(0)
    else:
        mean, var = stats[f"{layer}/mean"], stats[f"{layer}/var"]
    value = (x - mean) / np.sqrt(var + 1e-5)
    return value * p[f"{layer}/scale"] + p[f"{layer}/bias"], Normalized(layer, value, mean, var)


def batch_norm_back(p: Tensors, normalized: Normalized, d: np.ndarray) -> tuple[np.ndarray, Tensors]:
    """Returns gradients as `dense_back` does, for the minibatch's statistics, which depend on the input."""
    layer, value, _, var = normalized
    gradients = {f"{layer}/scale": (d * value).sum(0), f"{layer}/bias": d.sum(0)}
    through_statistics = d.mean(0) + value * (d * value).mean(0)
    return p[f"{layer}/scale"] / np.sqrt(var + 1e-5) * (d - through_statistics), gradients


def l2(params: Tensors, factor: float) -> float:
    """Returns the factor times half the sum of the squares of the kernels; no other parameter decays."""
    return factor * sum((value**2).sum() for name, value in params.items() if name.endswith("kernel")) / 2


def plus_l2(gradient: Tensors, params: Tensors, factor: float) -> Tensors:
    """Returns the gradient of a loss to which `l2` is added."""
    return {name: value + factor * params[name] * name.endswith("kernel") for name, value in gradient.items()}


def adam(net: Net, gradient: Tensors, t: int, *, learning_rate: float, eps: float, eps_hat: bool) -> Net:
    """Takes step t = 1, 2, … of Kingma & Ba 2015, Algorithm 1; with eps-hat, of the variant at the end of section 2."""
    b1, b2 = 0.9, 0.999
    mu = {name: b1 * net.mu[name] + (1 - b1) * g for name, g in gradient.items()}
    nu = {name: b2 * net.nu[name] + (1 - b2) * g**2 for name, g in gradient.items()}

    def step(m: np.ndarray, v: np.ndarray) -> np.ndarray:
        if eps_hat:
            return learning_rate * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(v) + eps)
        return learning_rate * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)

    params = {name: value - step(mu[name], nu[name]) for name, value in net.params.items()}
    return net._replace(params=params, mu=mu, nu=nu)


def move_target(net: Net, tau: float) -> Net:
    """Returns the targets, parameters and statistics alike, moved by tau towards the online network."""

    def moved(target: Tensors, online: Tensors) -> Tensors:
        return {name: tau * online[name] + (1 - tau) * value for name, value in target.items()}

    return net._replace(target=moved(net.target, net.params), target_stats=moved(net.target_stats, net.stats))


def gradient_error(loss: Callable[[Tensors], float], params: Tensors, gradient: Tensors, entries: int) -> float:
    """Returns the largest difference from central finite differences, relative to each tensor's largest gradient.

    At most `entries` of each tensor are tried. A tensor whose gradient is 0 counts as if it were 1e-3.
    """
    rng, h, worst = np.random.default_rng(0), 1e-6, 0.0
    assert gradient.keys() == params.keys()
    for name, value in params.items():
        scale = max(abs(gradient[name]).max(), 1e-3)
        for i in rng.permutation(value.size)[:entries]:
            index = np.unravel_index(i, value.shape)
            above, below = value.copy(), value.copy()
            above[index] += h
            below[index] -= h
            slope = (loss(params | {name: above}) - loss(params | {name: below})) / (2 * h)
            worst = max(worst, abs(slope - gradient[name][index]) / scale)
    return worst


def perturbed(state: AgentState, size: float, seed: int = 0) -> AgentState:
    """Returns the state in float64 with noise on all parameters and statistics, so that no two networks are equal."""
    rng = np.random.default_rng(seed)

    def noisy(path, value) -> np.ndarray:
        noise = size * rng.standard_normal(value.shape)
        is_variance = path[-1].key == "var"
        return np.asarray(value) * np.exp(10 * noise) if is_variance else np.asarray(value) + noise

    for collection in ("params", "batch_stats"):
        for part in ("actor", "critic", "target_actor", "target_critic"):
            variables = getattr(state, part)
            if collection in variables:
                tree = jax.tree_util.tree_map_with_path(noisy, variables[collection])
                state = state._replace(**{part: variables | {collection: tree}})
    return state
