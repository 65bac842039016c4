import contextlib
import json
import math
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from command import main as train
from PIL import Image
from toy_environments import chain, counter, small_config

from ddpg_jax import render
from ddpg_jax.algorithm import agent, evaluation
from ddpg_jax.environments import optimum
from ddpg_jax.environments.registry import make
from ddpg_jax.pictures import animation, drawing, trajectories
from ddpg_jax.pictures.snapshots import Snapshot, load_trained
from ddpg_jax.pictures.trajectories import Trajectories
from ddpg_jax.population.assembly import make_algorithm

NUM_AGENTS = 3
FEW = ("--episodes", "2")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("render") / "run"
    assert train("--out", folder, "--seeds", NUM_AGENTS).status == 0
    return folder


@pytest.fixture
def run_folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    monkeypatch.setattr(drawing, "OPTIMUM_POINTS", (40, 41))


def draw(*arguments) -> int:
    return render.main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    """Returns the one line that says why nothing was drawn."""
    with contextlib.suppress(SystemExit):  # of a value that is refused by its domain
        assert draw(*arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert out == ""
    return line


def files(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*")}


def scene(folder, **changes):
    return render.make_scene(render.Options(folder, **changes))[0]


# What is drawn


def test_pictures_go_into_the_run_folder(run_folder, capsys):
    assert draw(run_folder, *FEW) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(run_folder / name) for name in ("pendulums.gif", "state_plane.png", "q_estimates.png")
    ]
    for name in ("state_plane.png", "q_estimates.png"):
        with Image.open(run_folder / name) as picture:
            assert picture.format == "PNG"
    with Image.open(run_folder / "pendulums.gif") as picture:
        assert picture.n_frames == 200
        assert picture.info["duration"] == 50  # ms, the pendulum's own step
    assert not list(run_folder.glob(".*.part"))


def test_pictures_go_where_they_are_told_and_only_those_that_are_named(finished, tmp_path):
    before = files(finished)
    assert draw(finished, "--only", "q_estimates", "--out", tmp_path / "a" / "b", *FEW) == 0
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["q_estimates.png"]
    assert files(finished) == before


def test_returns_at_the_last_snapshot_are_those_of_the_summary(finished):
    shown = scene(finished, only=("q_estimates",), episodes=512)
    returns = trajectories.returns(shown.tests[-1], shown.environment.max_steps)
    assert returns.shape == (NUM_AGENTS, 512)
    summary = json.loads((finished / "summary.json").read_text())
    np.testing.assert_allclose(returns.mean(axis=1), summary["per_agent_final_return"], rtol=2e-5)


def test_trajectories_return_what_the_evaluation_returns(finished):
    shown = scene(finished, episodes=4)
    first = jax.tree.map(lambda leaf: leaf[1], shown.snapshots[0].actors)
    state = agent.init(jax.random.key(0), jnp.zeros(3), algorithm=shown.trained.algorithm)
    state = state._replace(actor=first)
    evaluated = evaluation.greedy_episodes(
        state, shown.environment.evaluation_starts(4), environment=shown.environment, algorithm=shown.trained.algorithm
    )
    np.testing.assert_allclose(trajectories.returns(shown.tests[0], 200)[1], evaluated.returns, rtol=1e-5)


def test_drawn_angles_and_torques_bring_the_return_that_is_written_above_them(finished, monkeypatch):
    drawn = {}
    monkeypatch.setattr(animation, "draw", lambda panels: drawn.update(panels=panels))
    monkeypatch.setattr(animation, "encode", lambda frames, suffix: b"")
    shown = scene(finished, first_agent=1, start=7)
    drawing.draw_pendulums(shown, ".gif")
    assert shown.agents == (1, 2)
    optimal = make("Pendulum-v1").optimal_returns[7]
    for panel, title in zip(drawn["panels"], ("before training", "after 100 env", "after 200 env"), strict=True):
        assert panel.title.startswith(title)
        assert panel.angle.shape == panel.torque.shape == (200, 2)
        state, _ = make("Pendulum-v1").evaluation_starts(8)
        np.testing.assert_allclose(panel.angle[0], state.theta[7], rtol=1e-6)
        # The velocity before a step turned the pendulum to the angle before it.
        velocity = np.diff(panel.angle, axis=0, prepend=panel.angle[:1]) / 0.05
        velocity[0] = state.theta_dot[7]
        _, _, reward = optimum.step(panel.angle, velocity, 2 * panel.torque)
        expected = f"mean return {np.sum(reward, axis=0).mean():,.0f} (optimum {optimal:.0f})".replace("-", "−")
        assert panel.subtitle == expected


def test_snapshots_are_those_that_are_named(finished):
    assert [snapshot.env_steps for snapshot in scene(finished).snapshots] == [0, 100, 200]
    assert [snapshot.env_steps for snapshot in scene(finished, snapshots=(150, 50)).snapshots] == [150, 50]


@pytest.mark.parametrize("flag", ["--snapshots", "--moments"])
def test_snapshots_have_an_older_name_for_their_flag(finished, monkeypatch, flag):
    seen = []
    monkeypatch.setattr(render, "make_scene", lambda options: (seen.append(options.snapshots), ()))
    assert draw(finished, flag, 0, 150, "--only", "pendulums") == 0
    assert seen == [(0, 150)]


def test_pendulum_points_up_at_0_and_left_at_a_quarter_turn():
    """Counter-clockwise, as Gymnasium draws it."""
    for angle, at in ((0.0, (0, -1)), (math.pi / 2, (-1, 0)), (math.pi, (0, 1)), (-math.pi / 2, (1, 0))):
        panel = animation.Panel("", "", np.full((1, 1), angle), np.zeros((1, 1)))
        (frame,) = animation.draw([panel])
        pixels = np.asarray(frame.convert("RGB")).astype(int)
        blue = (pixels[..., 2] > pixels[..., 0] + 60)[58:358, 16:316]  # only the panel
        rows, columns = np.nonzero(blue)
        np.testing.assert_allclose(
            [columns.mean() - 149.5, rows.mean() - 149.5], 66 * np.array(at), atol=4
        )  # half of a rod of 0.44 x 300


def test_torque_is_an_arc_on_its_side_as_long_as_it_is_strong():
    def orange(torque):
        panel = animation.Panel("", "", np.full((1, 1), math.pi), np.full((1, 1), torque))
        pixels = np.asarray(animation.draw([panel])[0].convert("RGB")).astype(int)
        found = (pixels[..., 0] > pixels[..., 2] + 60)[58:358, 16:316]
        return found[:, :140].sum(), found[:, 160:].sum()

    left, right = orange(1.0)
    assert left > 100
    assert right == 0
    assert orange(-1.0)[1] == pytest.approx(left, rel=0.05)
    assert orange(0.5)[0] == pytest.approx(left / 2, rel=0.25)
    assert orange(0.0) == (0, 0)


def test_still_pixels_of_the_animation_are_not_stored_again():
    still = animation.Panel("t", "s", np.zeros((50, 1)), np.zeros((50, 1)))
    one = animation.Panel("t", "s", np.zeros((1, 1)), np.zeros((1, 1)))
    sizes = [len(animation.encode(animation.draw([panel]), ".gif")) for panel in (still, one)]
    assert sizes[0] < sizes[1] + 49 * 300  # of the 2,500 bytes of a whole one: the time, and what a frame costs


def test_learned_plane_is_actor_and_critic_and_the_optimum_is_symmetric(finished):
    shown = scene(finished)
    plane = drawing.learned_plane(shown, 1)
    angle, velocity = -np.pi + 2 * np.pi * 150 / 200, -8 + 16 * 40 / 160
    observation = jnp.array([[np.cos(angle), np.sin(angle), velocity]], jnp.float32)
    actor, critic = jax.tree.map(lambda leaf: leaf[1], (shown.snapshots[-1].actors, shown.snapshots[-1].critics))
    action = shown.trained.algorithm.actor.apply(actor, observation)
    assert plane.torque[150, 40] == pytest.approx(float(action[0, 0]), abs=1e-4)
    value = shown.trained.algorithm.critic.apply(critic, observation, action)
    assert plane.value[150, 40] == pytest.approx(float(value[0]), abs=1e-3)
    best = drawing.optimal_plane(0.99)
    np.testing.assert_allclose(best.value, best.value[::-1, ::-1], atol=0.5)
    assert np.unravel_index(best.value.argmax(), best.value.shape) == (100, 80)


# Q estimates


def one_agent(reward, terminated=None, truncated=None):
    """Trajectories of one agent from one start."""
    reward = jnp.asarray(reward, jnp.float32)[:, None, None]
    nothing = jnp.zeros(reward.shape, bool)
    terminated = nothing if terminated is None else nothing.at[terminated].set(True)
    truncated = nothing if truncated is None else nothing.at[truncated].set(True)
    value = jnp.arange(len(reward), dtype=jnp.float32)[:, None, None]
    return Trajectories(None, reward[..., None], value, reward, terminated, truncated)


def pairs(played, discount, max_steps, *, terminal=False):
    return trajectories.estimates_and_returns(
        played, np.array([discount]), max_steps=max_steps, time_limit_terminal=terminal
    )


def test_returns_that_follow_are_discounted_and_end_in_a_terminal_state():
    estimate, observed = pairs(one_agent([1.0, 2.0, 4.0, 8.0], terminated=2), 0.5, 4)
    np.testing.assert_array_equal(estimate, [0, 1, 2])
    np.testing.assert_allclose(observed, [1 + 2 / 2 + 4 / 4, 2 + 4 / 2, 4])


def test_what_follows_a_time_limit_counts_unless_it_was_learned_as_terminal():
    played = one_agent([1.0, 2.0, 4.0, 8.0], truncated=1)
    estimate, observed = pairs(played, 0.5, 2)
    np.testing.assert_array_equal(estimate, [0, 1])
    np.testing.assert_allclose(observed, [1 + 2 / 2 + 4 / 4 + 8 / 8, 2 + 4 / 2 + 8 / 4])
    np.testing.assert_allclose(pairs(played, 0.5, 2, terminal=True)[1], [1 + 2 / 2, 2])


def test_limit_below_the_environments_own_is_the_trainings():
    played = one_agent(np.ones(6))
    np.testing.assert_allclose(pairs(played, 0.5, 3, terminal=True)[1], [1.75, 1.5, 1])
    assert len(pairs(played, 0.5, 3)[0]) == 3


def test_rewards_count_until_they_weigh_a_hundredth():
    assert trajectories.foresight(0.1) == 2
    assert trajectories.foresight(0.5) == 7  # 2^-7 < 0.01 < 2^-6
    assert trajectories.foresight(0.99) == 459
    assert trajectories.foresight(0.0) == 1
    assert trajectories.foresight(1.0) == trajectories.foresight(0.9999) == 1000
    _, observed = pairs(one_agent([1.0, 1.0, 1.0, 1.0]), 0.1, 1)
    np.testing.assert_allclose(observed, [1.1])


def test_undiscounted_returns_end_where_the_episode_does():
    assert trajectories.returns(one_agent([1.0, 2.0, 4.0], terminated=1), 3) == [[3.0]]
    assert trajectories.returns(one_agent([1.0, 2.0, 4.0], truncated=0), 3) == [[1.0]]
    assert trajectories.returns(one_agent([1.0, 2.0, 4.0]), 2) == [[3.0]]


@pytest.mark.parametrize("environment", [chain((1.0, 2.0, 4.0)), counter(length=3)], ids=lambda e: e.env_id)
def test_toy_episodes_are_played_as_they_are(environment):
    algorithm = make_algorithm(small_config(), environment.low, environment.high)
    size = environment.observation_size
    states = [agent.init(jax.random.key(i), jnp.zeros(size), algorithm=algorithm) for i in range(2)]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    snapshot = Snapshot(0, state.actor, state.critic)
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (2, 1, *x.shape)), environment.reset(jax.random.key(0)))
    played = trajectories.play(snapshot, starts, environment=environment, algorithm=algorithm, num_steps=5)
    np.testing.assert_array_equal(trajectories.lengths(played, 100), [[3], [3]])
    expected = 7.0 if environment.env_id == "chain" else 3.0
    np.testing.assert_array_equal(trajectories.returns(played, 100), [[expected], [expected]])
    first = agent.act(states[1], starts[1][1, 0], algorithm=algorithm)
    np.testing.assert_allclose(played.action[0, 1, 0], first, rtol=1e-6)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--agents", 4), "agents is 4, but must be a whole number from 1 to 3"),
        (("--agents", 0), "agents is 0, but must be"),
        (("--first-agent", 3), "first_agent is 3, but must be a whole number from 0 to 2"),
        (("--snapshots", 0, 70), "snapshots is 0 70, but must be at most 5 of 0, 50, 100, 150, 200"),
        (("--start", 512), "start is 512, but must be a whole number >= 0 (at most 511)"),
        (("--episodes", 0), "episodes is 0, but must be a whole number >= 1 (at most 512)"),
        (("--animation", "a.avi"), "animation is a.avi, but must end in .gif or .mp4"),
        (("--part", 0), "part is 0, but must not be given"),
    ],
)
def test_options_are_refused_in_one_line(finished, capsys, arguments, words):
    before = files(finished)
    assert words in refused(capsys, finished, *arguments)
    assert files(finished) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--only", "cinema"), "only is 'cinema', but must be one of pendulums, state_plane, q_estimates, film"),
        (("--agents", "many"), "agents is 'many', but must be a whole number"),
        (("--colour", "red"), "unknown option --colour"),
        ((), "run_folder is not given, but must be"),
    ],
)
def test_command_lines_that_cannot_be_read_are_refused_in_one_line(tmp_path, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        draw(*([tmp_path] if arguments else []), *arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
    assert "─" not in line
    assert "│" not in line


def test_mp4_needs_ffmpeg(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "an .mp4 needs ffmpeg, which is not installed" in refused(capsys, finished, "--animation", "a.mp4")


def test_mp4_is_what_ffmpeg_makes_of_all_pixels(run_folder, tmp_path, capsys, monkeypatch):
    """A stand-in for the writer records the size of its input."""
    program = tmp_path / "bin" / "ffmpeg"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\nfor last; do :; done\nwc -c > "$last"\necho "$@" > ' + str(tmp_path / "arguments"))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    assert draw(run_folder, "--only", "pendulums", "--animation", "a.mp4", "--snapshots", 0, *FEW) == 0
    words = (tmp_path / "arguments").read_text().split()
    width, height = map(int, words[words.index("-s") + 1].split("x"))
    assert width % 2 == height % 2 == 0
    assert int((run_folder / "a.mp4").read_text()) == 200 * 3 * width * height
    program.write_text("#!/bin/sh\necho no codec >&2\nexit 1\n")
    capsys.readouterr()
    assert "by ffmpeg: no codec" in refused(capsys, run_folder, "--only", "pendulums", "--animation", "b.mp4")
    assert not (run_folder / "b.mp4").exists()


def test_folders_that_are_no_finished_run_are_refused(run_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for there in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert f"run_folder is {there}, but must be the folder of a finished run" in refused(capsys, there)
    shutil.rmtree(run_folder / "snapshots")
    assert "but must have snapshots/" in refused(capsys, run_folder)


def test_damaged_runs_are_refused_and_nothing_is_written(run_folder, capsys):
    snapshot = run_folder / "snapshots/000000200/agents-000000.safetensors"
    whole = snapshot.read_bytes()
    snapshot.write_bytes(whole[:-8])
    assert "is damaged" in refused(capsys, run_folder)
    shutil.copy(run_folder / "policy/agents-000000.safetensors", snapshot)
    assert "but must be" in refused(capsys, run_folder)
    snapshot.unlink()
    assert "has no weights" in refused(capsys, run_folder)
    snapshot.write_bytes(whole)
    for text in ("{", "[]", "{}", '{"preset": 1, "config": {"gamma": 7}}'):
        (run_folder / "config.json").write_text(text)
        assert "config.json cannot be read" in refused(capsys, run_folder)
    assert not list(run_folder.glob("*.gif")) + list(run_folder.glob("state_plane.png"))


def test_folder_that_cannot_be_written_is_refused(finished, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    line = refused(capsys, finished, "--only", "q_estimates", "--out", tmp_path / "file", *FEW)
    assert "but must be a folder that can be written" in line


def test_diverged_agents_are_not_shown(run_folder, capsys):
    file = run_folder / "policy/policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"diverged_agents": [0]}))
    assert scene(run_folder).agents == (1, 2)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"diverged_agents": [0, 1, 2]}))
    assert "has not diverged" in refused(capsys, run_folder)


# Other runs


@pytest.mark.slow
def test_other_environments_have_q_estimates_alone(tmp_path, capsys):
    folder = tmp_path / "run"
    assert train("--out", folder, "--seeds", 1, "--env-id", "PointRobot-misc", "--eval-episodes", "2").status == 0
    assert draw(folder, *FEW) == 0
    out = capsys.readouterr().out.splitlines()
    assert out == [
        str(folder / "q_estimates.png"),
        "left out: pendulums, because PointRobot-misc is not gymnax's Pendulum-v1",
        "left out: state_plane, because PointRobot-misc is not gymnax's Pendulum-v1",
        "left out: film, because PointRobot-misc cannot draw itself",
    ]
    assert "only is pendulums, but must be of q_estimates" in refused(capsys, folder, "--only", "pendulums")


@pytest.mark.slow
def test_parts_of_a_sweep_over_shapes_are_named(tmp_path, capsys):
    folder = tmp_path / "run"
    sweep = ("--sweep", "hidden_sizes=8,6", "--sweep", "gamma=0.9,0.8", "--seeds", "2")
    assert train("--out", folder, *sweep, "--eval-episodes", "2").status == 0
    assert "part is not given, but must be one of 0, 1" in refused(capsys, folder)
    assert "part is 2, but must be one of 0, 1" in refused(capsys, folder, "--part", 2)
    for part, size in ((0, 8), (1, 6)):
        trained = load_trained(folder, part)
        assert trained.config.hidden_sizes == (size,)
        np.testing.assert_array_equal(trained.discounts, [0.9, 0.9, 0.8, 0.8])
        assert trained.load(0, [3]).actors["params"]["hidden"]["Dense_0"]["kernel"].shape == (1, 3, size)
    assert draw(folder, "--part", 1, "--only", "q_estimates", *FEW) == 0
