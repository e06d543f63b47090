"""Hooks of the plugin; importing this package registers them."""

from .plain_checkpoint_hook import PlainCheckpointHook

__all__ = ['PlainCheckpointHook']
