"""The page's files and their lifetimes; answers that a client may have already (RFC 9110 §13)."""

import hashlib
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

ETAG_BYTES: Final = 12
HASHED: Final = "assets/"  # files whose names carry a hash of their content
FOREVER: Final = "public, max-age=31536000, immutable"
ASK_AGAIN: Final = "no-cache"


class PageFiles(StaticFiles):
    """The page's folder: hashed names are kept, the page itself never, the rest is asked for again."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or nothing when the client has it already. Raises HTTPException 404, 405."""
        response = await super().get_response(path, scope)
        is_page = response.headers.get("content-type", "").startswith("text/html")
        if response.status_code < 400 and not is_page:
            response.headers["Cache-Control"] = FOREVER if path.startswith(HASHED) else ASK_AGAIN
        return response


def json_answer(request: Request, message: bytes) -> Response:
    """A JSON text with its tag, or 304 without it for a client that names the tag."""
    digest = hashlib.blake2b(message, digest_size=ETAG_BYTES).hexdigest()
    tag = f'W/"{digest}"'  # weak: the compressed answer is another sequence of bytes
    known = [part.strip() for part in request.headers.get("if-none-match", "").split(",")]
    if tag in known or tag.removeprefix("W/") in known:
        return Response(status_code=304, headers={"ETag": tag})
    return Response(message, media_type="application/json", headers={"ETag": tag})
