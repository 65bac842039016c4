"""The folder that a run leaves behind: what is written where."""

import fcntl
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax import __version__
from ddpg_jax.config import Config
from ddpg_jax.environment import Environment
from ddpg_jax.history import History, episodes_csv, metrics_csv
from ddpg_jax.policy import save_policy, save_weights

FORMAT = 1
"""Version of the layout; a newer one is refused."""

CONFIG_FIELDS = {"config", "group_size", "num_agents", "num_devices", "preset", "seed"}
"""What a run needs to be resumed, in `config.json`."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")


class RunFolder:
    """Writes a run's files, each one whole or not at all."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """A new folder.

        Raises:
            ValueError: if there is something in it already, or it cannot be made.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ValueError(f"out is {path}, but must be a new or an empty folder")
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"out is {path}, but must be a folder that can be written: {error.strerror}") from error
        return RunFolder(path)

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """The folder of an earlier run.

        Raises:
            ValueError: if it is none.
        """
        read_config(path)
        return RunFolder(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other processes out of the folder for as long as this one lives.

        Raises:
            ValueError: if another one is in it.
        """
        with open(self.path / ".lock", "a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.seek(0)
                holder = file.read().strip()
                raise ValueError(f"{self.path} is in use by process {holder}: wait for it or stop it") from None
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            yield

    def is_finished(self, total_steps: int) -> bool:
        """Whether a run of that length has left its summary here."""
        try:
            summary = json.loads((self.path / "summary.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(summary["env_steps_per_agent"] >= total_steps)

    def write_config(self, config: Config, run: dict[str, Any]) -> None:
        """`config.json`: the resolved configuration, how the run was started, and with what."""
        content = {
            "format": FORMAT,
            **run,
            "config": config.to_dict(),
            "command": [Path(sys.executable).name, "-m", "ddpg_jax.run", *sys.argv[1:]],
            "versions": {"ddpg_jax": __version__, "python": sys.version.split()[0]}
            | {name: metadata.version(name) for name in PACKAGES},
            "commit": _commit(),
        }
        self.write_text("config.json", _json(content))

    def write_info(self, config: Config) -> None:
        """`info.json`: the environment's name and all hyperparameters, as the TensorFlow gist leaves them."""
        params = config.to_dict()
        self.write_text("info.json", _json({"env_id": params.pop("env_id"), "params": params}))

    def write_tables(self, histories: list[History]) -> None:
        """`metrics.csv` and `episodes.csv`."""
        self.write_text("metrics.csv", metrics_csv(histories))
        self.write_text("episodes.csv", episodes_csv(histories))

    def write_summary(self, summary: dict[str, Any]) -> None:
        """`summary.json`, in which what is not finite is null."""
        self.write_text("summary.json", _json(summary))

    def write_snapshot(self, env_steps: int, first_agent: int, parameters: dict[str, Any]) -> None:
        """`snapshots/<environment steps>/`: the parameters of every agent at one moment of training."""
        save_weights(self.path / "snapshots" / f"{env_steps:09d}", first_agent, parameters)

    def write_policy_weights(self, first_agent: int, variables: Any) -> None:
        """`policy/agents-….safetensors`: what acts."""
        save_weights(self.path / "policy", first_agent, variables)

    def write_policy(self, config: Config, environment: Environment, diverged_agents: list[int]) -> None:
        """`policy/policy.json`: what the weights beside it mean."""
        save_policy(self.path / "policy", config, environment, diverged_agents=diverged_agents)

    def write_text(self, name: str, text: str) -> None:
        """A file that is there whole or not at all: written beside it, then renamed."""
        draft = self.path / f".{name}.part"
        draft.write_text(text)
        os.replace(draft, self.path / name)


def read_config(path: Path) -> dict[str, Any]:
    """What `write_config` wrote.

    Raises:
        ValueError: if there is no such file, it is damaged, or of a newer format.
    """
    file = path / "config.json"
    if not file.is_file():
        raise ValueError(f"{path} is not the folder of a run: it has no config.json")
    try:
        content = json.loads(file.read_text())
        newer = content["format"] > FORMAT
        missing = sorted(CONFIG_FIELDS - set(content))
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} cannot be read: {error!r}") from error
    if newer:
        version = content.get("versions", {}).get("ddpg_jax", "unknown")
        raise ValueError(f"{file} was written by ddpg_jax {version}, newer than this one, {__version__}: update it")
    if missing:
        raise ValueError(f"{file} cannot be read: it has no {', '.join(missing)}")
    return content


def _json(content: Any) -> str:
    return json.dumps(_finite(content), indent=2, allow_nan=False) + "\n"


def _finite(value: Any) -> Any:
    """The value with null for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_finite(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _commit() -> str | None:
    """The commit of the checkout that the package runs from, if it does; marked when files have been changed."""
    package = Path(__file__).parent
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=package, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", Path(__file__).name],
            cwd=package, capture_output=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if tracked.returncode == 0 else None
