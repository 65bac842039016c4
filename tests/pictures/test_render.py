"""Tests `python -m ddpg_jax.render`: what the pictures show, which are drawn, and what is refused."""

import contextlib
import dataclasses
import io
import json
import shutil

import gymcases
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from PIL import Image

import ddpg_jax
from ddpg_jax import render
from ddpg_jax.algorithm.environment import Environment, Step
from ddpg_jax.environments.registry import make_task
from ddpg_jax.environments.task import Task
from ddpg_jax.pictures import drawing, trajectories

SMALL = small_runs.SMALL.replace(gamma=0.9)  # so that no more than 44 rewards count
FEW = ("--episodes", "2")


def train(folder, config=SMALL, seeds=3):
    ddpg_jax.train(config, seeds=seeds, out=folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return train(tmp_path_factory.mktemp("render") / "run")


@pytest.fixture
def run_folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def draw(*arguments) -> int:
    return render.main([str(argument) for argument in arguments])


def refused(capsys, *arguments) -> str:
    """Returns the one line that says why nothing was drawn."""
    with contextlib.suppress(SystemExit):  # of a value that its field refuses
        assert draw(*arguments) == 2
    out, err = capsys.readouterr()
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert out == ""
    return line


def edit_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text())
    content["config"] |= changes
    (folder / "config.json").write_text(json.dumps(content))


def scene(folder, **changes):
    return render.make_scene(render.Options(folder, **{"episodes": 2} | changes))[0]


# Pictures


def test_pictures_go_into_the_run_folder(run_folder, capsys):
    assert draw(run_folder, *FEW) == 0
    assert capsys.readouterr().out.splitlines() == [
        str(run_folder / name) for name in ("pendulums.gif", "state_plane.png", "q_estimates.png")
    ]
    with Image.open(run_folder / "pendulums.gif") as picture:
        assert picture.n_frames == 200
        assert picture.info["duration"] == 50  # ms, the pendulum's own step
    assert not list(run_folder.glob(".*.part"))


def test_only_named_pictures_are_drawn_where_they_are_to_go(finished, tmp_path):
    assert draw(finished, "--only", "q_estimates", "--out", tmp_path / "a" / "b", *FEW) == 0
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["q_estimates.png"]
    assert not (finished / "q_estimates.png").exists()


def test_returns_at_the_last_snapshot_are_those_of_the_summary(finished):
    shown = scene(finished, episodes=16, snapshots=(150, 200))
    assert [snapshot.env_steps for snapshot in shown.snapshots] == [150, 200]
    returns = trajectories.returns(shown.tests(shown.played[-1]), 200)
    assert returns.shape == (3, 16)
    summary = json.loads((finished / "summary.json").read_text())
    np.testing.assert_allclose(returns.mean(axis=1), summary["per_agent_final_return"], rtol=2e-5)


def test_panels_show_angles_torques_and_the_return_next_to_the_optimum(finished):
    shown = scene(finished, first_agent=1, start=7)
    assert shown.agents == (1, 2)
    starts, optimum = shown.task.evaluation_starts(8).state, make_task("Pendulum-v1").optimal_returns[7]
    panels = drawing.pendulum_panels(shown)
    for panel, played, title in zip(panels, shown.played, ("before tr", "after 100 env", "after 200 env"), strict=True):
        assert panel.title.startswith(title)
        np.testing.assert_allclose(np.exp(1j * panel.angle[0]), np.exp(1j * starts.theta[7]), atol=1e-4)
        np.testing.assert_allclose(2 * panel.torque, played.action[:200, :, 0, 0])
        score = trajectories.returns(played.steps, 200)[:, 2].mean()
        assert panel.subtitle == f"mean return {score:,.0f} (optimum {optimum:.0f})".replace("-", "−")


def test_task_with_other_arguments_is_drawn_as_it_is_without_an_optimum(run_folder, capsys):
    edit_config(run_folder, env_args=["g=1.0"], action_repeat=4)
    shown = scene(run_folder)
    assert shown.task == make_task("Pendulum-v1", ("g=1.0",), 4)
    assert "optimum" not in drawing.pendulum_panels(shown)[0].subtitle
    assert draw(run_folder, "--only", "pendulums", "state_plane", *FEW) == 0
    with Image.open(run_folder / "pendulums.gif") as picture:
        assert (picture.n_frames, picture.info["duration"]) == (50, 200)
    with Image.open(run_folder / "state_plane.png") as picture:
        assert picture.size[0] == 7 * 150  # inches x dots per inch: one column
    assert "error" not in "".join(capsys.readouterr())


