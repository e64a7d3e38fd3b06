"""Surrogates, and how they learn: values, derivatives and second derivatives.

A `Surrogate` is a normalised dense network with its derivatives; `fit` minimises a loss of it, over a fixed sample or
fresh ones, by a first-order optimiser or by Levenberg-Marquardt; `r2` and `rmse` say how good it is.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "bumps": ["with_bump"],
        "diagnosis": ["Diverged"],
        "hessian_products": ["all_directions", "hvp", "principal_directions", "random_directions", "with_hvp"],
        "losses": ["plain", "sampled_sobolev", "second_order", "sobolev"],
        "metrics": ["r2", "rmse"],
        "surrogate": ["Surrogate"],
        "training": ["fit", "shuffled"],
    },
)
