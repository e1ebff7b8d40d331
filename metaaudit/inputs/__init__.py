"""What a configuration names: models, checkpoints and task sets, one file a format."""
