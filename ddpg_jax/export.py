"""`python -m ddpg_jax.export RUN_FOLDER`: policies as one file that runs with JAX alone, without this package."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import jax
import jax.export
import jax.numpy as jnp

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.training.devices import pinned_jax_config
from ddpg_jax.training.files import write_whole
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.policy import Policy, load_policy


@dataclass(frozen=True)
class Options:
    """Exports greedy policies of a finished run; needs flatbuffers (pip install 'ddpg_jax[export]').

    The file holds the parameters and the compiled form of the network for CPU and CUDA. JAX promises to read it for six
    months after its release; for longer keep the files in policy/.
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    agents: str = "best"
    """best (chosen on other start states than those that the run reports), all, or the number of one agent."""
    out: Path | None = None
    """The file. (default: policy.jax_export in the run folder)"""


def export_policy(policy: Policy) -> bytes:
    """Returns the policies for `jax.export.deserialize`: observations [B, O] float32 to actions [N, B, A]; any B."""
    (num_observations,) = jax.export.symbolic_shape("B")
    example = jax.ShapeDtypeStruct((num_observations, policy.observation_size), jnp.float32)
    export = jax.export.export(jax.jit(lambda observations: policy(observations)), platforms=("cpu", "cuda"))
    return bytes(export(example).serialize())


@pinned_jax_config()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.export")
    out = options.out or options.run_folder / "policy.jax_export"
    try:
        agents = int(options.agents) if options.agents.isdecimal() else options.agents
        policy = load_policy(options.run_folder, agents)  # type: ignore[arg-type]  # which checks it
        write_whole(out, export_policy(policy))
    except (ValueError, OSError, ImportError) as error:
        missing = "flatbuffers is not installed: pip install 'ddpg_jax[export]'"
        print(f"error: {missing if isinstance(error, ImportError) else error}", file=sys.stderr)
        return 2
    agents_word = f"{policy.num_agents} agent{'s' * (policy.num_agents != 1)}"
    print(f"{out}: {agents_word}, observations [B, {policy.observation_size}] to actions")
    print(f"read it with jax.export.deserialize(open({str(out)!r}, 'rb').read()).call(observations)")
    return 0


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
