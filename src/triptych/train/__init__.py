"""Training: data, objectives, the loop and the recipes of the embedded models."""
