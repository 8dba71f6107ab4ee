"""Weights as people have them: files, folders and hubs read lazily, recognised by their header, named as ours are."""
