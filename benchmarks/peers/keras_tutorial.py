"""The Keras tutorial "Deep Deterministic Policy Gradient (DDPG)" (amifunny, 2020) on Keras 3 with TensorFlow.

This is our own implementation of its networks, hyperparameters, noise and loop, with one update per step from the first
step on. It differs in three ways, so that it runs with current releases: shapes are tuples, Gymnasium replaces Gym, and
`update_target` receives TensorFlow's variables instead of Keras's.
"""

import os

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import gymnasium
import keras
import numpy as np
import tensorflow as tf
from harness import Meter, options, versions
from keras import layers

UPPER_BOUND = 2.0
GAMMA, TAU = 0.99, 0.005
CAPACITY, BATCH_SIZE = 50_000, 64


class Noise:
    """The tutorial's Ornstein-Uhlenbeck noise, which is never reset."""

    def __init__(self, sigma: float = 0.2, theta: float = 0.15, dt: float = 1e-2) -> None:
        self.sigma, self.theta, self.dt = sigma, theta, dt
        self.x = np.zeros(1)

    def __call__(self) -> np.ndarray:
        pull = -self.theta * self.x * self.dt
        self.x = self.x + pull + self.sigma * np.sqrt(self.dt) * np.random.normal(size=1)
        return self.x


class Buffer:
    """A replay in four arrays, sampled with replacement."""

    def __init__(self) -> None:
        self.count = 0
        self.arrays = tuple(np.zeros((CAPACITY, size)) for size in (3, 1, 1, 3))

    def record(self, *transition: np.ndarray | float) -> None:
        index = self.count % CAPACITY
        for array, value in zip(self.arrays, transition, strict=True):
            array[index] = value
        self.count += 1

    def sample(self) -> list[tf.Tensor]:
        rows = np.random.choice(min(self.count, CAPACITY), BATCH_SIZE)
        return [tf.cast(tf.convert_to_tensor(array[rows]), tf.float32) for array in self.arrays]


def get_actor() -> keras.Model:
    final = keras.initializers.RandomUniform(minval=-0.003, maxval=0.003)
    inputs = layers.Input(shape=(3,))
    x = layers.Dense(256, activation="relu")(inputs)
    x = layers.Dense(256, activation="relu")(x)
    outputs = layers.Dense(1, activation="tanh", kernel_initializer=final)(x) * UPPER_BOUND
    return keras.Model(inputs, outputs)


def get_critic() -> keras.Model:
    state = layers.Input(shape=(3,))
    x = layers.Dense(16, activation="relu")(state)
    x = layers.Dense(32, activation="relu")(x)
    action = layers.Input(shape=(1,))
    y = layers.Dense(32, activation="relu")(action)
    x = layers.Concatenate()([x, y])
    x = layers.Dense(256, activation="relu")(x)
    x = layers.Dense(256, activation="relu")(x)
    return keras.Model([state, action], layers.Dense(1)(x))


class Agent:
    """The tutorial's four networks, with its compiled update."""

    def __init__(self) -> None:
        self.actor, self.critic = get_actor(), get_critic()
        self.target_actor, self.target_critic = get_actor(), get_critic()
        self.target_actor.set_weights(self.actor.get_weights())
        self.target_critic.set_weights(self.critic.get_weights())
        self.actor_optimizer = keras.optimizers.Adam(1e-3)
        self.critic_optimizer = keras.optimizers.Adam(2e-3)
        # Their variables must exist before the first call of a compiled function.
        self.actor_optimizer.build(self.actor.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    @tf.function
    def update(self, state: tf.Tensor, action: tf.Tensor, reward: tf.Tensor, next_state: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            next_action = self.target_actor(next_state, training=True)
            y = reward + GAMMA * self.target_critic([next_state, next_action], training=True)
            value = self.critic([state, action], training=True)
            loss = tf.math.reduce_mean(tf.math.square(y - value))
        variables = self.critic.trainable_variables
        self.critic_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        with tf.GradientTape() as tape:
            chosen = self.actor(state, training=True)
            loss = -tf.math.reduce_mean(self.critic([state, chosen], training=True))
        variables = self.actor.trainable_variables
        self.actor_optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))


@tf.function
def update_target(target: list[tf.Variable], online: list[tf.Variable], tau: float) -> None:
    for old, new in zip(target, online, strict=True):
        old.assign(new * tau + old * (1 - tau))


def tf_variables(model: keras.Model) -> list[tf.Variable]:
    return [variable.value for variable in model.variables]


def main() -> None:
    meter = Meter(options())
    keras.utils.set_random_seed(meter.options.seed)
    environment = gymnasium.make("Pendulum-v1")
    agent, buffer, noise = Agent(), Buffer(), Noise()
    pairs = [
        (tf_variables(agent.target_actor), tf_variables(agent.actor)),
        (tf_variables(agent.target_critic), tf_variables(agent.critic)),
    ]
    state, _ = environment.reset(seed=meter.options.seed)
    done = enough = False
    while not enough:
        greedy = tf.squeeze(agent.actor(tf.expand_dims(tf.convert_to_tensor(state), 0))).numpy()
        action = np.clip(greedy + noise(), -UPPER_BOUND, UPPER_BOUND)
        next_state, reward, terminated, truncated, _ = environment.step(action)
        buffer.record(state, action, float(reward), next_state)
        agent.update(*buffer.sample())
        for target, online in pairs:
            update_target(target, online, TAU)
        done = terminated or truncated
        state = environment.reset()[0] if done else next_state
        enough = meter.advanced()
    meter.report(versions("tensorflow", "keras", "gymnasium"))


if __name__ == "__main__":
    main()
