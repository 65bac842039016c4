"""The options of a search, checked: those of `ddpg_jax.tune` and of `python -m ddpg_jax.tune` alike."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from ddpg_jax.config import Config
from ddpg_jax.fields import COUNT_OR_ZERO, FOLDER, SECONDS, check_fields, count
from ddpg_jax.options import MAX_AGENTS, SEEDS, TrainOptions
from ddpg_jax.search.space import parse_space
from ddpg_jax.sweep import SweptConfig

MAY_CHANGE = ("trials", "final_seeds", "devices", "checkpoint_every")
"""The options that may differ when a search is resumed."""


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Searches for hyperparameters. The agents of many trials train in one compiled program, and all trials share their
    seeds. At the end the best configuration and the preset's defaults are trained with other seeds, and compared.
    """

    config: Config
    preset: str = "pendulum"
    """Named configuration from which all defaults come."""
    tune: tuple[str, ...]
    """What to tune: NAME=loguniform:LOW,HIGH, NAME=uniform:LOW,HIGH, NAME=int:LOW,HIGH or NAME=VALUE,VALUE,... Sizes
    are written 64x64."""
    method: Literal["tpe", "random", "pbt"] = "tpe"
    """Optuna's tree-structured Parzen estimator, random search, or population-based training: trials x seeds agents,
    each with its own hyperparameters, which change at each evaluation."""
    trials: Annotated[int, count(1, 10_000)] = 64
    """Number of trials."""
    seeds: Annotated[range, SEEDS] = range(4)
    """Number of agents of each trial, or a range of their seeds."""
    seed: Annotated[int, COUNT_OR_ZERO] = 0
    """Root seed of the agents and of the search."""
    batch: Annotated[int, count(1, 1000)] = 8
    """Trials that train together; tpe learns from those of the batches before. An accelerator needs more."""
    objective: Literal["final", "area", "worst"] = "final"
    """What to maximise: the interquartile mean over the seeds of the final greedy return, or of the return averaged
    over training; or the final return of the worst agent. pbt has only final."""
    pruner: Literal["median", "halving", "hyperband", "none"] = "median"
    """Which trials end at an evaluation: those below the median, from a quarter of training on, of the trials that were
    trained to their end; or those that Optuna's successive halving or Hyperband ends."""
    final_seeds: Annotated[int, count(1, 10_000)] = 16
    """Number of other seeds with which the best configuration is compared with the defaults."""
    out: Annotated[Path | None, FOLDER] = None
    """Folder of the search, new or empty (default: runs/<time>-tune-<preset>-<environment>)."""
    storage: str | None = None
    """Storage of Optuna, such as sqlite:///tune.db (default: a journal in the folder, study.log)."""
    devices: Annotated[int | None, count(1, 1024)] = None
    """Number of devices to use (default: all accelerators, or a core per agent)."""
    checkpoint_every: Annotated[float | None, SECONDS] = None
    """Seconds between checkpoints of pbt and of the comparison (default: 60, or longer where they would cost more)."""

    def __post_init__(self) -> None:
        check_fields(self)
        parse_space(self.config, self.tune)
        num_agents = self.trials * len(self.seeds)
        if num_agents > MAX_AGENTS:
            raise ValueError(f"trials is {self.trials}, but must be at most {MAX_AGENTS // len(self.seeds)} with "
                             f"{len(self.seeds)} seeds")  # fmt: skip
        if self.method == "pbt" and self.objective != "final":
            raise ValueError(f"objective is {self.objective}, but must be final for pbt, whose agents compete by "
                             f"their present returns")  # fmt: skip
        if self.method == "pbt" and num_agents < 5:
            raise ValueError(f"trials is {self.trials}, but must result in at least 5 agents for pbt (trials x seeds)")

    def train_options(self, configs: list[Config], seeds: range | None = None) -> TrainOptions:
        """Returns the options with which configurations are trained; here two of them may be equal."""
        return TrainOptions(swept=tuple(SweptConfig({}, config) for config in configs), seeds=seeds or self.seeds,
                            seed=self.seed, preset=f"tune-{self.preset}", devices=self.devices)  # fmt: skip

    def held_out(self) -> range:
        """Returns the seeds of the comparison, which come after those of the search."""
        first = self.seeds.stop if self.method != "pbt" else self.population().stop
        return range(first, first + self.final_seeds)

    def population(self) -> range:
        """Returns the seeds of the agents of population-based training."""
        return range(self.seeds.start, self.seeds.start + self.trials * len(self.seeds))

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as values that JSON can hold."""
        return {
            **{field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "out"},
            "config": self.config.to_dict(), "tune": list(self.tune), "seeds": [self.seeds.start, self.seeds.stop],
        }  # fmt: skip

    def require_same_search(self, earlier: "TuneOptions") -> None:
        """Refuses, by ValueError, options that would make a resumed search another one, or a shorter one."""
        now, before = (each.config.to_dict() | each.to_dict() for each in (self, earlier))
        for name in set(now) - {*MAY_CHANGE, "config"}:
            if now[name] != before[name]:
                raise ValueError(f"{name} is {now[name]!r}, but must be {before[name]!r}, as in {self.out}: a resumed "
                                 f"search may change only trials, final_seeds, devices and checkpoints")  # fmt: skip
        if self.trials < earlier.trials or (self.method == "pbt" and self.trials != earlier.trials):
            rule = "be" if self.method == "pbt" else "be at least"
            raise ValueError(f"trials is {self.trials}, but must {rule} {earlier.trials}, as in {self.out}")


def saved_options(folder: Path) -> tuple[TuneOptions, str]:
    """Returns the options with which the search in a folder was started, and the name of its study.

    Raises:
        ValueError: if it is not the folder of a search.
    """
    path = folder / "tune.json"
    try:
        content = json.loads(path.read_bytes())
        saved = content["options"]
        saved |= {"config": Config.from_dict(saved["config"]), "seeds": range(*saved["seeds"]), "out": folder}
        return TuneOptions(**saved), content["study"]
    except OSError as error:
        raise ValueError(f"resume is {folder}, but must be the folder of a search: it has no tune.json") from error
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
