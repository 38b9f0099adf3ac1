"""Colours and style of all plots."""

# Okabe and Ito's colours, which people with any colour vision tell apart (https://jfly.uni-koeln.de/color/).
BLUE, SKY, ORANGE, GREEN, BLACK = "#0072B2", "#56B4E9", "#E69F00", "#009E73", "#000000"
LINES = (BLUE, ORANGE, GREEN, "#CC79A7", "#D55E00", SKY, "#999999", BLACK)
MARKERS = "osD^vP*X"
PLATE = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # keeps lines off numbers
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True}
