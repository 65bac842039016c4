"""What a block of agents takes of a device, the groups that fit into it, and how the replay lies there."""

from types import SimpleNamespace
from unittest import mock

import jax
import numpy as np
import pytest

from ddpg_jax.algorithm.types import is_key
from ddpg_jax.config import Config
from ddpg_jax.environments.registry import make
from ddpg_jax.population import programs
from ddpg_jax.population.assembly import make_hyperparameters, make_setup
from ddpg_jax.population.blocks import Population, agent_keys
from ddpg_jax.population.programs import (
    AGENTS_FASTEST,
    ROWS_FASTEST,
    Memory,
    Placement,
    compile_programs,
    compiled_memory,
)
from ddpg_jax.runs import plan
from ddpg_jax.runs.placement import smaller_groups

MiB = 2**20
SMALL = Config(hidden_sizes=(8,), batch_size=8, replay_capacity=100, learning_starts=8, total_steps=40, eval_every=40)


def on(platform: str, group_size: int) -> Placement:
    return Placement((SimpleNamespace(platform=platform, process_index=0),), group_size)


def setup_of(config: Config):
    return make_setup(config, make("Pendulum-v1"))


def planned(placements, available: int, needed: dict[int, Memory | None], num_agents: int = 1_000) -> plan.Part:
    """Plans agents whose blocks need so much memory, by the size of their groups."""
    with (
        mock.patch.object(plan, "available_memory", return_value=available),
        mock.patch.object(plan, "block_memory", lambda config, setup, placement: needed[placement.group_size]),
    ):
        return plan.plan_part(SMALL, setup_of(SMALL), placements, range(num_agents))


def test_smaller_groups_are_those_of_an_accelerator():
    assert [each.group_size for each in smaller_groups(on("gpu", 256))] == [256, 32]
    assert [each.group_size for each in smaller_groups(on("gpu", 32))] == [32]
    assert [each.group_size for each in smaller_groups(on("cpu", 1))] == [1]


@pytest.mark.parametrize(("available", "size"), [(300 * MiB, 256), (299 * MiB, 32), (50 * MiB, 32)])
def test_the_largest_group_that_fits_is_taken(available, size):
    needed = {256: Memory(200 * MiB, 100 * MiB), 32: Memory(40 * MiB, 10 * MiB)}
    assert planned(smaller_groups(on("gpu", 256)), available, needed).placement.group_size == size


def test_only_one_block_at_a_time_works():
    part = planned([on("gpu", 32)], 100 * MiB, {32: Memory(20 * MiB, 30 * MiB)})
    assert part.wave_size == 3 * 32
    assert part.wave_bytes == 90 * MiB
    assert part.lines()[1].endswith("96 agents, 90.0 MiB at a time, of it 30.0 MiB while a block advances")


def test_a_block_that_does_not_fit_is_refused_with_what_would():
    needed = {256: Memory(200 * MiB, 100 * MiB), 32: Memory(40 * MiB, 10 * MiB)}
    with pytest.raises(ValueError, match=r"but 32 agents, the fewest that train at a time, would need 50.0 MiB of 49"):
        planned(smaller_groups(on("gpu", 256)), 49 * MiB, needed)


def test_a_group_that_cannot_be_compiled_does_not_fit():
    needed = {256: None, 32: Memory(40 * MiB, 10 * MiB)}
    assert planned(smaller_groups(on("tpu", 256)), 50 * MiB, needed).placement.group_size == 32
    with pytest.raises(ValueError, match=r"but 32 agents, the fewest .* need more memory than a device has"):
        planned([on("tpu", 32)], 50 * MiB, {32: None})


@pytest.mark.parametrize(("message", "outcome"), [("RESOURCE_EXHAUSTED: of HBM", None), ("INTERNAL: a bug", "raised")])
def test_only_too_little_memory_is_taken_for_it(monkeypatch, message, outcome):
    monkeypatch.setattr(programs, "compiled", mock.Mock(side_effect=jax.errors.JaxRuntimeError(message)))
    compiled_memory.cache_clear()
    placement = Placement((jax.devices()[0],), 1)
    try:
        found = compiled_memory(setup_of(SMALL), placement, max_steps=10, num_starts=2)
    except jax.errors.JaxRuntimeError:
        found = "raised"
    assert found == outcome


