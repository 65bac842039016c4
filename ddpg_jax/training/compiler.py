"""How XLA compiles the programs of a population: the options that make them faster on a CPU."""

from typing import Any

import jax

from ddpg_jax.algorithm.networks import NARROW

Options = dict[str, bool | str]
"""Options of XLA's compiler, by their names."""

CPU_OPTIONS: Options = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Options for every program on a CPU.

A closer analysis of which values are still needed saves copies of parameters that are about to be replaced.
"""

EIGEN_PRODUCTS: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Options that leave no matrix product to YNNPACK: Eigen computes them all."""

COLLIDING = 128
"""Eigen is slow where inputs and outputs of a kernel are multiples of this number, or its outputs a multiple of twice
this number: the rows of the transposed kernel then share places in the cache."""


def cpu_options(params: Any) -> Options:
    """Returns the compiler's options on a CPU for agents with these parameters, a tree of arrays or shapes.

    Eigen computes the products of most networks faster than YNNPACK does, which is XLA's choice. Not so with narrow
    layers, and with kernels whose rows collide. Nothing but the networks decides, so that an agent's bits do not depend
    on what it trains beside.
    """
    kernels = [leaf.shape[-2:] for leaf in jax.tree.leaves(params) if leaf.ndim > 1]
    widest = max((outputs for _, outputs in kernels), default=0)
    suits_eigen = widest > NARROW and not any(_collides(*shape) for shape in kernels)
    return CPU_OPTIONS | EIGEN_PRODUCTS if suits_eigen else CPU_OPTIONS


def _collides(inputs: int, outputs: int) -> bool:
    return outputs % (2 * COLLIDING) == 0 or (inputs % COLLIDING == 0 and outputs % COLLIDING == 0)


def compile_lowered(program: jax.stages.Lowered, platform: str, params: Any) -> jax.stages.Compiled:
    """Compiles a program with the options that help on a platform, if this version of XLA has them."""
    if platform != "cpu":
        return program.compile()
    try:
        return program.compile(compiler_options=cpu_options(params))
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return program.compile()
