"""Named configurations, in lines of task, networks, optimisation, exploration and evaluation.

`docs/presets.md` says where each value stands in its source.
"""

from ddpg_jax.config import Config

# fmt: off
PENDULUM = Config(
    total_steps=6_000, max_episode_steps=100,
    hidden_sizes=(128, 64), critic_final_init=0.003, final_init_biases=True,
    actor_lr=1e-3, critic_lr=5e-3, lr_decay=0.96, gamma=0.995, tau=0.01, replay_capacity=6_000, learning_starts=500,
    noise_sigma=1.2, noise_reset=True,
)

KERAS = Config(
    total_steps=20_000,
    hidden_sizes=(256, 256), critic_observation_sizes=(16, 32), critic_action_sizes=(32,),
    adam_eps=1e-7, adam_eps_hat=True,
    noise_dt=0.01,
    eval_every=1_000,
)

GIST = Config(
    total_steps=40_000, max_episode_steps=10_000, time_limit_terminal=True,
    hidden_sizes=(8, 8, 8), action_bound="sigmoid", actor_final_init=None,
    actor_lr=1e-3, critic_lr=1e-3, adam_eps_hat=True, actor_l2=5e-7, critic_l2=5e-7, tau=0.01,
    batch_size=1024, replay_capacity=100_000, sample_with_replacement=False, update_order="together",
    noise="unaccumulated", noise_scale=0.1, noise_relative=True, noise_decay=0.99, noise_reset=True,
    clip_stored_action=False,
    eval_every=2_000,
)

GIST_CORRECTED = GIST.replace(time_limit_terminal=False, noise="ou", clip_stored_action=True)

PAPER = Config(
    total_steps=20_000,
    hidden_sizes=(400, 300), critic_hidden_sizes=(300,), critic_observation_sizes=(400,), hidden_init="fan_in_uniform",
    actor_final_init=0.003, critic_final_init=0.003, final_init_biases=True,
    actor_normalization="batch", critic_normalization="batch",
    actor_lr=1e-4, critic_lr=1e-3, critic_l2=1e-2, tau=0.001, replay_capacity=1_000_000, learning_starts=64,
    noise_reset=True,
    eval_every=1_000,
)

MOUNTAIN_CAR = Config(
    env_id="MountainCarContinuous-v0", total_steps=20_000,
    # Without normalisation one actor in a hundred or so stays saturated, at full torque to one side.
    hidden_sizes=(128, 64), actor_normalization="layer", critic_final_init=0.003, final_init_biases=True,
    # With a lower gamma, arriving a step earlier is worth more than the torque that this costs.
    actor_lr=1e-4, critic_lr=1e-3, gamma=0.999, n_step=5, tau=0.01, replay_capacity=20_000,
    # Noise alone reaches the goal about ten times or more before the first update.
    learning_starts=5_000,
    # Noise that keeps its sign for about half a swing of the car, 20 steps, rocks it up to the goal by chance.
    noise_theta=0.05, noise_sigma=0.4, noise_reset=True,
    eval_every=1_000,
)

CONTINUOUS = Config(
    total_steps=50_000,
    hidden_sizes=(128, 128), critic_normalization="layer",
    actor_lr=3e-4, critic_lr=1e-3, n_step=3, batch_size=128, replay_capacity=100_000, learning_starts=1_000,
    random_steps=1_000, noise_sigma=0.1, noise_relative=True, noise_reset=True,
    eval_every=10_000, eval_episodes=8, final_episodes=32,
)

TD3 = Config(
    total_steps=15_000,
    hidden_sizes=(400, 300), hidden_init="fan_in_uniform", actor_final_init=None, num_critics=2,
    actor_lr=1e-3, critic_lr=1e-3, tau=0.005, batch_size=100, replay_capacity=1_000_000, learning_starts=1_000,
    policy_delay=2, target_noise=0.2, target_noise_clip=0.5,
    # N(0, 0.1) in units of half the action's range.
    random_steps=1_000, noise="gaussian", noise_sigma=0.1, noise_scale=0.5, noise_relative=True,
    ema_tau=0.0005, eval_every=1_000,
)

