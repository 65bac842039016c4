"""Computes the highest return that can be reached on Pendulum-v1: `python benchmarks/optimum.py`.

It uses dynamic programming. Each table of values has twice as many points in each direction as the one before, until
the mean returns of their policies change by less than `--stable`. Every return belongs to an episode in the exact
dynamics, so no return can be above the optimum's. The benchmark checks the table of optima that the package ships. It
also gives the mean over Gymnasium's reset distribution (angle uniform in [-pi, pi] rad, velocity uniform in [-1, 1]
rad/s).

    python benchmarks/optimum.py                                       # writes results/optimum.json; 8.3 GB of memory
    python benchmarks/optimum.py --finest 1600                         # 2.1 GB
    python benchmarks/optimum.py --discount 0.99                       # the policy that is optimal for this discount
    python benchmarks/optimum.py --starts mine.npy --returns out.npy   # from states [S, 2]: rad, rad/s
"""

import argparse
import json
import sys
import time
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from record import RESULTS, begin, make_parser, write

from ddpg_jax.environments import optimum

COARSEST = 400
CELLS = 256
"""Cells per direction, into which Gymnasium's reset distribution is divided; two starts are drawn in each cell."""


class Row(NamedTuple):
    """The results of a table of one size."""

    points: tuple[int, int]
    seconds: float
    returns: np.ndarray
    """[S] returns from the start states that are checked."""
    reset_returns: np.ndarray
    """[CELLS, CELLS, 2] returns from the reset distribution."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the benchmark; returns its exit status."""
    options = parse(arguments)
    starts, given = shipped(options.discount) if options.starts is None else (read_starts(options.starts), None)
    record, reset = begin(), reset_starts()
    rows: list[Row] = []
    num = min(COARSEST, options.finest)
    while True:
        rows.append(solve(num, options.discount, starts, reset))
        print(json.dumps(describe(rows[-1], given), indent=1), flush=True)
        if len(rows) > 1 and max(changes(rows)) < options.stable:
            print(f"stable: the last refinement moved the means by {changes(rows)[0]:.3f} and {changes(rows)[1]:.3f}")
            break
        if 2 * num > options.finest:
            print(f"not refined further: finest is {options.finest}")
            break
        num *= 2
    if options.starts is None:
        name = "optimum.json" if options.discount == 1 else f"optimum_discount_{options.discount:g}.json"
        tables = [describe(row, given) for row in rows]
        record |= {"discount": options.discount, "jax": jax.__version__, "device": str(jax.devices()[0].device_kind)}
        write(RESULTS / name, record | {"num_starts": len(starts), "num_reset_starts": 2 * CELLS**2, "tables": tables})
    if options.returns is not None:
        np.save(options.returns, rows[-1].returns)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Returns the options, checked."""
    parser = make_parser(__doc__)
    parser.add_argument("--finest", type=int, default=3200, help="largest number of points in each direction")
    parser.add_argument("--stable", type=float, default=0.1, help="stop when the mean returns change by less than this")
    parser.add_argument("--discount", type=float, default=1.0, help="1: 200 steps; below 1: episodes that never end")
    parser.add_argument("--starts", type=Path, help=".npy file with start states [S, 2]: angle (rad), velocity (rad/s)")
    parser.add_argument("--returns", type=Path, help=".npy file for the undiscounted 200-step returns [S]")
    options = parser.parse_args(arguments)
    if not 0 < options.discount <= 1:
        parser.error(f"discount is {options.discount}, but must be in (0, 1]")
    if options.finest < 10:
        parser.error(f"finest is {options.finest}, but must be a whole number >= 10")
    return options


def shipped(discount: float) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns the package's start states [512, 2] and its returns [512] for them; None for an unknown discount."""
    with resources.files("ddpg_jax").joinpath("environments/data/pendulum_optimum.npz").open("rb") as file:
        table = dict(np.load(file, allow_pickle=False))
    returns = {1.0: table["return_optimal"], 0.99: table["return_gamma99"]}.get(discount)
    return np.stack([table["theta"], table["theta_dot"]], axis=1), returns


