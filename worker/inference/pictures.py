"""Images out of a stranger's bytes: two formats, bounded in size before they are decoded."""

from __future__ import annotations

import base64
import struct
from io import BytesIO
from typing import Final

from PIL import Image

from worker.inference.errors import BadImage

# 24 megapixels: 72 MB decoded.
MAX_PIXELS: Final = 24_000_000
_FORMATS: Final = ("PNG", "JPEG")


def open_image(text: str, where: str) -> Image.Image:
    """RGB image of base64 text.

    Raises:
        BadImage: no base64, no PNG or JPEG, too many pixels, or broken.
    """
    try:
        # Opening reads the header alone; the pixels are counted before room is made for them.
        image = Image.open(BytesIO(base64.b64decode(text, validate=True)), formats=_FORMATS)
        pixels = image.width * image.height
        if pixels > MAX_PIXELS:
            raise BadImage(where, f"it has {pixels} pixels, at most {MAX_PIXELS} are read")
        return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise BadImage(where, "it is no PNG or JPEG that can be read") from error
