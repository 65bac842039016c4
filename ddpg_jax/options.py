"""The options of training, checked: those of `ddpg_jax.train` and of `python -m ddpg_jax.run` alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ddpg_jax.config import ANNOTATIONS
from ddpg_jax.fields import COUNT_OR_ZERO, FOLDER, LARGEST_COUNT, SECONDS, Rule, check_fields, count, format_value
from ddpg_jax.sweep import SweptConfig

MAX_AGENTS = 1_000_000
"""The largest number of agents in a run."""

SEEDS = Rule(f"a whole number >= 1 or a range such as 512:1024 (at most {MAX_AGENTS} seeds)",
             lambda v: 0 <= v.start < v.stop <= min(LARGEST_COUNT, v.start + MAX_AGENTS) and v.step == 1)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Which agents to train, and how. Creating one checks every field, and raises ValueError."""

    swept: tuple[SweptConfig, ...]
    resume: bool = False
    preset: str = "custom"
    """Named configuration from which all defaults come."""
    seeds: Annotated[range, SEEDS] = range(32)
    """Number of agents, or a range of their seeds; in a sweep, every configuration is trained with all of them."""
    seed: Annotated[int, COUNT_OR_ZERO] = 0
    """Root seed. The key of an agent is the root key with the agent's own seed folded in."""
    out: Annotated[Path | None, FOLDER] = None
    """The run folder, new or empty (default: runs/<time>-<preset>-<environment>)."""
    devices: Annotated[int | None, count(1, 1024)] = None
    """Number of devices to use (default: all accelerators, or a core per agent)."""
    group_size: Annotated[int | None, count(1, MAX_AGENTS)] = None
    """Agents that advance together on a device (default: 1 on a CPU, 4 with host environments, else up to 256)."""
    checkpoint_every: Annotated[float | None, SECONDS] = None
    """Seconds between checkpoints (default: 60, or longer where they would cost more than 5% of the run)."""
    log: tuple[Literal["tensorboard", "wandb"], ...] = ()
    """Also log evaluations to TensorBoard (in the run folder) or W&B (configured by its WANDB_* variables)."""
    verbose: bool = False
    """Print a line for every training episode."""

    def __post_init__(self) -> None:
        check_fields(self)
        most = MAX_AGENTS // max(1, len(self.swept))
        if len(self.seeds) > most:
            rule = f"{most:,} for {len(self.swept):,} configurations: a run has at most {MAX_AGENTS:,} agents"
            raise ValueError(f"seeds has {len(self.seeds):,} seeds, but must have at most {rule}")
        if self.resume and self.out is None:
            raise ValueError("resume is True, but must be given with out, the folder of the run")

    def require_same_run(self, earlier: "TrainOptions") -> None:
        """Refuses, by ValueError, options that would make a resumed run another one than the earlier run was.

        A larger total_steps is allowed, and whatever no result depends on. Both have resolved configurations.
        """
        for name in ("out", "seeds", "seed", "group_size"):
            require_equal(name, getattr(self, name), getattr(earlier, name), self.out)
        require_equal("number of configurations", len(self.swept), len(earlier.swept), self.out)
        for now, before in zip(self.swept, earlier.swept, strict=True):
            value, old = now.config.total_steps, before.config.total_steps
            for name in ANNOTATIONS:
                if name != "total_steps":
                    require_equal(name, getattr(now.config, name), getattr(before.config, name), self.out)
            if value < old:
                raise ValueError(f"total_steps is {value}, but must be at least {old}, the length of {self.out}")


def require_equal(name: str, value: Any, earlier: Any, folder: Path | None) -> None:
    """Refuses a value that differs from that of the run that is resumed."""
    if value != earlier:
        rule = (
            f"{format_value(earlier)}, as in {folder}: a resumed run may change only total_steps, devices, checkpoints"
        )
        raise ValueError(f"{name} is {format_value(value)}, but must be {rule} and logging")
