"""The templates of the web pages, ``page/*.j2``. Text that is filled in is escaped, except where it is ``Markup``."""

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
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}  # JavaScript's JSON.parse knows no NaN
    return environment


def render(template: str, **values: object) -> Markup:
    """The ``template`` with ``values`` filled in."""
    return Markup(_environment().get_template(template).render(values))


def source(name: str) -> Markup:
    """A style sheet or script of the package, as it is."""
    loader = _environment().loader
    assert isinstance(loader, BaseLoader)
    return Markup(loader.get_source(_environment(), name)[0])


def digest(text: str) -> str:
    """What a content-security policy calls a style sheet or script that it allows."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
