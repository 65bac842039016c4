"""`python -m ddpg_jax.export RUN_FOLDER`: policies as files that run without this package, by JAX or as ONNX."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import jax.export
import jax.numpy as jnp

from ddpg_jax.command_line import POSITIONAL, parse
from ddpg_jax.training.devices import pinned_jax_config
from ddpg_jax.training.files import write_whole
from ddpg_jax.training.output import ignore_broken_pipe
from ddpg_jax.training.policy import Policy, load_policy
from ddpg_jax.training.run_folder import read_config

NEEDS = {"jax": ("flatbuffers", "export"), "onnx": ("onnx", "onnx")}
"""What each format needs to be written: a package, and the extra that installs it."""


@dataclass(frozen=True)
class Options:
    """Exports greedy policies of a finished run, with normalisation and action bounds inside. It needs flatbuffers
    (pip install 'ddpg_jax[export]') or onnx ('ddpg_jax[onnx]').

    A jax file holds the compiled form of the network for CPU and CUDA. JAX promises to read it for six months after its
    release; for longer keep the files in policy/, or export onnx (opset 17).
    """

    run_folder: Annotated[Path, POSITIONAL]
    """Folder of a finished run."""
    format: Literal["jax", "onnx"] = "jax"
    """jax: for programs with JAX; onnx: for programs with an ONNX runtime."""
    agent: str = "best"
    """best (chosen on other start states than those that the run reports), the number of an agent, or all: in one jax
    file, or in one onnx file per agent."""
    out: Path | None = None
    """The file, or for all agents as onnx a folder. (default: policy.jax_export, policy.onnx or onnx/ in the run
    folder)"""


def choose(policy: Policy, agent: str) -> Policy:
    """Returns the policy of the agents that `--agent` names; raises ValueError if one is not there or diverged."""
    if agent == "all":
        return policy
    number = int(agent) if agent.isdecimal() else None
    if agent != "best" and number not in policy.agents:
        known = f"a number of {policy.agents[0]} to {policy.agents[-1]}"
        raise ValueError(f"agent is {agent}, but must be best, all or {known}")
    chosen = policy.best if number is None else policy[policy.agents.index(number)]
    if chosen.diverged_agents:
        raise ValueError(f"agent is {agent}, which diverged in training, but must be one that did not")
    return chosen


def write_jax(policy: Policy, out: Path) -> Iterator[str]:
    """Writes the function of all agents, observations [B, O] float32 to actions [N, B, A]; yields what to tell."""
    (num_observations,) = jax.export.symbolic_shape("B")
    example = jax.ShapeDtypeStruct((num_observations, policy.observation_size), jnp.float32)
    export = jax.export.export(jax.jit(lambda observations: policy(observations)), platforms=("cpu", "cuda"))
    write_whole(out, bytes(export(example).serialize()))
    num, sizes = policy.num_agents, (policy.observation_size, len(policy.actor.low))
    yield f"{out}: {num} agent{'s' * (num != 1)}, observations [B, {sizes[0]}] to actions [{num}, B, {sizes[1]}]"
    yield f"read it with jax.export.deserialize(open({str(out)!r}, 'rb').read()).call(observations)"


def write_onnx(policy: Policy, out: Path, *, one_file: bool) -> Iterator[str]:
    """Writes a file, or a folder with one per agent that has not diverged; yields what to tell the user."""
    from ddpg_jax.training.onnx import to_onnx

    kept = [index for index in range(policy.num_agents) if index not in policy.diverged_agents]
    files = [out if one_file else out / f"agent-{policy.agents[index]:06d}.onnx" for index in kept]
    for index, file in zip(kept, files, strict=True):
        write_whole(file, to_onnx(policy[index]))
    what = f"agent {policy.agents[0]}" if one_file else f"{len(files)} agents, agent-….onnx each"
    yield f"{out}: {what}, observations [B, {policy.observation_size}] to actions [B, {len(policy.actor.low)}]"
    if lost := [policy.agents[index] for index in policy.diverged_agents]:
        yield f"left out: agents {', '.join(map(str, lost))}, which diverged in training"
    for file in files[:1]:
        yield f"run it with onnxruntime.InferenceSession({str(file)!r}).run(None, {{'observation': observations}})[0]"


@pinned_jax_config()
def main(arguments: list[str] | None = None) -> int:
    """Runs the command; returns its exit status."""
    options = parse(Options, arguments, "python -m ddpg_jax.export")
    folder, one_file = options.run_folder, options.agent != "all"
    try:
        if (folder / "config.json").is_file():
            read_config(folder)  # so that a network of the user's is found
        policy = choose(load_policy(folder), options.agent)
        if options.format == "jax":
            lines = write_jax(policy, options.out or folder / "policy.jax_export")
        else:
            out = options.out or folder / ("policy.onnx" if one_file else "onnx")
            lines = write_onnx(policy, out, one_file=one_file)
        print(*lines, sep="\n")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ImportError:
        package, extra = NEEDS[options.format]
        print(f"error: {package} is not installed: pip install 'ddpg_jax[{extra}]'", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    ignore_broken_pipe()
    sys.exit(main())
