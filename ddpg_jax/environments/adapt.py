"""Makes what libraries and users provide into what the training loop needs, and refuses what cannot be made so."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey
from ddpg_jax.environments import host
from ddpg_jax.environments.arguments import one_line
from ddpg_jax.environments.task import Task

LARGEST_BOUND = 1e30
"""Actions are float32, which ends at 3.4e38; networks and losses compute with multiples of them."""


def adapt(task: Environment | Task, action_repeat: int = 1) -> Task:
    """Returns a task as agents train in it: checked, with arrays of fixed types, and with its actions repeated.

    Observations become one vector [O] float32: several arrays, in the order of JAX's trees (a dictionary's by their
    keys), are flattened one after another. Rewards become float32 [], ends bool [], and the state keeps its dtypes.
    Nothing is compiled. An environment on the host makes two steps. Raises ValueError for what breaks a rule.
    """
    task = task if isinstance(task, Task) else Task(task)
    environment = task.environment
    low, high = environment.low, environment.high
    if max(map(abs, (*low, *high))) > LARGEST_BOUND:
        raise _fault(environment, "bounds of the actions", f"are {low} to {high}", "be at most 1e30 in size")
    if environment.host_env is None:
        task = _conformed(task)
    else:
        host.check(environment, environment.host_env)
    return _repeated(task, action_repeat)


def _conformed(task: Task) -> Task:
    """Returns a task whose functions return arrays as the training loop needs them."""
    environment = task.environment
    key, action = jax.eval_shape(lambda: (jax.random.key(0), jnp.zeros(environment.action_size, jnp.float32)))
    state, observation = _trace(environment, "reset", "(state, observation)", key)
    parts = _observation_parts(observation, "reset", environment)
    state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state)  # of no weak type
    after, result = _trace(environment, "step", "(state, Step)", key, state, action)
    _require_same_state(state, after, environment, "after a step")
    if not isinstance(result, Step):
        raise _fault(environment, "step", f"returns {type(result).__name__}", "return a Step")
    if _observation_parts(result.observation, "step", environment) != parts:
        raise _fault(environment, "observation", "has other arrays after a step", "have those of a reset")
    for value, name in zip(result[1:], Step._fields[1:], strict=True):
        kind, rule = (jnp.number, "a number []") if name == "reward" else (jnp.bool_, "bool[]")
        if not hasattr(value, "dtype") or not jnp.issubdtype(value.dtype, kind) or math.prod(value.shape) != 1:
            raise _fault(environment, name, f"is {_shape_of(value)}", f"be {rule}")
    given: Any = task.starts

    def starts(num: int) -> tuple[State, jax.Array]:
        made = _pair(given(num), "starts", "(states, observations)", environment)
        states, observations = _strong_types(made[0]), jax.tree.map(jnp.asarray, made[1])
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), (states, observations))
        _require_same_state(state, one[0], environment, "in starts")
        _observation_parts(one[1], "starts", environment)
        return states, jax.vmap(flat)(observations)

    return replace(
        task,
        environment=replace(environment, reset=_conform(environment.reset), step=_conform(environment.step)),
        starts=given and starts,
        observation_parts=parts if len(parts) > 1 or len(parts[0][1]) != 1 else task.observation_parts,
    )


def _trace(environment: Environment, name: str, rule: str, *arguments: Any) -> tuple[Any, Any]:
    """Returns the shapes and dtypes of a function's two results."""
    function = getattr(environment, name)
    try:  # JAX keeps the trace of a function, and of equal ones, which may have changed: trace a new one
        shapes = jax.eval_shape(lambda *arguments: function(*arguments), *arguments)
    except Exception as error:
        raise _fault(environment, name, f"raises {one_line(error)}", f"return {rule} for arrays of JAX") from error
    return _pair(shapes, name, rule, environment)


def is_adapted(environment: Environment) -> bool:
    """Returns whether an environment is what `adapt` returns."""
    return isinstance(environment.step, _Conformed | _Repeated)


def _conform(function: Callable) -> Callable:
    return function if isinstance(function, _Conformed | _Repeated) else _Conformed(function)  # also if adapted again


@dataclass(frozen=True)
class _Conformed:
    """A `reset` or a `step` whose results have the types that the training loop needs."""

    function: Callable[..., tuple[State, Any]]

    def __call__(self, *arguments: Any) -> tuple[State, Any]:
        state, result = self.function(*arguments)
        if not isinstance(result, Step):
            return _strong_types(state), flat(result)
        ends = (jnp.asarray(end, bool).reshape(()) for end in (result.terminated, result.truncated))
        reward = jnp.asarray(result.reward, jnp.float32).reshape(())
        return _strong_types(state), Step(flat(result.observation), reward, *ends)


