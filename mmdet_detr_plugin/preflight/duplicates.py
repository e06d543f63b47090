"""Images that training and evaluation share: an AP on them says nothing about new images."""

import hashlib
import os
import time
from itertools import combinations

from .finding import NOTE, WARNING, Finding, part
from .splits import Split

SECONDS = 10.0  # for each pair of splits, half of it for sizes and half for contents


def check_shared_images(splits: list[Split], seconds: float = SECONDS) -> list[Finding]:
    """For all pairs of splits: the same file in both, or files of the same content, whatever their names.

    Read are only files that have the same stated size and the same number of bytes as one of the other split; those of equal names first.
    """
    return [finding for a, b in combinations(splits, 2) if a.loader != b.loader for finding in _shared(a, b, seconds)]


def _shared(a: Split, b: Split, seconds: float) -> list[Finding]:
    severity, advice = NOTE, f'choose models on {a.name}, report {b.name}: both need images of their own'
    if a.is_training:
        severity, advice = WARNING, 'evaluation then measures memory, not what is learned: keep each image in one split'
    ours, theirs = _sizes_by_path(a), _sizes_by_path(b)
    findings = []
    if both := sorted(ours.keys() & theirs.keys()):
        what = f'image files in {a.name} too: {part(len(both), b.num_images, "images")} of {b.name}; the first: {both[0]}'
        findings.append(Finding('data', severity, what, advice))
        for path in both:
            del ours[path], theirs[path]
    candidates, is_complete = _equally_large(ours, theirs, time.monotonic() + seconds / 2)
    first_of: dict[bytes, str] = {}  # content -> an image of ``a``
    digests, end = {}, time.monotonic() + seconds / 2
    for path in candidates:
        if time.monotonic() > end:
            break
        if digest := _digest(path):
            digests[path] = digest
            if path in ours:
                first_of.setdefault(digest, path)
    if copies := [path for path, digest in digests.items() if path in theirs and digest in first_of]:
        example = f'the first: {copies[0]} = {first_of[digests[copies[0]]]}'
        what = f'copies of images of {a.name}: {part(len(copies), b.num_images, "images")} of {b.name}; {example}'
        findings.append(Finding('data', severity, what, advice))
    if not is_complete or len(digests) < len(candidates):
        sizes = '' if is_complete else ', and not all file sizes were read'
        what = f'{a.name} and {b.name}: {len(digests)} of {len(candidates)} equally large images were compared in {seconds:g} s{sizes}'
        findings.append(Finding('data', NOTE, what, 'the others may hold copies: compare checksums of all files once'))
    return findings


def _sizes_by_path(split: Split) -> dict[str, tuple[float, float]]:
    folder = os.path.abspath(split.image_dir)
    names = split.annotations.file_names
    return {os.path.normpath(os.path.join(folder, name)): tuple(size) for name, size in zip(names, split.annotations.sizes_wh.tolist())}


def _equally_large(ours: dict, theirs: dict, end: float) -> tuple[list[str], bool]:
    """Files of either split with as many bytes and the same stated size as one of the other; whether all were looked at."""
    sizes = set(theirs.values()) & set(ours.values())
    names = {os.path.basename(path) for path in theirs}
    groups: dict[tuple, tuple[list, list]] = {}
    is_complete = True
    for side, paths in enumerate((theirs, ours)):
        # equal names first, in case time runs out
        for path in sorted((path for path, size in paths.items() if size in sizes), key=lambda path: os.path.basename(path) not in names):
            if time.monotonic() > end:
                is_complete = False
                break
            try:
                key = (*paths[path], os.stat(path).st_size)
            except OSError:  # reported with the files
                continue
            if side == 0 or key in groups:
                groups.setdefault(key, ([], []))[side].append(path)
    pairs = [group for group in groups.values() if all(group)]
    pairs.sort(key=lambda group: not {os.path.basename(path) for path in group[0]} & {os.path.basename(path) for path in group[1]})
    return [path for group in pairs for paths in group for path in paths], is_complete


def _digest(path: str) -> bytes | None:
    try:
        with open(path, 'rb') as file:
            return hashlib.file_digest(file, 'blake2b').digest()
    except OSError:
        return None
