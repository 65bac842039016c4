"""Candidates for the package, composed of its public parts: what `trials.py` compares with the preset `continuous`.

A candidate is one change, or several joined by "+", which are applied in their order: `simba+two_updates`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

import ddpg_jax
from ddpg_jax import Config, Setup
from ddpg_jax.algorithm import ensemble, losses, obs_normalization, replay
from ddpg_jax.algorithm import init as init_agent
from ddpg_jax.algorithm.networks import OBS_STATS, Critic, relu
from ddpg_jax.algorithm.noise import Noise
from ddpg_jax.algorithm.optimizers import adam


class Change(NamedTuple):
    """What a candidate changes: fields of the configuration, then parts of the setup that they describe."""

    text: str = "`continuous`"
    """What it is, for a table."""
    fields: dict[str, Any] = {}  # noqa: RUF012  (nobody changes it)
    parts: Callable[[Setup], dict[str, Any]] = lambda setup: {}


# Networks: SimBa's residual blocks (Lee et al. 2024, https://arxiv.org/abs/2410.09754).


class Blocks(nn.Module):
    """A linear layer, residual blocks with layer normalisation before them, and a layer normalisation: [..., width]."""

    width: int
    num_blocks: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        he = nn.initializers.he_normal()
        x = nn.Dense(self.width, kernel_init=nn.initializers.orthogonal())(x)
        for _ in range(self.num_blocks):
            y = nn.Dense(4 * self.width, kernel_init=he)(nn.LayerNorm()(x))
            x = x + nn.Dense(self.width, kernel_init=he)(relu(y))
        return nn.LayerNorm()(x)


class SimbaActor(nn.Module):
    """Maps observations [..., O] to actions [..., A]; its first actions are near the middle of their range."""

    low: tuple[float, ...]
    high: tuple[float, ...]
    width: int = 32
    num_blocks: int = 1

    @nn.compact
    def __call__(self, observation: jax.Array, train: bool = False) -> jax.Array:
        head = nn.Dense(len(self.low), kernel_init=nn.initializers.orthogonal(0.01))
        x = jnp.tanh(head(Blocks(self.width, self.num_blocks)(observation)))
        low, high = (jax.lax.broadcast_to_rank(jnp.asarray(bound, x.dtype), x.ndim) for bound in (self.low, self.high))
        return jnp.clip((low + high) / 2 + x * ((high - low) / 2), low, high)


class SimbaCritic(nn.Module):
    """Maps observations [..., O] and actions [..., A] to values [...], or to [..., M] with M > 1 outputs."""

    width: int = 64
    num_blocks: int = 1
    size: int = 1

    @nn.compact
    def __call__(self, observation: jax.Array, action: jax.Array, train: bool = False) -> jax.Array:
        x = Blocks(self.width, self.num_blocks)(jnp.concatenate([observation, action], axis=-1))
        x = nn.Dense(self.size, kernel_init=nn.initializers.orthogonal())(x)
        return x[..., 0] if self.size == 1 else x


def simba(critic: int = 64, actor: int = 32, num_blocks: int = 1) -> Change:
    """Returns SimBa's networks with these widths, with as many outputs as the critic had."""

    def parts(setup: Setup) -> dict[str, Any]:
        old = setup.algorithm.actor
        networks = (
            SimbaActor(old.low, old.high, actor),
            SimbaCritic(critic, num_blocks, setup.algorithm.critic.final.size),
        )
        return dict(zip(("actor", "critic"), networks, strict=True))

    return Change(f"residual blocks: critic {critic} units, actor {actor}", parts=parts)


# Observations: scaled by their mean and standard deviation, which is bounded from below.


