"""Deep Deterministic Policy Gradient (DDPG) in one file, on JAX, Flax, Optax and gymnax.

    python examples/ddpg.py                # Pendulum, about 15 seconds
    python examples/ddpg.py --env-id MountainCarContinuous-v0 --seed 1

Read it next to Algorithm 1 of Lillicrap et al. 2015 (https://arxiv.org/abs/1509.02971): "Line n" in a comment is the
n-th line of the algorithm. In shapes, B is the minibatch, O the size of an observation and A the size of an action.
"""

import argparse
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import gymnax
import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import optax
from flax.training.train_state import TrainState

STEPS, EVAL_EVERY = 10_000, 500  # environment steps in total, and between two evaluations
GAMMA = 0.99  # discount factor
TAU = 0.01  # fraction of the way that a target network moves towards the online network per update
ACTOR_LR, CRITIC_LR = 1e-3, 2e-3  # like TAU and the networks, for small tasks; the paper has 1e-4, 1e-3 and 0.001
BATCH_SIZE, REPLAY_SIZE = 64, 50_000
NOISE_THETA, NOISE_SIGMA = 0.15, 0.2  # of the Ornstein-Uhlenbeck process; actions lie between -1 and 1


class Actor(nn.Module):
    """The policy mu(s): observations [..., O] to actions [..., A], each between -1 and 1."""

    action_size: int

    @nn.compact
    def __call__(self, observation):
        x = nn.relu(nn.Dense(64)(observation))
        x = nn.relu(nn.Dense(64)(x))
        # The last layer starts with small weights, because tanh has almost no gradient where it is saturated.
        return nn.tanh(nn.Dense(self.action_size, kernel_init=nn.initializers.normal(0.003))(x))


class Critic(nn.Module):
    """The action value Q(s, a): observations [..., O] and actions [..., A] to values [...]."""

    @nn.compact
    def __call__(self, observation, action):
        x = jnp.concatenate([observation, action], axis=-1)
        x = nn.relu(nn.Dense(64)(x))
        x = nn.relu(nn.Dense(64)(x))
        return nn.Dense(1)(x).squeeze(-1)


class Network(TrainState):
    """A network's parameters theta (`params`) with their optimizer, and the parameters theta' of its target network."""

    target_params: Any


def make_network(module, learning_rate, *inputs):
    """Returns a `Network` with random weights theta and theta' = theta."""
    theta = module.init(*inputs)
    return Network.create(apply_fn=module.apply, params=theta, target_params=theta, tx=optax.adam(learning_rate))


class Transition(NamedTuple):
    """One step of an environment; in the replay buffer, arrays [REPLAY_SIZE, ...] of steps."""

    observation: jax.Array  # s [O]
    action: jax.Array  # a [A]
    reward: jax.Array  # r
    terminated: jax.Array  # whether s' is terminal; False where only the time limit ended the episode
    next_observation: jax.Array  # s' [O]


class State(NamedTuple):
    """All that changes during training."""

    actor: Network
    critic: Network
    replay: Transition  # the buffer R
    step: jax.Array  # number of environment steps so far
    noise: jax.Array  # N [A]
    env_state: Any
    observation: jax.Array  # s [O]


@partial(jax.jit, static_argnames="env")
def init(key, env):
    """Returns the `State` before the first step."""
    actor_key, critic_key, reset_key = jax.random.split(key, 3)
    observation, env_state = env.reset(reset_key)
    action = jnp.zeros(env.action_space().shape)
    # Lines 1 and 2: initialise critic, actor and their targets.
    actor = make_network(Actor(action.size), ACTOR_LR, actor_key, observation)
    critic = make_network(Critic(), CRITIC_LR, critic_key, observation, action)
    # Line 3: initialise the replay buffer R.
    row = Transition(observation, action, jnp.array(0.0), jnp.array(False), observation)
    replay = jax.tree.map(lambda x: jnp.zeros((REPLAY_SIZE, *x.shape), x.dtype), row)
    # Lines 5 and 6: initialise the random process N; receive the first observation.
    return State(actor, critic, replay, jnp.array(0), jnp.zeros_like(action), env_state, observation)


