"""Backbones, features, the head, fine-tuning and prediction, and a simple baseline.

Only this folder and explain compute with TensorFlow.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "backbones": ["describe_backbone", "embedder_weights"],
        "baseline": ["predict_baseline"],
        "external": ["check_unchanged", "join_predictions", "open_models", "study_embedder", "test_models"],
        "features": [
            "backend_record",
            "build_embedder",
            "extract_features",
            "load_study_features",
            "open_extractor",
        ],
        "finetuning": ["fine_tune", "load_images", "predict_images", "run_images"],
        "head": [
            "as_probabilities",
            "average_flips",
            "build_batches",
            "build_history",
            "build_output",
            "build_predictions",
            "callbacks",
            "choose_loss",
            "join_model",
            "predict_head",
            "prepare_tensorflow",
        ],
        "inference": ["ForwardPass", "agreement", "study_backend"],
        "localizer_study": [
            "box_shares",
            "choose_localized",
            "find_annotated",
            "localize_models",
            "localizers_record",
            "remove_localizers",
        ],
        "out_of_distribution": ["build_feature_model", "fit_ood_detector"],
        "saved": ["check_saved", "load_model", "save_model"],
        "resampling": [
            "choose_schedule",
            "cross_validate",
            "describe_schedule",
            "join_views",
            "predict_out_of_fold",
            "repeat_folds",
            "repeat_seeds",
        ],
    },
)
