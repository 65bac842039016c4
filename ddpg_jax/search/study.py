"""A search with Optuna: batches of trials are asked for, trained together, pruned at evaluations, and told."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, HyperbandPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import RandomSampler, TPESampler
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from ddpg_jax.results.statistics import area_under_curve, iqm
from ddpg_jax.search.batch import Batch
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.space import Space
from ddpg_jax.training.plan import make_plan
from ddpg_jax.training.progress import Progress
from ddpg_jax.training.run import evaluation_steps


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Lets Optuna report only errors, until the end of the `with` statement."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


def open_study(options: TuneOptions, name: str, *, resume: bool = False) -> optuna.Study:
    """Returns a new study of this name, or the one to resume; without a folder it is in memory.

    Raises:
        ValueError: if the storage cannot be used.
    """
    storage: Any = options.storage
    if storage is None and options.out is not None:
        journal = options.out.absolute() / "study.log"  # a lock with a relative path would never be released
        _remove_remains(journal)
        storage = JournalStorage(JournalFileBackend(str(journal)))
    try:
        return optuna.create_study(storage=storage, study_name=name, direction="maximize", pruner=_pruner(options),
                                   load_if_exists=resume)  # fmt: skip
    except Exception as error:  # of many kinds, by the database
        reason = str(error).splitlines()[0]
        raise ValueError(f"storage is {options.storage}, but must be one that Optuna can open: {reason}") from error


def _remove_remains(journal: Path) -> None:
    """Removes what a kill within a write has left: Optuna's lock, and a line that was cut short."""
    Path(f"{journal}.lock").unlink(missing_ok=True)  # no other process writes, because the folder is locked
    if journal.exists() and not (data := journal.read_bytes()).endswith(b"\n"):
        with open(journal, "r+b") as file:
            file.truncate(data.rfind(b"\n") + 1)


class MedianPruner(BasePruner):
    """Ends a trial that is below the median, at the same step, of the trials that were trained to their end.

    Optuna's own compares the best return so far, by which few agents would end: in many tasks a policy that has not
    learned yet has a higher return than one that has begun to learn.
    """

    def __init__(self, first_step: int, least: int = 5) -> None:
        """Prunes from this step on, where there are at least so many trials to compare with."""
        self.first_step, self.least = first_step, least

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Returns whether a trial ends at its last step."""
        step, complete = trial.last_step, study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if step is None or step < self.first_step or len(complete) < self.least:
            return False
        values = [each.intermediate_values[step] for each in complete if step in each.intermediate_values]
        return bool(trial.intermediate_values[step] < np.median(values))


def _pruner(options: TuneOptions) -> BasePruner:
    total = options.config.total_steps
    first = max(options.config.eval_every, total // 8)
    if options.pruner == "median":
        return MedianPruner(first_step=total // 4)
    if options.pruner == "halving":
        return SuccessiveHalvingPruner(min_resource=first, reduction_factor=2)
    if options.pruner == "hyperband":
        return HyperbandPruner(min_resource=first, max_resource=total, reduction_factor=2)
    return NopPruner()


def finished_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Returns the trials that were told, except those that an interrupted process has left."""
    done = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    trials = study.get_trials(deepcopy=False, states=done)
    return [trial for trial in trials if trial.state != TrialState.FAIL or "refused" in trial.user_attrs]


def search(study: optuna.Study, space: Space, options: TuneOptions, progress: Progress) -> None:
    """Asks for trials, trains and tells them, until there are `options.trials`.

    Trials that an earlier process was training are told as failed, and asked again before others.
    """
    agent_steps = len(options.seeds) * space.base.total_steps
    progress.compiling("compiling")
    progress.advanced(agent_steps * len(finished_trials(study)), resumed=True)
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        study.enqueue_trial(trial.params, user_attrs={"again": trial.number})
        study.tell(trial.number, state=TrialState.FAIL)
    while (num := len(finished_trials(study))) < options.trials:
        waiting = len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
        # A new sampler for each batch, so that a search that was resumed asks for what it would have asked for.
        study.sampler = (RandomSampler if options.method == "random" else TPESampler)(seed=options.seed + 1000 * num)
        size = min(options.trials - num, waiting or options.batch)
        asked = [trial for trial in (_ask(study, space) for _ in range(size)) if trial]
        progress.advanced(agent_steps * (size - len(asked)), resumed=True)
        if asked:
            _train(study, asked, space, options, progress)


def _ask(study: optuna.Study, space: Space) -> Trial | None:
    """Returns a new trial; None if its values are refused together, or are those of another one: it was told so."""
    others = study.get_trials(states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING))
    trial = study.ask(space.distributions())
    reason = next((f"equal to trial {each.number}" for each in others if each.params == trial.params), None)
    try:
        space.config(trial.params)
    except ValueError as error:
        reason = str(error)
    if reason is None:
        return trial
    trial.set_user_attr("refused", reason)
    study.tell(trial, state=TrialState.FAIL)
    return None


def _train(study: optuna.Study, trials: list[Trial], space: Space, options: TuneOptions, progress: Progress) -> None:
    """Trains a batch of trials. Those that are pruned leave, and so do those with an agent that has diverged."""
    plan = make_plan(options.train_options([space.config(trial.params) for trial in trials]))
    score = np.min if options.objective == "worst" else iqm
    total, steps, curves, running = space.base.total_steps, evaluation_steps(space.base), [], [*range(len(trials))]
    with Batch(plan, progress, plan.task.selection_starts) as batch:
        for step in steps:
            batch.advance(step)
            curves.append(batch.evaluate(final=step == total))
            finite = [i for i in running if np.isfinite(curves[-1][i]).all()]
            scores = {i: float(score(curves[-1][i])) for i in finite}
            progress.evaluated(step, np.array([*scores.values()]), None)
            for i in finite:  # all are reported before the first is pruned
                trials[i].report(scores[i], step)
            stay = finite if step == total else [i for i in finite if not trials[i].should_prune()]
            stay = stay or sorted(finite, key=lambda i: -scores[i])[:1]  # the best, rather than nobody
            for i in set(running) - set(stay):  # Samplers avoid trials that were pruned, but ignore failed ones.
                if i not in finite:
                    trials[i].set_user_attr("diverged", True)
                trials[i].set_user_attr("env_steps", step)
                study.tell(trials[i], state=TrialState.PRUNED)
            progress.advanced(len(options.seeds) * (total - step) * (len(running) - len(stay)), resumed=True)
            batch.keep(stay)
            running = stay
    for i in running:
        trials[i].set_user_attr("env_steps", total)
        area = iqm(area_under_curve(np.array(steps), np.array([returns[i] for returns in curves])))
        study.tell(trials[i], float(area) if options.objective == "area" else scores[i])
    progress.message(_describe(study, trials))


def _describe(study: optuna.Study, trials: list[Trial]) -> str:
    told = [study.get_trials(deepcopy=False)[trial.number] for trial in trials]
    pruned = sum(trial.state == TrialState.PRUNED for trial in told)
    best = best_trial(study)
    text = f"best {best.value:,.1f} of trial {best.number}" if best else "none has finished"
    return f"trials {told[0].number} to {told[-1].number}: {pruned} of {len(told)} left early; {text}"


def best_trial(study: optuna.Study) -> FrozenTrial | None:
    """Returns the trial with the highest objective; None if none was trained to its end."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(complete, key=lambda trial: trial.value or 0.0, default=None)  # the first of equal ones
