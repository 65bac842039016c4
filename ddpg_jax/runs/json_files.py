"""The JSON files of a run folder: how the run was started, and with what."""

import contextlib
import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax import __version__
from ddpg_jax.config import Config
from ddpg_jax.processes.files import write_text
from ddpg_jax.processes.imports import look_in

FORMAT = 1
"""Version of the run folder's layout; a newer one is refused."""

CONFIG_FIELDS: dict[str, Any] = {
    "config": dict, "preset": str, "num_agents": int, "seed": int, "num_devices": int, "group_size": int | None,
    "versions": dict, "command": list, "resumed": list,
}  # fmt: skip
"""The fields of `config.json` that a resumed run reads, with their types."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "gymnax", "chex", "numpy")
"""The packages on whose versions the numbers of a run depend."""

LIBRARIES = {
    "brax": ("brax",),
    "playground": ("playground", "mujoco", "mujoco-mjx"),
    "gymnasium": ("gymnasium", "mujoco"),
}
"""The packages of environments, by the name in front of the colon."""


def write_json(path: Path, content: Any) -> None:
    """Writes values as JSON; NumPy's become Python's, and numbers that are not finite become null.

    Raises:
        OSError: if the file cannot be written; the message names it.
    """
    write_text(path, json.dumps(_plain(content), indent=2, allow_nan=False) + "\n")


def write_config(folder: Path, config: Config, run: dict[str, Any]) -> None:
    """Writes `config.json`: the resolved configuration, how the run was started and resumed, versions and commit.

    Args:
        folder: the run folder.
        config: the configuration.
        run: further fields.

    Raises:
        OSError: if the file cannot be written; the message names it.
        ValueError: if the run is resumed and its `config.json` is damaged.
    """
    command = [Path(sys.executable).name, "-m", "ddpg_jax.run", *sys.argv[1:]]
    commands: dict[str, Any] = {"command": command, "resumed": []}
    if (folder / "config.json").exists():
        earlier = read_config(folder)
        commands = {"command": earlier["command"], "resumed": [*earlier["resumed"], command]}
    content = {
        "format": FORMAT,
        **run,
        "config": config.to_dict(),
        **commands,
        "versions": versions(config.env_id),
        "commit": _commit(),
    }
    write_json(folder / "config.json", content)


def read_config(folder: Path) -> dict[str, Any]:
    """Returns the content of `config.json`, with at least the fields in `CONFIG_FIELDS`.

    Raises:
        ValueError: if the folder has no such file, or the file is damaged or of a newer format.
    """
    file = folder / "config.json"
    try:
        data = file.read_bytes()
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        reason = "it has no config.json" if missing else error.strerror
        raise ValueError(f"resume is {folder}, but must be the folder of a run: {reason}") from error
    try:
        content = json.loads(data)
        if content["format"] > FORMAT:
            version = content["versions"]["ddpg_jax"]
            raise ValueError(f"it was written by ddpg_jax {version}, newer than this one, {__version__}: update it")
        for name, kind in CONFIG_FIELDS.items():
            if not isinstance(content[name], kind) or isinstance(content[name], bool):
                raise ValueError(f"its {name} is {content[name]!r}")
    except KeyError as error:
        raise ValueError(f"{file} cannot be read: it has no {error}") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return content


def write_info(folder: Path, config: Config) -> None:
    """Writes `info.json`: the environment's name and all hyperparameters, as the TensorFlow gist writes them."""
    params = config.to_dict()
    write_json(folder / "info.json", {"env_id": params.pop("env_id"), "params": params})


def versions(env_id: str) -> dict[str, str]:
    """Returns the versions on which the numbers of a run depend."""
    found = {"ddpg_jax": __version__, "python": sys.version.split()[0]}
    for name in (*PACKAGES, *LIBRARIES.get(env_id.partition(":")[0], ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def look_where_it_was(folder: Path) -> None:
    """Lets the user's environment of an earlier run be imported from where it was, if `config.json` says where."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        look_in(json.loads((folder / "config.json").read_bytes())["env_folder"])


def differences(folder: Path, device: str) -> list[str]:
    """Returns the reasons why a run that is resumed here may not end in the bits of an uninterrupted one, a line each.

    Args:
        folder: the run folder.
        device: the devices that the run is resumed on.
    """
    content = read_config(folder)
    before = {"device": content.get("device"), **content["versions"]}
    now = {"device": device, **versions(content["config"]["env_id"])}
    return [
        f"note: {name} was {before[name]}, is {now[name]}: the numbers may differ in their last digits"
        for name in now
        if name in before and name != "python" and before[name] != now[name]
    ]


def _plain(value: Any) -> Any:
    """Returns the value in Python's own types, with None for every number that JSON cannot hold."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _commit() -> str | None:
    """Returns the commit of the checkout that the package runs from, marked if files have been changed; or None."""
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
