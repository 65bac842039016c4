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

STEPS, CHUNK = 10_000, 1_000  # environment steps in total, and in one call of the compiled program
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


class Transition(NamedTuple):
    """One step of an environment; in the replay buffer, arrays [REPLAY_SIZE, ...] of steps."""

    observation: jax.Array  # s [O]
    action: jax.Array  # a [A]
    reward: jax.Array  # r
    terminated: jax.Array  # whether s' is terminal; False where only the time limit ended the episode
    next_observation: jax.Array  # s' [O]


def init(key, env):
    """Returns the state before the first step: actor, critic, replay, noise, environment and observation."""
    actor_key, critic_key, reset_key = jax.random.split(key, 3)
    observation, env_state = env.reset(reset_key)
    action = jnp.zeros(env.action_space().shape)

    # Line 1: initialise critic and actor with random weights theta. Line 2: initialise their targets, theta' = theta.
    def network(module, learning_rate, *inputs):
        theta = module.init(*inputs)
        return Network.create(apply_fn=module.apply, params=theta, target_params=theta, tx=optax.adam(learning_rate))

    actor = network(Actor(action.size), ACTOR_LR, actor_key, observation)
    critic = network(Critic(), CRITIC_LR, critic_key, observation, action)
    # Line 3: initialise the replay buffer R.
    row = Transition(observation, action, jnp.array(0.0), jnp.array(False), observation)
    replay = jax.tree.map(lambda x: jnp.zeros((REPLAY_SIZE, *x.shape), x.dtype), row)
    # Lines 5 and 6: initialise the random process N; receive the first observation.
    return actor, critic, replay, jnp.zeros_like(action), env_state, observation


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
    def with_soft_update(net):
        return net.replace(target_params=optax.incremental_update(net.params, net.target_params, TAU))

    return with_soft_update(actor), with_soft_update(critic)


@partial(jax.jit, static_argnames="env")
def train(key, state, steps, env):
    """Makes the environment steps with these numbers [n]; returns the state, the rewards [n] and where episodes end."""
    low, high = env.action_space().low, env.action_space().high

    def advance(state, step):
        actor, critic, replay, noise, env_state, observation = state
        noise_key, env_key, sample_key = jax.random.split(jax.random.fold_in(key, step), 3)
        # Line 8: select action a = mu(s) + N.
        noise = noise - NOISE_THETA * noise + NOISE_SIGMA * jax.random.normal(noise_key, noise.shape)
        action = jnp.clip(actor.apply_fn(actor.params, observation) + noise, -1, 1)
        # Line 9: execute a, in the environment's units; observe r and s'. Where the episode ends, gymnax begins the
        # next one (line 6), whose first observation it returns; s' is the final observation of this one.
        in_env = low + (action + 1) / 2 * (high - low)
        next_start, env_state, reward, terminated, truncated, info = env.step(env_key, env_state, in_env)
        # Line 10: store the transition in R. When R is full, it replaces the oldest one.
        row = Transition(observation, action, reward, terminated, info["final_observation"])
        replay = jax.tree.map(lambda rows, x: rows.at[step % REPLAY_SIZE].set(x), replay, row)
        # Line 11: sample a random minibatch from R.
        rows = jax.random.randint(sample_key, (BATCH_SIZE,), 0, jnp.minimum(step + 1, REPLAY_SIZE))
        batch = jax.tree.map(lambda x: x[rows], replay)
        # Lines 12 to 15: learn from it.
        actor, critic = update(actor, critic, batch)
        # Line 5: a new episode begins with a new random process N.
        ended = terminated | truncated
        noise = jnp.where(ended, 0, noise)
        return (actor, critic, replay, noise, env_state, next_start), (reward, ended)

    return jax.lax.scan(advance, state, steps)


def main(env_id="Pendulum-v1", seed=0, num_steps=STEPS):
    """Trains an agent; prints, plots and returns its learning curve {last step of an episode: its return}."""
    env, _ = gymnax.make(env_id)
    init_key, train_key = jax.random.split(jax.random.key(seed))
    state, total, curve = init(init_key, env), 0.0, {}
    # Lines 4 and 7: for each episode, for each of its steps.
    for first in range(0, num_steps, CHUNK):
        steps = jnp.arange(first, min(first + CHUNK, num_steps))
        state, (rewards, ends) = train(train_key, state, steps, env)
        for step, (reward, ended) in enumerate(zip(rewards.tolist(), ends.tolist(), strict=True), first + 1):
            total += reward
            if ended:
                print(f"step {step:6,}: the episode's return is {total:8.1f}", flush=True)
                curve[step], total = total, 0.0
    figure, axes = plt.subplots()
    axes.plot(curve.keys(), curve.values())
    axes.set(title=f"DDPG on {env_id}, seed {seed}", xlabel="environment steps", ylabel="return with exploration noise")
    figure.savefig("learning_curve.png")
    return curve


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Trains a DDPG agent and writes its learning curve.")
    parser.add_argument("--env-id", default="Pendulum-v1", help="an environment of gymnax with continuous actions")
    parser.add_argument("--seed", type=int, default=0)
    main(**vars(parser.parse_args()))
