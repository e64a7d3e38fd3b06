"""The machinery behind the notebooks: Sobolev training, interval adjoints, significance and pruning.

Modules, each importing only from those below it:

    reproduce   study
    execution   provenance   figures
                             stages
                             problem
    replacement pruning      artifacts   metrics
    subdivision
    significance
    zonotopes
    intervals              training
    univariate             losses
    interval_rules         network     simulation
    walker   affine                    basket   payoffs
    interval_arithmetic
    chains   rounding

`problem` is the case study as the notebooks share it; all others but `simulation` and below take any reference model.
"""
