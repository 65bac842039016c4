"""Simulates how often the 95% intervals of `ddpg_jax.results.statistics` contain the true value.

    python benchmarks/interval_coverage.py      # writes results/interval_coverage.json; about 20 minutes on one core

Samples of 5 to 32 agents are drawn from known distributions: normal, exponential, lognormal, and a mixture in which
each agent fails with a probability of 10% or 25%; with 30%, failed agents reach into the middle half that the
interquartile mean averages, and no method here covers it with few agents and a useful width. The package uses the
methods marked with `*`: they cover the true value in at least 93% of the samples of each of the other distributions,
for each size.
"""

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from record import RESULTS, begin, load_average
from scipy import optimize, stats

from ddpg_jax.results.statistics import iqm, iqm_interval, paired_difference, probability_of_improvement

SIZES = (5, 6, 8, 10, 16, 32)
Sampler = Callable[[np.random.Generator, Any], Any]
Method = Callable[..., np.ndarray]
Row = dict[str, Any]


def failing(share: float, mean: float = 0.0) -> Sampler:
    """Agents with normal returns, of which a share fails and returns about 20 standard deviations less."""
    return lambda rng, size: np.where(rng.random(size) < share, rng.normal(-20, 4, size), rng.normal(mean, 1, size))


def normal(mean: float = 0.0, spread: float = 1.0) -> Sampler:
    return lambda rng, size: rng.normal(mean, spread, size)


DISTRIBUTIONS: dict[str, Sampler] = {
    "normal": normal(),
    "exponential": lambda rng, size: rng.exponential(size=size),
    "exponential, mirrored": lambda rng, size: -rng.exponential(size=size),
    "lognormal": lambda rng, size: rng.lognormal(size=size),
    "lognormal, mirrored": lambda rng, size: -rng.lognormal(size=size),
    "10% fail": failing(0.1),
    "25% fail": failing(0.25),
    "30% fail": failing(0.3),
}

BEYOND = ("30% fail", "30% fail against 10%")
"""Distributions that the rule for the choice of a method leaves out, for differences and interquartile means."""

PAIRS: dict[str, tuple[Sampler, Sampler]] = {
    "normal, equal": (normal(), normal()),
    "normal, 1 apart": (normal(1), normal()),
    "normal, 2 apart": (normal(2), normal()),
    "normal, spreads 3 and 1": (normal(1, 3), normal()),
    "exponential, scales 1 and 1": (DISTRIBUTIONS["exponential"], DISTRIBUTIONS["exponential"]),
    "exponential, scales 9 and 1": (lambda rng, size: 9 * rng.exponential(size=size), DISTRIBUTIONS["exponential"]),
    "lognormal, 1 apart": (lambda rng, size: rng.lognormal(1, 1, size), DISTRIBUTIONS["lognormal"]),
    "10% fail against normal, 2 apart": (failing(0.1, 2), normal()),
    "30% fail against 10%": (failing(0.1), failing(0.3)),
}


def each(interval: Callable[..., tuple[float, float]]) -> Method:
    """The method that computes the interval of one sample at a time."""
    return lambda *samples: np.array([interval(*sample) for sample in zip(*samples, strict=True)])


def percentile_bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of the interquartile mean, at 2.5% and 97.5%."""
    num = len(values)
    index = np.sort(np.random.default_rng(0).integers(num, size=(1000, num)), axis=1)[:, num // 4 : num - num // 4]
    low, high = np.quantile(np.sort(values)[index].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def trimmed(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The trimmed means of rows, and their standard errors from the winsorized variances (Yuen 1974)."""
    rows, num = np.sort(rows, axis=-1), rows.shape[-1]
    cut = num // 4
    winsorized = np.clip(rows, rows[..., [cut]], rows[..., [num - cut - 1]])
    error = winsorized.std(axis=-1) * np.sqrt(num / ((num - 2 * cut) * (num - 2 * cut - 1)))
    return rows[..., cut : num - cut].mean(axis=-1), error


