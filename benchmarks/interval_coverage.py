"""Simulates how often the 95% intervals of `ddpg_jax.results.statistics` contain the true value.

    python benchmarks/interval_coverage.py      # writes results/interval_coverage.json; about 40 minutes on one core

Samples of 5 to 32 agents are drawn from known distributions: normal, exponential, lognormal, and a mixture in which
each agent fails with a probability of 10% or 25%; with 30%, failed agents reach into the middle half that the
interquartile mean averages, and no method here covers it with few agents. The package uses the methods marked with
`*`: they cover the true value in at least 93% of the samples of each of the other distributions, for each size.
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
Interval = Callable[[np.ndarray], tuple[float, float]]


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


def student_of_trimmed(values: np.ndarray) -> tuple[float, float]:
    """Student's t on the trimmed mean: Tukey and McLaughlin 1963, Yuen 1974."""
    cut = len(values) // 4
    left = len(values) - 2 * cut
    winsorized = np.clip(values, *np.sort(values)[[cut, -cut - 1]])
    error = np.sqrt(np.sum((winsorized - winsorized.mean()) ** 2) / (left * (left - 1)))
    half = stats.t.isf(0.025, left - 1) * error
    return float(iqm(values) - half), float(iqm(values) + half)


def percentile_bootstrap(values: np.ndarray) -> tuple[float, float]:
    """The percentile interval of the interquartile mean, at 2.5% and 97.5%."""
    resamples = np.random.default_rng(0).choice(values, (2000, len(values)))
    low, high = np.quantile(iqm(resamples, axis=1), [0.025, 0.975])
    return float(low), float(high)