D4PG = Config(
    total_steps=20_000,
    hidden_sizes=(300, 200), critic_hidden_sizes=(400, 300), critic_atoms=51, value_min=-1_000.0, value_max=0.0,
    actor_lr=1e-3, critic_lr=1e-3, n_step=5, tau=0.005, batch_size=256, replay_capacity=1_000_000,
    learning_starts=4_000,
    # N(0, 0.3) in units of half the action's range.
    random_steps=4_000, num_envs=4, noise="gaussian", noise_sigma=0.3, noise_scale=0.5, noise_relative=True,
    ema_tau=0.001, eval_every=2_000,
)

SIMBA = Config(
    action_repeat=2, total_steps=50_000,
    hidden_layers="residual", hidden_sizes=(128,), critic_hidden_sizes=(512, 512), hidden_init="orthogonal",
    actor_final_init=None, normalize_observations=True,
    actor_lr=1e-4, critic_lr=1e-4, actor_l2=1e-2, critic_l2=1e-2, decoupled_l2=True, tau=0.005, batch_size=256,
    replay_capacity=1_000_000, learning_starts=5_000, updates_per_train=2, update_order="together",
    # N(0, 0.1) in units of half the action's range, on the action and on the target's.
    target_noise=0.1, target_noise_clip=1.0,
    random_steps=5_000, noise="gaussian", noise_sigma=0.1, noise_scale=0.5, noise_relative=True,
    eval_every=5_000, eval_episodes=8, final_episodes=32,
)

PRESETS: dict[str, Config] = {
    "pendulum": PENDULUM, "keras": KERAS, "gist": GIST, "gist_corrected": GIST_CORRECTED, "paper": PAPER,
    "mountain_car": MOUNTAIN_CAR, "continuous": CONTINUOUS, "td3": TD3, "d4pg": D4PG,
    "simba": SIMBA,
}
"""All of them, by the name that `--preset` takes."""
# fmt: on

SOURCES = {
    "pendulum": "Ours, tuned for Pendulum-v1.",
    "keras": 'The Keras tutorial "Deep Deterministic Policy Gradient (DDPG)" (amifunny, 2020).',
    "gist": "A TensorFlow 1 gist exactly as its code behaves: its noise does not accumulate, a time limit is terminal.",
    "gist_corrected": "The gist with a true Ornstein-Uhlenbeck process, bootstrapping, and executed actions stored.",
    "paper": "Lillicrap et al. 2015, arXiv 1509.02971, section 7, for low-dimensional observations.",
    "mountain_car": "Ours, for MountainCarContinuous-v0, whose reward comes only at the goal.",
    "continuous": "Ours, for other environments: layer normalisation, 3-step returns, noise relative to the range.",
    "td3": "Fujimoto et al. 2018, arXiv 1802.09477: twin critics, a delayed actor, smoothed targets.",
    "d4pg": "Barth-Maron et al. 2018, arXiv 1804.08617, with four actors in step: categorical critic, 5-step returns.",
    "simba": "Lee et al. 2024, arXiv 2410.09754: residual blocks, AdamW, scaled observations. --hidden-sizes 32 "
    "--critic-hidden-sizes 64 suits a few CPU cores.",
}
"""Where each preset comes from."""

TUNED_FOR = dict.fromkeys(("pendulum", "keras", "gist", "gist_corrected", "d4pg"), "Pendulum-v1") | {
    "mountain_car": "MountainCarContinuous-v0"
}
"""The task for which the values of a preset were chosen; the other presets were not chosen for one."""


def preset(name: str) -> Config:
    """Returns a preset by its name; an unknown name is a ValueError."""
    if name not in PRESETS:
        raise ValueError(f"preset is {name!r}, but must be one of {', '.join(PRESETS)}")
    return PRESETS[name]


def tuning_note(name: str, config: Config) -> str | None:
    """Returns a note for the user if a configuration is based on a preset that is tuned for another task."""
    task = TUNED_FOR.get(name, config.env_id)
    if task == config.env_id:
        return None
    note = f"preset {name} is tuned for {task}, not for {config.env_id}"
    if config.max_episode_steps is not None:
        note += f"; training episodes end after {config.max_episode_steps:,} steps (--max-episode-steps)"
    if config.critic_atoms > 1:
        note += f"; the critic represents returns from {config.value_min:g} to {config.value_max:g} (--value-min)"
    return f"{note}; or try --preset continuous"
