"""Exported agents in Gymnasium's Pendulum-v1, where JAX is not installed: onnxruntime, gymnasium and numpy suffice.

In an environment with JAX: python -m ddpg_jax.export RUN --format onnx --agent all
In one without it:          python benchmarks/onnx_policies.py RUN [RUN ...]

Each agent plays the 512 episodes of the run's own final evaluation, from the same start states. The result is printed
beside the run's: the interquartile mean over the agents, its 95% interval, and the largest difference of an agent.
"""

import importlib.util
import json
import sys
from pathlib import Path

import gymnasium
import numpy as np
import onnxruntime

TABLE = Path(__file__).parent.parent / "ddpg_jax/environments/data/pendulum_optimum.npz"


def mean_return(file: Path, starts: np.ndarray) -> float:
    """Returns an agent's undiscounted return, averaged over start states [S, 2] in rad and rad/s."""
    session = onnxruntime.InferenceSession(str(file))
    envs = [gymnasium.make("Pendulum-v1") for _ in starts]
    total = 0.0
    for env, state in zip(envs, starts, strict=True):
        env.reset(seed=0)
        env.unwrapped.state = state.copy()  # type: ignore[attr-defined]
    observations = np.stack([np.cos(starts[:, 0]), np.sin(starts[:, 0]), starts[:, 1]], axis=1)
    for _ in range(200):
        (actions,) = session.run(None, {"observation": observations.astype(np.float32)})
        steps = [env.step(action) for env, action in zip(envs, actions, strict=True)]
        observations = np.stack([step[0] for step in steps])
        total += sum(float(step[1]) for step in steps)
    return total / len(starts)


def main() -> None:
    if importlib.util.find_spec("jax"):
        raise SystemExit("JAX is installed here: run this where it is not")
    table = np.load(TABLE)
    for folder in map(Path, sys.argv[1:]):
        summary = json.loads((folder / "summary.json").read_text())
        starts = np.stack([table["theta"], table["theta_dot"]], axis=1)[: summary["final_episodes"]]
        files = sorted((folder / "onnx").glob("agent-*.onnx"))
        scores, final = np.array([mean_return(file, starts) for file in files]), summary["final_return"]
        num = len(scores)
        iqm = np.sort(scores)[num // 4 : num - num // 4].mean()
        largest = np.abs(scores - np.array(summary["per_agent_final_return"], float)).max()
        low, high = final["iqm_ci95"]
        print(f"{folder}: {num} agents x {len(starts)} episodes: IQM {iqm:.2f}; the run's {final['iqm']:.2f} "
              f"[{low:.2f}, {high:.2f}]; largest difference of an agent {largest:.3f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
