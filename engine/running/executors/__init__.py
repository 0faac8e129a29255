"""Executors: where units of work run. All have the interface of `engine.running.executors.base.Executor`."""
