"""The folder that a run leaves behind: what is written where."""

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import numpy as np

from ddpg_jax import __version__
from ddpg_jax.algorithm.environment import Environment
from ddpg_jax.config import Config
from ddpg_jax.results.history import History
from ddpg_jax.results.tables import episodes_csv, metrics_csv
from ddpg_jax.runs.policy import save_policy, save_weights, write_whole

FORMAT = 1
"""Version of the layout; a newer one is refused."""

CONFIG_FIELDS: dict[str, Any] = {
    "config": dict, "preset": str, "num_agents": int, "seed": int, "num_devices": int, "group_size": int | None,
    "versions": dict, "command": list, "resumed": list,
}  # fmt: skip
"""What resuming a run reads from `config.json`."""

SHARED_SECONDS = 10
"""How long it may take until all processes of a run see a file that one of them has made."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")


class RunFolder:
    """Writes a run's files, each one whole or not at all. While it is entered, other processes are kept out."""

    def __init__(self, path: Path, made: Sequence[Path] | None = None) -> None:
        """Args:
        path: where it is.
        made: of a new run the folders that were made for it, which are removed again if nothing is written.
        """
        self.path = path
        self._made = made
        self._lock: IO[str] | None = None
        self._tables_due = 0.0

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """A new folder, or an empty one.

        Raises:
            ValueError: if there is something in it already.
            OSError: if it cannot be made.
        """
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise ValueError(f"out is {path}, but must be a new or an empty folder")
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path, missing)

    @staticmethod
    def create_first(paths: Iterable[Path]) -> "RunFolder":
        """A new folder at the first of the paths where nothing is yet.

        Raises:
            ValueError: if there is something at each.
            OSError: if it cannot be made.
        """
        for path in paths:
            missing = [folder for folder in path.parents if not folder.exists()]
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError:
                continue
            return RunFolder(path, [path, *missing])
        raise ValueError("out is not given, but must be: a thousand folders of this second exist already")

    @staticmethod
    def open(path: Path) -> "RunFolder":
        """The folder of an earlier run.

        Raises:
            ValueError: if it is none.
        """
        read_config(path)
        return RunFolder(path)

    def __enter__(self) -> "RunFolder":
        """Raises ValueError if another process is in it, OSError if it cannot be written."""
        try:
            self._lock = open(self.path / ".lock", "a+")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            assert self._lock is not None
            self._lock.seek(0)
            holder = self._lock.read().strip()
            self._lock.close()
            raise ValueError(f"{self.path} is in use by process {holder}: wait for it or stop it") from None
        except OSError:
            self.leave()
            raise
        self._lock.truncate(0)
        self._lock.write(f"{os.getpid()}\n")
        self._lock.flush()
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Lets other processes in; a folder that nothing was written into is removed again."""
        if self._made is not None:
            with suppress(OSError):
                (self.path / ".lock").unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def is_entered(self) -> bool:
        """Whether this process sees that one is in it."""
        for _ in range(SHARED_SECONDS):
            if (self.path / ".lock").exists():
                return True
            time.sleep(1)  # a file system over a network may take a while
        return False

    def is_finished(self, total_steps: int) -> bool:
        """Whether a run of that length has left its summary here."""
        try:
            summary = json.loads((self.path / "summary.json").read_text())
            return bool(summary["env_steps_per_agent"] >= total_steps)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def write_config(self, config: Config, run: dict[str, Any]) -> None:
        """`config.json`: the resolved configuration, how the run was started (and resumed), and with what."""
        command = [Path(sys.executable).name, "-m", "ddpg_jax.run", *sys.argv[1:]]
        commands: dict[str, Any] = {"command": command, "resumed": []}
        if (self.path / "config.json").exists():
            earlier = read_config(self.path)
            commands = {"command": earlier["command"], "resumed": [*earlier["resumed"], command]}
        content = {
            "format": FORMAT,
            **run,
            "config": config.to_dict(),
            **commands,
            "versions": versions(),
            "commit": _commit(),
        }
        self.write_text("config.json", _json(content))
        self._made = None  # from now on it stays

    def write_info(self, config: Config) -> None:
        """`info.json`: the environment's name and all hyperparameters, as the TensorFlow gist leaves them."""
        params = config.to_dict()
        self.write_text("info.json", _json({"env_id": params.pop("env_id"), "params": params}))

    def tables_due(self) -> bool:
        """Whether `write_tables` would cost little of the run's time."""
        return time.perf_counter() >= self._tables_due

    def write_tables(self, histories: list[History], num_seeds: int | None) -> None:
        """`metrics.csv` and `episodes.csv`, as a whole.

        `num_seeds` is given in a sweep: the agents of each of its points.
        """
        start = time.perf_counter()
        self.write_text("metrics.csv", metrics_csv(histories, num_seeds))
        self.write_text("episodes.csv", episodes_csv(histories, num_seeds))
        end = time.perf_counter()
        self._tables_due = end + 50 * (end - start)

    def write_summary(self, summary: dict[str, Any]) -> None:
        """`summary.json`, in which what is not finite is null."""
        self.write_text("summary.json", _json(summary))

    def write_snapshot(self, env_steps: int, part: str, first_agent: int, parameters: dict[str, Any]) -> None:
        """`snapshots/<environment steps>/`: the parameters of every agent at one moment of training.

        Where agents have networks of several shapes, each part of them has a folder below, and counts from 0.
        """
        save_weights(self.path / "snapshots" / f"{env_steps:09d}" / part, first_agent, parameters)

    def write_policy_weights(self, part: str, first_agent: int, variables: Any) -> None:
        """`policy/agents-….safetensors`: what acts; parts as in `write_snapshot`."""
        save_weights(self.path / "policy" / part, first_agent, variables)

    def write_policy(self, part: str, config: Config, environment: Environment, **about: Any) -> None:
        """`policy/policy.json`: what the weights beside it mean; `about` them as in `save_policy`."""
        save_policy(self.path / "policy" / part, config, environment, **about)

    def write_text(self, name: str, text: str) -> None:
        """A file that is there whole or not at all."""
        write_whole(self.path / name, text.encode())


