import pytest

from fasterrcnn import errors


@pytest.mark.parametrize(
    ("kind", "parent"),
    [
        (errors.UsageError, ValueError),
        (errors.MissingExtraError, errors.UsageError),
        (errors.ImageError, errors.DataError),
        (errors.DataError, errors.FasterRCNNError),
        (errors.WeightsError, errors.FasterRCNNError),
        (errors.TrainingError, errors.FasterRCNNError),
        (errors.UsageError, errors.FasterRCNNError),
    ],
)
def test_errors__tree(kind, parent):
    assert issubclass(kind, parent)


def test_missing_extra__names_what_to_install():
    with pytest.raises(errors.MissingExtraError, match=r'^timm is not installed: pip install "fasterrcnn\[timm\]"$'):
        raise errors.MissingExtraError("timm", "timm")
