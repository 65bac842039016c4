"""Tests sweeps: the points of a command line, the agents of each point, and the report."""

import csv
import json
import math
from dataclasses import replace

import numpy as np
import pytest
from command import _compiled, main, results, stopped_after
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from ddpg_jax import load_policy
from ddpg_jax.algorithm.types import StepLog
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.presets import PRESETS
from ddpg_jax.results import report, statistics, sweep_plots
from ddpg_jax.results.history import History
from ddpg_jax.results.summary import Seconds, WaveResult, summarize
from ddpg_jax.results.tables import points_csv
from ddpg_jax.run import parse
from ddpg_jax.runs.sweep import COMMON, Point, make_points


def values_of(*sweeps, samples=None, seed=0):
    points = make_points(sweeps, samples, seed, lambda changes: Config(**changes))
    assert all(getattr(point.config, name) == value for point in points for name, value in point.values)
    return [dict(point.values) for point in points]


def test_grid_has_every_combination():
    assert values_of("actor_lr=3e-4,1e-3", "tau=0.005,0.01,0.02") == [
        {"actor_lr": lr, "tau": tau} for lr in (3e-4, 1e-3) for tau in (0.005, 0.01, 0.02)
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("batch_size=32,64", [32, 64]),
        ("gamma=0,1", [0.0, 1.0]),
        ("hidden-sizes=64x64,128,none", [(64, 64), (128,), ()]),
        ("critic_hidden_sizes=None,8x8", [None, (8, 8)]),
        ("max_episode_steps=None,100", [None, 100]),
        ("actor_final_init=None,0.003", [None, 0.003]),
        ("noise=ou,gaussian", ["ou", "gaussian"]),
        ("noise_reset=true,False", [True, False]),
        ("noise_mean=-1,0.5", [-1.0, 0.5]),
    ],
)
def test_values_have_the_types_of_their_fields(text, expected):
    found = [next(iter(values.values())) for values in values_of(text)]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@given(samples=st.integers(1, 30), seed=st.integers(0, 1000))
def test_random_search_draws_different_points_within_their_bounds(samples, seed):
    sweeps = (
        "actor_lr=loguniform:1e-4,1e-2",
        "noise_theta=uniform:0.1,0.5",
        "batch_size=uniform:32,256",
        "tau=0.01,0.1",
    )
    found = values_of(*sweeps, samples=samples, seed=seed)
    assert len({tuple(values.items()) for values in found}) == samples
    for values in found:
        assert 1e-4 <= values["actor_lr"] <= 1e-2
        assert float(f"{values['actor_lr']:.3g}") == values["actor_lr"]
        assert 0.1 <= values["noise_theta"] <= 0.5
        assert isinstance(values["batch_size"], int)
        assert 32 <= values["batch_size"] <= 256
        assert values["tau"] in (0.01, 0.1)
    assert found == values_of(*sweeps, samples=samples, seed=seed)
    assert found != values_of(*sweeps, samples=samples, seed=seed + 1)


