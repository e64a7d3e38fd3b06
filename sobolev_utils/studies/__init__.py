"""What takes too long for a notebook: ways to prune, and experiments past the paper's table, under many seeds."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "past_the_table": ["Laboratory", "errors", "single"],
        "pruning_methods": ["compare", "criteria"],
        "distribute": ["cluster"],
        "run": ["run_study"],
    },
)
