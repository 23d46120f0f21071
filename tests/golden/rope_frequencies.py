#!/usr/bin/env python3
"""Writes tests/fixtures/golden/rope/frequencies.txt: rotary frequencies straight from the published
equations, pair by pair, independent of src/model/rope_scaling.cc. Standard library only.

One case is three lines: the name with its configuration as key=value, the magnitude, the inverse
frequencies. rope_scaling_test.cc reads them.
"""

import math
import pathlib

CASES = [
    ("plain", dict(type="default", theta=10000.0, head_dim=64, max_position=2048)),
    ("partial", dict(type="default", theta=10000.0, head_dim=80, partial=0.4, max_position=2048)),
    ("linear", dict(type="linear", theta=10000.0, head_dim=64, factor=4.0, max_position=8192)),
    ("dynamic", dict(type="dynamic", theta=10000.0, head_dim=64, factor=2.0, original=2048, max_position=4096)),
    ("llama31", dict(type="llama3", theta=500000.0, head_dim=128, factor=8.0, low=1.0, high=4.0,
                     original=8192, max_position=131072)),
    ("llama32", dict(type="llama3", theta=500000.0, head_dim=64, factor=32.0, low=1.0, high=4.0,
                     original=8192, max_position=131072)),
    ("llama3_tiny", dict(type="llama3", theta=500000.0, head_dim=32, factor=8.0, low=1.0, high=4.0,
                         original=64, max_position=512)),
    ("yarn_qwen", dict(type="yarn", theta=1000000.0, head_dim=128, factor=4.0, original=32768,
                       max_position=32768)),
    ("yarn_deepseek", dict(type="yarn", theta=10000.0, head_dim=64, factor=40.0, original=4096,
                           mscale=0.707, mscale_all_dim=0.5, max_position=163840)),
    ("yarn_no_truncate", dict(type="yarn", theta=150000.0, head_dim=64, factor=32.0, original=4096,
                              truncate=0, max_position=131072)),
    ("yarn_given_factor", dict(type="yarn", theta=10000.0, head_dim=32, factor=2.0, original=128,
                               attention_factor=1.5, beta_fast=16.0, beta_slow=2.0, max_position=256)),
    # The whole band below the first pair: low == high == 0.
    ("yarn_singular", dict(type="yarn", theta=10000.0, head_dim=16, factor=2.0, original=4,
                           max_position=8)),
]


def rotary_dim(case):
    return int(case["head_dim"] * case.get("partial", 1.0))


def base_frequency(case, pair):
    """RoFormer, equation 15: theta_i = base^(-2 i / d)."""
    return 1.0 / case["theta"] ** (2.0 * pair / rotary_dim(case))


def llama3(case, pair):
    """Llama 3.1 reference code, apply_scaling, in terms of wavelengths."""
    frequency = base_frequency(case, pair)
    wavelength = 2.0 * math.pi / frequency
    longest_kept = case["original"] / case["high"]
    shortest_stretched = case["original"] / case["low"]
    if wavelength < longest_kept:
        return frequency
    if wavelength > shortest_stretched:
        return frequency / case["factor"]
    smooth = (case["original"] / wavelength - case["low"]) / (case["high"] - case["low"])
    return (1.0 - smooth) * frequency / case["factor"] + smooth * frequency


def yarn_bound(case, rotations):
    """YaRN, the pair whose wavelength makes `rotations` turns in the original context."""
    return (rotary_dim(case) * math.log(case["original"] / (rotations * 2.0 * math.pi))
            / (2.0 * math.log(case["theta"])))


def yarn(case, pair):
    """YaRN, equations 17 and 23 (NTK by parts)."""
    low, high = yarn_bound(case, case.get("beta_fast", 32.0)), yarn_bound(case, case.get("beta_slow", 1.0))
    if case.get("truncate", 1):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary_dim(case) - 1)
    if low == high:
        high += 0.001
    ramp = min(1.0, max(0.0, (pair - low) / (high - low)))
    frequency = base_frequency(case, pair)
    return frequency / case["factor"] * ramp + frequency * (1.0 - ramp)


def frequency_of(case, pair):
    kind = case["type"]
    if kind == "llama3":
        return llama3(case, pair)
    if kind == "yarn":
        return yarn(case, pair)
    if kind == "linear":
        return base_frequency(case, pair) / case["factor"]
    if kind == "dynamic":  # at a length of at most `original` the NTK-aware base is theta itself
        grown = dict(case)
        dim = rotary_dim(case)
        stretch = case["factor"] * case["original"] / case["original"] - (case["factor"] - 1.0)
        grown["theta"] = case["theta"] * stretch ** (dim / (dim - 2.0))
        return base_frequency(grown, pair)
    return base_frequency(case, pair)


def magnitude_of(case):
    """YaRN, equation 22: sqrt(1/t) = 0.1 ln(s) + 1; with two mscales, their ratio."""
    if case["type"] != "yarn":
        return 1.0
    if "attention_factor" in case:
        return case["attention_factor"]

    def softened(mscale):
        return 1.0 if case["factor"] <= 1.0 else 0.1 * mscale * math.log(case["factor"]) + 1.0

    if "mscale" in case and "mscale_all_dim" in case:
        return softened(case["mscale"]) / softened(case["mscale_all_dim"])
    return softened(1.0)


def main():
    lines = []
    for name, case in CASES:
        lines.append(" ".join([name] + [f"{key}={value}" for key, value in case.items()]))
        lines.append(f"{magnitude_of(case):.10g}")
        lines.append(" ".join(f"{frequency_of(case, pair):.10g}" for pair in range(rotary_dim(case) // 2)))
    path = pathlib.Path(__file__).parent.parent / "fixtures" / "golden" / "rope" / "frequencies.txt"
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
