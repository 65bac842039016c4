"""The folder of a run: where it is made, who may write in it, and how the run was started (`config.json`)."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ddpg_jax import __version__
from ddpg_jax.config import Config
from ddpg_jax.environments import user_env
from ddpg_jax.environments.registry import is_user_env
from ddpg_jax.options import TrainOptions
from ddpg_jax.results.csv_files import episodes_csv, metrics_csv
from ddpg_jax.results.history import History
from ddpg_jax.results.text import json_values
from ddpg_jax.sweep import SweptConfig
from ddpg_jax.training.files import write_text
from ddpg_jax.training.folder_lock import FolderLock
from ddpg_jax.training.plan import Plan

FORMAT = 2
"""Version of the run folder's layout; another one is refused."""

TABLES_SHARE = 0.02
"""The largest share of a run that is spent on writing tables before its end."""

FIELDS: dict[str, Any] = {
    "config": dict, "configs": list, "preset": str, "seeds": list, "seed": int, "device": str, "versions": dict,
}  # fmt: skip
"""The fields of `config.json` without which a folder cannot be read, with their types."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")
"""The packages on whose versions the numbers of a run depend."""

LIBRARIES = {
    "brax": ("brax",),
    "playground": ("playground", "mujoco", "mujoco-mjx"),
    "gymnasium": ("gymnasium", "mujoco"),
}
"""The packages of environments, by the name in front of the colon."""


class RunFolder:
    """The folder of a run. While one process has entered it, other processes cannot."""

    def __init__(self, path: Path, made: Sequence[Path] = ()) -> None:
        """Args:
        path: the folder.
        made: the folders that were made for a new run, deepest first; they are removed if nothing is written.
        """
        self.path = path
        self._made, self._lock, self._tables_due = made, FolderLock(path), 0.0

    @staticmethod
    def create(path: Path) -> "RunFolder":
        """Makes a new folder, or takes an empty one.

        Raises:
            ValueError: if there is something in it, or it cannot be made.
        """
        try:
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise ValueError(f"out is {path}, but must be a new or an empty folder")
            missing = [folder for folder in (path, *path.parents) if not folder.exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _unusable("out", path, error) from error
        return RunFolder(path, missing)

    def __enter__(self) -> "RunFolder":
        """Raises ValueError if another process has entered the folder, or it cannot be written."""
        try:
            self._lock.acquire()
        except BlockingIOError:
            holder = self._lock.holder()
            raise ValueError(f"{self.path} is in use by process {holder}: wait for it or stop it") from None
        except OSError as error:
            self.leave()
            raise _unusable("out", self.path, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    @property
    def note(self) -> str | None:
        """A warning to the user about the folder that was entered."""
        return self._lock.note

    def leave(self) -> None:
        """Lets other processes enter; removes the folders that were made for a run that has written nothing."""
        with contextlib.suppress(OSError):
            if self._made and set(self.path.iterdir()) <= {self._lock.path}:
                self._lock.path.unlink(missing_ok=True)
                for folder in self._made:
                    folder.rmdir()
        self._lock.release()

    def write_tables(self, histories: Sequence[History], options: TrainOptions, *, if_due: bool = False) -> None:
        """Writes `metrics.csv` and `episodes.csv`; before the end of a run only if that stays within `TABLES_SHARE`.

        Raises:
            OSError: if one cannot be written; the message names it.
        """
        start = time.perf_counter()
        if if_due and start < self._tables_due:
            return
        write_tables(self.path, History.join(histories), options.seeds, len(options.swept))
        end = time.perf_counter()
        self._tables_due = end + (end - start) / TABLES_SHARE


def fresh_folder(options: TrainOptions) -> Path:
    """Returns a path that does not exist yet: `runs/<time>-<preset>-<environment>`.

    Raises:
        ValueError: if there are too many of them.
    """
    environment = re.sub(r"[^\w.-]", "-", options.swept[0].config.env_id)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{options.preset}-{environment}"
    paths = (Path("runs") / (name + suffix) for suffix in ("", *(f"-{i}" for i in range(2, 1000))))
    path = next((path for path in paths if not path.exists()), None)
    if path is None:
        raise ValueError("too many run folders with this timestamp: pass --out")
    return path


def write_tables(path: Path, history: History, seeds: range, num_configs: int) -> None:
    """Writes `metrics.csv` and `episodes.csv` of all agents into a folder."""
    write_text(path / "metrics.csv", metrics_csv(history, seeds, num_configs))
    write_text(path / "episodes.csv", episodes_csv(history, seeds, num_configs))


def _unusable(field: str, path: Path, error: OSError) -> ValueError:
    reason = error.strerror or error
    return ValueError(f"{field} is {path}, but must be a folder that can be written: {reason}")


def describe(plan: Plan, command: Sequence[str] | None) -> dict[str, Any]:
    """Returns the content of `config.json`: the configurations, how the run was started, versions and commit.

    Args:
        plan: of the run.
        command: the words of the command line; None where a program has called `train`.
    """
    options, base = plan.options, plan.config
    parts = plan.task.observation_parts
    return {
        "format": FORMAT,
        "preset": options.preset,
        "seeds": [options.seeds.start, options.seeds.stop],
        "seed": options.seed,
        "configs": [_changes(each, base) for each in options.swept],
        "config": base.to_dict(),
        "custom": plan.custom,
        "device": plan.device,
        "num_devices": max(len(each.placement.devices) for each in plan.setups),
        "group_sizes": [each.placement.group_size for each in plan.setups],
        "group_size": options.group_size,
        "checkpoint_every": options.checkpoint_every,
        "log": list(options.log),
        **({"env_folder": user_env.folder_of(base.env_id)} if is_user_env(base.env_id) else {}),
        **({"network_folders": folders} if (folders := _network_folders(options.swept)) else {}),
        **({"observation": {name: list(shape) for name, shape in parts}} if parts else {}),
        "command": list(command) if command is not None else None,
        "resumed": [],
        "versions": versions(base.env_id),
        "commit": _commit(),
    }


def _network_folders(swept: Sequence[SweptConfig]) -> list[str]:
    """Returns the folders from which Python imports the modules of the user's networks."""
    names = {name for each in swept for name in (each.config.actor, each.config.critic) if name is not None}
    return sorted({folder for name in names if (folder := user_env.folder_of(name)) is not None})


