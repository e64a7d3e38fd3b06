"""The paper's case study as notebooks share it: the problem, the stages, the figures, and what is taken away.

`admit` checks a notebook's parameters; `load_problem`, `load_stage` and their counterparts hand on what one notebook
makes for the next, and say what is missing or outdated; `save_table` and `save_figure` keep what is to be read;
`save_models` writes surrogates as ONNX files. `reproduce` runs the notebooks without a screen.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["artifacts", "figures", "node_figures", "outputs"],
    submod_attrs={
        "artifacts": ["results_folder"],
        "case_study": ["BUDGETS", "RECIPE", "load_problem", "save_problem"],
        "explore": ["LEVELS", "Explorer"],
        "export": ["to_onnx"],
        "model_card": ["save_models"],
        "model_certificates": ["CertificateError", "certify_models", "check_model", "stated"],
        "outputs": ["read_study", "save_figure", "save_study", "save_table"],
        "parameters": ["admit"],
        "stages": [
            "PUBLISHED",
            "QUANTITIES",
            "STAGES",
            "Trained",
            "collect_r2",
            "evaluate",
            "load_stage",
            "save_stage",
        ],
    },
)
