"""The parts of the train stage: adapter, loss, trainer, callbacks and what its log says."""
