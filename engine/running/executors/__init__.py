"""Executors: where units of work run. All have the interface of `base.UnitExecutor`."""
