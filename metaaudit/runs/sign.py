"""What the sign of the column ``influence`` says, by the method that filled it."""

from __future__ import annotations

SIGN = (
    "Positive influence = harmful: to first order, including the item raises the evaluation loss "
    "by that much, and removing it lowers it."
)
LEARNED = (
    "Positive influence = harmful: the weight that was learned for the item is that far below the "
    "mean weight."
)
BLIND = {
    "loss": "the loss after adaptation",
    "grad-norm": "the norm of the gradient",
    "random": "a random number",
}
"""What stands under influence by the methods that look at no evaluation task."""


def sign_of(method: str) -> str:
    """One sentence.

    Args:
        method: As the manifest names it.
    """
    if method in BLIND:
        return f"The higher the influence, the more suspicious; it is {BLIND[method]}."
    return LEARNED if method == "mts" else SIGN
