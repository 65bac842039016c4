"""Networks of the user: Flax modules that are named MODULE:CLASS, as environments are (`environments/user_env.py`)."""

import dataclasses
import importlib
import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from ddpg_jax.algorithm.networks import OBS_STATS
from ddpg_jax.config import ANNOTATIONS, Config
from ddpg_jax.environments.arguments import one_line
from ddpg_jax.environments.user_env import look_in


def make(field: str, name: str, config: Config, **given: Any) -> Any:
    """Returns the network of a class, whose fields that are named like the configuration's get the values of these."""
    look_in(os.getcwd())
    try:
        module, _, class_name = name.partition(":")
        cls = getattr(importlib.import_module(module), class_name)
        if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
            raise TypeError(f"{class_name} is not a class of flax.linen.Module")
        known = {each.name for each in dataclasses.fields(cls)} & set(ANNOTATIONS)
        return cls(**{each: getattr(config, each) for each in known} | given)
    except Exception as error:
        rule = f"MODULE:CLASS, a flax.linen.Module that can be made with {', '.join(given) or 'no arguments'}"
        raise ValueError(f"{field} is {name!r}, but must be {rule}: {one_line(error)}") from error


def require_output(
    field: str, name: str, network: Any, sizes: Sequence[int], output: Sequence[int], *, standardized: bool
) -> None:
    """Refuses, by ValueError, a network that does not map arrays [B, size] to [B, *output]."""
    inputs = [jax.ShapeDtypeStruct((2, size), jnp.float32) for size in sizes]
    try:
        variables = jax.eval_shape(network.init, jax.random.key(0), *inputs)
        found = jax.eval_shape(partial(network.apply, train=False), variables, *inputs)
        if found.shape != (2, *output):
            raise ValueError(f"its output has shape {list(found.shape)}, but must have {[2, *output]}, for B = 2")
        if standardized and OBS_STATS not in variables:
            raise ValueError("normalize_observations needs networks.Standardize(name='standardize') in it")
    except Exception as error:
        inside = ", ".join(f"[B, {size}]" for size in sizes)
        raise ValueError(f"{field} is {name!r}, which fails for inputs {inside}: {one_line(error)}") from error
