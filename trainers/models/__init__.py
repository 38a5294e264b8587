"""The base model, its chat template, its adapter, its precision."""
