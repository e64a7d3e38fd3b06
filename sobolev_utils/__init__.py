"""The machinery behind the notebooks: Sobolev training, interval adjoints, significance and pruning.

Modules, each importing only from those below it:

    reproduce   study        gallery   explore
    schedule    records      formulas
    execution   provenance   figures   beyond   comparison   model_card
                             stages
                             problem
    replacement pruning      artifacts   metrics
    subdivision
    significance
    zonotopes
    intervals   export     training
    univariate             least_squares
    interval_rules         losses      directions
                           diagnosis
    walker   affine        network     simulation   symmetry
    interval_arithmetic    purity      samples  basket   payoffs
    chains   self_check                arrays   files    fingerprints   parameters   environment
             rounding

`problem` is the case study as the notebooks share it; all others but `simulation` and below take any reference model.
"""
