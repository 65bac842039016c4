"""The command that trains: its options, what it refuses, what a resumed run may change, and the files of a run."""

import contextlib
import dataclasses
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import example, given, settings
from hypothesis import strategies as st

import ddpg_jax
from ddpg_jax import __main__, run
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.fields import descriptions
from ddpg_jax.options import TrainOptions
from ddpg_jax.presets import KERAS, PRESETS
from ddpg_jax.run import Options
from ddpg_jax.sweep import COMMON, as_swept

ROOT = Path(__file__).parent.parent
NAMES = sorted({*descriptions(Options), *ANNOTATIONS})
"""All options but --resume."""


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


def execute(*words, folder, module="ddpg_jax.run"):
    """Runs a command in a process of its own, to its end; returns status, output and errors."""
    command = [sys.executable, "-m", module, *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    found = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)
    return found.returncode, found.stdout, found.stderr


# Help


def test_help_takes_less_than_a_second_and_no_jax():
    code = "import sys; from ddpg_jax import run\ntry: run.main(['--help'])\nfinally: print('jax' in sys.modules)"
    best = math.inf
    for _ in range(3):  # seconds of a core: other work may slow the machine down
        before = os.times()
        process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
        after = os.times()
        best = min(best, sum(after[2:4]) - sum(before[2:4]))
    assert process.returncode == 0
    assert process.stdout.endswith("False\n")
    assert 0.01 < best < 1


def help_text(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        run.parse([*words, "--help"])
    assert stop.value.code == 0
    return " ".join(word for word in out.getvalue().split() if word != "│")


def test_help_names_every_option_with_its_default_in_sections():
    text = help_text()
    for name in [*NAMES, "resume"]:
        assert f"--{name.replace('_', '-')}" in text
    assert text.count("(default:") >= len(NAMES)
    for title in ("Run", "Sweep", "Task", "Network", "Optimisation", "Exploration", "Evaluation"):
        assert f"{title} options" in text


def test_help_shows_the_defaults_of_the_preset():
    assert "--hidden-sizes INT … Units" in help_text()
    shown = {name: re.search(r"--hidden-sizes .*?\(default: (\S+)\)", help_text("--preset", name))[1]
             for name in ("pendulum", "keras", "gist")}  # fmt: skip
    assert shown == {"pendulum": "128x64", "keras": "256x256", "gist": "8x8x8"}


def test_importing_the_package_leaves_jax_as_it_is():
    code = (
        "import ddpg_jax, jax; before = dict(jax.config.values); from ddpg_jax import *; "
        "assert dict(jax.config.values) == before; print(jax.device_count())"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert process.stdout == "1\n", process.stderr


def test_all_commands_have_one_entry(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["ddpg-jax"])
    assert __main__.main() == 0
    listed = capsys.readouterr().out
    for name in ("run", "compare", "evaluate", "render", "export", "merge", "cluster"):
        assert f"\n  {name} " in listed
    for words, start in ((["rnu"], "error: command is 'rnu', but must be one of run, "),
                         (["run", "--seeds", "0"], "error: seeds is 0, but must be ")):  # fmt: skip
        monkeypatch.setattr(sys, "argv", ["ddpg-jax", *words])
        with pytest.raises(SystemExit) as stop:
            __main__.main()
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith(start)


# Options


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "--seeds 0",
            "seeds is 0, but must be a whole number >= 1 or a range such as 512:1024 (at most 1000000 ",
        ),
        ("--seeds", "seeds is '', but must be a whole number >= 1"),
        ("--seeds 3 4", "unexpected argument '4'"),
        ("--seeds 1.5", "seeds is 1.5, but must be a whole number >= 1"),
        ("--seeds 5:5", "seeds is '5:5', but must be a whole number >= 1 or a range"),
        ("--seeds 5:2000000", "seeds is range(5, 2000000), but must be"),
        ("--seeds 600000 --sweep tau=0.1,0.2", "seeds has 600,000 seeds, but must have at most 500,000 for 2 "),
        ("--seed -1", "seed is -1, but must be a whole number >= 0"),
        ("--seed 4294967296", "seed is 4294967296, but must be a whole number >= 0 (at most 2147483647)"),
        ("--actor-lr nan", "actor_lr is nan, but must be a finite number"),
        ("--actor-lr fast", "actor_lr is 'fast', but must be a finite number"),
        ("--tau 0", "tau is 0, but must be a number in (0, 1]"),
        ("--hidden-sizes 64 y", "hidden_sizes is [64, 'y'], but must be whole numbers"),
        ("--hidden-sizes 64x0", "hidden_sizes is [64, 0], but must be whole numbers >= 1"),
        ("--noise pink", "noise is 'pink', but must be one of ou, unaccumulated, gaussian"),
        ("--noise-reset yes", "unexpected argument 'yes'"),
        ("--env-args g=1 --env-args g=2", "env_args is ['g=1', 'g=2'], but must be words of the form NAME=VALUE, each"),
        ("--log tensorboard --log tensorboard", "log is ['tensorboard', 'tensorboard'], but must be some of"),
        ("--batch-size 7000", "replay_capacity is 6000, but must be at least batch_size, 7000"),
        ("--preset gits", "preset is 'gits', but must be one of pendulum, keras, gist"),
        ("--preset", "preset is '', but must be one of pendulum, keras, gist"),
        ("--checkpoint-every 0", "checkpoint_every is 0, but must be a number of seconds > 0"),
        ("--samples 3", "samples is 3, but must not be given without sweep"),
        ("--sweep tau=0.1,2", "sweep is 'tau=0.1,2': tau is 2, but must be a number in (0, 1]"),
        ("--resume /nowhere", "/nowhere is not the folder of a run: it has no config.json"),
        ("seeds", "unexpected argument 'seeds'"),
        ("-x", "unknown option -x"),
    ],
)
def test_bad_option_is_refused_in_one_line_with_field_value_and_rule(line, message):
    assert parsed(line.split(" ")).startswith(message)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--batch-sise", "--batch-size"), ("--sedes", "--seeds"), ("--lr", "--actor-lr and --critic-lr"),
        ("--learning_rate", "--actor-lr and --critic-lr"), ("--total-timesteps", "--total-steps"),
        ("--num-steps", "--total-steps"), ("--env", "--env-id"), ("--task", "--env-id"), ("--num-agents", "--seeds"),
        ("--n-seeds", "--seeds"), ("--gpu", "JAX_PLATFORMS=cpu or cuda, or --devices for their number"),
        ("--device", "JAX_PLATFORMS=cpu or cuda, or --devices for their number"), ("--wandb", "--log wandb"),
    ],
)  # fmt: skip
def test_unknown_option_suggests_the_one_that_is_meant(word, meant):
    assert parsed([word, "3"]).startswith(f"unknown option {word}; did you mean {meant}? (see ")


