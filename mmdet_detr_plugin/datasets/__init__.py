"""Data sets of the plugin. Kept empty, so that generating and converting data needs neither torch nor mmdet."""
