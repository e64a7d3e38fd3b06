"""Which nodes of a surrogate matter over a whole box of inputs, and what changes when others are removed.

`analyse` encloses values and adjoints of all nodes: their significance is width times largest adjoint;
`analyse_subdivided` does so on sub-boxes, `inside` finds what is attained, and `tightness` compares the two. `prune`
removes nodes and folds them into biases; `change_bound` and `changes_enclosed` prove how far the output moves.
`reconstruct` removes nodes and refits what follows, so that value and derivatives stay; `smallest` looks for the
smallest network that does, and `difference` proves how far two networks differ.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "certificate": ["TOLERANCES", "Bound", "Certificate", "certify"],
        "attained": ["extremes", "inside", "tightness"],
        "choice": ["Choice", "Layer", "matching_pursuit", "pivoted_qr"],
        "conditional_choice": ["conditional_significance"],
        "differences": ["Difference", "difference"],
        "baselines": [
            "brain_damage",
            "brain_surgeon",
            "compensated",
            "magnitude",
            "random_scores",
            "saliency",
        ],
        "nodes": ["mean_nodes", "most_significant", "prune"],
        "reconstruction": ["reconstruct", "refit"],
        "removal_bounds": ["Step", "change", "change_bound", "changes_enclosed", "changes_found"],
        "sampled_network": ["Large", "Small"],
        "significance": ["METHODS", "Significance", "analyse", "values_and_adjoints"],
        "smallest_network": ["relative_change", "smallest"],
        "subdivision": ["analyse_subdivided"],
    },
)
