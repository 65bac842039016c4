"""Runs the Keras tutorial's networks and update in Keras 3, and ours from the same parameters on the same batches.

It is a separate program, because Keras's backend and float type, and JAX's x64, apply to a whole process:
`KERAS_BACKEND=jax python parity_keras.py batches.npz` fails if they differ in float64.

Where the tutorial calls TensorFlow's functions between the layers, this calls `jax.numpy` or a layer: on its JAX
backend Keras 3.15's own `keras.ops.mean`, `tanh` and `*` compute in float32 also where floatx is float64.
"""

import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
from flax.traverse_util import unflatten_dict
from plain_update import Net, Tensors, actor_and_critic

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

# The tutorial's own values.
CRITIC_LR, ACTOR_LR = 0.002, 0.001
GAMMA, TAU = 0.99, 0.005
UPPER_BOUND = 2.0


def dense(name: str, units: int, activation: str | Callable | None = "relu", **options) -> keras.layers.Dense:
    """A layer with Keras's defaults; its name is our parameter's path, in which Keras allows no slash."""
    return keras.layers.Dense(units, activation=activation, name=name.replace("/", "-"), **options)


def get_actor() -> keras.Model:
    """The tutorial's policy: 256-256, tanh, times the upper bound."""
    small = keras.initializers.RandomUniform(minval=-0.003, maxval=0.003)
    observation = keras.Input((3,))
    x = dense("hidden/Dense_0", 256)(observation)
    x = dense("hidden/Dense_1", 256)(x)
    x = dense("final/Dense_0", 1, jnp.tanh, kernel_initializer=small)(x)
    return keras.Model(observation, keras.layers.Rescaling(UPPER_BOUND)(x))


def get_critic() -> keras.Model:
    """The tutorial's value: the state through 16-32, the action through 32, both through 256-256."""
    observation, action = keras.Input((3,)), keras.Input((1,))
    x = dense("observation_branch/Dense_0", 16)(observation)
    x = dense("observation_branch/Dense_1", 32)(x)
    x = keras.layers.Concatenate()([x, dense("action_branch/Dense_0", 32)(action)])
    x = dense("trunk/Dense_0", 256)(x)
    x = dense("trunk/Dense_1", 256)(x)
    return keras.Model([observation, action], dense("final/Dense_0", 1, None)(x))


class Learner:
    """A Keras model with its Adam. Their variables are kept outside, as Keras's stateless functions require."""

    def __init__(self, model: keras.Model, learning_rate: float):
        self.model, self.optimizer = model, keras.optimizers.Adam(learning_rate)
        self.optimizer.build(model.trainable_variables)
        self.weights = [v.value for v in model.trainable_variables]
        self.adam = [v.value for v in self.optimizer.variables]

    def __call__(self, weights: list, *inputs: jax.Array) -> jax.Array:
        """Returns the model's output [B, 1]."""
        output, _ = self.model.stateless_call(weights, [], inputs[0] if len(inputs) == 1 else list(inputs))
        return output

    def minimize(self, loss: Callable, weights: list, adam: list) -> tuple[jax.Array, list, list]:
        """Returns the loss, and the variables after one step of Adam."""
        value, gradients = jax.value_and_grad(loss)(weights)
        return value, *self.optimizer.stateless_apply(adam, gradients, weights)

    def named(self, values: list) -> Tensors:
        """Returns values that are in the order of the model's weights, by our names."""
        names = [variable.path.replace("-", "/") for variable in self.model.trainable_variables]
        return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}

    def net(self, weights: list, adam: list, target: list) -> Net:
        """Returns the weights, the targets and Adam's two moments."""
        paths = [variable.path for variable in self.optimizer.variables]
        mu, nu = (
            [value for value, path in zip(adam, paths, strict=True) if path.endswith(suffix)]
            for suffix in ("_momentum", "_velocity")
        )
        return Net(*map(self.named, (weights, target, mu, nu)), stats={}, target_stats={})


