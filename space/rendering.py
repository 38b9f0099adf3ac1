"""HTML from the templates in `templates/`, in which every value is escaped.

A value is text unless it is itself the result of [`render`], so what a shop or a shopper wrote can't become HTML.
"""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

FOLDER = Path(__file__).parent
STATIC = FOLDER / "static"

_ENVIRONMENT = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=True,
    undefined=StrictUndefined,  # a misspelt name is an error, not an empty text
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **values: Any) -> Markup:
    """The HTML of a template, such as "card" for `templates/card.html`."""
    return Markup(_ENVIRONMENT.get_template(f"{template}.html").render(values).strip())


def read_script(name: str) -> str:
    """A script in `static/`, which a component runs in the browser with the variables that Gradio gives it."""
    return (STATIC / f"{name}.js").read_text(encoding="utf-8")
