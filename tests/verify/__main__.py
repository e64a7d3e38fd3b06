"""All checks, a line for each: `make verify`. The exit code is 1 if one of them fails or too little was compared."""

import sys
import time
from functools import partial

import jax
import numpy as np

from verify import METHODS, WAYS, networks, primitives
from verify.programs import program_cases
from verify.rules import rule_cases

# How much is compared for each method: random cases of the rules, and sampled points of the networks.
CASES, POINTS = 10**6, 10**7
BOXES, BATCHES, SEEDS = 3000, 5, range(2)


def rules_and_programs(method):
    return {
        f"{dtype.__name__} {name}": partial(primitives.verify, case, method, dtype, seed=0, n=BOXES)
        for dtype in (np.float32, np.float64)
        for name, case in (rule_cases(dtype) | program_cases(dtype)).items()
    }


def whole_networks(method):
    return {str(network): partial(networks.verify, network, method, BATCHES) for network in networks.networks(SEEDS)}


def passes(name, checks, due):
    """Whether no check, each a function that returns a tally, finds anything, and as much is compared as is due."""
    tallies, start = [], time.perf_counter()
    for check, verify in checks.items():
        tallies.append(verify())
        print(f"{check:40} {tallies[-1]}", flush=True)
    compared, outside = (sum(getattr(tally, field) for tally in tallies) for field in ("compared", "outside"))
    print(
        f"{name}: {compared:,} of {due:,} due, {outside:,} outside, {time.perf_counter() - start:.0f} s\n", flush=True
    )
    return compared >= due and all(tally.passes for tally in tallies)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    passed = [
        passes(f"{name}, {what.__name__}", what(WAYS[name]), due)
        for name in sys.argv[1:] or WAYS
        for what, due in ((rules_and_programs, CASES), (whole_networks, POINTS))
        if what is whole_networks or name in METHODS
    ]
    sys.exit(not all(passed))
