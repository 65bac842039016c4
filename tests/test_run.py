"""The command that trains: its options, what it refuses, what a resumed run may change, and the files of a run."""

import contextlib
import dataclasses
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.numpy
from command import SMALL, execute, refused

import ddpg_jax
from ddpg_jax import __main__, run
from ddpg_jax.axes import COMMON
from ddpg_jax.config import ANNOTATIONS, SECTIONS, Config
from ddpg_jax.fields import descriptions
from ddpg_jax.presets import KERAS, PRESETS
from ddpg_jax.run import Options
from ddpg_jax.sweep import as_swept

ROOT = Path(__file__).parent.parent
NAMES = sorted({*descriptions(Options), *ANNOTATIONS})
"""All options but --resume."""


def parsed(arguments):
    """Returns the options, or the one line of the refusal."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            return run.parse(arguments)
        except SystemExit as stop:
            status = stop.code
    assert (status, out.getvalue(), err.getvalue()[:7], err.getvalue().count("\n")) == (2, "", "error: ", 1)
    return err.getvalue()[7:-1]


# Help


def help_text(*words):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit) as stop:
        run.parse([*words, "--help"])
    assert stop.value.code == 0
    return " ".join(word for word in out.getvalue().split() if word != "│")


def test_help_takes_less_than_a_second_and_no_jax():
    code = "import sys; from ddpg_jax import run\ntry: run.main(['--help'])\nfinally: print('jax' in sys.modules)"
    before = os.times()
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert sum(os.times()[2:4]) - sum(before[2:4]) < 1  # seconds of a core: other work may slow the machine down
    assert (process.returncode, process.stdout.splitlines()[-1]) == (0, "False")


def test_help_names_every_option_in_sections_with_the_default_of_the_preset():
    text = help_text()
    assert all(f"--{name.replace('_', '-')}" in text for name in [*NAMES, "resume"])
    assert text.count("(default:") >= len(NAMES)
    assert all(f"{title} options" in text for title in ("Run", "Sweep", *SECTIONS.values()))
    shown = {name: re.search(r"--hidden-sizes INT .*?\(default: (\S+)\)", help_text("--preset", name))[1]
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
        with pytest.raises(SystemExit, match="2"):
            __main__.main()
        assert capsys.readouterr().err.startswith(start)


# Options


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds 5:5", "seeds is '5:5', but must be a whole number >= 1 or a range"),
        ("--seeds 5:2000000", "seeds is range(5, 2000000), but must be"),
        ("--seeds 600000 --sweep tau=0.1,0.2", "seeds has 600,000 seeds, but must have at most 500,000 for 2 "),
        ("--hidden-sizes 64x0", "hidden_sizes is [64, 0], but must be whole numbers >= 1"),
        ("--env-args g=1 --env-args g=2", "env_args is ['g=1', 'g=2'], but must be words of the form NAME=VALUE, each"),
        ("--batch-size 7000", "replay_capacity is 6000, but must be at least batch_size, 7000"),
        ("--out ", "out is '', but must be a folder"),
        ("--out=\0", "out is '\\x00', but must be a folder"),
        ("--resume .", "resume is '.', but must be a folder"),
        ("--samples 3", "samples is 3, but must not be given without sweep"),
        ("--sweep tau=0.1,2", "sweep is 'tau=0.1,2': tau is 2, but must be a number in (0, 1]"),
        ("--resume /nowhere", "/nowhere is not the folder of a run: it has no config.json"),
    ],
)
def test_bad_option_is_refused_in_one_line_with_field_value_and_rule(line, message):
    assert parsed(line.split(" ")).startswith(message)


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("--batch-sise", "--batch-size"), ("--learning_rate", "--actor-lr or --critic-lr"), ("--env", "--env-id"),
        ("--total-timesteps", "--total-steps"), ("--num-agents", "--seeds"), ("--wandb", "--log wandb"),
        ("--device", "JAX_PLATFORMS=cpu or cuda, or --devices for their number"),
    ],
)  # fmt: skip
def test_unknown_option_suggests_the_one_that_is_meant(word, meant):
    assert parsed([word, "3"]).startswith(f"unknown option {word}; did you mean {meant}? (see ")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("--hidden-sizes none --max-episode-steps none", {"hidden_sizes": (), "max_episode_steps": None}),
        ("--tau 0.5 --preset keras", {**vars(KERAS), "tau": 0.5}),
        ("--seeds 3 --tau 1 --seeds=4 --tau=0.5", {"seeds": range(4), "tau": 0.5}),
        ("--env-args g=1 --env-args m=2 --log tensorboard --log wandb --hidden-sizes 8 --hidden-sizes 4x2",
         {"env_args": ("g=1", "m=2"), "log": ("tensorboard", "wandb"), "hidden_sizes": (8, 4, 2)}),
    ],
)  # fmt: skip
def test_words_become_options_the_last_of_repeated_values_holds_and_several_words_add_up(line, found):
    options = parsed(line.split())
    assert found.items() <= (vars(options) | vars(options.swept[0].config)).items()


@pytest.mark.parametrize(
    ("text", "seeds"), [("32", range(32)), ("1e2", range(100)), ("512:1024", range(512, 1024)), ("0:1", range(1))]
)
def test_seeds_are_a_number_or_a_range(text, seeds):
    assert parsed(["--seeds", text]).seeds == seeds


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("--seed 4294967296", {"seed": 2**32}), ("--seed -1", {"seed": -1}), ("--seed 1.5", {"seed": 1.5}),
        ("--seeds 0", {"seeds": 0}), ("--seeds 1.5", {"seeds": 1.5}), ("--seeds 1000001", {"seeds": 1_000_001}),
        ("--devices 0", {"devices": 0}), ("--group-size 2.5", {"group_size": 2.5}), ("--out .", {"out": "."}),
        ("--checkpoint-every 0", {"checkpoint_every": 0}), ("--log elsewhere", {"log": ["elsewhere"]}),
        ("--preset gits", {"config": "gits"}),
    ],
)  # fmt: skip
def test_python_and_the_command_line_refuse_with_the_same_message(line, arguments):
    with pytest.raises(ValueError, match="but must be") as refusal:
        ddpg_jax.train(**arguments)
    assert parsed(line.split()) == f"{refusal.value} (see {run.PROGRAM} --help)"


def test_swept_preset_keeps_the_options_that_are_given_and_those_that_configurations_share():
    options = parsed(["--sweep", "preset=keras,gist", "--gamma", "0.995", "--total-steps", "700"])
    for each, name in zip(options.swept, ("keras", "gist"), strict=True):
        shared = {field: getattr(PRESETS["pendulum"], field) for field in COMMON} | {"total_steps": 700}
        assert each == ({"preset": name}, PRESETS[name].replace(gamma=0.995, **shared))


def test_configuration_of_a_file_takes_the_place_of_a_preset(tmp_path):
    path = tmp_path / "best.json"
    KERAS.replace(tau=0.25, total_steps=300).to_json(path)
    options = parsed(["--config", str(path), "--gamma", "0.9"])
    assert options.swept == as_swept(KERAS.replace(tau=0.25, total_steps=300, gamma=0.9))
    assert options.preset == "custom"
    assert parsed(["--config", str(path), "--sweep", "tau=0.1,0.2"]).swept[1].config.total_steps == 300
    assert "(default: 0.25)" in help_text("--config", str(path))
    for other in ("preset", "resume"):
        message = f"config is {path}, but must not be given with {other} (see "
        assert parsed(["--config", str(path), f"--{other}", "keras"]).startswith(message)
    path.write_text('{"tau": 2}')
    assert parsed(["--config", str(path)]).startswith(f"{path} is not a configuration: tau is 2, but must be")


@pytest.mark.parametrize("word", ["nan", "1e400", "9" * 30, "0x10", "½", "", " ", "None", "--", "-", "@x", "~", "\0"])
def test_any_word_is_taken_or_refused_by_name(word):
    for name in ("seeds", "env_id", "env_args", "out", "critic_atoms", "tau", "hidden_sizes", "noise_reset", "noise"):
        for arguments in ([f"--{name}={word}"], [f"--{name}", word]):
            outcome = parsed(arguments)
            expected = (f"{name} is ", "value_max is ", "unexpected argument ", "unknown option ")
            assert isinstance(outcome, Options) or outcome.startswith(expected), arguments


# Resuming

SAVED = {
    "format": 2, "preset": "keras", "seeds": [2, 5], "seed": 7, "device": "1 x cpu", "num_devices": 1,
    "group_size": None, "checkpoint_every": 30.0, "log": ["tensorboard"], "command": ["python"],
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
    changes = "--total-steps 30000 --devices 2 --checkpoint-every 5 --log wandb --quiet --verbose"
    options = parsed(["--resume", str(saved), *changes.split(), "--fail-on-divergence"])
    assert [each.config.total_steps for each in options.swept] == [30_000, 30_000]
    assert [each.config.tau for each in options.swept] == [0.1, 0.2]
    assert (options.devices, options.checkpoint_every, options.log) == (2, 5, ("wandb",))
    same = "--preset keras --sweep tau=0.1,0.2 --seeds 2:5 --seed 7"
    assert parsed(["--resume", str(saved), *same.split()]).swept == parsed(["--resume", str(saved)]).swept


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--seeds 3", "seeds is 3, but must be 2:5, as in "),
        ("--preset gist", "preset is gist, but must be keras, as in "),
        ("--tau 0.1", "tau is 0.1, but must be 0.2, as in "),
        ("--sweep tau=0.1,0.3", "tau is 0.3, but must be 0.2, as in "),
        ("--sweep tau=0.1,0.2,0.3", "number of configurations is 3, but must be 2, as in "),
        ("--out elsewhere", "out is elsewhere, but must be "),
        ("--total-steps 10", "total_steps is 10, but must be at least 20000, the length of "),
    ],
)
def test_resumed_run_may_not_become_another_run(saved, line, message):
    assert parsed(["--resume", str(saved), *line.split()]).startswith(message)


@pytest.mark.parametrize("change", [{"format": 1}, {"seeds": 3}, {"seed": "x"}, {"configs": [{}]},
                                    {"config": {"tau": 3}}, {"config": None}, {"log": 3}])  # fmt: skip
def test_damaged_configuration_of_a_run_is_refused_by_name(saved, change):
    (saved / "config.json").write_text(json.dumps(SAVED | change))
    assert str(saved) in parsed(["--resume", str(saved)])


# Refusals that need JAX, and the files of a run


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--env-id", "Nowhere-v0"), "env_id is 'Nowhere-v0', "),
        (("--eval-episodes", 513), "eval_episodes is 513, but must be at most 512"),
        (("--eval-every", 1, "--total-steps", 2**31 - 1), "eval_every is 1, but must be at least 21475"),
    ],
)
def test_late_refusal_is_one_line_and_leaves_nothing_behind(tmp_path, words, message):
    assert refused(run.main, *SMALL, "--out", tmp_path / "a/b", *words).startswith(f"error: {message}")
    assert list(tmp_path.iterdir()) == []


NAME = "runs/a[/b]:smile:[lr]"


@pytest.fixture(scope="module")
def eight(tmp_path_factory):
    """A run of seeds 4 to 11 in a process of its own, on all cores. No part of the name is taken for markup."""
    folder = tmp_path_factory.mktemp("command")
    status, out, err = execute("--seeds", "4:12", "--out", NAME, folder=folder)
    assert (status, err) == (0, ""), (status, out, err)
    assert "pendulum on Pendulum-v1" in out
    assert "200 of 200 steps per agent (100%)" in out
    assert f" {NAME} " in out
    assert out.splitlines()[-1] == f"see the agents act: python -m ddpg_jax.render '{NAME}'"
    assert "\x1b" not in out
    return folder / NAME


def test_files_of_a_run_are_complete(eight):
    names = {str(path.relative_to(eight)) for path in eight.rglob("*") if path.is_file()}
    assert {name for name in names if not name.startswith("checkpoints/")} == {
        ".lock", "config.json", "info.json", "metrics.csv", "episodes.csv", "summary.json", "learning_curve.png",
        "report.html", "training_returns.png", "policy/policy.json", "policy/actors.safetensors",
        *(f"snapshots/{step:09d}/weights.safetensors" for step in (0, 50, 100, 150, 200)),
    }  # fmt: skip
    weights = safetensors.numpy.load_file(eight / "snapshots/000000000/weights.safetensors")
    assert {name.split("/")[0] for name in weights} == {"actor", "critic"}
    assert {len(array) for array in weights.values()} == {8}


def test_metrics_are_sorted_and_complete(eight):
    lines = [line.split(",") for line in (eight / "metrics.csv").read_text().splitlines()]
    assert ",".join(lines[0]) == "agent,env_steps,updates,eval_return,train_return,critic_loss,actor_loss,q_mean"
    places = [(int(line[1]), int(line[0])) for line in lines[1:]]
    assert places == [(steps, agent) for steps in (60, 120, 180, 200) for agent in range(4, 12)]
    assert {int(line[1]): int(line[2]) for line in lines[1:]} == {60: 41, 120: 101, 180: 161, 200: 181}


def test_run_says_how_it_was_started_and_how_long_it_took(eight):
    content = json.loads((eight / "config.json").read_text())
    assert content["command"][1:] == ["-m", "ddpg_jax.run", *SMALL, "--seeds", "4:12", "--out", NAME]
    assert set(content["config"]) == {field.name for field in dataclasses.fields(Config)}
    assert (content["config"]["hidden_sizes"], content["config"]["final_episodes"]) == ([8], 16)
    assert {"jax", "jaxlib", "ddpg_jax", "python"} <= set(content["versions"])
    assert (content["seeds"], content["seed"], content["preset"]) == ([4, 12], 0, "pendulum")
    params, summary = (json.loads((eight / name).read_text()) for name in ("info.json", "summary.json"))
    assert (params["env_id"], params["params"]["hidden_sizes"]) == ("Pendulum-v1", [8])
    assert (summary["num_agents"], summary["env_steps_per_agent"], summary["updates_per_agent"]) == (8, 200, 181)
    spent = ("compile_seconds", "train_seconds", "evaluation_seconds", "checkpoint_seconds")
    assert 0 < sum(summary[name] for name in spent) < summary["wall_seconds"]
