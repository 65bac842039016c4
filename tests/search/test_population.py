"""Population-based training: who copies from whom, ancestors, and a population that is resumed."""

import re

import numpy as np
import pytest
from small_runs import SMALL

from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.population import Row, evolve, exploit, follow, lineage, read_table, require_arrays, table
from ddpg_jax.search.space import parse_space
from ddpg_jax.training.progress import NullProgress

CONFIG = SMALL.replace(total_steps=240)
TUNE = ("actor_lr=loguniform:1e-4,1e-2", "noise_sigma=uniform:0.1,2")


def options_of(**changes) -> TuneOptions:
    given = {"config": CONFIG, "tune": TUNE, "method": "pbt", "trials": 5, "seeds": range(2), "checkpoint_every": 1e-9}
    return TuneOptions(**given | changes)


def evolve_all(options, progress=None):
    return evolve(parse_space(options.config, options.tune), options, progress or NullProgress(1))


class StopAtStep(NullProgress):
    """Ends the process, as a kill does, when agents have been evaluated at a step and before anything is saved."""

    def __init__(self, step):
        super().__init__(1)
        self.step = step

    def evaluated(self, env_steps, returns, optimum):
        if env_steps == self.step:
            raise KeyboardInterrupt


def test_the_worst_fifth_copy_the_best_fifth_and_those_that_diverged_copy_as_well():
    space = parse_space(CONFIG, ["tau=loguniform:0.001,1"])
    returns = np.array([3.0, np.nan, 9.0, 5.0, 1.0, 8.0, np.nan, 6.0, np.nan, 4.0])
    values = [{"tau": 0.01 + 0.01 * i} for i in range(10)]
    sources, moved = exploit(returns, values, space, np.random.default_rng(0))
    assert [i for i in range(10) if sources[i] != i] == [1, 6, 8]
    assert {*sources[[1, 6, 8]]} <= {2, 5}
    assert [moved[i] for i in range(10) if sources[i] == i] == [values[i] for i in range(10) if sources[i] == i]
    assert all(moved[i] != values[i] for i in (1, 6, 8))


def test_ancestors_are_found_through_copies():
    def row(step, agent, value, source):
        return Row(step, agent, value, source, {"tau": step + agent})

    rows = [row(10, 0, 1.0, 1), row(10, 1, 2.0, 1), row(10, 2, 0.0, 2),
            row(20, 0, 3.0, 0), row(20, 1, 2.0, 1), row(20, 2, 1.0, 0),
            row(30, 0, 4.0, 0), row(30, 1, np.nan, 1), row(30, 2, 5.0, 2)]  # fmt: skip
    assert [(each.env_steps, each.agent) for each in lineage(rows)] == [(10, 1), (20, 0), (30, 2)]


def test_a_table_reads_back_as_it_was_written(tmp_path):
    rows = [Row(10, 0, 1 / 3, 1, {"tau": 0.1 + 0.2, "noise": "ou"}), Row(10, 1, np.nan, 1, {"tau": 1.0, "noise": "ou"})]
    (tmp_path / "population.csv").write_text(table(rows))
    found = read_table(tmp_path / "population.csv")
    assert found[0] == rows[0]
    assert np.isnan(found[1].greedy_return)
    assert found[1].values == rows[1].values


def test_a_population_that_is_resumed_has_the_bits_of_one_that_was_not(tmp_path):
    whole = evolve_all(options_of())
    assert len(whole) == 40
    assert any(row.source != row.agent for row in whole)
    options = options_of(out=tmp_path)
    for step in (120, 240):
        with pytest.raises(KeyboardInterrupt):
            evolve_all(options, StopAtStep(step))
        (tmp_path / "population.csv").write_text(table(whole))  # which is written before the checkpoint
    assert evolve_all(options) == whole
    assert read_table(tmp_path / "population.csv") == whole
    assert evolve_all(options) == whole  # a finished one


def test_agents_act_as_their_source_and_those_that_diverged_learn_again():
    config = CONFIG.replace(actor_lr=1e-30)  # greedy returns change only by copies
    rows = evolve_all(options_of(config=config, tune=("critic_lr=0.001,1e29",)))
    at = {(row.env_steps, row.agent): row for row in rows}
    copies = [(row, at[row.env_steps + 60, row.agent]) for row in rows if row.source != row.agent]
    sane = [(row, after) for row, after in copies if after.values["critic_lr"] < 1]
    assert any(np.isnan(row.greedy_return) for row, _ in sane)
    for row, after in sane:
        assert after.greedy_return == at[row.env_steps, row.source].greedy_return


def test_a_schedule_trains_new_agents_with_its_values():
    options, space = options_of(), parse_space(CONFIG, TUNE)
    slow, fast = ({"actor_lr": lr, "noise_sigma": 1.2} for lr in (1e-4, 1e-2))

    def returns(*values):
        path = [Row(120 * (i + 1), 0, 0.0, 0, each) for i, each in enumerate(values)]
        curve, final = follow(path, space, options, range(20, 23), NullProgress(1))
        assert final.shape == (3,)
        return curve

    constant, changed = returns(slow, slow), returns(slow, fast)
    assert constant.shape == (2, 3)
    assert (constant[0] == changed[0]).all()
    assert (constant[1] != changed[1]).all()


def test_what_is_compiled_cannot_be_tuned():
    options = options_of(tune=("tau=0.1,0.2", "batch_size=4,8", "hidden_sizes=8,8x8"))
    with pytest.raises(
        ValueError, match=re.escape("tune names batch_size, hidden_sizes, but must name with method pbt")
    ):
        require_arrays(parse_space(options.config, options.tune), options)
    allowed = options_of(tune=("noise=ou,gaussian", "gamma=0.9,0.99", "target_noise=uniform:0.1,0.3"))
    require_arrays(parse_space(allowed.config, allowed.tune), allowed)
