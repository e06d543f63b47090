"""First on the path of processes that tests start: mmdet imports transformers where it is installed, for models that are not used here,
which takes a fifth of each process's start."""

raise ImportError('transformers is hidden from the processes that tests start (tests/conftest.py)')
