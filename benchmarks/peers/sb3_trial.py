"""Runs one trial of a hyperparameter search with the DDPG of Stable-Baselines3 and Optuna, in a process of its own.

This is how RL Baselines3 Zoo searches, but each trial trains several seeds, one after another. All values are those of
our preset `pendulum` as far as Stable-Baselines3 has options for them: it has one learning rate for both networks, and
its training episodes have the environment's 200 steps. It evaluates with 5 episodes, as the Zoo does.
"""

import argparse

import numpy as np
import optuna
import torch
from optuna.storages.journal import JournalFileBackend, JournalStorage
from stable_baselines3 import DDPG
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.noise import OrnsteinUhlenbeckActionNoise


def final_return(options: argparse.Namespace, seed: int, learning_rate: float, tau: float) -> float:
    """Trains an agent, evaluates it as often as ours are, and returns its mean return at the end.

    The noise is added to actions scaled to [-1, 1], so half of the preset's sigma is the same torque in N m.
    """
    model = DDPG(
        "MlpPolicy",
        "Pendulum-v1",
        learning_rate=learning_rate,
        buffer_size=options.steps,
        learning_starts=500,
        batch_size=64,
        tau=tau,
        gamma=0.995,
        train_freq=1,
        gradient_steps=1,
        action_noise=OrnsteinUhlenbeckActionNoise(np.zeros(1), 0.6 * np.ones(1), theta=0.15, dt=1.0),
        policy_kwargs={"net_arch": [128, 64]},
        seed=seed,
        device="cpu",
    )
    env = make_vec_env("Pendulum-v1", seed=1_000 + seed)
    evaluation = EvalCallback(env, n_eval_episodes=5, eval_freq=options.eval_every, verbose=0)
    model.learn(options.steps, callback=evaluation)
    return float(evaluate_policy(model, env, 5)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--journal", required=True, help="file of the study")
    parser.add_argument("--seeds", type=int, required=True, help="agents of the trial")
    for name in ("steps", "eval-every"):
        parser.add_argument(f"--{name}", type=int, required=True)
    options = parser.parse_args()
    torch.set_num_threads(1)  # as many trials run side by side as there are cores
    storage = JournalStorage(JournalFileBackend(options.journal))
    study = optuna.create_study(study_name="trials", storage=storage, direction="maximize", load_if_exists=True)
    trial = study.ask()
    learning_rate = trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True)
    tau = trial.suggest_float("tau", 1e-3, 1e-1, log=True)
    returns = [final_return(options, seed, learning_rate, tau) for seed in range(options.seeds)]
    study.tell(trial, float(np.mean(returns)))


if __name__ == "__main__":
    main()
