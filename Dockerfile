# One image for the four services; SERVICE, or the command, says which: docs/deploy.md.

# Debian with Python 3.11 or newer. A tag can be moved: for production give the digest of the image that you
# have scanned, --build-arg BASE=python:3.11.15-slim-bookworm@sha256:...; none is written here because none
# could be looked up where this was written.
ARG BASE=python:3.11.15-slim-bookworm

FROM ${BASE} AS builder
WORKDIR /build
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN python3 -m venv tools \
    && python3 -m venv --without-pip /opt/venv \
    && tools/bin/pip install --only-binary :all: --require-hashes --no-deps -r requirements/build.txt \
    && tools/bin/pip --python /opt/venv/bin/python install --no-compile \
        --only-binary :all: --require-hashes --no-deps -r requirements/runtime.txt
COPY pyproject.toml README.md ./
COPY src/ src/
# Bytecode that is not compared with its source again: a read-only root has no place for it later.
RUN tools/bin/python -m hatchling build -t wheel \
    && tools/bin/pip --python /opt/venv/bin/python install --no-compile --no-index --no-deps dist/*.whl \
    && /opt/venv/bin/python -m compileall -q -j 0 -x '/tests/' --invalidation-mode unchecked-hash /opt/venv

FROM ${BASE}
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    OPENBLAS_NUM_THREADS=1 \
    WEBSOCKET_HOST=0.0.0.0 \
    EMF_DEPLOYMENT=portfolio-realtime
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
# Python's own library comes without bytecode: each start and each health check would compile it again.
RUN python -m compileall -q -j 0 -x '/(test|tests|site-packages|dist-packages)/' --invalidation-mode unchecked-hash \
    "$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')"
COPY deploy/image/entrypoint.sh deploy/image/health.py ./
USER 10001:10001
# 8000 of all services together, 8001 of the WebSocket server on its own
EXPOSE 8000 8001
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=2 CMD ["python", "-I", "-S", "/app/health.py"]
ENTRYPOINT ["/app/entrypoint.sh"]
