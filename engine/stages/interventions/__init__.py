"""Interventions on trained models: which layers carry an effect."""
