"""What a search says at its end of what it has found."""

import dataclasses
from unittest.mock import Mock

import numpy as np
import pytest
from results.made_up import CONFIG, trained

from ddpg_jax.results.comparison import compare_runs, runs_of
from ddpg_jax.search.options import TuneOptions
from ddpg_jax.search.tuning import BEST, DEFAULTS, SCHEDULE, Tuning
from ddpg_jax.sweep import as_swept

MORE = np.array([1.0, 1.1, 0.9, 1.2, 0.8, 1.0])
LUCK = np.array([-300.0, -100.0, -200.0, -150.0, -250.0, -120.0])


def conclusion(runs):
    """The conclusion of a comparison of {name: (final returns, diverged agents)}."""
    found = []
    for name, (final, diverged) in runs.items():
        history, summary = trained(final, diverged=diverged)
        found += [dataclasses.replace(each, name=name) for each in runs_of("", summary, history, as_swept(CONFIG))]
    return Tuning(CONFIG, {"tau": 0.1}, compare_runs(found), Mock()).conclusion()


def test_the_best_and_the_schedule_are_compared_with_the_defaults_in_pairs():
    runs = {DEFAULTS: (LUCK, []), BEST: (LUCK + MORE, []), SCHEDULE: (LUCK - 5, [])}
    best, schedule = conclusion(runs).split("; ")
    assert best.startswith("the best configuration is better than the defaults: +1.00 in final return, 95% [")
    assert schedule.startswith(
        "the schedule is worse than the defaults: -5.00 in final return, 95% [-5.00, -5.00], over 6"
    )


def test_too_few_pairs_are_no_verdict():
    text = conclusion({DEFAULTS: (LUCK[:4], []), BEST: (LUCK[:4] + 1, [])})
    assert text.startswith(
        "the best configuration differs from the defaults by +1.00 in final return, too few pairs for"
    )
    assert "nan" not in text


def test_defaults_that_all_diverged_are_not_what_a_schedule_is_compared_with():
    runs = {DEFAULTS: (LUCK, range(6)), BEST: (LUCK, []), SCHEDULE: (LUCK + 5, [])}
    assert conclusion(runs) == "with the defaults all agents diverged, so nothing can be compared with them"


def test_an_objective_that_a_population_does_not_have_is_refused():
    with pytest.raises(ValueError, match="objective is worst, but must be final for pbt"):
        TuneOptions(config=CONFIG, tune=("tau=uniform:0.1,0.2",), method="pbt", objective="worst")
