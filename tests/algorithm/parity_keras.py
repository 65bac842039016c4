"""Runs the Keras tutorial's networks and update in Keras 3, and ours from the same parameters on the same batches.

It is a separate program, because Keras's backend and float type, and JAX's x64, apply to a whole process:
`KERAS_BACKEND=jax python parity_keras.py float64 batches.npz` prints the differences as JSON.

Where the tutorial calls TensorFlow's functions between the layers, this calls `jax.numpy` or a layer: on its JAX
backend Keras 3.15's own `keras.ops.mean`, `tanh` and `*` compute in float32 also where floatx is float64.
"""

import json
import sys
from collections.abc import Callable

import jax
import jax.numpy as jnp
import keras
import numpy as np
import optax
from flax.traverse_util import flatten_dict, unflatten_dict

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.presets import PRESETS
from ddpg_jax.training.setup_factory import make_algorithm, make_hyperparameters

# The tutorial's own values.
CRITIC_LR, ACTOR_LR = 0.002, 0.001
GAMMA, TAU = 0.99, 0.005
UPPER_BOUND = 2.0

# Of Keras's initial weights. In float32 the seed matters: one rounding may carry a unit's input across ReLU's kink, and
# where the unit was silent before, Adam makes a full step of it, however small the gradient. Keras itself, with the
# rows of the minibatches in another order, ends more than 1e-4 away from where it ends for 16 of the first 24 seeds.
SEED = 11

Weights = dict[str, np.ndarray]
"""A network's tensors by the names of our parameters, such as "hidden/Dense_0/kernel"."""


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
        self.names = [variable.path.replace("-", "/") for variable in model.trainable_variables]

    def variables(self) -> tuple[list, list]:
        """Returns the weights and the optimizer's variables at the start."""
        return [v.value for v in self.model.trainable_variables], [v.value for v in self.optimizer.variables]

    def __call__(self, weights: list, *inputs: jax.Array) -> jax.Array:
        """Returns the model's output [B, 1]."""
        output, _ = self.model.stateless_call(weights, [], inputs[0] if len(inputs) == 1 else list(inputs))
        return output

    def minimize(self, loss: Callable, weights: list, optimizer: list) -> tuple[jax.Array, list, list]:
        """Returns the loss, and the variables after one step of Adam."""
        value, gradients = jax.value_and_grad(loss)(weights)
        return value, *self.optimizer.stateless_apply(optimizer, gradients, weights)

    def moments(self, optimizer: list) -> tuple[Weights, Weights]:
        """Returns Adam's first and second moments, with the names of the weights."""

        def those(suffix: str) -> Weights:
            paths = [variable.path for variable in self.optimizer.variables]
            return self.named([v for v, path in zip(optimizer, paths, strict=True) if path.endswith(suffix)])

        return those("_momentum"), those("_velocity")

    def named(self, values: list) -> Weights:
        """Returns values that are in the order of the model's weights, by our names."""
        return {name: np.asarray(value) for name, value in zip(self.names, values, strict=True)}


def tutorial_update(actor: Learner, critic: Learner) -> Callable:
    """Performs one call of the tutorial's `update` and `update_target` on the variables and a batch."""

    def update(variables: tuple, batch: Transition) -> tuple[tuple, tuple[jax.Array, jax.Array]]:
        actor_weights, actor_adam, critic_weights, critic_adam, target_actor, target_critic = variables
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
        variables = (actor_weights, actor_adam, critic_weights, critic_adam, target_actor, target_critic)
        return variables, (critic_value, actor_value)

    return jax.jit(update)


def run_keras(actor: Learner, critic: Learner, batches: Transition) -> tuple[dict[str, Weights], np.ndarray]:
    """Makes all updates with Keras; returns every tensor at the end, and the losses [updates, 2]."""
    update = tutorial_update(actor, critic)
    (actor_weights, actor_adam), (critic_weights, critic_adam) = actor.variables(), critic.variables()
    variables = (actor_weights, actor_adam, critic_weights, critic_adam, actor_weights, critic_weights)
    losses = []
    for i in range(len(batches.reward)):
        variables, values = update(variables, jax.tree.map(lambda x, i=i: x[i], batches))
        losses.append(values)
    actor_weights, actor_adam, critic_weights, critic_adam, target_actor, target_critic = variables
    tensors = {
        "actor": actor.named(actor_weights),
        "critic": critic.named(critic_weights),
        "target_actor": actor.named(target_actor),
        "target_critic": critic.named(target_critic),
    }
    for name, learner, adam in (("actor", actor, actor_adam), ("critic", critic, critic_adam)):
        tensors[f"{name}_mu"], tensors[f"{name}_nu"] = learner.moments(adam)
    return tensors, np.asarray(losses)


