"""What a model wrote, as HTML that can do nothing: no script, no form, nothing loaded, links that say where they go."""

from functools import lru_cache
from urllib.parse import urlsplit

import nh3
from django.utils.html import escape, format_html
from django.utils.safestring import mark_safe
from markdown_it import MarkdownIt

# Longer texts are shown as they are: rendering them would keep the page waiting.
MOST_CHARACTERS = 40_000
SCHEMES = {"http", "https", "mailto"}
ATTRIBUTES = {"a": {"href", "target"}, "ol": {"start"}, "div": {"tabindex"}, "pre": {"tabindex"}}
CLASSES = {
    "div": {"scroll", "prose__plain"},
    "table": {"table"},
    "span": {"prose__target"},
    "th": {"number"},
    "td": {"number"},
    "p": {"prose__heading"},
}
TAGS = {
    "a", "blockquote", "br", "code", "del", "div", "em", "hr", "li", "ol", "p", "pre", "s", "span", "strong",
    "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


@lru_cache(maxsize=128)
def render(text):
    """
    ``text`` as safe HTML.

    HTML in it is shown, not obeyed; pictures become their address in words; a link is followed by the host it leads
    to where its words do not say so; headings become bold lines, so that they do not disturb the page's own.
    """
    if len(text) > MOST_CHARACTERS:
        return format_html('<div class="prose__plain">{}</div>', text)
    clean = nh3.clean(
        _parser.render(text.replace("\0", "")),
        tags=TAGS,
        clean_content_tags=set(),
        attributes=ATTRIBUTES,
        allowed_classes=CLASSES,
        url_schemes=SCHEMES,
        url_relative="deny",
        link_rel="noopener noreferrer nofollow",
    )
    return mark_safe(clean)  # noqa: S308 - what nh3 let through


def _image(renderer, tokens, index, options, env):
    token = tokens[index]
    words = renderer.renderInlineAsText(token.children, options, env) if token.children else ""
    return f"{escape(words)} <code>{escape(token.attrGet('src') or '')}</code>"


def _link_open(renderer, tokens, index, options, env):
    token = tokens[index]
    target = _host(token.attrGet("href") or "")
    words = ""
    for following in tokens[index + 1 :]:
        if following.type == "link_close":
            following.meta["target"] = "" if target and target in words else target
            break
        words += following.content
    token.attrs = {"href": token.attrGet("href") or "", "target": "_blank"}
    return renderer.renderToken(tokens, index, options, env)


def _link_close(renderer, tokens, index, options, env):
    target = tokens[index].meta.get("target")
    return "</a>" + (f' <span class="prose__target">({escape(target)})</span>' if target else "")


def _host(href):
    """Where a link leads, as a reader must see it; empty for what is not a link any more after cleaning."""
    try:
        parts = urlsplit(href)
        if parts.scheme == "mailto":
            return parts.path
        return parts.hostname or "" if parts.scheme in SCHEMES else ""
    except ValueError:
        return href


def _heading_open(renderer, tokens, index, options, env):
    return '<p class="prose__heading"><strong>'


def _heading_close(renderer, tokens, index, options, env):
    return "</strong></p>\n"


def _table_open(renderer, tokens, index, options, env):
    return '<div class="scroll" tabindex="0"><table class="table">\n'


def _table_close(renderer, tokens, index, options, env):
    return "</table></div>\n"


def _cell(renderer, tokens, index, options, env):
    token = tokens[index]
    token.attrs = {"class": "number"} if "right" in str(token.attrGet("style")) else {}
    return renderer.renderToken(tokens, index, options, env)


def _fence(renderer, tokens, index, options, env):
    return f'<pre tabindex="0"><code>{escape(tokens[index].content)}</code></pre>\n'


_parser = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
for _name, _rule in {
    "image": _image,
    "link_open": _link_open,
    "link_close": _link_close,
    "heading_open": _heading_open,
    "heading_close": _heading_close,
    "table_open": _table_open,
    "table_close": _table_close,
    "th_open": _cell,
    "td_open": _cell,
    "fence": _fence,
    "code_block": _fence,
}.items():
    _parser.add_render_rule(_name, _rule)
