"""Training at several sites that share weights and no images."""
