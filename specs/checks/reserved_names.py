"""Names that a factor cannot have, since it is a coordinate beside the store's own names.

Beside them stand all that begin as numbers of tasks do (`is_reserved`).

They are the variables, coordinates and dimensions of every node that `store.open_store` gives, and of every
result of `store.analysis`; tests hold both lists against the layouts and results themselves.
"""

from __future__ import annotations

from specs.common.names import (
    AGREEMENT,
    ATTRIBUTION,
    DERIVED_ATTRIBUTIONS,
    DERIVED_OUTCOMES,
    GEOMETRY,
    GRAM,
    HEAD_ATTRIBUTION,
    LENS_STATISTICS,
    SIMILARITIES,
    STREAM,
    TASK_STAGES,
)

_KINDS = ("", "constrained_", "generated_")
_EVALUATION = frozenset({
    "cell", "constrained_explanation", "constrained_label", "constrained_text", "example",
    "generated_explanation", "generated_label", "generated_text", "gold", "group", "label", "label_logprob",
    "prediction",
})  # fmt: skip

_PROBE = frozenset({
    "activation_entropy", "cell", "entropy", "example", "gold", "group", "head", "head_entropy", "js_final",
    "kl_final", "layer", "logsumexp", "max_prob", "next_id", "nonfinite", "position", "renyi_2", "top",
    "top_id", "top_logprob", "watch", "watch_entropy", "watch_id", "watch_logprob", "watch_mass",
    "watch_rank",
})  # fmt: skip

_STREAMED = (
    *LENS_STATISTICS, "renyi_2", "top_id", "top_logprob", "watch_logprob", "watch_rank",
)  # fmt: skip