def read_starts(path: Path) -> np.ndarray:
    """Returns the user's start states [S, 2]; exits if they are not valid."""
    try:
        starts = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        sys.exit(f"error: starts is {path}, but must be a .npy file of numbers: {error}")
    if starts.ndim != 2 or starts.shape[1] != 2 or not len(starts) or not np.isfinite(starts).all():
        sys.exit(f"error: starts is {path}, but must hold finite states [S, 2]; it holds {list(starts.shape)}")
    if np.abs(starts[:, 1]).max() > optimum.MAX_SPEED:
        sys.exit(f"error: starts is {path}, but its velocities must be within {optimum.MAX_SPEED:g} rad/s of 0")
    return starts


def reset_starts() -> np.ndarray:
    """Returns start states [CELLS, CELLS, 2, 2] of Gymnasium's reset distribution: two are drawn in each equal cell."""
    cell = np.stack(np.meshgrid(np.arange(CELLS), np.arange(CELLS), indexing="ij"), axis=-1)[:, :, None, :]
    place = (cell + np.random.default_rng(0).uniform(size=(CELLS, CELLS, 2, 2))) / CELLS
    return (2 * place - 1) * np.array([np.pi, 1.0])


def solve(num: int, discount: float, starts: np.ndarray, reset: np.ndarray) -> Row:
    """Computes the table of `num` angles and `num` + 1 velocities (one of them 0), and the returns of its policy."""
    began = time.perf_counter()
    points = (num, num + 1)
    values = optimum.finite_horizon(points)[1] if discount == 1 else optimum.infinite_horizon(points, discount)
    states = jnp.asarray(np.concatenate([starts, reset.reshape(-1, 2)]), jnp.float32)
    returns = np.asarray(episode_returns(values, *states.T, discount))
    seconds = time.perf_counter() - began
    return Row(points, seconds, returns[: len(starts)], returns[len(starts) :].reshape(reset.shape[:3]))


@jax.jit
def episode_returns(values: jax.Array, angle: jax.Array, velocity: jax.Array, discount: float) -> jax.Array:
    """Returns the undiscounted returns [S] of the episodes of `optimum.follow`."""
    return jnp.sum(optimum.follow(values, angle, velocity, discount)[2], axis=0)


def reset_mean(row: Row) -> tuple[float, float]:
    """Returns the mean over the reset distribution, and its standard error from the differences within each cell."""
    differences = np.diff(row.reset_returns, axis=-1).astype(np.float64)
    return float(row.reset_returns.mean(dtype=np.float64)), float(np.sqrt(np.sum(differences**2)) / 2 / CELLS**2)


def changes(rows: list[Row]) -> tuple[float, float]:
    """Returns how far the last refinement moved the means over the start states and over the reset distribution."""
    old, new = rows[-2:]
    return abs(float(new.returns.mean() - old.returns.mean())), abs(reset_mean(new)[0] - reset_mean(old)[0])


def describe(row: Row, given: np.ndarray | None) -> dict[str, Any]:
    """Returns the content of the record for a table; returns are undiscounted sums over 200 steps."""
    mean, error = reset_mean(row)
    content = {"points": row.points, "seconds": row.seconds, "mean_return": float(row.returns.mean()),
               "reset_mean_return": mean, "reset_standard_error": error}  # fmt: skip
    if given is None:
        return content
    minus = (row.returns - given).astype(np.float64)
    shipped = {"mean": minus.mean(), "lowest": minus.min(), "highest": minus.max()}
    return content | {"minus_shipped": shipped | {"num_lower_by_more_than_0.1": int(np.sum(minus < -0.1))}}


if __name__ == "__main__":
    sys.exit(main())
