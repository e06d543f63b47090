"""Reading a report back without a browser."""

from html.parser import HTMLParser

VOID = {'meta', 'link', 'img', 'wbr', 'br', 'hr', 'input'}


class Element:
    def __init__(self, tag: str, attributes: dict[str, str], parent: 'Element | None') -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element] = []
        self.pieces: list[str | Element] = []

    def find(self, *tags: str) -> list['Element']:
        """Those below it, in order; all of them without ``tags``."""
        return [each for child in self.children for each in ([child] if not tags or child.tag in tags else []) + child.find(*tags)]

    def text(self) -> str:
        return ' '.join(self._raw().split())

    def _raw(self) -> str:
        return ''.join(piece if isinstance(piece, str) else piece._raw() for piece in self.pieces)


class _Parser(HTMLParser):
    """Refuses what is not balanced."""

    def __init__(self) -> None:
        super().__init__()
        self.root = self.open = Element('', {}, None)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        assert len(dict(attributes)) == len(attributes), f'an attribute twice: {self.get_starttag_text()}'
        element = Element(tag, dict(attributes), self.open)
        self.open.children.append(element)
        self.open.pieces.append(element)
        if tag not in VOID:
            self.open = element

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.handle_starttag(tag, attributes)
        self.open = self.open if tag in VOID else self.open.parent

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.tag, f'</{tag}> ends <{self.open.tag}> at {self.getpos()}'
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.pieces.append(data)


def parsed(html: str) -> Element:
    parser = _Parser()
    parser.feed(html)
    parser.close()
    assert parser.open is parser.root, f'<{parser.open.tag}> is not ended'
    return parser.root


def table(page: Element, caption: str) -> list[list[str]]:
    """The texts of a table, its head first."""
    found = [each for each in page.find('table') if each.find('caption')[0].text() == caption]
    assert len(found) == 1, [each.find('caption')[0].text() for each in page.find('table')]
    return [[cell.text() for cell in row.children] for row in found[0].find('tr')]
