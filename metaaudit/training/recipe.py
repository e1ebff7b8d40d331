"""The recipe that a checkpoint of ``metaaudit train`` holds, beside the configuration."""

from __future__ import annotations

import json

from metaaudit.config import Config


def disagreements(metadata: dict[str, str], config: Config) -> list[str]:
    """Where the recipe in a checkpoint of ``metaaudit train`` differs from the configuration."""
    try:
        recipe = json.loads(metadata["recipe"])
        trained = {
            "learner": dict(recipe["learner"]),
            "training": {"weight_decay": recipe["training"]["weight_decay"]},
        }
        epoch, epochs = int(metadata["epoch"]), int(recipe["training"]["epochs"])
    except (KeyError, ValueError, TypeError):
        return []  # from elsewhere: there is nothing to compare with
    found = []
    if epoch < epochs and "snapshot" not in metadata:
        found.append(f"the checkpoint was interrupted after epoch {epoch} of {epochs}")
    now = config.model_dump(mode="json")
    for section, values in trained.items():
        for key, value in values.items():
            if key in now[section] and now[section][key] != value:
                found.append(
                    f"{section}.{key} is {now[section][key]} but the checkpoint was trained with "
                    f"{value}"
                )
    return found
