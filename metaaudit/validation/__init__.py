"""``metaaudit validate``: what a configuration's files hold, without scoring."""

from metaaudit.validation.contact_sheet import contact_sheet
from metaaudit.validation.describe import validate

__all__ = ["contact_sheet", "validate"]