def run_ours(initial: dict[str, Weights], batches: Transition) -> tuple[dict[str, Weights], np.ndarray]:
    """Makes the same updates with the preset `keras`, from Keras's initial weights."""
    config = PRESETS["keras"]
    algorithm = make_algorithm(config, (-UPPER_BOUND,), (UPPER_BOUND,))
    state = agent.init(jax.random.key(0), batches.observation[0, 0], algorithm=algorithm)
    state = with_weights(state, initial["actor"], initial["critic"])
    losses = []
    key = jax.random.key(1)  # without dropout an update draws nothing
    for i in range(len(batches.reward)):
        batch = jax.tree.map(lambda x, i=i: x[i], batches)
        state, info = agent.update(key, state, batch, algorithm=algorithm, hyperparameters=make_hyperparameters(config))
        losses.append((info.critic_loss, info.actor_loss))
    tensors = {
        "actor": state.actor["params"],
        "critic": state.critic["params"],
        "target_actor": state.target_actor["params"],
        "target_critic": state.target_critic["params"],
    }
    for moment in ("mu", "nu"):
        tensors[f"actor_{moment}"] = optax.tree.get(state.actor_optimizer_state, moment)
        tensors[f"critic_{moment}"] = optax.tree.get(state.critic_optimizer_state, moment)
    return {name: flatten_dict(tree, sep="/") for name, tree in tensors.items()}, np.asarray(losses)


def with_weights(state: AgentState, actor: Weights, critic: Weights) -> AgentState:
    """Returns the state with Keras's weights in the networks and their targets; checks that each fits."""
    trees = [unflatten_dict({k: jnp.asarray(v) for k, v in weights.items()}, sep="/") for weights in (actor, critic)]
    for tree, old in zip(trees, (state.actor["params"], state.critic["params"]), strict=True):
        same = jax.tree.map(lambda a, b: a.shape == b.shape and a.dtype == b.dtype, tree, dict(old))
        assert jax.tree.all(same), same
    actor, critic = ({"params": tree} for tree in trees)
    return state._replace(actor=actor, critic=critic, target_actor=actor, target_critic=critic)


def distances(ours: dict[str, Weights], theirs: dict[str, Weights], parts: tuple[str, ...]) -> dict[str, float]:
    """Computes ||ours - theirs|| / ||theirs|| for each tensor of the named parts."""
    return {
        f"{part}/{name}": float(np.linalg.norm(ours[part][name] - value) / np.linalg.norm(value))
        for part in parts
        for name, value in theirs[part].items()
    }


def main(floatx: str, path: str) -> None:
    """Runs both and prints the report."""
    jax.config.update("jax_enable_x64", floatx == "float64")
    keras.backend.set_floatx(floatx)
    keras.utils.set_random_seed(SEED)
    batches = Transition(*(array.astype(floatx) for array in np.load(path).values()))
    actor, critic = Learner(get_actor(), ACTOR_LR), Learner(get_critic(), CRITIC_LR)
    initial = {"actor": actor.named(actor.variables()[0]), "critic": critic.named(critic.variables()[0])}
    theirs, their_losses = run_keras(actor, critic, batches)
    ours, our_losses = run_ours(initial, batches)
    report = {
        "weights": distances(ours, theirs, ("actor", "critic", "target_actor", "target_critic")),
        "moments": distances(ours, theirs, ("actor_mu", "actor_nu", "critic_mu", "critic_nu")),
        "losses": (abs(our_losses - their_losses) / abs(their_losses)).tolist(),
        "moved": distances(initial, theirs, ("actor", "critic")),
        "dtypes": sorted({str(x.dtype) for run in (theirs, ours) for part in run.values() for x in part.values()}),
    }
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