def test_loguniform_spreads_over_the_magnitudes():
    drawn = [values["actor_lr"] for values in values_of("actor_lr=loguniform:1e-6,1", samples=3000)]
    counts, _ = np.histogram(np.log10(drawn), bins=6, range=(-6, 0))
    np.testing.assert_allclose(counts, 500, atol=5 * math.sqrt(500))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["tau"], "sweep is 'tau', but must be FIELD=VALUE,VALUE,… or FIELD=loguniform:LOW,HIGH"),
        (["tau="], "sweep is 'tau=', but must be FIELD"),
        (["tua=0.1,0.2"], "must name a field of the configuration or preset; did you mean tau?"),
        (["total_steps=10,20"], "must not be over total_steps, which all points share"),
        (["tau=0.1,0.1"], "must give each value once"),
        (["tau=0.1,,0.2"], "must not have an empty value"),
        (["tau=0.1,x"], "sweep is 'tau=0.1,x': tau is 'x', but must be a finite number"),
        (["tau=0.1", "tau=0.2"], "must name each field once"),
        (["tau=0.1,2"], "sweep is 'tau=0.1,2': tau is 2.0, but must be in (0, 1]"),
        (["batch_size=8,1.5"], "batch_size is 1.5, but must be a whole number"),
        (["batch_size=8,1000"], "replay_capacity is 100, but must be at least batch_size, 1000"),
        (["hidden_sizes=8xa"], "hidden_sizes is [8, 'a'], but must be whole numbers"),
        (["noise=ou,pink"], "noise is 'pink', but must be one of"),
        (["noise=uniform:0,1"], "must list the values of noise, which is not a number"),
        (["noise_reset=1"], "noise_reset is '1', but must be True or False"),
        (["tau=normal:0,1"], "must be tau=uniform:LOW,HIGH or tau=loguniform:LOW,HIGH with numbers LOW < HIGH"),
        (["tau=uniform:1,0"], "LOW < HIGH"),
        (["tau=uniform:0"], "LOW < HIGH"),
        (["tau=loguniform:0,1"], "must have LOW > 0 for loguniform"),
        (["tau=uniform:0.1,1"], "samples is not given, but must be: tau is drawn from a distribution"),
        (["preset=keras,kreas"], "preset is 'kreas', but must be one of"),
        (["tau=0.1,0.2", "--samples", "3"], "samples is 3, but must be at most the number of different points"),
        (["tau=0.1,0.2", "--samples", "0"], "samples is 0, but must be a whole number >= 1"),
        (["seed=1,2"], "must name a field of the configuration or preset"),
    ],
)
def test_bad_sweep_is_refused_in_one_line(flags, message, tmp_path):
    words = [word for flag in flags for word in ((flag,) if "=" not in flag and flag != "tau" else ("--sweep", flag))]
    outcome = main("--out", tmp_path / "run", *words)
    assert outcome.status == 2
    assert message in outcome.err
    assert len(outcome.err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_samples_without_a_sweep_is_refused():
    outcome = main("--samples", 3)
    assert outcome.status == 2
    assert outcome.err.startswith("error: samples is 3, but must not be given without sweep")


def test_swept_preset_keeps_the_flags_and_what_points_share():
    request = parse(["--sweep", "preset=keras,gist", "--gamma", "0.5", "--total-steps", "700"])
    for point, name in zip(request.points, ("keras", "gist"), strict=True):
        shared = {field: getattr(PRESETS["pendulum"], field) for field in COMMON} | {"total_steps": 700}
        assert point.config == PRESETS[name].replace(gamma=0.5, **shared)


def test_points_come_back_from_json():
    base = Config()
    for point in make_points(
        ["hidden_sizes=8x8,16", "gamma=0.5,0.9"], None, 0, lambda changes: base.replace(**changes)
    ):
        assert Point.from_dict(json.loads(json.dumps(point.to_dict(base))), base) == point


# The agents of a sweep

SWEEP = ("--seeds", 3, "--sweep", "hidden_sizes=8,12", "--sweep", "actor_lr=1e-3,1e-2", "--sweep", "noise_scale=0.5,1")


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Eight points of two shapes, three seeds each."""
    folder = tmp_path_factory.mktemp("sweep") / "whole"
    assert main("--out", folder, *SWEEP).status == 0
    return folder


def rows(folder, name="metrics.csv"):
    with open(folder / name) as file:
        return list(csv.DictReader(file))


def points_of(folder):
    return [point["values"] for point in json.loads((folder / "config.json").read_text())["points"]]


@pytest.mark.parametrize("index", range(8))
def test_each_point_is_what_a_run_of_its_own_would_be(swept, tmp_path, index):
    """Agent s of that run is bit-identical to seed s of the point."""
    values = points_of(swept)[index]
    flags = ["--hidden-sizes", *values["hidden_sizes"], "--actor-lr", values["actor_lr"]]
    assert main("--out", tmp_path / "run", "--seeds", 3, *flags, "--noise-scale", values["noise_scale"]).status == 0
    for name in ("metrics.csv", "episodes.csv"):
        alone, among = rows(tmp_path / "run", name), [row for row in rows(swept, name) if int(row["point"]) == index]
        for row in among:
            assert int(row["agent"]) == 3 * index + int(row["seed"])
            row["agent"] = row.pop("seed")
            del row["point"]
        assert len(among) > 0
        assert among == alone
    summary = json.loads((swept / "summary.json").read_text())
    own = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["per_agent_final_return"][3 * index : 3 * index + 3] == own["per_agent_final_return"]
    for name in ("final_return", "final_shortfall"):
        assert summary["points"][index][name] == own[name]
    part, within = divmod(index, 4)
    whole = load_file(swept / f"policy/part-{part}/agents-000000.safetensors")
    for name, array in load_file(tmp_path / "run/policy/agents-000000.safetensors").items():
        np.testing.assert_array_equal(whole[name][3 * within : 3 * within + 3], array)


def test_points_of_one_shape_share_a_program(swept, tmp_path):
    assert [len(values["hidden_sizes"]) and values["hidden_sizes"][0] for values in points_of(swept)] == [8] * 4 + [
        12
    ] * 4
    assert "8 points x 3 seeds, in 2 program(s)" in main("--plan", *SWEEP).out
    before = _compiled.cache_info()
    assert main("--out", tmp_path / "run", *SWEEP).status == 0
    after = _compiled.cache_info()
    assert after.hits + after.misses - before.hits - before.misses == 2


@pytest.mark.parametrize("num_chunks", [2, 9])
def test_stopped_sweep_is_resumed_in_the_same_bits(swept, tmp_path, num_chunks):
    """Once in its first part, and once in its second."""
    folder = tmp_path / "run"
    assert stopped_after(num_chunks, "--out", folder, *SWEEP).status == 143
    assert main("--resume", folder).status == 0
    assert results(folder) == results(swept)


def test_another_sweep_is_no_resumption(swept):
    outcome = main("--resume", swept, "--sweep", "tau=0.1,0.2")
    assert outcome.status == 2
    assert "a resumed run keeps everything but total_steps" in outcome.err


def test_policies_are_loaded_part_by_part(swept):
    with pytest.raises(ValueError, match=r"has networks of 2 shapes: load .*policy/part-0, .*policy/part-1"):
        load_policy(swept)
    for part, size in (("part-0", 8), ("part-1", 12)):
        policy = load_policy(swept / "policy" / part)
        assert policy.num_agents == 12
        assert policy.actor.hidden.sizes == (size,)


def test_sweep_over_one_value_is_a_run_of_one_configuration(tmp_path):
    outcome = main("--out", tmp_path / "run", "--seeds", 2, "--sweep", "tau=0.1")
    assert outcome.status == 0, outcome.err
    assert "points" not in json.loads((tmp_path / "run/summary.json").read_text())


def test_diverged_agent_of_a_sweep_is_left_out_of_its_point(tmp_path):
    outcome = main("--out", tmp_path / "run", "--seeds", 2, "--sweep", "critic_lr=1e-3,1e30")
    assert outcome.status == 0
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["diverged_agents"] == [2, 3]
    assert [point["num_diverged"] for point in summary["points"]] == [0, 2]
    assert [point["rank"] for point in summary["points"]] == [1, 2]


# The report


def test_best_point_is_found_and_the_others_are_compared_in_pairs():
    rng = np.random.default_rng(0)
    luck = rng.normal(0, 50, 16)  # shared by the points, seed by seed
    returns = np.stack(
        [luck - 10 + rng.normal(0, 1, 16), luck + rng.normal(0, 1, 16), luck - 0.1 + rng.normal(0, 1, 16)]
    )
    worse, best, equal = statistics.compare_points(returns)
    assert {best.rank, equal.rank} == {1, 2}
    assert worse.rank == 3
    first = 1 if best.rank == 1 else 2
    assert worse.difference == pytest.approx(np.mean(returns[0] - returns[first]))
    assert worse.interval[0] < worse.difference < worse.interval[1] < -8
    assert worse.p_value == pytest.approx(3 * 2**-15)  # lower with every seed: two tails, three pairs of points
    assert max(best.p_value, equal.p_value) == 1.0


def test_few_seeds_support_nothing():
    returns = np.arange(12.0)[:, None] * 100 + np.arange(8.0)
    assert min(comparison.p_value for comparison in statistics.compare_points(returns)) > statistics.SUPPORTED
    assert statistics.least_p_value(12, 8) == pytest.approx(2**-7 * 66)
    assert statistics.least_p_value(12, 16) < statistics.SUPPORTED


@pytest.mark.slow
def test_no_false_winner_among_equals():
    """All 12 points are equal: the correction must keep the level of 5% although the best point was selected."""
    rng = np.random.default_rng(1)
    wrong = sum(
        min(c.p_value for c in statistics.compare_points(rng.normal(size=(12, 16)))) <= statistics.SUPPORTED
        for _ in range(200)
    )
    assert wrong <= 16  # 200 trials at 5%: 10 expected at most, 16 with two standard deviations


def test_point_whose_agents_all_diverged_is_last():
    returns = np.array([[np.nan, np.nan], [1.0, 2.0], [3.0, np.nan]])
    found = statistics.compare_points(returns)
    assert [comparison.rank for comparison in found] == [3, 2, 1]
    assert math.isnan(found[0].difference)
    assert found[1].difference == -2.0


def summary_of(histories, points, *, num_seeds=3, environment=None):
    """The summary of agents whose last greedy return is their final one."""
    environment = environment or make("Pendulum-v1")
    results = []
    for history in histories:
        final = history.metrics.eval_return[-1]
        selection = np.nan_to_num(final, nan=1e3)  # an agent that diverged may have a return, which does not count
        results.append(WaveResult(history, final, -140.0 - final, selection, share_at_bounds=np.zeros(len(final))))
    return summarize(
        results, [(dict(point.values), point.config) for point in points], environment,
        preset="pendulum", seed=0, num_seeds=num_seeds, final_episodes=512, device="1 x cpu",
        seconds=Seconds(1.0, 2.0, 3.0, 4.0),
    )  # fmt: skip


def history_with(returns):
    """The history of agents with these returns at their only evaluation."""
    history = History(Config(), len(returns))
    history.add_chunk(StepLog(*(np.zeros((len(returns), 10), np.float32) for _ in StepLog._fields)))
    history.add_evaluation(np.array(returns))
    return history


TWO_POINTS = (Point((("tau", 0.1),), Config(tau=0.1)), Point((("tau", 0.2),), Config(tau=0.2)))


def test_points_of_a_sweep_are_summarized_one_by_one():
    """Pendulum is solved at a shortfall of 20, so here at a return of -160; agent 4 has diverged."""
    summary = summary_of([history_with([-150.0, -160.0, -170.0, -155.0, np.nan, -145.0])], TWO_POINTS)
    first, second = summary.points
    assert (first.final_return.mean, first.final_return.worst, first.num_diverged) == (-160.0, -170.0, 0)
    assert (second.final_return.mean, second.final_return.worst, second.num_diverged) == (-150.0, -155.0, 1)
    assert (first.rank, second.rank) == (2, 1)
    assert (first.final_shortfall.num_solved, second.final_shortfall.num_solved) == (2, 2)
    assert first.against_best.mean == ((-150 + 155) + (-170 + 145)) / 2  # the pair of the diverged agent is left out
    assert (summary.final_shortfall.num_solved, summary.solved_shortfall) == (4, 20.0)
    assert (summary.diverged, summary.best_agent) == ({4: 10}, 5)
    assert (summary.best_of(range(3)), summary.best_of(range(3, 6))) == (0, 2)
    content = summary.to_dict()
    assert (content["diverged_agents"], content["diverged_at_env_steps"]) == ([4], [10])
    assert content["points"][1]["values"] == {"tau": 0.2}
    assert list(content["points"][1]) == [
        "point", "values", "rank", "updates_per_agent", "num_diverged", "final_return", "final_shortfall",
        "against_best",
    ]  # fmt: skip


def test_titles_name_all_presets_of_a_sweep_over_them():
    histories = [history_with([-150.0] * 6)]
    names = ("pendulum", "td3", "d4pg")
    presets = tuple(Point((("preset", name),), PRESETS[name]) for name in names)
    several, one = (summary_of(histories, points, num_seeds=2) for points in (presets, TWO_POINTS))
    assert (one.presets, one.subject) == ("preset pendulum", "pendulum on Pendulum-v1")
    assert (several.presets, several.subject) == ("presets pendulum, td3 and d4pg", "Pendulum-v1")


def test_agents_that_only_act_at_their_bounds_are_named():
    """Agent 4 has diverged; what it does is not told."""
    summary = summary_of([history_with([-150.0, -160.0, -170.0, -155.0, np.nan, -145.0])], TWO_POINTS)
    shares = {(0.0, 0.5, 0.999, 0.0, 1.0, 0.0): None, (0.0, 1.0, 0.0, 0.0, 1.0, 1.0): "agents 1, 5"}
    for share, named in shares.items():
        rows = dict(report.result_rows(replace(summary, per_agent_share_at_bounds=np.array(share))))
        assert rows.get("only act at their bounds") == named
    many = replace(summary, per_agent_share_at_bounds=np.ones(20))
    assert dict(report.result_rows(many))["only act at their bounds"] == "agents 0, 1, 2, 3, 5, 6, 7, 8 and 11 more"


def test_solved_is_shown_only_where_the_environment_defines_it():
    histories = [history_with([-150.0, -160.0, -170.0, -155.0, -150.0, -145.0])]
    pendulum = make("Pendulum-v1")
    undefined = replace(pendulum, solved_shortfall=None)
    unknown = replace(pendulum, optimal_returns=None)
    for environment, solved, shortfall in ((pendulum, True, True), (undefined, False, True), (unknown, False, False)):
        for points, num_seeds in ((TWO_POINTS, 3), (TWO_POINTS[:1], 6)):
            summary = summary_of(histories, points, num_seeds=num_seeds, environment=environment)
            text = str(report.result_rows(summary)) + (str(report.ranking(summary)) if summary.points else "")
            assert ("solved" in text) == solved
            assert ("shortfall" in text) == (shortfall and not summary.points)
            content = summary.to_dict()
            assert ("solved_shortfall" in content) == solved
            assert ("final_shortfall" in content) == shortfall
        assert len(points_csv(summary_of(histories, TWO_POINTS, environment=environment)).splitlines()) == 3


@pytest.mark.parametrize(
    "sweeps",
    [
        ["tau=0.005,0.01,0.1"],
        ["noise=ou,gaussian"],
        ["tau=0.1,0.2", "gamma=0.5,0.9"],
        ["tau=0.1,0.2", "gamma=0.5,0.9", "batch_size=8,16"],
    ],
    ids=["line", "categories", "heat map", "ranking"],
)
def test_figures_are_drawn(sweeps, tmp_path):
    """Also where all agents of a point diverged."""
    points = make_points(sweeps, None, 0, lambda changes: Config(**changes))
    history = History(Config(), 3 * len(points))
    for step in (10, 20):
        history.add_chunk(StepLog(*(np.zeros((3 * len(points), 10), np.float32) for _ in StepLog._fields)))
        history.add_evaluation(np.arange(3.0 * len(points)) + step)
    history.diverged = {0: 5, 1: 5, 2: 5}
    summary = summary_of([history], points)
    sweep_plots.swept(tmp_path / "sweep.png", summary)
    sweep_plots.learning_curves(tmp_path / "curve.png", [history], summary)
    assert (tmp_path / "sweep.png").stat().st_size > 5_000
    assert (tmp_path / "curve.png").stat().st_size > 5_000
