import pytest
from PIL import Image


@pytest.fixture
def write_files(tmp_path):
    """Writes files below a folder and gives it: images of 40 x 30 where the content is None."""

    def write(files, root=tmp_path / "set"):
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content is None:
                Image.new("RGB", (40, 30)).save(path)
            else:
                path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return write
