"""The machinery behind the notebooks: Sobolev training, interval adjoints, significance and pruning.

Modules, each importing only from those below it:

    reproduce
    execution   provenance   figures
                             stages
                             problem
    pruning                  artifacts   metrics
    significance
    intervals   training
    walker      losses
    rounding    network      simulation
                             basket   payoffs

`problem` is the case study as the notebooks share it; all others but `simulation` and below take any reference model.
"""
