"""The templates of the web pages, ``page/*.j2``. All values are escaped except ``Markup``."""

from __future__ import annotations

import base64
import functools
import hashlib

from jinja2 import BaseLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vidcvae.output", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # JavaScript's JSON.parse rejects NaN
    return environment


def render(template: str, **values: object) -> Markup:
    """Fill ``values`` into the ``template``."""
    return Markup(_environment().get_template(template).render(values))


def source(name: str) -> Markup:
    """A style sheet or script of the package, unchanged."""
    loader = _environment().loader
    assert isinstance(loader, BaseLoader)
    return Markup(loader.get_source(_environment(), name)[0])


def digest(text: str) -> str:
    """The name of an allowed style sheet or script in a content-security policy."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
