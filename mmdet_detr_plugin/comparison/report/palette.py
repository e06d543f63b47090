"""How models are told apart: Okabe and Ito's colours, and a marker and a line of their own for eyes that do not see colours.

Each colour has two shades, so that its contrast is 3:1 or more on the light and on the dark page; black and yellow have no such pair.
"""

LIGHT_PAGE, DARK_PAGE = '#ffffff', '#14171a'
# (light page, dark page): blue, vermilion, bluish green, reddish purple, orange, sky blue
COLOURS = (
    ('#0072b2', '#3d9bd9'),
    ('#d55e00', '#e8742a'),
    ('#009e73', '#1fb58a'),
    ('#b86a95', '#cc79a7'),
    ('#b87a00', '#e69f00'),
    ('#2f8fc7', '#8fd0f5'),
)
# matplotlib's marker, and the same as an SVG path around (0, 0)
MARKERS = (
    ('o', 'M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0 -7 0z'),
    ('s', 'M-3.2 -3.2h6.4v6.4h-6.4z'),
    ('^', 'M0 -4L3.8 3.2H-3.8z'),
    ('D', 'M0 -4.4L4.4 0L0 4.4L-4.4 0z'),
    ('v', 'M0 4L3.8 -3.2H-3.8z'),
    ('P', 'M-1.4 -4h2.8v2.6h2.6v2.8h-2.6v2.6h-2.8v-2.6h-2.6v-2.8h2.6z'),
    ('h', 'M0 -4L3.5 -2V2L0 4L-3.5 2V-2z'),
)
# on and off, in line widths; seven markers, six colours and these four come together again after 84 models only
DASHES = ((), (5, 2), (1, 1.5), (6, 2, 1, 2))


def colour(series: int) -> str:
    """The light page's shade, which stands for the CSS variable until ``svg`` puts it there."""
    return COLOURS[series % len(COLOURS)][0]


def marker(series: int) -> str:
    return MARKERS[series % len(MARKERS)][0]


def marker_path(series: int) -> str:
    return MARKERS[series % len(MARKERS)][1]


def dashes(series: int) -> tuple[float, ...]:
    return DASHES[series % len(DASHES)]


def css_variable(series: int) -> str:
    return f'--series-{series % len(COLOURS)}'


def css_colour(series: int) -> str:
    return f'var({css_variable(series)})'
