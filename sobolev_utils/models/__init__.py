"""Reference models and their samples: what a surrogate learns from.

A reference model is anything with `sample(key, n) -> Samples(x, y, dydx)`; one with a closed form adds `value`,
`delta` and `gamma`. Here are basket options under Bachelier with their closed form, payoffs, paths of stochastic
differential equations, quasi-random points, and least-squares Monte Carlo with pathwise derivatives.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "basket": ["GaussianBasket"],
        "least_squares_monte_carlo": ["LeastSquaresMonteCarlo"],
        "payoffs": ["call", "digital", "smooth_call", "smooth_digital", "smooth_transition"],
        "points": ["normal_points"],
        "samples": ["CurvedSamples", "Samples", "StripSamples"],
        "scaling": ["equivalent", "moved", "sensitivities", "transported"],
        "sde": ["euler_maruyama", "exact_bachelier"],
    },
)