def student_of_trimmed(samples: np.ndarray) -> np.ndarray:
    """Student's t on the trimmed mean (Tukey and McLaughlin 1963)."""
    centre, error = trimmed(samples)
    half = stats.t.isf(0.025, samples.shape[1] - 2 * (samples.shape[1] // 4) - 1) * error
    return np.stack([centre - half, centre + half], axis=1)


def bootstrap_t(values: np.ndarray) -> tuple[float, float]:
    """The symmetric bootstrap-t interval of the trimmed mean (Wilcox 2017, section 4.4)."""
    centre, error = trimmed(values)
    centres, errors = trimmed(np.random.default_rng(0).choice(values, (1000, len(values))))
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.abs(centres - centre) / errors
    half = np.quantile(np.nan_to_num(sizes, nan=0.0, posinf=1e9), 0.95) * error
    return float(centre - half), float(centre + half)


def student(samples: np.ndarray) -> np.ndarray:
    """Student's t interval of the mean."""
    half = stats.t.isf(0.025, samples.shape[1] - 1) * stats.sem(samples, axis=1)
    return np.stack([samples.mean(axis=1) - half, samples.mean(axis=1) + half], axis=1)


def bootstrap_improvement(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """The percentile interval of the probability of improvement, over both sets of agents."""
    rng, wins = np.random.default_rng(0), values[:, None] > baseline
    rows, columns = (rng.multinomial(num, np.full(num, 1 / num), 500) / num for num in wins.shape)
    low, high = np.quantile(np.sum((rows @ wins) * columns, axis=1), [0.025, 0.975])
    return float(low), float(high)


def newcombe(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Newcombe's method 5 (2006)."""
    n, m = len(values), len(baseline)
    p, middle = float(np.mean(values[:, None] > baseline)), (n + m) / 2 - 1

    def excess(x: float) -> float:
        return (p - x) ** 2 - 1.96**2 * x * (1 - x) * (1 + middle * ((1 - x) / (2 - x) + x / (1 + x))) / (n * m)

    low = optimize.brentq(excess, 0, min(p, 1 - 1e-9)) if p > 0 else 0.0
    return low, optimize.brentq(excess, max(p, 1e-9), 1) if p < 1 else 1.0


def brunner_munzel(samples: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Student's t with the variance of DeLong et al. 1988 (Brunner and Munzel 2000)."""
    (n, m), wins = (samples.shape[1], others.shape[1]), samples[:, :, None] > others[:, None, :]
    parts = np.stack([wins.mean(axis=2).var(axis=1, ddof=1) / n, wins.mean(axis=1).var(axis=1, ddof=1) / m])
    freedom = parts.sum(axis=0) ** 2 / np.maximum((parts**2 / [[n - 1], [m - 1]]).sum(axis=0), 1e-300)
    half = stats.t.isf(0.025, np.maximum(freedom, 1)) * np.sqrt(parts.sum(axis=0))
    p = wins.mean(axis=(1, 2))
    return np.clip(np.stack([p - half, p + half], axis=1), 0, 1)


METHODS: dict[str, dict[str, Method]] = {
    "IQM": {
        "* expanded percentile bootstrap": each(iqm_interval),
        "percentile bootstrap": each(percentile_bootstrap),
        "Student's t on the trimmed mean": student_of_trimmed,
        "bootstrap-t": each(bootstrap_t),
    },
    "improvement": {
        "* Newcombe's method 5, DeLong's variance, Student's t": each(
            lambda x, y: probability_of_improvement(x, y)[1:]
        ),
        "Newcombe's method 5": each(newcombe),
        "percentile bootstrap": each(bootstrap_improvement),
        "Brunner and Munzel": brunner_munzel,
    },
}


def simulate(what: str, name: str, sizes: tuple[int, int], samples: list[np.ndarray], true: float) -> list[Row]:
    """The coverage of each method, from samples [R, n] of each side; 40% of them for methods that are not used."""
    rows = []
    for method, interval in METHODS[what].items():
        few = len(samples[0]) if method.startswith("*") else 2 * len(samples[0]) // 5
        bounds = interval(*(sample[:few] for sample in samples))
        rows.append(row(what, name, sizes, method, bounds, true))
    return rows


def simulate_iqm(repetitions: int) -> list[Row]:
    rows = []
    for name, sample in DISTRIBUTIONS.items():
        true = float(iqm(sample(np.random.default_rng(1), 8_000_000)))
        for num in SIZES:
            rows += simulate("IQM", name, (num, num), [sample(np.random.default_rng(num), (repetitions, num))], true)
    return rows


def simulate_improvement(repetitions: int) -> list[Row]:
    rows = []
    for name, (sample, other) in PAIRS.items():
        rng = np.random.default_rng(1)
        true = np.mean([probability_of_improvement(sample(rng, 4000), other(rng, 4000))[0] for _ in range(200)])
        for n, m in [*((num, num) for num in SIZES), (5, 32), (32, 5)]:
            rng = np.random.default_rng(n)
            samples = [sample(rng, (repetitions, n)), other(rng, (repetitions, m))]
            rows += simulate("improvement", name, (n, m), samples, float(true))
    return rows


def simulate_differences(repetitions: int) -> list[Row]:
    """Paired differences of two configurations, whose agents share a part of their luck by their seeds."""
    rows = []
    for name, (sample, other) in PAIRS.items():
        rng = np.random.default_rng(1)
        many = sample(rng, 8_000_000) - other(rng, 8_000_000)
        for num in SIZES:
            rng, size = np.random.default_rng(num), (repetitions, num)
            luck = rng.normal(0, 5, size)
            one, two = sample(rng, size) + luck, other(rng, size) + luck
            bounds = each(lambda x, y: paired_difference(x, y)[1:])(one, two)
            rows.append(row("difference", name, (num, num), "* IQM of the pairs", bounds, float(iqm(many))))
            bounds = student(one - two)
            rows.append(row("difference", name, (num, num), "Student's t of the mean", bounds, float(np.mean(many))))
    return rows


def row(what: str, name: str, sizes: tuple[int, int], method: str, bounds: np.ndarray, true: float) -> Row:
    """The coverage and the median width of intervals [R, 2] of one method."""
    covered = (bounds[:, 0] <= true) & (true <= bounds[:, 1])
    width = float(np.median(bounds[:, 1] - bounds[:, 0]))
    return {"what": what, "distribution": name, "n": sizes[0], "m": sizes[1], "method": method, "true": round(true, 4),
            "repetitions": len(bounds), "coverage": round(float(covered.mean()), 4),
            "median_width": float(f"{width:.4g}")}  # fmt: skip


def report(rows: list[Row]) -> str:
    """The least coverage over the distributions, by method and number of agents."""
    lines = [f"{'least coverage':<75}" + "".join(f"{num:>8}" for num in SIZES) + "  5 against 32"]
    rows = [found for found in rows if found["what"] == "improvement" or found["distribution"] not in BEYOND]
    for what, method in dict.fromkeys((found["what"], found["method"]) for found in rows):
        here = [found for found in rows if (found["what"], found["method"]) == (what, method)]
        least = [min(found["coverage"] for found in here if found["n"] == found["m"] == num) for num in SIZES]
        other = min((found["coverage"] for found in here if found["n"] != found["m"]), default=None)
        cells = "".join(f"{value:>8.3f}" for value in least)
        lines.append(f"{what:>11}: {method:<62}{cells}  {'' if other is None else f'{other:.3f}'}")
    return "\n".join(lines)


def main() -> None:
    """Runs the simulation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--repetitions",
        type=int,
        default=10_000,
        help="samples per distribution and size for the methods in use; 40%% of them for the others",
    )
    options = parser.parse_args()
    record = begin()
    start = time.time()
    num = options.repetitions
    rows = [*simulate_iqm(num), *simulate_improvement(num), *simulate_differences(num)]
    print(report(rows))
    record["load_average"].append(load_average())
    record |= {"nominal": 0.95, "seconds": round(time.time() - start, 1)}
    lines = ",\n  ".join(map(json.dumps, rows))  # one row a line
    head = json.dumps(record, indent=1).removesuffix("\n}")
    (RESULTS / "interval_coverage.json").write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
