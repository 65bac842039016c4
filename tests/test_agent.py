"""Compares `init`, `act` and `update` with the same mathematics in NumPy, and the networks with their descriptions."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from toy_environments import small_config

from ddpg_jax.algorithm import agent, networks, optimizers
from ddpg_jax.algorithm.types import Transition
from ddpg_jax.config import Config
from ddpg_jax.population.assembly import make_algorithm, make_hyperparameters
from ddpg_jax.presets import PRESETS

LOW, HIGH = (-1.0, 0.5), (3.0, 0.75)
CONFIG = small_config(
    hidden_sizes=(5, 4),
    critic_hidden_sizes=(6,),
    critic_observation_sizes=(3,),
    critic_action_sizes=(2,),
    actor_final_init=None,
    gamma=0.9,
    tau=0.25,
)
HYPERPARAMETERS = make_hyperparameters(CONFIG)
ALGORITHM = make_algorithm(CONFIG, LOW, HIGH)


def sgd(learning_rate, eps, l2) -> optax.GradientTransformation:
    """An optimizer whose step is the gradient itself, so that tests can see the gradient."""
    return optax.sgd(learning_rate)


def make_batch(num: int = 4, *, seed: int = 0, dtype=np.float32) -> Transition:
    """Returns random transitions; every third is terminal."""
    rng = np.random.default_rng(seed)
    return Transition(
        rng.normal(size=(num, 3)).astype(dtype),
        rng.uniform(LOW, HIGH, size=(num, 2)).astype(dtype),
        rng.normal(size=num).astype(dtype),
        np.array([float(i % 3 != 1) for i in range(num)], dtype),
        rng.normal(size=(num, 3)).astype(dtype),
    )


def make_state(algorithm=ALGORITHM, *, dtype=np.float32) -> agent.AgentState:
    """Returns an agent with random parameters everywhere, also in biases and targets, so that a mix-up would show."""
    example = jax.ShapeDtypeStruct((3,), dtype)
    shapes = jax.eval_shape(lambda key, x: agent.init(key, x, algorithm=algorithm), jax.random.key(0), example)
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    for name in ("actor", "critic", "target_actor", "target_critic"):
        variables = getattr(state, name)
        params = jax.tree.map(lambda x: 0.7 * rng.normal(size=x.shape).astype(x.dtype), variables["params"])
        state = state._replace(**{name: variables | {"params": params}})
    return state


# The networks once more, in NumPy.


def _dense(layer, x):
    return x @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


def _hidden(layers, x):
    for i in range(len(layers)):
        x = np.maximum(_dense(layers[f"Dense_{i}"], x), 0)
    return x


def numpy_actor(params, observation):
    x = _dense(params["final"]["Dense_0"], _hidden(params["hidden"], observation))
    return (np.add(LOW, HIGH) + np.subtract(HIGH, LOW) * np.tanh(x)) / 2


def numpy_critic(params, observation, action):
    x = _hidden(params.get("observation_branch", {}), observation)
    x = np.concatenate([x, _hidden(params.get("action_branch", {}), action)], axis=-1)
    return _dense(params["final"]["Dense_0"], _hidden(params["trunk"], x))[..., 0]


def numpy_gradient(loss, params):
    """Returns the gradient of a function of a tree of arrays, by central differences in each entry."""
    flat = {name: np.array(leaf) for name, leaf in flatten_dict(params).items()}
    gradient = {name: np.zeros_like(leaf) for name, leaf in flat.items()}
    for name, leaf in flat.items():
        for index in np.ndindex(leaf.shape):
            middle, values = leaf[index], []
            for h in (1e-6, -1e-6):
                leaf[index] = middle + h
                values.append(loss(unflatten_dict(flat)))
            leaf[index] = middle
            gradient[name][index] = (values[0] - values[1]) / 2e-6
    return gradient


def assert_stepped_by(new, old, gradient, learning_rate):
    new, old = flatten_dict(new), flatten_dict(old)
    for name, expected in gradient.items():
        taken = (np.asarray(old[name]) - np.asarray(new[name])) / learning_rate
        np.testing.assert_allclose(taken, expected, atol=1e-7, rtol=1e-6, err_msg=str(name))
    assert max(np.abs(expected).max() for expected in gradient.values()) > 0.01


@pytest.mark.parametrize("critic_first", [True, False])
def test_update_follows_the_gradients_that_finite_differences_find(critic_first):
    with jax.enable_x64(True):
        algorithm = replace(ALGORITHM, optimizer=sgd, critic_first=critic_first)
        state, batch = make_state(algorithm, dtype=np.float64), make_batch(6, dtype=np.float64)
        hyperparameters = HYPERPARAMETERS._replace(actor_lr=0.1, critic_lr=0.02)
        new, info = agent.update(jax.random.key(0), state, batch, algorithm=algorithm, hyperparameters=hyperparameters)
        new, old = jax.device_get((new, state))

    next_action = numpy_actor(old.target_actor["params"], batch.next_observation)
    next_value = numpy_critic(old.target_critic["params"], batch.next_observation, next_action)
    target = batch.reward + 0.9 * batch.discount * next_value

    def critic_loss(params):
        return np.mean((target - numpy_critic(params, batch.observation, batch.action)) ** 2)

    def actor_loss(params):
        critic = new.critic["params"] if critic_first else old.critic["params"]
        return -np.mean(numpy_critic(critic, batch.observation, numpy_actor(params, batch.observation)))

    # The critic moves along its own loss alone: the actor's step, which passes through it, leaves it where it is.
    assert_stepped_by(
        new.critic["params"], old.critic["params"], numpy_gradient(critic_loss, old.critic["params"]), 0.02
    )
    assert_stepped_by(new.actor["params"], old.actor["params"], numpy_gradient(actor_loss, old.actor["params"]), 0.1)
    np.testing.assert_allclose(info.critic_loss, critic_loss(old.critic["params"]), rtol=1e-12)
    np.testing.assert_allclose(info.actor_loss, actor_loss(old.actor["params"]), rtol=1e-12)
    q_mean = np.mean(numpy_critic(old.critic["params"], batch.observation, batch.action))
    np.testing.assert_allclose(info.q_mean, q_mean, rtol=1e-12)
    for name in ("actor", "critic"):
        moved = jax.tree.map(lambda x, y: 0.25 * x + 0.75 * y, getattr(new, name), getattr(old, f"target_{name}"))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-12), getattr(new, f"target_{name}"), moved)


def test_new_agent_has_targets_equal_to_its_networks():
    state = agent.init(jax.random.key(0), jnp.zeros(3), algorithm=ALGORITHM)
    for online, target in [
        (state.actor["params"], state.target_actor["params"]),
        (state.critic["params"], state.target_critic["params"]),
    ]:
        jax.tree.map(np.testing.assert_array_equal, online, target)
    assert int(state.step) == 0


def test_new_agents_of_different_keys_differ():
    one, two = (agent.init(jax.random.key(i), jnp.zeros(3), algorithm=ALGORITHM) for i in (0, 1))
    for name in ("actor", "critic"):
        kernels = [flatten_dict(getattr(state, name)["params"]) for state in (one, two)]
        assert all((kernels[0][path] != kernels[1][path]).all() for path in kernels[0] if path[-1] == "kernel")


def test_update_is_deterministic_and_leaves_its_input_unchanged():
    state, batch = make_state(), make_batch()
    before = jax.tree.map(np.array, state)
    first, _ = agent.update(jax.random.key(0), state, batch, algorithm=ALGORITHM, hyperparameters=HYPERPARAMETERS)
    second, _ = agent.update(jax.random.key(0), state, batch, algorithm=ALGORITHM, hyperparameters=HYPERPARAMETERS)
    jax.tree.map(np.testing.assert_array_equal, first, second)
    jax.tree.map(np.testing.assert_array_equal, state, before)
    assert int(first.step) == 1
    assert (
        first.actor["params"]["final"]["Dense_0"]["kernel"].tolist()
        != before.actor["params"]["final"]["Dense_0"]["kernel"].tolist()
    )


def test_update_without_dropout_does_not_depend_on_its_key():
    state, batch = make_state(), make_batch()
    one, two = (
        agent.update(jax.random.key(i), state, batch, algorithm=ALGORITHM, hyperparameters=HYPERPARAMETERS)
        for i in (0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, two)


def test_with_tau_one_the_targets_become_the_networks():
    hyperparameters = HYPERPARAMETERS._replace(tau=1.0)
    new, _ = agent.update(
        jax.random.key(0), make_state(), make_batch(), algorithm=ALGORITHM, hyperparameters=hyperparameters
    )
    jax.tree.map(np.testing.assert_array_equal, new.target_actor["params"], new.actor["params"])
    jax.tree.map(np.testing.assert_array_equal, new.target_critic["params"], new.critic["params"])


# Adam


def numpy_adam(gradients, *, learning_rate, eps, eps_hat):
    """Kingma & Ba 2015, Algorithm 1; with `eps_hat` in the order of the end of its section 2."""
    x, m, v = 0.0, 0.0, 0.0
    for t, gradient in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        if eps_hat:
            x -= learning_rate * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + eps)
        else:
            x -= learning_rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + eps)
    return x


@pytest.mark.parametrize("eps_hat", [False, True])
def test_adam_takes_the_steps_of_its_paper(eps_hat):
    """In float64: in float32 the bias correction 1 - b2^t alone is rounded by 1e-5 of its value, on some processors."""
    make = optimizers.adam_eps_hat if eps_hat else optimizers.adam
    gradients = [0.3, -0.2, 0.5]
    with jax.enable_x64(True):
        optimizer = make(0.1, 0.05, 0.0)  # an epsilon that is large enough to distinguish the two forms
        params = {"bias": jnp.zeros((), jnp.float64)}
        state = optimizer.init(params)
        for gradient in gradients:
            step, state = optimizer.update({"bias": jnp.asarray(gradient)}, state, params)
            params = optax.apply_updates(params, step)
    expected = [numpy_adam(gradients, learning_rate=0.1, eps=0.05, eps_hat=form) for form in (False, True)]
    np.testing.assert_allclose(params["bias"], expected[eps_hat], rtol=1e-10)
    assert abs(expected[0] - expected[1]) > 0.01


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.adam_eps_hat])
def test_l2_is_added_to_the_kernels_gradient_before_adam(make):
    params = {"Dense_0": {"kernel": jnp.array([[3.0]]), "bias": jnp.array([3.0])}}
    gradients = jax.tree.map(lambda x: jnp.full_like(x, 0.2), params)
    with_l2, without = make(0.1, 1.0, 0.5), make(0.1, 1.0, 0.0)
    step, _ = with_l2.update(gradients, with_l2.init(params), params)
    of_sum, _ = without.update(jax.tree.map(lambda x: x + 0.5 * 3.0, gradients), without.init(params), params)
    of_gradient, _ = without.update(gradients, without.init(params), params)
    np.testing.assert_allclose(step["Dense_0"]["kernel"], of_sum["Dense_0"]["kernel"], rtol=1e-6)
    np.testing.assert_array_equal(step["Dense_0"]["bias"], of_gradient["Dense_0"]["bias"])


# Dtypes, shapes and bounds


@pytest.mark.parametrize("name", ["bfloat16", "float32", "float64"])
def test_agent_computes_in_the_dtype_of_its_parameters(name):
    def use(example):
        state = agent.init(jax.random.key(0), example, algorithm=ALGORITHM)
        new, info = agent.update(
            jax.random.key(0), state, make_batch(), algorithm=ALGORITHM, hyperparameters=HYPERPARAMETERS
        )
        return state, new, info, agent.act(state, np.zeros(3, np.float32), algorithm=ALGORITHM)

    with jax.enable_x64(name == "float64"):
        state, new, info, action = jax.eval_shape(use, jax.ShapeDtypeStruct((3,), jnp.dtype(name)))
    leaves = jax.tree.leaves((state, new, info, action))
    assert {str(leaf.dtype) for leaf in leaves} == {name, "int32"}  # int32 are the counters of updates
    assert (action.dtype, info.critic_loss.dtype) == (name, name)
    assert all(jax.tree.leaves(jax.tree.map(lambda x, y: (x.shape, x.dtype) == (y.shape, y.dtype), state, new)))


def test_float64_actions_are_exact_to_fourteen_digits():
    with jax.enable_x64(True):
        state = make_state(dtype=np.float64)
        actions = agent.act(state, make_batch(dtype=np.float64).observation, algorithm=ALGORITHM)
    exact = numpy_actor(jax.device_get(state.actor["params"]), make_batch(dtype=np.float64).observation)
    np.testing.assert_allclose(actions, exact, rtol=1e-14)


@pytest.mark.parametrize("action_bound", ["tanh", "sigmoid"])
def test_actions_stay_within_any_bounds_even_with_huge_weights(action_bound):
    rng = np.random.default_rng(0)
    low, high = np.sort(rng.normal(size=(2, 200)) * np.exp(2 * rng.normal(size=200)), axis=0).astype(np.float32)
    algorithm = make_algorithm(small_config(action_bound=action_bound), tuple(low.tolist()), tuple(high.tolist()))
    state = make_state(algorithm)
    observations = rng.normal(size=(50, 3))
    for size in (1.0, 1e3, 1e6):
        huge = state._replace(actor=jax.tree.map(lambda x, size=size: size * x, state.actor))
        actions = np.asarray(agent.act(huge, observations, algorithm=algorithm))
        assert (low <= actions).all()
        assert (actions <= high).all()
    # at last the output is saturated: where an observation excites the network, its action is a bound
    at_bound = np.isclose(actions, low, rtol=1e-4) | np.isclose(actions, high, rtol=1e-4)
    assert at_bound.any(axis=0).all()


@pytest.mark.parametrize(
    ("action_bound", "expected"), [("tanh", np.tanh(0.3)), ("sigmoid", 2 / (1 + np.exp(-0.3)) - 1)]
)
def test_action_is_scaled_to_the_bounds(action_bound, expected):
    algorithm = make_algorithm(small_config(action_bound=action_bound), LOW, HIGH)
    state = make_state(algorithm)
    params = jax.tree.map(jnp.zeros_like, state.actor["params"])
    params["final"]["Dense_0"]["bias"] = jnp.array([0.3, 0.3])
    action = agent.act(state._replace(actor={"params": params}), jnp.zeros(3), algorithm=algorithm)
    np.testing.assert_allclose(action, [1 + 2 * expected, 0.625 + 0.125 * expected], rtol=1e-6)  # centre + half range


def test_act_takes_one_observation_or_any_number():
    state, observations = make_state(), make_batch(6).observation
    together = agent.act(state, observations, algorithm=ALGORITHM)
    stacked = agent.act(state, observations.reshape(2, 3, 3), algorithm=ALGORITHM)
    assert (together.shape, stacked.shape) == ((6, 2), (2, 3, 2))
    np.testing.assert_allclose(stacked.reshape(6, 2), together, rtol=1e-5)
    np.testing.assert_allclose(agent.act(state, observations[4], algorithm=ALGORITHM), together[4], rtol=1e-5)


@pytest.mark.parametrize(
    ("field", "shape"),
    [
        ("reward", (4, 1)),
        ("discount", (4, 1)),
        ("reward", (3,)),
        ("action", (4,)),
        ("observation", (3,)),
        ("next_observation", (5, 3)),
    ],
)
def test_update_refuses_a_batch_of_wrong_shape(field, shape):
    batch = make_batch()._replace(**{field: np.zeros(shape, np.float32)})
    with pytest.raises(AssertionError):
        agent.update(jax.random.key(0), make_state(), batch, algorithm=ALGORITHM, hyperparameters=HYPERPARAMETERS)


def test_init_refuses_a_batch_of_observations():
    with pytest.raises(AssertionError):
        agent.init(jax.random.key(0), jnp.zeros((1, 3)), algorithm=ALGORITHM)


# Networks


@pytest.mark.parametrize("sizes", [(), (16, 3), (17, 3)])
def test_networks_compute_their_layers_whether_narrow_or_wide(sizes):
    config = small_config(hidden_sizes=sizes, critic_observation_sizes=sizes[1:])
    algorithm, batch = make_algorithm(config, LOW, HIGH), make_batch(7)
    state = make_state(algorithm)
    actor, critic = {"params": state.actor["params"]}, {"params": state.critic["params"]}
    values = jax.jit(algorithm.critic.apply)(critic, batch.observation, batch.action)
    empty = {"hidden": {}, "trunk": {}}
    expected = numpy_critic(empty | state.critic["params"], batch.observation, batch.action)
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    alone = jax.jit(algorithm.critic.apply)(critic, batch.observation[0], batch.action[0])
    np.testing.assert_allclose(alone, values[0], rtol=1e-4, atol=1e-5)
    actions = jax.jit(algorithm.actor.apply)(actor, batch.observation)
    np.testing.assert_allclose(actions, numpy_actor(empty | state.actor["params"], batch.observation), rtol=1e-4)


def kernel_shapes(params) -> dict[str, list[tuple[int, int]]]:
    """Returns the shapes of a network's kernels, part by part."""
    shapes: dict[str, list[tuple[int, int]]] = {}
    for path, leaf in sorted(flatten_dict(params).items()):
        if path[-1] == "kernel":
            shapes.setdefault(path[0], []).append(leaf.shape)
    return shapes