@pytest.mark.parametrize("name", ["out", "resume"])
@pytest.mark.parametrize("path", ["", ".", "\0"])
def test_path_that_names_no_folder_is_refused(name, path):
    assert parsed([f"--{name}", path]).startswith(f"{name} is {path!r}, but must be a folder")
    assert parsed([f"--{name}={path}"]).startswith(f"{name} is {path!r}, but must be a folder")


def test_last_of_repeated_values_holds_and_several_words_add_up():
    options = parsed(["--seeds", "3", "--preset", "keras", "--seeds=4", "--tau", "1", "--preset=gist", "--tau=0.5"])
    config = options.swept[0].config
    assert (options.seeds, options.preset, config.tau, config.batch_size) == (range(4), "gist", 0.5, 1024)
    line = "--env-args g=1 --env-args m=2 --log tensorboard --log wandb --hidden-sizes 8 --hidden-sizes 4x2"
    options = parsed(line.split())
    config = options.swept[0].config
    assert (config.env_args, options.log, config.hidden_sizes) == (("g=1", "m=2"), ("tensorboard", "wandb"), (8, 4, 2))


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--total-steps 1e5", {"total_steps": 100_000}),
        ("--total_steps 7e3", {"total_steps": 7000}),
        ("--hidden-sizes 64 64", {"hidden_sizes": (64, 64)}),
        ("--hidden-sizes 64x64", {"hidden_sizes": (64, 64)}),
        ("--hidden-sizes none --max-episode-steps none", {"hidden_sizes": (), "max_episode_steps": None}),
        ("--no-noise-reset", {"noise_reset": False}),
        ("--preset keras --tau 0.5", {**vars(KERAS), "tau": 0.5}),
    ],
)
def test_words_become_the_configuration(line, found):
    config = parsed(line.split()).swept[0].config
    assert {name: getattr(config, name) for name in found} == found


