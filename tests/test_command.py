"""Tests what a user of the command sees: options, refusals, and the files of a run."""

import contextlib
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import fields
from typing import Literal, get_args, get_origin, get_type_hints
from unittest import mock

import numpy as np
import pytest
import safetensors.numpy
from command import REPOSITORY, SMALL, execute, main, results
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ddpg_jax import run
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.runs import plan
from ddpg_jax.runs.options import OPTION_ANNOTATIONS, Options

FIELDS = {name for name in {**OPTION_ANNOTATIONS, **ANNOTATIONS} if name not in ("resume", "checkpoint")}


def parsed(arguments):
    """Returns the options, or the one line of the refusal."""
    out, err = io.StringIO(), io.StringIO()
    status = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return run.parse(arguments)
        except SystemExit as stop:
            status = stop.code
    lines = err.getvalue().splitlines()
    assert (status, len(lines), out.getvalue()) == (2, 1, ""), (status, lines)
    assert lines[0].startswith("error: ")
    return lines[0].removeprefix("error: ")


# ------------------------------------------------------------------------------------------------------------ options


def test_help_takes_less_than_a_second_and_no_jax():
    code = "import sys; from ddpg_jax import run\ntry: run.main(['--help'])\nfinally: print('jax' in sys.modules)"
    best = math.inf
    for _ in range(3):  # seconds of a core: other work may slow the machine down
        before = os.times()
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
        after = os.times()
        best = min(best, sum(after[2:4]) - sum(before[2:4]))
    assert process.returncode == 0
    assert process.stdout.endswith("False\n")
    assert 0.01 < best < 1


def test_help_names_every_option_with_its_default_and_its_domain():
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        run.parse(["--help"])
    assert stop.value.code == 0
    text = out.getvalue()
    for name in FIELDS:
        assert f"--{name.replace('_', '-')}" in text
    assert text.count("(default:") + text.count("(repeatable)") >= len(FIELDS)


def test_importing_the_package_leaves_jax_as_it_is():
    code = (
        "import ddpg_jax, jax; before = dict(jax.config.values); from ddpg_jax import *; "
        "assert dict(jax.config.values) == before; print(jax.device_count())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert process.stdout == "1\n", process.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds 0", "seeds is 0, but must be a whole number >= 1"),
        ("--seeds", "seeds is '', but must be a whole number >= 1"),
        ("--seeds 3 4", "seeds is '3 4', but must be one value"),
        ("--seeds 1.5", "seeds is 1.5, but must be a whole number >= 1"),
        ("--seeds 1000001", "seeds is 1000001, but must be a whole number >= 1 (at most 1000000)"),
        ("--seed -1", "seed is -1, but must be a whole number >= 0"),
        ("--actor-lr nan", "actor_lr is nan, but must be a finite number"),
        ("--actor-lr fast", "actor_lr is 'fast', but must be a finite number"),
        ("--tau 0", "tau is 0.0, but must be in (0, 1]"),
        ("--hidden-sizes 64 y", "hidden_sizes is [64, 'y'], but must be whole numbers"),
        ("--hidden-sizes 64x0", "hidden_sizes is [64, 0], but must be whole numbers >= 1"),
        ("--hidden-sizes 64 0", "hidden_sizes is [64, 0], but must be whole numbers >= 1"),
        ("--noise pink", "noise is 'pink', but must be one of ou, unaccumulated, gaussian"),
        ("--noise-reset yes", "unexpected word 'yes': it belongs to no option"),
        ("--batch-size 7000", "replay_capacity is 6000, but must be at least batch_size, 7000"),
        ("--preset gits", "preset is 'gits', but must be one of pendulum, keras, gist"),
        ("--preset", "preset is '', but must be one of pendulum, keras, gist"),
        ("--checkpoint-every 0", "checkpoint_every is 0.0, but must be a number of seconds > 0"),
        ("--checkpoint 3", "checkpoint is 3, but can only be given with resume"),
        ("--out", "out is '', but must be a folder"),
        ("--resume", "resume is '', but must be a folder"),
        ("--resume /nowhere", "resume is /nowhere, but must be the folder of a run: it has no config.json"),
        ("--sedes 3", "unknown option --sedes; did you mean --seeds?"),
        ("seeds", "unexpected word 'seeds': it belongs to no option"),
        ("-x", "unknown option -x"),
    ],
)
def test_bad_option_is_refused_in_one_line_with_field_value_and_rule(line, message):
    assert parsed(line.split(" ")).startswith(message)