class SafeScaling(nn.Module):
    """Computes (x - mean) / (sigma + 0.01), within ±10, by the statistics of `obs_normalization.update`."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        mean = self.variable(OBS_STATS, "mean", jnp.zeros, x.shape[-1:], x.dtype)
        variance = self.variable(OBS_STATS, "variance", jnp.ones, x.shape[-1:], x.dtype)
        self.variable(OBS_STATS, "count", jnp.zeros, (), x.dtype)
        center, spread = (
            jax.lax.broadcast_to_rank(each, x.ndim) for each in (mean.value, jnp.sqrt(variance.value) + 0.01)
        )
        return jnp.clip((x - center) / spread, -10.0, 10.0)


class Wrapper(nn.Module):
    """A network inside another one, which keeps an actor's bounds."""

    network: nn.Module

    @property
    def low(self) -> tuple[float, ...]:
        """An actor's lower bounds."""
        return self.network.low

    @property
    def high(self) -> tuple[float, ...]:
        """An actor's upper bounds."""
        return self.network.high


class Scaled(Wrapper):
    """An actor or a critic whose observations are scaled."""

    @nn.compact
    def __call__(self, observation: jax.Array, *rest: Any, **named: Any) -> jax.Array:
        return self.network(SafeScaling(name="standardize")(observation), *rest, **named)


class Noisy(Wrapper):
    """An actor whose actions in its loss have white noise, in halves of their range, as in SimBa's DDPG."""

    deviation: float = 0.2

    @nn.compact
    def __call__(self, observation: jax.Array, train: bool = False) -> jax.Array:
        action = self.network(observation, train=train)
        if not train:
            return action
        low, high = (
            jnp.broadcast_to(jnp.asarray(bound, action.dtype), action.shape) for bound in (self.low, self.high)
        )
        noise = self.deviation * jax.random.normal(self.make_rng("dropout"), action.shape, action.dtype)
        return jnp.clip(action + noise * (high - low) / 2, low, high)


def scaled_observations(setup: Setup) -> dict[str, Any]:
    """Scales the observations of both networks; the statistics begin with the first, random step."""
    algorithm = setup.algorithm
    return {
        "actor": Scaled(algorithm.actor),
        "critic": Scaled(algorithm.critic),
        "observe": obs_normalization.update,
    }


# Critics and losses.


@cache
def mean_form(form: losses.CriticForm) -> losses.CriticForm:
    """Returns the form of an ensemble whose target and actor use the mean of its critics (BRO, Nauman et al. 2024)."""
    of_smallest = ensemble.of_ensemble(form)
    return of_smallest._replace(
        td_target=lambda reward, discount, output, *, gamma: form.td_target(
            reward, discount, jnp.mean(output, axis=-1), gamma=gamma
        ),
        actor_loss=lambda output: form.actor_loss(jnp.mean(output, axis=-1)),
        action_value=lambda output: form.action_value(jnp.mean(output, axis=-1)),
    )


def mean_of_critics(setup: Setup) -> dict[str, Any]:
    """Trains two critics of the setup's form, and uses their mean."""
    return {
        "critic": ensemble.Ensemble(cast(Critic, setup.algorithm.critic), 2),
        **mean_form(losses.CriticForm())._asdict(),
    }


@cache
def quantile_form(num: int) -> losses.CriticForm:
    """Returns the form of a critic whose output [..., M] has M quantiles of the return (Dabney et al. 2018).

    The loss is the quantile regression of Huber's loss (https://arxiv.org/abs/1710.10044, section 2), and the value of
    an action is the mean. It needs no bounds of values.
    """
    levels = (np.arange(num) + 0.5) / num

    def td_target(reward: jax.Array, discount: jax.Array, output: jax.Array, *, gamma: Any) -> jax.Array:
        return reward[:, None] + gamma * discount[:, None] * output

    def critic_loss(output: jax.Array, target: jax.Array) -> jax.Array:
        error = jax.lax.stop_gradient(target)[:, None, :] - output[:, :, None]  # [B, quantile, sample of the target]
        weight = jnp.abs(jnp.asarray(levels, output.dtype)[None, :, None] - (error < 0))
        return jnp.mean(jnp.sum(jnp.mean(weight * optax.losses.huber_loss(error, delta=1.0), axis=-1), axis=-1))

    def action_value(output: jax.Array) -> jax.Array:
        return jnp.mean(output, axis=-1)

    return losses.CriticForm(td_target, critic_loss, lambda output: -jnp.mean(output), action_value)