# Both sources' networks on Pendulum, whose observation has 3 entries and whose action has 1.
SHAPES = {
    "keras": (
        {"hidden": [(3, 256), (256, 256)], "final": [(256, 1)]},
        {
            "observation_branch": [(3, 16), (16, 32)],
            "action_branch": [(1, 32)],
            "trunk": [(64, 256), (256, 256)],
            "final": [(256, 1)],
        },
    ),
    "gist": (
        {"hidden": [(3, 8), (8, 8), (8, 8)], "final": [(8, 1)]},
        {"trunk": [(4, 8), (8, 8), (8, 8)], "final": [(8, 1)]},
    ),
    "paper": (
        {"hidden": [(3, 400), (400, 300)], "final": [(300, 1)]},
        {"observation_branch": [(3, 400)], "trunk": [(401, 300)], "final": [(300, 1)]},
    ),
}


@pytest.fixture(scope="module")
def sources() -> dict[str, agent.AgentState]:
    """A new agent with the preset of each source."""
    return {
        name: agent.init(jax.random.key(0), jnp.zeros(3), algorithm=make_algorithm(PRESETS[name], (-2.0,), (2.0,)))
        for name in SHAPES
    }


@pytest.mark.parametrize("preset", SHAPES)
def test_networks_have_the_layers_of_their_source(sources, preset):
    actor, critic = SHAPES[preset]
    assert kernel_shapes(sources[preset].actor["params"]) == actor
    assert kernel_shapes(sources[preset].critic["params"]) == critic