def bootstrap_t(values: np.ndarray) -> tuple[float, float]:
    """The symmetric bootstrap-t interval of the trimmed mean (Wilcox 2017, section 4.4.6)."""
    cut, num = len(values) // 4, len(values)

    def centre_and_error(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = np.sort(rows, axis=-1)
        winsorized = np.clip(rows, rows[..., [cut]], rows[..., [num - cut - 1]])
        return rows[..., cut : num - cut].mean(axis=-1), winsorized.std(axis=-1)

    centre, error = centre_and_error(values)
    centres, errors = centre_and_error(np.random.default_rng(0).choice(values, (2000, num)))
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.abs(centres - centre) / errors
    half = np.quantile(np.nan_to_num(sizes, nan=0.0, posinf=1e9), 0.95) * error
    return float(centre - half), float(centre + half)


def student(values: np.ndarray) -> tuple[float, float]:
    """Student's t interval of the mean."""
    half = stats.t.isf(0.025, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


IQM_METHODS: dict[str, Interval] = {
    "* expanded percentile bootstrap": iqm_interval,
    "percentile bootstrap": percentile_bootstrap,
    "Student's t on the trimmed mean": student_of_trimmed,
    "bootstrap-t": bootstrap_t,
}


def bootstrap_improvement(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """The percentile interval of the probability of improvement, over both sets of agents."""
    rng = np.random.default_rng(0)
    wins = (values[:, None] > baseline) + 0.5 * (values[:, None] == baseline)
    rows, columns = (rng.multinomial(num, np.full(num, 1 / num), 1000) / num for num in wins.shape)
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


def brunner_munzel(values: np.ndarray, baseline: np.ndarray) -> tuple[float, float]:
    """Student's t with the variance of DeLong et al. 1988 (Brunner and Munzel 2000)."""
    wins = values[:, None] > baseline
    parts = np.array([wins.mean(axis=1).var(ddof=1) / len(values), wins.mean(axis=0).var(ddof=1) / len(baseline)])
    freedom = parts.sum() ** 2 / max((parts**2 / (len(values) - 1, len(baseline) - 1)).sum(), 1e-300)
    half = float(stats.t.isf(0.025, max(freedom, 1)) * np.sqrt(parts.sum()))
    return max(0.0, wins.mean() - half), min(1.0, wins.mean() + half)


IMPROVEMENT_METHODS: dict[str, Callable[[np.ndarray, np.ndarray], tuple[float, float]]] = {
    "* Newcombe's method 5, with DeLong's variance and Student's t": lambda x, y: probability_of_improvement(x, y)[1:],
    "Newcombe's method 5": newcombe,
    "percentile bootstrap": bootstrap_improvement,
    "Brunner and Munzel": brunner_munzel,
}


def number(method: str, repetitions: int) -> int:
    """The samples for a method: fewer for those that are not used."""
    return repetitions if method.startswith("*") else 2 * repetitions // 5


def simulate_iqm(repetitions: int) -> list[dict[str, Any]]:
    rows = []
    for name, sample in DISTRIBUTIONS.items():
        true = float(iqm(sample(np.random.default_rng(1), 8_000_000)))
        for num in SIZES:
            samples = sample(np.random.default_rng(num), (repetitions, num))
            for method, interval in IQM_METHODS.items():
                bounds = np.array([interval(values) for values in samples[: number(method, repetitions)]])
                rows.append(row("IQM", name, num, num, method, bounds, true))
    return rows


def simulate_improvement(repetitions: int) -> list[dict[str, Any]]:
    rows = []
    for name, (sample, other) in PAIRS.items():
        rng = np.random.default_rng(1)
        true = np.mean([probability_of_improvement(sample(rng, 4000), other(rng, 4000))[0] for _ in range(200)])
        for n, m in [*((num, num) for num in SIZES), (5, 32), (32, 5)]:
            rng = np.random.default_rng(n)
            samples = list(zip(sample(rng, (repetitions, n)), other(rng, (repetitions, m)), strict=True))
            for method, interval in IMPROVEMENT_METHODS.items():
                bounds = np.array([interval(*pair) for pair in samples[: number(method, repetitions)]])
                rows.append(row("improvement", name, n, m, method, bounds, float(true)))
    return rows


def simulate_differences(repetitions: int) -> list[dict[str, Any]]:
    """Paired differences of two configurations, whose agents share a part of their luck by their seeds."""
    rows = []
    for name, (sample, other) in PAIRS.items():
        rng = np.random.default_rng(1)
        many = sample(rng, 8_000_000) - other(rng, 8_000_000)
        for num in SIZES:
            rng, size = np.random.default_rng(num), (repetitions, num)
            luck = rng.normal(0, 5, size)
            samples = sample(rng, size) + luck, other(rng, size) + luck
            bounds = np.array([paired_difference(*pair)[1:] for pair in zip(*samples, strict=True)])
            rows.append(row("difference", name, num, num, "* IQM of the pairs", bounds, float(iqm(many))))
            others = (samples[0] - samples[1])[: number("", repetitions)]
            bounds = np.array([student(values) for values in others])
            rows.append(row("difference", name, num, num, "Student's t of the mean", bounds, float(np.mean(many))))
    return rows


def row(what: str, name: str, n: int, m: int, method: str, bounds: np.ndarray, true: float) -> dict[str, Any]:
    """The coverage and the median width of intervals [R, 2] of one method."""
    covered = (bounds[:, 0] <= true) & (true <= bounds[:, 1])
    width = float(np.median(bounds[:, 1] - bounds[:, 0]))
    return {"what": what, "distribution": name, "n": n, "m": m, "method": method, "true": round(true, 4),
            "repetitions": len(bounds),
            "coverage": round(float(covered.mean()), 4), "median_width": float(f"{width:.4g}")}  # fmt: skip


def report(rows: list[dict[str, Any]]) -> str:
    """The least coverage over the distributions, by method and number of agents."""
    lines = [f"{'least coverage':<75}" + "".join(f"{num:>8}" for num in SIZES) + "  5 against 32"]
    rows = [each for each in rows if each["what"] == "improvement" or each["distribution"] not in BEYOND]
    for what, method in dict.fromkeys((each["what"], each["method"]) for each in rows):
        here = [each for each in rows if (each["what"], each["method"]) == (what, method)]
        least = [min(each["coverage"] for each in here if each["n"] == each["m"] == num) for num in SIZES]
        other = min((each["coverage"] for each in here if each["n"] != each["m"]), default=None)
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
    rows = [
        each
        for simulate in (simulate_iqm, simulate_improvement, simulate_differences)
        for each in simulate(options.repetitions)
    ]
    print(report(rows))
    record["load_average"].append(load_average())
    record |= {"nominal": 0.95, "seconds": round(time.time() - start, 1)}
    lines = ",\n  ".join(map(json.dumps, rows))  # one row a line
    head = json.dumps(record, indent=1).removesuffix("\n}")
    (RESULTS / "interval_coverage.json").write_text(f'{head},\n "rows": [\n  {lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
