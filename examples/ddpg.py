"""Trains one DDPG agent on Pendulum and prints a line per episode: `python examples/ddpg.py`.

The comments give the lines of Algorithm 1 in Lillicrap et al. 2015 (https://arxiv.org/abs/1509.02971), counting its
first line as 1. In shapes O is the size of an observation (3: cos θ, sin θ, dθ/dt in rad/s) and A that of an
action (1: a torque in N·m).
"""

from functools import partial

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm import Algorithm, Hyperparameters, Transition, act, init, noise, replay, update
from ddpg_jax.algorithm.networks import Actor, Critic, Final, Hidden
from ddpg_jax.environments.registry import make

STEPS_PER_EPISODE = 100
EPISODES_BEFORE_LEARNING = 5
BATCH_SIZE = 64

ENVIRONMENT = make("Pendulum-v1")
LOW, HIGH = ENVIRONMENT.low, ENVIRONMENT.high

ALGORITHM = Algorithm(
    actor=Actor(LOW, HIGH, hidden=Hidden((128, 64)), final=Final(size=1, bound=0.003)),
    critic=Critic(
        observation_branch=Hidden(()),
        action_branch=Hidden(()),
        trunk=Hidden((128, 64)),
        final=Final(size=1, bound=0.003),
    ),
)
HYPERPARAMETERS = Hyperparameters(
    actor_lr=1e-3,
    critic_lr=5e-3,
    lr_decay=0.96,  # per episode
    adam_eps=1e-8,
    actor_l2=0.0,
    critic_l2=0.0,
    gamma=0.995,
    tau=0.01,
    noise=noise.ornstein_uhlenbeck(theta=0.15, sigma=1.2),
)


@partial(jax.jit, static_argnames="learn")
def run_episode(key, agent, memory, hyperparameters, *, learn):
    """Runs lines 5 to 16: an episode, with an update per step if `learn`.

    Returns the agent and the replay afterwards, and the episode's return; the key is consumed.
    """

    def step(carry, key):
        agent, memory, state, observation, noise_value = carry
        noise_key, step_key, sample_key, update_key = jax.random.split(key, 4)
        # Line 8: select action a_t = mu(s_t) + N_t.
        noise_value = noise.step(noise_key, noise_value, hyperparameters.noise)
        greedy = act(agent, observation, algorithm=ALGORITHM)
        action = jnp.clip(greedy + noise_value, jnp.asarray(LOW), jnp.asarray(HIGH))
        # Line 9: execute a_t and observe reward r_t and new state s_{t+1}.
        state, result = ENVIRONMENT.step(step_key, state, action)
        # Line 10: store the transition. The discount is 0 where the next state is terminal; Pendulum has none.
        memory = replay.add(
            memory, Transition(observation, action, result.reward, 1.0 - result.terminated, result.observation)
        )
        if learn:
            # Line 11: sample a random minibatch of transitions.
            batch = replay.sample(sample_key, memory, BATCH_SIZE, ENVIRONMENT.action_size, replay.with_replacement)
            # Lines 12 to 15: update critic, actor and target networks (ddpg_jax/algorithm/agent.py).
            agent, _ = update(update_key, agent, batch, algorithm=ALGORITHM, hyperparameters=hyperparameters)
        return (agent, memory, state, result.observation, noise_value), result.reward

    reset_key, steps_key = jax.random.split(key)
    # Line 5: initialise a random process N.  Line 6: receive the initial state s_1.
    noise_value = noise.init(hyperparameters.noise, ENVIRONMENT.action_size)
    start = (agent, memory, *ENVIRONMENT.reset(reset_key), noise_value)
    # Line 7: for t = 1, …, T.
    (agent, memory, *_), rewards = jax.lax.scan(step, start, jax.random.split(steps_key, STEPS_PER_EPISODE))
    return agent, memory, rewards.sum()


@jax.jit
def evaluate(agent):
    """Returns the returns [64] of whole episodes without noise, from fixed start states."""

    def step(carry, _):
        states, observations = carry
        actions = act(agent, observations, algorithm=ALGORITHM)
        states, result = jax.vmap(ENVIRONMENT.step, in_axes=(None, 0, 0))(jax.random.key(0), states, actions)
        return (states, result.observation), result.reward

    _, rewards = jax.lax.scan(step, ENVIRONMENT.evaluation_starts(64), length=ENVIRONMENT.max_steps)
    return rewards.sum(axis=0)


def main(num_episodes=60, seed=0):
    """Trains an agent for some episodes; returns its mean greedy return."""
    key, init_key = jax.random.split(jax.random.key(seed))
    # Lines 1 and 2: initialise critic, actor and their targets.
    agent = init(init_key, jnp.zeros(ENVIRONMENT.observation_size), algorithm=ALGORITHM)
    # Line 3: initialise the replay buffer.
    memory = replay.init(num_episodes * STEPS_PER_EPISODE, ENVIRONMENT.observation_size, ENVIRONMENT.action_size)
    # Line 4: for episode = 1, …, M.
    for episode in range(num_episodes):
        key, episode_key = jax.random.split(key)
        decay = HYPERPARAMETERS.lr_decay**episode
        hyperparameters = HYPERPARAMETERS._replace(
            actor_lr=HYPERPARAMETERS.actor_lr * decay, critic_lr=HYPERPARAMETERS.critic_lr * decay
        )
        learn = episode >= EPISODES_BEFORE_LEARNING
        agent, memory, episode_return = run_episode(episode_key, agent, memory, hyperparameters, learn=learn)
        print(f"episode {episode + 1:3d}: return {episode_return:8.1f} in {STEPS_PER_EPISODE} steps, with noise")
    greedy_return = float(evaluate(agent).mean())
    print(f"greedy return: {greedy_return:.1f} in {ENVIRONMENT.max_steps} steps, mean of 64 start states")
    return greedy_return


if __name__ == "__main__":
    main()