def test_learned_plane_is_actor_and_critic_and_a_path_in_the_task(finished):
    shown = scene(finished)
    plane = drawing.learned_plane(shown, 1)
    angle, velocity = -np.pi + 2 * np.pi * 150 / 200, -8 + 16 * 40 / 160
    observation = jnp.array([[np.cos(angle), np.sin(angle), velocity]], jnp.float32)
    actor, critic = jax.tree.map(lambda leaf: leaf[1], (shown.snapshots[-1].actors, shown.snapshots[-1].critics))
    action = shown.trained.algorithm.actor.apply(actor, observation)
    assert plane.torque[150, 40] == pytest.approx(float(action[0, 0]), abs=1e-4)
    value = shown.trained.algorithm.critic.apply(critic, observation, action)
    assert plane.value[150, 40] == pytest.approx(float(value[0]), abs=1e-3)
    assert (len(plane.angle), plane.velocity[0]) == (200, 0)
    assert abs(plane.angle[0]) == pytest.approx(np.pi)
    np.testing.assert_allclose(np.diff(plane.angle), 0.05 * plane.velocity[1:], atol=1e-4)
    scaled = dataclasses.replace(shown.trained, config=shown.trained.config.replace(reward_scale=0.1))
    same = drawing.learned_plane(dataclasses.replace(shown, trained=scaled), 1)
    np.testing.assert_allclose(same.value, 10 * plane.value, rtol=1e-5)


def test_optimum_is_symmetric_and_highest_upright_at_rest():
    plane = drawing.optimal_plane(0.9)
    np.testing.assert_allclose(plane.value, plane.value[::-1, ::-1], atol=0.5)
    assert np.unravel_index(plane.value.argmax(), plane.value.shape) == (100, 80)


# Films


class Bar(gymcases.Base):
    """Draws the number of steps as that of lit columns; an episode has 7 steps."""

    def render(self):
        frame = np.zeros((16, 200, 3), np.uint8)
        frame[:, : 10 * self.t] = 255
        return frame


gymnasium.register("Bar-v0", entry_point=Bar, max_episode_steps=7)
gymnasium.register("NoPicture-v0", entry_point=gymcases.NoRender, max_episode_steps=7)


def bar(broken: bool = False) -> Task:
    """Returns the same as a task in the compiled program."""

    def step(key, state, action):
        observation = jnp.stack([state + 1.0, 0.5])
        return state + 1, Step(observation, jnp.float32(1), jnp.bool_(False), state >= 6)

    def draw_states(states):
        if broken:
            raise RuntimeError("no screen\nat all")
        return [np.where(np.arange(200)[None, :, None] < 10 * t, 255, 0) * np.ones((16, 1, 3)) for t in states]

    reset = lambda key: (jnp.int32(0), jnp.array([0.0, 0.5]))  # noqa: E731
    return Task(Environment("bar", 2, (-1.0,), (1.0,), 7, reset, step), draw=draw_states)


def check_film(folder, num_frames):
    """Checks a film with two panels, of 200 pixels each, in which the n-th frame has 10 n lit columns."""
    with Image.open(io.BytesIO((folder / "film.gif").read_bytes())) as picture:
        assert picture.n_frames == num_frames
        for number in range(num_frames):
            picture.seek(number)
            row = np.asarray(picture.convert("L"))[30].reshape(2, 200)  # below the titles
            np.testing.assert_array_equal((row > 128).sum(axis=1), 10 * number)


@pytest.fixture(scope="module")
def of_bars(tmp_path_factory):
    return train(tmp_path_factory.mktemp("bars") / "run", SMALL.replace(env_id="gymnasium:Bar-v0"), seeds=2)


