"""Computations too long for a notebook: ways to prune, and extensions of the paper's table, under many seeds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "distribute": ["cluster"],
        "extensions": ["Laboratory", "errors", "single"],
        "pruning_methods": ["compare"],
        "run": ["run_study"],
        "wilcoxon": ["paired_tests"],
    },
)
