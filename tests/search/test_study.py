"""The search with Optuna: what trials are worth, who leaves, and what an interrupted search trains again."""

import json

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from small_runs import SMALL, quiet

import ddpg_jax
from ddpg_jax.results.statistics import iqm
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.space import parse_space
from ddpg_jax.search.study import MedianPruner, open_study, search

CONFIG = SMALL.replace(total_steps=240)
TUNE = ("actor_lr=loguniform:1e-4,1e-2", "critic_lr=loguniform:1e-4,1e-2")


def options_of(**changes) -> TuneOptions:
    given = {"config": CONFIG, "tune": TUNE, "trials": 6, "seeds": range(4), "batch": 4, "pruner": "none"}
    return TuneOptions(**given | changes)


def search_all(options, study=None):
    """Runs a search to its end, and returns its study."""
    study = study or open_study(options, "study")
    search(study, parse_space(options.config, options.tune), options, quiet())
    return study


class DropEverything(optuna.pruners.BasePruner):
    """Remembers how many trials had been reported when it was first asked, and drops all."""

    reported = None

    def prune(self, study, trial):
        self.reported = self.reported or sum(bool(each.intermediate_values) for each in study.get_trials())
        return True


@pytest.fixture(scope="module")
def whole():
    return search_all(options_of())


def test_an_objective_is_that_of_training_the_configuration_alone(whole):
    assert [trial.state for trial in whole.trials] == [TrialState.COMPLETE] * 6
    trial = whole.trials[5]
    result = ddpg_jax.train(CONFIG.replace(**trial.params), seeds=4, progress=False)
    assert trial.value == iqm(result.summary.per_agent_selection_return)


def test_the_objective_can_be_the_return_of_the_worst_agent():
    study = search_all(options_of(objective="worst", trials=1))
    result = ddpg_jax.train(CONFIG.replace(**study.trials[0].params), seeds=4, progress=False)
    assert study.trials[0].value == np.min(result.summary.per_agent_selection_return)


def test_the_objective_can_be_the_return_averaged_over_training():
    study = search_all(options_of(objective="area", trials=1, seeds=range(1), config=CONFIG.replace(eval_every=120)))
    returns = study.trials[0].intermediate_values
    assert study.trials[0].value == pytest.approx((returns[120] + returns[240]) / 2)
    assert returns[120] != returns[240]


def test_trials_that_stay_are_worth_what_they_are_worth_without_pruning(whole):
    study = search_all(options_of(pruner="halving"))
    pruned = [trial for trial in study.trials[:4] if trial.state == TrialState.PRUNED]
    assert 0 < len(pruned) < 4
    for trial, same in zip(study.trials[:4], whole.trials[:4], strict=True):
        assert trial.params == same.params
        assert trial.intermediate_values.items() <= same.intermediate_values.items()
        assert trial in pruned or trial.value == same.value


@pytest.mark.parametrize(("value", "pruned"), [(3.9, True), (4.1, False)])
def test_the_median_pruner_compares_the_present_return_with_that_of_completed_trials(value, pruned):
    study = optuna.create_study(direction="maximize", pruner=MedianPruner(first_step=20))
    for at_20 in (2.0, 3.0, 4.0, 5.0, 6.0, 100.0):  # the last is not trained to its end
        trial = study.ask()
        trial.report(at_20, 20)
        study.tell(trial, None if at_20 == 100 else 7.0, state=TrialState.PRUNED if at_20 == 100 else None)
    trial = study.ask()
    trial.report(1.0, 10)
    assert not trial.should_prune()
    trial.report(value, 20)
    assert trial.should_prune() == pruned
    high_at_first = study.ask()
    high_at_first.report(50.0, 10)
    high_at_first.report(3.9, 20)
    assert high_at_first.should_prune()


def test_a_pruner_that_drops_everything_leaves_the_best_of_a_batch(whole):
    pruner = DropEverything()
    study = search_all(options_of(trials=4), optuna.create_study(direction="maximize", pruner=pruner))
    assert pruner.reported == 4
    at_first = [trial.intermediate_values[60] for trial in whole.trials[:4]]
    states = [TrialState.PRUNED] * 4
    states[int(np.argmax(at_first))] = TrialState.COMPLETE
    assert [trial.state for trial in study.trials] == states


def test_trials_of_an_interrupted_process_are_asked_again_and_told_ones_are_kept(whole, tmp_path):
    options = options_of(out=tmp_path)
    study = search_all(options_of(trials=4), open_study(options, "study"))
    study.sampler = optuna.samplers.RandomSampler(seed=7)
    left = [study.ask(parse_space(CONFIG, TUNE).distributions()).params for _ in range(2)]
    with open(tmp_path / "study.log", "a") as journal:
        journal.write('{"op_code": 4, "wor')  # a kill within a write leaves this, and the lock
    (tmp_path / "study.log.lock").symlink_to(tmp_path / "study.log")
    trials = search_all(options, open_study(options, "study", resume=True)).trials
    states = [TrialState.COMPLETE] * 4 + [TrialState.FAIL] * 2 + [TrialState.COMPLETE] * 2
    assert [trial.state for trial in trials] == states
    assert [trial.params for trial in trials[6:]] == left
    assert [trial.value for trial in trials[:4]] == [trial.value for trial in whole.trials[:4]]
    assert all(json.loads(line) for line in (tmp_path / "study.log").read_text().splitlines())


def test_two_new_studies_in_a_storage_do_not_become_one(tmp_path):
    options = options_of(storage=f"sqlite:///{tmp_path / 'tune.db'}")
    open_study(options, "study")
    with pytest.raises(ValueError, match="study"):
        open_study(options, "study")
    assert open_study(options, "study", resume=True).study_name == "study"


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_a_search_that_continues_asks_for_what_it_would_have_asked_for(method):
    whole = search_all(options_of(method=method, trials=6, batch=3))
    assert len({trial.params["actor_lr"] for trial in whole.trials}) == 6
    study = search_all(options_of(method=method, trials=3, batch=3))
    assert [trial.params for trial in study.trials] == [trial.params for trial in whole.trials[:3]]
    search_all(options_of(method=method, trials=6, batch=3), study)
    assert [(trial.params, trial.value) for trial in study.trials] == [
        (trial.params, trial.value) for trial in whole.trials
    ]


def test_equal_trials_are_trained_once_and_refused_values_not_at_all():
    tune = ("learning_starts=20,100", "replay_capacity=50,100")
    study = search_all(options_of(tune=tune, trials=8, config=CONFIG.replace(total_steps=60, eval_every=60)))
    told = [trial for trial in study.trials if trial.state == TrialState.COMPLETE]
    reasons = {trial.user_attrs.get("refused", "").split(" ")[0] for trial in study.trials}
    assert len(study.trials) == 8
    assert len({tuple(trial.params.items()) for trial in told}) == len(told) <= 3
    assert reasons == {"", "equal", "learning_starts"}


def test_trials_with_an_agent_that_diverges_count_as_pruned():
    config = CONFIG.replace(critic_lr=1e30)
    study = search_all(options_of(config=config, tune=("tau=0.5,1",), trials=2, method="random", seed=1))
    assert {trial.state for trial in study.trials} <= {TrialState.PRUNED, TrialState.FAIL}
    assert study.trials[0].user_attrs == {"diverged": True, "env_steps": 60}
