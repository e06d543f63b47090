"""From detections to what a comparison's report shows.

A model's ``runs`` are one ``Matches`` for each of its seeds, all of the same annotation file; what a function returns is for their mean.
"""
