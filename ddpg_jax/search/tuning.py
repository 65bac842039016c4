"""A search from its options to its end: a comparison of what it has found with the defaults, on other seeds."""

import dataclasses
import shutil
import time
import uuid
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ddpg_jax import api
from ddpg_jax.config import Config
from ddpg_jax.presets import preset
from ddpg_jax.results.comparison import Comparison, Run, compare_runs, runs_of
from ddpg_jax.search import search_report
from ddpg_jax.search.batch import SearchFailedError
from ddpg_jax.search.options import TuneOptions, saved_options
from ddpg_jax.search.population import Row, evolve, follow, lineage, require_arrays
from ddpg_jax.search.space import Space, describe, parse_space
from ddpg_jax.search.study import best_trial, open_study, quiet_optuna, search
from ddpg_jax.sweep import preset_of
from ddpg_jax.training.devices import pinned_jax_config, use_all_cores_if_not_started, use_compilation_cache
from ddpg_jax.training.files import write_text
from ddpg_jax.training.plan import make_plan
from ddpg_jax.training.progress import make_progress
from ddpg_jax.training.result import Result
from ddpg_jax.training.run_folder import RunFolder, versions, write_json
from ddpg_jax.training.run_folder import saved_options as run_options

DEFAULTS, BEST, SCHEDULE = "defaults", "best", "schedule"
"""The names in the comparison."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """The result of a search."""

    best: Config
    """The configuration with the highest objective; of a population, with the last values of its best agent."""
    values: Mapping[str, Any]
    """Its tuned fields."""
    comparison: Comparison
    """It and the defaults, trained with seeds that the search has not used; of a population also its schedule."""
    result: Result
    """The training of the best and the defaults for the comparison."""
    study: Any = None
    """The `optuna.Study`; None for a population."""
    population: list[Row] | None = None
    """The agents at each evaluation; None for a study."""
    folder: Path | None = None

    def __repr__(self) -> str:
        return f"Tuning({describe(self.values)}: {self.conclusion()})"

    def conclusion(self) -> str:
        """Returns in a sentence how the best configuration, and the schedule, compare with the defaults."""
        if self.comparison.rows[0].run != DEFAULTS:
            return "with the defaults all agents diverged, so nothing can be compared with them"
        texts = []
        for row in self.comparison.rows[1:]:
            subject = "schedule" if row.run == SCHEDULE else "best configuration"
            if row.num_pairs:
                texts.append(f"the {subject} {_verdict(*row.difference)}, over {row.num_pairs} pairs of seeds that the "
                             f"search has not used")  # fmt: skip
        return "; ".join(texts) or "there is nothing to compare with the defaults"


def _verdict(middle: float, low: float, high: float) -> str:
    """Returns in words what a difference from the defaults says, with its interval if there are enough pairs."""
    if not np.isfinite(low):
        return f"differs from the defaults by {middle:+.2f} in final return, too few pairs for an interval"
    verdict = "is better than" if low > 0 else "is worse than" if high < 0 else "cannot be told from"
    return f"{verdict} the defaults: {middle:+.2f} in final return, 95% [{low:.2f}, {high:.2f}]"


def tune(
    config: Config | str = "pendulum",
    space: Mapping[str, str] | None = None,
    *,
    out: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
    **options: Any,
) -> Tuning:
    """Searches for hyperparameters with Optuna, and compares the best with the defaults on other seeds.

    `python -m ddpg_jax.tune` does the same, and describes all options.

    Args:
        config: a `Config` or the name of a preset: the defaults, and the values of what is not tuned.
        space: what to tune, such as {"actor_lr": "loguniform:1e-4,1e-2", "hidden_sizes": "64x64,128x64"}.
        out: a new or empty folder; default: everything stays in memory.
        resume: continue the search in `out`, with equal arguments, or more trials.
        progress: show progress, with an estimate of the time left.
        options: `method` ("tpe", "random" or "pbt"), `trials`, `seeds` (of each trial), `seed` (the root seed),
            `batch`, `objective`, `pruner`, `final_seeds`, `storage`, `devices`, `checkpoint_every`.

    Raises:
        ValueError: names an argument, its value and the rule that it breaks.
        OSError: if something cannot be written.
        SearchFailedError: if agents have diverged with all values that were tried.
    """
    base = preset(config) if isinstance(config, str) else config
    texts = tuple(f"{name}={text}" for name, text in (space or {}).items())
    checked = TuneOptions(config=base, preset=preset_of(base), tune=texts, out=Path(out) if out else None, **options)
    use_all_cores_if_not_started()
    use_compilation_cache()
    return run_search(checked, resume=resume, progress=progress)


@pinned_jax_config()
def run_search(options: TuneOptions, *, resume: bool, progress: bool) -> Tuning:
    """Runs a search to its end (see `tune`)."""
    # Searches that begin in the same second may share a storage.
    name = f"ddpg_jax {time.strftime('%Y-%m-%d %H:%M:%S')} {uuid.uuid4().hex[:8]}"
    space = parse_space(options.config, options.tune)
    if resume:
        if options.out is None:
            raise ValueError("resume is True, but must be given with out, the folder of the search")
        earlier, name = saved_options(options.out)
        options.require_same_search(earlier)
    make_plan(options.train_options([options.config] * min(options.batch, options.trials)))
    if options.method == "pbt":
        require_arrays(space, options)
    with ExitStack() as stack:
        stack.enter_context(quiet_optuna())
        if options.out is not None:
            stack.enter_context(RunFolder(options.out) if resume else RunFolder.create(options.out))
        study = None if options.method == "pbt" else open_study(options, name, resume=resume)
        if options.out is not None:
            about = {"study": name, "versions": versions(options.config.env_id)}
            write_json(options.out / "tune.json", {"options": options.to_dict(), **about})
        return _search_and_compare(options, space, study, progress)


def _search_and_compare(options: TuneOptions, space: Space, study: Any, progress: bool) -> Tuning:
    rows: list[Row] | None = None
    with make_progress(progress, options.trials * len(options.seeds) * options.config.total_steps) as shown:
        if study is None:
            rows = evolve(space, options, shown)
            last = lineage(rows)[-1]
            values, which = last.values, f"agent-{last.agent}"
        else:
            search(study, space, options, shown)
            best = best_trial(study)
            if best is None:
                raise SearchFailedError("no trial was trained to its end without diverging: tune within other ranges")
            values, which = space.values(best.params), f"trial-{best.number}"
        config = space.config(values)
        if options.out is not None:
            write_json(options.out / "best.json", config.to_dict())
        found = f"{which.replace('-', ' ')} is the best: {describe(values)}"
        shown.message(f"{found}; now it and the defaults train with {options.final_seeds} other seeds")
    result, runs = _train_both(options, config, which, progress)
    if rows:
        runs.append(_train_schedule(options, space, lineage(rows), runs[0], progress))
    tuning = Tuning(config, values, compare_runs(runs), result, study, rows, options.out)
    if options.out is not None:
        _write(tuning, options, space)
    return tuning


def _train_both(options: TuneOptions, config: Config, which: str, progress: bool) -> tuple[Result, list[Run]]:
    """Trains the defaults and the best configuration with the held-out seeds, in a folder of their own."""
    out, resume = options.out and options.out / f"final-{which}", False
    if out is not None:
        resume = (out / "config.json").exists() and run_options(out).seeds == options.held_out()
        if out.exists() and not resume:  # killed before the training began, or of another number of seeds
            shutil.rmtree(out)
    result = api.train([*dict.fromkeys([options.config, config])], seeds=options.held_out(), seed=options.seed, out=out,
                       resume=resume, devices=options.devices, checkpoint_every=options.checkpoint_every,
                       progress=progress)  # fmt: skip
    if not result.summary.complete:
        raise KeyboardInterrupt
    runs = runs_of("", result.summary, result.history, result.configs)
    return result, [dataclasses.replace(run, name=name) for run, name in zip(runs, (DEFAULTS, BEST), strict=False)]


def _train_schedule(options: TuneOptions, space: Space, path: list[Row], like: Run, progress: bool) -> Run:
    """Trains the schedule of a population's best agent with the held-out seeds, for the comparison with `like`."""
    seeds = options.held_out()
    with make_progress(progress, len(seeds) * options.config.total_steps) as shown:
        returns, final = follow(path, space, options, seeds, shown)
    kept, steps = np.isfinite(final), np.array([row.env_steps for row in path])
    return dataclasses.replace(like, name=SCHEDULE, steps=steps, returns=returns[:, kept], final=final[kept],
                               num_diverged=int(np.sum(~kept)), seeds=seeds.start + np.flatnonzero(kept))  # fmt: skip


def _write(tuning: Tuning, options: TuneOptions, space: Space) -> None:
    """Writes the tables and the page of a search into its folder."""
    assert options.out is not None
    if tuning.study is not None:
        table = tuning.study.trials_dataframe(attrs=("number", "state", "value", "params", "user_attrs"))
        write_text(options.out / "trials.csv", table.to_csv(index=False))
        parts = search_report.study_parts(tuning.study, space, options)
    else:
        parts = search_report.population_parts(tuning.population or [], space)
    write_text(options.out / "report.html", search_report.page(options, tuning.conclusion(), tuning.comparison, parts))
