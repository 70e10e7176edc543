"""Colours of groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

BLUE, VERMILLION = "#0072B2", "#D55E00"
MISSING = "#d0d0d0"

# Okabe and Ito (2008); their yellow and black, which vanish among points, replaced by a deep
# purple and a brown that stay apart from the others in protanopia and deuteranopia
_OKABE_ITO = (
    BLUE,
    "#E69F00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    VERMILLION,
    "#5C2A6E",
    "#7B3F00",
)


# control and treated, no and yes: the second is the one to look at
_TWO = ("#8FA3B5", VERMILLION)


def palette(n_colours: int) -> list[str]:
    """Return colours that differ: for colour-blind readers too, up to eight."""
    if n_colours == len(_TWO):
        return list(_TWO)
    if n_colours <= len(_OKABE_ITO):
        return list(_OKABE_ITO[:n_colours])
    import matplotlib as mpl
    from matplotlib.colors import to_hex

    if n_colours <= 20:
        tab20 = mpl.colormaps["tab20"]
        # the ten dark colours first, then their light twins
        return [to_hex(tab20(2 * (k % 10) + k // 10)) for k in range(n_colours)]
    rainbow = mpl.colormaps["gist_rainbow"]
    hues = [to_hex(rainbow(k / n_colours)) for k in range(n_colours)]
    # neighbours in order far apart in hue
    return [hue for offset in range(3) for hue in hues[offset::3]]


def colours_of_groups(
    adata: Any, key: str, groups: Sequence[Any], chosen: Any = None
) -> dict[Any, str]:
    """Return the colour of each group: chosen, else those of ``uns``, else a palette.

    Parameters
    ----------
    adata
        The data; ``adata.uns[f"{key}_colors"]`` is used as scanpy does, and never written.
    key
        Column of ``obs``.
    groups
        The groups in order, used or not.
    chosen
        A mapping from group to colour, or a sequence of colours.
    """
    from matplotlib.colors import is_color_like

    if isinstance(chosen, dict):
        default = dict(zip(groups, palette(len(groups)), strict=True))
        return {group: str(chosen.get(group, default[group])) for group in groups}
    for colours in (chosen, adata.uns.get(f"{key}_colors")):
        # an h5ad gives them back as an array of strings
        listed = [] if colours is None else [str(colour) for colour in colours]
        if len(listed) >= len(groups) > 0 and all(map(is_color_like, listed)):
            return dict(zip(groups, listed, strict=False))
    return dict(zip(groups, palette(len(groups)), strict=True))
