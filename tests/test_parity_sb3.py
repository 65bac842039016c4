"""TD3's update against Stable-Baselines3's, with the same weights, minibatches and noise.

Needs `pip install stable-baselines3==2.9.2` (and PyTorch) beside the package; without them the test is skipped.
"""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from parity_data import pendulum_batches
from parity_numpy import Tensors, actor_and_critic, critic_of, perturbed, unstacked

from ddpg_jax.algorithm import agent
from ddpg_jax.algorithm.types import AgentState, Transition
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_algorithm, make_hyperparameters

SIZES, DELAY, SIGMA, CLIP, LR, GAMMA, TAU = [20, 16], 2, 0.2, 0.5, 1e-3, 0.99, 0.005
LOW, HIGH = (-1.0,), (1.0,)  # Stable-Baselines3's networks know actions in units of half their range
CONFIG = Config(
    hidden_sizes=tuple(SIZES), hidden_init="fan_in_uniform", actor_final_init=None, actor_lr=LR, critic_lr=LR,
    gamma=GAMMA, tau=TAU, num_critics=2, policy_delay=DELAY, target_noise=SIGMA, target_noise_clip=CLIP,
)  # fmt: skip
LAYERS = {"actor": ("hidden/Dense_0", "hidden/Dense_1", "final/Dense_0"),
          "critic": ("trunk/Dense_0", "trunk/Dense_1", "final/Dense_0")}  # fmt: skip
UPDATES = 50


def sb3_tensors(network) -> list[Tensors]:
    """Returns the weights of Stable-Baselines3's actor, or of each of its critics, under the package's names."""
    kind = "actor" if hasattr(network, "mu") else "critic"
    found = []
    for sequence in [network.mu] if kind == "actor" else network.q_networks:
        linear = [layer for layer in sequence if hasattr(layer, "weight")]
        found.append({})
        for name, layer in zip(LAYERS[kind], linear, strict=True):
            found[-1] |= {
                f"{name}/kernel": layer.weight.detach().numpy().T,
                f"{name}/bias": layer.bias.detach().numpy(),
            }
    return found


def our_tensors(state: AgentState) -> dict[str, list[Tensors]]:
    """Returns the package's weights in the form of `sb3_tensors`, by Stable-Baselines3's names."""
    actor, critic = actor_and_critic(state)
    return {
        "actor": [actor.params],
        "actor_target": [actor.target],
        "critic": [critic_of(critic.params, k) for k in range(2)],
        "critic_target": [critic_of(critic.target, k) for k in range(2)],
    }


def sb3_agent(state: AgentState, torch, sb3):
    """Returns Stable-Baselines3's TD3 in float64 with the weights of the package's agent."""
    import gymnasium

    model = sb3.TD3(
        "MlpPolicy", gymnasium.make("Pendulum-v1"), learning_rate=LR, gamma=GAMMA, tau=TAU, policy_delay=DELAY,
        target_policy_noise=SIGMA, target_noise_clip=CLIP, policy_kwargs={"net_arch": SIZES}, device="cpu",
    )  # fmt: skip
    model.policy.double()
    model.set_logger(sb3.common.logger.configure(None, []))
    with torch.no_grad():
        for name, ours in our_tensors(state).items():
            for theirs, tensors in zip(sb3_tensors(getattr(model, name)), ours, strict=True):
                for key, value in tensors.items():
                    theirs[key][...] = value  # a view of the parameter
    return model


def sb3_samples(torch, batch: Transition):
    """Returns a minibatch as Stable-Baselines3's replay gives it."""
    column = {name: torch.as_tensor(np.array(value)) for name, value in batch._asdict().items()}
    return SimpleNamespace(
        observations=column["observation"],
        actions=column["action"],
        next_observations=column["next_observation"],
        dones=1 - column["discount"][:, None],
        rewards=column["reward"][:, None],
        discounts=None,
    )


@pytest.mark.slow
def test_fifty_updates_end_where_stable_baselines3_ends(monkeypatch):
    torch, sb3 = pytest.importorskip("torch"), pytest.importorskip("stable_baselines3")
    monkeypatch.setattr(torch.Tensor, "float", lambda tensor: tensor)  # it would round observations to 32 bits
    batches = pendulum_batches(UPDATES, 64, time_limit_terminal=True)
    with jax.enable_x64(True):
        algorithm, hyperparameters = make_algorithm(CONFIG, LOW, HIGH), make_hyperparameters(CONFIG)
        state = agent.init(jax.random.key(3), np.zeros(3), algorithm=algorithm)
        state = start = jax.tree.map(np.asarray, perturbed(state, 0.05))
        model = sb3_agent(state, torch, sb3)
        for t, batch in enumerate(unstacked(batches)):
            batch = batch._replace(action=batch.action / 2)
            key, samples = jax.random.key(t), sb3_samples(torch, batch)
            noise = SIGMA * np.array(jax.random.normal(jax.random.split(key, 3)[2], (len(batch.reward), 1), float))
            monkeypatch.setattr(torch.Tensor, "normal_", lambda *_, noise=noise: torch.as_tensor(noise))
            monkeypatch.setattr(model.replay_buffer, "sample", lambda *_, samples=samples, **__: samples)
            model.train(gradient_steps=1, batch_size=len(batch.reward))
            state, _ = agent.update(key, state, batch, algorithm=algorithm, hyperparameters=hyperparameters)
        before, after = our_tensors(start), our_tensors(state)
    for name, ours in after.items():
        for k, theirs in enumerate(sb3_tensors(getattr(model, name))):
            for key, value in theirs.items():
                moved = np.linalg.norm(ours[k][key] - before[name][k][key])
                assert np.linalg.norm(ours[k][key] - value) <= 1e-9 * np.linalg.norm(value), (name, k, key)
                assert moved > 1e-4, (name, k, key)  # it has learned
