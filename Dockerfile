# With CUDA: docker build .
# Without:   docker build --build-arg BASE=debian:12-slim --build-arg REQUIREMENTS=requirements.txt \
#                         --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
ARG BASE=nvidia/cuda:12.8.1-base-ubuntu24.04
FROM ${BASE}

ARG REQUIREMENTS=requirements-cuda.txt
ARG PIP_EXTRA_INDEX_URL=
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PATH=/opt/venv/bin:$PATH

RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/venv \
    && useradd --create-home --uid 10001 stillmotion

WORKDIR /app
COPY requirements.txt requirements-cuda.txt ./
RUN pip install -r ${REQUIREMENTS}
COPY *.py ./
COPY pipelines pipelines
COPY workflows workflows
COPY jobs jobs
COPY api api
COPY assets assets

RUN mkdir /data && chown stillmotion /data
USER stillmotion
VOLUME /data
ENV STILLMOTION_DATA_DIR=/data
ENTRYPOINT ["python", "app.py"]
EXPOSE 8000
CMD ["serve", "--listen"]