def test_a_cpu_is_planned_without_compiling():
    with mock.patch.object(plan, "compiled_memory", side_effect=AssertionError):
        block = plan.block_memory(SMALL, setup_of(SMALL), on("cpu", 4))
    assert block.working == 0
    assert block.states >= 4 * 100 * 9 * 4


def test_an_accelerator_is_planned_by_its_compiler(monkeypatch):
    monkeypatch.setattr(plan, "compiled_memory", lambda *_, **__: Memory(7, 3))
    assert plan.block_memory(SMALL, setup_of(SMALL), on("gpu", 32)) == (7, 3)


def test_the_compiler_counts_at_least_the_states():
    setup = setup_of(SMALL)
    found = compiled_memory(setup, Placement((jax.devices()[0],), 4), max_steps=250, num_starts=2)
    arrays = plan.block_memory(SMALL, setup, on("cpu", 4)).states
    assert arrays <= found.states <= 1.1 * arrays
    assert found.working >= 4 * 250 * 6 * 4  # at least the log


@pytest.mark.parametrize(
    ("platform", "size", "capacity", "layout"),
    [
        ("tpu", 256, 100, AGENTS_FASTEST),
        ("tpu", 32, 50_000, ROWS_FASTEST),
        ("tpu", 32, 6_000, None),  # moved into fast memory, whatever its order outside
        ("gpu", 256, 50_000, None),
        ("cpu", 256, 50_000, None),
    ],
)
def test_a_tpu_keeps_the_order_that_its_loops_use(platform, size, capacity, layout):
    setup = setup_of(SMALL.replace(replay_capacity=capacity))
    assert programs.replay_layout(setup, on(platform, size)) == layout


@pytest.mark.parametrize(("layout", "held"), [(ROWS_FASTEST, 2), (AGENTS_FASTEST, 0), (None, 0)])
def test_both_loops_are_held_to_the_order_of_rows(layout, held):
    with mock.patch.object(programs, "replay_layout", return_value=layout):
        placement = Placement((jax.devices()[0],), 2)
        lowered = programs.lower_programs(setup_of(SMALL), placement, max_steps=20, num_starts=2)
    assert lowered["train"].as_text().count("LayoutConstraint") == held  # one that gathers, one that also learns


def order(population) -> set[tuple[int, ...]]:
    """The axes of the replays in memory, the slowest first."""
    return {state.replay.rows.format.layout.major_to_minor for state in population.states}


def advanced(layout) -> tuple[set, list]:
    """The order of the replays' axes and all numbers of three agents, whose states went through the host once."""
    with mock.patch.object(programs, "replay_layout", return_value=layout):
        compiled = compile_programs(setup_of(SMALL), Placement((jax.devices()[0],), 2), max_steps=20, num_starts=2)
    hyperparameters = jax.tree.map(lambda x: np.full(3, x, np.float32), make_hyperparameters(SMALL))
    population = Population(compiled, agent_keys(0, np.arange(3)), hyperparameters)
    logs = [population.advance(20)]
    population.restore(lambda positions, state: jax.tree.map(lambda x: x if is_key(x) else np.asarray(x), state))
    found = order(population)
    population.replace(population.states)
    found |= order(population)
    logs.append(population.advance(10))
    returns = [np.asarray(log.episode_return) for log in logs]
    return found | order(population), [*returns, *jax.tree.leaves(population.agents(lambda agent: agent))]


@pytest.mark.slow
@pytest.mark.parametrize("layout", [AGENTS_FASTEST, ROWS_FASTEST])
def test_a_layout_changes_no_bit_and_outlasts_a_restored_state(layout):
    (before, plain), (after, laid_out) = advanced(None), advanced(layout)
    assert (before, after) == ({(0, 1, 2)}, {layout.major_to_minor})
    for ours, theirs in zip(plain, laid_out, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(("group_size", "copies"), [(256, 2), (32, 3)])
def test_a_tpu_copies_no_replay(group_size, copies):
    """Compiled for a v5e that is not there; with the layout that the device would choose the replay is copied."""
    pytest.importorskip("libtpu")
    from ahead_of_time import examine
    from jax.experimental import topologies

    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2").devices[:1]
    assert examine("keras", group_size, devices)["replay_copies"] == []
    with mock.patch.object(programs, "replay_layout", return_value=None):
        assert len(examine("keras", group_size, devices)["replay_copies"]) == copies