def run_keras(actor: Learner, critic: Learner, batches: Transition) -> tuple[tuple[Net, Net], np.ndarray]:
    """Makes all updates with Keras; returns every tensor at the end, and the losses [updates, 2]."""

    def update(variables: tuple, batch: Transition) -> tuple[tuple, jax.Array]:
        """Makes one call of the tutorial's `update` and `update_target`."""
        actor_weights, actor_adam, target_actor, critic_weights, critic_adam, target_critic = variables
        next_action = actor(target_actor, batch.next_observation)
        y = batch.reward[:, None] + GAMMA * critic(target_critic, batch.next_observation, next_action)

        def critic_loss(weights: list) -> jax.Array:
            return jnp.mean(jnp.square(y - critic(weights, batch.observation, batch.action)))

        critic_value, critic_weights, critic_adam = critic.minimize(critic_loss, critic_weights, critic_adam)

        def actor_loss(weights: list) -> jax.Array:
            action = actor(weights, batch.observation)
            return -jnp.mean(critic(critic_weights, batch.observation, action))

        actor_value, actor_weights, actor_adam = actor.minimize(actor_loss, actor_weights, actor_adam)
        target_actor, target_critic = (
            [b * TAU + a * (1 - TAU) for a, b in zip(old, new, strict=True)]
            for old, new in ((target_actor, actor_weights), (target_critic, critic_weights))
        )
        variables = (actor_weights, actor_adam, target_actor, critic_weights, critic_adam, target_critic)
        return variables, jnp.stack([critic_value, actor_value])

    start = (actor.weights, actor.adam, actor.weights, critic.weights, critic.adam, critic.weights)
    end, losses = jax.jit(lambda start: jax.lax.scan(update, start, batches))(start)
    return (actor.net(*end[:3]), critic.net(*end[3:])), np.asarray(losses)


def run_ours(initial: dict[str, Tensors], batches: Transition) -> tuple[tuple[Net, Net], np.ndarray]:
    """Makes the same updates with the preset `keras`, from Keras's initial weights."""
    config, key = PRESETS["keras"], jax.random.key(0)  # without dropout an update draws nothing
    parts = {"algorithm": make_algorithm(config, (-UPPER_BOUND,), (UPPER_BOUND,))}
    state = agent.init(key, batches.observation[0, 0], **parts)
    actor, critic = ({"params": unflatten_dict(initial[name], sep="/")} for name in ("actor", "critic"))
    new = state._replace(actor=actor, critic=critic, target_actor=actor, target_critic=critic)
    assert jax.tree.map(jnp.shape, new) == jax.tree.map(jnp.shape, state)
    parts["hyperparameters"] = make_hyperparameters(config)
    state, infos = jax.lax.scan(lambda state, batch: agent.update(key, state, batch, **parts), new, batches)
    return actor_and_critic(state), np.stack([infos.critic_loss, infos.actor_loss], axis=1)


def main(path: str) -> None:
    """Runs both, and compares every tensor by ||ours - theirs|| / ||theirs||."""
    jax.config.update("jax_enable_x64", True)
    keras.backend.set_floatx("float64")
    keras.utils.set_random_seed(11)
    batches = Transition(*(array.astype(np.float64) for array in np.load(path).values()))
    actor, critic = Learner(get_actor(), ACTOR_LR), Learner(get_critic(), CRITIC_LR)
    initial = {"actor": actor.named(actor.weights), "critic": critic.named(critic.weights)}
    (theirs, their_losses), (ours, our_losses) = run_keras(actor, critic, batches), run_ours(initial, batches)
    np.testing.assert_allclose(our_losses, their_losses, rtol=1e-10)
    compared = 0
    for who, our_net, their_net in zip(initial, ours, theirs, strict=True):
        assert jax.tree.structure(our_net) == jax.tree.structure(their_net)
        for part, tensors in their_net._asdict().items():
            for name, value in tensors.items():
                mine = getattr(our_net, part)[name]
                assert mine.dtype == value.dtype == np.float64
                distance = np.linalg.norm(mine - value) / np.linalg.norm(value)
                assert distance <= 1e-10, (who, part, name, distance)
                compared += 1
        for name, value in initial[who].items():
            moved = np.linalg.norm(their_net.params[name] - value) / np.linalg.norm(their_net.params[name])
            assert moved > 0.01, (who, name)  # all tensors have learned
    print(f"compared {compared} tensors after {len(our_losses)} updates")


if __name__ == "__main__":
    main(*sys.argv[1:])
