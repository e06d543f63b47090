"""The rows of training aids: that what is timed is what they name."""

from mmdet_detr_plugin.benchmark import aids


def test_every_row_trains_its_own_network_beside_plain_detr(monkeypatch):
    models = []

    def step_of(model, images, samples):
        model.train()
        models.append((model, model.loss(images, samples)))
        return lambda: None

    monkeypatch.setattr(aids, 'training_step', step_of)
    rows = aids.training_rows('cpu', rounds=2, size=(64, 96), num_objects=2)
    names = [row.name for row in rows]
    assert names == ['aids-points', 'aids-dense', 'aids-groups', 'aids-denoising', 'aids-aided', 'aids-local']
    assert all(row.values.keys() == {'plugin', 'plain DETR'} and len(row.values['plugin']) == 2 for row in rows)
    assert all(row.values['plain DETR'] is rows[0].values['plain DETR'] for row in rows)
    plain, points, dense, groups, denoising, aided, local = ({name.split('.')[0] for name in losses} for _, losses in models)
    assert points == plain and plain < dense and plain < groups and plain < denoising and dense <= aided
    assert len({frozenset(dense - plain), frozenset(groups - plain), frozenset(denoising - plain)}) == 3
    assert type(models[-1][0]).__name__ == 'LocalDETR' and 'jitter' in local
