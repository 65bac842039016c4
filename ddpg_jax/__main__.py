"""`ddpg-jax COMMAND …` and `python -m ddpg_jax COMMAND …`: all commands by their names."""

import importlib
import sys

from ddpg_jax.command_line import refuse
from ddpg_jax.training.output import ignore_broken_pipe

COMMANDS = {
    "run": "train many agents, and leave a run folder",
    "compare": "compare finished runs",
    "tune": "search for hyperparameters with Optuna",
    "evaluate": "run trained policies in new episodes",
    "render": "draw what agents have learned",
    "export": "write policies for programs without this package",
    "merge": "join runs of the same configurations with other seeds",
    "cluster": "train on many machines with Ray",
}


def main() -> int:
    """Runs the command that the first word names; returns its exit status."""
    ignore_broken_pipe()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print("usage: ddpg-jax COMMAND …", *(f"  {name:10}{text}" for name, text in COMMANDS.items()), sep="\n")
        return 0
    if name not in COMMANDS:
        refuse(f"command is {name!r}, but must be one of {', '.join(COMMANDS)}", "ddpg-jax")
    return int(importlib.import_module(f"ddpg_jax.{name}").main(arguments))


if __name__ == "__main__":
    sys.exit(main())
