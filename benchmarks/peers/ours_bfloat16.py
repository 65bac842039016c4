"""Measures this project with `--matmul-dtype bfloat16`: operands of products are rounded, sums are float32."""

from harness import options
from ours import main

from ddpg_jax.presets import PRESETS

if __name__ == "__main__":
    main(options(), PRESETS["keras"].replace(matmul_dtype="bfloat16"))
