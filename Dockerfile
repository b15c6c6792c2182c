# With CUDA:  docker build -t stillmotion .
# Without:    docker build -t stillmotion:cpu --build-arg BASE=debian:12.12-slim --build-arg DEVICE=cpu .
# How to run it: docs/hosting.md
ARG BASE=nvidia/cuda:13.0.2-base-ubuntu24.04
FROM ${BASE}

# The folders are made here so that empty volumes belong to the user whom they are for.
# Python's version is the distribution's, and so are its security updates: a version pinned here would soon be gone from the mirrors.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --uid 10001 --user-group --create-home --shell /usr/sbin/nologin stillmotion \
    && install -d -o stillmotion -g stillmotion /backups /data /data/models /data/models/checkpoints /data/models/loras /data/models/vae
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1

# The largest layer by far, and the one that changes least. The wheels bring CUDA's libraries; the base brings what lets the driver in.
# PyTorch's build without CUDA lies in an index of its own, so it is pinned by its version; all else by hashes.
ARG DEVICE=cuda
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /app
COPY requirements.txt requirements-${DEVICE}.lock ./
RUN if [ "${DEVICE}" = cpu ]; then pip install --no-cache-dir --no-deps --index-url "${TORCH_INDEX}" "$(grep '^torch==' requirements.txt)"; fi \
    && pip install --no-cache-dir --no-deps --require-hashes -r "requirements-${DEVICE}.lock" \
    && pip check

# EXTRA=ray: replicas on several machines. EXTRA=mcp: MCP clients. Their locks name CUDA's libraries too, so they are for the build with CUDA.
ARG EXTRA=
COPY requirements-*.lock ./
RUN if [ -n "${EXTRA}" ]; then pip install --no-cache-dir --no-deps --require-hashes -r "requirements-${EXTRA}.lock" && pip check; fi

COPY assets assets
COPY pipelines pipelines
COPY workflows workflows
COPY jobs jobs
COPY api api
COPY ui ui
COPY *.py LICENSE docs/licences.md ./
RUN python -m compileall -q .

USER 10001:10001
VOLUME /data
EXPOSE 8000
ENV STILLMOTION_DATA_DIR=/data
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:' + os.environ.get('STILLMOTION_PORT', '8000') + '/healthz', timeout=4)"]
# Asked to stop (SIGTERM), it begins no job any more, gives the one that runs STILLMOTION_DRAIN seconds, and puts it back into the line after that.
ENTRYPOINT ["python", "app.py"]
CMD ["serve", "--listen"]