def read_config(path: Path) -> dict[str, Any]:
    """What `write_config` wrote.

    Raises:
        ValueError: if there is no such file, it is damaged, or of a newer format.
    """
    file = path / "config.json"
    try:
        data = file.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "it has no config.json" if missing else error.strerror
        raise ValueError(f"resume is {path}, but must be the folder of a run: {reason}") from error
    try:
        content = json.loads(data)
        if content["format"] > FORMAT:
            version = content["versions"]["ddpg_jax"]
            raise ValueError(f"it was written by ddpg_jax {version}, newer than this one, {__version__}: update it")
        for name, kind in CONFIG_FIELDS.items():
            if not _is(content[name], kind):
                raise ValueError(f"its {name} is {content[name]!r}")
    except KeyError as error:
        raise ValueError(f"{file} cannot be read: it has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return content


def _is(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)


def versions() -> dict[str, str]:
    """Those of the packages that decide on the numbers of a run."""
    python = sys.version.split()[0]
    return {"ddpg_jax": __version__, "python": python} | {name: metadata.version(name) for name in PACKAGES}


def differences(path: Path, device: str) -> list[str]:
    """Why a run that is resumed now may not end in the bits of one that was not stopped: a line for each reason."""
    content = read_config(path)
    before = {"device": content.get("device"), **content["versions"]}
    now = {"device": device, **versions()}
    return [
        f"note: {name} was {before[name]}, is {now[name]}: the numbers may differ in their last digits"
        for name in now
        if name in before and name not in ("python",) and before[name] != now[name]
    ]


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
    file = Path(__file__)
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=file.parent, capture_output=True, text=True, timeout=5, check=True,
        )  # fmt: skip
        tracked = subprocess.run(
            ["git", "ls-files", "--error-unmatch", file.name],
            cwd=file.parent, capture_output=True, timeout=5, check=False,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() if tracked.returncode == 0 else None