@pytest.mark.parametrize(
    ("text", "seeds"), [("32", range(32)), ("1e2", range(100)), ("512:1024", range(512, 1024)), ("0:1", range(1))]
)
def test_seeds_are_a_number_or_a_range(text, seeds):
    assert parsed(["--seeds", text]).seeds == seeds
    swept = as_swept("pendulum")
    assert TrainOptions(swept=swept, seeds=seeds).seeds == seeds
    assert TrainOptions(swept=swept, seeds=np.int64(len(seeds))).seeds == range(len(seeds))


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("--seed 4294967296", {"seed": 2**32}), ("--seed -1", {"seed": -1}), ("--seed 1.5", {"seed": 1.5}),
        ("--seeds 0", {"seeds": 0}), ("--seeds 1.5", {"seeds": 1.5}), ("--seeds 1000001", {"seeds": 1_000_001}),
        ("--devices 0", {"devices": 0}), ("--group-size 2.5", {"group_size": 2.5}), ("--out .", {"out": "."}),
        ("--checkpoint-every 0", {"checkpoint_every": 0}), ("--log elsewhere", {"log": ["elsewhere"]}),
    ],
)  # fmt: skip
def test_python_and_the_command_line_refuse_with_the_same_message(line, arguments):
    with pytest.raises(ValueError, match="but must be") as refusal:
        ddpg_jax.train("pendulum", **arguments)
    assert parsed(line.split()) == f"{refusal.value} (see {run.PROGRAM} --help)"


def test_swept_preset_keeps_the_options_that_are_given_and_those_that_configurations_share():
    options = parsed(["--sweep", "preset=keras,gist", "--gamma", "0.995", "--total-steps", "700"])
    for each, name in zip(options.swept, ("keras", "gist"), strict=True):
        shared = {field: getattr(PRESETS["pendulum"], field) for field in COMMON} | {"total_steps": 700}
        assert each == ({"preset": name}, PRESETS[name].replace(gamma=0.995, **shared))


NUMBERS = st.one_of(
    st.sampled_from(["nan", "inf", "-inf", "0", "-0.0", "-1", "1e400", "-1e31", "1e-45", "9" * 30, "0x10", "1_0", "½"]),
    st.integers().map(str),
    st.integers(-3, 100).map(str),
    st.floats().map(str),
)
WORDS = st.one_of(
    NUMBERS,
    st.sampled_from(
        ["", " ", "None", "True", "false", "--", "-", "tanh", "ou", "batch", "Pendulum-v1", "@x", "~", "\0", "3:5"]
    ),
    st.text(max_size=12),
).filter(lambda word: word not in ("-h", "--help") and not word.startswith("--tyro"))

TOGETHER = {
    "batch_size": ("replay_capacity",),
    "replay_capacity": ("learning_starts",),
    "critic_atoms": ("value_max",),
    "num_envs": ("total_steps", "eval_every", "replay_capacity"),
    "updates_per_train": ("total_steps",),
}
"""Fields that a refusal may name first, where they do not go together with the value that is given."""


@given(st.sampled_from(NAMES), st.lists(WORDS, max_size=3), st.booleans(), st.booleans())
@example("critic_atoms", ["2"], False, False)
@example("num_envs", ["7"], False, False)
@settings(max_examples=60, deadline=None)
def test_any_value_of_any_option_is_taken_or_refused_by_name(name, words, equals, underscores):
    flag = "--" + (name if underscores else name.replace("_", "-"))
    arguments = [f"{flag}={words[0]}", *words[1:]] if equals and words else [flag, *words]
    outcome = parsed(arguments)
    if isinstance(outcome, Options):
        _require_valid(outcome)
    else:
        others = tuple(f"{other} is " for other in TOGETHER.get(name, ()))
        assert outcome.startswith((f"{name} is ", *others, "unknown option ", "unexpected argument ")), outcome
        assert name in outcome or not outcome.startswith(others), outcome
        assert "but must" in outcome or outcome.startswith(("unknown option ", "unexpected argument ")), outcome


def _require_valid(options):
    assert 1 <= len(options.seeds) <= 10**6
    assert 0 <= options.seed < 2**31
    for each in options.swept:
        assert each.config.replace() == each.config  # checks itself again
        for value in vars(each.config).values():
            for number in value if isinstance(value, tuple) else (value,):
                assert not isinstance(number, float) or math.isfinite(number)


FLAGS = st.one_of(
    st.sampled_from(NAMES).map(lambda name: f"--{name.replace('_', '-')}"),
    st.sampled_from(["--no-quiet", "--no-noise-reset", "--resume", "--nothing", "--seeds=3", "-v", "--plan=no"]),
    st.text(max_size=5).map(lambda text: f"--{text}").filter(lambda word: word not in ("--help", "--h")),
)


@given(st.lists(st.one_of(FLAGS, WORDS), max_size=8))
@settings(max_examples=40, deadline=None)
def test_any_command_line_is_taken_or_refused(arguments):
    assert isinstance(parsed(arguments), Options | str)


# Resuming