def test_keras_tutorial_has_as_many_weights_as_its_source(sources):
    weights = [
        sum(rows * columns for part in kernel_shapes(params).values() for rows, columns in part)
        for params in (sources["keras"].actor["params"], sources["keras"].critic["params"])
    ]
    assert weights == [66_560, 82_768]


def assert_uniform(values, bound):
    """Asserts that values are within the bounds, have both signs, and the variance of a uniform one, bound^2 / 3."""
    values = np.ravel(values)
    assert np.abs(values).max() <= bound
    assert values.min() < -0.9 * bound
    assert values.max() > 0.9 * bound
    # the standard error of the variance of a uniform distribution is bound^2 / 3 sqrt(.8 / n)
    assert abs(np.mean(values**2) - bound**2 / 3) < 5 * bound**2 / 3 * np.sqrt(0.8 / len(values))


def test_last_kernel_is_drawn_from_both_signs_of_its_interval(sources):
    final = sources["keras"].actor["params"]["final"]["Dense_0"]
    assert_uniform(final["kernel"], 0.003)
    assert not final["bias"].any()
    for params in (sources["paper"].actor["params"], sources["paper"].critic["params"]):
        final = params["final"]["Dense_0"]
        assert_uniform(final["kernel"], 0.003)
        assert 0 < abs(float(final["bias"][0])) <= 0.003


