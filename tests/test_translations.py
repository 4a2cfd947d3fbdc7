"""Every string that is marked stands in every catalog, whole, with the placeholders and tags of its source."""

import functools
import re
from pathlib import Path

import pytest
from babel.messages.extract import DEFAULT_KEYWORDS, extract
from babel.messages.pofile import read_po
from django.conf import settings
from django.template import Context, engines
from django.template.base import FilterExpression
from django.templatetags.i18n import BlockTranslateNode, TranslateNode

ROOT = Path(settings.BASE_DIR)
APPS = ["config", "console", "gateway", "playground", "providers", "usage"]
LANGUAGES = [code for code, _name in settings.LANGUAGES if code != settings.LANGUAGE_CODE]
KEYWORDS = DEFAULT_KEYWORDS | {
    f"{name}_lazy": DEFAULT_KEYWORDS[name] for name in ("gettext", "ngettext", "pgettext", "npgettext")
}
# %(name)s, {name}, the capitals that a script puts a figure for, tags with their attributes, a line break as typed.
KEPT = re.compile(r"%\(\w+\)[sd]|%%|\{\w*\}|\bNUMBER\b|</?[a-z][^>]*>|\\n")
CONSTANT = re.compile(r"""_\(("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')\)""")


@functools.cache
def marked():
    """``{(context, text): (plural, where)}`` of everything that templates and Python mark."""
    found = {}

    def add(where, context, singular, plural=None):
        known, place = found.get((context, singular), (None, where))
        found[context, singular] = known or plural, place

    for path in sorted(ROOT.glob("templates/**/*.html")):
        name = str(path.relative_to(ROOT / "templates"))
        for context, *texts in texts_of(engines["django"].get_template(name).template.nodelist):
            add(name, context, *texts)
    for path in sorted(path for app in APPS for path in (ROOT / app).rglob("*.py")):
        with path.open("rb") as file:
            for line, message, _comments, context in extract("python", file, KEYWORDS):
                add(f"{path.relative_to(ROOT)}:{line}", context, *([message] if isinstance(message, str) else message))
    return found


def texts_of(template):
    """A context and one or two texts for each string that is marked anywhere in a compiled template."""
    seen, waiting = set(), [template]
    while waiting:
        part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, TranslateNode):
            yield context_of(part), part.filter_expression.var.literal.replace("%", "%%")
        elif isinstance(part, BlockTranslateNode):
            forms = [tokens for tokens in (part.singular, part.plural) if tokens]
            yield context_of(part), *(part.render_token_list(tokens)[0] for tokens in forms)
        elif isinstance(part, FilterExpression):
            yield from ((None, text[1:-1]) for text in CONSTANT.findall(part.token))
        if isinstance(part, (list, tuple)):
            waiting += part
        elif isinstance(part, dict):
            waiting += part.values()
        elif type(part).__module__.split(".")[0] in {"django", "django_htmx", *APPS} and hasattr(part, "__dict__"):
            waiting += [value for name, value in vars(part).items() if name not in {"origin", "func"}]


def context_of(node):
    return node.message_context.resolve(Context()) if node.message_context else None


def catalog(language):
    with (ROOT / "locale" / language / "LC_MESSAGES" / "django.po").open("rb") as file:
        return read_po(file, abort_invalid=True)


def forms(text):
    return list(text) if isinstance(text, (list, tuple)) else [text]


def entries(language):
    return {(entry.context, forms(entry.id)[0]): entry for entry in catalog(language) if entry.id}


def test_strings_are_found_wherever_they_are_marked():
    found = marked()
    assert found[None, "API keys"] == (None, "console/api_key_list.html")
    assert found["theme", "Dark"][1] == "components/_account_menu.html"
    assert found[None, "%(shown)s key"][0] == "%(shown)s keys"
    assert (None, "Copy message") in found  # an argument of another tag
    assert found[
        None,
        "Stacked bars: %(chart_title)s, %(period_name)s. Arrow keys move from bar to bar. "
        "The table below has the same figures.",
    ]  # within a partial
    assert found[None, "Expires in %(days)s day"][1].startswith("console/templatetags/console.py:")
    assert found["keys", "Revoked"][1].startswith("console/views/api_keys.py:")
    assert len(found) > 600


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_marked_string_is_translated(language):
    translated, plurals = entries(language), catalog(language).num_plurals
    wrong = []
    for key, (plural, where) in marked().items():
        entry = translated.get(key)
        if entry is None:
            wrong.append(("missing", where, *key))
        elif entry.fuzzy:
            wrong.append(("fuzzy", where, *key))
        elif not all(forms(entry.string)) or len(forms(entry.string)) != (plurals if plural else 1):
            wrong.append(("empty", where, *key))
        elif plural and forms(entry.id) != [key[1], plural]:
            wrong.append(("another plural", where, *key))
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_no_catalog_holds_what_is_no_longer_said(language):
    assert sorted(set(entries(language)) - set(marked()), key=str) == []
    assert not catalog(language).obsolete


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_placeholders_and_tags(language):
    wrong = []
    for entry in entries(language).values():
        allowed = [set(KEPT.findall(text)) for text in forms(entry.id)]
        wrong += [text for text in forms(entry.string) if set(KEPT.findall(text)) not in allowed]
    assert wrong == []


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_keep_the_tone_of_the_source(language):
    """No exclamation mark, no space at either end, and a full stop where the source has one."""
    wrong = []
    for entry in entries(language).values():
        source = forms(entry.id)[0]
        for text in forms(entry.string):
            if "!" in text or text != text.strip() or (source.endswith(".") and not text.endswith(".")):
                wrong.append((source, text))
    assert wrong == []


def test_french_keeps_its_typography():
    """Apostrophes are curved, and a narrow no-break space stands before ; : ? % and within « »."""
    # A mark after another space or none, a guillemet without its space; addresses and tags are no prose.
    wrong_mark = re.compile(r"(?<![\u202f;:?])[;:?»]|«(?!\u202f)|(?<!\u202f)%(?!\(|%)|'|\"|\.\.\.")
    prose = re.compile(r"https?://|data:\S*|Authorization:|%\(\w+\)[sd]|</?[a-z][^>]*>|%[sd]")
    wrong = []
    for entry in entries("fr").values():
        wrong += [text for text in forms(entry.string) if wrong_mark.search(prose.sub("", text))]
    assert wrong == []