SAVED = {
    "format": 2, "preset": "keras", "seeds": [2, 5], "seed": 7, "device": "1 x cpu", "num_devices": 1,
    "group_size": None, "checkpoint_every": 30.0, "record_every": None, "log": ["tensorboard"], "command": ["python"],
    "resumed": [], "versions": {"ddpg_jax": "0.1.0"}, "config": KERAS.replace(tau=0.1).to_dict(),
    "configs": [{"values": {"tau": 0.1}, "changes": {}}, {"values": {"tau": 0.2}, "changes": {"tau": 0.2}}],
}  # fmt: skip


@pytest.fixture
def saved(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(SAVED))
    return tmp_path


def test_resumed_run_has_the_options_of_its_folder(saved):
    options = parsed(["--resume", str(saved)])
    swept = as_swept([KERAS.replace(tau=tau) for tau in (0.1, 0.2)])
    assert options == Options(swept=swept, preset="keras", seeds=range(2, 5), seed=7, out=saved, resume=True,
                              checkpoint_every=30, log=("tensorboard",))  # fmt: skip


def test_resumed_run_may_train_for_longer_and_report_otherwise(saved):
    changes = "--total-steps 30000 --devices 2 --checkpoint-every 5 --record-every 3 --log wandb --quiet --verbose"
    options = parsed(["--resume", str(saved), *changes.split(), "--fail-on-divergence"])
    assert [each.config.total_steps for each in options.swept] == [30_000, 30_000]
    assert [each.config.tau for each in options.swept] == [0.1, 0.2]
    assert (options.devices, options.checkpoint_every, options.record_every, options.log) == (2, 5, 3, ("wandb",))
    same = "--preset keras --sweep tau=0.1,0.2 --seeds 2:5 --seed 7"
    assert parsed(["--resume", str(saved), *same.split()]).swept == parsed(["--resume", str(saved)]).swept


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds 3", "seeds is 3, but must be 2:5, as in "),
        ("--seed 8", "seed is 8, but must be 7, as in "),
        ("--preset gist", "preset is gist, but must be keras, as in "),
        ("--gamma 0.5", "gamma is 0.5, but must be 0.99, as in "),
        ("--tau 0.1", "tau is 0.1, but must be 0.2, as in "),
        ("--sweep tau=0.1,0.3", "tau is 0.3, but must be 0.2, as in "),
        ("--sweep tau=0.1,0.2,0.3", "number of configurations is 3, but must be 2, as in "),
        ("--group-size 4", "group_size is 4, but must be None, as in "),
        ("--out elsewhere", "out is elsewhere, but must be "),
        ("--total-steps 10", "total_steps is 10, but must be at least 20000, the length of "),
        ("--gamma 2", "gamma is 2, but must be a number in [0, 1]"),
    ],
)
def test_resumed_run_may_not_become_another_run(saved, line, message):
    assert parsed(["--resume", str(saved), *line.split()]).startswith(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(sorted([*SAVED, *SAVED["config"]])), JSON)
@settings(max_examples=40, deadline=None)
def test_any_damage_to_the_configuration_of_a_run_is_taken_or_refused(tmp_path_factory, name, value):
    folder = tmp_path_factory.getbasetemp() / "damaged"
    folder.mkdir(exist_ok=True)
    content = SAVED | {"config": dict(SAVED["config"])}
    (content if name in content else content["config"])[name] = value
    (folder / "config.json").write_text(json.dumps(content))
    outcome = parsed(["--resume", str(folder)])
    if isinstance(outcome, Options):
        _require_valid(outcome)
    else:
        assert str(folder) in outcome


# Refusals that need JAX, and the files of a run