def test_actor_and_critic_are_drawn_independently(sources):
    kernels = [
        np.ravel(params["final"]["Dense_0"]["kernel"])
        for params in (sources["paper"].actor["params"], sources["paper"].critic["params"])
    ]
    assert abs(np.corrcoef(kernels)[0, 1]) < 5 / np.sqrt(300)


def test_without_an_interval_of_its_own_the_last_kernel_is_a_hidden_layers(sources):
    final = sources["keras"].critic["params"]["final"]["Dense_0"]
    assert_uniform(final["kernel"], np.sqrt(6 / 257))  # Glorot: U(+- sqrt(6 / (fan in + fan out)))
    assert not final["bias"].any()


def test_fan_in_uniform_draws_kernels_and_biases_from_the_layers_fan_in(sources):
    layers = [
        (sources["paper"].actor["params"]["hidden"]["Dense_0"], 3),
        (sources["paper"].actor["params"]["hidden"]["Dense_1"], 400),
        (sources["paper"].critic["params"]["trunk"]["Dense_0"], 401),
    ]
    for layer, fan_in in layers:
        assert_uniform(layer["kernel"], fan_in**-0.5)
        assert_uniform(layer["bias"], fan_in**-0.5)


def test_glorot_uniform_has_its_variance_and_zero_biases(sources):
    for i, fans in enumerate([3 + 256, 256 + 256]):
        layer = sources["keras"].actor["params"]["hidden"][f"Dense_{i}"]
        assert_uniform(layer["kernel"], np.sqrt(6 / fans))
        assert not layer["bias"].any()