def _repeated(task: Task, times: int) -> Task:
    """Returns the task in which an action is executed several times, and the rewards are added up.

    An episode that ends in between ends there. The time limit counts the agent's actions. The optimum is not known.
    """
    environment = task.environment
    if times < 1 or environment.max_steps % times or times != int(times):
        rule = f"a whole number >= 1 that divides the time limit of {environment.env_id!r}"
        raise ValueError(f"action_repeat is {times}, but must be {rule}, {environment.max_steps} steps")
    if times == 1:
        return task
    times = int(times)
    host_env, film_env = (each and each.repeating(times) for each in (environment.host_env, task.film_env))
    step = environment.step if host_env else _Repeated(environment.step, times)
    max_steps = environment.max_steps // times
    environment = replace(environment, max_steps=max_steps, step=step, host_env=host_env)
    return replace(task, environment=environment, film_env=film_env, optimal_returns=None, solved_shortfall=None)


@dataclass(frozen=True)
class _Repeated:
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]
    times: int

    def __call__(self, key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        keys = jax.random.split(key, self.times)

        def again(i: jax.Array, before: tuple[State, Step]) -> tuple[State, Step]:
            new, step = self.step(keys[i], before[0], action)
            after = new, step._replace(reward=before[1].reward + step.reward)
            over = before[1].terminated | before[1].truncated
            return jax.tree.map(lambda x, y: jnp.where(over, x, y), before, after)

        return jax.lax.fori_loop(1, self.times, again, self.step(keys[0], state, action))


def flat(observation: Any) -> jax.Array:
    """Returns the numbers of an observation, a tree of arrays, as one vector [O] float32."""
    return jnp.concatenate([jnp.ravel(jnp.asarray(leaf, jnp.float32)) for leaf in jax.tree.leaves(observation)])


def _strong_types(state: State) -> State:
    """Returns the state as arrays whose dtypes do not change in a loop."""
    is_key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)  # noqa: E731
    state = jax.tree.map(jnp.asarray, state)
    return jax.tree.map(lambda x: x if is_key(x) else jax.lax.convert_element_type(x, x.dtype), state)


def with_default_settings(function: Callable) -> Callable:
    """Runs a function with JAX's defaults: libraries are not written for strict promotion or 64 bits."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    return run


def _pair(returned: Any, name: str, rule: str, environment: Environment) -> tuple[Any, Any]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise _fault(environment, name, f"returns {type(returned).__name__}", f"return {rule}")
    return returned


def _observation_parts(observation: Any, name: str, environment: Environment) -> tuple[tuple[str, tuple], ...]:
    """Returns the names and shapes of an observation's arrays."""
    parts = []
    for path, leaf in jax.tree_util.tree_leaves_with_path(observation):
        if not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.bool_):
            raise _fault(environment, f"observation{jax.tree_util.keystr(path)}", f"is {_shape_of(leaf)}", "be numbers")
        parts.append((jax.tree_util.keystr(path, simple=True, separator=".") or "observation", tuple(leaf.shape)))
    size = sum(math.prod(shape) for _, shape in parts)
    if size != environment.observation_size:
        found = f"is {environment.observation_size}"
        raise _fault(environment, "observation_size", found, f"be the {size} numbers that {name} returns")
    return tuple(parts)


def _require_same_state(before: State, after: State, environment: Environment, when: str) -> None:
    """Refuses a change of the structure, a shape or a dtype of the state: a loop carries one type."""
    for (path, expected), (_, found) in zip(_types(before), _types(after), strict=False):  # unequal lengths end at once
        if found != expected:
            raise _fault(environment, f"state{path}", f"is {found} {when}", f"be {expected}, as after a reset")


def _types(state: State) -> list[tuple[str, Any]]:
    """Returns the structure of a state, and then the dtype and shape of each array by its path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return [("", jax.tree.structure(state)), *((jax.tree_util.keystr(path), _shape_of(leaf)) for path, leaf in leaves)]


def _shape_of(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}" if hasattr(leaf, "dtype") else str(leaf)


def _fault(environment: Environment, field: str, found: str, rule: str) -> ValueError:
    return ValueError(f"{field} of {environment.env_id!r} {found}, but must {rule}")
