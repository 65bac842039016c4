"""Makes what libraries and users provide into what the training loop needs, and refuses what cannot be made so."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, wraps
from typing import Any

import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.environment import Environment, State, Step
from ddpg_jax.algorithm.types import PRNGKey


def adapted(environment: Environment, action_repeat: int = 1) -> Environment:
    """Returns the environment as an agent trains in it: checked, conformed, and with its actions repeated.

    Raises:
        ValueError: as `conformed` and `repeated`.
    """
    return repeated(conformed(environment), action_repeat)


@lru_cache(maxsize=64)
def conformed(environment: Environment) -> Environment:
    """Returns the environment with one observation vector [O] float32, a float32 reward, and a state of one type.

    An observation in several arrays, or of more than one axis, is flattened: the arrays in the order of JAX's trees
    (a dictionary's by their keys), each in the order of its memory. Nothing is compiled.

    Raises:
        ValueError: names the field that cannot be made so, and the rule.
    """
    if environment.outside is not None:
        return environment
    key = jax.eval_shape(lambda: jax.random.key(0))
    started = _pair(jax.eval_shape(environment.reset, key), "reset", "(state, observation)", environment)
    parts = _observation_parts(started[1], "reset", environment)
    strong = jax.tree.map(_strong, started[0])
    action = jax.ShapeDtypeStruct((environment.action_size,), jnp.float32)
    stepped = _pair(jax.eval_shape(environment.step, key, strong, action), "step", "(state, Step)", environment)
    _require_same_state(strong, stepped[0], environment)
    result = stepped[1]
    if not isinstance(result, Step):
        raise ValueError(f"step of {environment.env_id!r} returns {type(result).__name__}, but must return a Step")
    if _observation_parts(result.observation, "step", environment) != parts:
        raise ValueError(f"observation of {environment.env_id!r} has other arrays after a step than after a reset")
    _require_scalar("reward", result.reward, environment)
    for name in ("terminated", "truncated"):
        _require_scalar(name, getattr(result, name), environment, boolean=True)
    if _fits(*started) and _fits(stepped[0], result.observation, result.reward):
        return environment
    return replace(
        environment,
        reset=_ConformedReset(environment.reset),
        step=_ConformedStep(environment.step),
        observation_parts=parts if len(parts) > 1 or len(parts[0][1]) != 1 else (),
    )


@dataclass(frozen=True)
class _ConformedReset:
    reset: Callable[[PRNGKey], tuple[State, Any]]

    def __call__(self, key: PRNGKey) -> tuple[State, jax.Array]:
        state, observation = self.reset(key)
        return strong_types(state), flat(observation)


@dataclass(frozen=True)
class _ConformedStep:
    step: Callable[[PRNGKey, State, jax.Array], tuple[State, Step]]

    def __call__(self, key: PRNGKey, state: State, action: jax.Array) -> tuple[State, Step]:
        new, step = self.step(key, state, action)
        reward = jnp.asarray(step.reward, jnp.float32)
        return strong_types(new), step._replace(observation=flat(step.observation), reward=reward)


def repeated(environment: Environment, times: int) -> Environment:
    """Returns the environment in which an action is executed several times, and the rewards are added up.

    An episode that ends in between ends there. The time limit counts the agent's actions.

    Raises:
        ValueError: if the time limit is not a multiple of `times`.
    """
    if times == 1:
        return environment
    if environment.max_steps % times:
        raise ValueError(
            f"action_repeat is {times}, but must divide the time limit of {environment.env_id!r}, "
            f"{environment.max_steps} steps"
        )
    max_steps = environment.max_steps // times
    if environment.outside is not None:
        return replace(environment, outside=environment.outside.repeating(times), max_steps=max_steps)
    return replace(environment, step=_Repeated(environment.step, times), max_steps=max_steps)


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


def strong_types(state: State) -> State:
    """Returns the state as arrays whose dtypes do not change in a loop."""

    def strong(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended) else jax.lax.convert_element_type(x, x.dtype)

    return jax.tree.map(strong, state)


def with_default_settings(function: Callable) -> Callable:
    """Runs a function with JAX's defaults: libraries are not written for strict promotion or 64 bits."""

    @wraps(function)
    def run(*arguments: Any) -> Any:
        with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            return function(*arguments)

    return run


def _pair(returned: Any, name: str, rule: str, environment: Environment) -> tuple[Any, Any]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise ValueError(f"{name} of {environment.env_id!r} returns {type(returned).__name__}, but must return {rule}")
    return returned


def _observation_parts(
    observation: Any, name: str, environment: Environment
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Returns the names and shapes of an observation's arrays."""
    leaves = jax.tree_util.tree_leaves_with_path(observation)
    for path, leaf in leaves:
        if not (jnp.issubdtype(leaf.dtype, jnp.number) or leaf.dtype == jnp.bool_):
            raise ValueError(
                f"observation{jax.tree_util.keystr(path)} of {environment.env_id!r} is {_words(leaf)}, but must be "
                f"numbers"
            )
    size = sum(math.prod(leaf.shape) for _, leaf in leaves)
    if size != environment.observation_size:
        raise ValueError(
            f"observation_size of {environment.env_id!r} is {environment.observation_size}, but must be the {size} "
            f"numbers that {name} returns"
        )
    return tuple(
        (jax.tree_util.keystr(path, simple=True, separator=".") or "observation", tuple(leaf.shape))
        for path, leaf in leaves
    )


def _require_same_state(before: State, after: State, environment: Environment) -> None:
    """Refuses a step that changes the structure, a shape or a dtype of the state: a loop carries one type."""
    structures: list[Any] = [jax.tree.structure(state) for state in (before, after)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"state of {environment.env_id!r} is {structures[1]} after a step, but must be {structures[0]}, as after a "
            f"reset"
        )
    for (path, old), new in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            raise ValueError(
                f"state{jax.tree_util.keystr(path)} of {environment.env_id!r} is {_words(new)} after a step, but must "
                f"be {_words(old)}, as after a reset"
            )


def _require_scalar(name: str, value: Any, environment: Environment, boolean: bool = False) -> None:
    right = value.dtype == jnp.bool_ if boolean else jnp.issubdtype(value.dtype, jnp.number)
    if value.shape != () or not right:
        rule = "bool[]" if boolean else "a number []"
        raise ValueError(f"{name} of {environment.env_id!r} is {_words(value)}, but must be {rule}")


def _strong(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)


def _words(leaf: Any) -> str:
    return f"{leaf.dtype}{list(leaf.shape)}"


def _fits(state: State, observation: Any, reward: Any = None) -> bool:
    """Returns whether arrays are as the training loop needs them, without a change."""
    weak = any(leaf.weak_type for leaf in jax.tree.leaves((state, observation, reward)))
    vector = isinstance(observation, jax.ShapeDtypeStruct) and len(observation.shape) == 1
    return vector and not weak and observation.dtype == jnp.float32 and (reward is None or reward.dtype == jnp.float32)