def test_lecun_normal_has_its_variance_and_zero_biases():
    variables = networks.Hidden((256,), "lecun_normal").init(jax.random.key(0), jnp.zeros((1, 3)), False)
    layer = variables["params"]["Dense_0"]
    assert abs(np.std(layer["kernel"]) - 0.577) < 5 * 0.577 / np.sqrt(2 * 768)  # 1 / sqrt(3)
    assert not layer["bias"].any()


# Normalisation and dropout


@pytest.mark.parametrize(("normalization", "same"), [("layer", True), ("none", False)])
def test_layer_norm_takes_the_scale_out_of_a_layer(normalization, same):
    hidden = networks.Hidden((20,), normalization=normalization)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    variables = hidden.init(jax.random.key(0), x, False)
    scaled = jax.tree.map(lambda leaf: leaf, variables)
    scaled["params"]["Dense_0"]["kernel"] = 10 * variables["params"]["Dense_0"]["kernel"]
    before, after = hidden.apply(variables, x, False), hidden.apply(scaled, x, False)
    assert np.allclose(before, after, atol=1e-2) == same
    if same:  # normalised, then rectified: half of the mass above 0, its mean square about one half
        assert 0.2 < float(jnp.mean(before**2)) < 0.8


DROPOUT = small_config(hidden_sizes=(32,), actor_dropout=0.5, critic_dropout=0.5, actor_final_init=None)


