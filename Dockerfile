# One image for every service of lowtide: the worker by default; page, Flower and commands too.
# Python packages are pinned by config/constraints.txt, the base by its tag; to pin it by digest:
#   docker build --build-arg PYTHON=python:3.13-slim-bookworm@sha256:… .
ARG PYTHON=python:3.13-slim-bookworm

FROM ${PYTHON} AS build
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
# Without pip of its own: nothing can be installed into a running container.
RUN python -m venv --without-pip /venv
COPY config/constraints.txt config/constraints.txt
RUN pip install --quiet --constraint config/constraints.txt --upgrade pip
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN pip --python /venv/bin/python install --quiet --constraint config/constraints.txt \
      --build-constraint config/constraints.txt '.[postgres,flower,simulator,web]'

FROM ${PYTHON}
RUN useradd --uid 10001 --system --create-home --home-dir /var/lib/lowtide lowtide
COPY --from=build /venv /venv
WORKDIR /app
COPY worker worker
COPY tasks tasks
COPY config config
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    LOWTIDE_HOME=/var/lib/lowtide
USER 10001
# Batch files on their way, and the page's tables; what a worker has here may be lost.
VOLUME /var/lib/lowtide
# Celery's warm shutdown: what runs is ended, nothing new is taken. Whoever stops the container
# gives it a minute; a worker that is killed then has lost nothing, another one takes over.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=20s --start-period=60s --retries=3 \
  CMD ["python", "-m", "worker.entrypoint", "lowtide", "health"]
ENTRYPOINT ["python", "-m", "worker.entrypoint"]
CMD ["celery", "-A", "worker.app", "worker", "--loglevel", "INFO"]
