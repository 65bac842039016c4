"""From a configuration to a `Setup`, from which programs are compiled, and to `Hyperparameters`, which are arrays."""

from ddpg_jax.algorithm import matmul, noise, obs_normalization, replay
from ddpg_jax.algorithm.agent import Algorithm
from ddpg_jax.algorithm.categorical import categorical
from ddpg_jax.algorithm.ensemble import Ensemble, of_ensemble
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.algorithm.losses import CriticForm
from ddpg_jax.algorithm.n_step import NStep
from ddpg_jax.algorithm.networks import Actor, Critic, Final, Hidden, Residual
from ddpg_jax.algorithm.optimizers import Clipped, Decoupled, Optimizer, adam, adam_eps_hat
from ddpg_jax.algorithm.replay import Reader
from ddpg_jax.algorithm.setup import Exploration, Setup
from ddpg_jax.algorithm.smoothing import smooth
from ddpg_jax.algorithm.types import Hyperparameters, NoiseProcess
from ddpg_jax.config import Config
from ddpg_jax.environments.adapt import adapt, is_adapted
from ddpg_jax.environments.registry import task_of
from ddpg_jax.training import user_networks

PRODUCTS = {"float32": matmul.full_precision, "bfloat16": matmul.in_bfloat16}
"""The matrix products of hidden layers, by `Config.matmul_dtype`."""


def make_setup(config: Config, environment: Environment | None = None) -> Setup:
    """Returns the setup that a configuration describes.

    Args:
        config: of an agent.
        environment: default: that of the configuration's task. Another one is checked, and adapted where its
            observations are several arrays, but its actions are not repeated.

    Raises:
        ValueError: names what the environment does not provide as it must, or a network of the user's that cannot be
            used for it.
    """
    environment = environment or task_of(config).environment
    if environment.host_env is None and not is_adapted(environment):
        environment = adapt(environment).environment
    algorithm = make_algorithm(config, environment.low, environment.high)
    _require_outputs(config, algorithm, environment)
    span = [high - low for low, high in zip(environment.low, environment.high, strict=True)]
    return Setup(
        environment=environment,
        algorithm=algorithm,
        exploration=Exploration(
            noise_unit=tuple(span if config.noise_relative else [1.0] * len(span)),
            noise_reset=config.noise_reset,
            clip_stored_action=config.clip_stored_action,
            max_steps=config.max_episode_steps,
            time_limit_terminal=config.time_limit_terminal,
            random_steps=config.loop_steps(config.random_steps),
            observe=obs_normalization.update if config.normalize_observations else obs_normalization.skip,
        ),
        sampler=replay.with_replacement if config.sample_with_replacement else replay.without_replacement,
        reader=_make_reader(config),
        batch_size=config.batch_size,
        replay_capacity=config.replay_capacity,
        first_update=config.loop_steps(config.first_update),
        train_every=config.train_every,
        updates_per_train=config.updates_per_train,
        ema=config.ema_tau < 1,
        num_envs=config.num_envs,
    )


def _require_outputs(config: Config, algorithm: Algorithm, environment: Environment) -> None:
    """Refuses networks of the user's that do not suit the environment."""
    sizes = environment.observation_size, environment.action_size
    values = [size for size in (config.critic_atoms, config.num_critics) if size > 1]
    outputs = (("actor", algorithm.actor, sizes[:1], sizes[1:]), ("critic", algorithm.critic, sizes, values))
    for field, network, inputs, output in outputs:
        if (name := getattr(config, field)) is not None:
            standardized = config.normalize_observations
            user_networks.require_output(field, name, network, inputs, output, standardized=standardized)


def make_algorithm(config: Config, low: tuple[float, ...], high: tuple[float, ...]) -> Algorithm:
    """Returns the networks and the form of the update that a configuration describes, for actions within bounds."""
    form = CriticForm()
    if config.critic_atoms > 1:
        form = categorical(config.critic_atoms, config.value_min, config.value_max)
    critic: Critic | Ensemble = _make_critic(config)
    if config.num_critics > 1:
        critic, form = Ensemble(_make_critic(config), config.num_critics), of_ensemble(form)
    optimizer: Optimizer = adam_eps_hat if config.adam_eps_hat else adam
    if config.decoupled_l2:
        optimizer = Decoupled(optimizer)
    return Algorithm(
        actor=_make_actor(config, low, high),
        critic=critic,
        optimizer=optimizer if config.max_grad_norm is None else Clipped(optimizer, config.max_grad_norm),
        critic_first=config.update_order == "critic_first",
        policy_delay=config.policy_delay,
        target_action=smooth if config.target_noise else None,
        **form._asdict(),
    )


