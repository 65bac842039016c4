"""Measures rejax's TD3 (it has no DDPG) with the tutorial's configuration, as far as it has options for it.

It updates two critics, where the tutorial has one; the input of both is observation and action together. The policy is
updated in every step, its evaluation is left out, and its noise is Gaussian. It has one learning rate for both
networks; here it is the actor's. Many agents train under `vmap`, as its documentation shows. The whole training is one
compiled program, so a short training is repeated until the timed window has passed.
"""

import jax
from harness import Meter, options, versions
from rejax import TD3

ALONE_STEPS, TOGETHER_STEPS = 800, 100
"""Steps of each agent between two readings of the clock."""


def make(num_steps: int) -> TD3:
    """Returns a TD3 that trains for this many steps."""
    algorithm = TD3.create(
        env="Pendulum-v1",
        actor_kwargs={"activation": "relu"},
        critic_kwargs={"activation": "relu"},
        total_timesteps=num_steps,
        eval_freq=num_steps,
        skip_initial_evaluation=True,
        learning_rate=1e-3,
        gamma=0.99,
        polyak=0.995,
        policy_delay=1,
        exploration_noise=0.37,
        buffer_size=50_000,
        fill_buffer=1,
        batch_size=64,
    )
    return algorithm.replace(
        # `create` refuses sizes other than 64-64.
        actor=algorithm.actor.clone(hidden_layer_sizes=(256, 256)),
        critic=algorithm.critic.clone(hidden_layer_sizes=(256, 256)),
        eval_callback=lambda algorithm, state, key: (),
    )


def main() -> None:
    meter = Meter(options())
    num_steps = ALONE_STEPS if meter.options.agents == 1 else TOGETHER_STEPS
    algorithm = make(num_steps)

    def actor_after_training(key: jax.Array) -> object:
        return algorithm.train(key)[0].actor_ts.params

    keys = jax.random.split(jax.random.PRNGKey(meter.options.seed), meter.options.agents)
    train = jax.jit(jax.vmap(actor_after_training)).lower(keys).compile()
    meter.ready()
    enough = False
    while not enough:
        jax.block_until_ready(train(keys))
        enough = meter.advanced(num_steps)
    meter.report(versions("rejax", "gymnax", "jax", "flax", "optax"))


if __name__ == "__main__":
    main()
