"""A work directory that came from elsewhere leads training to no other file, and makes it delete none."""

import pytest
import torch

from ..engine.tiny_training import tiny_runner


@pytest.fixture
def run_folder(tmp_path):
    tiny_runner(tmp_path / 'all' / 'run', epochs=1).train()
    (tmp_path / 'all' / 'precious').mkdir()
    (tmp_path / 'all' / 'precious' / 'file.pth').write_text('mine')
    return tmp_path / 'all' / 'run'


@pytest.mark.parametrize('named', ['http://127.0.0.1:9/x.pth', 's3://bucket/x.pth', '../precious/file.pth', '/etc/passwd', 'ABSOLUTE'])
def test_pointer_to_the_last_checkpoint_does_not_lead_away(named, run_folder):
    outside = run_folder.parent / 'precious' / 'file.pth'
    (run_folder / 'last_checkpoint').write_text(str(outside) if named == 'ABSOLUTE' else named)
    with pytest.raises(ValueError, match='last_checkpoint names .*, which is no checkpoint in the folder of this run'):
        tiny_runner(run_folder, resume=True, epochs=2).train()
    assert outside.read_text() == 'mine'


@pytest.mark.parametrize(
    'info',
    [
        dict(outdated_ckpts=['..', '../precious', '.', '/', 7, None]),
        dict(best_ckpt='..'),
        dict(last_ckpt='..'),
        dict(keep_ckpt_ids=['/../../precious/file', '/../../precious/file']),
        dict(keep_ckpt_ids='..'),
    ],
    ids=lambda info: next(iter(info)),
)
def test_lists_in_a_checkpoint_delete_nothing_else(info, run_folder):
    (run_folder / 'epoch_').mkdir()  # with it 'epoch_/../../precious/file.pth' is a path
    file = run_folder / 'epoch_1.pth'
    content = torch.load(file, weights_only=True)
    content['message_hub']['runtime_info'].update(info)
    content['message_hub']['resumed_keys'].update(dict.fromkeys(info, True))
    torch.save(content, file)
    try:
        tiny_runner(run_folder, resume=True, epochs=3, checkpoint=dict(max_keep_ckpts=1)).train()
    except ValueError as error:
        assert 'keep_ckpt_ids' in info and 'expected numbers of epochs' in str(error)
    assert (run_folder.parent / 'precious' / 'file.pth').read_text() == 'mine' and file.parent.is_dir()