# Of each node: variables, coordinates and dimensions.
NODES: dict[str, frozenset[str]] = {
    "summary": frozenset(
        {f"{kind}{metric}" for kind in _KINDS for metric in AGREEMENT}
        | {f"base_{kind}{metric}" for kind in _KINDS for metric in AGREEMENT}
        | {f"base_{name}" for name in ("ece", "test_examples", "test_examples_too_long", "unparsed_share")}
        | {f"train_{kind}accuracy" for kind in _KINDS}
        | {f"majority_{metric}" for metric in AGREEMENT}
        | {"pass_at_n", "sampled_accuracy", "sampled_unparsed_share", "self_consistency"}
        | {f"{name}_examples_too_long" for name in ("test", "probed", "intervened")}
        | {f"{name}_examples_label_alone" for name in ("probed", "intervened")}
        | {
            "along_examples", "along_examples_too_long", "cell", "completion_tokens", "ece",
            "interventions", "jacobian_error", "jacobian_texts", "jacobian_tokens", "kept_step",
            "lens_examples", "lens_kl",
            "lens_kl_untrained", "neutral_base_perplexity", "neutral_cross_entropy", "neutral_kl",
            "neutral_perplexity", "neutral_tokens", "probed_examples", "test_examples", "train_examples",
            "train_end_loss", "train_examples_label_alone", "train_examples_too_long",
            "train_explanation_loss", "train_label_loss", "train_label_token_accuracy",
            "train_label_token_entropy", "train_loss", "train_seconds",
            "train_steps", "train_steps_skipped", "train_tokens", "trained_parameters", "unparsed_share",
            "validation_examples", "validation_examples_label_alone", "validation_examples_too_long",
            "validation_loss",
        }
    ),
    "train": frozenset({
        "cell", "end_loss", "explanation_loss", "grad_norm", "label_loss", "label_token_accuracy",
        "label_token_entropy", "learning_rate", "loss", "step",
    }),
    "base": _EVALUATION,
    **dict.fromkeys(("base_tasks", "base_inspect", "tasks", "inspect"), frozenset({"cell", "example"})),
    "evaluate": _EVALUATION | {
        "argued_label", "counterfactual", "counterfactual_explanation", "counterfactual_logprob",
        "counterfactual_prediction", "majority_label", "sample", "sampled_label", "sampled_text",
    },
    "neutral": frozenset({
        "base_cross_entropy", "cell", "cross_entropy", "example", "group", "kl_base", "tokens",
    }),
    "lens": frozenset({"cell", "layer", "step", "translator_kl"}),
    "jacobian": frozenset({"cell", "jacobian_error", "jacobian_norm", "layer"}),
    "probe": _PROBE | {
        *GEOMETRY, *(f"{name}_against" for name in SIMILARITIES), GRAM, "against", "expert",
        "expert_probability", "js_against", "kl_against", "neighbour", "router_entropy", "top_expert",
        *(f"{STREAM}{name}" for name in _STREAMED), ATTRIBUTION, HEAD_ATTRIBUTION, "component", "stream",
    },
    "along": _EVALUATION | _PROBE | {"optimizer_step", "step"},
    "differences": frozenset({
        "against", "cell", "coordinate", "difference_examples", "difference_norm",
        "example_difference_norm", "layer", "mean_difference", "position", "stream_norm", "top", "top_id",
        "top_logprob",
    }),
    "intervene": frozenset({
        "cell", "direction", "entropy", "entry", "example", "first", "gold", "group", "head",
        "intervention", "kind", "label", "label_logprob", "last", "layer", "other_label", "position",
        "prediction", "receiver", "source", "stream", "strength", "unchanged",
    }),
}  # fmt: skip
# What analyses derive from nodes, and the names in their results; but `rank`, which lies along levels alone
# there, and is what a factor over LoRA's rank is called.
RESULTS = frozenset({
    "absolute_error", "accuracy", "agrees", "auc", "auc_p", "auc_p_adjusted", "auc_p_these_models",
    "auc_p_these_models_adjusted", "bin", "brier", "brown_forsythe", "brown_forsythe_adjusted", "censored",
    "cliffs_delta", "cluster", "condition", "confidence", "correct", "count", "d_z", "difference",
    "difference_high", "difference_low", "ece", "effect", "effect_size", "example_sd", "examples", "excess",
    "excess_high", "excess_low", "excess_p_adjusted", "fligner_killeen", "fligner_killeen_adjusted",
    "found", "gained", "generated_correct", "group_sd", "groups", "high", "highest", "level", "levene",
    "levene_adjusted", "log_odds", "log_rank", "log_rank_p", "log_rank_p_adjusted", "lost", "low", "lowest",
    "mean", "measurable", "median_layer", "missing", "mutual_information", "mutual_information_null",
    "mutual_information_p", "mutual_information_p_adjusted", "mutual_information_p_these_models",
    "mutual_information_p_these_models_adjusted", "nll", "odds_ratio", "onset", "order", "other",
    "p_adjusted", "p_equivalence", "p_equivalence_adjusted", "p_value", "pair", "pairs", "part",
    "predicted", "random_effect", "random_effect_highest", "random_effect_lowest", "random_share",
    "random_share_highest", "random_share_lowest", "reaction_sd", "reference", "rmsce", "rmsce_high",
    "rmsce_low", "seeds", "sentence", "share", "share_high", "share_low", "signature", "simultaneous_high",
    "simultaneous_low", "spread", "survival", "t", "term", "test", "threshold", "total", "train",
    "training_sd", "value", "variance", "variance_ratio", "verdict", "wording_sd",
})  # fmt: skip
# The axis that every matrix has, and the dimensions of arrays on disk.
WORDS = frozenset({"row", "seed", "statistic"})

RESERVED = frozenset((*DERIVED_OUTCOMES, *DERIVED_ATTRIBUTIONS)).union(WORDS, RESULTS, *NODES.values())


def is_reserved(name: str) -> bool:
    """Tell whether a name is the store's own."""
    return name in RESERVED or name.startswith((*TASK_STAGES,))
