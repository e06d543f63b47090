"""Images side by side with ground truth."""

from ..blocks import Picture, Pictures, Section


def examples(results: dict) -> Section | None:
    groups = tuple(
        Pictures(group['group'], group['rule'], tuple(Picture(entry['file'], entry['alt'], entry['image']) for entry in group['pictures']))
        for group in results.get('examples') or []
    )
    if not groups:
        return None
    reading = (
        'The images were chosen by the rule above each group, not by hand; '
        'a few images do not tell how often a group occurs, for which see the tables.'
    )
    return Section('examples', 'Examples', reading, groups)