def quantiles(setup: Setup, num: int = 25) -> dict[str, Any]:
    """Gives the setup's critic so many outputs, which are quantiles of the return."""
    critic = cast(Critic, setup.algorithm.critic)
    return {"critic": critic.clone(final=critic.final.clone(size=num)), **quantile_form(num)._asdict()}


def pal_loss(value: jax.Array, target: jax.Array, power: float = 0.4) -> jax.Array:
    """Computes PAL (Fujimoto et al. 2020, https://arxiv.org/abs/2007.06049, section 4).

    With uniformly drawn minibatches, its gradient is in expectation that of LAP: Huber's loss of minibatches drawn by
    priorities max(|TD error|, 1)^0.4.
    """
    error = jnp.abs(value - jax.lax.stop_gradient(target))
    beyond = jnp.maximum(error, 1.0)  # so that the power has a gradient at 0
    loss = jnp.where(error < 1, 0.5 * error**2, beyond ** (1 + power) / (1 + power))
    return jnp.mean(loss) / jax.lax.stop_gradient(jnp.mean(beyond**power))


def huber_loss(value: jax.Array, target: jax.Array) -> jax.Array:
    """Computes Huber's loss, linear beyond a TD error of 1."""
    return jnp.mean(optax.losses.huber_loss(value, jax.lax.stop_gradient(target), delta=1.0))


# Optimizers.


