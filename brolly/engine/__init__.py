"""One causal language model at work: cache, sampler and the step that joins them."""
