"""The machinery behind the notebooks: Sobolev training, interval adjoints, significance and pruning.

Modules, each importing only from those below it:

    reproduce
    execution  provenance
    stages     figures
    artifacts  metrics
    pruning
    significance
    intervals     training
    walker        losses
    rounding      network   simulation
                            basket   payoffs
"""