def _changes(each: SweptConfig, base: Config) -> dict[str, Any]:
    """Returns the swept values of a configuration, and all fields in which it differs from the first."""
    before = base.to_dict()
    changes = {name: value for name, value in each.config.to_dict().items() if value != before[name]}
    return {"values": dict(each.values), "changes": changes}


def swept_configs(details: Mapping[str, Any]) -> tuple[SweptConfig, ...]:
    """Returns the configurations that `describe` described."""
    return tuple(
        SweptConfig(
            {name: tuple(value) if isinstance(value, list) else value for name, value in each["values"].items()},
            Config.from_dict(details["config"] | each["changes"]),
        )
        for each in details["configs"]
    )


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the content of `config.json`, and lets the user's own modules be imported from where they were.

    Raises:
        ValueError: if the folder has no such file, or the file is damaged or has another format.
    """
    file = Path(folder) / "config.json"
    try:
        content: dict[str, Any] = json.loads(file.read_bytes())
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "it has no config.json" if missing else error.strerror
        raise ValueError(f"{folder} is not the folder of a run: {reason}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    try:
        if content["format"] != FORMAT:
            raise ValueError(f"its format is {content['format']}, but must be {FORMAT}: read it with ddpg_jax "
                             f"{content['versions']['ddpg_jax']}, which wrote it")  # fmt: skip
        for name, kind in FIELDS.items():
            if not isinstance(content[name], kind):
                raise ValueError(f"its {name} is {content[name]!r}")
        swept_configs(content)
    except KeyError as error:
        raise ValueError(f"{file} cannot be read: it has no {error}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    for where in (content.get("env_folder"), *content.get("network_folders", ())):
        user_env.look_in(where)
    return content


def saved_options(folder: Path) -> TrainOptions:
    """Returns the options with which the run in a folder was started, as far as its results depend on them.

    Raises:
        ValueError: as `read_config`.
    """
    saved = read_config(folder)
    return TrainOptions(
        swept=swept_configs(saved),
        preset=saved["preset"],
        seeds=range(*saved["seeds"]),
        seed=saved["seed"],
        group_size=saved.get("group_size"),
        out=folder,
        resume=True,
    )


def write_json(path: Path, content: Any) -> None:
    """Writes values as JSON; NumPy's become Python's, and numbers that are not finite become null.

    Raises:
        OSError: if the file cannot be written; the message names it.
    """
    write_text(path, json.dumps(json_values(content), indent=2) + "\n")


def versions(env_id: str) -> dict[str, str]:
    """Returns the versions on which the numbers of a run depend."""
    found = {"ddpg_jax": __version__, "python": sys.version.split()[0]}
    for name in (*PACKAGES, *LIBRARIES.get(env_id.partition(":")[0], ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yields the reasons why a resumed run may not end in the bits of an uninterrupted one, a line each."""
    old, new = ({"device": each["device"], **each["versions"]} for each in (before, now))
    for name in new:
        if name in old and name != "python" and old[name] != new[name]:
            yield f"{name} was {old[name]}, is {new[name]}: the numbers may differ in their last digits"


def _commit() -> str | None:
    """Returns the commit of the checkout that the package runs from, marked if files have been changed; or None."""
    file = Path(__file__)
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    tracked = ["git", "ls-files", "--error-unmatch", file.name]
    try:
        answers = [
            subprocess.run(words, cwd=file.parent, capture_output=True, text=True, timeout=5, check=True)
            for words in (tracked, describe)
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[1].stdout.strip()