def _with_kernels(optimizer: Any, change: Any) -> optax.GradientTransformation:
    """Returns an optimizer whose steps of kernels are changed: (step, kernel) -> step."""

    def update(gradients: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        steps, state = optimizer.update(gradients, state, params)

        def changed(path: Any, step: jax.Array, x: jax.Array) -> jax.Array:
            return change(step, x) if path[-1].key == "kernel" else step

        return jax.tree_util.tree_map_with_path(changed, steps, params), state

    return optax.GradientTransformation(optimizer.init, update)


def adamw(learning_rate: Any, eps: Any, l2: Any) -> optax.GradientTransformation:
    """Returns AdamW (Loshchilov & Hutter 2019): kernels shrink by learning rate times `l2` in each step."""
    return _with_kernels(adam(learning_rate, eps, 0.0), lambda step, x: step - learning_rate * l2 * x)


def adam_unit_norm(learning_rate: Any, eps: Any, l2: Any) -> optax.GradientTransformation:
    """Returns Adam after whose steps each column of a hidden kernel has the norm that it had at first."""

    def kept(step: jax.Array, x: jax.Array) -> jax.Array:
        if x.shape[-1] < 16:  # the head stays free
            return step
        before, after = (jnp.linalg.norm(each, axis=-2, keepdims=True) for each in (x, x + step))
        return (x + step) * (before / after) - x

    return _with_kernels(adam(learning_rate, eps, l2), kept)


# Networks anew, with the replay kept (Nikishin et al. 2022).


@dataclass(frozen=True)
class Reset:
    """Replaces networks, targets and moments once, before the step that follows a number of updates."""

    setup: Setup
    updates: int = 15_000

    def __call__(self, agent: Any, observation: jax.Array) -> Any:
        """Returns the agent, or at that number of updates a new one with the old statistics of observations."""
        agent = self.setup.exploration.observe(agent, observation)

        def anew(old: Any) -> Any:
            # There is no key here, so one is made of an observation, in which agents differ.
            bits = jax.lax.bitcast_convert_type(observation.astype(jnp.float32), jnp.uint32)
            key = jax.random.fold_in(jax.random.key(1), jnp.sum(bits.ravel(), dtype=jnp.uint32))
            new = init_agent(key, observation.reshape(-1, observation.shape[-1])[0], algorithm=self.setup.algorithm)
            kept = {
                name: getattr(old, name) | {"params": getattr(new, name)["params"]}
                for name in ("actor", "critic", "target_actor", "target_critic")
            }
            return new._replace(step=old.step, ema_actor=old.ema_actor, **kept)

        return jax.lax.cond(agent.step == self.updates, anew, lambda old: old, agent)


# Noise. Both have the standard deviation of the preset's process.

SPREAD = 1 / np.sqrt(1 - 0.85**2)
"""The standard deviation of an AR(1) process with the coefficient of `continuous` for an innovation of 1."""

RATES = np.geomspace(1.0, 1 / 512, 6)[:, None]
"""The rates of pink noise's parts: AR(1) processes of equal deviation, whose sum has a spectrum close to 1 / f."""


def _pink_scale() -> float:
    """Returns the factor that gives the sum of the parts, which have the same shocks, the deviation `SPREAD`."""
    gains = np.sqrt(RATES * (2 - RATES))
    covariance = gains * gains.T / (1 - (1 - RATES) * (1 - RATES.T))
    return float(SPREAD / np.sqrt(covariance.sum()))


PINK_SCALE = _pink_scale()


def pink_init(process: Any, num_actions: int) -> jax.Array:
    """Returns the parts [6, A] at 0."""
    return jnp.zeros((len(RATES), num_actions), jnp.float32)


def pink_after(parts: jax.Array, shock: jax.Array, process: Any) -> jax.Array:
    """Returns the next parts."""
    rates = jnp.asarray(RATES, parts.dtype)
    return (1 - rates) * parts + jnp.sqrt(rates * (2 - rates)) * process.innovation * shock


def pink_value(parts: jax.Array) -> jax.Array:
    """Returns the noise [A] (Eberhard et al. 2023, https://openreview.net/forum?id=hQ9V5QN27eS)."""
    return PINK_SCALE * jnp.sum(parts, axis=0)


class Held(NamedTuple):
    """A value that is held for a number of steps."""

    value: jax.Array
    left: jax.Array


LONGEST = 16
HOLDING = np.cumsum(1 / np.arange(1, LONGEST + 1) ** 2) / np.sum(1 / np.arange(1, LONGEST + 1) ** 2)
"""The probabilities that a value is held for at most 1, 2, … steps: zeta(2), cut at 16."""


def held_init(process: Any, num_actions: int) -> Held:
    """Returns a value of 0, to be replaced in the first step."""
    return Held(jnp.zeros(num_actions, jnp.float32), jnp.int32(0))


def held_after(held: Held, shock: jax.Array, process: Any) -> Held:
    """Returns the same value, or after its last step a normal one, and the steps for which it is still held."""
    uniform = jnp.mod(1000 * jnp.abs(shock[0]), 1.0)  # the last digits of a number whose first ones are the value
    length = 1 + jnp.sum(uniform > jnp.asarray(HOLDING, jnp.float32))
    ended = held.left <= 0
    left = jnp.where(ended, length.astype(jnp.int32), held.left) - 1
    return Held(jnp.where(ended, SPREAD * process.innovation * shock, held.value), left)


def held_value(held: Held) -> jax.Array:
    """Returns the noise [A]."""
    return held.value


# Replay.


def recent(key: jax.Array, batch_size: int, size: jax.Array) -> jax.Array:
    """Draws rows with a probability that grows linearly from the oldest to the newest, as long as none is replaced."""
    return jnp.minimum((jnp.sqrt(jax.random.uniform(key, (batch_size,))) * size).astype(jnp.int32), size - 1)


# Rewards.


@dataclass(frozen=True)
class ScaledRewards:
    """Reads transitions by another reader, and divides their rewards by the mean size of those in the replay."""

    reader: Any
    smallest: float = 0.1

    def __call__(self, ring: Any, indices: jax.Array, action_size: int, hyperparameters: Any) -> Any:
        """Returns the transitions [B, ...]."""
        batch = self.reader(ring, indices, action_size, hyperparameters)
        size = replay.size_after(ring, 0)
        some = jnp.arange(256) * size // 256  # every agent of a group reads the same rows
        mean = jnp.mean(jnp.abs(replay.read(ring, some, action_size).reward))
        return batch._replace(reward=batch.reward / jnp.maximum(mean, self.smallest))


CHANGES: dict[str, Change] = {
    "baseline": Change(),
    "simba": simba(),
    "simba_wide": simba(128, 64),
    "adamw": Change("AdamW, decay 0.01", {"actor_l2": 0.01, "critic_l2": 0.01}, lambda setup: {"optimizer": adamw}),
    "scaled_observations": Change("observations divided by σ + 0.01", parts=scaled_observations),
    "two_updates": Change("two updates per step", {"updates_per_train": 2}),
    "four_updates": Change("four updates per step", {"updates_per_train": 4}),
    "mean_of_critics": Change("the mean of two critics", parts=mean_of_critics),
    "reset": Change("networks anew after 15,000 updates", parts=lambda setup: {"observe": Reset(setup)}),
    "wide": Change("256 units, minibatches of 256", {"hidden_sizes": (256, 256), "batch_size": 256}),
    "wide_critic": Change("256 units in the critic", {"critic_hidden_sizes": (256, 256)}),
    "pal": Change("the loss of prioritised replay (PAL)", parts=lambda setup: {"critic_loss": pal_loss}),
    "huber": Change("Huber's loss", parts=lambda setup: {"critic_loss": huber_loss}),
    "unit_norm": Change("kernels of constant norm", parts=lambda setup: {"optimizer": adam_unit_norm}),
    "scaled_rewards": Change("scaled rewards", parts=lambda setup: {"reader": ScaledRewards(setup.reader)}),
    "recent": Change("recent transitions more often", parts=lambda setup: {"sampler": recent}),
    "tau_01": Change("τ 0.01", {"tau": 0.01}),
    "categorical": Change("51 atoms", {"critic_atoms": 51, "value_min": 0.0, "value_max": 100.0}),
    "quantiles": Change("25 quantiles", parts=quantiles),
    "one_step": Change("one-step returns", {"n_step": 1}),
    "average": Change("averaged weights", {"ema_tau": 0.001}),
    "fading_noise": Change("noise that fades", {"noise_decay": 0.97}),
    "half_noise": Change("half the noise", {"noise_sigma": 0.05}),
    "gaussian_noise": Change("white noise", {"noise": "gaussian", "noise_sigma": 0.1}),
    "pink_noise": Change("pink noise", parts=lambda setup: {"noise": Noise(pink_init, pink_after, pink_value)}),
    "held_noise": Change("held noise", parts=lambda setup: {"noise": Noise(held_init, held_after, held_value)}),
    "noisy_losses": Change(
        "noise in the target and the actor's loss",
        {"target_noise": 0.2},
        lambda setup: {"actor": Noisy(setup.algorithm.actor)},
    ),
    "smooth_target": Change("a smoothed target", {"target_noise": 0.2}),
    "actor_norm": Change("layer normalisation in the actor", {"actor_normalization": "layer"}),
    "gamma_995": Change("γ 0.995", {"gamma": 0.995}),
}
"""All changes, by name."""


def describe(name: str) -> str:
    """Returns what a candidate is."""
    return ", ".join(CHANGES[part].text for part in name.split("+"))


def compose(name: str, config: Config) -> tuple[Config, Setup]:
    """Returns the configuration and the setup of a candidate; a KeyError names a change that does not exist."""
    changes = [CHANGES[part] for part in name.split("+")]
    for change in changes:
        config = config.replace(**change.fields)
    setup = ddpg_jax.make_setup(config)
    for change in changes:
        setup = ddpg_jax.with_parts(setup, **change.parts(setup))
    return config, setup