SMALL = (
    "--hidden-sizes", "8", "--batch-size", "8", "--learning-starts", "20", "--replay-capacity", "100",
    "--max-episode-steps", "25", "--eval-every", "60", "--eval-episodes", "64", "--total-steps", "200",
)  # fmt: skip
"""Options of a run that trains in less than a second; its length is not a multiple of `--eval-every`."""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--env-id", "Nowhere-v0"), "env_id is 'Nowhere-v0', "),
        (("--eval-episodes", 513), "eval_episodes is 513, but must be at most 512"),
        (("--eval-every", 1, "--total-steps", 2**31 - 1), "eval_every is 1, but must be at least 21475"),
    ],
)
def test_late_refusal_is_one_line_and_leaves_nothing_behind(tmp_path, words, message):
    status, out, err = execute("--out", tmp_path / "a/b", *words, folder=tmp_path)
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A run of seeds 4 to 11 in a process of its own, on all cores."""
    folder = tmp_path_factory.mktemp("command")
    status, out, err = execute(*SMALL, "--seeds", "4:12", "--out", "eight", folder=folder)
    assert (status, err) == (0, ""), (status, out, err)
    (folder / "out.txt").write_text(out)
    return folder / "eight"


def test_agents_do_not_depend_on_which_others_are_trained(eight, tmp_path):
    status, out, err = execute(*SMALL, "--seeds", "6:9", "--quiet", "--out", "three", folder=tmp_path)
    assert (status, out, err) == (0, "", "")
    for name in ("metrics.csv", "episodes.csv"):
        lines = (eight / name).read_text().splitlines()
        some = [line for line in lines if line.split(",")[0] in ("agent", "6", "7", "8")]
        assert (tmp_path / "three" / name).read_text().splitlines() == some
    folders = (eight, tmp_path / "three")
    whole, three = (safetensors.numpy.load_file(folder / "policy/actors.safetensors") for folder in folders)
    for name, array in three.items():
        np.testing.assert_array_equal(array, whole[name][2:5])


def test_metrics_are_sorted_and_complete(eight):
    lines = [line.split(",") for line in (eight / "metrics.csv").read_text().splitlines()]
    assert ",".join(lines[0]) == "agent,env_steps,updates,eval_return,train_return,critic_loss,actor_loss,q_mean"
    places = [(int(line[1]), int(line[0])) for line in lines[1:]]
    assert places == [(steps, agent) for steps in (60, 120, 180, 200) for agent in range(4, 12)]
    assert {int(line[1]): int(line[2]) for line in lines[1:]} == {60: 41, 120: 101, 180: 161, 200: 181}
    assert all(math.isfinite(float(cell)) for line in lines[1:] for cell in line[3:])


def test_files_of_a_run(eight):
    names = {str(path.relative_to(eight)) for path in eight.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoints/")} == {
        ".lock", "config.json", "info.json", "metrics.csv", "episodes.csv", "summary.json", "learning_curve.png",
        "report.html", "training_returns.png", "policy/policy.json", "policy/actors.safetensors",
        *(f"snapshots/{step:09d}/weights.safetensors" for step in (0, 50, 100, 150, 200)),
    }  # fmt: skip


def test_summary_has_the_statistics_of_all_agents(eight):
    summary = json.loads((eight / "summary.json").read_text())
    returns = summary["per_agent_final_return"]
    assert (summary["num_agents"], summary["env_steps_per_agent"], summary["updates_per_agent"]) == (8, 200, 181)
    assert (len(returns), summary["final_return"]["mean"]) == (8, pytest.approx(np.mean(returns)))
    assert summary["updates_per_second"] == pytest.approx(8 * 181 / summary["train_seconds"])
    spent = ("compile_seconds", "train_seconds", "evaluation_seconds", "checkpoint_seconds")
    assert 0 < sum(summary[name] for name in spent) < summary["wall_seconds"]


def test_configuration_says_how_the_run_was_started(eight):
    content = json.loads((eight / "config.json").read_text())
    assert content["command"][1:] == ["-m", "ddpg_jax.run", *SMALL, "--seeds", "4:12", "--out", "eight"]
    assert set(content["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert (content["config"]["hidden_sizes"], content["config"]["final_episodes"]) == ([8], 512)
    assert {"jax", "jaxlib", "ddpg_jax", "python"} <= set(content["versions"])
    assert (content["seeds"], content["seed"], content["preset"]) == ([4, 12], 0, "pendulum")
    params = json.loads((eight / "info.json").read_text())
    assert (params["env_id"], params["params"]["hidden_sizes"]) == ("Pendulum-v1", [8])


def test_output_has_progress_and_results_and_no_control_characters(eight):
    text = (eight.parent / "out.txt").read_text()
    assert "pendulum on Pendulum-v1" in text
    assert "1,600 of 1,600 steps (100%)" in text
    assert "\x1b" not in text


def test_snapshots_are_of_all_agents_and_begin_before_training(eight):
    first, last = (
        safetensors.numpy.load_file(eight / f"snapshots/{step:09d}/weights.safetensors") for step in (0, 200)
    )
    assert {name.split("/")[0] for name in first} == {"actor", "critic"}
    assert {len(array) for array in first.values()} == {8}
    assert first.keys() == last.keys()
    assert any(not np.array_equal(first[name], last[name]) for name in first)


def test_resuming_a_finished_run_changes_nothing(eight, tmp_path):
    before = (eight / "metrics.csv").read_bytes()
    status, out, _ = execute("--resume", eight, folder=tmp_path)
    assert (status, (eight / "metrics.csv").read_bytes()) == (0, before)
    assert "there is nothing left to do" in out