@pytest.mark.parametrize("name", ["out", "resume"])
def test_empty_path_is_not_the_current_folder(name):
    assert parsed([f"--{name}", ""]).startswith(f"{name} is '', but must be ")
    assert parsed([f"--{name}="]).startswith(f"{name} is '', but must be ")


def test_last_of_repeated_flags_holds():
    options = parsed(["--seeds", "3", "--preset", "keras", "--seeds=4", "--tau", "1", "--preset=gist", "--tau=0.5"])
    assert (options.seeds, options.preset, options.config.tau) == (4, "gist", 0.5)


def test_underscores_serve_as_well():
    assert parsed(["--total_steps", "7"]).config.total_steps == 7


NUMBERS = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "0", "-0.0", "-1", "1e400", "-1e31", "1e-45", "9" * 30, "0x10", "1_0", "½"]),
    st.integers().map(str),
    st.integers(-3, 100).map(str),
    st.floats().map(str),
)
WORDS = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["", " ", "None", "True", "false", "--", "-", "tanh", "ou", "batch", "Pendulum-v1", "@x", "~", "\0"]
    ),
    st.text(max_size=12),
).filter(lambda word: word not in ("-h", "--help") and not word.startswith("--tyro"))


TOGETHER = {
    "batch_size": ("replay_capacity",),
    "replay_capacity": ("learning_starts",),
    "critic_atoms": ("value_max",),
    "num_envs": ("total_steps", "eval_every", "replay_capacity"),
}
"""Fields that a refusal may name first, where they do not go together with the value that is given."""


@given(st.sampled_from(sorted(FIELDS)), st.lists(WORDS, max_size=3), st.booleans(), st.booleans())
@example("critic_atoms", ["2"], False, False)
@example("num_envs", ["7"], False, False)
@settings(max_examples=80, deadline=None)
def test_any_value_of_any_option_is_taken_or_refused_by_name(name, words, equals, underscores):
    flag = "--" + (name if underscores else name.replace("_", "-"))
    arguments = [f"{flag}={words[0]}", *words[1:]] if equals and words else [flag, *words]
    outcome = parsed(arguments)
    if isinstance(outcome, Options):
        _require_valid(outcome)
    else:
        others = tuple(f"{other} is " for other in TOGETHER.get(name, ()))
        assert outcome.startswith((f"{name} is ", *others, "unknown option ", "unexpected word ")), outcome
        assert name in outcome or not outcome.startswith(others), outcome
        assert "but must" in outcome or "unknown option" in outcome or "belongs to no option" in outcome


def _require_valid(options):
    assert 1 <= options.seeds <= 10**6
    assert 0 <= options.seed < 2**31
    assert options.config.replace() == options.config  # checks itself again
    for field in fields(Config):
        value = getattr(options.config, field.name)
        for number in value if isinstance(value, tuple) else (value,):
            assert not isinstance(number, float) or math.isfinite(number)


FLAGS = st.one_of(
    st.sampled_from(sorted(FIELDS)).map(lambda name: f"--{name.replace('_', '-')}"),
    st.sampled_from(["--no-quiet", "--no-noise-reset", "--resume", "--checkpoint", "--nothing", "--seeds=3", "-v"]),
    st.text(max_size=5).map(lambda text: f"--{text}").filter(lambda word: word not in ("--help", "--h")),
)


