"""What is told of a source that is read: once, however many processes read it."""

from accelerate import PartialState
from transformers.utils import logging

logger = logging.get_logger(__name__)


def tell(note: str) -> None:
    """Warns of something that was assumed, changed or left out, in the main process alone."""
    if PartialState().is_main_process:
        logger.warning(note)