def mean_target(state, batch) -> float:
    """The mean of y = r + gamma d Q'(s', mu'(s')) with gamma .9, from all of the targets' units."""
    action = numpy_actor(state.target_actor["params"], batch.next_observation)
    value = numpy_critic(state.target_critic["params"], batch.next_observation, action)
    return np.mean(batch.reward + 0.9 * batch.discount * value)


def test_dropout_acts_in_the_losses_alone():
    # The critic's "loss" is here the mean of the targets, which have no dropout; its own values have.
    algorithm = replace(make_algorithm(DROPOUT, LOW, HIGH), critic_loss=lambda value, target: jnp.mean(target))
    state, batch = make_state(algorithm), make_batch()
    infos = [
        agent.update(jax.random.key(i), state, batch, algorithm=algorithm, hyperparameters=HYPERPARAMETERS)[1]
        for i in range(4)
    ]
    np.testing.assert_allclose([info.critic_loss for info in infos], mean_target(state, batch), rtol=1e-4)
    assert len({float(info.q_mean) for info in infos}) == 4
    assert len({float(info.actor_loss) for info in infos}) == 4
    expected = numpy_actor(state.actor["params"], batch.observation)
    np.testing.assert_allclose(agent.act(state, batch.observation, algorithm=algorithm), expected, rtol=1e-4)


