"""Scores and their intervals, calibration, subgroups, and models compared."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "calibration": ["calibration_table", "describe_calibration", "evaluate_calibration"],
        "class_predictions": ["add_probabilities"],
        "classes": [
            "class_reliability",
            "classes_table",
            "compare_classes",
            "class_pairs_table",
            "describe_classes",
            "evaluate_classes",
            "flatten_classes",
            "overall_table",
        ],
        "comparison": [
            "BASELINE",
            "choose_primary",
            "compare_models",
            "cost_table",
            "describe_baseline",
            "describe_comparison",
            "evaluated_models",
            "find_disagreements",
            "flatten_metrics",
        ],
        "decision_curve": ["compute_decision_curve"],
        "ensemble": ["build_ensembles", "compare_ensemble", "describe_ensembles"],
        "exams": [
            "compare_exams",
            "describe_exams_of",
            "evaluate_exams",
            "show_compared_exams",
            "show_exams",
        ],
        "failures": ["describe_failures", "find_failures"],
        "gaps": ["describe_gaps", "gaps_table", "measure_gaps"],
        "leakage": ["MAX_IMAGES", "describe_leakage", "measure_leakage"],
        "metrics": ["evaluate", "metrics_table"],
        "operating_point": ["choose_operating_point"],
        "paired": ["compare_pairs", "describe_accuracies", "describe_pairs", "pairs_table"],
        "planning": ["describe_plan", "plan_test", "show_plan"],
        "prevalence": [
            "decisions_table",
            "evaluate_decided",
            "find_sensitivities",
            "list_prevalences",
            "tabulate_prevalences",
        ],
        "readers": ["compare_readers", "readers_table"],
        "subgroups": ["describe_subgroups", "evaluate_subgroups", "subgroup_columns"],
        "thresholds": ["describe_rule"],
        "variability": ["describe_spread", "score_out_of_fold", "summarise"],
    },
)
