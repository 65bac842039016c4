"""Networks of the user's, by the names of their classes."""

import sys

import flax.linen as nn
import jax.numpy as jnp
import pytest

from ddpg_jax.algorithm.networks import Standardize
from ddpg_jax.config import Config
from ddpg_jax.training.user_networks import make, require_output

MODULE = """
import flax.linen as nn
import jax.numpy as jnp

class Own(nn.Module):
    low: tuple
    high: tuple
    hidden_sizes: tuple = (1,)
    width: int = 5

    @nn.compact
    def __call__(self, observation, train=False):
        return nn.Dense(len(self.low))(observation)

NOT_A_CLASS = 3
"""


@pytest.fixture(autouse=True)
def nets(tmp_path, monkeypatch):
    """A file in the current folder."""
    (tmp_path / "nets_of_a_test.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("nets_of_a_test", None)


def test_class_in_the_current_folder_gets_the_bounds_and_the_values_of_its_fields_in_the_configuration():
    config = Config(hidden_sizes=(7, 8))
    actor = make("actor", "nets_of_a_test:Own", config, low=(-1.0,), high=(2.0,))
    assert (actor.low, actor.high, actor.hidden_sizes, actor.width) == ((-1.0,), (2.0,), (7, 8), 5)
    assert actor == make("actor", "nets_of_a_test:Own", config, low=(-1.0,), high=(2.0,))  # programs are shared


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("no_such_module:Own", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("nets_of_a_test:Other", "AttributeError: module 'nets_of_a_test' has no attribute 'Other'"),
        ("nets_of_a_test:NOT_A_CLASS", "TypeError: NOT_A_CLASS is not a class of flax.linen.Module"),
        ("nets_of_a_test:Own", "TypeError: .*missing 2 required positional arguments: 'low' and 'high'"),
    ],
)
def test_what_cannot_be_made_is_refused_in_a_line_with_the_reason(name, reason):
    with pytest.raises(ValueError, match=f"critic is '{name}', but must be MODULE:CLASS, .* no arguments: {reason}$"):
        make("critic", name, Config())


class Value(nn.Module):
    """A critic, perhaps with the mistakes that a test asks for."""

    squeezed: bool = True
    standardized: bool = False

    @nn.compact
    def __call__(self, observation, action, train=False):
        observation = Standardize(name="standardize")(observation) if self.standardized else observation
        value = nn.Dense(1)(jnp.concatenate([observation, action], axis=-1))
        return value[..., 0] if self.squeezed else value


class Untrainable(nn.Module):
    """A network without the argument `train`."""

    @nn.compact
    def __call__(self, observation, action):
        return observation[..., 0]


def test_network_with_the_right_output_is_accepted():
    require_output("critic", "n:V", Value(), (3, 2), (), standardized=False)
    require_output("critic", "n:V", Value(standardized=True), (3, 2), (), standardized=True)


@pytest.mark.parametrize(
    ("network", "standardized", "reason"),
    [
        (Value(squeezed=False), False, r"its output has shape \[2, 1\], but must have \[2\], for B = 2"),
        (Value(), True, r"normalize_observations needs networks\.Standardize\(name='standardize'\) in it"),
        (Untrainable(), False, "TypeError: .*unexpected keyword argument 'train'"),
    ],
)
def test_network_that_cannot_be_trained_is_refused_in_a_line_before_the_run(network, standardized, reason):
    with pytest.raises(ValueError, match=rf"critic is 'n:V', which fails for inputs \[B, 3\], \[B, 2\]: .*{reason}$"):
        require_output("critic", "n:V", network, (3, 2), (), standardized=standardized)