def _make_actor(config: Config, low: tuple[float, ...], high: tuple[float, ...]) -> Actor:
    if config.actor is not None:
        own: Actor = user_networks.make("actor", config.actor, config, low=low, high=high)
        return own
    return Actor(
        low=low,
        high=high,
        hidden=_make_hidden(config, config.hidden_sizes, config.actor_normalization, config.actor_dropout),
        final=Final(len(low), config.hidden_init, config.actor_final_init, config.final_init_biases),
        sigmoid=config.action_bound == "sigmoid",
        standardize=config.normalize_observations,
    )


def _make_critic(config: Config) -> Critic:
    if config.critic is not None:
        own: Critic = user_networks.make("critic", config.critic, config)
        return own

    def hidden(sizes: tuple[int, ...], normalization: str) -> Hidden | Residual:
        return _make_hidden(config, sizes, normalization, config.critic_dropout)

    # Batch normalisation ends where the action enters (paper, section 7).
    behind_action = "none" if config.critic_normalization == "batch" else config.critic_normalization
    trunk_sizes = config.hidden_sizes if config.critic_hidden_sizes is None else config.critic_hidden_sizes
    return Critic(
        observation_branch=hidden(config.critic_observation_sizes, config.critic_normalization),
        action_branch=hidden(config.critic_action_sizes, behind_action),
        trunk=hidden(trunk_sizes, behind_action),
        final=Final(config.critic_atoms, config.hidden_init, config.critic_final_init, config.final_init_biases),
        standardize=config.normalize_observations,
    )


def _make_hidden(config: Config, sizes: tuple[int, ...], normalization: str, dropout: float) -> Hidden | Residual:
    product = PRODUCTS[config.matmul_dtype]
    if config.hidden_layers == "residual":
        return Residual(sizes, config.hidden_init, product)
    return Hidden(sizes, config.hidden_init, normalization, dropout, product)


def _make_reader(config: Config) -> Reader:
    """Returns how the transitions of a minibatch are read from the replay."""
    reader: Reader = replay.read if config.n_step == 1 else NStep(config.n_step, config.num_envs)
    return reader if config.reward_scale == 1 else replay.Rescaled(reader)


def make_hyperparameters(config: Config) -> Hyperparameters:
    """Returns the scalars of a configuration, as Python numbers; None stands for those of what is switched off."""
    return Hyperparameters(
        actor_lr=config.actor_lr,
        critic_lr=config.critic_lr,
        lr_decay=config.lr_decay,
        adam_eps=config.adam_eps,
        actor_l2=config.actor_l2,
        critic_l2=config.critic_l2,
        gamma=config.gamma,
        tau=config.tau,
        noise=make_noise(config),
        target_noise=config.target_noise or None,
        target_noise_clip=config.target_noise_clip if config.target_noise else None,
        reward_scale=None if config.reward_scale == 1 else config.reward_scale,
        ema_tau=None if config.ema_tau == 1 else config.ema_tau,
    )


def make_noise(config: Config) -> NoiseProcess:
    """Returns the exploration noise that a configuration describes, in its AR(1) form."""
    theta, sigma, mean = config.noise_theta, config.noise_sigma, config.noise_mean
    if config.noise == "ou":
        process = noise.ornstein_uhlenbeck(theta=theta, sigma=sigma, dt=config.noise_dt, mean=mean)
    elif config.noise == "unaccumulated":
        process = noise.unaccumulated(theta=theta, sigma=sigma, mean=mean)
    else:
        process = noise.gaussian(sigma=sigma, mean=mean)
    return process._replace(initial=config.noise_initial, scale=config.noise_scale, decay=config.noise_decay)
