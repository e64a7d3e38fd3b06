"""The machinery behind the notebooks, in six wings, each importing only from those below it.

    studies      ways to prune, and extensions of the paper's table, under many seeds
    paper        the case study, its stages and figures; what notebooks hand on; surrogates taken away
    pruning      significance of nodes, their removal, proven bounds of what changes
    learning     the surrogate, its losses, `fit`, Levenberg-Marquardt, errors
    enclosures   interval and affine arithmetic of any JAX function, rounded outward, on boxes and sub-boxes
    models       reference models and their samples: baskets, payoffs, paths, quasi-random points

The docstring of each wing lists its names, which are imported from it: `from sobolev_utils.learning import fit`; what
a name needs is loaded only then. `arrays` converts and checks arguments. `models`, `learning`, `enclosures` and
`pruning` take any reference model; only `paper` and `studies` know that it is a basket.
"""
