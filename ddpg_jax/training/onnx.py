"""A trained actor as an ONNX model, which many programs run without JAX, with everything inside that it computes.

Opset 17 is the first with layer normalisation. The model's metadata says what it was trained on.
"""

import json
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from flax.traverse_util import flatten_dict
from onnx import TensorProto, helper, numpy_helper

from ddpg_jax import __version__
from ddpg_jax.algorithm import matmul
from ddpg_jax.algorithm.networks import MIN_VARIANCE, Actor, Final, Hidden, Residual
from ddpg_jax.training.policy import Policy, bounds_within_float32

OPSET, IR_VERSION = 17, 8
"""Versions of the operators and of the file format, which belong together."""


def to_onnx(policy: Policy) -> bytes:
    """Returns the model of one agent: `observation` [B, O] float32 to `action` [B, A] float32, for any B.

    Observations are those of the environment; actions are in its units, inside its bounds even where those are float64.

    Raises:
        ValueError: if the policy has several agents, its agent diverged, or its network is not the package's own.
    """
    if policy.num_agents != 1:
        raise ValueError(f"policy has {policy.num_agents} agents, but must have one: policy.best or policy[0]")
    if policy.diverged_agents:
        raise ValueError(f"agent {policy.agents[0]} diverged in training, so it has no actions: choose another one")
    _require_known(policy.actor)
    graph = _Graph(policy)
    graph.add_actor(policy.actor)
    low, high = (list(map(float, bound)) for bound in (policy.actor.low, policy.actor.high))
    sizes = {"observation": policy.observation_size, "action": len(low)}
    texts = {"observation": "as the environment returns it", "action": f"in the environment's units: {low} to {high}"}
    observation, action = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["B", size], texts[name]) for name, size in sizes.items()
    )
    model = helper.make_model(
        helper.make_graph(graph.nodes, "actor", [observation], [action], graph.constants),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="ddpg_jax",
        producer_version=__version__,
    )
    about: dict[str, Any] = {
        "ddpg_jax": __version__, "env_id": policy.env_id, "agent": policy.agents[0],
        **{f"{name}_size": size for name, size in sizes.items()}, "action_low": low, "action_high": high,
        "action_units": "those of the environment", "config": policy.config.to_dict() if policy.config else None,
    }  # fmt: skip
    helper.set_model_props(model, {k: v if isinstance(v, str) else json.dumps(v) for k, v in about.items()})
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString())


def _require_known(actor: Any) -> None:
    """Refuses a network with a part whose computation is not known here."""
    parts = [actor, actor.hidden, actor.final] if type(actor) is Actor else [actor]
    for part in (type(part) for part in parts):
        if part not in (Actor, Hidden, Residual, Final):
            raise ValueError(
                f"network is {part.__module__}.{part.__qualname__}, but must be one of ddpg_jax's to become ONNX: "
                f"convert yours with jax2onnx, as docs/policies.md shows"
            )


class _Graph:
    """Nodes in a chain, each with the output of the one before as its first input."""

    def __init__(self, policy: Policy) -> None:
        self.weights = {name: np.asarray(leaf)[0] for name, leaf in flatten_dict(policy.variables, sep="/").items()}
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.bounds = bounds_within_float32(policy.actor)

    @property
    def last(self) -> str:
        """The name of the last node's output."""
        return str(self.nodes[-1].output[0]) if self.nodes else "observation"

    def add(self, operator: str, *others: Any, output: str | None = None, **attributes: Any) -> None:
        """Adds a node; its other inputs are constants, which become float32, or names of outputs."""
        name, inputs = f"{len(self.nodes)}_{operator}", [self.last]
        for index, other in enumerate(others):
            inputs.append(other if isinstance(other, str) else f"{name}_{index}")
            if not isinstance(other, str):
                self.constants.append(numpy_helper.from_array(np.asarray(other, np.float32), inputs[-1]))
        self.nodes.append(helper.make_node(operator, inputs, [output or name], name, **attributes))

    def add_actor(self, actor: Actor) -> None:
        """Adds what `Actor` computes, in its order."""
        low, high = (np.asarray(bound, np.float32) for bound in (actor.low, actor.high))
        if actor.standardize:
            mean, variance = (self.weights[f"obs_stats/standardize/{name}"] for name in ("mean", "variance"))
            self.add("Sub", mean)
            self.add("Div", np.sqrt(np.where(variance > MIN_VARIANCE, variance, np.float32(1))))
            self.add("Clip", -10.0, 10.0)
        if actor.hidden.normalization == "batch":
            self.add_normalization("BatchNorm_0", "batch")
        if actor.hidden.sizes:
            self.add_hidden(actor.hidden)
        self.add_dense("final/Dense_0")
        self.add("Sigmoid" if actor.sigmoid else "Tanh")
        self.add("Mul", high - low if actor.sigmoid else (high - low) / 2)
        self.add("Add", low if actor.sigmoid else (low + high) / 2)
        self.add("Max", self.bounds[0])
        self.add("Min", self.bounds[1], output="action")

    def add_hidden(self, hidden: Hidden | Residual) -> None:
        """Adds hidden layers, at least one."""
        rounded, num = hidden.product is matmul.in_bfloat16, len(hidden.sizes)
        if isinstance(hidden, Residual):
            self.add_dense("hidden/Dense_0", rounded=rounded)
            for index in range(num):
                before = self.last
                self.add_normalization(f"hidden/LayerNorm_{index}", "layer")
                self.add_dense(f"hidden/Dense_{2 * index + 1}", rounded=rounded)
                self.add("Relu")
                self.add_dense(f"hidden/Dense_{2 * index + 2}", rounded=rounded)
                self.add("Add", before)
            self.add_normalization(f"hidden/LayerNorm_{num}", "layer")
            return
        kind = hidden.normalization
        for index in range(num):
            self.add_dense(f"hidden/Dense_{index}", rounded=rounded)
            if kind != "none":
                self.add_normalization(f"hidden/{kind.capitalize()}Norm_{index}", kind)
            self.add("Relu")

    def add_dense(self, name: str, *, rounded: bool = False) -> None:
        """Adds a linear layer, whose operands may be rounded to bfloat16 (`matmul.py`)."""
        kernel, bias = (self.weights[f"params/{name}/{each}"] for each in ("kernel", "bias"))
        if rounded and len(kernel) >= matmul.MIN_FEATURES:
            kernel = kernel.astype(ml_dtypes.bfloat16)
            self.add("Cast", to=TensorProto.BFLOAT16)
            self.add("Cast", to=TensorProto.FLOAT)
        self.add("Gemm", kernel, bias)

    def add_normalization(self, name: str, kind: str) -> None:
        """Adds Flax's layer normalisation, or batch normalisation by running statistics."""
        scale, bias = (self.weights[f"params/{name}/{each}"] for each in ("scale", "bias"))
        if kind == "layer":
            self.add("LayerNormalization", scale, bias, axis=-1, epsilon=1e-6)
        else:
            running = [self.weights[f"batch_stats/{name}/{each}"] for each in ("mean", "var")]
            self.add("BatchNormalization", scale, bias, *running, epsilon=1e-5)
