"""The page of a search: its ranking, and a figure per tuned field."""

import optuna
import pytest
from optuna.trial import TrialState

from ddpg_jax.config import Config
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.population import Row
from ddpg_jax.search.search_report import population_parts, ranking, study_parts
from ddpg_jax.search.space import parse_space

OPTIONS = TuneOptions(config=Config(total_steps=200, eval_every=100), tune=("tau=uniform:0.1,0.5", "n_step=int:1,3",
                      "hidden_sizes=8,8x8"), seeds=range(2))  # fmt: skip
SPACE = parse_space(OPTIONS.config, OPTIONS.tune)


def study_of(values) -> optuna.Study:
    """Returns a study with a trial per value; None: it left after its first evaluation, at -9."""
    study = optuna.create_study(direction="maximize")
    for number, value in enumerate(values):
        study.enqueue_trial({"tau": 0.1 + number / 100, "n_step": 1 + number % 3, "hidden_sizes": "8x8"})
        trial = study.ask(SPACE.distributions())
        trial.report(-9.0, 100)
        trial.set_user_attr("env_steps", 100 if value is None else 200)
        if value is not None:
            trial.report(value, 200)
        study.tell(trial, value, state=TrialState.PRUNED if value is None else TrialState.COMPLETE)
    return study


def test_completed_trials_are_ranked_by_their_objective():
    columns, rows = ranking(study_of([-3.0, None, -1.0, -2.0]), SPACE)
    assert columns == ["rank", "trial", "objective", "tau", "n_step", "hidden_sizes"]
    assert rows == [["1", "2", "-1.00", "0.12", "3", "8x8"], ["2", "3", "-2.00", "0.13", "1", "8x8"],
                    ["3", "0", "-3.00", "0.1", "1", "8x8"]]  # fmt: skip


@pytest.mark.parametrize(
    ("values", "figures"), [([-3.0, None, -1.0], 4), ([-3.0, None, -1.0, -2.0, -4.0], 5), ([-1.0] * 5, 5)]
)
def test_there_is_a_figure_per_field_the_curves_and_from_four_completed_trials_on_the_importance(values, figures):
    text = "".join(study_parts(study_of(values), SPACE, OPTIONS))
    assert text.count("<svg") == figures
    assert ("Importance" in text) == (figures == 5)


def test_the_agent_steps_are_those_that_were_trained():
    study = study_of([-3.0, None, -1.0])
    diverged = study.ask(SPACE.distributions())  # before its first evaluation
    diverged.set_user_attr("env_steps", 100)
    study.tell(diverged, state=TrialState.PRUNED)
    interrupted = study.ask(SPACE.distributions())
    interrupted.report(-9.0, 100)
    study.tell(interrupted, state=TrialState.FAIL)
    text = "".join(study_parts(study, SPACE, OPTIONS))
    assert "and 2 left before it: 1,200 agent steps instead of 1,600" in text  # 2 seeds x (200 + 100 + 200 + 100)


def test_the_schedule_of_a_population_follows_its_ancestors():
    space = parse_space(OPTIONS.config, ["tau=uniform:0.1,0.5", "noise=ou,gaussian"])
    rows = [Row(step, agent, float(agent + step), 1, {"tau": 0.1 * (1 + agent) + step / 1000, "noise": "ou"})
            for step in (100, 200) for agent in (0, 1)]  # fmt: skip
    text = "".join(population_parts(rows, space))
    assert text.count("<svg") == 3
    for cells in (["100", "1", "101.0", "0.3", "ou"], ["200", "1", "201.0", "0.4", "ou"]):
        assert "".join(f"<td>{cell}</td>" for cell in cells) in text
    assert "<td>0.2</td>" not in text