def test_films_of_environments_on_the_host(of_bars, tmp_path, capsys):
    folder = shutil.copytree(of_bars, tmp_path / "run")
    assert draw(folder, "--snapshots", 0, 200) == 0
    check_film(folder, num_frames=8)  # the state after the last step is drawn, too
    edit_config(folder, env_id="gymnasium:NoPicture-v0")
    capsys.readouterr()
    assert draw(folder) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "left out: film, because gymnasium:NoPicture-v0 cannot draw itself" in err.splitlines()
    assert "left out: q_estimates, because gymnasium:NoPicture-v0 steps on the host" in err.splitlines()
    assert "but must be a picture of another environment" in refused(capsys, folder, "--only", "pendulums")


def test_picture_that_cannot_be_drawn_leaves_the_others_and_a_line(of_bars, tmp_path, capsys):
    folder = shutil.copytree(of_bars, tmp_path / "run")
    edit_config(folder, env_id="test_render:bar")
    assert draw(folder, "--snapshots", 0, 200, *FEW) == 0
    check_film(folder, num_frames=7)
    (folder / "q_estimates.png").unlink()
    edit_config(folder, env_args=["broken=true"])
    capsys.readouterr()
    assert draw(folder, *FEW) == 0
    out, err = capsys.readouterr()
    assert "left out: film, because bar cannot be drawn here: RuntimeError: no screen" in out.splitlines()
    assert (folder / "q_estimates.png").exists()
    assert err == ""


# Which agents and snapshots


def test_diverged_agents_are_not_shown(run_folder, capsys):
    file = run_folder / "policy/policy.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"diverged_agents": [0]}))
    assert scene(run_folder).agents == (1, 2)
    file.write_text(json.dumps(json.loads(file.read_text()) | {"diverged_agents": [0, 1, 2]}))
    assert "has not diverged" in refused(capsys, run_folder)


def test_agents_of_one_configuration_of_a_sweep_are_shown(tmp_path, capsys):
    configs = [SMALL.replace(hidden_sizes=(size,), gamma=gamma) for size in (8, 9) for gamma in (0.9, 0.8)]
    folder = train(tmp_path / "run", configs, seeds=range(10, 12))
    shown = scene(folder, config=3)
    assert shown.agents == (16, 17)
    assert shown.trained.config == configs[3].resolved(on_host=False)
    assert "(hidden_sizes=9, gamma=0.8)" in shown.trained.title
    actors = ddpg_jax.load_policy(folder / "policy/shape-1", [16, 17]).variables
    assert jax.tree.all(jax.tree.map(np.array_equal, shown.snapshots[-1].actors, dict(actors)))
    assert "config is 4, but must be at most 3" in refused(capsys, folder, "--config", 4)


# What is refused


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--agents", 4), "agents is 4, but must be at most 3"),
        (("--first-agent", 3), "first_agent is 3, but must be at most 2"),
        (("--snapshots", 0, 70), "snapshots is 0 70, but must be at most 5 of 0, 50, 100, 150, 200"),
        (("--start", 512), "start is 512, but must be a whole number >= 0 (at most 511)"),
    ],
)
def test_options_are_refused_in_one_line(finished, capsys, arguments, words):
    assert words in refused(capsys, finished, *arguments)


def test_folders_that_are_no_finished_run_or_cannot_be_written_are_refused(run_folder, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for there in (tmp_path / "nowhere", tmp_path / "file", tmp_path):
        assert str(there) in refused(capsys, there)
    line = refused(capsys, run_folder, "--only", "q_estimates", "--out", tmp_path / "file", *FEW)
    assert "but must be a folder that can be written" in line
    shutil.rmtree(run_folder / "snapshots")
    assert "but must have snapshots/" in refused(capsys, run_folder)


def test_damaged_snapshots_are_refused_and_nothing_is_written(run_folder, capsys):
    snapshot = run_folder / "snapshots/000000200/weights.safetensors"
    snapshot.write_bytes(snapshot.read_bytes()[:-8])
    assert "is damaged" in refused(capsys, run_folder)
    shutil.copy(run_folder / "policy/actors.safetensors", snapshot)
    assert "but must be" in refused(capsys, run_folder)
    assert not list(run_folder.glob("*.gif")) + list(run_folder.glob("state_plane.png"))
