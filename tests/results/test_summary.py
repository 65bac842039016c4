"""The summary of a run: its statistics, its notes, and that it is read back from JSON."""

import json

import numpy as np
import pytest
from made_up import CONFIG, swept, trained

from ddpg_jax.results.summary import Finals, Summary, summarize_config
from ddpg_jax.sweep import SweptConfig, as_swept

CATEGORICAL = CONFIG.replace(critic_atoms=11, value_min=-10.0, value_max=5.0, reward_scale=0.5)


def test_summary_of_one_configuration():
    _, summary = trained([-130, -120, -125, -140, -500, -126], diverged=[4], first_seed=8, at_bounds=[0, 4])
    assert (summary.num_agents, summary.seeds, summary.diverged) == (6, (8, 14), {12: 15})
    assert summary.best_agent == 9  # by its number
    assert summary.final_return.iqm == pytest.approx((-130 - 126 - 125) / 3)
    assert summary.final_return.iqm_ci95 == (-140.0, -120.0)
    assert summary.final_shortfall.num_solved == 4
    assert summary.train_return_last_40.worst == pytest.approx(-140 - 250)
    assert summary.always_at_bounds == [8]
    assert summary.updates_per_second == 6 * 15 / 0.5
    assert (summary.configs, summary.notes) == (None, [])
    assert repr(summary) == "Summary(6 agents, Pendulum-v1, IQM -127.0 [-140.0, -120.0])"


def test_configurations_of_a_sweep_are_summarized_one_by_one():
    configs = swept(tau=[0.1, 0.2])
    history, summary = trained([[-130, -131], [-120, -220]], configs, diverged=[3], first_seed=4)
    first, second = summary.configs
    assert (first.values, second.values) == ({"tau": 0.1}, {"tau": 0.2})
    assert (first.num_diverged, second.num_diverged) == (0, 1)
    assert (first.final_return.iqm, second.final_return.iqm) == (-130.5, -120.0)
    assert (first.rank, second.rank) == (2, 1)
    assert first.against_best.iqm == -10.0  # of the one pair that is left
    assert summary.ranked() == [second, first]
    assert summary.swept_fields == ["tau"]
    assert repr(summary) == "Summary(2 configs x 2 seeds, Pendulum-v1, IQM -120.0 of tau=0.2)"
    finals = (summary.per_agent_final_return, summary.per_agent_final_shortfall, summary.per_agent_selection_return,
              summary.per_agent_share_at_bounds)  # fmt: skip
    one = summarize_config(summary, 1, history.select([2, 3]), Finals(*(each[2:] for each in finals)), configs[1])
    assert (one.num_agents, one.final_return.mean, one.configs, one.best_agent) == (2, -120.0, None, 6)
    assert one.updates_per_agent == 15


@pytest.mark.parametrize("summary", [
    trained([-1])[1], trained([[-130, -131], [-120, np.nan]], swept(hidden_sizes=[(8,), (8, 8)]), diverged=[3])[1],
])  # fmt: skip
def test_summary_comes_back_from_json(summary):
    content = summary.to_dict()
    assert Summary.from_dict(json.loads(json.dumps(content, allow_nan=False))).to_dict() == content
    read = Summary.from_dict(content)
    assert isinstance(read.per_agent_final_return, np.ndarray)
    assert (read.diverged, read.seeds) == (summary.diverged, summary.seeds)
    assert np.isnan(read.final_return.iqm_ci95).all()


@pytest.mark.parametrize("content", [{}, {"final_return": 3}, {"unknown": 1}])
def test_damaged_summary_is_refused(content):
    with pytest.raises(ValueError, match=r"summary\.json cannot be read"):
        Summary.from_dict(content)


def test_stopped_run_has_measurements_but_no_final_returns():
    _, summary = trained([-130, -120, -125, -124, -123], complete=False)
    assert np.isnan(summary.final_return.iqm)
    assert (summary.complete, summary.best_agent, summary.eval_return.iqm) == (False, None, -124.0)
    assert repr(summary) == "Summary(5 agents, Pendulum-v1, no IQM, stopped early)"


@pytest.mark.parametrize(("final", "diverged", "notes"), [
    ([-1] * 5, [1], ["fewer than 5 agents: no interval"]),
    ([-1] * 5, range(5), []),
    ([[-1] * 5] * 2, (), []),
    ([[-1] * 5] * 2, [1], ["configurations with fewer than 5 agents: no interval"]),
])  # fmt: skip
def test_few_agents_get_one_note(final, diverged, notes):
    configs = swept(tau=[0.1, 0.2]) if np.ndim(final) == 2 else None
    assert trained(final, configs, diverged=diverged)[1].notes == notes


def test_note_says_which_share_of_targets_was_clipped_and_what_to_set():
    summary = trained([-1] * 5, as_swept(CATEGORICAL), clipped=0.25)[1]
    np.testing.assert_allclose(summary.per_agent_clipped_targets, 0.25, rtol=1e-6)
    (note,) = summary.notes
    assert note == (
        "25.0% of the critic's targets were outside [value_min, value_max] = [-10, 5] and were clipped: set both so "
        "that they hold the discounted returns times reward_scale (0.5)"
    )
    assert trained([-1] * 5, as_swept(CATEGORICAL), clipped=0.01)[1].notes == []
    assert trained([-1] * 5, clipped=0.25)[1].notes == []  # not a categorical critic
    assert trained([-1] * 5)[1].per_agent_clipped_targets is None


def test_title_names_the_preset_unless_a_sweep_compares_presets():
    configs = [SweptConfig({"preset": name}, CONFIG) for name in ("pendulum", "keras")]
    assert trained([[-1, -2]] * 2, configs)[1].subject == "Pendulum-v1"
    assert trained([-1])[1].subject == "pendulum on Pendulum-v1"
