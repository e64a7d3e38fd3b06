"""Interval and affine arithmetic of any JAX function, rounded outward, on boxes and sub-boxes.

`enclose(f)` takes intervals, made by `box`, to an interval that holds every value of f over them;
`zonotopes.enclose(f)` does so in affine arithmetic, which remembers what values have in common. Enclosures are
rigorous given the error bounds of the elementary functions that `rounding` lists and `self_check` tries.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["zonotopes"],
    submod_attrs={
        "interval": ["Interval"],
        "intervals": ["box", "enclose"],
    },
)
