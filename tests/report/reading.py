"""A page read back: whole, and without anything that reaches out of the file or runs."""

from html.parser import HTMLParser

VOID = {"meta", "img", "br", "input", "link", "hr"}
EMPTY = {"rect", "path", "use", "line", "circle"}
"""Of SVG, closed at once."""


class Page(HTMLParser):
    """Raises AssertionError for tags that do not match; `text`, `tags` and `addresses` are for tests to look at."""

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.addresses: list[str] = []
        self.parts: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self._seen(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self._seen(tag, attrs)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.parts.append(data)

    def _seen(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        for key, value in attrs:
            assert not key.startswith("on"), f"{tag} has {key}"
            if key in ("src", "href", "xlink:href", "action", "data", "srcset", "poster", "background"):
                self.addresses.append(value)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.parts).split())

    def named(self, tag: str) -> list[dict]:
        return [attrs for name, attrs in self.tags if name == tag]


def harmless(text: str) -> Page:
    """The page, once nothing in it loads or runs."""
    page = Page(text)
    names = {tag for tag, _ in page.tags}
    assert not names & {
        "script",
        "iframe",
        "object",
        "embed",
        "link",
        "form",
        "base",
        "audio",
        "video",
        "foreignobject",
    }
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    styles = text.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in styles and "url(" not in styles and "http" not in styles
    policy = [meta["content"] for meta in page.named("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert len(policy) == 1 and "default-src 'none'" in policy[0] and "script" not in policy[0]
    return page