@jax.jit
def update(actor, critic, batch):
    """Learns from a minibatch of transitions [B, ...]; returns the new actor and critic."""
    # Line 12: y = r + gamma Q'(s', mu'(s')), or y = r where s' is terminal. After a time limit s' still has a value.
    next_action = actor.apply_fn(actor.target_params, batch.next_observation)
    next_value = critic.apply_fn(critic.target_params, batch.next_observation, next_action)
    target = batch.reward + GAMMA * (1 - batch.terminated) * next_value

    # Line 13: update the critic by minimising the mean of (y - Q(s, a))^2.
    def critic_loss(theta):
        return jnp.mean((target - critic.apply_fn(theta, batch.observation, batch.action)) ** 2)

    critic = critic.apply_gradients(grads=jax.grad(critic_loss)(critic.params))

    # Line 14: update the actor by the policy gradient: increase the mean of Q(s, mu(s)), with the critic fixed.
    def actor_loss(theta):
        action = actor.apply_fn(theta, batch.observation)
        return -jnp.mean(critic.apply_fn(critic.params, batch.observation, action))

    actor = actor.apply_gradients(grads=jax.grad(actor_loss)(actor.params))

    # Line 15: update the targets: theta' <- tau theta + (1 - tau) theta'.
    actor, critic = (
        net.replace(target_params=optax.incremental_update(net.params, net.target_params, TAU))
        for net in (actor, critic)
    )
    return actor, critic


@partial(jax.jit, static_argnames="env")
def train(key, state, env):
    """Runs lines 8 to 15 EVAL_EVERY times; takes and returns a state like that of `init`."""

    def advance(state, key):
        actor, critic, replay, step, noise, env_state, observation = state
        noise_key, env_key, sample_key = jax.random.split(key, 3)
        # Line 8: select action a = mu(s) + N.
        noise = noise - NOISE_THETA * noise + NOISE_SIGMA * jax.random.normal(noise_key, noise.shape)
        action = jnp.clip(actor.apply_fn(actor.params, observation) + noise, -1, 1)
        # Line 9: execute a; observe r and s'. Where the episode ends, gymnax begins the next one (line 6), whose first
        # observation it returns; s' is the final observation of this one.
        next_start, env_state, reward, terminated, truncated, info = env.step(env_key, env_state, in_env(action, env))
        # Line 10: store the transition in R. When R is full, it replaces the oldest one.
        row = Transition(observation, action, reward, terminated, info["final_observation"])
        replay = jax.tree.map(lambda rows, x: rows.at[step % REPLAY_SIZE].set(x), replay, row)
        # Line 11: sample a random minibatch from R.
        rows = jax.random.randint(sample_key, (BATCH_SIZE,), 0, jnp.minimum(step + 1, REPLAY_SIZE))
        batch = jax.tree.map(lambda x: x[rows], replay)
        # Lines 12 to 15: learn from it.
        actor, critic = update(actor, critic, batch)
        # Line 5: a new episode begins with a new random process N.
        noise = jnp.where(terminated | truncated, 0, noise)
        return State(actor, critic, replay, step + 1, noise, env_state, next_start), None

    return jax.lax.scan(advance, state, jax.random.split(key, EVAL_EVERY))[0]


@partial(jax.jit, static_argnames="env")
def greedy_return(key, actor, env):
    """Returns the mean undiscounted return of 32 episodes without exploration noise."""

    def advance(carry, key):
        observation, env_state, alive = carry
        action = actor.apply_fn(actor.params, observation)
        observation, env_state, reward, terminated, truncated, _ = env.step(key, env_state, in_env(action, env))
        return (observation, env_state, alive & ~(terminated | truncated)), alive * reward

    def episode(key):
        reset_key, steps_key = jax.random.split(key)
        step_keys = jax.random.split(steps_key, env.default_params.max_steps_in_episode)
        return jax.lax.scan(advance, (*env.reset(reset_key), True), step_keys)[1].sum()

    return jax.vmap(episode)(jax.random.split(key, 32)).mean()


def in_env(action, env):
    """Returns an action in the environment's units, for one between -1 and 1."""
    space = env.action_space()
    return space.low + (action + 1) / 2 * (space.high - space.low)


def main(env_id="Pendulum-v1", seed=0, num_steps=STEPS):
    """Trains an agent; prints, plots and returns its learning curve {step: greedy return}."""
    env, _ = gymnax.make(env_id)
    init_key, train_key, evaluation_key = jax.random.split(jax.random.key(seed), 3)
    state = init(init_key, env)
    curve = {}
    # Lines 4 and 7: for each episode, for each of its steps.
    for step in range(EVAL_EVERY, num_steps + 1, EVAL_EVERY):
        state = train(jax.random.fold_in(train_key, step), state, env)
        curve[step] = float(greedy_return(evaluation_key, state.actor, env))
        print(f"step {step:6,}: greedy return {curve[step]:7.1f}", flush=True)
    figure, axes = plt.subplots()
    axes.plot(curve.keys(), curve.values())
    axes.set(title=f"DDPG on {env_id}, seed {seed}", xlabel="environment steps", ylabel="greedy return")
    figure.savefig("learning_curve.png")
    return curve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains a DDPG agent and writes its learning curve.")
    parser.add_argument("--env-id", default="Pendulum-v1", help="an environment of gymnax with continuous actions")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