def test_dropout_zeroes_the_stated_share_and_keeps_the_mean():
    hidden = networks.Hidden((1000,), dropout=0.2)
    x = jnp.ones((10, 3))
    variables = hidden.init(jax.random.key(0), x, False)
    whole = hidden.apply(variables, x, False)
    dropped = hidden.apply(variables, x, True, rngs={"dropout": jax.random.key(1)})
    kept = np.asarray(dropped)[np.asarray(whole) > 0] > 0
    assert abs(kept.mean() - 0.8) < 5 * np.sqrt(0.8 * 0.2 / kept.size)
    np.testing.assert_allclose(np.asarray(dropped)[dropped > 0], np.asarray(whole)[dropped > 0] / 0.8, rtol=1e-5)


def test_batch_norm_keeps_running_statistics_and_moves_the_targets_towards_them():
    config = small_config(hidden_sizes=(4,), actor_normalization="batch", critic_normalization="batch", tau=0.25)
    algorithm, batch = make_algorithm(config, LOW, HIGH), make_batch(8)
    state = agent.init(jax.random.key(0), jnp.zeros(3), algorithm=algorithm)
    new, _ = agent.update(
        jax.random.key(0), state, batch, algorithm=algorithm, hyperparameters=make_hyperparameters(config)
    )
    mean, variance = batch.observation.mean(axis=0), batch.observation.var(axis=0)
    for stats, target in [
        (new.actor["batch_stats"], new.target_actor["batch_stats"]),
        (new.critic["batch_stats"], new.target_critic["batch_stats"]),
    ]:
        # from 0 and 1, by the minibatch's statistics with weight .01; once an update, not again in the actor's step
        np.testing.assert_allclose(stats["BatchNorm_0"]["mean"], 0.01 * mean, rtol=1e-4)
        np.testing.assert_allclose(stats["BatchNorm_0"]["var"], 0.99 + 0.01 * variance, rtol=1e-4)
        np.testing.assert_allclose(target["BatchNorm_0"]["mean"], 0.25 * 0.01 * mean, rtol=1e-4)


def test_batch_norm_acts_by_the_running_statistics():
    config = small_config(hidden_sizes=(), actor_normalization="batch", actor_final_init=None)
    algorithm = make_algorithm(config, LOW, HIGH)
    state = make_state(algorithm)
    stats = {"BatchNorm_0": {"mean": jnp.array([1.0, 2.0, 3.0]), "var": jnp.array([4.0, 1.0, 0.25])}}
    observation = np.array([3.0, 1.0, 3.5])
    normalised = np.array([1.0, -1.0, 1.0])  # (observation - mean) / sqrt(variance)
    action = agent.act(state._replace(actor=state.actor | {"batch_stats": stats}), observation, algorithm=algorithm)
    norm = state.actor["params"]["BatchNorm_0"]
    expected = numpy_actor({"hidden": {}} | state.actor["params"], normalised * norm["scale"] + norm["bias"])
    np.testing.assert_allclose(action, expected, rtol=1e-4)


def test_paper_normalises_only_what_the_action_has_not_entered(sources):
    critic = sources["paper"].critic["batch_stats"]
    assert {path[0] for path in flatten_dict(critic)} == {"BatchNorm_0", "observation_branch"}
    actor = sources["paper"].actor["batch_stats"]
    assert {path[:-1] for path in flatten_dict(actor)} == {
        ("BatchNorm_0",),
        ("hidden", "BatchNorm_0"),
        ("hidden", "BatchNorm_1"),
    }


def test_equal_configurations_make_equal_algorithms():
    assert hash(make_algorithm(Config(), LOW, HIGH)) == hash(make_algorithm(Config(), LOW, HIGH))
    assert make_algorithm(Config(), LOW, HIGH) == make_algorithm(Config(), LOW, HIGH)
