"""From examples to token ids and back: prompts, targets, labels, answers."""
