"""How the portal looks and what it allows, made of the configuration once, when the application starts."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from relay.config.option import ConfigError
from relay.web.pages.rendering import HEADERS
from relay.web.portal.colours import style_of
from relay.web.portal.texts import Texts, read_texts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from relay.config.options import Config

__all__ = ["Branding", "Picture", "branding_of"]

_MOST_LOGO_BYTES = 512 * 1024
_KINDS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"),
    (b"RIFF", "image/webp"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """A logo that is served from here."""

    content: bytes
    media_type: str

    @property
    def version(self) -> str:
        """A short hash of it, so that a browser may keep it."""
        return sha256(self.content).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class Branding:
    """Name, logo, colours, texts and headers of the portal.

    `logo` is the file's content, `logo_url` the address of one elsewhere; one of them, or neither. `style` is a style
    sheet, '' where the colours are the dashboard's.
    """

    name: str
    texts: Texts
    style: str
    logo: Picture | None
    logo_url: str
    ancestors: tuple[str, ...]

    @property
    def is_embeddable(self) -> bool:
        """Whether other pages may show it in an iframe."""
        return bool(self.ancestors)

    @property
    def style_version(self) -> str:
        """A short hash of the style sheet, so that a browser may keep it."""
        return sha256(self.style.encode()).hexdigest()[:12]

    @property
    def headers(self) -> dict[str, str]:
        """Return what every page says: nothing inline or from elsewhere but the logo, and who may frame it."""
        given = {name: value for name, value in HEADERS.items() if name != "X-Frame-Options" or not self.ancestors}
        given["Content-Security-Policy"] = _policy(self.logo_url, self.ancestors)
        if self.ancestors:
            given["Cross-Origin-Resource-Policy"] = "cross-origin"  # for a page that wants that of its frames
        return given


def _policy(logo_url: str, ancestors: Sequence[str]) -> str:
    pictures = " ".join(filter(None, ("'self'", logo_url)))
    framed = " ".join(("'self'", *ancestors)) if ancestors else "'none'"
    return (
        f"default-src 'none'; style-src 'self'; img-src {pictures}; form-action 'self';"
        f" frame-ancestors {framed}; base-uri 'none'"
    )


def branding_of(config: Config) -> Branding:
    """Return how the portal looks. Raises ConfigError for a logo or a translation that cannot be read."""
    elsewhere = "://" in config.portal_logo
    return Branding(
        name=config.portal_name,
        texts=read_texts(config.portal_language),
        style=style_of(config.portal_colours),
        logo=_picture(Path(config.portal_logo)) if config.portal_logo and not elsewhere else None,
        logo_url=config.portal_logo if elsewhere else "",
        ancestors=config.portal_frame_ancestors,
    )


def _picture(path: Path) -> Picture:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_LOGO_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"portal_logo: {path}: {error.strerror}; name a picture that relay serve can read") from None
    if len(content) > _MOST_LOGO_BYTES:
        raise ConfigError(f"portal_logo: {path} is larger than 512 KiB; make the picture smaller")
    kind = next((kind for beginning, kind in _KINDS if content.startswith(beginning)), "")
    if not kind and b"<svg" in content[:4096]:
        kind = "image/svg+xml"
    if not kind:
        raise ConfigError(f"portal_logo: {path} is no picture; give an SVG, PNG, JPEG, GIF or WebP")
    return Picture(content, kind)