@given(st.lists(st.one_of(FLAGS, WORDS), max_size=8))
@settings(max_examples=60, deadline=None)
def test_any_command_line_is_taken_or_refused(arguments):
    outcome = parsed(arguments)
    assert isinstance(outcome, Options | str)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
CONFIG_FILE = {
    "format": 1, "preset": "pendulum", "num_agents": 2, "seed": 0, "device": "1 x cpu", "num_devices": 1,
    "group_size": 4, "checkpoint_every": None, "record_every": None, "fail_on_divergence": False, "resumed": [],
    "command": ["python"], "versions": {"ddpg_jax": "0.1.0"}, "config": Config().to_dict(),
}  # fmt: skip


@given(st.sampled_from(sorted([*CONFIG_FILE, *CONFIG_FILE["config"]])), JSON)
@settings(max_examples=60, deadline=None)
def test_any_damage_to_the_configuration_of_a_run_is_taken_or_refused(tmp_path_factory, name, value):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    content = CONFIG_FILE | {"config": dict(CONFIG_FILE["config"])}
    (content if name in content else content["config"])[name] = value
    (folder / "config.json").write_text(json.dumps(content))
    outcome = parsed(["--resume", str(folder)])
    if isinstance(outcome, Options):
        _require_valid(outcome)
    else:
        assert str(folder) in outcome


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"', "{}", '{"format": 1}', "[" * 100_000, "9" * 5000])
def test_configuration_that_is_none_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    assert "config.json cannot be read" in parsed(["--resume", str(tmp_path)])


def test_run_of_a_newer_version_is_refused_by_name(tmp_path):
    content = CONFIG_FILE | {"format": 2, "versions": {"ddpg_jax": "9.1"}}
    (tmp_path / "config.json").write_text(json.dumps(content))
    assert "it was written by ddpg_jax 9.1, newer than this one" in parsed(["--resume", str(tmp_path)])


# ------------------------------------------------------------------------------------- refusals that leave no trace


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--env-id", "Nowhere-v0"), "env_id is 'Nowhere-v0', but must be an environment of gymnax"),
        (("--env-id", "CartPole-v1"), "env_id is 'CartPole-v1', but must have continuous actions"),
        (("--devices", 999), "devices is 999, but must be at most "),
        (("--replay-capacity", 2**31 - 1), "replay_capacity is 2,147,483,647, but "),
        (
            ("--replay-capacity", 10**6, "--group-size", 10**6),
            "replay_capacity is 1,000,000, but 1000000 agents, the fewest that train at a time, would need ",
        ),
        (("--eval-episodes", 513), "eval_episodes is 513, but "),
        (("--eval-episodes", 2**31 - 1), "eval_episodes is 2147483647, but must be at most"),
        (("--eval-every", 1, "--total-steps", 2**31 - 1), "eval_every is 1, but must be at least 21475"),
        (("--seeds", 10**6, "--hidden-sizes", 1000, 1000), "out is "),
    ],
)
def test_late_refusal_is_one_line_and_leaves_nothing_behind(tmp_path, flags, message):
    outcome = main("--out", tmp_path / "a/b", *flags)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {message}")
    assert len(outcome.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_environment_that_cannot_be_fetched_is_refused(tmp_path):
    with mock.patch.object(plan, "make", side_effect=OSError("no network")):
        outcome = main("--out", tmp_path / "a")
    assert outcome.status == 2
    assert outcome.err.startswith("error: env_id is 'Pendulum-v1', but must be usable here: no network")


@pytest.mark.parametrize("make", ["a file", "a full folder"])
def test_folder_that_is_not_new_is_refused_and_left_alone(tmp_path, make):
    out = tmp_path / "out"
    if make == "a file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / "mine").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    outcome = main("--out", out)
    assert (outcome.status, outcome.out) == (2, "")
    assert outcome.err.startswith(f"error: out is {out}, but must be a new or an empty folder")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("out", ["/proc/ddpg", "/dev/null/x", "/etc/passwd/x", "a" * 300])
def test_folder_that_cannot_be_made_is_refused(out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = main("--out", out)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: out is {out}, but must be a ")
    assert len(outcome.err.splitlines()) == 1


def test_plan_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outcome = main("--plan")
    assert outcome.status == 0
    assert "memory:" in outcome.out
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------------------------------ the files of a run


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A run of eight agents in a process of its own, on as many devices as the machine has cores."""
    folder = tmp_path_factory.mktemp("command")
    outcome = execute("--seeds", 8, "--out", "eight", folder=folder)
    assert (outcome.status, outcome.err) == (0, ""), outcome
    (folder / "out.txt").write_text(outcome.out)
    return folder / "eight"


@pytest.fixture(scope="module")
def twice(tmp_path_factory):
    """Two equal runs of one agent, with --quiet."""
    folder = tmp_path_factory.mktemp("twice")
    for name in ("one", "two"):
        outcome = execute("--seeds", 1, "--quiet", "--out", name, folder=folder)
        assert outcome == (0, "", "")
    return folder


def test_same_seed_gives_the_same_bytes(twice):
    assert results(twice / "one") == results(twice / "two")


def test_rows_of_an_agent_do_not_depend_on_the_number_of_agents(eight, tmp_path):
    assert execute("--seeds", 4, "--quiet", "--out", "four", folder=tmp_path).status == 0
    for name in ("metrics.csv", "episodes.csv"):
        lines = (eight / name).read_text().splitlines()
        first = [line for line in lines if line.split(",")[0] in ("agent", "0", "1", "2", "3")]
        assert (tmp_path / "four" / name).read_text().splitlines() == first


def test_metrics_are_sorted_and_complete(eight):
    lines = [line.split(",") for line in (eight / "metrics.csv").read_text().splitlines()]
    assert lines[0] == [
        "agent",
        "env_steps",
        "updates",
        "eval_return",
        "train_return",
        "critic_loss",
        "actor_loss",
        "q_mean",
    ]
    places = [(int(line[1]), int(line[0])) for line in lines[1:]]
    assert places == [(steps, agent) for steps in (60, 120, 180, 200) for agent in range(8)]
    assert {int(line[1]): int(line[2]) for line in lines[1:]} == {60: 41, 120: 101, 180: 161, 200: 181}
    assert all(math.isfinite(float(cell)) for line in lines[1:] for cell in line[3:])


def test_train_return_is_the_mean_of_the_episodes_since_the_last_row(eight):
    episodes = [line.split(",") for line in (eight / "episodes.csv").read_text().splitlines()]
    assert episodes[0] == ["agent", "episode", "env_steps", "return", "length", "noise_scale"]
    assert [int(line[1]) for line in episodes[1:] if line[0] == "5"] == list(range(8))
    assert {line[4] for line in episodes[1:]} == {"25"}
    previous = 0
    for line in (eight / "metrics.csv").read_text().splitlines()[1:]:
        agent, steps, _, _, train_return, *_ = line.split(",")
        if agent == "5":
            returns = [float(e[3]) for e in episodes[1:] if e[0] == agent and previous < int(e[2]) <= int(steps)]
            assert float(train_return) == pytest.approx(np.mean(returns), rel=1e-6)
            previous = int(steps)


def test_files_of_a_run(eight):
    names = {str(path.relative_to(eight)) for path in eight.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoints/")} == {
        ".lock", "config.json", "info.json", "metrics.csv", "episodes.csv", "summary.json", "learning_curve.png",
        "report.html", "training_returns.png", "policy/policy.json", "policy/agents-000000.safetensors",
        *(f"snapshots/{step:09d}/agents-000000.safetensors" for step in (0, 50, 100, 150, 200)),
    }  # fmt: skip


def test_summary_has_what_it_promises(eight):
    summary = json.loads((eight / "summary.json").read_text())
    assert set(summary) >= {
        "preset", "env_id", "num_agents", "env_steps_per_agent", "updates_per_agent", "compile_seconds",
        "train_seconds", "wall_seconds", "updates_per_second", "device", "final_return", "final_shortfall",
        "per_agent_final_return", "per_agent_share_at_bounds", "diverged_agents", "checkpoint_seconds",
    }  # fmt: skip
    assert set(summary["final_return"]) >= {"mean", "median", "iqm", "iqm_ci95", "worst", "best"}
    assert set(summary["final_shortfall"]) >= {"mean", "iqm", "worst", "num_solved"}
    assert (summary["num_agents"], summary["env_steps_per_agent"], summary["updates_per_agent"]) == (8, 200, 181)
    assert len(summary["per_agent_final_return"]) == 8
    assert all(0 <= share <= 1 for share in summary["per_agent_share_at_bounds"])
    assert summary["final_return"]["mean"] == pytest.approx(np.mean(summary["per_agent_final_return"]))
    assert summary["updates_per_second"] == pytest.approx(8 * 181 / summary["train_seconds"])
    spent = ("compile_seconds", "train_seconds", "evaluation_seconds", "checkpoint_seconds")
    assert 0 < sum(summary[name] for name in spent) < summary["wall_seconds"]


def test_summary_of_one_agent_has_null_for_what_is_not_finite(twice):
    text = (twice / "one/summary.json").read_text()
    assert json.loads(text)["final_return"]["iqm_ci95"] == [None, None]
    assert "NaN" not in text


def test_configuration_says_how_the_run_was_started(eight):
    content = json.loads((eight / "config.json").read_text())
    assert content["command"][1:] == ["-m", "ddpg_jax.run", *SMALL, "--seeds", "8", "--out", "eight"]
    assert content["config"]["hidden_sizes"] == [8]
    assert set(content["config"]) == {field.name for field in fields(Config)}
    assert {"jax", "jaxlib", "ddpg_jax", "python"} <= set(content["versions"])
    assert (content["num_agents"], content["seed"], content["preset"]) == (8, 0, "pendulum")


def test_result_says_what_checkpoints_have_cost(eight):
    table = (eight.parent / "out.txt").read_text()
    assert "checkpoints" in table
    assert "8 agents on Pendulum-v1, preset pendulum" in table


def test_snapshots_are_of_all_agents_and_begin_before_training(eight):
    first, last = (
        safetensors.numpy.load_file(eight / f"snapshots/{step:09d}/agents-000000.safetensors") for step in (0, 200)
    )
    assert {name.split("/")[0] for name in first} == {"actor", "critic"}
    assert {len(array) for array in first.values()} == {8}
    assert first.keys() == last.keys()
    assert any(not np.array_equal(first[name], last[name]) for name in first)
    policy = safetensors.numpy.load_file(eight / "policy/agents-000000.safetensors")
    for name, array in policy.items():
        np.testing.assert_array_equal(array, last[f"actor/{name}"])


def test_every_choice_is_in_the_help_of_its_field():
    hints = get_type_hints(Config)
    assert {name for name, kind in hints.items() if get_origin(kind) is Literal} == {
        "action_bound", "hidden_init", "actor_normalization", "critic_normalization", "update_order", "noise",
        "matmul_dtype",
    }  # fmt: skip
    for name, kind in hints.items():
        if get_origin(kind) is Literal:
            for choice in get_args(kind):
                assert isinstance(parsed([f"--{name}", choice]), Options)


def test_what_goes_into_a_file_has_no_control_characters(tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # as notebooks set it
    outcome = main("--seeds", 1, "--out", tmp_path / "run")
    assert outcome.status == 0
    assert "200 of 200 steps" in outcome.out
    assert "\x1b" not in outcome.out
